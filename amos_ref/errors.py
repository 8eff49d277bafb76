"""Every error that a user of amos_ref can meet.

All derive from :class:`AmosError`. Each message is one line: what is wrong, where (leaf and index) and the
value. When one is raised by a step, every parameter and all state still hold the bits they had.
"""

__all__ = [
    "AmosError",
    "BackendError",
    "DirectionError",
    "DtypeError",
    "ExpectationError",
    "ExpressionError",
    "HyperParameterError",
    "MissingDependencyError",
    "NonFiniteError",
    "OverlapError",
    "ProblemError",
    "ReadOnlyError",
    "RuleError",
    "ScheduleError",
    "ShapeError",
    "StateError",
    "StorageError",
    "TargetError",
    "TreeError",
    "UndecidedError",
    "VectorError",
]


class AmosError(Exception):
    """Base of all errors of this package; its message is one line, whatever is quoted in it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.split()))


class HyperParameterError(AmosError, ValueError):
    """A hyper-parameter is of the wrong type or out of its range."""


class ScheduleError(AmosError, ValueError):
    """A learning-rate schedule raised, or returned something that is no finite number >= 0."""


class DirectionError(AmosError, ValueError):
    """A callable direction raised, or returned something that is no array of floats of the gradient's shape."""


class RuleError(AmosError, ValueError):
    """No rule matches a leaf, or a rule gives something that is no eta or no slot shape for it."""


class ExpressionError(RuleError):
    """A rule's expression is not among the allowed ones, or cannot be evaluated."""


class TreeError(AmosError, ValueError):
    """Leaves are missing or extra, or two leaves have the same name."""


class DtypeError(AmosError, TypeError):
    """A leaf is not a NumPy array of float16, bfloat16, float32 or float64 in native byte order."""


class ShapeError(AmosError, ValueError):
    """A gradient or an update has another shape than its parameter."""


class StateError(AmosError, ValueError):
    """The state does not belong to these parameters and options."""


class StorageError(AmosError, OSError):
    """A file cannot be written or read, or what it holds is damaged or no state of this package."""


class NonFiniteError(AmosError, ValueError):
    """A value is NaN or infinite, or its square overflows float64, where only finite numbers can be used."""


class ProblemError(AmosError, ValueError):
    """There is no problem to minimize in what was given: its data, its function, or what a method cannot do."""


class ReadOnlyError(AmosError, ValueError):
    """An array that a step must write to is read-only."""


class OverlapError(AmosError, ValueError):
    """An array that a step writes to shares memory with another array of the step, or with itself."""


class BackendError(AmosError, ValueError):
    """The backend asked for does not exist or cannot be used here."""


class MissingDependencyError(AmosError, ImportError):
    """An optional package is needed and not installed; the message holds the install line."""


class TargetError(AmosError, ValueError):
    """The port to check cannot be found, loaded or driven."""


class ExpectationError(AmosError, ValueError):
    """A list of expected departures cannot be read, or an entry of it means nothing."""


class VectorError(AmosError, ValueError):
    """A file of test vectors is damaged or of an unknown format."""


class UndecidedError(AmosError, ArithmeticError):
    """The exact oracle cannot tell to which of two floats a number rounds, at its greatest precision."""
