"""A leaf that is one part of a larger array: its sums leave the step, and come back with those of the other parts.

The order of summation is that of the whole array. A sum that lies in one part is the same number whoever computes it.
So each part adds up whatever groups it has whole (see kernels/blocks.py), and everybody puts what is left together as
the page does. Where the array is cut along an axis that its slots keep, each part has its own slots, and nothing is
sent.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.errors import NonFiniteError
from amos_ref.kernels.blocks import Blocks

Runs = list[tuple[bool, int]]


class Piece:
    """One part of an array that is cut along an axis.

    What is sent are sums along the run that has the axis. All runs behind it lie in the part, which adds up what is
    reduced of them. So a part has an array (outer, entries, inner): `outer` for the runs before, one entry for each sum
    of a group (if this is the innermost reduced run) or each index of the run, and `inner` for the kept runs behind.

    Parameters
    ----------
    shape, slot : tuple of int
        Of the whole array and of its slots, which broadcast to it.
    axis : int
        Of the array's axes, one that is longer than 1.
    edges : tuple of int
        Part k is from ``edges[k]`` to ``edges[k + 1]``.
    part : int
        Which part this is.

    Attributes
    ----------
    runs : list of (bool, int)
        Those of the whole array (spec.runs).
    sums : int
        The run whose sums the kernels compute, the innermost that is reduced; -1 where none is.
    run : int
        The run that has the axis.
    before, after : int
        How many rows of the axis the run has, and how many of its elements one index of the axis has.
    shared : bool
        Whether the axis is reduced, so that parts have sums of the same slots.
    outer, inner : int
    """

    shape: tuple[int, ...]
    slot: tuple[int, ...]
    axis: int
    edges: tuple[int, ...]
    part: int
    runs: Runs
    sums: int
    run: int
    before: int
    after: int
    shared: bool
    outer: int
    inner: int

    def __init__(self, shape: Any, slot: Any, axis: int, edges: Sequence[int], part: int = 0) -> None:
        self.shape, self.slot, self.axis = tuple(shape), tuple(slot), axis
        self.edges, self.part = tuple(edges), part
        self.runs = spec.runs(self.shape, self.slot)
        self.sums = max((k for k, (reduced, _) in enumerate(self.runs) if reduced), default=-1)
        upto = spec.runs(self.shape[: axis + 1], self._aligned()[: axis + 1])
        self.run = len(upto) - 1
        self.before = upto[-1][1] // self.shape[axis]
        self.after = self.runs[self.run][1] // upto[-1][1] if upto[-1][1] else 0
        self.shared = self.runs[self.run][0]
        self.outer = math.prod(n for _, n in self.runs[: self.run])
        self.inner = math.prod(n for reduced, n in self.runs[self.run + 1 :] if not reduced)

    def _aligned(self) -> tuple[int, ...]:
        return (1,) * (len(self.shape) - len(self.slot)) + self.slot

    @property
    def share(self) -> int:
        """The number of elements that a slot of the whole array is the mean of."""
        return max(math.prod(self.shape) // max(math.prod(self.slot), 1), 1)

    @property
    def slot_here(self) -> tuple[int, ...]:
        """The shape of the slots that this part has."""
        if self.shared:
            return self.slot
        at = self.axis - (len(self.shape) - len(self.slot))
        return (*self.slot[:at], self.edges[self.part + 1] - self.edges[self.part], *self.slot[at + 1 :])

    @property
    def runs_here(self) -> Runs:
        """The runs of this part, none of them left out."""
        n = self.before * (self.edges[self.part + 1] - self.edges[self.part]) * self.after
        return [*self.runs[: self.run], (self.shared, n), *self.runs[self.run + 1 :]]

    @property
    def runs_left(self) -> Runs:
        """The runs of the whole array that are left when those from the cut one on are added up."""
        return self.runs[: self.run] + [(reduced, n) for reduced, n in self.runs[self.run + 1 :] if not reduced]

    @property
    def unit(self) -> int:
        """Of how many indices of the axis an edge must be a multiple; 0 where the axis cannot be cut at all."""
        if not self.shared or self.run != self.sums:
            return 1
        group = self.group
        return 0 if self.before > 1 else group // math.gcd(self.after, group)

    @property
    def group(self) -> int:
        """How many elements of the innermost reduced run make one sum."""
        return spec.CHUNK if self.sums == len(self.runs) - 1 else spec.ROWS

    @property
    def way(self) -> str:
        """How sums leave.

        "" : not at all, as the slots are whole here.
        "lanes" : sums of 8192 each. No part adds any of them up, as neighbours belong to different lanes.
        "groups" : sums of 64, and of groups of those.
        "indices" : a sum for each index of a run before the innermost one, and sums of groups of those.
        """
        if not self.shared:
            return ""
        if self.run != self.sums:
            return "indices"
        return "lanes" if self.sums == len(self.runs) - 1 else "groups"

    def entries(self, indices: Any) -> Any:
        """Return how many entries so many indices of the axis have."""
        elements = indices * self.before * self.after
        return elements if self.run != self.sums else -(-elements // self.group)

    @property
    def entries_here(self) -> int:
        """How many entries this part has."""
        first, last = self.edges[self.part : self.part + 2]
        if self.run == self.sums:
            return self.entries(last) - self.entries(first)
        return self.entries(last - first)

    def place_here(self, entries: np.ndarray) -> np.ndarray:
        """Return where entries of the whole array that this part has lie in it."""
        first, last = self.edges[self.part : self.part + 2]
        if self.run == self.sums:
            return entries - self.entries(first)
        index, behind = np.divmod(entries, self.after)
        row, index = np.divmod(index, self.shape[self.axis])
        return (row * (last - first) + index - first) * self.after + behind

    def _part_of(self, entries: np.ndarray) -> np.ndarray:
        elements = entries * (self.group if self.run == self.sums else 1)
        index = elements // max(self.after, 1) % self.shape[self.axis]
        return np.searchsorted(self.edges, index, "right") - 1

    @functools.cached_property
    def blocks(self) -> Blocks:
        """What is sent of the run; of "groups" and "indices" alone."""
        n, edges = self.shape[self.axis], np.array(self.edges, np.int64)
        if self.run == self.sums:
            bounds = self.entries(edges)
        else:
            edges = edges[(edges > 0) & (edges < n)]  # a part that has the whole axis is not cut from row to row
            bounds = np.add.outer(np.arange(self.before) * n, np.append(edges, 0)[: None if edges.size else 0])
            bounds = bounds.reshape(-1) * self.after
        return Blocks(self.entries(n), bounds, self._part_of)

    def counts(self) -> np.ndarray:
        """Return how many numbers each part sends."""
        if self.way == "lanes":
            return self.outer * np.diff(self.entries(np.array(self.edges, np.int64)))
        sent = self.blocks.part[self.blocks.part >= 0]
        return self.outer * self.inner * np.bincount(sent, minlength=len(self.edges) - 1)

    def sent(self, part: int) -> np.ndarray:
        """Return the slots that a part sends, of each `outer` * `inner` numbers; of "lanes" the entries."""
        if self.way == "lanes":
            first, last = map(self.entries, self.edges[part : part + 2])
            return np.arange(first, last)
        return np.flatnonzero(self.blocks.part == part)

    @property
    def numbers(self) -> int:
        """How many numbers everybody has at the end: entries of "lanes", or slots."""
        count = self.entries(self.shape[self.axis]) if self.way == "lanes" else len(self.blocks.part)
        return self.outer * self.inner * count

    def places(self, part: int) -> np.ndarray:
        """Return where what a part sends lies among all numbers: (slot, outer, inner), of lanes (outer, entry)."""
        sent, width = self.sent(part), self.outer * self.inner
        if self.way == "lanes":
            return np.add.outer(sent, np.arange(self.outer) * self.entries(self.shape[self.axis])).reshape(-1)
        return np.add.outer(sent * width, np.arange(width)).reshape(-1)


class Route:
    """Where sums of several arrays lie on their way: behind one another, and part by part.

    Attributes
    ----------
    counts : ndarray of int
        How many numbers each part sends.
    here, whole : list of int
        Where what this part sends of each array begins, and what everybody has of it; last where they end.
    room : ndarray
        What comes, and behind it a zero for whatever does not.
    received : ndarray
        What comes.
    """

    pieces: Sequence[Piece]
    parts: int
    sizes: np.ndarray
    counts: np.ndarray
    here: list[int]
    whole: list[int]
    room: np.ndarray
    received: np.ndarray

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.parts = len(pieces[0].edges) - 1 if pieces else 0
        self.sizes = np.array([p.counts() for p in pieces], np.int64).reshape(len(pieces), self.parts).T
        self.counts = self.sizes.sum(axis=1)
        mine = self.sizes[pieces[0].part] if pieces else np.zeros(0, np.int64)
        self.here = np.concatenate([[0], np.cumsum(mine)]).tolist()
        self.whole = np.concatenate([[0], np.cumsum([p.numbers for p in pieces])]).astype(int).tolist()
        self.room = np.zeros(int(self.counts.sum()) + 1)
        self.received = self.room[:-1]

    def comes(self, i: int) -> np.ndarray:
        """Return where in `room` the numbers of array i lie, in the order of :meth:`Piece.places`."""
        found = np.full(self.whole[i + 1] - self.whole[i], self.received.size)
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        for part in range(self.parts):
            begin = starts[part] + self.sizes[part, :i].sum()
            found[self.pieces[i].places(part)] = np.arange(begin, begin + self.sizes[part, i])
        return found


# The same in NumPy, for the page.


def add_up_entries(u: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the entries of u*u of a part, an array (outer, entries, inner)."""
    x = (u * u).reshape([n for _, n in piece.runs_here])
    if piece.way == "lanes":
        x = spec.lanes(spec.split(x, spec.CHUNK, -1) if x.shape[-1] > spec.CHUNK else x)
    elif piece.way == "groups":
        x = spec.in_order(spec.split(x, spec.ROWS, piece.sums), piece.sums + 1)
    else:
        x = spec.fold(x, [(reduced and k > piece.run, n) for k, (reduced, n) in enumerate(piece.runs_here)])
    shape = piece.outer, piece.entries_here, piece.inner
    return x.reshape(-1)[: math.prod(shape)].reshape(shape)  # none of an empty part


