"""The roof: how long the memory takes to move the bytes of a step, without any arithmetic."""

import numpy as np

from amos_ref.bench.contenders import Contender
from amos_ref.bench.timing import OnHost, Stepper
from amos_ref.bench.workloads import Workload
from amos_ref.kernels.cpu.threads import launch
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import Tasks

# Bytes of one task, and whether the second pass begins where the first ended, with what the caches still hold. 0 bytes
# stand for a single task, and so for one thread, which is faster where waking a second one takes longer than the work.
VARIANTS = ((0, False), (1 << 16, False), (1 << 16, True), (1 << 20, False), (1 << 20, True))
TRIES = 5  # of each variant


@kernel
def read(first, last, starts, arrays, out):
    """Move the bytes of reduce: out[task] is the exclusive or of the task's words, of g and of Adam's moments."""
    tasks = starts[-1]
    for task in range(first, last):
        bits = np.uint64(0)
        for words in arrays:
            part = words[words.size * task // tasks : words.size * (task + 1) // tasks]
            for i in range(part.size):
                bits ^= part[i]
        out[task] = bits


@kernel
def write(first, last, starts, backward, g, theta, others):
    """Move the bytes of apply: read g, and read and write theta and each of the others, state and moments."""
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


class Roof(Stepper):
    """Reads and writes the bytes of a step as words of eight bytes, for any dtype; a tree's bytes are in one array.

    It uses the one of VARIANTS that is fastest on this machine, according to a few tries of each in turn.
    """

    g: np.ndarray
    theta: np.ndarray
    others: tuple[np.ndarray, ...]
    summed: tuple[np.ndarray, ...]
    parameters: int
    backward: bool
    out: np.ndarray
    tasks: Tasks

    def __init__(self, work: Workload) -> None:
        n, k = work.parameters, work.slots
        self.g, self.theta = make_words(n * work.itemsize, 3), make_words(n * work.itemsize, 5)
        sizes = [k * work.state_itemsize] * 2 + [n * work.state_itemsize] * work.momentum
        if work.direction is not None:
            sizes = [work.moment_bytes // 2] * 2
        self.others = tuple(make_words(size, 0) for size in sizes)
        self.summed = (self.g, *self.others) if work.direction is not None else (self.g,)
        self.parameters, clock = n, OnHost(self)
        times: dict[tuple[int, bool], list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(TRIES):
            for variant in VARIANTS:
                self.choose(variant)
                times[variant].append(clock.time_one())
        self.choose(min(times, key=lambda variant: float(np.median(times[variant]))))

    def choose(self, variant: tuple[int, bool]) -> None:
        """Use a variant from here on."""
        piece, self.backward = variant
        count = -(-self.g.nbytes // piece) if piece else 1
        self.out = np.empty(count, np.uint64)
        self.tasks = Tasks(np.array([0, count]), np.array([0, self.parameters]))

    def launch(self) -> None:
        launch(read, self.tasks, self.summed, self.out)
        launch(write, self.tasks, self.backward, self.g, self.theta, self.others)


def make_words(size: int, value: int) -> np.ndarray:
    """Return an array of `size` bytes, rounded up to whole words."""
    return np.full(-(-size // 8), value, np.uint64)


MEMORY_ROOF = Contender("the bytes of an Amos step and nothing else", Roof)
