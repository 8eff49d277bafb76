"""The roof: how long the memory takes to move the bytes of a step, without any arithmetic."""

import numpy as np

from amos_ref.bench.contenders import Contender
from amos_ref.bench.timing import OnHost, Stepper
from amos_ref.bench.workloads import Workload
from amos_ref.kernels.cpu.threads import launch
from amos_ref.kernels.jit import inline, kernel
from amos_ref.kernels.table import Tasks

# Bytes of one task, whether the second pass begins where the first ended, with what the caches still hold, and in how
# many streams a thread goes through its tasks: parts of them that lie far apart, by turns. 0 bytes stand for a single
# task, and so for one thread, which is faster where waking a second one takes longer than the work.
VARIANTS = (
    (0, False, 1),
    *((size, backward, 1) for size in (1 << 16, 1 << 20) for backward in (False, True)),
    (1 << 16, False, 2),
    *((1 << 12, False, streams) for streams in (2, 4, 8)),
)
TRIES = 5  # of each variant


@inline
def in_turn(count, first, last, backward, streams):
    """Return the task whose turn it is after so many; `last` for none."""
    if backward:
        return last - 1 - count
    apart = (last - first + streams - 1) // streams
    begin = first + count % streams * apart
    return begin + count // streams if begin + count // streams < last else last


@inline
def turns_of(first, last, streams):
    """Return how many turns there are, with those that are nobody's."""
    return (last - first + streams - 1) // streams * streams


@kernel
def read(first, last, starts, streams, arrays, out):
    """Move the bytes of reduce: out[task] is the exclusive or of the task's words, of g and of Adam's moments."""
    tasks = starts[-1]
    for count in range(turns_of(first, last, streams)):
        task = in_turn(count, first, last, False, streams)
        if task == last:
            continue
        bits = np.uint64(0)
        for words in arrays:
            part = words[words.size * task // tasks : words.size * (task + 1) // tasks]
            for i in range(part.size):
                bits ^= part[i]
        out[task] = bits


@kernel
def write(first, last, starts, backward, streams, g, theta, others):
    """Move the bytes of apply: read g, and read and write theta and each of the others, state and moments."""
    tasks = starts[-1]
    for count in range(turns_of(first, last, streams)):
        task = in_turn(count, first, last, backward, streams)
        if task == last:
            continue
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
    in_use: int  # streams
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
        times: dict[tuple[int, bool, int], list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(TRIES):
            for variant in VARIANTS:
                self.choose(variant)
                times[variant].append(clock.time_one())
        medians = {variant: float(np.median(spent)) for variant, spent in times.items()}
        self.choose(min(medians, key=lambda variant: medians[variant]))
        counts = {streams for *_, streams in VARIANTS}
        self.streams = {k: min(spent for (*_, streams), spent in medians.items() if streams == k) for k in counts}

    def choose(self, variant: tuple[int, bool, int]) -> None:
        """Use a variant from here on."""
        piece, self.backward, self.in_use = variant
        count = -(-self.g.nbytes // piece) if piece else 1
        self.out = np.empty(count, np.uint64)
        self.tasks = Tasks(np.array([0, count]), np.array([0, self.parameters]))

    def launch(self) -> None:
        launch(read, self.tasks, self.in_use, self.summed, self.out)
        launch(write, self.tasks, self.backward, self.in_use, self.g, self.theta, self.others)


def make_words(size: int, value: int) -> np.ndarray:
    """Return an array of `size` bytes, rounded up to whole words."""
    return np.full(-(-size // 8), value, np.uint64)


MEMORY_ROOF = Contender("the bytes of an Amos step and nothing else", Roof)
