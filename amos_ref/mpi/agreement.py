"""All ranks go on, or all raise the same error: before anything is written, and with the communicator in order."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from amos_ref import errors
from amos_ref.errors import AmosError, LayoutError, NonFiniteError, RankError
from amos_ref.mpi.ranks import Ranks
from amos_ref.optimizers.leaf import overflows

FINE = 0  # a rank that failed gives a number below it
NONE = 2**62  # no leaf

T = TypeVar("T")


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


class Plan:
    """What a rank is about to do something with, which must be the same on every rank.

    Parameters
    ----------
    **topics : str, or dict of str
        What is compared, by topic or also by name; "layout" is one of them.
    """

    def __init__(self, **topics: str | Mapping[str, str]) -> None:
        self.topics = topics
        texts = {topic: sorted(text.items()) if isinstance(text, Mapping) else text for topic, text in topics.items()}
        self.digest = hashlib.blake2b(repr(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


NO_PLAN = Plan()


class Agreement:
    """Rounds in which every rank says that it is ready, or what is wrong.

    Parameters
    ----------
    ranks : Ranks
    names : iterable of str
        Of all leaves, in order.
    """

    ranks: Ranks
    order: dict[str, int]
    names: list[str]
    done: bool
    doing: str
    count: Any

    def __init__(self, ranks: Ranks, names: Iterable[str] = ()) -> None:
        self.ranks, self.names = ranks, list(names)
        self.order = {name: k for k, name in enumerate(self.names)}
        self.done = True
        self._bad = NONE
        self._mine: dict[str, Any] = {}

    def together(self, doing: str, call: Callable[[], T], count: Any = None) -> T:
        """Call, and return what that returns; raise the same error on every rank if one of them fails before it writes.

        What is raised after all have agreed is a rank's own, but for NotFinite, which all raise.

        Parameters
        ----------
        doing : str
            Which method this is.
        call : callable
            May call `agree` itself; otherwise that is done when it has returned.
        count : int, optional
            Of the state.
        """
        self.doing, self.count, self.done = doing, count, False
        try:
            result = call()
            if not self.done:
                self.agree(None, NO_PLAN, None)
            return result
        except Failed:
            pass
        except Differ:
            self._raise_difference()
        except BaseException as error:
            if not self.done:
                self._fail(error)
            raise
        return self.raise_told(None)

    def agree(self, bad: str | None, plan: Plan, rates: Any) -> None:
        """Say that this rank is ready; see :class:`amos_ref.kernels.Sharing`."""
        self._mine = self._describe(plan, rates)
        text = repr((*self._mine.values(), plan.digest))
        (number,) = struct.unpack("<q", hashlib.blake2b(text.encode(), digest_size=8).digest())
        number >>= 1
        self._mine |= plan.topics
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

    def _describe(self, plan: Plan, rates: Any) -> dict[str, Any]:
        """Return what else than a plan must be the same; ranks that do other things may have other plans."""
        mine: dict[str, Any] = {"method": self.doing, "count": None if self.count is None else str(self.count)}
        if rates is not None:
            numbers = (*rates.numbers, rates.chi, rates.mu, *(rates.aims or ()))
            mine["rates"] = ", ".join(map(str, numbers))
        return mine

    def _fail(self, error: BaseException) -> NoReturn:
        """Tell all ranks of an error, and raise what all of them raise; an error of no kind of this package stays."""
        self.done = True
        self.ranks.least(np.array([self.ranks.rank - self.ranks.size, NONE, NONE, NONE], np.int64))
        self.raise_told(error)

    def raise_told(self, error: BaseException | None) -> NoReturn:
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

    def _raise_difference(self) -> NoReturn:
        """Raise the error that says in what the ranks differ; every rank comes here."""
        plans = self.ranks.tell(self._mine)
        for topic in dict.fromkeys(topic for plan in plans for topic in plan):
            for rank, plan in enumerate(plans):
                one, other = plans[0].get(topic), plan.get(topic)
                if one == other:
                    continue
                if topic == "layout":
                    raise LayoutError(
                        f"the layouts of rank 0 and rank {rank} differ; make one and give it to all ranks"
                    )
                if isinstance(one, Mapping) and isinstance(other, Mapping):
                    name = next(name for name in (*one, *other) if one.get(name) != other.get(name))
                    topic, one, other = f"{topic}: {name!r}", one.get(name), other.get(name)
                raise RankError(
                    f"rank 0 and rank {rank} are not about to do the same: {topic} {one!s:.200} and {other!s:.200}"
                )
        raise RankError("the ranks are not about to do the same")

    def raise_not_finite(self, name: str, found: Found | None) -> NoReturn:
        """Raise the NonFiniteError that one process would raise; every rank comes here with what it finds."""
        told = [Found(*each) for each in self.ranks.tell(found) if each is not None]
        if not told:  # somebody else has written to the gradient meanwhile
            raise NonFiniteError(f"gradient of leaf {name!r} is not finite")
        first = min(told, key=lambda each: (each.stage, each.index))
        message = first.message
        if first.stage == 2:
            message += overflows(max(each.largest for each in told))
        error = NonFiniteError(message)
        error.index = first.index or None
        raise error
