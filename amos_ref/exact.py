"""The oracle: paper Amos over the real numbers, from an independent reading of the algorithm.

Numbers are rationals (python-flint's ``fmpq``) up to the first irrational root, and from there on balls (``arb``: a
middle and a radius around the real number). A result is rounded by rounding both ends of its ball; where the two
differ, everything is computed again with twice the precision. No ball can tell that a number is exactly halfway between
two floats. An irrational root leads to such a number only if roots cancel; UndecidedError then says so at `MOST_BITS`.

No formula here comes from :mod:`amos_ref.spec`. A zero is +0: real numbers have no signed zero.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from amos_ref.checks import check_finite, check_shape
from amos_ref.dtypes import FLOATS, broadcasts, dtype_of
from amos_ref.errors import DtypeError, HyperParameterError, MissingDependencyError, ShapeError, UndecidedError
from amos_ref.options import check_options
from amos_ref.rules import eta_of

__all__ = ["enclose", "nearest", "step", "trajectory", "ulp_error"]

LEAST_BITS, MOST_BITS = 128, 2**16  # of the balls' precision
LONGEST_RATIONAL = 2**12  # bits; a longer one becomes a ball

#: Significand bits, least and greatest exponent of a normal number.
FLOAT_FORMATS = {
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}
PER_SLOT = ("g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "b")
QUANTITIES = (*PER_SLOT, "delta", "m", "theta")

Reals = dict[str, Any]  # name -> object array of fmpq and arb; m is None without momentum


def step(theta: Any, g: Any, v: Any, b: Any, m: Any = None, *, dtype: str = "float64", **hyper: Any) -> Reals:
    """Return every quantity of one step of one array, correctly rounded (to nearest, ties to even).

    The real-number result of the formulas in :func:`enclose`, from inputs taken as the binary numbers that they are.

    Parameters
    ----------
    theta, g, m : array_like
        Parameters, gradient and momentum (None: no momentum), of one shape.
    v, b : array_like
        The state, of the slot's shape, which broadcasts to theta's.
    dtype : {"float64", "float32", "float16", "bfloat16"}
        What the results are rounded to; subnormals and overflow as in IEEE 754.
    **hyper
        t, xi, eta, beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon, as in :func:`enclose`.

    Returns
    -------
    dict of str to ndarray
        g2, v, r, c, gamma, d, alpha, rho, b of the slot's shape; delta, m, theta of theta's; v, b, m, theta are those
        after the step.

    Raises
    ------
    UndecidedError
        If a ball of 65,536 bits still does not tell a result from the middle between two floats.
    HyperParameterError
        If a hyper-parameter is out of its range, or t is not an integer >= 1.
    ShapeError, DtypeError, NonFiniteError
        If the arrays do not fit each other, are not of the four dtypes, or hold a number that is not finite.
    MissingDependencyError
        If python-flint is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from amos_ref import exact
    >>> hyper = dict(xi=0.25, eta=0.5, beta=0.75, momentum=None, clip_value=None, extra_l2=0.125,
    ...              c_coef=0.25, d_coef=0.25, epsilon=2.0**-125)
    >>> after = exact.step([1.0, -2.0], [3.0, 4.0], 0.0, 0.0, t=1, **hyper)
    >>> float(after["g2"]), float(after["gamma"]), after["theta"]
    (12.5, 0.0625, array([ 0.73768398, -1.82892136]))
    """
    return _decide(lambda bits: [enclose(theta, g, v, b, m, precision=bits, **hyper)], dtype)[0]


def trajectory(
    theta: Any,
    grads: Iterable[Any],
    v: Any,
    b: Any,
    m: Any = None,
    *,
    xi: float | Sequence[float],
    t: int = 1,
    dtype: str = "float64",
    stored: tuple[str, str] | None = None,
    **hyper: Any,
) -> list[Reals | None]:
    """Return what :func:`step` returns for several steps; theta and the state pass from one to the next unrounded.

    Parameters
    ----------
    theta, v, b, m : array_like
        Before the first step.
    grads : iterable of array_like or None
        One a step. A step without a gradient gives None and changes nothing but the count.
    xi : float or sequence of float
        One for all steps, or one a step.
    t : int
        The first step.
    stored : (str, str), optional
        The dtypes of theta and of v, b, m. If they are given, these are rounded after each step, as storing does.
    dtype, **hyper
        As for :func:`step`.

    Examples
    --------
    >>> from amos_ref import exact
    >>> hyper = dict(eta=0.5, beta=0.75, momentum=None, clip_value=None, extra_l2=0.0,
    ...              c_coef=0.25, d_coef=0.25, epsilon=2.0**-125)
    >>> [float(after["theta"]) for after in exact.trajectory(1.0, [1.0, -1.0], 0.0, 0.0, xi=0.25, **hyper)]
    [0.84375, 0.9419427662092239]
    """
    grads = list(grads)
    rates = list(xi) if isinstance(xi, Sequence) else [xi] * len(grads)
    if len(rates) != len(grads):
        raise HyperParameterError(f"xi has {len(rates)} entries for {len(grads)} steps")

    def run(bits: int) -> list[Reals | None]:
        now, out = {"theta": theta, "v": v, "b": b, "m": m}, []
        for k, (rate, g) in enumerate(zip(rates, grads, strict=True)):
            out.append(None if g is None else enclose(g=g, t=t + k, xi=rate, precision=bits, **now, **hyper))
            if out[-1] is not None:
                now = {name: _store(name, out[-1][name], stored, bits) for name in now}
        return out

    return _decide(run, dtype)


def enclose(
    theta: Any, g: Any, v: Any, b: Any, m: Any = None, *, t: int, xi: float, eta: float, beta: float,
    momentum: float | None, clip_value: float | None, extra_l2: float, c_coef: float, d_coef: float, epsilon: float,
    precision: int = 2 * LEAST_BITS,
) -> Reals:  # fmt: skip
    """Enclose every quantity of one step, each a rational or a ball of `precision` bits.

    ::

        g2    = mean(clip(g, -chi, chi)^2)               v     = beta v + (1 - beta) g2
        r     = (1 - beta^t) / max(v, epsilon)           c     = (1 + c_coef sqrt(xi) b)^(-1/2)       old b
        gamma = c xi^2 r g2                              d     = (1 + d_coef sqrt(xi eta) b)^(-1)     old b
        alpha = d xi eta sqrt(r)                         rho   = d (gamma/2 + extra_l2)
        delta = -(alpha g + rho theta)                   b     = b + gamma (1 + b)
        m     = mu m + (1 - mu) delta                    theta = theta + (m with momentum, else delta)

    Parameters
    ----------
    theta, g, v, b, m
        As for :func:`step`, or arrays that this function returned. Finite; with clip_value g may be infinite.
    t : int
        The step, from 1.
    xi, eta, beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon
        By the names of :func:`amos_ref.spec.step`.
    precision : int
        Bits of the balls.

    Returns
    -------
    dict of str to ndarray of fmpq and arb
    """
    flint = _flint()
    theta, v, b = (_rationals(a, name) for a, name in ((theta, "theta"), (v, "v"), (b, "b")))
    g, m = _rationals(g, "g", clip_value), None if m is None else _rationals(m, "m")
    h: dict[str, Any] = dict(beta=beta, extra_l2=extra_l2, c_coef=c_coef, d_coef=d_coef, epsilon=epsilon)
    check_options(learning_rate=xi, eta=eta, momentum=momentum, clip_value=clip_value, **h)
    if not isinstance(t, int | np.integer) or t < 1:
        raise HyperParameterError(f"t is {t!r}; it must be an integer >= 1")
    h |= dict(xi=xi, eta=eta_of(eta, "", ()), mu=momentum or 0.0)
    with flint.ctx.workprec(precision):
        h = {name: _rational(x) for name, x in h.items()}
        h["q"] = 1 - (h["beta"] if t * h["beta"].height_bits() <= LONGEST_RATIONAL else flint.arb(h["beta"])) ** int(t)
        return _slots(theta, g, v, b, m, h)


def _slots(theta: Any, g: Any, v: Any, b: Any, m: Any, h: dict[str, Any]) -> Reals:
    """Go through the slots; `slot` says, for each element in C order, to which one it belongs."""
    for name, a, shape in (("g", g, theta.shape), ("b", b, v.shape), ("m", theta if m is None else m, theta.shape)):
        check_shape(a, shape, name)
    if not broadcasts(v.shape, theta.shape):
        raise ShapeError(f"the slot's shape {v.shape} does not broadcast to theta's shape {theta.shape}")
    slot = np.broadcast_to(np.arange(v.size).reshape(v.shape), theta.shape).reshape(-1)
    out = {name: np.empty(v.shape if name in PER_SLOT else theta.shape, object) for name in QUANTITIES}
    for k in range(v.size):
        inside = np.flatnonzero(slot == k)
        x, y, z = (None if a is None else a.reshape(-1)[inside] for a in (theta, g, m))
        for name, numbers in _one_slot(x, y, z, v.reshape(-1)[k], b.reshape(-1)[k], h).items():
            out[name].reshape(-1)[k if name in PER_SLOT else inside] = numbers
    return out if m is not None else out | {"m": None}


def _one_slot(theta: Any, g: Any, m: Any, v: Any, b: Any, h: dict[str, Any]) -> dict[str, Any]:
    """The formulas, for one slot: theta, g, m hold its elements, v and b are its numbers."""
    g2 = sum((x * x for x in g), 0 * h["xi"]) / max(len(g), 1)
    v = _product(h["beta"], v) + _product(1 - h["beta"], g2)
    r = h["q"] / _larger(v, h["epsilon"])
    c = 1 / _root(1 + _product(h["c_coef"], _root(h["xi"]), b))
    gamma = _product(c, h["xi"], h["xi"], r, g2)
    d = 1 / (1 + _product(h["d_coef"], _root(h["xi"] * h["eta"]), b))
    alpha = _product(d, h["xi"], h["eta"], _root(r))
    rho = _product(d, gamma / 2 + h["extra_l2"])
    delta = [-(_product(alpha, x) + _product(rho, y)) for x, y in zip(g, theta, strict=True)]
    moved = delta
    if m is not None:
        moved = [_product(h["mu"], x) + _product(1 - h["mu"], y) for x, y in zip(m, delta, strict=True)]
    new = [y + x for y, x in zip(theta, moved, strict=True)]
    b = b + _product(gamma, 1 + b)
    return dict(g2=g2, v=v, r=r, c=c, gamma=gamma, d=d, alpha=alpha, rho=rho, delta=delta, b=b, m=moved, theta=new)


def _product(*factors: Any) -> Any:
    """Multiply; an exact zero makes the product an exact zero, rational whatever the other factors are."""
    zeros = [x for x in factors if x == 0]
    return zeros[0] * 0 if zeros else math.prod(factors[1:], start=factors[0])


def _root(x: Any) -> Any:
    """Return the square root, rational if it is."""
    if _is_rational(x) and x.p.is_square() and x.q.is_square():
        return _flint().fmpq(x.p.isqrt(), x.q.isqrt())
    return _flint().arb(x).sqrt()


def _larger(x: Any, y: Any) -> Any:
    return max(x, y) if _is_rational(x) and _is_rational(y) else _flint().arb(x).max(y)


def _is_rational(x: Any) -> bool:
    return isinstance(x, _flint().fmpq)


def _decide(run: Callable[[int], list[Reals | None]], dtype: str) -> list[Any]:
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
    """Return the rational nearest in the format, ties to even; None (no number) gives NaN.

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
    if _is_rational(x):
        return x, x
    if not x.is_finite():
        return None, None
    middle, radius = (_dyadic(*part.man_exp()) for part in (x.mid(), x.rad()))
    return middle - radius, middle + radius


