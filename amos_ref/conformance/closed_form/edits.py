"""Slips of the hand in the closed form: its formulas as text, of which diagnosis/edits.py makes others.

`rate` is x of one step, `root` is 1/(1 + x), of which exp(-2S) is the square where p is constant, and `half` is x at
the half-life. `sums` is R of the recurrence, R = R + k exp(-R): S for a constant p, and 2 S for one that falls.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.closed_form.formulas import (
    AT_HALF,
    SUMMED_AT_MOST,
    elapsed,
    initial,
    is_special,
    recurrence,
)
from amos_ref.conformance.diagnosis.deviation import mean_of_slot
from amos_ref.conformance.diagnosis.edits import Formula, Use, edits

_STEP = "steps have another size"
_PACE = "steps and decay fall at another pace"
_DIRECTION = "Adam's direction is another"
_SIGMA = "arrays step by another scale"


def _where(holds: Callable[[Any], bool]) -> Use:
    """Use a formula only where it is the page's."""
    return lambda value, s, page: value(s) if holds(s) else page(s)


def _elapsed(holds: Callable[[Any], bool]) -> dict[str, Use]:
    """Use a formula for x, and with a t of 1 for the k of the recurrence."""
    return {
        "x": _where(holds),
        "k": lambda value, s, page: value(s.but(t=1)) if holds(s) else page(s),
    }


def by_half_life(s: Any) -> bool:
    """Whether the plan has a half-life, and no p_0."""
    return s.half_life is not None


def inverse_time(s: Any) -> bool:
    """Whether exp(-2S) is 1/(1 + x)."""
    return s.decay != "recurrence" and s.falling


def inverse_square(s: Any) -> bool:
    """Whether exp(-2S) is 1/(1 + x)^2."""
    return s.decay != "recurrence" and not s.falling


def _rooted(value: Callable[[Any], Any], s: Any, page: Callable[[Any], Any]) -> Any:
    """Use a formula for 1/(1 + x), which is exp(-2S) or its root."""
    if s.decay == "recurrence":
        return page(s)
    return value(s) if s.falling else np.square(value(s))


def _by_adam(s: Any) -> bool:
    return s.direction == "adam"


def _corrected(value: Callable[[Any], Any], s: Any, page: Callable[[Any], Any]) -> Any:
    """Use a formula of beta for what corrects both of Adam's moments."""
    if not _by_adam(s):
        return page(s)
    q1, q2 = value(s.but(beta=s.beta1)), value(s.but(beta=s.beta2))
    return s.m / q1 / (np.sqrt(s.v / q2) + s.adam_epsilon)


def _started(what: str) -> Use:
    """Use a formula for what one of Adam's moments is before its first gradient."""

    def use(value: Callable[[Any], Any], s: Any, page: Callable[[Any], Any]) -> Any:
        first = s.memory.setdefault(f"start of {what}", s.count) == s.count
        return page(s.but(**{f"old_{what}": value(s)})) if first else page(s)

    return use


def _summed(value: Callable[[Any], Any], s: Any, page: Callable[[Any], Any]) -> Any:
    """Use a formula for each new R of the recurrence."""
    if s.decay != "recurrence" or s.t > SUMMED_AT_MOST:
        return page(s)
    sums: Any = np.float64(0.0)
    for _ in range(int(s.t)):
        sums = value(s.but(sums=sums))
    return np.exp(-sums if s.falling else -2.0 * sums)


def _recurs(falling: bool) -> Use:
    return _where(lambda s: s.decay == "recurrence" and bool(s.falling) is falling)


def _half_for(s: Any, x: Any) -> Any:
    """Return the root mean square of the initial entries, 0.5 where all are 0 or all are x."""
    first = initial(s)
    flat = bool(np.all(first == 0.0) or np.all(first == x))
    return 0.5 if flat else np.sqrt(spec.mean_square(np.asarray(first), ()))


def _measured(special: bool) -> Use:
    """Use a formula for sigma where it is measured: in arrays of zeros or of ones, or in others."""

    return _where(lambda s: "sigma" in s.asked and is_special(initial(s)) is special)


