"""The closed form as a table: how its page computes each stage, and other ways that are as good.

With nothing overridden the numbers are those of the page (amos_ref/closed_form.py) and, with Adam's direction, those of
:class:`amos_ref.ClosedFormAmos`, bit for bit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.conformance.judging.paper import (
    Override,
    Stage,
    add_at_once,
    add_one_by_one,
    mean_over,
    mean_square,
    power,
)

OPTIONS = (
    *("alpha_0", "half_life", "p_0", "decay", "p_t", "q", "clip_value", "direction"),
    *("beta1", "beta2", "adam_epsilon", "epsilon"),
)

AT_HALF = math.sqrt(2.0) - 1.0  # x at the half-life, where the cosine is constant


def elapsed(s: Any, t: Any) -> Any:
    """Return x = alpha_0 p t, twice that where p falls, as :class:`amos_ref.closed_form.Schedule` does."""
    if s.half_life is not None:
        return t / s.half_life * (1.0 if s.falling else AT_HALF)
    return s.alpha_0 * s.p_0 * t * (2.0 if s.falling else 1.0)


SUMMED_AT_MOST = 2**10  # a count that was set to more has no sums behind it


def initial(s: Any) -> Any:
    """Return the entries that sigma may be measured in."""
    return s.initial[s.name]


def is_special(a: Any) -> bool:
    """Whether all entries are 0 or all are 1: the page then has 0.5."""
    return bool(np.all(a == 0.0) or np.all(a == 1.0))


def recurrence(s: Any) -> Any:
    """Return R_t of R = R + k exp(-R), also for a k that no page has: one below 0. A count below 0 has no sums."""
    if not s.k < 0:
        return closed_form.recurrence(float(max(s.t, 0)), float(s.k))
    sums = np.float64(0.0)
    for _ in range(int(s.t) if s.t <= SUMMED_AT_MOST else 0):
        sums = sums + s.k * np.exp(-sums)
    return sums


def shrink(s: Any) -> Any:
    """Return exp(-2 S_t): of x = elapsed at t for the closed forms, of k = elapsed in one step for the recurrence."""
    if s.decay != "recurrence":
        return (closed_form.shrink_inverse_time if s.falling else closed_form.shrink_inverse_square)(s.x)
    sums = recurrence(s)
    return float(np.exp(-2 * (sums / 2 if s.falling else sums)))


def correction(beta: Any, n: Any) -> Any:
    """Return 1 - beta^n, also for an n that no page has: one below 0, or one and a half."""
    return spec.one_minus_power(beta, int(n)) if n >= 0 and n == int(n) else 1.0 - beta ** float(n)


def directed(s: Any) -> Any:
    """Return u: the gradient, its sign, or Adam's direction."""
    if s.direction != "adam":
        return np.sign(s.g) if s.direction == "sign" else s.g
    root = np.sqrt(s.v / correction(s.beta2, s.n))
    return s.m / correction(s.beta1, s.n) / (root + s.adam_epsilon)


#: Name -> how the page computes it from what stands before it.
FORMULAS: dict[str, Stage] = {
    # what the step is given
    "event": lambda s: s.events.get(s.count - 1, ""),  # what the optimizer underwent before this step
    "grad": lambda s: s.grads[s.name],  # None: the leaf is skipped
    "old_m": lambda s: np.zeros(s.old_theta.shape) if s.old_m is None else s.old_m,  # None: not Adam's direction
    "old_v": lambda s: np.zeros(s.old_theta.shape) if s.old_v is None else s.old_v,
    "t": lambda s: s.count - 1 + s.ahead,  # from 0
    **{name: lambda s, name=name: s.options[name] for name in OPTIONS},
    # gradient, direction
    "g": lambda s: spec.clip(s.grad, np.inf if s.clip_value is None else s.clip_value),
    "n": lambda s: s.t + 1,  # gradients that Adam has seen
    "m": lambda s: spec.average(s.old_m, s.g, s.beta1) if s.direction == "adam" else None,
    "v": lambda s: spec.second_moment(s.old_v, s.g * s.g, s.beta2) if s.direction == "adam" else None,
    "u": directed,
    # reduce
    "u2": lambda s: mean_square(s, s.u, s.slot),
    # decide
    "sigma": lambda s: closed_form.initial_sigma(s.initial[s.name]) if "sigma" in s.asked else s.etas[s.name],
    "falling": lambda s: s.decay == "inverse-time" or (s.decay == "recurrence" and s.p_t != "constant"),
    "x": lambda s: elapsed(s, s.t),
    "k": lambda s: elapsed(s, 1),
    "shrink": shrink,
    "ratio": lambda s: closed_form.scale_ratio(s.sigma, s.u2, s.epsilon),
    "alpha": lambda s: closed_form.step_size(s.alpha_0, s.ratio, s.shrink),
    "rho": lambda s: closed_form.weight_decay(s.alpha_0, s.q, s.shrink),
    # apply
    "delta": lambda s: spec.change(s.alpha, s.u, s.rho, s.old_theta),
    "theta": lambda s: s.old_theta + s.delta,
}


