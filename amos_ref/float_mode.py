"""Whether this thread computes as IEEE 754 says: with subnormal numbers, rounded to nearest.

The mode is the processor's, one for each thread, and any library can set it. NumPy, compiled kernels and Python's own
floats follow it alike.
"""

from amos_ref.errors import FloatModeError

# Variables: Python must not know the results beforehand.
_least, _half, _one, _tie = 2.0**-1022, 0.5, 1.0, 2.0**-53


def is_ieee() -> bool:
    """Whether the mode of this thread is IEEE 754's default."""
    return _least * _half != 0.0 and _one + _tie == _one and _one - _tie * _half == _one


def describe_mode() -> str:
    """Return in words what the mode of this thread is."""
    found = [] if _least * _half != 0.0 else ["subnormal numbers are flushed to zero"]
    if _one + _tie != _one:
        found.append("results are rounded upward")
    elif _one - _tie * _half != _one:
        found.append("results are rounded " + ("downward" if _tie * _half - _one == -_one else "toward zero"))
    return " and ".join(found) or "IEEE 754: subnormal numbers, rounding to nearest"


def check_mode() -> None:
    """Raise FloatModeError unless this thread computes as IEEE 754 says."""
    if not is_ieee():
        raise FloatModeError(
            f"in this thread {describe_mode()}, which would change the bits of results; some library has set the "
            "processor so: torch.set_flush_denormal(False), or C's fesetenv(FE_DFL_ENV), undoes it"
        )
