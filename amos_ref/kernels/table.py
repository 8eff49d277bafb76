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
from amos_ref.kernels.shared import Piece, Runs

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
    runs: Runs
    cut: int  # which run is n

    @property
    def mixed(self) -> bool:
        """Whether there are reduced runs before the innermost one."""
        return any(reduced for reduced, _ in self.runs[: self.cut])


def box_of(shape: tuple[int, ...], slot: tuple[int, ...], runs: Runs | None = None) -> Box:
    """Return how kernels see an array, or a part of one whose runs are given."""
    runs, slots, size = runs or spec.runs(shape, slot), math.prod(slot), math.prod(shape)
    cut = max((k for k, (reduced, _) in enumerate(runs) if reduced), default=-1)
    if cut < 0:
        tasks = -(-size // CHUNK)
        return Box("elements", 1, size, 1, slots, tasks, tasks, runs, cut)
    lengths = [n for _, n in runs]
    outer, n, inner = math.prod(lengths[:cut]), lengths[cut], math.prod(lengths[cut + 1 :])
    if cut == len(runs) - 1:
        return Box("rows", outer, n, 1, slots, max(-(-n // CHUNK), 1), -(-n // PIECE), runs, cut)
    return Box("columns", outer, n, inner, slots, max(-(-n // ROWS), 1), -(-n // ROWS), runs, cut)


def boxes_of(leaf: Any, piece: Piece | None) -> tuple[Box, Box]:
    """Return how kernels see a leaf, and how they see the array whose sums they combine: the leaf itself, or the whole
    array, of which everybody has the sums of all lanes.
    """
    if piece is None:
        box = box_of(tuple(leaf.theta.shape), leaf.slot)
        return box, box
    here = box_of(tuple(leaf.theta.shape), leaf.slot, piece.runs_here)
    if piece.way in ("lanes", "groups"):
        here = here._replace(groups=piece.entries_here)  # an empty part has no sums
    return here, box_of(piece.shape, piece.slot) if piece.way == "lanes" else here


class Mixed(NamedTuple):
    """A leaf with reduced runs before the innermost one, which alone the kernels reduce."""

    box: Box  # of what is here
    left: Runs  # what the kernels do not sum
    slots: slice
    places: slice

    def fold(self, totals: np.ndarray) -> None:
        """Sum what the kernels summed over the runs that are left."""
        totals[self.slots] = spec.fold(totals[self.places], self.left).reshape(-1)

    def spread(self, per_slot: np.ndarray) -> None:
        """Give every (outer, inner) the value of its slot."""
        full = [1 if k == self.box.cut else n for k, (_, n) in enumerate(self.box.runs)]
        slots = [1 if reduced else n for reduced, n in self.box.runs]
        places = slice(self.places.start, self.places.start + math.prod(full))  # fewer, of a part
        per_slot[places].reshape(full)[...] = per_slot[self.slots].reshape(slots)  # nothing is allocated


class Key(NamedTuple):
    """What the leaves of a table have in common."""

    kind: str
    theta: np.dtype
    g: np.dtype
    state: np.dtype | None  # of state and momentum
    averages: bool
    moments: int
    shared: str = ""  # how the sums of parts of arrays leave (Piece.way)


Member = tuple[int, Any, Box, Box, Piece | None]


class Table:
    """Leaves of one kind and of the same dtypes.

    Parameters
    ----------
    key : Key
    members : list of (int, leaf, Box, Box, Piece)
        With the leaf's number among those of the step; how kernels see it, and the whole array; None for what is whole.
    address : callable
        Where an array's first element lies.

    Attributes
    ----------
    leaves : ndarray of int64, shape (members, 15)
        See the names of the columns.
    whole : ndarray of int64, shape (members, 15)
        The same of the arrays whose sums are combined: `leaves` itself, unless these are parts whose lanes are shared.
    share : ndarray of float64, shape (members,)
        The number of elements that a slot is the mean of.
    reduce, combine, slots, apply : Tasks
    sums, all_sums, places : int
        The sizes of the scratch arrays: of the sums that are computed, of those that are combined, and of the rest.
    size : int
        The elements of all leaves.
    boxes : list of Box
    mixed : list of Mixed
    """

    size: int
    boxes: list[Box]
    pieces: list[Piece | None]
    leaves: np.ndarray
    whole: np.ndarray
    share: np.ndarray
    sums: int
    all_sums: int
    places: int
    reduce: Tasks
    combine: Tasks
    slots: Tasks
    apply: Tasks

    def __init__(self, key: Key, members: list[Member], address: Callable[[Any], int]) -> None:
        self.key = key
        self.boxes = boxes = [box for _, _, box, _, _ in members]
        whole = [box for _, _, _, box, _ in members]
        self.pieces = [piece for *_, piece in members]
        sizes = [math.prod(leaf.theta.shape) for _, leaf, *_ in members]
        self.size = sum(sizes)
        self.leaves = np.zeros((len(members), COLUMNS), np.int64)
        self.share = np.array(
            [
                float(max(n // max(b.slots, 1), 1) if piece is None else piece.share)
                for n, b, piece in zip(sizes, boxes, self.pieces, strict=True)
            ]
        )
        self.sums = self.all_sums = self.places = 0
        self.mixed: list[Mixed] = []
        for row, (number, leaf, box, _, _) in zip(self.leaves, members, strict=True):
            held = {THETA: leaf.theta, G: leaf.g, M: leaf.momentum}
            held |= dict(enumerate(leaf.state, STATE_0)) | dict(enumerate(leaf.moments, MOMENT_0))
            for column, a in held.items():
                row[column] = 0 if a is None else address(a)
            row[OUTER : INNER + 1] = box.outer, box.n, box.inner
            row[LEAF] = number
        self.whole = self.leaves.copy() if key.shared == "lanes" else self.leaves
        if key.kind != "elements":
            for k in range(len(members)):
                self._place(self.leaves[k], self.whole[k], boxes[k], whole[k], self.pieces[k])
        slow = 2 if 2 in (key.theta.itemsize, key.g.itemsize) else 1  # half precision is converted
        self.reduce = make_tasks([b.outer * b.groups for b in boxes], [slow * n for n in sizes])
        self.combine = make_tasks(
            [b.outer * -(-b.inner // STRIP) for b in whole], [b.outer * b.groups * b.inner for b in whole]
        )
        self.slots = make_tasks([b.slots for b in boxes], [32 * b.slots for b in boxes])
        heavy = 6 if key.kind == "elements" else slow  # three divisions and two roots
        self.apply = make_tasks([b.outer * b.pieces for b in boxes], [heavy * n for n in sizes])

    def _place(self, row: np.ndarray, all_row: np.ndarray, box: Box, whole: Box, piece: Piece | None) -> None:
        """Give the leaf its part of the scratch arrays."""
        left = box.runs[: box.cut] + box.runs[box.cut + 1 :] if piece is None or not piece.shared else piece.runs_left
        places, folded = whole.outer * whole.inner, math.prod(n for _, n in left)
        all_row[OUTER : INNER + 1] = whole.outer, whole.n, whole.inner
        row[SUMS], all_row[SUMS] = self.sums, self.all_sums
        self.sums += box.outer * box.inner * box.groups
        self.all_sums += places * whole.groups
        row[SLOTS] = all_row[SLOTS] = self.places
        if box.mixed:
            middle = self.places + box.slots
            self.mixed.append(Mixed(box, left, slice(self.places, middle), slice(middle, middle + folded)))
            self.places = middle
        row[PLACES] = all_row[PLACES] = self.places
        self.places += max(places, folded)


def address(a: np.ndarray) -> int:
    """Return where the first element of an array lies."""
    return a.__array_interface__["data"][0]


def own_rows(scales: Sequence[int], own: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return a row for each leaf: the address of its scale, and the bits of its own numbers behind it."""
    return np.column_stack([np.array(scales, np.int64), np.array(own, np.float64).view(np.int64)])


def tables(leaves: Iterable[Any], address: Callable[[Any], int], sharing: Any = None) -> list[Table]:
    """Sort the leaves of a step into tables."""
    found: dict[Key, list[Member]] = {}
    for number, leaf in enumerate(leaves):
        piece = None if sharing is None else sharing.piece(leaf.name)
        box, whole = boxes_of(leaf, piece)
        shared = "" if piece is None else piece.way
        kept = next((a.dtype for a in (*leaf.state, leaf.momentum) if a is not None), None)
        key = Key(box.kind, leaf.theta.dtype, leaf.g.dtype, kept, leaf.momentum is not None, len(leaf.moments), shared)
        found.setdefault(key, []).append((number, leaf, box, whole, piece))
    return [Table(key, members, address) for key, members in found.items()]


def make_tasks(counts: Sequence[int], work: Sequence[int]) -> Tasks:
    """Return tasks of which every leaf has so many, and so much work."""
    return Tasks(*(np.concatenate([[0], np.cumsum(a, dtype=np.int64)]) for a in (counts, work)))
