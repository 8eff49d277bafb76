"""Directions made of gradients, as backends take them from the page; see :class:`amos_ref.kernels.Direction`."""

from typing import Any, NamedTuple

import numpy as np

from amos_ref.spec import average, one_minus_power, second_moment


def sign(g: Any) -> tuple[Any]:
    # u = sign(g)
    return (np.float64(g > 0.0) - np.float64(g < 0.0),)


class Sign(NamedTuple):
    """The sign of each entry."""

    direct = staticmethod(sign)
    moments = 0


def adam(
    g: Any, m: Any, v: Any, beta1: float, beta2: float, adam_epsilon: float, q1: float, q2: float
) -> tuple[Any, Any, Any]:
    # m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    m, v = average(m, g, beta1), second_moment(v, g * g, beta2)
    # u = m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + epsilon)
    return m / q1 / (np.sqrt(v / q2) + adam_epsilon), m, v


def adam_in_loops(
    g: float, m: float, v: float, beta1: float, beta2: float, adam_epsilon: float, q1: float, q2: float
) -> tuple[float, float, float]:
    """Return the same without a division by 1: the compiler makes a loop of its own of it."""
    m, v = average(m, g, beta1), second_moment(v, g * g, beta2)
    mean = m if q1 == 1.0 else m / q1
    return mean / (np.sqrt(v / q2) + adam_epsilon), m, v


def is_bounded(
    g: float, m: float, v: float, beta1: float, beta2: float, adam_epsilon: float, q1: float, q2: float
) -> bool:
    """Whether no square can overflow: |u| is at most m / q1 / epsilon, and v would not be finite if g^2 were not."""
    m, v = average(m, g, beta1), second_moment(v, g * g, beta2)
    return (abs(m) < 2.0**500 * q1 * adam_epsilon) & (v >= 0.0) & (v < np.inf)


class Adam(NamedTuple):
    """What AdamW moves along, and the closed form if it is asked to."""

    beta1: float
    beta2: float
    adam_epsilon: float
    q1: float  # 1 - beta1^n after n gradients
    q2: float

    direct = staticmethod(adam)
    direct_in_loops = staticmethod(adam_in_loops)
    is_bounded = staticmethod(is_bounded)
    moments = 2

    @classmethod
    def after(cls, n: int, beta1: float, beta2: float, adam_epsilon: float) -> "Adam":
        """Return the numbers of the step that takes the nth gradient."""
        return cls(beta1, beta2, adam_epsilon, one_minus_power(beta1, n), one_minus_power(beta2, n))
