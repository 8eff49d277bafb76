"""How much of a wrong change of theta is right: alpha g with some decay, or rho theta with some step size.

Two deviations may both show in the first theta, one in alpha and one in rho. Neither alone brings theta nearer to what
the port has. But a change is alpha g + rho theta with one alpha and one rho for all entries of a slot, so it can be
asked whether one of them is right whatever the other is.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.judging.paper import add_at_once, over_slot

ENOUGH_ENTRIES = 4  # entries of a slot: one number explains one entry, whatever it is


def count_right_terms(now: Mapping[str, Any], got: Mapping[str, Any], before: Mapping[str, Any], slack: float) -> int:
    """Return how many of a reading's two terms are right in all leaves whose theta is wrong.

    Parameters
    ----------
    now : mapping
        Of each leaf the reading's step, with the bounds around it.
    got, before : mapping
        The theta of each leaf that the port has after the step, and the one that it had before, where it was shown.
    slack : float
        What bounds are multiplied by.
    """
    counts = (
        _count(moment, got[name], before.get(name, moment.step.old_theta), slack)
        for name, moment in now.items()
        if name in got
    )
    return min((count for count in counts if count is not None), default=0)


def _count(moment: Any, got: np.ndarray, before: np.ndarray, slack: float) -> int | None:
    """Return the same of one leaf; None of one that says nothing: all is right, or slots are small."""
    s, bound = moment.step, slack * moment.allowed["theta"]
    slot = np.shape(s.alpha)
    if got.shape != before.shape or got.size < ENOUGH_ENTRIES * max(math.prod(slot), 1):
        return None
    got, before = got.astype(np.float64), before.astype(np.float64)
    with np.errstate(all="ignore"):
        if np.all(np.abs(got - s.theta) <= bound):
            return None
        along, moved = getattr(s, s.algorithm.along), before - got
        if not np.array_equal(s.theta, s.old_theta + s.delta, equal_nan=True):
            return 0  # a momentum moves it
        rests = (moved - s.alpha * along, before), (moved - s.rho * before, along)
        return sum(_is_multiple(rest, of, slot, bound) for rest, of in rests)


def _is_multiple(x: np.ndarray, of: np.ndarray, slot: tuple[int, ...], bound: Any) -> bool:
    """Whether an array is another one times a number for each slot, within bounds."""
    factor = over_slot(x * of, slot, add_at_once) / over_slot(of * of, slot, add_at_once)
    return bool(np.all(np.abs(x - factor * of) <= bound))
