"""Ways to use an optimizer that is a plain function, and what a port keeps from one run to the next."""

import numpy as np
import pytest
from helpers.toy_port import Settable

from amos_ref.conformance import check, table
from amos_ref.conformance.diagnosis import memory
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.ports.failures import Unsupported
from amos_ref.conformance.ports.target import as_port
from examples.ports.amos_numpy import step

CASES = [
    case for case in table() if case.dtype == "float64" and (case.name.startswith("life-") or case.name == "plain")
]


class Forgetful(dict):
    """A state that is empty after it was copied or pickled."""

    def __reduce__(self):
        return dict, ()


def judge(function):
    """Return the names of the cases by verdict, and the deviations found."""
    port = as_port(function)
    results, seen = run(port, CASES)
    verdicts = {}
    for r in results:
        verdicts.setdefault(r.verdict, set()).add(r.case)
    found = diagnose(port, seen)
    return verdicts, found and found.deviations


def one_step(theta, g, state, t, learning_rate, eta, beta):
    return step(theta, g, state, t, learning_rate, eta, (), beta)


def test_a_right_function_lives_through_all_that_it_can():
    verdicts, found = judge(one_step)
    assert set(verdicts) == {"conforms", "not supported"}
    assert {"life-pickle", "life-deepcopy", "life-two-at-once", "life-other-order"} <= verdicts["conforms"]
    assert {"life-jit", "life-masked", "life-state_dict"} <= verdicts["not supported"]
    assert found is None


def test_a_state_that_is_lost_in_a_copy():
    def losing(theta, g, state, t, learning_rate, eta, beta):
        theta, own = one_step(theta, g, state.get("own", {}), t, learning_rate, eta, beta)
        return theta, {"own": Forgetful(own), **own}

    port = as_port(losing)
    results, seen = run(port, [case for case in CASES if case.name in ("plain", "life-pickle", "life-two-at-once")])
    assert {r.case for r in results if r.failed} == {"life-pickle"}
    assert diagnose(port, seen).deviations == ["pickle-loses-state"]


def test_a_state_that_cannot_be_pickled_is_said():
    def unpicklable(theta, g, state, t, learning_rate, eta, beta):
        return *one_step(theta, g, state, t, learning_rate, eta, beta)[:1], {"of": lambda: 0}

    port = as_port(unpicklable)
    case = CASES[0]
    port.init(dict(case.params), case.options | {"eta": case.eta})
    port.step(case.grads[0])
    with pytest.raises(Unsupported, match="cannot be pickled"):
        port.undergo("pickle")


def test_states_in_the_order_of_calls():
    held, place = {}, [0, 0]

    def in_order(theta, g, state, t, learning_rate, eta, beta):
        if t != place[0]:
            place[:] = t, 0
        if t == 1:
            held[place[1]] = {}
        theta, held[place[1]] = one_step(theta, g, held[place[1]], t, learning_rate, eta, beta)
        place[1] += 1
        return theta, dict(held[place[1] - 1])

    alone = [case for case in CASES if case.name in ("plain", "life-equal-shapes", "life-other-order")]
    port = as_port(in_order)
    results, seen = run(port, alone)
    assert {r.case for r in results if r.failed} == {"life-other-order"}
    assert diagnose(port, seen).deviations == ["state-follows-order"]


class Kept(Settable):
    """Starts v where the run before left it."""

    v = None

    def init(self, params, hyper):
        kept = type(self).v
        super().init(params, hyper)
        if kept is not None and {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in self.v.items()}:
            self.v = {k: v.astype(self.f) for k, v in kept.items()}
        type(self).v = self.v


def test_what_is_kept_from_the_run_before_is_named(monkeypatch):
    report = check(Kept(), "quick")
    assert report.results[0].verdict == "conforms"
    assert report.diagnosis.deviations == ["kept-from-run-to-run"]
    monkeypatch.setattr(memory, "compare", lambda one: report.results[0])  # each run looked at alone
    monkeypatch.setattr(memory, "_differ", lambda one, other: False)
    assert memory.find_memory(Kept(), run(Kept(), CASES[:1])[1], None, None) is None


def test_a_port_that_is_wrong_alike_in_every_run_keeps_nothing():
    report = check(Settable("sum for mean"), "quick")
    assert report.diagnosis.deviations == ["sum-for-mean"]


def test_near_is_what_rounding_may_do():
    a = np.array([1.0, 1e-9])
    assert memory._near(a, a + 1e-4)
    assert not memory._near(a, a + 1e-2)
    assert memory._near(np.array([np.nan]), np.array([np.nan]))
