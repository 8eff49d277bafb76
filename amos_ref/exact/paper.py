"""The oracle of paper Amos: one step over the real numbers, from an independent reading of the algorithm.

No formula here comes from :mod:`amos_ref.spec`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from amos_ref.checks import check_shape
from amos_ref.errors import HyperParameterError
from amos_ref.exact.reals import (
    LEAST_BITS,
    Reals,
    decide,
    larger,
    load_flint,
    power,
    product,
    rational,
    rationals,
    root,
    through_slots,
    walk,
)
from amos_ref.options import check_options
from amos_ref.rules import eta_of

PER_SLOT = ("g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "b")
PER_ENTRY = ("delta", "m", "theta")


def step(theta: Any, g: Any, v: Any, b: Any, m: Any = None, *, dtype: str = "float64", **hyper: Any) -> Reals:
    """Return every quantity of one step of one array, correctly rounded (to nearest, ties to even).

    The formulas are those of :func:`enclose`, over the real numbers. Inputs are the binary numbers that they are.

    Parameters
    ----------
    theta, g, m : array_like
        The parameters, the gradient and the momentum, of the same shape. Without momentum m is None.
    v, b : array_like
        The state, of the slot's shape, which broadcasts to theta's.
    dtype : {"float64", "float32", "float16", "bfloat16"}
        The format that results are rounded to. Subnormal numbers and overflow are those of IEEE 754.
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
        If a ball of 65,536 bits still contains the middle between two floats, so that rounding is undecided.
    HyperParameterError
        If a hyper-parameter is out of its range, or if t is not an integer >= 1.
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
    return decide(lambda bits: [enclose(theta, g, v, b, m, precision=bits, **hyper)], dtype)[0]


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
        One for each step. A step whose gradient is None returns None, and changes nothing but the count.
    xi : float or sequence of float
        One for all steps, or one for each step.
    t : int
        The first step.
    stored : (str, str), optional
        The dtypes of theta, and of v, b and m. If given, these arrays are rounded after each step, as by storing.
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
        def take(k: int, now: Reals) -> Reals:
            return enclose(g=grads[k], t=t + k, xi=rates[k], precision=bits, **now, **hyper)

        return walk(take, dict(theta=theta, v=v, b=b, m=m), grads, stored, bits)

    return decide(run, dtype)


def enclose(
    theta: Any, g: Any, v: Any, b: Any, m: Any = None, *, t: int, xi: float, eta: float, beta: float,
    momentum: float | None, clip_value: float | None, extra_l2: float, c_coef: float, d_coef: float, epsilon: float,
    precision: int = 2 * LEAST_BITS,
) -> Reals:  # fmt: skip
    """Enclose every quantity of one step, each in a rational number or in a ball of `precision` bits.

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
        As for :func:`step`, or arrays that this function returned. They are finite, but g may be infinite if there is
        a clip_value.
    t : int
        The step, from 1.
    xi, eta, beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon
        By the names of :func:`amos_ref.spec.step`.
    precision : int
        How many bits the balls have.

    Returns
    -------
    dict of str to ndarray
        The quantities by name, in arrays of fmpq (rationals) and arb (balls) from python-flint.
    """
    theta, v, b = (rationals(a, name) for a, name in ((theta, "theta"), (v, "v"), (b, "b")))
    g, m = rationals(g, "g", clip_value), None if m is None else rationals(m, "m")
    h: dict[str, Any] = dict(beta=beta, extra_l2=extra_l2, c_coef=c_coef, d_coef=d_coef, epsilon=epsilon)
    check_options(learning_rate=xi, eta=eta, momentum=momentum, clip_value=clip_value, **h)
    if not isinstance(t, int | np.integer) or t < 1:
        raise HyperParameterError(f"t is {t!r}; it must be an integer >= 1")
    h |= dict(xi=xi, eta=eta_of(eta, "", ()), mu=momentum or 0.0)
    with load_flint().ctx.workprec(precision):
        h = {name: rational(x) for name, x in h.items()}
        h["q"] = 1 - power(h["beta"], int(t))
        check_shape(b, v.shape, "b")
        entries, numbers = dict(theta=theta, g=g, m=m), dict(v=v, b=b)
        out = through_slots(v.shape, entries, numbers, PER_SLOT, PER_ENTRY, lambda **of: _one_slot(**of, h=h))
        return out if m is not None else out | {"m": None}


def _one_slot(theta: Any, g: Any, m: Any, v: Any, b: Any, h: dict[str, Any]) -> dict[str, Any]:
    """The formulas, for one slot: theta, g, m hold its elements, v and b are its numbers."""
    g2 = sum((x * x for x in g), 0 * h["xi"]) / max(len(g), 1)
    v = product(h["beta"], v) + product(1 - h["beta"], g2)
    r = h["q"] / larger(v, h["epsilon"])
    c = 1 / root(1 + product(h["c_coef"], root(h["xi"]), b))
    gamma = product(c, h["xi"], h["xi"], r, g2)
    d = 1 / (1 + product(h["d_coef"], root(h["xi"] * h["eta"]), b))
    alpha = product(d, h["xi"], h["eta"], root(r))
    rho = product(d, gamma / 2 + h["extra_l2"])
    delta = [-(product(alpha, x) + product(rho, y)) for x, y in zip(g, theta, strict=True)]
    moved = delta
    if m is not None:
        moved = [product(h["mu"], x) + product(1 - h["mu"], y) for x, y in zip(m, delta, strict=True)]
    new = [y + x for y, x in zip(theta, moved, strict=True)]
    b = b + product(gamma, 1 + b)
    return dict(g2=g2, v=v, r=r, c=c, gamma=gamma, d=d, alpha=alpha, rho=rho, delta=delta, b=b, m=moved, theta=new)
