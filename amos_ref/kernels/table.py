"""All leaves of a step as a few tables of integers, which the kernels of every device read.

A leaf is seen as (outer, n, inner) around its innermost run of reduced axes: rows where inner is 1, columns
otherwise; where no axis is reduced, as elements. A table holds the leaves of one such kind and of the same dtypes.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec

#: Columns of a table: addresses (STATE_0 and MOMENT_0: of the first of two arrays; SCALE: of a number, which backends
#: fill in, or of a row of `own_rows`); the view (outer, n, inner); where the leaf's sums, slots and places (its slots,
#: spread over outer and inner) begin in scratch arrays; its number among the leaves of the step.
THETA, G, M, STATE_0, STATE_1, MOMENT_0, MOMENT_1, SCALE, OUTER, N, INNER, SUMS, SLOTS, PLACES, LEAF = range(15)
COLUMNS = 15
MOST_STATES = STATE_1 - STATE_0 + 1
MOST_MOMENTS = MOMENT_1 - MOMENT_0 + 1

CHUNK, ROWS = spec.CHUNK, spec.ROWS
PIECE = 32768  # neighbouring elements of one task
STRIP = 2048  # columns of one task: their sums stay in the first-level cache
LITTLE = 3 * 2**18  # elements below which waking another thread, some 30 us, costs more than it saves
BATCHES = 4  # for each thread: for every one it needs Python's lock


class Tasks:
    """Equal pieces of work, numbered through all leaves of a table.

    Parameters
    ----------
    starts : ndarray of int64
        The first task of each leaf; last the number of all.
    work : ndarray of int64
        The elements, or what takes as long, before each leaf; last the number of all.
    """

    starts: np.ndarray
    work: np.ndarray
    count: int
    little: bool

    def __init__(self, starts: np.ndarray, work: np.ndarray) -> None:
        self.starts, self.work = starts, work
        self.count = int(starts[-1])
        self.little = bool(work[-1] < LITTLE)
        self._batches: dict[int, list[tuple[int, int]]] = {}

    def batches(self, threads: int) -> list[tuple[int, int]]:
        """Return ranges of tasks of about the same work, of which each thread takes one at a time."""
        if threads not in self._batches:
            edges = np.linspace(0, self.work[-1], threads * BATCHES + 1)
            firsts = np.interp(edges, self.work, self.starts).astype(int).tolist()
            firsts[0], firsts[-1] = 0, self.count
            self._batches[threads] = [(first, last) for first, last in itertools.pairwise(firsts) if first < last]
        return self._batches[threads]


class Box(NamedTuple):
    """A leaf as the kernels see it."""

    kind: str  # "rows", "columns", "elements"
    outer: int
    n: int
    inner: int
    slots: int
    groups: int  # sums in one outer index and column: of 8192 neighbours, or of 64 rows
    pieces: int  # tasks of apply in one outer index
    runs: list[tuple[bool, int]]
    cut: int  # which run is n

    @property
    def mixed(self) -> bool:
        """Whether there are reduced runs before the innermost one."""
        return any(reduced for reduced, _ in self.runs[: self.cut])


def box_of(shape: tuple[int, ...], slot: tuple[int, ...]) -> Box:
    """Return how kernels see an array."""
    runs, slots, size = spec.runs(shape, slot), math.prod(slot), math.prod(shape)
    cut = max((k for k, (reduced, _) in enumerate(runs) if reduced), default=-1)
    if cut < 0:
        tasks = -(-size // CHUNK)
        return Box("elements", 1, size, 1, slots, tasks, tasks, runs, cut)
    lengths = [n for _, n in runs]
    outer, n, inner = math.prod(lengths[:cut]), lengths[cut], math.prod(lengths[cut + 1 :])
    if inner == 1:
        return Box("rows", outer, n, 1, slots, max(-(-n // CHUNK), 1), -(-n // PIECE), runs, cut)
    return Box("columns", outer, n, inner, slots, max(-(-n // ROWS), 1), -(-n // ROWS), runs, cut)


class Mixed(NamedTuple):
    """A leaf with reduced runs before the innermost one, which alone the kernels reduce."""

    box: Box
    slots: slice
    places: slice

    def fold(self, totals: np.ndarray) -> None:
        """Sum what the kernels summed over the runs that are left."""
        runs = self.box.runs[: self.box.cut] + self.box.runs[self.box.cut + 1 :]
        totals[self.slots] = spec.fold(totals[self.places], runs).reshape(-1)

    def spread(self, per_slot: np.ndarray) -> None:
        """Give every (outer, inner) the value of its slot."""
        full = [1 if k == self.box.cut else n for k, (_, n) in enumerate(self.box.runs)]
        slots = [1 if reduced else n for reduced, n in self.box.runs]
        per_slot[self.places].reshape(full)[...] = per_slot[self.slots].reshape(slots)  # nothing is allocated


class Key(NamedTuple):
    """What the leaves of a table have in common."""

    kind: str
    theta: np.dtype
    g: np.dtype
    state: np.dtype | None  # of state and momentum
    averages: bool
    moments: int


class Table:
    """Leaves of one kind and of the same dtypes.

    Parameters
    ----------
    key : Key
    members : list of (int, leaf, Box)
        With the leaf's number among those of the step.
    address : callable
        Where an array's first element lies.

    Attributes
    ----------
    leaves : ndarray of int64, shape (members, 15)
        See the names of the columns.
    share : ndarray of float64, shape (members,)
        The number of elements that a slot is the mean of.
    reduce, combine, slots, apply : Tasks
    sums, places : int
        The sizes of the scratch arrays.
    boxes : list of Box
    mixed : list of Mixed
    """

    boxes: list[Box]
    leaves: np.ndarray
    share: np.ndarray
    sums: int
    places: int
    reduce: Tasks
    combine: Tasks
    slots: Tasks
    apply: Tasks

    def __init__(self, key: Key, members: list[tuple[int, Any, Box]], address: Callable[[Any], int]) -> None:
        self.key = key
        self.boxes = boxes = [box for *_, box in members]
        sizes = [math.prod(leaf.theta.shape) for _, leaf, _ in members]
        self.leaves = np.zeros((len(members), COLUMNS), np.int64)
        self.share = np.array([float(max(n // max(b.slots, 1), 1)) for n, b in zip(sizes, boxes, strict=True)])
        self.sums = self.places = 0
        self.mixed: list[Mixed] = []
        for row, (number, leaf, box) in zip(self.leaves, members, strict=True):
            held = {THETA: leaf.theta, G: leaf.g, M: leaf.momentum}
            held |= dict(enumerate(leaf.state, STATE_0)) | dict(enumerate(leaf.moments, MOMENT_0))
            for column, a in held.items():
                row[column] = 0 if a is None else address(a)
            row[OUTER : INNER + 1] = box.outer, box.n, box.inner
            row[LEAF] = number
            if key.kind != "elements":
                self._place(row, box)
        slow = 2 if 2 in (key.theta.itemsize, key.g.itemsize) else 1  # half precision is converted
        self.reduce = _tasks([b.outer * b.groups for b in boxes], [slow * n for n in sizes])
        self.combine = _tasks(
            [b.outer * -(-b.inner // STRIP) for b in boxes], [b.outer * b.groups * b.inner for b in boxes]
        )
        self.slots = _tasks([b.slots for b in boxes], [32 * b.slots for b in boxes])
        heavy = 6 if key.kind == "elements" else slow  # three divisions and two roots
        self.apply = _tasks([b.outer * b.pieces for b in boxes], [heavy * n for n in sizes])

    def _place(self, row: np.ndarray, box: Box) -> None:
        """Give the leaf its part of the scratch arrays."""
        places = box.outer * box.inner
        row[SUMS], row[SLOTS] = self.sums, self.places
        self.sums += places * box.groups
        if box.mixed:
            middle = self.places + box.slots
            self.mixed.append(Mixed(box, slice(self.places, middle), slice(middle, middle + places)))
            self.places = middle
        row[PLACES] = self.places
        self.places += places


def address(a: np.ndarray) -> int:
    """Return where the first element of an array lies."""
    return a.__array_interface__["data"][0]


def own_rows(scales: Sequence[int], own: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return a row for each leaf: the address of its scale, and the bits of its own numbers behind it."""
    return np.column_stack([np.array(scales, np.int64), np.array(own, np.float64).view(np.int64)])


def tables(leaves: Iterable[Any], address: Callable[[Any], int]) -> list[Table]:
    """Sort the leaves of a step into tables."""
    found: dict[Key, list[tuple[int, Any, Box]]] = {}
    for number, leaf in enumerate(leaves):
        box = box_of(tuple(leaf.theta.shape), leaf.slot)
        kept = next((a.dtype for a in (*leaf.state, leaf.momentum) if a is not None), None)
        key = Key(box.kind, leaf.theta.dtype, leaf.g.dtype, kept, leaf.momentum is not None, len(leaf.moments))
        found.setdefault(key, []).append((number, leaf, box))
    return [Table(key, members, address) for key, members in found.items()]


def _tasks(counts: list[int], work: list[int]) -> Tasks:
    return Tasks(*(np.concatenate([[0], np.cumsum(a, dtype=np.int64)]) for a in (counts, work)))
