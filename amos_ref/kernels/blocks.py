"""What is sent of one run that several parts have, and how everybody puts that together in the page's order.

The page sums a run 64 neighbours at a time, then those sums likewise, until one is left (spec.sum_rows). It begins with
level 0, and an entry of each further level is the sum of a group of 64 on the level below. A part that has all of a
group adds it up by itself and sends its sum alone, on the highest level that it can. A group of which several parts
have something is *torn*: they send what they have of it, and everybody adds it up.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from amos_ref import spec

ROWS = spec.ROWS


class TornGroup(NamedTuple):
    """Slots that everybody adds up in their order, and the slot of their sum."""

    first: int
    count: int
    slot: int


class Blocks:
    """The sums of a run that are sent, and those that are made of them; each has a slot.

    Parameters
    ----------
    count : int
        The entries on level 0.
    bounds : ndarray of int
        Before which of them one part ends and another one begins.
    part_of : callable
        ``part_of(entries)``: which part has these entries of level 0.

    Attributes
    ----------
    level, index : ndarray of int
        What is in each slot: an entry of a level. The sum of the run is in slot 0; without entries there is no slot.
    part : ndarray of int
        Which part sends it; -1 of a torn group, whose sum everybody makes.
    torn : list of list of TornGroup
        By level, the lowest first: on each, what is added up is there already.
    """

    count: int
    level: np.ndarray
    index: np.ndarray
    part: np.ndarray
    torn: list[list[TornGroup]]

    def __init__(self, count: int, bounds: np.ndarray, part_of: Callable[[np.ndarray], np.ndarray]) -> None:
        self.count = count
        counts = [count]
        while counts[-1] > 1:
            counts.append(-(-counts[-1] // ROWS))
        bounds = bounds[(bounds > 0) & (bounds < count)]
        torn = [np.unique(bounds[bounds % ROWS**k != 0] // ROWS**k) for k in range(len(counts))]  # none on level 0
        kept = [_members(groups, n) for groups, n in zip(torn[1:], counts, strict=False)] + [np.arange(counts[-1])]
        upwards = range(len(counts))
        first = [sum(map(len, kept[k + 1 :])) for k in upwards]  # the highest level comes first
        self.level = np.repeat(upwards[::-1], [len(kept[k]) for k in upwards[::-1]])
        self.index = np.concatenate(kept[::-1])
        self.part = part_of(self.index * ROWS**self.level)
        self.torn = []
        for k in upwards[1:]:
            slots = first[k] + np.searchsorted(kept[k], torn[k])
            self.part[slots] = -1
            sizes = np.minimum(counts[k - 1] - torn[k] * ROWS, ROWS).tolist()
            begin = range(first[k - 1], first[k - 1] + ROWS * len(sizes), ROWS)
            self.torn.append([TornGroup(*group) for group in zip(begin, sizes, slots.tolist(), strict=True)])

    def span(self, slot: int) -> tuple[int, int]:
        """Return the entries of level 0 of which a slot has the sum: the first, and how many."""
        size = ROWS ** int(self.level[slot])
        begin = int(self.index[slot]) * size
        return begin, min(size, self.count - begin)


def _members(groups: np.ndarray, count: int) -> np.ndarray:
    """Return the entries of groups on the level below, of so many."""
    found = np.add.outer(groups * ROWS, np.arange(ROWS)).reshape(-1)
    return found[found < count]
