"""Arrays that lie over ranks, in windows of bounded size: each rank gives, or takes, its part of a window."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from amos_ref.dtypes import Shape
from amos_ref.mpi.ranks import Ranks

WINDOW = 2**17  # elements, a multiple of 8192


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
            return upto if rank == self.owner else 0
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


def _bits(a: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Return the elements of an array in C order as integers, which MPI knows; none where there is no array."""
    flat = np.empty(0, dtype) if a is None else a.reshape(-1)
    return flat.view(f"u{dtype.itemsize}")


def windows_at_root(ranks: Ranks, spread: Spread, local: np.ndarray | None, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the whole array in windows on rank 0, and nothing elsewhere; all ranks go through it together."""
    mine, buffer = _bits(local, dtype), np.empty(min(WINDOW, spread.size), f"u{dtype.itemsize}")
    for start in range(0, spread.size, WINDOW):
        stop = min(start + WINDOW, spread.size)
        window = buffer[: stop - start]
        for rank in range(ranks.size):
            first, last = spread.count(rank, start), spread.count(rank, stop)
            if first == last or ranks.rank not in (0, rank):
                continue
            if ranks.rank != 0:
                ranks.send(np.ascontiguousarray(mine[first:last]), 0)
                continue
            part = mine[first:last]
            if rank != 0:
                part = np.empty(last - first, buffer.dtype)
                ranks.receive(part, rank)
            places = spread.places(rank, first, last)
            window[
                slice(places.start - start, places.stop - start) if isinstance(places, slice) else places - start
            ] = part
        if ranks.rank == 0:
            yield window.view(dtype)
