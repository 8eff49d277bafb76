"""The judge: each wrong port departs where its mistake is, and the verdict says so in words."""

import numpy as np
import pytest
from helpers import bad_ports
from helpers.toy_port import MISTAKES, ToyPort

from amos_ref.conformance import table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.report import Report

CASES = [case for case in table() if case.dtype in ("float64", "float32")]


@pytest.mark.parametrize("wrong", MISTAKES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_mistake_departs_at_its_stage(wrong, dtype):
    results, _ = judge.run(ToyPort(wrong), [case for case in CASES if case.dtype == dtype])
    departing = [r for r in results if r.verdict == "departs"]
    assert departing
    assert MISTAKES[wrong] in {r.stage for r in departing}
    assert all(r.ratio > 1 and r.step >= 1 and r.leaf in ("kernel", "bias", "x") for r in departing)


@pytest.mark.parametrize("wrong", MISTAKES)
def test_each_mistake_shows_in_theta_alone(wrong):
    class Closed(ToyPort):
        def state(self):
            return {}

    departing = [r for r in judge.run(Closed(wrong), CASES)[0] if r.verdict == "departs"]
    assert departing
    assert {r.stage for r in departing} == {"theta"}


def test_alpha_and_rho_of_the_wrong_step_are_told():
    result, _ = judge.judge(ToyPort("extra_l2 sign"), next(case for case in CASES if case.name == "extra_l2"))
    assert result.step == 1
    assert "rho is -0.09375 (page 0.15625)" in result.detail


def test_no_row_asks_whether_the_port_computes_in_float32():
    class Single(ToyPort):
        def init(self, params, hyper):
            super().init({name: a.astype(np.float32) for name, a in params.items()}, hyper)

        def step(self, grads):
            return super().step({name: None if g is None else g.astype(np.float32) for name, g in grads.items()})

    result = judge.judge(Single(), table()[0])[0]
    assert result.verdict == "departs"
    assert "float32" not in result.detail  # the diagnosis says so once, where it is proven


def test_a_wrong_port_that_overwrites_its_input_departs_and_is_told_both():
    result = judge.judge(bad_ports.Scribbling("c with xi"), table()[0])[0]
    assert (result.verdict, result.stage) == ("departs", "b")
    assert result.detail.endswith("; it also writes to the gradient of 'bias', 'kernel'")


def test_a_port_that_lacks_what_every_case_needs_is_not_ok():
    class Never(ToyPort):
        skips_none = False

    cases = [case for case in table() if case.needs()]
    report = Report("never", judge.run(Never(options={"learning_rate", "eta"}), cases)[0])
    assert set(report.counts()) == {"not supported"}
    assert not report.ok