def _dyadic(significand: Any, exponent: Any) -> Any:
    return significand * _flint().fmpq(2) ** int(exponent)


def ulp_error(got: Any, real: Any, dtype: str, at: Any = None) -> np.ndarray:
    """Return how far `got` may be from the real numbers, in units in the last place.

    Parameters
    ----------
    got : array_like
        Floats. An infinity is right (0) where the real number rounds to it, otherwise infinitely far; so is NaN.
    real : ndarray
        Of :func:`enclose`, or floats that are taken to be exact.
    dtype : {"float64", "float32", "float16", "bfloat16"}
        Whose units.
    at : array_like, optional
        Numbers at which the unit is taken, to measure the result of a cancellation by its terms; by default the real
        numbers themselves.

    Returns
    -------
    ndarray
        Upper bounds, float64. A correctly rounded number is at most 0.5 off.

    Examples
    --------
    >>> ulp_error([1.0, 1.0], [1.0 + 2.0**-24, 1.0 - 2.0**-24], "float32")
    array([0.5, 1. ])
    """
    _dtype(dtype)
    got, real = np.asarray(got, dtype=np.float64), _rationals(real, "real")
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
        exponent = min(map(_exponent, (low, high))) if at is None else _exponent(_rational(at[index]))
        bits, lowest, _ = FLOAT_FORMATS[dtype]
        unit = _dyadic(1, max(exponent, lowest) - bits + 1)
        out[index] = nearest(max(abs(_rational(got[index]) - end) for end in (low, high)) / unit, "float64")
    return out


