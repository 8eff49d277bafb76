"""The envelope of float16 and bfloat16: right evaluations lie within, and deviations beyond."""

import json

import numpy as np
import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import table
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.diagnosis.catalogue import reading_of
from amos_ref.conformance.judging import envelope, judge
from amos_ref.conformance.judging.reading import Reading
from tools.simulated_port import SimulatedPort

CASES = [case for case in table() if case.dtype in ("float16", "bfloat16") and case.name in ("plain", "aged", "clip")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}/{case.dtype}")
@pytest.mark.parametrize("seed", [1, 1001, 2002])  # one of those that make the envelope, two that do not
def test_right_evaluations_conform(case, seed):
    assert judge.judge(SimulatedPort(seed=seed), case)[0].verdict == "conforms"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("wrong", "name"),
    [("gamma-sign", "aged"), ("d-absent", "aged"), ("clip-ignored", "clip"), ("bias-absent", "plain")],
)
def test_deviations_depart(dtype, wrong, name):
    case = next(case for case in CASES if (case.name, case.dtype) == (name, dtype))
    assert judge.judge(SimulatedPort(wrong), case)[0].verdict == "departs"


def test_a_port_that_does_not_name_these_formats_is_not_run_in_them():
    assert judge.judge(ToyPort(), CASES[0])[0].detail == "the port has no bfloat16"


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_the_stored_errors_are_what_is_measured(algorithm):
    stored = json.loads(envelope.path_of(algorithm).read_text(encoding="utf-8"))
    cases, of = envelope.low_cases(algorithm), envelope.stored_etas
    keys = [(case, etas, envelope.key_of(case) + end) for case in cases for end, etas in of(case).items()]
    assert list(stored) == [key for _, _, key in keys]
    for case, etas, key in keys[::7]:
        measured = [[worst[what] for what in algorithm.quantities] for worst in envelope.measure(case, etas, Reading())]
        assert stored[key] == measured


def test_the_eta_of_get_scale_is_stored(monkeypatch):
    """It is what the published ports for torch have, of which measuring would take a third of a check."""
    case = next(case for case in table() if envelope.key_of(case) == "3-d/bfloat16")
    etas = {name: (1 / a.shape[1]) ** 0.5 for name, a in case.params.items()}
    assert etas != case.eta
    allowed = list(envelope.allowances(case, etas, Reading()))
    monkeypatch.setattr(envelope, "_stored", lambda name: {})
    measured = list(envelope.allowances(case, etas, Reading()))
    for ours, theirs in zip(allowed, measured, strict=True):
        np.testing.assert_equal(ours, theirs)
    monkeypatch.undo()
    monkeypatch.setattr(envelope, "measure", None)
    list(envelope.allowances(case, etas, Reading()))


def test_another_eta_or_reading_is_measured(monkeypatch):
    """What is stored is the page's, with the eta of the table: anything else would be judged by another's errors."""
    case = next(case for case in table() if envelope.key_of(case) == "plain/bfloat16")
    asked = []
    monkeypatch.setattr(envelope, "measure", lambda *given: asked.append(given) or iter(()))
    others = (dict.fromkeys(case.eta, 0.75), Reading()), (case.eta, reading_of(("eta-twice",)))
    for etas, reading in others:
        with pytest.raises(ValueError, match="zip"):
            list(envelope.allowances(case, etas, reading))
    assert len(asked) == 2
    list(envelope.allowances(case, case.eta, Reading()))
    assert len(asked) == 2
