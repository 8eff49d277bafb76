"""How a port can fail: the verdict of a case, and one line that says what happened."""

from typing import Any

from amos_ref.errors import AmosError, escape


class PortFailure(AmosError):
    """The base of these failures: each is a verdict of a case, not an error of the check."""

    verdict = "raises"


class PortError(PortFailure):
    """The port reported an error; the message holds its words."""


class Hang(PortFailure):
    """No answer came in time."""

    verdict = "hangs"


class Crash(PortFailure):
    """The port can answer no more."""

    verdict = "crashes"


class Ended(Crash):
    """The port's process ended instead of answering."""

    verdict = "ended"


class Killed(Crash):
    """A signal ended the port's process, as a segmentation fault does."""

    verdict = "killed"


class Garbage(PortFailure):
    """The answer is not of the form that the protocol asks for."""

    verdict = "garbage"


class Unsupported(PortFailure):
    """The port cannot do what the case needs; its arithmetic may be right."""

    verdict = "not supported"


#: All of them by name: the last that fits is the most exact.
FAILURES = {cls.__name__: cls for cls in (PortFailure, PortError, Hang, Crash, Ended, Killed, Garbage, Unsupported)}


def failure_of(error: BaseException) -> type[PortFailure] | None:
    """Return which of these failures an error is, whatever a port derived from it and says of itself."""
    return next((cls for cls in reversed(FAILURES.values()) if issubclass(type(error), cls)), None)


def text_of(value: Any, otherwise: str = "(it cannot be printed)") -> str:
    """Return str(value), which may raise, or return a text with methods of its own."""
    try:
        return str.__str__(str(value))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return otherwise


def quote(data: bytes | bytearray | str, length: int = 60) -> str:
    """Return the first characters of what a port said in quotes, without anything that a terminal would obey."""
    text = data if isinstance(data, str) else bytes(data[: 4 * length]).decode("utf-8", "replace")
    return repr(text[:length]) + ("..." if len(text) > length else "")


def message(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = text_of(error, "(its message cannot be printed)").strip().splitlines() or [""]
    return escape(lines[0][:2000])


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error's message."""
    return f"{escape(text_of(type(error).__name__))}: {message(error)}"
