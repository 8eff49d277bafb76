"""The settings of the experiment with digits, which examples/why_amos.py and ``amos-ref run digits`` share.

Paper Amos has its authors' recipe for MNIST, and the closed form has its rule; docs/choosing.md gives both. AdamW has
no such recipe, so it gets a grid.
"""

from collections.abc import Iterator
from typing import Any

HIDDEN, BATCH, EPOCHS = 256, 32, 9  # units of the network, digits in a minibatch; the epochs are the authors'
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # by which the authors' xi is varied, to see what a wrong one costs
ALPHAS, HALF_LIVES = (1.0, 3.0), (0.1, 1.0)  # of 1/sqrt(T) and of T: the bounds that the closed form's rule gives
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # AdamW's learning rates
WEIGHT_DECAYS = (0.0, 0.01, 0.1, 0.3)  # and its weight decays


def paper(batches: int, samples: float, xi: float = 1.0, eta: float = 1.0) -> dict[str, Any]:
    """Return the options of paper Amos for a network of two layers, with xi and eta so many times as large.

    Parameters
    ----------
    batches : int
        The number N of minibatches in an epoch, >= 1.
    samples : float
        How many samples of a minibatch the loss is summed over, > 0. For a mean over n samples it is 1/n, because a
        mean has gradients that are n times smaller than those of the sum, and so is the bound that clips them.
    xi, eta : float
        By what the recipe's learning rate and sizes are multiplied.

    Returns
    -------
    dict
        What :class:`amos_ref.Amos` takes. The kernels are ``Dense_0/kernel`` and ``Dense_1/kernel``, or
        ``hidden/kernel`` and ``out/kernel``.
    """
    return dict(
        learning_rate=xi / batches**0.5,
        eta={
            "(Dense_0|hidden)/kernel": f"{eta} * sqrt(2 / SHAPE[0])",
            "(Dense_1|out)/kernel": f"{eta} * sqrt(1 / SHAPE[0])",
            ".*bias": 0.5 * eta,
        },
        slot_shape={"(Dense_0|hidden)/kernel": "(1, SHAPE[1])", ".*": "()"},
        beta=0.98,
        clip_value=samples**0.5,
    )


def closed_form(steps: int, alpha: float = 1.0, half_life: float = 0.1) -> dict[str, Any]:
    """Return the options of the closed form along Adam's direction, for a plan of so many steps.

    `alpha` and `half_life` are fractions of 1/sqrt(steps) and of the steps. alpha_0 has to be below 1, also in plans of
    a few steps.
    """
    return dict(alpha_0=min(alpha / steps**0.5, 0.9), half_life=half_life * steps, direction="adam", sigma="init")


def adamw_grid() -> Iterator[dict[str, float]]:
    """Yield the options of AdamW that are tried."""
    for rate in RATES:
        for decay in WEIGHT_DECAYS:
            yield dict(learning_rate=rate, weight_decay=decay)