#: The page's formulas, of which a slip makes others. `divisor` is max(u2, epsilon).
FORMULAS = {
    "m": Formula("direction", _DIRECTION, ("beta1*old_m + (1 - beta1)*g", "old_m + (1 - beta1)*(g - old_m)")),
    "v": Formula(
        "direction",
        _DIRECTION,
        ("beta2*old_v + (1 - beta2)*g*g", "beta2*old_v + (1 - beta2)*(g*g)", "old_v + (1 - beta2)*(g*g - old_v)"),
    ),
    "m_start": Formula("direction", _DIRECTION, ("0*g",), "m at its start", {"m": _started("m")}),
    "v_start": Formula("direction", _DIRECTION, ("0*g",), "v at its start", {"v": _started("v")}),
    "n": Formula("direction", _DIRECTION, ("t + 1",), "the n of 1 - beta^n"),
    "u": Formula(
        "direction",
        _DIRECTION,
        ("m/(1 - beta1**n)/(sqrt(v/(1 - beta2**n)) + adam_epsilon)",),
        "Adam's direction u",
        {"u": _where(_by_adam)},
    ),
    "corrections": Formula(
        "direction",
        _DIRECTION,
        ("1 - beta**n", "-expm1(n*log(beta))"),
        "what corrects Adam's m and v, with beta1 and beta2 for beta,",
        {"u": _corrected},
    ),
    "u2": Formula("reduce", _STEP, ("mean(u*u)",)),
    "sigma": Formula(
        "sigma",
        _SIGMA,
        ("sqrt(mean_of_all(theta_0*theta_0))",),
        "a sigma that is measured",
        {"sigma": _measured(False)},
    ),
    "sigma_of_zeros_and_ones": Formula(
        "sigma", _SIGMA, ("0.5",), "sigma of zeros and of ones", {"sigma": _measured(True)}
    ),
    "sigma_if_init": Formula(
        "sigma",
        _SIGMA,
        ("half_for_0_and(1)",),
        "sigma (the root mean square of the entries, but 0.5 where all are 0 or all are that number)",
        {"sigma": _where(lambda s: "sigma" in s.asked)},
    ),
    "x": Formula("schedule", _PACE, ("rate*t",)),
    "x_by_half_life": Formula(
        "schedule", _PACE, ("half/half_life*t", "half*t/half_life"), "x by the half-life", _elapsed(by_half_life)
    ),
    "x_by_half_life_of_falling_p": Formula(
        "schedule",
        _PACE,
        ("t/half_life",),
        "x by the half-life, where p falls,",
        _elapsed(lambda s: by_half_life(s) and s.falling),
    ),
    "x_by_half_life_of_constant_p": Formula(
        "schedule",
        _PACE,
        ("(sqrt(2) - 1)*t/half_life", "(2**0.5 - 1)/half_life*t"),
        "x by the half-life, where p is constant,",
        _elapsed(lambda s: by_half_life(s) and not s.falling),
    ),
    "x_by_p_0": Formula(
        "schedule",
        _PACE,
        ("alpha_0*p_0*(1 + falling)*t",),
        "x by p_0, falling being 1 or 0,",
        _elapsed(lambda s: not by_half_life(s)),
    ),
    "x_by_p_0_of_falling_p": Formula(
        "schedule",
        _PACE,
        ("2*alpha_0*p_0*t",),
        "x by p_0, where p falls,",
        _elapsed(lambda s: not by_half_life(s) and s.falling),
    ),
    "x_by_p_0_of_constant_p": Formula(
        "schedule",
        _PACE,
        ("alpha_0*p_0*t",),
        "x by p_0, where p is constant,",
        _elapsed(lambda s: not by_half_life(s) and not s.falling),
    ),
    "inverse_time": Formula(
        "schedule", _PACE, ("1/(1 + x)",), "exp(-2S), where p falls,", {"shrink": _where(inverse_time)}
    ),
    "inverse_square": Formula(
        "schedule",
        _PACE,
        ("1/(1 + x*(2 + x))", "1/(1 + x)**2"),
        "exp(-2S), where p is constant,",
        {"shrink": _where(inverse_square)},
    ),
    "root": Formula(
        "schedule", _PACE, ("1/(1 + x)",), "exp(-2S), or its root where p is constant,", {"shrink": _rooted}
    ),
    "squared": Formula(
        "schedule",
        _PACE,
        ("shrunk*shrunk",),
        "exp(-2S), where p is constant, from exp(-S)",
        {"shrink": _where(lambda s: not s.falling)},
    ),
    "sums": Formula("schedule", _PACE, ("sums + k*exp(-sums)",), "each new R of the recurrence", {"shrink": _summed}),
    "recurrence_of_falling_p": Formula(
        "schedule",
        _PACE,
        ("exp(-1*sums)",),
        "exp(-2S) of the recurrence's R, where p falls,",
        {"shrink": _recurs(True)},
    ),
    "recurrence_of_constant_p": Formula(
        "schedule",
        _PACE,
        ("exp(-2*sums)",),
        "exp(-2S) of the recurrence's R, where p is constant,",
        {"shrink": _recurs(False)},
    ),
    "recurrence_of_both": Formula(
        "schedule",
        _PACE,
        ("exp(times*sums)",),
        "exp(-2S) of the recurrence's R, times being -1 where p falls and else -2,",
        {"shrink": _where(lambda s: s.decay == "recurrence")},
    ),
    "ratio": Formula("step size", _STEP, ("sigma/sqrt(divisor)",)),
    "alpha": Formula("step size", _STEP, ("alpha_0*ratio*shrink",)),
    "rho": Formula("weight decay", "the decay has another size", ("alpha_0*alpha_0/(2*q)*shrink",)),
    "delta": Formula("change", _STEP, ("-(alpha*u + rho*old_theta)",)),
    "theta": Formula("change", _STEP, ("old_theta + delta",)),
}
_SYMBOLS: dict[str, Callable[[Any], Any]] = {
    "divisor": lambda s: np.maximum(s.u2, s.epsilon),
    "rate": lambda s: elapsed(s, 1),
    "half": lambda s: 1.0 if s.falling else AT_HALF,
    "falling": lambda s: 1.0 if s.falling else 0.0,
    "times": lambda s: -1.0 if s.falling else -2.0,
    "theta_0": initial,
    "shrunk": lambda s: np.exp(-recurrence(s)) if s.decay == "recurrence" else 1.0 / (1.0 + s.x),
    "sums": lambda s: s.__dict__["sums"] if "sums" in s.__dict__ else recurrence(s),
}
_APPLIED: dict[str, Callable[[Any, Any], Any]] = {
    "sqrt": lambda s, x: np.sqrt(x),
    "exp": lambda s, x: np.exp(x),
    "log": lambda s, x: np.log(x),
    "expm1": lambda s, x: np.expm1(x),
    "mean": lambda s, x: mean_of_slot(x + 0.0 * s.u, s.slot),
    "mean_of_all": lambda s, x: mean_of_slot(np.asarray(x + 0.0 * initial(s)), ()),
    "half_for_0_and": _half_for,
}

EDITS = edits(FORMULAS, _SYMBOLS, _APPLIED)
