"""Every error that a user of amos_ref can meet.

All derive from :class:`AmosError`. A message is one line: what is wrong, where (leaf and index), and the value. If
a step raises one of them, the parameters and the state have the bits that they had before.
"""

from collections import abc

__all__ = [
    "AmosError", "BackendError", "DirectionError", "DtypeError", "ExpectationError", "ExpressionError",
    "FloatModeError", "HyperParameterError", "LayoutError", "MissingDependencyError", "NoAnswerError", "NonFiniteError",
    "OutOfMemoryError", "OverlapError", "ProblemError", "RankError", "ReadOnlyError", "RuleError", "ScheduleError",
    "ShapeError", "StateError", "StorageError", "TargetError", "TreeError", "UndecidedError", "VectorError",
]  # fmt: skip


def escape(text: str) -> str:
    """Return the text with control characters and lone surrogates escaped.

    Text that others have written goes through here before it is printed, in an error or elsewhere. Every stream can
    encode what comes out, and a terminal finds no command in it.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def list_some(texts: abc.Iterable[str], apart: str = ", ", most: int = 20) -> str:
    """Return the first few of many texts in one line, and how many others there are.

    >>> list_some(["'a'", "'b'", "'c'", "'d'"], most=2)
    "'a', 'b' and 2 more"
    """
    found = list(texts)
    return apart.join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


class AmosError(Exception):
    """The base of all errors of this package. Its message is one printable line, whatever it quotes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(escape(" ".join(message.split())))


class HyperParameterError(AmosError, ValueError):
    """A hyper-parameter is of the wrong type or out of its range."""


class ScheduleError(AmosError, ValueError):
    """A learning-rate schedule raised, or did not return a finite number >= 0."""


class DirectionError(AmosError, ValueError):
    """A callable direction raised, or did not return an array of floats of the gradient's shape."""


class RuleError(AmosError, ValueError):
    """No rule matches a leaf, or the value of the rule is not a valid eta or slot shape for it."""


class ExpressionError(RuleError):
    """The expression of a rule contains something that is not allowed, or it cannot be evaluated."""


class TreeError(AmosError, ValueError):
    """Leaves are missing or extra, or two leaves have the same name."""


class DtypeError(AmosError, TypeError):
    """A leaf is not an array of float16, bfloat16, float32 or float64 in native byte order, or is not on the host."""


class ShapeError(AmosError, ValueError):
    """A gradient or an update has another shape than its parameter."""


class StateError(AmosError, ValueError):
    """The state does not belong to these parameters and options, or a step in place has used up its arrays."""


class StorageError(AmosError, OSError):
    """A file cannot be written or read, is damaged, or does not hold a state of this package."""


class OutOfMemoryError(StorageError, MemoryError):
    """There is not enough memory to write or read a file."""


class NonFiniteError(AmosError, ValueError):
    """A value that must be finite is NaN or infinite, or its square overflows float64."""

    index: tuple[int, ...] | None = None  # of the first such entry; None where a sum overflows
    #: Where a GPU tells it later (``sync=False``): the steps before the one that wrote nothing. None elsewhere.
    count: int | None = None


class LayoutError(AmosError, ValueError):
    """A layout over ranks does not fit the arrays, the slots or the ranks, or its cuts would change the bits."""


class RankError(AmosError, RuntimeError):
    """The ranks of an MPI job do not agree on what to do next, or one of them failed or did not arrive."""


class FloatModeError(AmosError, ArithmeticError):
    """The processor does not compute as IEEE 754 says: it flushes subnormal numbers, or does not round to nearest."""


class ProblemError(AmosError, ValueError):
    """A problem cannot be minimized: its data or its function is not valid, or the method cannot do what is asked."""


class ReadOnlyError(AmosError, ValueError):
    """An array that a step must write to is read-only."""


class OverlapError(AmosError, ValueError):
    """An array that a step writes to shares memory with another array of the step, or with itself."""


class BackendError(AmosError, ValueError):
    """There is no such backend, or it cannot be used here."""


class MissingDependencyError(AmosError, ImportError):
    """An optional package is needed and not installed; the message says how to install it."""


class TargetError(AmosError, ValueError):
    """The port to check cannot be found, loaded or driven."""


class NoAnswerError(TargetError):
    """The port to check gave no answer at all: its process ended, was killed or hung."""


class ExpectationError(AmosError, ValueError):
    """A list of expected departures cannot be read, or it has an entry that is not valid."""


class VectorError(AmosError, ValueError):
    """A file of test vectors is damaged or of an unknown format."""


class UndecidedError(AmosError, ArithmeticError):
    """Even at its greatest precision the exact oracle cannot tell to which of two floats a number rounds."""
