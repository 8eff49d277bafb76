"""The closed form's bounds: right evaluations stay below them, the smallest mistakes do not."""

import numpy as np
import pytest

from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.judging.drive import observe
from amos_ref.conformance.judging.judge import first_departure, judge
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.judging.tolerance import trajectory
from tools.simulated_port import SimulatedPort

DTYPES = ("float64", "float32", "bfloat16", "float16")
CASES = {dtype: [case for case in CLOSED_FORM.table() if case.dtype == dtype] for dtype in DTYPES}


def case_of(name, dtype="float64"):
    return next(case for case in CASES[dtype] if case.name == name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_evaluations_conform(dtype):
    """A sample of what tools.judge_quality tries a thousand of."""
    cases = [case for case in CASES[dtype] if not case.events]
    for seed in range(40):
        port = SimulatedPort(seed=seed, algorithm="closed-form")
        result, _ = judge(port, cases[7 * seed % len(cases)])
        assert result.verdict == "conforms", (seed, result)


@pytest.mark.parametrize("name", ["recurrence", "late-recurrence", "long", "adam-long", "sigma-init", "everything"])
def test_what_adds_up_stays_below_the_bound(name):
    for seed in range(12):
        port = SimulatedPort(seed=seed, algorithm="closed-form")
        for dtype in ("float64", "float32"):
            result, _ = judge(port, case_of(name, dtype))
            assert result.verdict == "conforms", (seed, result)


def test_a_mistake_of_float32_is_seen_in_float64():
    result, _ = judge(SimulatedPort("schedule-float32", algorithm="closed-form"), case_of("late"))
    assert (result.verdict, result.step) == ("departs", 2)


@pytest.mark.parametrize("name", ["plain", "adam-long", "sigma-init", "everything"])
def test_bounds_are_not_much_too_wide(name):
    """A twentieth of them would accuse some right port."""
    case = case_of(name, "float32")
    bounds = list(trajectory(case, case.eta, Reading()))
    ports = [SimulatedPort(seed=seed, algorithm="closed-form") for seed in range(20)]
    assert any(first_departure(observe(port, case).shown, bounds, slack=0.05)[0] for port in ports)


def test_there_is_no_bound_where_there_is_no_number():
    case = case_of("nan-rows")
    *_, last = trajectory(case, case.eta, Reading())
    theta, allowed = last["kernel"].step.theta, last["kernel"].allowed["theta"]
    assert np.isnan(theta).any()
    assert not allowed[np.isnan(theta)].any()
    assert (allowed[np.isfinite(theta)] > 0).all()
