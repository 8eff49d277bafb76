"""How a port can fail: the verdict of a case, and one line that says what happened."""

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
    """The port's process ended instead of answering."""

    verdict = "crashes"


class Garbage(PortFailure):
    """The answer is not of the form that the protocol asks for."""

    verdict = "garbage"


class Unsupported(PortFailure):
    """The port cannot do what the case needs; its arithmetic may be right."""

    verdict = "not supported"


def quote(data: bytes | bytearray | str, length: int = 60) -> str:
    """Return the first characters of what a port said in quotes, without anything that a terminal would obey."""
    text = data if isinstance(data, str) else bytes(data[: 4 * length]).decode("utf-8", "replace")
    return repr(text[:length]) + ("..." if len(text) > length else "")


def message(error: BaseException) -> str:
    """Return the first line of an error's message; an error may fail to be turned into text."""
    try:
        lines = str(error).strip().splitlines() or [""]
    except Exception:
        lines = ["(its message cannot be printed)"]
    return escape(lines[0])


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error's message."""
    return f"{type(error).__name__}: {message(error)}"
