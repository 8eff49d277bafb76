"""The ways in which a port can fail, and how they are told."""

from amos_ref.conformance.ports.failures import (
    Crash,
    Ended,
    Garbage,
    Hang,
    Killed,
    PortError,
    PortFailure,
    Unsupported,
    escape,
    failure_of,
    message,
    text_of,
)


def test_every_failure_has_a_verdict_and_none_passes():
    kinds = [PortError, Hang, Crash, Ended, Killed, Garbage, Unsupported]
    verdicts = [kind.verdict for kind in kinds]
    assert verdicts == ["raises", "hangs", "crashes", "ended", "killed", "garbage", "not supported"]
    assert all(issubclass(kind, PortFailure) for kind in kinds)
    assert all(failure_of(kind("")) is kind for kind in kinds)


def test_the_most_exact_failure_counts_and_nothing_that_only_says_so():
    class Other(Killed):
        verdict = "conforms"

    class Poser(Exception):
        __class__ = Killed

    assert failure_of(Other("")) is Killed
    assert failure_of(Poser("")) is None


def test_what_is_printed_holds_nothing_that_a_terminal_obeys():
    assert escape("\x1b[2J\x9b1m\r\u202e\udc80é") == r"\x1b[2J\x9b1m\r\u202e\udc80é"

    class Text(str):
        def __str__(self):
            return self

        def strip(self):
            raise AssertionError

    class Sly(Exception):
        def __str__(self):
            return Text("\x1b")

    assert message(Sly()) == r"\x1b"
    assert type(text_of(Text("x"))) is str
