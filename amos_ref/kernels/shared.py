"""A leaf that is one part of a larger array: its sums leave the step, and come back with those of the other parts.

The order of summation is that of the whole array. Its sums of 8192 neighbours, or of 64 rows, are the same numbers
whoever computes them; so a part computes those that lie in it, and everybody puts all of them together as the page
does. Where the array is cut along an axis that its slots keep, each part has its own slots, and nothing is sent.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.errors import NonFiniteError


class Piece:
    """One part of an array that is cut along an axis.

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
    """

    shape: tuple[int, ...]
    slot: tuple[int, ...]
    axis: int
    edges: tuple[int, ...]
    part: int
    runs: list[tuple[bool, int]]
    sums: int
    run: int
    before: int
    after: int
    shared: bool

    def __init__(self, shape: Any, slot: Any, axis: int, edges: Sequence[int], part: int = 0) -> None:
        self.shape, self.slot, self.axis = tuple(shape), tuple(slot), axis
        self.edges, self.part = tuple(edges), part
        self.runs = spec.runs(self.shape, self.slot)
        self.sums = max((k for k, (reduced, _) in enumerate(self.runs) if reduced), default=-1)
        upto = spec.runs(self.shape[: axis + 1], self._aligned()[: axis + 1])
        self.run = len(upto) - 1
        self.before = upto[-1][1] // self.shape[axis]
        self.after = self.runs[self.run][1] // upto[-1][1]
        self.shared = self.runs[self.run][0]

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

    def runs_of(self, part: int) -> list[tuple[bool, int]]:
        """Return the runs of one part, none of them left out."""
        n = self.before * (self.edges[part + 1] - self.edges[part]) * self.after
        return [*self.runs[: self.run], (self.shared, n), *self.runs[self.run + 1 :]]

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

    def groups(self, n: Any) -> Any:
        """Return how many sums so many elements of the innermost reduced run have."""
        return -(-n // self.group)

    def sums_shape(self, part: int | None = None) -> tuple[int, int, int]:
        """Return (A, units, B) of the sums of one part, or of the whole array: parts lie along the second axis."""
        lengths = [n for _, n in self.runs]
        edges = (0, self.shape[self.axis]) if part is None else self.edges[part : part + 2]
        units = self._units(edges[1]) - self._units(edges[0])
        if self.run == self.sums:
            return math.prod(lengths[: self.sums]), units, math.prod(lengths[self.sums + 1 :])
        lengths[self.sums] = max(self.groups(lengths[self.sums]), 1)
        return math.prod(lengths[: self.run]) * self.before, units, self.after * math.prod(lengths[self.run + 1 :])

    def counts(self) -> np.ndarray:
        """Return how many sums each part has."""
        a, _, b = self.sums_shape()
        return a * b * np.diff(self._units(np.array(self.edges, np.int64)))

    def _units(self, edges: Any) -> Any:
        """Return how many sums along the second axis lie before edges that are legal."""
        return self.groups(edges * self.after) if self.run == self.sums else edges

    def places(self, part: int) -> np.ndarray:
        """Return where the sums of one part lie among those of the whole array."""
        a, units, b = self.sums_shape(part)
        _, all_units, _ = self.sums_shape()
        first = self._units(self.edges[part])
        return np.add.outer(
            np.arange(a) * (all_units * b), np.add.outer(np.arange(first, first + units) * b, np.arange(b))
        ).reshape(-1)


class Route:
    """Where sums of several arrays lie on their way: behind one another, and part by part.

    Attributes
    ----------
    counts : ndarray of int
        How many numbers each part sends.
    here, whole : list of int
        Where each array's own sums, and those of all its parts, begin; last where they end.
    """

    pieces: Sequence[Piece]
    parts: int
    sizes: np.ndarray
    counts: np.ndarray
    here: list[int]
    whole: list[int]
    received: np.ndarray

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.parts = len(pieces[0].edges) - 1 if pieces else 0
        self.sizes = np.array([p.counts() for p in pieces], np.int64).reshape(len(pieces), self.parts).T
        self.counts = self.sizes.sum(axis=1)
        mine = self.sizes[pieces[0].part] if pieces else np.zeros(0, np.int64)
        self.here = np.concatenate([[0], np.cumsum(mine)]).tolist()
        self.whole = np.concatenate([[0], np.cumsum([math.prod(p.sums_shape()) for p in pieces])]).astype(int).tolist()
        self.received = np.empty(int(self.counts.sum()))

    def comes(self, i: int) -> np.ndarray:
        """Return where the sums of the whole array i lie in what was received, in their order."""
        found = np.empty(self.whole[i + 1] - self.whole[i], np.int64)
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        for part in range(self.parts):
            begin = starts[part] + self.sizes[part, :i].sum()
            found[self.pieces[i].places(part)] = np.arange(begin, begin + self.sizes[part, i])
        return found


# The same in NumPy, for the page.


def sum_groups(u: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the sums of u*u that lie in a part."""
    x = (u * u).reshape([n for _, n in piece.runs_of(piece.part)])
    if piece.sums == x.ndim - 1:
        x = spec.lanes(spec.split(x, spec.CHUNK, -1))
    else:
        x = spec.in_order(spec.split(x, spec.ROWS, piece.sums), piece.sums + 1)
    return x.reshape(-1)[: math.prod(piece.sums_shape(piece.part))]  # none of an empty part


def mean_of_sums(sums: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the mean square of each slot from the sums of all parts."""
    lengths = [n for _, n in piece.runs]
    lengths[piece.sums] = max(piece.groups(lengths[piece.sums]), 1)
    x, last = sums.reshape(lengths), piece.sums == len(lengths) - 1
    x = spec.lanes(x) if last else spec.sum_rows(x, piece.sums)
    left = piece.runs[: piece.sums] + piece.runs[piece.sums + 1 :]
    return spec.fold(x, left).reshape(piece.slot) / piece.share


def mean_here(u: np.ndarray, piece: Piece) -> np.ndarray:
    """Return the mean square of each slot of a part that has its slots for itself."""
    return spec.fold(u * u, piece.runs_of(piece.part)).reshape(piece.slot_here) / piece.share


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
                sums[route.here[i] : route.here[i + 1]] = sum_groups(u, piece)
                continue
            means[k] = spec.mean_square(u, leaf.slot) if piece is None else mean_here(u, piece)
        bad = bad or (None if np.isfinite(means[k]).all() else leaf.name)
    sharing.agree(bad, [leaf.name for leaf in leaves], rates)
    sharing.gather(sums, route)
    for i, k in enumerate(shared):
        with np.errstate(all="ignore"):
            means[k] = mean_of_sums(route.received[route.comes(i)], pieces[k])
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
