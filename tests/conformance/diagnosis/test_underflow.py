"""Numbers that float16 does not hold: the default of epsilon is 0 there, and a slot without gradients becomes NaN."""

import numpy as np
import pytest
from helpers.toy_port import OPTIONS, ToyPort

import amos_ref
from amos_ref.conformance.diagnosis import further
from amos_ref.conformance.diagnosis.catalogue import deviation
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.judging import drive, envelope
from amos_ref.conformance.judging.reading import Reading
from tools.simulated_port import SimulatedPort


def checked(port, algorithm="paper"):
    return amos_ref.conformance.check(port, dtypes="float16", skip="life*", algorithm=algorithm)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("epsilon-underflows", "paper"),
        ("epsilon-absent", "paper"),
        ("epsilon-underflows", "closed-form"),
    ],
)
def test_it_is_named(name, algorithm):
    report = checked(SimulatedPort(name, algorithm=algorithm), algorithm)
    assert report.diagnosis.deviations == [name]
    assert report.results[0].verdict == "conforms"


def test_nan_in_one_slot_leaves_the_bounds_of_the_others():
    """The size of m is the leaf's largest change: with NaN in one slot, nothing of the leaf was within its bounds."""
    case = next(c for c in amos_ref.conformance.table() if (c.name, c.dtype) == ("everything", "float16"))
    grads = [{name: g * np.arange(g.size).reshape(g.shape) for name, g in given.items()} for given in case.grads]
    case = case._replace(grads=grads, slots={name: a.shape for name, a in case.params.items()})
    overrides = deviation("epsilon-underflows").overrides
    for allowed in envelope.allowances(case, case.eta, Reading([overrides])):
        for of_leaf in allowed.values():
            assert np.isnan(of_leaf["b"]).any()
            assert np.isfinite(of_leaf["m"]).all()


class Rounding(SimulatedPort):
    """As ports for torch do it: all of a step in float16, epsilon too."""

    def init(self, params, hyper):
        super().init(params, {**hyper, "epsilon": float(np.float16(hyper.get("epsilon", 2.0**-125)))})


def test_a_port_that_has_it():
    assert checked(Rounding()).diagnosis.deviations == ["epsilon-underflows"]


class Squaring(ToyPort):
    """All of a step in float16, the sum of squares too, which is infinity where a gradient of 256 is among them."""

    dtypes = ("float16",)


def without_large_gradients():
    with np.errstate(all="ignore"):
        return checked(Squaring(options=OPTIONS - {"slot_shape", "clip_value", "c_coef", "d_coef"})).diagnosis


def test_no_input_that_confirms_a_name_has_sums_that_float16_does_not_hold(monkeypatch):
    assert without_large_gradients().deviations == ["epsilon-underflows"]
    monkeypatch.setattr(further, "LARGEST_HALF", np.inf)
    assert without_large_gradients().deviations == []


def test_where_a_reading_has_the_pages_numbers_nothing_is_measured(monkeypatch):
    """Measuring takes two dozen evaluations; a case that a deviation does not change is judged as the page's."""
    case = next(c for c in amos_ref.conformance.table() if (c.name, c.dtype) == ("plain", "float16"))
    measured, true = [], envelope.measure
    monkeypatch.setattr(envelope, "measure", lambda *given: measured.append(given) or true(*given))
    held = Evidence([drive.observe(SimulatedPort(), case, None, None)])
    assert held.outcome(("epsilon-underflows",), 0) is None
    assert not measured
    assert held.outcome(("alpha-times-1.001",), 0) is None  # another number, within its bounds
    assert len(measured) == 1
