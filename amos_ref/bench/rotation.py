"""Steps on a device, by turns over copies of the arrays, so that each finds them outside the device's L2 cache."""

import itertools
from collections.abc import Sequence
from typing import Any, Self

from amos_ref.bench import gpu
from amos_ref.bench.contenders import Contender
from amos_ref.bench.workloads import Workload

PAST = 3  # times the L2 cache that all copies have together
MOST = 32  # copies, which make no more of 1,000 parameters than the cache holds


def copies(held: int, l2: int) -> int:
    """Return how many copies of so many bytes are PAST times an L2 cache, or MOST."""
    return min(max(-(-PAST * l2 // held), 1), MOST)


class OnDevice(Contender):
    """One copy of the arrays, and the steps on it, which the host need not wait for."""

    stream: int
    fewest = 1  # steps in one timing

    @classmethod
    def count(cls, work: Workload) -> int:
        """Return how many copies are stepped by turns."""
        return copies(cls.held(work), gpu.l2_bytes())

    @classmethod
    def needs(cls, work: Workload) -> tuple[int, int]:
        held, once = super().needs(work)
        return cls.count(work) * held, once

    @classmethod
    def ready(cls, work: Workload) -> "Rotated":
        """Return all copies, each of them warm."""
        made = [cls(work)]
        made += [made[0].again() for _ in range(1, cls.count(work))]
        for each in made:
            each.warm_up()
        return Rotated(made)

    def again(self) -> Self:
        """Return one more copy."""
        return type(self)(self.work)

    def launch(self) -> None:
        """Begin a step."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until all steps are done."""
        gpu.synchronize(self.stream)

    def run(self) -> None:
        self.launch()
        self.wait()

    def now(self) -> Any:
        """Return the time at which what was begun before is done."""
        return gpu.now(self.stream)

    def since(self, start: Any) -> float:
        """Wait; return the seconds from a time until all that was begun is done."""
        return gpu.since(start, self.stream)


class Rotated(Contender):
    """Copies of one contender, which take a step each in turn."""

    def __init__(self, made: Sequence[OnDevice]) -> None:
        super().__init__(made[0].work)
        self.made, self.copies = made, len(made)
        self._due = itertools.cycle(made)

    def launch(self) -> OnDevice:
        """Begin a step of the copy whose turn it is, and return that copy."""
        due = next(self._due)
        due.launch()
        return due

    def run(self) -> None:
        self.launch().wait()

    def time(self) -> float:
        return self.steps(1)

    def taken(self, calls: int) -> int:
        return max(calls, self.made[0].fewest) + 1

    def steps(self, calls: int) -> float:
        """Return the seconds of one step, of several behind one that keeps the device busy while they are begun."""
        last = self.launch()
        start, calls = last.now(), self.taken(calls) - 1
        for _ in range(calls):
            last = self.launch()
        return last.since(start) / calls
