"""All ranks go on, or all raise the same error: before anything is written, and with the communicator in order."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref import errors
from amos_ref.errors import AmosError, NonFiniteError, RankError
from amos_ref.mpi.ranks import Ranks
from amos_ref.optimizers.leaf import overflows

FINE = 0  # a rank that failed gives a number below it
NONE = 2**62  # no leaf


class Failed(Exception):
    """Another rank has failed."""


class Differ(Exception):
    """Ranks are not about to do the same."""


class NotFinite(Exception):
    """A leaf has a gradient that is not finite, somewhere."""


class Found(NamedTuple):
    """What a rank finds in its part of a leaf that has a gradient that is not finite."""

    stage: int  # 0: the gradient itself, 1: the direction made of it, 2: only the sum of squares
    index: tuple[int, ...]  # in the whole array; () of a sum
    message: str  # of a sum, whose it is
    largest: float  # entry


class Agreement:
    """One round in which every rank says that it is ready, or what is wrong.

    Parameters
    ----------
    ranks : Ranks
    order : dict of str to int
        The number of each leaf.
    everywhere : callable
        Whether every rank has a part of the leaf of this name.
    """

    ranks: Ranks
    order: dict[str, int]
    everywhere: Callable[[str], bool]
    names: list[str]
    done: bool
    doing: str
    count: Any

    def __init__(self, ranks: Ranks, order: dict[str, int], everywhere: Callable[[str], bool]) -> None:
        self.ranks, self.order, self.everywhere = ranks, order, everywhere
        self.names = list(order)
        self.done = True
        self._bad = NONE
        self._stepping: tuple[Any, str] = (None, "")

    def begin(self, doing: str, count: Any = None) -> None:
        """Begin a round for this method, of a state with this count."""
        self.doing, self.count, self.done, self._plan = doing, count, False, {}

    def agree(self, bad: str | None, names: Sequence[str], rates: Any) -> None:
        """Say that this rank is ready; see :class:`amos_ref.kernels.Sharing`."""
        self._plan = self._describe(names, rates)
        digest = hashlib.blake2b(repr(list(self._plan.values())).encode(), digest_size=8).digest()
        (number,) = struct.unpack("<q", digest)
        number >>= 1
        self.done = True
        mine = [FINE, NONE if bad is None else self.order[bad], number, ~number]
        least = self.ranks.least(np.array(mine, np.int64))
        if least[0] < FINE:
            raise Failed
        if least[2] != ~least[3]:
            raise Differ
        self._bad = int(least[1])

    def settle(self, bad: str | None) -> None:
        """Raise NotFinite if a leaf anywhere has a gradient that is not finite."""
        number = min(self._bad, NONE if bad is None else self.order[bad])
        if number != NONE:
            raise NotFinite(self.names[number])

    def _describe(self, names: Sequence[str], rates: Any) -> dict[str, Any]:
        """Return in a few values what this rank is about to do."""
        if self._stepping[0] is not names:
            text = ", ".join(name for name in names if self.everywhere(name))
            self._stepping = names, text
        plan: dict[str, Any] = {"method": self.doing, "count": self.count, "stepped leaves": self._stepping[1]}
        if rates is not None:
            plan["rates"] = (*rates.numbers, rates.chi, rates.mu, *(rates.aims or ()))
        return plan

    def fail(self, error: BaseException) -> None:
        """Tell all ranks of an error, and raise what all of them raise; an error of no kind of this package stays."""
        self.done = True
        self.ranks.least(np.array([self.ranks.rank - self.ranks.size, NONE, NONE, NONE], np.int64))
        self.raise_told(error)

    def raise_told(self, error: BaseException | None) -> None:
        """Raise the error of the first rank that has one; every rank comes here."""
        mine = None
        if error is not None:
            known = isinstance(error, AmosError) and type(error).__name__ in errors.__all__
            mine = type(error).__name__ if known else "", str(error) if known else f"{type(error).__name__}: {error}"
        told = self.ranks.tell(mine)
        if error is not None and mine is not None and not mine[0]:
            raise error
        rank, (kind, message) = next((rank, what) for rank, what in enumerate(told) if what is not None)
        if any(what != told[rank] for what in told):
            message = f"rank {rank}: {message}"
        raise (getattr(errors, kind) if kind else RankError)(message) from error

    def raise_difference(self) -> None:
        """Raise RankError that says in what the ranks differ; every rank comes here."""
        plans = self.ranks.tell(self._plan)
        for key in plans[0]:
            for rank, plan in enumerate(plans):
                if plan.get(key) != plans[0][key]:
                    one, other = plans[0][key], plan.get(key)
                    raise RankError(
                        f"rank 0 and rank {rank} are not about to do the same: {key} {one!s:.200} and {other!s:.200}"
                    )
        raise RankError("the ranks are not about to do the same")

    def raise_not_finite(self, name: str, found: Found | None) -> None:
        """Raise the NonFiniteError that one process would raise; every rank comes here with what it finds."""
        told = [Found(*each) for each in self.ranks.tell(found) if each is not None]
        first = min(told, key=lambda each: (each.stage, each.index))
        message = first.message
        if first.stage == 2:
            message += overflows(max(each.largest for each in told))
        error = NonFiniteError(message)
        error.index = first.index or None
        raise error
