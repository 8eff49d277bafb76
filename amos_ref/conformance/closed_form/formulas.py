"""The closed form as a table: how the page computes each stage, and other ways that are as good."""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.conformance.judging.paper import Override, Stage

OPTIONS = (
    *("alpha_0", "half_life", "p_0", "decay", "p_t", "q", "direction"),
    *("beta1", "beta2", "adam_epsilon", "epsilon", "clip_value"),
)

#: Name -> how the page computes it from what stands before it.
FORMULAS: dict[str, Stage] = {
    # what the step is given
    "event": lambda s: s.events.get(s.count - 1, ""),  # what the optimizer underwent before this step
    "grad": lambda s: s.grads[s.name],  # None: the leaf is skipped
    "old_m": lambda s: np.zeros(s.old_theta.shape) if s.old_m is None else s.old_m,  # None: not Adam's direction
    "old_v": lambda s: np.zeros(s.old_theta.shape) if s.old_v is None else s.old_v,
    "t": lambda s: s.count - 1 + s.ahead,
    **{name: lambda s, name=name: s.options[name] for name in OPTIONS},
    # sigma is measured where the case asks for it
    "sigma": lambda s: closed_form.initial_sigma(s.initial[s.name]) if "sigma" in s.asked else s.etas[s.name],
    # gradient, direction
    "g": lambda s: spec.clip(s.grad, np.inf if s.clip_value is None else s.clip_value),
    "m": lambda s: spec.average(s.old_m, s.g, s.beta1) if s.direction == "adam" else None,
    "v": lambda s: spec.second_moment(s.old_v, s.g * s.g, s.beta2) if s.direction == "adam" else None,
    "q1": lambda s: spec.one_minus_power(s.beta1, s.t + 1),
    "q2": lambda s: spec.one_minus_power(s.beta2, s.t + 1),
    "u": lambda s: _direction(s),
    # reduce
    "u2": lambda s: spec.mean_square(s.u, s.slot),
    # decide
    "shrink": lambda s: _schedule(s).shrink(s.t),
    "alpha": lambda s: closed_form.step_size(s.alpha_0, closed_form.scale_ratio(s.sigma, s.u2, s.epsilon), s.shrink),
    "rho": lambda s: closed_form.weight_decay(s.alpha_0, s.q, s.shrink),
    # apply
    "delta": lambda s: spec.change(s.alpha, s.u, s.rho, s.old_theta),
    "theta": lambda s: s.old_theta + s.delta,
}

#: Name -> other ways to compute a stage that are as good as the page's: only the rounding errors differ.
ORDERS: dict[str, tuple[Override, ...]] = {
    "alpha": (lambda s, page: s.alpha_0 * s.shrink * s.sigma / np.sqrt(np.maximum(s.u2, s.epsilon)),),
    "delta": (lambda s, page: -(s.rho * s.old_theta) - s.u * s.alpha,),
}

#: Part of the state -> the size of its entries, to which errors in float16 and bfloat16 are relative.
SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "m": lambda s, way: np.abs(s.old_m) + np.abs(s.g),
    "v": lambda s, way: np.abs(s.v),
}


def _direction(s: Any) -> Any:
    if s.direction == "adam":
        return s.m / s.q1 / (np.sqrt(s.v / s.q2) + s.adam_epsilon)
    return np.sign(s.g) if s.direction == "sign" else s.g


def _schedule(s: Any) -> closed_form.Schedule:
    numbers = {name: None if s.options[name] is None else float(getattr(s, name)) for name in ("half_life", "p_0")}
    return closed_form.Schedule(float(s.alpha_0), **numbers, decay=s.decay, p_t=s.p_t, q=float(s.q))
