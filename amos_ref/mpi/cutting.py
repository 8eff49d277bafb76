"""Where leaves are cut so that ranks have about the same to do."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.dtypes import Shape
from amos_ref.errors import HyperParameterError
from amos_ref.kernels.shared import Piece
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos

#: By how much the largest part may exceed the smallest possible one, for the sake of sending less, and by how much what
#: a rank has may exceed the mean, for the sake of cutting less.
TOLERATED = 1.1


def slot_shapes(opt: Any, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every leaf's slots."""
    if not isinstance(opt, Amos | ClosedFormAmos):
        raise HyperParameterError(f"opt is {opt!r:.60}; it must be an Amos or a ClosedFormAmos")
    return {name: opt._leaf_rule(name, shape)[-1] for name, shape in shapes.items()}


class Way(NamedTuple):
    """A way to cut a leaf: along an axis, at multiples of a unit."""

    axis: int
    unit: int
    units: int
    entries: int  # of one unit


def cut_evenly(shapes: Mapping[str, Shape], slots: Mapping[str, Shape], ranks: int, *, each: bool) -> dict[str, Any]:
    """Return a cut for every leaf: of all that can be cut, or only where a rank would have too much otherwise."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = sum(sizes.values()) / ranks
    load, cuts = np.zeros(ranks, np.int64), {}
    ways: dict[tuple[Shape, Shape], Way | None] = {}
    for name in sorted(shapes, key=lambda name: -sizes[name]):
        least = int(np.argmin(load))
        fits = sizes[name] <= wanted and load[least] + sizes[name] <= TOLERATED * wanted
        key = shapes[name], slots[name]
        if key not in ways:
            ways[key] = best_way(*key, ranks)
        way = ways[key]
        if way is None or ranks == 1 or (fits and not each):
            cuts[name] = least
            load[least] += sizes[name]
        else:
            counts = spread_units(way, load)
            load += counts * way.entries
            cuts[name] = way.axis, edges_of(way, counts, shapes[name])
    return {name: cuts[name] for name in shapes}


def spread_units(way: Way, load: np.ndarray) -> np.ndarray:
    """Return how many units each rank gets: about as many as any other, and those with less to do one more."""
    counts, more = np.divmod(np.full(load.size, way.units), load.size)
    counts[np.argsort(load, kind="stable")[: more[0]]] += 1
    return counts


def edges_of(way: Way, counts: np.ndarray, shape: Shape) -> tuple[int, ...]:
    """Return the edges between ranks that have so many units each."""
    return (0, *np.minimum(np.cumsum(counts) * way.unit, shape[way.axis]).tolist())


def way_along(piece: Piece, unit: int = 0) -> Way:
    """Return the way to cut along a piece's axis, which can be cut, at multiples of a unit, by default the smallest."""
    n, unit = piece.shape[piece.axis], unit or piece.unit
    return Way(piece.axis, unit, -(-n // unit), unit * (math.prod(piece.shape) // n))


def units_of(piece: Piece) -> list[int]:
    """Return units at which an axis can be cut: the smallest, and those that leave larger and larger groups whole."""
    n, units = piece.shape[piece.axis], [piece.unit]
    size = spec.ROWS * (piece.group if piece.way == "groups" else 1)
    while piece.way in ("groups", "indices") and 0 < units[-1] < n:
        units.append(size // math.gcd(piece.after, size))
        size *= spec.ROWS
    return [unit for unit in dict.fromkeys(units) if 0 < unit < n]


def best_way(shape: Shape, slot: Shape, ranks: int) -> Way | None:
    """Return the way that sends least among those whose largest part is about the smallest; None if there is none."""
    found = []
    for axis, n in enumerate(shape):
        if n < 2 or not math.prod(shape):
            continue
        for unit in units_of(Piece(shape, slot, axis, (0, n))):
            way = way_along(Piece(shape, slot, axis, (0, n)), unit)
            edges = edges_of(way, spread_units(way, np.zeros(ranks, np.int64)), shape)
            piece = Piece(shape, slot, axis, edges)
            sent = int(piece.counts().sum()) if piece.shared else 0
            found.append((-(-way.units // ranks) * way.entries, sent, way))
    if not found:
        return None
    least = min(largest for largest, *_ in found)
    return min((sent, way) for largest, sent, way in found if largest <= TOLERATED * least)[1]
