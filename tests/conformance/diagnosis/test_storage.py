"""Ports that round inside, and ports that align slots at the wrong end: seen by cases made for that, and named."""

import numpy as np
import pytest

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import LIVE_ONLY
from amos_ref.conformance.diagnosis.deviation import at_first_axis
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.judging.judge import judge, run
from tools.simulated_port import SimulatedPort

FEW = ("plain", "slots-rows", "3-d", *LIVE_ONLY)


def few_cases(algorithm):
    return [c for c in ALGORITHMS[algorithm].table() if c.dtype == "float64" and c.name in FEW]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("gradient-in-float32", "full-significands"),
        ("theta-read-in-float32", "plain"),
        ("theta-in-float32", "plain"),
        ("gradient-in-bfloat16", "plain"),
        ("slots-at-first-axis", "slots-either-end"),
    ],
)
def test_each_shows_in_its_case_and_is_named(algorithm, name, case):
    cases, port = few_cases(algorithm), SimulatedPort(name, seed=5, algorithm=algorithm)
    assert next(judge(port, one)[0].verdict for one in cases if one.name == case) == "departs"
    found = diagnose(port, run(port, cases)[1])
    assert found is not None
    assert found.deviations == [name]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_rounded_gradient_shows_in_no_other_case(algorithm):
    """Without full significands the port passed: every other gradient is float32's already."""
    port = SimulatedPort("gradient-in-float32", seed=5, algorithm=algorithm)
    departing = [c.name for c in few_cases(algorithm) if judge(port, c)[0].verdict == "departs"]
    assert departing == ["full-significands"]


def test_slots_that_fit_at_both_ends_are_aligned_at_the_first_axis():
    assert at_first_axis((4, 3, 4), (4,)) == (4, 1, 1)
    assert at_first_axis((3, 4), (4,)) == (4,)  # it fits at the last axis only
    assert at_first_axis((5, 3, 4), (3, 1)) == (3, 1)
    assert at_first_axis((5, 5), (5, 1)) == (5, 1)
    assert at_first_axis((5,), ()) == ()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_cases_are_made_for_this(algorithm):
    cases = {case.name: case for case in few_cases(algorithm)}
    for name in ("slots-fewer-axes", "slots-either-end"):
        case = cases[name]
        assert all(0 < len(case.slots[leaf]) < a.ndim for leaf, a in case.params.items())
        fits = {at_first_axis(a.shape, case.slots[leaf]) != case.slots[leaf] for leaf, a in case.params.items()}
        assert fits == {name == "slots-either-end"}
    full = cases["full-significands"]
    for a in [*full.params.values(), *full.grads[0].values()]:
        assert np.all((np.float32(a) != a) | (a == 0.0))
