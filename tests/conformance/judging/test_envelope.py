"""The envelope of float16 and bfloat16: right evaluations lie within, and deviations beyond."""

import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import table
from amos_ref.conformance.judging import judge
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
