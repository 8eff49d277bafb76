"""NaN, infinity and small counters: right ports conform, refusals are accepted, and each wrong port has its name."""

import warnings

import numpy as np
import pytest
from helpers.toy_port import OPTIONS, Settable

from amos_ref import spec
from amos_ref.conformance import table
from amos_ref.conformance.diagnosis import lives
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.extremes import is_extreme
from amos_ref.conformance.judging import judge as judging
from amos_ref.conformance.judging.bound import Bound
from amos_ref.conformance.judging.tolerance import trajectory_of_page
from amos_ref.conformance.ports.target import as_port
from examples.ports.amos_numpy import step
from tools.simulated_port import SimulatedPort

EXTREME = [case for case in table() if is_extreme(case)]
CASES = {case.name: case for case in EXTREME if case.dtype == "float64"}
PLAIN = [case for case in table() if case.dtype == "float64" and case.name in ("plain", "clip")]
NARROW = ("int8", "uint8", "int16", "int32", "float16", "bfloat16", "float32")
NAMES = [
    *("nan-clipped-to-lowest", "nan-clipped-to-highest", "nan-is-zero", "non-finite-is-zero", "nan-dropped-by-max"),
    *("non-finite-array-skipped", "non-finite-step-skipped", "non-finite-step-counted"),
    *(f"count-{dtype}" for dtype in NARROW),
]


def judge(port):
    """Return the result of each case by its name, and what the port did."""
    results, seen = judging.run(port, [*PLAIN, *CASES.values()])
    return {r.case: r for r in results}, seen


def failing(found):
    """The names of the cases that fail."""
    return {name for name, result in found.items() if result.failed}


def test_the_page_has_nan_in_the_spoiled_slot_and_numbers_elsewhere():
    last = trajectory_of_page(CASES["nan-rows-clip"], CASES["nan-rows-clip"].eta)[-1]
    for what in ("v", "b", "theta"):
        spoiled = np.isnan(getattr(last["kernel"].step, what)).all(axis=1)
        assert list(np.flatnonzero(spoiled)) == [1], what
        assert np.isfinite(last["kernel"].allowed[what]).all()
        assert np.isfinite(getattr(last["bias"].step, what)).all()
    assert np.isfinite(
        trajectory_of_page(CASES["infinity-clip"], CASES["infinity-clip"].eta)[-1]["bias"].step.theta
    ).all()


def test_right_ports_conform_in_both_precisions(right):
    extreme = {(case.name, case.dtype) for case in EXTREME}
    verdicts = {(r.case, r.dtype): r.verdict for r in right.results if (r.case, r.dtype) in extreme}
    assert set(verdicts) == extreme
    assert set(verdicts.values()) == {"conforms"}


@pytest.mark.parametrize("name", NAMES)
def test_each_deviation_is_caught_and_named(name):
    port = SimulatedPort(name, seed=3)
    found, seen = judge(port)
    assert failing(found)
    assert diagnose(port, seen).deviations == [name]


class Refusing(Settable):
    """Raises an error of its own at a gradient that is not finite."""

    def step(self, grads):
        for name, g in grads.items():
            if g is not None and not np.isfinite(g).all() and self.h["clip_value"] is None:
                raise FloatingPointError(f"the gradient of {name} is not finite")
        return super().step(grads)


def test_a_port_may_refuse_what_is_not_finite():
    found, _ = judge(Refusing())
    assert not failing(found)
    assert found["nan"].detail == "step 3 is refused: FloatingPointError: the gradient of bias is not finite"
    assert found["nan-clip"].detail == ""


def test_what_came_before_a_refusal_is_judged():
    class Wrong(Refusing):
        wrong = "sum for mean"

        def __init__(self):
            super().__init__(self.wrong)

    result = judging.judge(Wrong(), CASES["nan"])[0]
    assert (result.verdict, result.step) == ("departs", 1)


def test_an_error_before_nan_has_come_is_no_refusal():
    class Early(Settable):
        def step(self, grads):
            if self.t == 1:
                raise ValueError("at step 2")
            return super().step(grads)

    result = judging.judge(Early(), CASES["nan"])[0]
    assert (result.verdict, result.step) == ("raises", 2)


def test_memory_that_runs_out_is_no_refusal():
    class Full(Settable):
        def step(self, grads):
            if self.t == 2:
                raise MemoryError
            return super().step(grads)

    assert judging.judge(Full(), CASES["nan"])[0].verdict == "raises"


def test_numpy_warns_of_nothing_while_a_port_runs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert judging.judge(Settable(), CASES["infinity"])[0].verdict == "conforms"


