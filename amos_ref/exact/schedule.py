"""exp(-2 S_t) of the closed form over the real numbers, for whole t of any size.

The recurrence R_{t+1} = R_t + k exp(-R_t) from R_0 = 0 is y_{t+1} = y_t exp(1/y_t) for y = exp(R) / k. With

    A(y) = y - log(y)/2 + c_1/y + ... + c_n/y^n,    z = 1/y,    E(z) = A(y exp(z)) - A(y) - 1

the c_j are those for which E, an entire function, has a zero of order n + 2 at 0. On the circle |z| = 1/2 it is at most

    M = 2 (e^(1/2) - 1) - 5/4 + sum of |c_j| 2^-j (e^(j/2) - 1),

so |E(z)| <= M |2z|^(n+2) inside (Schwarz). A step moves y by at least 1, so that all steps from y >= Y on move A(y) -
t by at most M 2^(n+2) (Y^-(n+2) + Y^-(n+1) / (n+1)). n and Y are chosen so that this is below the precision. Smaller y
are iterated, and A(y_t) = A(y_0) + t is solved in balls each of which holds the solution.
"""

import functools
import math
from typing import Any, NamedTuple

from amos_ref.errors import HyperParameterError
from amos_ref.exact.reals import is_rational, load_flint, product, rational
from amos_ref.options import check_options


class Plan(NamedTuple):
    """The options of a schedule, checked: S_t follows from them."""

    alpha_0: Any  # rationals, here and below
    half_life: Any
    p_0: Any
    q: Any
    decay: str
    falling: bool  # p_t = p_0 exp(-S_t)


def plan(
    alpha_0: float,
    half_life: float | None = None,
    p_0: float | None = None,
    decay: str = "inverse-time",
    p_t: str | None = None,
    q: float = 1.0,
) -> Plan:
    """Return the options as rationals, or raise HyperParameterError."""
    given = check_options(alpha_0=alpha_0, half_life=half_life, p_0=p_0, decay=decay, p_t=p_t, q=q)
    if (half_life is None) == (p_0 is None):
        raise HyperParameterError(f"half_life is {half_life!r} and p_0 is {p_0!r}; exactly one of them must be given")
    if callable(p_t) or (p_t is not None and decay != "recurrence"):
        raise HyperParameterError(f"p_t is {p_t!r:.60} with decay {decay!r}; it must be a word, of a recurrence")
    falling = decay == "inverse-time" or (decay == "recurrence" and p_t != "constant")
    number = {
        name: None if given[name] is None else rational(given[name]) for name in ("alpha_0", "half_life", "p_0", "q")
    }
    found = Plan(**number, decay=decay, falling=falling)
    if not found.alpha_0**2 < 2 * found.q:
        raise HyperParameterError(f"q is {q!r}; it must be more than alpha_0^2/2")
    return found


def enclose_plan(t: int, of: Plan) -> dict[str, Any]:
    """Return S_t, shrink = exp(-2 S_t), alpha (for sigma = RMS(u)) and rho, each a rational or a ball."""
    shrink, s = _recurrence(t, of) if of.decay == "recurrence" else _closed_form(t, of)
    alpha, rho = product(of.alpha_0, shrink), product(of.alpha_0**2 / (2 * of.q), shrink)
    return dict(S=s, shrink=shrink, alpha=alpha, rho=rho)


def _closed_form(t: int, of: Plan) -> tuple[Any, Any]:
    if of.falling:  # exp(-2 S_t) = 1 / (1 + x),  x = 2 alpha_0 p_0 t, which is t / T
        x = t / of.half_life if of.p_0 is None else 2 * of.alpha_0 * of.p_0 * t
        return 1 / (1 + x), _log1p(x) / 2
    if of.p_0 is not None:  # 1 / (1 + x)^2,  x = alpha_0 p_0 t
        x = of.alpha_0 * of.p_0 * t
        return 1 / (1 + x) ** 2, _log1p(x)
    part = t / of.half_life  # x = (sqrt(2) - 1) t / T;  (1 + x)^2 = (1 - part)^2 + 2 part^2 + 2 part (1 - part) sqrt(2)
    square = (1 - part) ** 2 + 2 * part**2 + product(2 * part * (1 - part), load_flint().arb(2).sqrt())
    return 1 / square, _log1p(product(part, load_flint().arb(2).sqrt() - 1))


def _recurrence(t: int, of: Plan) -> tuple[Any, Any]:
    """S_t is R_t for a constant p, with k = alpha_0 p, and R_t / 2 for a falling one, with k = 2 alpha_0 p_0."""
    if t == 0:
        return rational(1.0), rational(0.0)
    if of.p_0 is not None:
        k = of.alpha_0 * of.p_0 * (2 if of.falling else 1)
    else:
        k = (1 if of.falling else load_flint().arb(2).sqrt() - 1) / of.half_life
    grown = k * grow(1 / load_flint().arb(k), t)  # exp(R_t)
    return (1 / grown, grown.log() / 2) if of.falling else (1 / grown**2, grown.log())


def _log1p(x: Any) -> Any:
    return x if is_rational(x) and x == 0 else load_flint().arb(x).log1p()


def grow(y: Any, t: int) -> Any:
    """Return y_t of y_{t+1} = y_t exp(1/y_t), from the ball y > 0, to about the precision of the context."""
    coefficients, least, gap = _abel(load_flint().ctx.prec)
    while t and not y >= least:
        y, t = y * (1 / y).exp(), t - 1
    if not t:
        return y
    target = y - _rest(y, coefficients) + t + gap
    y = (y + t).union(y + 2 * t)  # a step is at least 1, and at most 2
    while True:
        closer = target + _rest(y, coefficients)
        if not closer.rad() < y.rad() / 2:
            return closer
        y = closer


def _rest(y: Any, coefficients: Any) -> Any:
    """Return y - A(y)."""
    total = load_flint().arb(0)
    for c in reversed(coefficients):
        total = (total + c) / y
    return y.log() / 2 - total


@functools.cache
def _abel(bits: int) -> tuple[tuple[Any, ...], int, Any]:
    """Return c_1, ..., c_n, Y, and a ball around 0 that holds by how much A(y) - t moves from Y on."""
    flint = load_flint()
    n, least = bits // 4, bits
    c: list[Any] = []
    for m in range(2, n + 2):  # the coefficient of z^m in E is 0
        known = sum(
            (cj * flint.fmpq((-j) ** (m - j), math.factorial(m - j)) for j, cj in enumerate(c, 1)), flint.fmpq(0)
        )
        c.append((flint.fmpq(1, math.factorial(m + 1)) + known) / (m - 1))
    with flint.ctx.workprec(2 * bits):
        half = flint.arb(1) / 2
        largest = 2 * (half.exp() - 1) - half * 5 / 2
        largest += sum((abs(cj) * half**j * ((half * j).exp() - 1) for j, cj in enumerate(c, 1)), flint.arb(0))
        while True:
            gap = (
                largest
                * flint.arb(2) ** (n + 2)
                * flint.arb(least) ** -(n + 1)
                * (flint.arb(1) / least + flint.arb(1) / (n + 1))
            )
            if gap < flint.arb(2) ** -bits:
                return tuple(c), least, flint.arb(0, gap.upper())
            least *= 2
