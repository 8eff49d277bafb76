"""AdamW over parameter trees, to compare with: not Amos, and not held to any bits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.checks import Arrays, check_finite, check_written, named_arrays, named_gradients
from amos_ref.dtypes import rounded
from amos_ref.errors import StateError
from amos_ref.optimizers.interrupt import Whole
from amos_ref.options import check_options, learning_rate_at


class AdamWState(NamedTuple):
    """What AdamW remembers: steps taken, and means of the gradient and of its square per leaf name, in float64."""

    count: int
    m: Arrays
    v: Arrays


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), as torch has it.

    At step t = 1, 2, ..., for each entry::

        m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
        u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + adam_epsilon)
        theta = theta - learning_rate (u + weight_decay theta)

    Parameters
    ----------
    learning_rate : float or callable
        >= 0, or a schedule called with the step t, from 1.
    beta1, beta2 : float
        In [0, 1).
    adam_epsilon : float
        > 0.
    weight_decay : float
        >= 0.

    Raises
    ------
    HyperParameterError
        If an option is of the wrong type or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from amos_ref.adamw import AdamW
    >>> opt, params = AdamW(learning_rate=0.1), np.array([1.0, -2.0])
    >>> state = opt.step(params, np.array([3.0, -4.0]), opt.init(params))
    >>> params.round(3)
    array([ 0.899, -1.898])
    """

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.options = check_options(
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            adam_epsilon=adam_epsilon,
            weight_decay=weight_decay,
        )

    def __repr__(self) -> str:
        return f"AdamW({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    def init(self, params: Any) -> AdamWState:
        """Return the state before the first step: count 0 and zeros."""
        thetas = named_arrays(params)
        for name, theta in thetas.items():
            check_finite(theta, f"params leaf {name!r}")
        m, v = ({name: np.zeros(theta.shape) for name, theta in thetas.items()} for _ in "mv")
        return AdamWState(0, m, v)

    def step(self, params: Any, grads: Any, state: AdamWState) -> AdamWState:
        """Compute one step in place; on an error nothing is written."""
        steps = self.trace(grads, state, params)
        thetas = named_arrays(params)
        check_written({"parameter": thetas, "state m": state.m, "state v": state.v}, named_gradients(grads, thetas))
        new = state._replace(count=int(state.count) + 1)
        rows = [(thetas[name], rounded(after["theta"], thetas[name])) for name, after in steps.items()]
        rows += [(getattr(state, part)[name], after[part]) for name, after in steps.items() for part in "mv"]
        with Whole(new):
            for target, value in rows:
                target[...] = value
        return new

    def trace(self, grads: Any, state: AdamWState, params: Any) -> dict[str, dict[str, Any]]:
        """Return every intermediate of one step by leaf name; nothing is changed."""
        thetas = named_arrays(params)
        shapes = {name: theta.shape for name, theta in thetas.items()}
        if not isinstance(state, AdamWState) or any(
            {name: np.shape(a) for name, a in part.items()} != shapes for part in (state.m, state.v)
        ):
            raise StateError("state is no AdamWState of these parameters; init(params) makes one")
        t = int(state.count) + 1
        alpha = learning_rate_at(self.options["learning_rate"], t)
        rho = alpha * self.options["weight_decay"]
        betas = {name: self.options[name] for name in ("beta1", "beta2", "adam_epsilon")}
        steps = {}
        for name, g in named_gradients(grads, thetas).items():
            check_finite(g, f"gradient of leaf {name!r}", squared=True)
            theta, wide = thetas[name].astype(np.float64), g.astype(np.float64)
            m, v, u = adam(wide, state.m[name], state.v[name], t, **betas)
            delta = spec.change(alpha, u, rho, theta)
            steps[name] = dict(m=m, v=v, u=u, alpha=alpha, rho=rho, delta=delta, theta=theta + delta)
        return steps


def adam(g, m, v, t, *, beta1, beta2, adam_epsilon):
    """Return (m, v, u) of Adam after t gradients."""
    with np.errstate(all="ignore"):
        # m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
        m, v = spec.average(m, g, beta1), spec.second_moment(v, g * g, beta2)
        # u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)
        root = np.sqrt(v / spec.one_minus_power(beta2, t))
        return m, v, m / spec.one_minus_power(beta1, t) / (root + adam_epsilon)
