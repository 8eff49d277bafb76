"""The oracle of the closed form: its steps and schedules over the real numbers, from an independent reading.

No formula here comes from :mod:`amos_ref.closed_form`. The names are those of that module; S
stands for S_t, and shrink for exp(-2 S_t).
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from amos_ref.errors import HyperParameterError
from amos_ref.exact.reals import (
    LEAST_BITS,
    Reals,
    decide,
    each,
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
from amos_ref.exact.schedule import enclose_plan, plan
from amos_ref.options import check_options
from amos_ref.rules import positive

__all__ = ["enclose", "enclose_schedule", "initial_sigma", "schedule", "step", "trajectory"]

SHARED = ("S", "shrink", "alpha", "rho")


def schedule(t: Any, *, dtype: str = "float64", **options: Any) -> Reals:
    """Return the numbers that all leaves share at steps t, correctly rounded.

    Parameters
    ----------
    t : int or array_like of int
        Step numbers from 0, of any size.
    dtype : {"float64", "float32", "float16", "bfloat16"}
    **options
        alpha_0, half_life or p_0, decay, p_t, q, as in :class:`amos_ref.closed_form.Schedule`. p_t is a word
        here, not a function.

    Returns
    -------
    dict of str to ndarray
        S, shrink = exp(-2 S), alpha (for |eps_0| = |u_t|) and rho, of t's shape.

    Raises
    ------
    HyperParameterError
        If an option is out of its range, or t is not made of integers >= 0.
    UndecidedError, DtypeError, MissingDependencyError
        As for :func:`amos_ref.exact.step`.

    Examples
    --------
    >>> from amos_ref.exact import closed_form
    >>> found = closed_form.schedule([0, 100, 10**12], alpha_0=0.01, half_life=100, decay="recurrence")
    >>> found["shrink"]
    array([1.00000000e+00, 4.99130806e-01, 1.00000000e-10])
    """
    return decide(lambda bits: [enclose_schedule(t, precision=bits, **options)], dtype)[0]


def enclose_schedule(t: Any, *, precision: int = 2 * LEAST_BITS, **options: Any) -> Reals:
    """Enclose what :func:`schedule` rounds, each number in a rational or in a ball of `precision` bits."""
    steps = np.asarray(t, object)
    out: Reals = {name: np.empty(steps.shape, object) for name in SHARED}
    with load_flint().ctx.workprec(precision):
        of = plan(**options)
        for index, n in np.ndenumerate(steps):
            for name, x in enclose_plan(_whole(n), of).items():
                out[name][index] = x
    return out


def _whole(t: Any) -> int:
    if not isinstance(t, int | np.integer) or isinstance(t, bool) or t < 0:
        raise HyperParameterError(f"t is {t!r}; it must be an integer >= 0")
    return int(t)


def initial_sigma(theta: Any, *, dtype: str = "float64") -> Any:
    """Return the root mean square of an array, or 0.5 if all entries are 0 or all are 1, correctly rounded.

    Examples
    --------
    >>> from amos_ref.exact import closed_form
    >>> float(closed_form.initial_sigma([3.0, -4.0])), float(closed_form.initial_sigma([1.0, 1.0]))
    (3.5355339059327378, 0.5)
    """
    return decide(lambda bits: [{"sigma": _enclose_sigma(theta, bits)}], dtype)[0]["sigma"]


def _enclose_sigma(theta: Any, precision: int) -> np.ndarray:
    entries, found = list(rationals(theta, "theta").reshape(-1)), np.empty((), object)
    with load_flint().ctx.workprec(precision):
        same = any(all(x == value for x in entries) for value in (0, 1))
        found[()] = rational(0.5) if same else root(sum(x * x for x in entries) / len(entries))
    return found


def step(theta: Any, g: Any, m: Any = None, v: Any = None, *, dtype: str = "float64", **options: Any) -> Reals:
    """Return every quantity of one step of one array, correctly rounded (to nearest, ties to even).

    Parameters
    ----------
    theta, g, m, v : array_like
        Parameters, gradient, and for the direction "adam" its moments, all of the same shape.
    dtype : {"float64", "float32", "float16", "bfloat16"}
        The format that results are rounded to.
    **options
        t, sigma, slot_shape, direction, ..., as in :func:`enclose`.

    Returns
    -------
    dict of str to ndarray
        S and shrink of shape (); u2, alpha, rho of the slot's shape; g (clipped), u, delta, theta, m, v of theta's.
        theta, m, v are those after the step; m and v are None without moments.

    Raises
    ------
    UndecidedError, HyperParameterError, ShapeError, DtypeError, NonFiniteError, MissingDependencyError
        As for :func:`amos_ref.exact.step`.

    Examples
    --------
    >>> from amos_ref.exact import closed_form
    >>> after = closed_form.step([1.0, -2.0], [3.0, 4.0], t=100, sigma=0.5, alpha_0=0.01, half_life=100)
    >>> float(after["u2"]), float(after["shrink"]), after["theta"]
    (12.5, 0.5, array([ 0.99785368, -2.00277843]))
    """
    return decide(lambda bits: [enclose(theta, g, m, v, precision=bits, **options)], dtype)[0]


def trajectory(
    theta: Any,
    grads: Iterable[Any],
    m: Any = None,
    v: Any = None,
    *,
    sigma: float | str = "init",
    t: int = 0,
    dtype: str = "float64",
    stored: tuple[str, str] | None = None,
    **options: Any,
) -> list[Reals | None]:
    """Return what :func:`step` returns for several steps; theta, m and v pass from one to the next unrounded.

    Parameters
    ----------
    theta, m, v : array_like
        Before the first step.
    grads : iterable of array_like or None
        One for each step. A step whose gradient is None returns None, and changes nothing but the count.
    sigma : float or "init"
        "init" takes :func:`initial_sigma` of theta before the first step, unrounded.
    t : int
        The first step.
    stored : (str, str), optional
        The dtypes of theta, and of m and v. If given, these arrays are rounded after each step, as by storing.
    dtype, **options
        As for :func:`step`.

    Examples
    --------
    >>> from amos_ref.exact import closed_form
    >>> found = closed_form.trajectory([3.0, -4.0], [[0.6, -0.8], None, [0.5, 0.5]], alpha_0=0.01, half_life=100)
    >>> found[0]["theta"], found[1], found[2]["alpha"]
    (array([ 2.96985, -3.9598 ]), None, array(0.06932419))
    """
    grads = list(grads)

    def run(bits: int) -> list[Reals | None]:
        scale = _enclose_sigma(theta, bits)[()] if sigma == "init" else sigma

        def take(k: int, now: Reals) -> Reals:
            return enclose(g=grads[k], t=t + k, sigma=scale, precision=bits, **now, **options)

        return walk(take, dict(theta=theta, m=m, v=v), grads, stored, bits)

    return decide(run, dtype)


def enclose(
    theta: Any, g: Any, m: Any = None, v: Any = None, *, t: int, sigma: Any, slot_shape: tuple[int, ...] = (),
    direction: str = "gradient", beta1: float = 0.9, beta2: float = 0.999, adam_epsilon: float = 1e-8,
    epsilon: float = 2.0**-125, clip_value: float | None = None, precision: int = 2 * LEAST_BITS, **options: Any,
) -> Reals:  # fmt: skip
    """Enclose every quantity of one step, each in a rational number or in a ball of `precision` bits.

    ::

        g     = clip(g, -chi, chi)                        u     = g, or sign(g), or Adam's
        m     = beta1 m + (1 - beta1) g                   v     = beta2 v + (1 - beta2) g^2
        Adam's: m / (1 - beta1^n) / ((v / (1 - beta2^n))^(1/2) + adam_epsilon)                n = t + 1
        u2    = mean(u^2)
        alpha = alpha_0 sigma exp(-2 S_t) / max(u2, epsilon)^(1/2)
        rho   = alpha_0^2 exp(-2 S_t) / (2 q)             theta = theta - (alpha u + rho theta)

    Parameters
    ----------
    theta, g, m, v
        As for :func:`step`, or arrays that this function returned. They are finite, but g may be infinite if there is
        a clip_value.
    t : int
        The step, from 0.
    sigma : float, fmpq or arb
        The scale of the array's entries.
    slot_shape : tuple of int
        The shape of u2, alpha and rho, which broadcasts to theta's.
    direction : {"gradient", "sign", "adam"}
    beta1, beta2, adam_epsilon, epsilon, clip_value
        As in :class:`amos_ref.ClosedFormAmos`.
    precision : int
        How many bits the balls have.
    **options
        As for :func:`schedule`.

    Returns
    -------
    dict of str to ndarray
        The quantities by name, in arrays of fmpq (rationals) and arb (balls) from python-flint.
    """
    theta, g = rationals(theta, "theta"), rationals(g, "g", clip_value)
    m, v = (None if a is None else rationals(a, name) for a, name in ((m, "m"), (v, "v")))
    adam = dict(beta1=beta1, beta2=beta2, adam_epsilon=adam_epsilon)
    check_options(direction=direction, epsilon=epsilon, clip_value=clip_value, **adam)
    if callable(direction) or [m is None, v is None] != [direction != "adam"] * 2:
        raise HyperParameterError(f"direction is {direction!r:.60}; m and v belong to 'adam', and no function is taken")
    sigma = rational(positive(sigma, "sigma")) if isinstance(sigma, int | float | np.number) else sigma
    with load_flint().ctx.workprec(precision):
        h = {name: x[()] for name, x in enclose_schedule(t, precision=precision, **options).items()}
        h |= dict(sigma=sigma, epsilon=rational(epsilon))
        u, m, v = _direct(g, m, v, direction, t + 1, {name: rational(x) for name, x in adam.items()})
        entries = dict(theta=theta, u=u)
        names = ("u2", "alpha", "rho"), ("delta", "theta")
        out = through_slots(slot_shape, entries, {}, *names, lambda **of: _one_slot(**of, h=h))
    shared = {name: np.array(h[name], object) for name in ("S", "shrink")}
    return shared | dict(g=g, m=m, v=v, u=u) | out


def _direct(g: Any, m: Any, v: Any, direction: str, n: int, h: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return u, and for Adam's direction m and v after n gradients."""
    if direction != "adam":
        return g if direction == "gradient" else each(lambda x: rational(float((x > 0) - (x < 0))), g), m, v
    m = each(lambda m, x: product(h["beta1"], m) + product(1 - h["beta1"], x), m, g)
    v = each(lambda v, x: product(h["beta2"], v) + product(1 - h["beta2"], x, x), v, g)
    first, second = (1 - power(h[name], n) for name in ("beta1", "beta2"))
    return each(lambda m, v: product(m, 1 / first) / (root(product(v, 1 / second)) + h["adam_epsilon"]), m, v), m, v


def _one_slot(theta: Any, u: Any, h: dict[str, Any]) -> dict[str, Any]:
    """The formulas, for one slot: theta and u hold its entries."""
    u2 = sum((product(x, x) for x in u), rational(0.0)) / max(len(u), 1)
    alpha = product(h["alpha"], h["sigma"]) / root(larger(u2, h["epsilon"]))
    delta = [-(product(alpha, x) + product(h["rho"], y)) for x, y in zip(u, theta, strict=True)]
    new = [y + x for y, x in zip(theta, delta, strict=True)]
    return dict(u2=u2, alpha=alpha, rho=h["rho"], delta=delta, theta=new)
