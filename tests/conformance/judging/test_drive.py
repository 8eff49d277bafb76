"""Ports that misbehave while they are driven: each way has its verdict, and none is a crash of the check."""

import re
import sys

import pytest
from helpers import bad_ports
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.conformance import check, table
from amos_ref.conformance.judging import judge
from amos_ref.errors import AmosError, TargetError


@pytest.mark.parametrize(
    ("port", "verdict", "text"),
    [
        (bad_ports.Raising, "raises", "ZeroDivisionError: no step today"),
        (bad_ports.Quitting, "raises", "SystemExit: 0"),
        (bad_ports.Mute, "raises", "Mumble: (its message cannot be printed)"),
        (bad_ports.Lying, "raises", "Liar: all is well"),
        (bad_ports.Odd, "raises", "ValueError: \\x00\\x1b[31m\\udc80 <&]]>|`é"),
        (bad_ports.Raised, "raises", "Above: of all exceptions"),
        (bad_ports.Posing, "crashes", "all is well"),
        (bad_ports.Named, "raises", r"\x1b[2J:"),
        (bad_ports.Crashed, "crashes", "ended by signal 11"),
        (bad_ports.Flat, "wrong shape", "shape (30,) where the page has (6, 5)"),
        (bad_ports.Reshaping, "wrong shape", "shape (2, 9) where the page has (6, 5)"),
        (bad_ports.Drifting, "not finite", "is nan where the page has"),
        (bad_ports.Overflowing, "not finite", "[0, 0] is inf where the page has"),
        (bad_ports.Complex, "garbage", "theta of leaf 'kernel' is complex"),
        (bad_ports.Losing, "garbage", "step returned leaves ['kernel'] for ['bias', 'kernel']"),
        (bad_ports.Wordy, "garbage", "theta of leaf 'kernel' is not an array of real numbers: ValueError: could not"),
        (bad_ports.Empty, "garbage", "theta is NoneType; it must be a dict of arrays by leaf"),
        (bad_ports.Stateless, "garbage", "state returned NoneType; it must be a dict"),
        (bad_ports.HalfStateless, "garbage", "v is NoneType; it must be a dict of arrays by leaf"),
        (bad_ports.Scribbling, "overwrites its input", "it writes to the gradient of 'bias', 'kernel': a second step"),
        (bad_ports.Aliasing, "overwrites its input", "it writes to the gradient of 'bias', 'kernel': a second step"),
    ],
)
def test_ports_that_misbehave(port, verdict, text, short_diagnosis):
    result = judge.judge(port(), table()[0])[0]
    assert result.verdict == verdict
    assert result.failed
    assert text in result.detail
    assert result.detail.isprintable()
    assert not check(port(), suite="quick").ok


class Babbling(ToyPort):
    """Prints, replaces standard output, and its name cannot be printed."""

    class Nameless:
        def __str__(self):
            raise SystemExit

    name = Nameless()

    def step(self, grads):
        print("a step")
        sys.stdout = None
        return super().step(grads)


def test_what_a_port_prints_in_this_process_is_no_part_of_our_output(capsys):
    before = sys.stdout
    report = check(Babbling(), suite="quick")
    assert sys.stdout is before
    out, err = capsys.readouterr()
    assert out == ""
    assert "a step" in err
    assert report.summary().startswith("(it cannot be printed): ")
    assert report.ok


def test_a_port_may_keep_and_step_the_parameters_it_was_given():
    assert check(bad_ports.InPlace(), suite="quick").ok


class Telling(ToyPort):
    """It tells an eta of its own, as a function of an array."""

    def __init__(self, tell):
        super().__init__(options=OPTIONS - {"eta"})
        self.tell = tell

    def own_eta(self, params):
        return {name: self.tell(a) for name, a in params.items()}

    def init(self, params, hyper):
        super().init(params, hyper)


@pytest.mark.parametrize("own", [3.0, {"kernel": 0.5}, {}])
def test_what_is_no_eta_by_leaf_is_a_named_error(own, monkeypatch):
    port = Telling(None)
    monkeypatch.setattr(port, "own_eta", lambda params: own)
    with pytest.raises(TargetError, match=r"toy tells its eta as .*; it must be a dict with an entry for each leaf"):
        judge.judge(port, table()[0])


@pytest.mark.parametrize(
    ("tell", "verdict", "text"),
    [
        (lambda a: 0.5 / len(a.shape), "raises", "of leaf 'x', of shape (): ZeroDivisionError: float division by zero"),
        (
            lambda a: a.shape and 0.5,
            "garbage",
            "of leaf 'x', of shape (): eta of leaf 'x' is (); it must be a finite number",
        ),
    ],
)
def test_an_eta_that_one_leaf_has_not_is_the_verdict_of_one_case(tell, verdict, text):
    report = check(Telling(tell), suite="quick")
    others = {r.verdict for r in report.results if r.case != "0-d"}
    (found,) = [r for r in report.results if r.case == "0-d"]
    assert others == {"conforms", "not supported"}
    assert (found.verdict, found.step) == (verdict, None)
    assert text in found.detail


def test_an_eta_that_no_leaf_has_ends_the_check():
    def tell(a):
        raise KeyError("scale")

    with pytest.raises(TargetError, match="toy could not be started on any case: asked for its eta of leaf 'kernel'"):
        check(Telling(tell), suite="quick")


def test_a_rule_for_eta_is_asked_for_the_cases_that_it_can_answer():
    port = ToyPort(options=OPTIONS - {"eta"})
    report = check(port, suite="quick", eta="sqrt(1/SHAPE[-1])", dtypes="float64", cases=["0-d", "1-d"])
    assert [r.verdict for r in report.results] == ["not supported", "conforms"]
    assert report.results[0].detail.startswith("--eta has no value here: eta of leaf 'x'")
    for eta, text in (
        ("", "--eta is empty; it must be a number"),
        ("SHAPE[", "SHAPE"),
        ("-1", "must be a finite number"),
    ):
        with pytest.raises(AmosError, match=re.escape(text)):
            check(port, suite="quick", eta=eta)
