"""Arrays that lie over ranks, in windows of bounded size: each rank gives, or takes, its part of a window."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from amos_ref.checks import ForeignArray
from amos_ref.dtypes import Shape
from amos_ref.mpi.ranks import Ranks

WINDOW = 2**17  # elements, a multiple of 8192
GO, STOP, DONE = 0, 1, 2  # what rank 0 says between windows, and behind the last


class Stopped(Exception):
    """Rank 0 has failed."""


class Spread(NamedTuple):
    """How an array lies over ranks."""

    shape: Shape
    axis: int | None = None  # along which it is cut; None where it is whole on one rank, its owner
    edges: tuple[int, ...] = ()
    owner: int = 0
    everywhere: bool = False  # whole on every rank

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def count(self, rank: int, upto: int) -> int:
        """Return how many of the first elements a rank has."""
        if self.axis is None:
            return upto if self.everywhere or rank == self.owner else 0
        n, inner = self.shape[self.axis], math.prod(self.shape[self.axis + 1 :])
        first, last = self.edges[rank], self.edges[rank + 1]
        outer, rest = divmod(upto, n * inner) if n * inner else (0, 0)
        return outer * (last - first) * inner + min(max(rest - first * inner, 0), (last - first) * inner)

    def places(self, rank: int, first: int, last: int) -> Any:
        """Return where the elements from `first` to `last` of those that a rank has lie in the whole."""
        if self.axis is None:
            return slice(first, last)
        n, inner = self.shape[self.axis], math.prod(self.shape[self.axis + 1 :])
        mine = (self.edges[rank + 1] - self.edges[rank]) * inner
        outer, rest = np.divmod(np.arange(first, last), max(mine, 1))
        return outer * (n * inner) + self.edges[rank] * inner + rest


def on_host(a: Any) -> np.ndarray:
    """Return an array in NumPy; a copy of one that lies elsewhere."""
    if not isinstance(a, ForeignArray):
        return a
    return a.astype(a.dtype)  # pyright: ignore[reportAttributeAccessIssue]


def _bits(a: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Return the elements of an array in C order as integers, which MPI knows; none where there is no array.

    They are the array's own where it is contiguous.
    """
    flat = np.empty(0, dtype) if a is None else a.reshape(-1)
    return flat.view(f"u{dtype.itemsize}")


def windows_at_root(ranks: Ranks, spread: Spread, local: np.ndarray | None, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the whole array in windows on rank 0, and nothing elsewhere; all ranks go through it together.

    Raise Stopped on the others where rank 0 says so between two windows.
    """
    spread = spread._replace(everywhere=False)
    mine, buffer = _bits(local, dtype), np.empty(min(WINDOW, spread.size), f"u{dtype.itemsize}")
    for start, stop in _windows(spread):
        _go_on(ranks)
        window = buffer[: stop - start]
        for rank, first, last in _holders(ranks, spread, start, stop):
            if ranks.rank != 0:
                ranks.send(np.ascontiguousarray(mine[first:last]), 0)
                continue
            part = mine[first:last]
            if rank != 0:
                part = np.empty(last - first, buffer.dtype)
                ranks.receive(part, rank)
            window[_behind(spread.places(rank, first, last), start)] = part
        if ranks.rank == 0:
            yield window.view(dtype)


def fill_from_root(
    ranks: Ranks, spread: Spread, local: np.ndarray | None, dtype: np.dtype, source: Iterator[np.ndarray]
) -> None:
    """Fill what every rank has of an array from the whole one, which rank 0 has in windows of WINDOW elements."""
    mine = _bits(local, dtype)
    for start, stop in _windows(spread):
        window = next(source) if ranks.rank == 0 else None  # if that fails, nobody waits for it
        _go_on(ranks)
        for rank, first, last in _holders(ranks, spread, start, stop):
            if window is None:
                part = np.empty(last - first, mine.dtype)
                ranks.receive(part, 0)
                mine[first:last] = part
                continue
            part = window[_behind(spread.places(rank, first, last), start)]
            if rank == 0:
                mine[first:last] = part
            else:
                ranks.send(np.ascontiguousarray(part), rank)


def _windows(spread: Spread) -> Iterator[tuple[int, int]]:
    """Yield where windows begin and end."""
    for start in range(0, spread.size, WINDOW):
        yield start, min(start + WINDOW, spread.size)


def _go_on(ranks: Ranks) -> None:
    """Say on rank 0 that it goes on; raise Stopped elsewhere if it does not."""
    if ranks.say(GO) != GO:
        raise Stopped


def _holders(ranks: Ranks, spread: Spread, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield each rank that has elements of a window, and which of its own; on other ranks than 0 that rank alone."""
    for rank in range(ranks.size) if ranks.rank == 0 else [ranks.rank]:
        first, last = spread.count(rank, start), spread.count(rank, stop)
        if first < last:
            yield rank, first, last


def _behind(places: Any, start: int) -> Any:
    return slice(places.start - start, places.stop - start) if isinstance(places, slice) else places - start
