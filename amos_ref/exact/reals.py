"""Real numbers as rationals and balls, and how they become floats: the basis of both oracles.

Numbers are rationals (python-flint's ``fmpq``) up to the first irrational root, logarithm or power, and from there on
balls (``arb``: a middle and a radius around the real number). A result is rounded by rounding both ends of its ball;
where the two differ, everything is computed again with twice the precision. No ball can tell that a number is exactly
halfway between two floats. An irrational root leads to such a number only if roots cancel; UndecidedError then says so
at `MOST_BITS`.

A zero is +0: real numbers have no signed zero.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amos_ref.checks import check_finite, check_shape
from amos_ref.dtypes import FLOATS, broadcasts, dtype_of
from amos_ref.errors import DtypeError, MissingDependencyError, ShapeError, UndecidedError

LEAST_BITS, MOST_BITS = 128, 2**16  # of the balls' precision
LONGEST_RATIONAL = 2**12  # bits; a longer one becomes a ball

#: Significand bits, least and greatest exponent of a normal number.
FLOAT_FORMATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}

Reals = dict[str, Any]  # name -> object array of fmpq and arb; None where the algorithm keeps none


def power(x: Any, n: int) -> Any:
    """Return x^n, as a ball if the rational would be long."""
    return (x if n * x.height_bits() <= LONGEST_RATIONAL else load_flint().arb(x)) ** n


def product(*factors: Any) -> Any:
    """Multiply; an exact zero makes the product an exact zero, rational whatever the other factors are."""
    zeros = [x for x in factors if x == 0]
    return zeros[0] * 0 if zeros else math.prod(factors[1:], start=factors[0])


def root(x: Any) -> Any:
    """Return the square root, as a rational if it is one."""
    if is_rational(x) and x.p.is_square() and x.q.is_square():
        return load_flint().fmpq(x.p.isqrt(), x.q.isqrt())
    return load_flint().arb(x).sqrt()


def larger(x: Any, y: Any) -> Any:
    return max(x, y) if is_rational(x) and is_rational(y) else load_flint().arb(x).max(y)


def is_rational(x: Any) -> bool:
    return isinstance(x, load_flint().fmpq)


def decide(run: Callable[[int], list[Reals | None]], dtype: str) -> list[Any]:
    """Round what `run` returns, at a precision that is doubled until every rounding is decided."""
    target, bits = _dtype(dtype), LEAST_BITS
    while True:
        try:
            return [reals and {name: _round(name, a, target) for name, a in reals.items()} for reals in run(bits)]
        except UndecidedError as error:
            if bits == MOST_BITS:
                raise UndecidedError(f"{error} at {bits} bits: it is halfway or as good as halfway") from None
            bits *= 2


def _round(name: str, a: Any, dtype: np.dtype) -> Any:
    """Return the numbers rounded, or raise UndecidedError for one that needs narrower balls; None stays None."""
    if a is None:
        return None
    out = np.empty(a.shape)
    for index, x in np.ndenumerate(a):
        low, high = (nearest(end, dtype.name) for end in _ends(x))
        if low != high:
            where = f"{name}{list(index) if index else ''}"
            raise UndecidedError(f"rounding {where} to {dtype.name} is not decided between {low!r} and {high!r}")
        out[index] = low
    return out.astype(dtype)


def nearest(x: Any, dtype: str) -> float:
    """Return the float of a format that is nearest to a rational number, ties to even; NaN for None.

    Examples
    --------
    >>> from flint import fmpq
    >>> nearest(fmpq(1, 3), "float64") == 1 / 3, nearest(fmpq(2**24 + 1), "float32"), nearest(fmpq(65520), "float16")
    (True, 16777216.0, inf)
    """
    if x is None:
        return math.nan
    (bits, lowest, greatest), above, below = FLOAT_FORMATS[dtype], abs(int(x.p)), int(x.q)
    shift = max(_exponent(x), lowest) - bits + 1
    above, below = (above, below << shift) if shift >= 0 else (above << -shift, below)
    count, rest = divmod(above, below)
    count += 2 * rest > below or (2 * rest == below and count % 2)
    value = math.inf if count.bit_length() + shift - 1 > greatest else math.ldexp(count, shift)
    return -value if x < 0 < value else value


def _exponent(x: Any) -> int:
    """Return the e with 2^e <= |x| < 2^(e+1); for 0 a very small one."""
    above, below = abs(int(x.p)), int(x.q)
    if not above:
        return -(10**9)
    e = above.bit_length() - below.bit_length()
    return e - (above << max(-e, 0) < below << max(e, 0))


def _ends(x: Any) -> tuple[Any, Any]:
    """Return the ends of a ball as rationals; (None, None) if it has none, after a division by zero."""
    if is_rational(x):
        return x, x
    if not x.is_finite():
        return None, None
    middle, radius = (_dyadic(*part.man_exp()) for part in (x.mid(), x.rad()))
    return middle - radius, middle + radius


def _dyadic(significand: Any, exponent: Any) -> Any:
    return significand * load_flint().fmpq(2) ** int(exponent)


def ulp_error(got: Any, real: Any, dtype: str, at: Any = None) -> np.ndarray:
    """Return how far `got` may be from the real numbers, in units in the last place.

    Parameters
    ----------
    got : array_like
        Floats. An infinity has the error 0 where the real number rounds to it, and otherwise an infinite one. The error
        of NaN is infinite.
    real : ndarray
        What :func:`enclose` returned, or floats that count as exact.
    dtype : {"float64", "float32", "float16", "bfloat16"}
        The format whose units are meant.
    at : array_like, optional
        Numbers at which the unit is taken; by default the real numbers themselves. With it, the result of a
        cancellation can be measured by its terms.

    Returns
    -------
    ndarray
        Upper bounds in float64. The error of a correctly rounded number is at most 0.5.

    Examples
    --------
    >>> ulp_error([1.0, 1.0], [1.0 + 2.0**-24, 1.0 - 2.0**-24], "float32")
    array([0.5, 1. ])
    """
    _dtype(dtype)
    got, real = np.asarray(got, dtype=np.float64), rationals(real, "real")
    check_shape(got, real.shape, "got")
    out = np.empty(got.shape)
    if at is not None:
        at = np.broadcast_to(np.asarray(at, dtype=np.float64), got.shape)
        check_finite(at, "at")
    for index, x in np.ndenumerate(real):
        low, high = _ends(x)
        if low is None or not np.isfinite(got[index]):
            out[index] = 0.0 if got[index] == nearest(low, dtype) == nearest(high, dtype) else math.inf
            continue
        exponent = min(map(_exponent, (low, high))) if at is None else _exponent(rational(at[index]))
        bits, lowest, _ = FLOAT_FORMATS[dtype]
        unit = _dyadic(1, max(exponent, lowest) - bits + 1)
        out[index] = nearest(max(abs(rational(got[index]) - end) for end in (low, high)) / unit, "float64")
    return out


def through_slots(
    slot_shape: tuple[int, ...],
    entries: dict[str, Any],
    numbers: dict[str, np.ndarray],
    per_slot: Sequence[str],
    per_entry: Sequence[str],
    formulas: Callable[..., dict[str, Any]],
) -> Reals:
    """Call the formulas once for each slot, and return the results in arrays of the slots' shape or of theta's.

    Parameters
    ----------
    slot_shape : tuple of int
        A shape that broadcasts to theta's.
    entries : dict of str to ndarray or None
        Arrays of theta's shape, theta first; the formulas get their entries in the slot.
    numbers : dict of str to ndarray
        Arrays of the slots' shape; the formulas get the slot's number.
    per_slot, per_entry : sequence of str
        The results that are one number for each slot, and those that are one for each entry.
    formulas : callable
        ``formulas(**entries, **numbers)``.
    """
    shape = entries["theta"].shape
    for name, a in entries.items():
        if a is not None:
            check_shape(a, shape, name)
    if not broadcasts(slot_shape, shape):
        raise ShapeError(f"the slot's shape {slot_shape} does not broadcast to theta's shape {shape}")
    count = math.prod(slot_shape)
    slot = np.broadcast_to(np.arange(count).reshape(slot_shape), shape).reshape(-1)  # of each entry in C order
    out: Reals = {name: np.empty(slot_shape, object) for name in per_slot}
    out |= {name: np.empty(shape, object) for name in per_entry}
    for k in range(count):
        inside = np.flatnonzero(slot == k)
        own = {name: None if a is None else a.reshape(-1)[inside] for name, a in entries.items()}
        own |= {name: a.reshape(-1)[k] for name, a in numbers.items()}
        for name, found in formulas(**own).items():
            out[name].reshape(-1)[k if name in per_slot else inside] = found
    return out


def walk(
    take: Callable[[int, Reals], Reals],
    now: Reals,
    grads: Sequence[Any],
    stored: tuple[str, str] | None,
    bits: int,
) -> list[Reals | None]:
    """Take a step ``take(k, now)`` for each gradient, handing theta and the state on; None where there is none."""
    out: list[Reals | None] = []
    for k, g in enumerate(grads):
        after = None if g is None else take(k, now)
        now = now if after is None else {name: _store(name, after[name], stored, bits) for name in now}
        out.append(after)
    return out


def _store(name: str, a: Any, dtypes: tuple[str, str] | None, bits: int) -> Any:
    """Return theta or a part of the state as the next step reads it, rounded if `dtypes` are given."""
    if dtypes is not None:
        return _round(name, a, _dtype(dtypes[name != "theta"]))
    with load_flint().ctx.workprec(bits):
        return None if a is None else each(_shorten, a)


def _shorten(x: Any) -> Any:
    return load_flint().arb(x) if is_rational(x) and x.height_bits() > LONGEST_RATIONAL else x


def rationals(a: Any, name: str, chi: float | None = None) -> np.ndarray:
    """Return floats, clipped to [-chi, chi], as an object array of rationals; return such an array unchanged."""
    a = np.asarray(a)
    if a.dtype == object:
        return a
    if a.dtype.name not in FLOATS:
        raise DtypeError(f"{name} has dtype {a.dtype}; it must be one of {', '.join(FLOATS)}")
    wide = a.astype(np.float64)
    wide = wide if chi is None else np.asarray(np.where(abs(wide) > chi, np.copysign(chi, wide), wide))
    check_finite(wide, name)
    return each(rational, wide)


def each(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Return the function's results for each entry, as an object array."""
    return np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), object)


def rational(x: float) -> Any:
    return load_flint().fmpq(*float(x).as_integer_ratio())


def _dtype(name: str) -> np.dtype:
    if name not in FLOAT_FORMATS:
        raise DtypeError(f"dtype is {name!r}; it must be one of {', '.join(FLOAT_FORMATS)}")
    return dtype_of(name)


def load_flint() -> Any:
    try:
        import flint
    except ImportError:
        raise MissingDependencyError("the exact oracle needs python-flint: pip install 'amos_ref[oracle]'") from None
    return flint
