"""How a port can fail: the verdict of a case, and one line that says what happened."""

from amos_ref.errors import AmosError


class PortFailure(AmosError):
    """Base of these failures; they are verdicts of a case, not errors of the check."""

    verdict = "raises"


class PortError(PortFailure):
    """The port told an error of its own; the message holds its words."""


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
    """The port cannot do what the case needs, which is no failure of its arithmetic."""

    verdict = "not supported"