def test_nan_must_meet_nan():
    """A judge that took a bound of NaN for wide enough would say yes to any number there."""
    one, nan = np.array([1.0]), np.array([np.nan])
    assert judging._compare(nan, nan, np.array([0.0]), True)[0] == 0
    assert judging._compare(one, nan, nan, True)[0] == np.inf
    assert judging._compare(one, one + 1e-9, nan, True)[0] == np.inf
    assert judging._compare(nan, one, np.array([1.0]), True)[2] == "not finite"
    inf = np.array([np.inf])
    assert judging._compare(inf, inf, one, True)[0] == judging._compare(nan, inf, one, True)[0] == 0
    assert judging._compare(-inf, inf, one, True)[0] == judging._compare(one, inf, one, True)[0] == np.inf


def test_a_bound_of_nan_in_one_slot_spoils_no_other(monkeypatch):
    """As it was: the largest relative error was NaN, and the whole case unbounded."""
    steps = [now["kernel"].step for now in trajectory_of_page(CASES["nan-rows"], CASES["nan-rows"].eta)]
    bound = Bound(steps[0], "float64")
    for one in steps:
        bound.advance(one)
    assert 0 < bound.theta[0].max() < 1e-14
    assert not bound.theta[1].any()


def test_a_function_is_given_the_count():
    found, _ = judge(as_port(step))
    assert not failing(found)
    assert found["count-2^31"].verdict == "conforms"


def test_a_function_that_counts_in_its_state():
    def counting(theta, g, state, learning_rate, eta, beta, count=np.int8):
        t = state.get("t", count(0)) + count(1)
        state = {k: state.get(k, np.zeros(())) for k in ("v", "b")}
        with np.errstate(all="ignore"):
            theta, state = step(theta, g, state, max(int(t), 0), learning_rate, eta, (), beta)
        return theta, {**state, "t": t}

    def in_64_bits(theta, g, state, learning_rate, eta, beta):
        return counting(theta, g, state, learning_rate, eta, beta, np.int64)

    assert not failing(judge(as_port(in_64_bits))[0])
    wrong = failing(judge(as_port(counting))[0])
    assert "count-128" in wrong
    assert not wrong & {"plain", "nan"}


def test_without_a_count_that_can_be_set_nothing_is_said():
    class Closed(Settable):
        put_count = property()

    def forgetful(theta, g, state, learning_rate, eta, beta):
        own = dict(state)
        n = own.pop("calls", 0) + 1
        theta, own = step(theta, g, own, n, learning_rate, eta, (), beta)
        return theta, {**own, "calls": n}

    assert judging.judge(Closed(), CASES["count-128"])[0].verdict == "not supported"
    result = judging.judge(as_port(forgetful), CASES["count-128"])[0]
    assert (result.verdict, result.detail) == (
        "not supported",
        "the port takes no t and keeps no count that could be set",
    )


def test_the_port_needs_no_clipping_for_most_of_it():
    found, _ = judge(Settable(options=OPTIONS - {"clip_value", "slot_shape"}))
    assert {name for name, r in found.items() if r.verdict == "conforms"} >= {"nan", "infinity", "count-2^24"}


def test_the_page_corrects_for_each_of_the_counts():
    """The number that is passed and the one before it are told apart, but at 2^31, where beta^t is 0."""
    for name, case in CASES.items():
        if case.count is not None:
            q = [spec.one_minus_power(case.options["beta"], t) for t in (case.count + 1, case.count + 2)]
            assert (q[0] < q[1]) == (name != "count-2^31"), name


def test_a_v_whose_nan_is_dropped_has_its_name():
    results, seen = judging.run(port := SimulatedPort("nan-dropped-from-v", seed=3), [*PLAIN, *CASES.values()])
    assert {r.case for r in results if r.failed} == {"nan", "nan-clip", "nan-rows", "nan-rows-clip", "nan-v"}
    assert lives.diagnose(port, seen).life == ["nan-dropped-from-v"]


def test_where_only_b_is_wrong_it_is_not_left_out_as_another_form():
    """Theta alone would be right in every case: that is no reason to call the port right."""
    port = SimulatedPort("nan-dropped-from-b", seed=3)
    results, seen = judging.run(port, [*PLAIN, CASES["nan"]])
    assert {r.stage for r in results if r.failed} == {"b"}
    assert lives.diagnose(port, seen).life == ["nan-dropped-from-b"]
    port.overrides = [{"b": lambda s, page: np.where(np.isnan(page(s)), 1.0, page(s))}]  # what no catalogue has
    results, seen = judging.run(port, [*PLAIN, CASES["nan"]])
    assert lives.diagnose(port, seen).text == "no known deviation explains case nan."


@pytest.mark.parametrize("name", ["gamma-at-most-1", "rho-at-most-1"])
def test_a_large_learning_rate_shows_what_holds_back(name):
    large = [case for case in table() if case.name == "large-rate" and case.dtype == "float64"]
    port = SimulatedPort(name, seed=3)
    results, seen = judging.run(port, [*PLAIN, *large])
    assert [r.case for r in results if r.failed] == ["large-rate"]
    assert diagnose(port, seen).deviations == [name]
