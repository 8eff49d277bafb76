"""How CUDA kernels see the leaves of a table: how many tasks each has, and its runs."""

from typing import Any

import numpy as np

from amos_ref.kernels.cuda.apply import TASK_ROWS
from amos_ref.kernels.cuda.reduce import LANES
from amos_ref.kernels.table import INNER, OUTER, N, Table


def count_tasks(table: Table, piece: int) -> dict[str, np.ndarray]:
    """Return how many tasks of each kind every leaf has."""
    outer, n, inner = table.leaves[:, OUTER], table.leaves[:, N], table.leaves[:, INNER]
    slots = np.diff(table.slots.starts)
    mixed = np.isin(np.arange(len(outer)), [k for k, _ in _mixed(table)])
    pieces, strips = -(-n // piece), -(-inner // LANES)
    if table.key.kind == "elements":
        none = 0 * n
        return dict(reduce=pieces, combine=none, fold=none, slots=none, spread=none, apply=pieces)
    rows = table.key.kind == "rows"
    groups = np.diff(table.reduce.starts)
    return dict(
        reduce=groups if rows else groups * strips,
        combine=outer * inner,
        fold=slots * mixed,
        slots=slots,
        spread=outer * inner * mixed,
        apply=outer * pieces if rows else outer * -(-n // TASK_ROWS) * strips,
    )


def _mixed(table: Table) -> list[tuple[int, Any]]:
    """Return the members that have reduced runs before the innermost one."""
    return [(k, box) for k, box in enumerate(table.boxes) if box.kind != "elements" and box.mixed]


def runs_of(table: Table) -> np.ndarray:
    """Return for each leaf where its runs are, and how many; then the runs that the first kernels leave."""
    heads, runs = np.zeros((len(table.leaves), 2), np.int64), []
    for k, box in _mixed(table):
        left = box.runs[: box.cut] + box.runs[box.cut + 1 :]
        heads[k] = heads.size + len(runs), len(left)
        for reduced, n in left:
            runs += [n, int(reduced)]
    return np.concatenate([heads.reshape(-1), np.array(runs, np.int64)])
