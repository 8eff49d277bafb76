"""Paper Amos as a table: how the page computes each stage, and other ways that are as good."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec

Stage = Callable[[Any], Any]
Override = Callable[[Any, Stage], Any]  # is given the step so far, and the stage that it overrides

OPTIONS = ("beta", "momentum", "clip_value", "extra_l2", "c_coef", "d_coef", "epsilon")


def mean_square(s: Any, x: Any, slot: tuple[int, ...]) -> Any:
    """Return the page's mean square; that of the same numbers is computed once for all readings of a case."""
    kept, known, found = s.squares.get((s.name, s.count), (None, None, None))
    if kept != slot or known.dtype != x.dtype or not np.array_equal(known, x):
        found = spec.mean_square(x, slot)
        s.squares[s.name, s.count] = slot, x, found
    return found


#: Name -> how the page computes it from what stands before it.
FORMULAS: dict[str, Stage] = {
    # what the step is given
    "event": lambda s: s.events.get(s.count - 1, ""),  # what the optimizer underwent before this step
    "grad": lambda s: s.grads[s.name],  # None: the leaf is skipped
    "old_v": lambda s: s.old_v,
    "old_b": lambda s: s.old_b,
    "old_m": lambda s: np.zeros(s.old_theta.shape) if s.old_m is None else s.old_m,  # None: no momentum until now
    "t": lambda s: s.count + s.ahead,
    "xi": lambda s: s.rates[s.count - 1],
    "eta": lambda s: s.etas[s.name],
    **{name: lambda s, name=name: s.options[name] for name in OPTIONS},
    # gradient, reduce
    "g": lambda s: spec.clip(s.grad, np.inf if s.clip_value is None else s.clip_value),
    "g2": lambda s: mean_square(s, s.g, s.old_v.shape),
    # decide
    "v": lambda s: spec.second_moment(s.old_v, s.g2, s.beta),
    "q": lambda s: spec.one_minus_power(s.beta, s.t),
    "r": lambda s: spec.reciprocal(s.v, s.q, s.epsilon),
    "c": lambda s: spec.decay_factor_c(s.old_b, s.xi, s.c_coef),
    "gamma": lambda s: spec.growth(s.c, s.xi, s.r, s.g2),
    "d": lambda s: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.d_coef),
    "alpha": lambda s: spec.step_size(s.d, s.xi, s.eta, s.r),
    "rho": lambda s: spec.weight_decay(s.d, s.gamma, s.extra_l2),
    "b": lambda s: spec.grown(s.old_b, s.gamma),
    # apply
    "delta": lambda s: spec.change(s.alpha, s.g, s.rho, s.old_theta),
    "m": lambda s: spec.average(s.old_m, s.delta, s.momentum) if s.momentum else None,
    "theta": lambda s: s.old_theta + (s.delta if s.m is None else s.m),
}

#: Name -> other ways to compute a stage that are as good as the page's: only the rounding errors differ.
ORDERS: dict[str, tuple[Override, ...]] = {
    "g2": (
        lambda s, page: mean_over(s.g, s.old_v.shape, add_at_once),
        lambda s, page: mean_over(s.g, s.old_v.shape, add_one_by_one),
    ),
    "v": (
        lambda s, page: s.old_v + (1.0 - s.beta) * (s.g2 - s.old_v),
        lambda s, page: s.old_v - (1.0 - s.beta) * (s.old_v - s.g2),
    ),
    "q": (
        lambda s, page: 1.0 - power(s.beta, s.t),
        lambda s, page: -np.expm1(s.t * np.log(s.beta)) if s.beta else page(s),
    ),
    "r": (lambda s, page: s.q * (1.0 / np.maximum(s.v, s.epsilon)),),
    "c": (
        lambda s, page: 1.0 / np.sqrt(1.0 + s.old_b * (s.c_coef * np.sqrt(s.xi))),
        lambda s, page: (1.0 + np.sqrt(s.xi) * (s.c_coef * s.old_b)) ** -0.5,
    ),
    "gamma": (
        lambda s, page: s.c * s.xi * s.xi * s.r * s.g2,
        lambda s, page: s.xi * s.xi * (s.c * s.r) * s.g2,
        lambda s, page: s.g2 * s.r * s.c * (s.xi * s.xi),
    ),
    "d": (
        lambda s, page: 1.0 / (1.0 + s.old_b * (s.d_coef * np.sqrt(s.xi * s.eta))),
        lambda s, page: 1.0 / (1.0 + s.d_coef * np.sqrt(s.xi) * np.sqrt(s.eta) * s.old_b),
    ),
    "alpha": (
        lambda s, page: s.xi * s.eta * s.d * np.sqrt(s.r),
        lambda s, page: s.d * np.sqrt(s.r) * s.eta * s.xi,
    ),
    "rho": (lambda s, page: 0.5 * s.gamma * s.d + s.extra_l2 * s.d,),
    "b": (lambda s, page: s.old_b * (1.0 + s.gamma) + s.gamma,),
    "delta": (lambda s, page: -(s.rho * s.old_theta) - s.g * s.alpha,),
    "m": (lambda s, page: s.old_m + (1.0 - s.momentum) * (s.delta - s.old_m) if s.momentum else None,),
}


def over_slot(x: Any, slot: tuple[int, ...], add: Callable[..., Any]) -> Any:
    """Apply ``add(array, axes)`` over the axes that a slot reduces."""
    aligned = (1,) * (x.ndim - len(slot)) + tuple(slot)
    return add(x, tuple(i for i, n in enumerate(aligned) if n != x.shape[i])).reshape(slot)


def mean_over(x: Any, slot: tuple[int, ...], add: Callable[..., Any]) -> Any:
    """Return the mean of squares over a slot, summed by `add`."""
    return over_slot(x * x, slot, add) / max(x.size // max(math.prod(slot), 1), 1)


def add_at_once(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum all axes in NumPy's order."""
    return np.add.reduce(x, axes, keepdims=True)


def add_one_by_one(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum axis after axis, entry after entry."""
    for axis in axes:
        total, *rest = np.moveaxis(x, axis, 0) if x.shape[axis] else [np.zeros(np.delete(x.shape, axis))]
        for one in rest:
            total = total + one
        x = np.expand_dims(total, axis)
    return x


_PRODUCTS = 2**10  # a count that was set to more has no products behind it


def power(beta: Any, t: int) -> Any:
    """Return beta^t as repeated products."""
    if t > _PRODUCTS:
        return beta ** float(t)
    product = beta
    for _ in range(t - 1):
        product = product * beta
    return product


#: Part of the state -> the size of its entries, to which errors in float16 and bfloat16 are relative; `way` is how far
#: each entry of theta has gone.
SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "v": lambda s, way: np.abs(s.v),
    "b": lambda s, way: np.abs(s.b),
    "m": lambda s, way: np.full(s.m.shape, np.fmax.reduce(np.ravel(way), initial=0.0)),
}
