"""The roof: how long the memory takes for the bytes of a step, and nothing is computed."""

from typing import Any

import numpy as np

from amos_ref.bench.contenders import Contender
from amos_ref.bench.workloads import Workload
from amos_ref.kernels.cpu.threads import launch
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import Tasks

# Bytes of one task, 0 for one task and so one thread, which is faster where waking a second takes longer than the work;
# and whether the second pass begins where the first ended, with what the caches still hold.
VARIANTS = ((0, False), (1 << 16, False), (1 << 16, True), (1 << 20, False), (1 << 20, True))
TRIED = 5  # times each


@kernel
def read(first, last, starts, words, out):
    """Reduce's bytes: out[task] is the exclusive or of the task's words."""
    tasks = starts[-1]
    for task in range(first, last):
        part = words[words.size * task // tasks : words.size * (task + 1) // tasks]
        bits = np.uint64(0)
        for i in range(part.size):
            bits ^= part[i]
        out[task] = bits


@kernel
def write(first, last, starts, backward, g, theta, others):
    """Apply's bytes: theta and g are read and theta is written; so is each of the others, v, b and m."""
    tasks = starts[-1]
    for count in range(first, last):
        task = first + last - 1 - count if backward else count
        start, stop = g.size * task // tasks, g.size * (task + 1) // tasks
        source, target = g[start:stop], theta[start:stop]
        for i in range(target.size):
            target[i] ^= source[i]
        for other in others:
            part = other[other.size * task // tasks : other.size * (task + 1) // tasks]
            for i in range(part.size):
                part[i] ^= np.uint64(1)


class Roof(Contender):
    """Reads and writes what a step must, as words of eight bytes of any dtype; a tree's bytes are in one array.

    Streams differ: the fastest of VARIANTS on this machine is taken, by a few tries of each in turn.
    """

    about = "the bytes of an Amos step and nothing else"

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        n, k = work.parameters, work.slots
        self.g, self.theta = words(n * work.itemsize, 3), words(n * work.itemsize, 5)
        sizes = [k * work.state_itemsize] * 2 + [n * work.state_itemsize] * work.momentum
        self.others = tuple(words(size, 0) for size in sizes)
        times: dict[tuple[int, bool], list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(TRIED):
            for variant in VARIANTS:
                self.choose(variant)
                times[variant].append(self.time())
        self.choose(min(times, key=lambda variant: float(np.median(times[variant]))))

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        return None

    def choose(self, variant: tuple[int, bool]) -> None:
        """Stream in this way from here on."""
        piece, self.backward = variant
        count = -(-self.g.nbytes // piece) if piece else 1
        self.out = np.empty(count, np.uint64)
        self.tasks = Tasks(np.array([0, count]), np.array([0, self.work.parameters]))

    def run(self) -> None:
        launch(read, self.tasks, self.g, self.out)
        launch(write, self.tasks, self.backward, self.g, self.theta, self.others)

    def values(self) -> dict[str, Any]:
        return {"read": self.out, "theta": self.theta, **{f"other{i}": a for i, a in enumerate(self.others)}}


def words(size: int, value: int) -> np.ndarray:
    """Return an array of at least `size` bytes, not more than seven too many."""
    return np.full(-(-size // 8), value, np.uint64)
