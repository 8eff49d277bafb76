"""The judge: each wrong port departs where its mistake is, and the verdict says so in words."""

import numpy as np
import pytest
from helpers import bad_ports
from helpers.toy_port import MISTAKES, AllAxes, ToyPort

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


def few_axes(port):
    """Judge what needs slots; return the verdicts of the cases with fewer axes, and those of the others."""
    cases = [case for case in CASES if any(case.slots.values()) and not case.special()]
    results, _ = judge.run(port, cases)
    verdicts = {r.case: r.verdict for r in results if r.dtype == "float64"}
    few = {case.name: verdicts.pop(case.name) for case in cases if case.may_lack and case.name in verdicts}
    return few, verdicts, results


def test_a_port_may_raise_at_slots_of_fewer_axes():
    few, others, results = few_axes(AllAxes())
    assert few == dict.fromkeys(("slots-fewer-axes", "slots-either-end"), "not supported")
    assert set(others.values()) == {"conforms", "not supported"}  # the toy's state cannot be set
    text = "the port takes no slots of fewer axes than their leaf: IndexError: tuple index out of range"
    assert {r.detail for r in results if r.case in few} == {text}
    assert Report("all axes", results).ok


class AtFirstAxis(ToyPort):
    """It aligns slots at the first axis, where they fit or not: what does not fit is a ValueError."""

    def mean(self, name, x):
        slot = self.v[name].shape
        if not 0 < len(slot) < x.ndim:
            return super().mean(name, x)
        return np.mean(x, axis=tuple(range(len(slot), x.ndim))).reshape(slot)


class FailingInOne(ToyPort):
    """It takes such slots, and has a fault that shows where the leaf has two equal sides."""

    def mean(self, name, x):
        assert not 0 < len(self.v[name].shape) < x.ndim or len(set(x.shape)) == x.ndim
        return super().mean(name, x)


class FailingLater(ToyPort):
    """It takes such slots, and falls over at the second step."""

    def mean(self, name, x):
        assert not 0 < len(self.v[name].shape) < x.ndim or self.t < 2
        return super().mean(name, x)


class FailingAtSlots(ToyPort):
    """It raises wherever there are slots: what that is has nothing to do with their axes."""

    def mean(self, name, x):
        assert not self.v[name].shape
        return super().mean(name, x)


@pytest.mark.parametrize(
    ("port", "few", "other"),
    [
        (AtFirstAxis, ["raises", "departs"], "conforms"),
        (FailingInOne, ["conforms", "raises"], "conforms"),
        (FailingLater, ["raises", "raises"], "conforms"),
        (FailingAtSlots, ["raises", "raises"], "raises"),
    ],
)
def test_a_fault_at_slots_of_fewer_axes_is_no_refusal(port, few, other):
    found, others, results = few_axes(port())
    assert [found[name] for name in ("slots-fewer-axes", "slots-either-end")] == few
    assert others["slots-rows"] == other
    assert not Report("at fault", results).ok
