"""The life of an optimizer: what happens to it changes nothing, and what a port makes of it has a name."""

import numpy as np
import pytest
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.conformance import cases_of, check, table
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.life import is_life
from amos_ref.conformance.ports.failures import Unsupported
from examples.ports.amos_numpy import step
from tools.simulated_port import SimulatedPort

LIFE = [case for case in table() if is_life(case)]
FEW = [*LIFE, *(case for case in table() if case.dtype == "float64" and case.name in ("plain", "none-at-first"))]


def test_cases_of_a_life_are_run_once_in_the_most_precise_dtype():
    for dtypes in (("float64", "float32"), ("float32", "bfloat16"), ("bfloat16",)):
        for suite in ("full", "quick"):
            found = cases_of(suite, SimulatedPort(dtypes=dtypes))
            assert {case.dtype for case in found if is_life(case)} == {dtypes[0]}
            assert [case.name for case in found if is_life(case)] == [case.name for case in LIFE]


@pytest.mark.parametrize("name", [name for name, deviation in CATALOGUE.items() if deviation.stage == "life"])
def test_every_deviation_of_a_life_is_named(name):
    port = SimulatedPort(name)
    results, seen = run(port, FEW)
    wrong = {result.case for result in results if result.verdict != "conforms"}
    assert wrong
    assert wrong <= {case.name for case in LIFE if CATALOGUE[name].only(case)}
    found = diagnose(port, seen)
    assert found is not None
    assert found.deviations == [name]


def test_a_right_port_undergoes_everything():
    results, seen = run(SimulatedPort(), FEW)
    assert {result.verdict for result in results} == {"conforms"}
    assert diagnose(SimulatedPort(), seen) is None


def averaging(theta, g, state, t, learning_rate, eta, slot_shape=(), beta=0.999, momentum=0.0):
    """Average the change with a momentum of 0 as well: m is the last change then."""
    return step(theta, g, state, t, learning_rate, eta, slot_shape, beta, momentum or 2.0**-1000)


def beginning_at_g(theta, g, state, t, learning_rate, eta, slot_shape=(), beta=0.999, momentum=0.0):
    """Begin the average at the gradient where it is switched on."""
    state = state | {"m": g} if momentum and "m" not in state else state
    return step(theta, g, state, t, learning_rate, eta, slot_shape, beta, momentum)


@pytest.mark.parametrize(
    ("port", "verdict"), [(step, "conforms"), (averaging, "conforms"), (beginning_at_g, "departs")]
)
def test_a_momentum_that_is_switched_on_begins_at_0_or_at_the_last_change(port, verdict):
    report = check(port, dtypes="float64", cases=["plain", "life-momentum-on"])
    assert [r.verdict for r in report.results] == ["conforms", verdict], str(report)
    assert ("the change before" in report.results[1].detail) == (port is averaging)


class Living(ToyPort):
    """Forgets b when its state is loaded, cannot be pickled, and has no notion of the rest."""

    def undergo(self, event):
        if event == "pickle":
            raise TypeError("cannot pickle 'generator' object")
        if event != "state_dict":
            raise Unsupported(f"the port has no {event}")
        self.b = {name: np.zeros_like(b) for name, b in self.b.items()}


def test_what_a_port_makes_of_an_event_is_its_verdict():
    results, _ = run(Living(options=OPTIONS - {"momentum"}), LIFE)
    found = {r.case: (r.verdict, r.step, r.detail) for r in results}
    assert found["life-pickle"] == ("raises", 3, "pickle: TypeError: cannot pickle 'generator' object")
    assert found["life-deepcopy"] == ("not supported", 3, "deepcopy: the port has no deepcopy")
    assert found["life-groups"] == ("not supported", None, "groups: the port has no groups")
    assert found["life-pickle-momentum"] == ("not supported", None, "the port has no momentum")
    assert found["life-state_dict"][:2] == ("departs", 4)
    assert found["life-equal-shapes"][0] == "conforms"


def test_a_port_without_the_method_is_not_supported_there():
    report = check(ToyPort(), suite="quick")
    assert report.ok
    lacking = {r.case for r in report.results if r.detail == "the port has no method undergo"}
    assert lacking == {case.name for case in LIFE if case.events}


def test_a_port_in_a_process_of_its_own_undergoes_it_there(tmp_path):
    path = tmp_path / "port.py"
    path.write_text("from tools.simulated_port import SimulatedPort\nport = SimulatedPort('deepcopy-loses-v')\n")
    report = check(f"{path}:port", suite="quick")
    assert {r.case for r in report.results if r.verdict != "conforms"} == {"life-deepcopy", "life-deepcopy-momentum"}
    assert report.diagnosis is not None
    assert report.diagnosis.deviations == ["deepcopy-loses-v"]