def add_up_groups(entries: np.ndarray, piece: Piece) -> np.ndarray:
    """Return what a part sends of its entries: each group that it has whole as one sum."""
    if piece.way == "lanes":
        return entries.swapaxes(0, 1).reshape(-1)
    found = []
    for slot in piece.sent(piece.part):
        first, count = piece.blocks.span(slot)
        (start,) = piece.place_here(np.array([first]))
        found.append(spec.sum_rows(entries[:, start : start + count], 1))
    return np.array(found).reshape(-1)


def mean_of_sums(numbers: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the mean square of each slot from what all parts have sent, in the order of :meth:`Piece.places`."""
    if piece.way == "lanes":
        x = spec.lanes(numbers.reshape(piece.outer, piece.entries(piece.shape[piece.axis])))
    else:
        slots = numbers.reshape(-1, piece.outer * piece.inner)
        for first, count, slot in itertools.chain(*piece.blocks.torn):
            slots[slot] = spec.in_order(slots[first : first + count], 0)
        x = slots[0] if len(slots) else np.zeros(piece.outer * piece.inner)
    return spec.fold(x, piece.runs_left).reshape(piece.slot) / piece.share


def mean_here(u: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the mean square of each slot of a part that has its slots for itself."""
    return spec.fold(u * u, piece.runs_here).reshape(piece.slot_here) / piece.share


def find_means(leaves: Sequence[Any], method: Any, rates: Any, sharing: Any) -> list[Any] | None:
    """Return the mean square of each slot, for every leaf, from all its parts; None for leaves that are here whole.

    What is not finite anywhere is told by `sharing`, which raises.
    """
    sharing = sharing.of(leaves)
    means: list[Any] = [None] * len(leaves)
    pieces = [sharing.piece(leaf.name) for leaf in leaves]
    shared = [k for k, piece in enumerate(pieces) if piece is not None and piece.shared]
    route = Route([pieces[k] for k in shared])
    sums, bad = np.zeros(route.here[-1]), None
    for k, (leaf, piece) in enumerate(zip(leaves, pieces, strict=True)):
        try:
            u = method.aim(leaf, rates)[1]
        except NonFiniteError:
            bad = bad or leaf.name
            continue
        with np.errstate(all="ignore"):
            if k in shared:
                i = shared.index(k)
                sums[route.here[i] : route.here[i + 1]] = add_up_groups(add_up_entries(u, piece), piece)
                continue
            means[k] = spec.mean_square(u, leaf.slot) if piece is None else mean_here(u, piece)
        bad = bad or (None if np.isfinite(means[k]).all() else leaf.name)
    sharing.agree(bad, [leaf.name for leaf in leaves], rates)
    sharing.gather(sums, route)
    for i, k in enumerate(shared):
        with np.errstate(all="ignore"):
            means[k] = mean_of_sums(route.room[route.comes(i)], pieces[k])
    sharing.settle(next((leaves[k].name for k in shared if not np.isfinite(means[k]).all()), None))
    return means


def pages(
    leaves: Sequence[Any], method: Any, rates: Any, sharing: Any = None
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield each leaf with every intermediate of its step, by the page."""
    if sharing is None:
        yield from ((leaf, method.page(leaf, rates)) for leaf in leaves)
        return
    for leaf, mean in zip(leaves, find_means(leaves, method, rates, sharing) or (), strict=True):
        known: Callable[[Any, Any], Any] = lambda u, slot, mean=mean: mean  # noqa: E731
        yield leaf, method.page(leaf, rates, known)
