"""Where leaves are cut so that ranks have about the same to do."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref.dtypes import Shape
from amos_ref.errors import HyperParameterError
from amos_ref.kernels.shared import Piece
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos

#: By how much the largest part may exceed the smallest possible one, for the sake of sending less.
TOLERATED = 1.1


def slot_shapes(opt: Any, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every leaf's slots."""
    if not isinstance(opt, Amos | ClosedFormAmos):
        raise HyperParameterError(f"opt is {opt!r:.60}; it must be an Amos or a ClosedFormAmos")
    return {name: opt._leaf_rule(name, shape)[-1] for name, shape in shapes.items()}


def cut_evenly(shapes: Mapping[str, Shape], slots: Mapping[str, Shape], ranks: int, *, each: bool) -> dict[str, Any]:
    """Return a cut for every leaf: of all that can be cut, or only of those that are too large for one rank."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted = sum(sizes.values()) / ranks
    load, cuts = np.zeros(ranks), {}
    for name in sorted(shapes, key=lambda name: -sizes[name]):
        best = best_cut(shapes[name], slots[name], ranks) if ranks > 1 and (each or sizes[name] > wanted) else None
        if best is None:
            cuts[name] = int(np.argmin(load))
            load[cuts[name]] += sizes[name]
        else:
            cuts[name] = best
            axis, edges = best
            load += np.diff(edges) * (sizes[name] // shapes[name][axis])
    return {name: cuts[name] for name in shapes}


def best_cut(shape: Shape, slot: Shape, ranks: int) -> tuple[int, tuple[int, ...]] | None:
    """Return the axis and edges that send least among those whose largest part is about the smallest; None of none."""
    found = []
    for axis, n in enumerate(shape):
        if n < 2 or not math.prod(shape):
            continue
        unit = Piece(shape, slot, axis, (0, n)).unit
        if unit == 0 or unit >= n:
            continue
        units = -(-n // unit)
        edges = (*(min(k * units // ranks * unit, n) for k in range(ranks)), n)
        piece = Piece(shape, slot, axis, edges)
        sent = math.prod(piece.sums_shape()) if piece.shared else 0
        found.append((max(np.diff(edges)) * (math.prod(shape) // n), sent, axis, edges))
    if not found:
        return None
    least = min(largest for largest, *_ in found)
    _, axis, edges = min((sent, axis, edges) for largest, sent, axis, edges in found if largest <= TOLERATED * least)
    return axis, edges
