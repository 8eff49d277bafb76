"""Ports that misbehave while they are driven: each way has its verdict, and none is a crash of the check."""

import sys

import pytest
from helpers import bad_ports
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.conformance import check, table
from amos_ref.conformance.judging import judge
from amos_ref.errors import AmosError


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


@pytest.mark.parametrize(
    "own", [3.0, {"kernel": 0.5}, {"kernel": 0.5, "bias": 0.0}, {"kernel": None, "bias": 1.0}, ZeroDivisionError]
)
def test_an_eta_that_the_port_tells_wrongly_is_a_named_error(own):
    class Telling(ToyPort):
        def own_eta(self, params):
            if own is ZeroDivisionError:
                raise own
            return own

    with pytest.raises(AmosError) as caught:
        judge.judge(Telling(options=OPTIONS - {"eta"}), table()[0])[0]
    assert "\n" not in str(caught.value)