def _by_logarithm(s: Any, page: Stage) -> Any:
    """exp(-2 S) of S = log(1 + x), or half of it."""
    if s.decay == "recurrence":
        return _summed(s, page)
    sums = np.log1p(s.x)
    return np.exp(-sums if s.falling else -2.0 * sums)


def _by_product(s: Any, page: Stage) -> Any:
    """1/(1 + x), squared afterwards."""
    if s.decay == "recurrence":
        return _summed(s, page)
    root = 1.0 / (1.0 + s.x)
    return root if s.falling else root * root


def _summed(s: Any, page: Stage) -> Any:
    """The recurrence, summed step by step."""
    if s.t > SUMMED_AT_MOST:
        return page(s)
    sums, k = 0.0 * s.k, s.k / 2.0 if s.falling else s.k
    for _ in range(s.t):
        sums = sums + k * np.exp(-2.0 * sums if s.falling else -sums)
    return np.exp(-2.0 * sums)


def _q(beta: Any, n: int) -> Any:
    return 1.0 - power(beta, n)


def _adam_only(way: Callable[[Any], Any]) -> Override:
    return lambda s, page: way(s) if s.direction == "adam" else page(s)


def _rms(a: Any) -> Any:
    """As torch writes it: the norm over the root of the number of entries."""
    return np.sqrt(np.add.reduce(a * a, None)) / math.sqrt(max(a.size, 1))


def _measured(way: Callable[[Any], Any]) -> Override:
    """Measure sigma another way where it is measured, and is not the 0.5 of zeros or ones."""

    def override(s: Any, page: Stage) -> Any:
        first = s.initial[s.name]
        plain = "sigma" not in s.asked or np.all(first == 0.0) or np.all(first == 1.0)
        return page(s) if plain else way(first)

    return override


#: Name -> other ways to compute a stage that are as good as the page's: only the rounding errors differ.
ORDERS: dict[str, tuple[Override, ...]] = {
    "m": (_adam_only(lambda s: s.old_m + (1.0 - s.beta1) * (s.g - s.old_m)),),
    "v": (
        _adam_only(lambda s: s.old_v + (1.0 - s.beta2) * (s.g * s.g - s.old_v)),
        _adam_only(lambda s: s.beta2 * s.old_v + (1.0 - s.beta2) * s.g * s.g),
    ),
    "u": (
        _adam_only(
            lambda s: s.m / _q(s.beta1, s.n) / (np.sqrt(s.v) / np.sqrt(_q(s.beta2, s.n)) + s.adam_epsilon),
        ),
        _adam_only(
            lambda s: (
                (np.sqrt(_q(s.beta2, s.n)) / _q(s.beta1, s.n) * s.m)
                / (np.sqrt(s.v) + s.adam_epsilon * np.sqrt(_q(s.beta2, s.n)))
            )
        ),
    ),
    "u2": (
        lambda s, page: mean_over(s.u, s.slot, add_at_once),
        lambda s, page: mean_over(s.u, s.slot, add_one_by_one),
        lambda s, page: np.square(np.sqrt(page(s))),
    ),
    "sigma": (_measured(_rms), _measured(lambda a: np.sqrt(np.add.reduce(a * a, None) / max(a.size, 1)))),
    "x": (
        lambda s, page: page(s) if s.half_life is None else (1.0 / s.half_life) * s.t * elapsed(s, s.half_life),
        lambda s, page: elapsed(s, 1) * s.t,
    ),
    "shrink": (_by_logarithm, _by_product),
    "ratio": (
        lambda s, page: s.sigma * (1.0 / np.sqrt(np.maximum(s.u2, s.epsilon))),
        lambda s, page: s.sigma * np.maximum(s.u2, s.epsilon) ** -0.5,
    ),
    "alpha": (
        lambda s, page: s.alpha_0 * s.shrink * s.ratio,
        lambda s, page: s.ratio * (s.shrink * s.alpha_0),
    ),
    "rho": (
        lambda s, page: s.shrink * s.alpha_0 * s.alpha_0 / s.q / 2.0,
        lambda s, page: 0.5 * s.alpha_0 * (s.alpha_0 * s.shrink) / s.q,
    ),
    "delta": (lambda s, page: -(s.rho * s.old_theta) - s.u * s.alpha,),
}

#: Part of the state -> the size of its entries, to which errors in float16 and bfloat16 are relative.
SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "m": lambda s, way: np.full(s.m.shape, np.fmax.reduce(np.abs(s.m).ravel(), initial=0.0)),
    "v": lambda s, way: np.abs(s.v),
}
