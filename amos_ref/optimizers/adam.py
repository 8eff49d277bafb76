"""Adam's direction: what AdamW moves along, and the closed form if it is asked to."""

from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.checks import Arrays, check_finite
from amos_ref.optimizers.base import Aimed, Moments


def adam_directions(gradients: Arrays, state: Any, **betas: float) -> Aimed:
    """Return Adam's direction for each leaf, and its new moments; or raise NonFiniteError for a gradient."""
    directions: Arrays = {}
    moments: Moments = {"m": {}, "v": {}}
    for name, g in gradients.items():
        check_finite(g, f"gradient of leaf {name!r}", squared=True)
        found = adam(g.astype(np.float64), state.m[name], state.v[name], int(state.count) + 1, **betas)
        moments["m"][name], moments["v"][name], directions[name] = map(np.asarray, found)
    return directions, moments


def adam(g, m, v, t, *, beta1, beta2, adam_epsilon):
    """Return (m, v, u) of Adam after t gradients."""
    with np.errstate(all="ignore"):
        # m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        m, v = spec.average(m, g, beta1), spec.second_moment(v, g * g, beta2)
        # u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)
        root = np.sqrt(v / spec.one_minus_power(beta2, t))
        return m, v, m / spec.one_minus_power(beta1, t) / (root + adam_epsilon)