def _store(name: str, a: Any, dtypes: tuple[str, str] | None, bits: int) -> Any:
    """Return theta or a part of the state as the next step reads it, rounded if `dtypes` are given."""
    if dtypes is not None:
        return _round(name, a, _dtype(dtypes[name != "theta"]))
    with _flint().ctx.workprec(bits):
        return None if a is None else _map(_shorten, a)


def _shorten(x: Any) -> Any:
    return _flint().arb(x) if _is_rational(x) and x.height_bits() > LONGEST_RATIONAL else x


def _rationals(a: Any, name: str, chi: float | None = None) -> np.ndarray:
    """Return floats, clipped to [-chi, chi], as an object array of rationals; return such an array unchanged."""
    a = np.asarray(a)
    if a.dtype == object:
        return a
    if a.dtype.name not in FLOATS:
        raise DtypeError(f"{name} has dtype {a.dtype}; it must be one of {', '.join(FLOATS)}")
    wide = a.astype(np.float64)
    wide = wide if chi is None else np.asarray(np.where(abs(wide) > chi, np.copysign(chi, wide), wide))
    check_finite(wide, name)
    return _map(_rational, wide)


def _map(function: Callable[[Any], Any], a: np.ndarray) -> np.ndarray:
    """Return an object array of what the function makes of each entry."""
    return np.asarray(np.frompyfunc(function, 1, 1)(a), object)


def _rational(x: float) -> Any:
    return _flint().fmpq(*float(x).as_integer_ratio())


def _dtype(name: str) -> np.dtype:
    if name not in FLOAT_FORMATS:
        raise DtypeError(f"dtype is {name!r}; it must be one of {', '.join(FLOAT_FORMATS)}")
    return dtype_of(name)


def _flint() -> Any:
    try:
        import flint
    except ImportError:
        raise MissingDependencyError("the exact oracle needs python-flint: pip install 'amos_ref[oracle]'") from None
    return flint
