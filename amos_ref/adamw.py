"""AdamW over parameter trees, as a baseline for Amos. It takes no part in the check of a port."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.checks import Arrays
from amos_ref.dtypes import Shape
from amos_ref.kernels import Method
from amos_ref.optimizers.base import Optimizer
from amos_ref.optimizers.directions import Adam
from amos_ref.optimizers.leaf import DirectedLeaf, aim
from amos_ref.optimizers.state import AdamWState
from amos_ref.optimizers.trace import Lines
from amos_ref.options import learning_rate_at

LINES = (
    ("m", "m = beta1 m + (1 - beta1) g"),
    ("v", "v = beta2 v + (1 - beta2) g^2"),
    ("u", "u = m_hat / (sqrt(v_hat) + epsilon)"),
    ("alpha", "alpha = learning_rate"),
    ("rho", "rho = learning_rate weight_decay"),
    ("delta", "delta = -(alpha u + rho theta)"),
    ("theta", "theta = theta + delta"),
)


class AdamWRates(NamedTuple):
    """The numbers of one step that all leaves share."""

    alpha: float  # step size
    rho: float  # weight decay
    aims: Adam

    chi = np.inf  # no clipping
    mu = 0.0  # no momentum beside Adam's own

    @property
    def numbers(self) -> tuple[float, ...]:
        """What :func:`decide` takes behind the scale."""
        return self.alpha, self.rho


def decide(u2: float, scale: float, alpha: float, rho: float) -> tuple[float, float]:
    """Return (alpha, rho), which are the same for every slot."""
    return alpha, rho


def compute_stages(leaf: DirectedLeaf, rates: AdamWRates, mean: Any = None) -> dict[str, Any]:
    """Return every intermediate of a leaf's step."""
    theta, (_, u, m, v) = leaf.theta.astype(np.float64), aim(leaf, rates)
    with np.errstate(all="ignore"):
        delta = spec.change(rates.alpha, u, rates.rho, theta)
        return dict(m=m, v=v, u=u, alpha=rates.alpha, rho=rates.rho, delta=delta, theta=theta + delta)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), as torch has it.

    At step t = 1, 2, ..., for each entry::

        m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
        u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + adam_epsilon)
        theta = theta - learning_rate (u + weight_decay theta)

    Parameters
    ----------
    learning_rate : float or callable
        >= 0, or a schedule, which is called with the step t = 1, 2, ... and returns such a number.
    beta1, beta2 : float
        In [0, 1): how much of m and of v is kept at each step.
    adam_epsilon : float
        > 0: added to the root of v.
    weight_decay : float
        >= 0: it is multiplied by the learning rate, as in torch.
    backend : {"auto", "numpy", "cpu"}
        What computes the step: NumPy, or compiled kernels, which "auto" takes. Both compute the same bits.

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

    state_type: type = AdamWState
    method: ClassVar[Method] = Method(decide, 0, compute_stages, aim, Adam)
    lines: ClassVar[Lines] = LINES
    backends: ClassVar[tuple[str, ...]] = ("numpy", "cpu", "auto")

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            adam_epsilon=adam_epsilon,
            weight_decay=weight_decay,
            backend=backend,
        )

    @property
    def averages(self) -> bool:
        """Whether the state holds m and v: always."""
        return True

    def _rates(self, count: int) -> AdamWRates:
        o = self.options
        alpha = learning_rate_at(o["learning_rate"], count + 1)
        aims = Adam.after(count + 1, o["beta1"], o["beta2"], o["adam_epsilon"])
        return AdamWRates(alpha, alpha * o["weight_decay"], aims)

    def _rule(self, name: str, shape: Shape) -> tuple[Shape]:
        return ((),)

    def _start(self, thetas: Arrays, place: Any) -> AdamWState:
        m, v = ({name: place(np.zeros(theta.shape)) for name, theta in thetas.items()} for _ in "mv")
        return AdamWState(0, m, v)

    def _leaf(self, name: str, theta: Any, direction: Any, state: AdamWState, rule: tuple[Shape]) -> DirectedLeaf:
        return DirectedLeaf(name, theta, direction, *rule, 1.0, "direction", state.m[name], state.v[name])
