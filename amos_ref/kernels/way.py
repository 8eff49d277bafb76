"""The way of partial sums to the other parts of arrays and back, in the memory of the host.

It is the same for every compiled backend: that brings the sums of its part, and takes the mean squares of all parts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels import Sharing
from amos_ref.kernels.cpu import reduce
from amos_ref.kernels.cpu.threads import launch
from amos_ref.kernels.shared import Piece, Route, Runs
from amos_ref.kernels.table import COLUMNS, INNER, LEAF, OUTER, PLACES, STRIP, SUMS, N, Table, Tasks, make_tasks

ROWS = spec.ROWS


def first_bad(found: Sequence[int]) -> int:
    """Return the least of the leaves whose gradients are not finite; -1 stands for none."""
    return min((bad for bad in found if bad >= 0), default=-1)


def settle(table: Table, means: np.ndarray) -> int:
    """Make means of what the kernels summed; return the first leaf for which one is not finite, or -1."""
    for leaf in table.mixed:
        leaf.fold(means)
    return first_bad(launch(reduce.mean_slots, table.slots, table.leaves, table.share, means))


class ColumnSums:
    """Sums of neighbours in an array, each of `count` times `inner` numbers, in the page's order of columns.

    Parameters
    ----------
    rows : list of (int, int, int, int)
        For each: where the neighbours begin, how many there are, `inner`, and where their sums go.
    """

    rows: np.ndarray
    tasks: Tasks

    def __init__(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        self.rows = np.zeros((len(rows), COLUMNS), np.int64)
        if rows:
            first, count, inner, to = np.array(rows, np.int64).T
            columns = {SUMS: first, OUTER: 1, N: ROWS * count, INNER: inner, PLACES: to}
            for column, a in columns.items():
                self.rows[:, column] = a
        self.tasks = make_tasks([-(-inner // STRIP) for _, _, inner, _ in rows], [n * inner for _, n, inner, _ in rows])

    def run(self, sums: np.ndarray, totals: np.ndarray) -> None:
        if len(self.rows):
            launch(reduce.combine_columns, self.tasks, self.rows, sums, totals)


class Crossing:
    """How the sums of the parts of one table leave, and how what comes is put together.

    Parameters
    ----------
    table : Table
        Of leaves whose sums are shared.
    route : Route
    numbers : list of int
        Which of the route's arrays each leaf of the table is.
    """

    table: Table
    goes: np.ndarray
    goes_to: np.ndarray
    between: list[tuple[int, Runs]]
    added_up: ColumnSums
    comes: np.ndarray
    torn: list[ColumnSums]
    ends: np.ndarray
    ends_at: np.ndarray
    gone: np.ndarray
    numbers: np.ndarray
    ended: np.ndarray

    def __init__(self, table: Table, route: Route, numbers: Sequence[int]) -> None:
        self.table = table
        goes, added_up, comes, ends = [], [], [], []
        torn: list[list[tuple[int, int, int, int]]] = []
        begin, lanes = 0, table.key.shared == "lanes"
        for row, i in zip(table.leaves, numbers, strict=True):
            piece = route.pieces[i]
            singles, groups = _leaving(piece, int(row[PLACES if piece.way == "indices" else SUMS]), route.here[i])
            goes.append(singles)
            added_up += groups
            comes.append(route.comes(i))
            width = piece.outer * piece.inner
            if not lanes:
                ends.append((begin, int(row[PLACES]), width if comes[-1].size else 0))
                torn += [[] for _ in piece.blocks.torn[len(torn) :]]
                for rows, groups in zip(torn, piece.blocks.torn, strict=False):
                    rows += [
                        (begin + width * first, count, width, begin + width * slot) for first, count, slot in groups
                    ]
            begin += comes[-1].size
        self.goes, self.goes_to = np.concatenate(goes, axis=1)
        self.between = [
            each for row, piece in zip(table.leaves, table.pieces, strict=True) for each in _between(row, piece)
        ]
        self.added_up = ColumnSums(added_up)
        self.comes, self.torn = np.concatenate(comes), [ColumnSums(rows) for rows in torn]
        self.ends, self.ends_at = (_ranges([(end[k], end[2]) for end in ends]) for k in (0, 1))
        # Whatever a step needs on the way.
        self.gone, self.numbers, self.ended = (np.empty(a.size) for a in (self.goes, self.comes, self.ends))

    def leave(self, sums: np.ndarray, means: np.ndarray, sent: np.ndarray) -> None:
        """Put what is sent where it leaves from; sums and means are used for what comes between."""
        t = self.table
        if t.key.shared == "indices":
            kernel = reduce.combine_rows if t.key.kind == "rows" else reduce.combine_columns
            launch(kernel, t.combine, t.leaves, sums, means)
            for first, runs in self.between:
                found = spec.fold(means[first : first + math.prod(n for _, n in runs)], runs).reshape(-1)
                means[first : first + found.size] = found
            sums = means
        np.take(sums, self.goes, out=self.gone, mode="clip")
        sent[self.goes_to] = self.gone
        self.added_up.run(sums, sent)

    def arrive(self, room: np.ndarray, means: np.ndarray) -> int:
        """Make the mean square of each slot; return the first leaf for which it is not finite, or -1."""
        t = self.table
        np.take(room, self.comes, out=self.numbers, mode="clip")
        if t.key.shared == "lanes":
            launch(reduce.combine_rows, t.combine, t.whole, self.numbers, means)
        else:
            means.fill(0.0)  # the mean square of nothing
        for level in self.torn:
            level.run(self.numbers, self.numbers)
        np.take(self.numbers, self.ends, out=self.ended, mode="clip")
        means[self.ends_at] = self.ended
        return settle(t, means)


def _ranges(found: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the integers of several ranges, each given by where it begins and how many there are."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, first + count) for first, count in found)])


def _leaving(piece: Piece, base: int, to: int) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Return from where to where single entries of a part go, and the groups that it adds up (see ColumnSums)."""
    sent, outer, inner, here = piece.sent(piece.part), piece.outer, piece.inner, piece.entries_here
    single = np.ones(len(sent), bool) if piece.way == "lanes" else piece.blocks.level[sent] == 0
    entries = sent[single] if piece.way == "lanes" else piece.blocks.index[sent[single]]
    rows, columns = np.arange(outer) * here, np.arange(inner)
    at = np.add.outer(np.add.outer(piece.place_here(entries), rows) * inner, columns)
    width = outer * inner
    goes_to = np.add.outer(np.flatnonzero(single) * width, np.arange(width))
    singles = np.stack([base + at.reshape(-1), to + goes_to.reshape(-1)])
    groups = []
    for k in np.flatnonzero(~single).tolist():
        first, count = piece.blocks.span(sent[k])
        (place,) = piece.place_here(np.array([first])).tolist()
        groups += [
            (base + (row * here + place) * inner, count, inner, to + (k * outer + row) * inner) for row in range(outer)
        ]
    return singles, groups


def _between(row: np.ndarray, piece: Piece | None) -> list[tuple[int, Runs]]:
    """Return where the sums of a part lie that are reduced further before they leave, if there are any, and their runs.

    These are the runs between that which is cut and the innermost one.
    """
    if piece is None or piece.way != "indices":
        return []
    left = piece.runs_here[: piece.sums] + piece.runs_here[piece.sums + 1 :]
    runs = [(reduced and k > piece.run, n) for k, (reduced, n) in enumerate(left)]
    return [(int(row[PLACES]), runs)] if any(reduced for reduced, _ in runs) else []


class Way:
    """The way of sums to the other parts of arrays and back; nothing on it is made anew at a step.

    Parameters
    ----------
    sharing : Sharing
    leaves : sequence
        All leaves of the step.
    tables : list of Table
        Those whose sums are shared.
    """

    sharing: Sharing
    names: list[str]
    route: Route
    sent: np.ndarray
    crossings: list[Crossing]

    def __init__(self, sharing: Sharing, leaves: Sequence[Any], tables: Sequence[Table]) -> None:
        self.sharing, self.names = sharing, [leaf.name for leaf in leaves]
        # In the order of the leaves, which is the same in every part of a tree; that of the tables need not be.
        members = [(int(row[LEAF]), k, j) for k, table in enumerate(tables) for j, row in enumerate(table.leaves)]
        members.sort()
        self.route = Route([piece for _, k, j in members if (piece := tables[k].pieces[j]) is not None])
        self.sent = np.empty(self.route.here[-1])
        numbers: list[list[int]] = [[0] * len(table.leaves) for table in tables]
        for i, (_, k, j) in enumerate(members):
            numbers[k][j] = i
        self.crossings = [Crossing(table, self.route, mine) for table, mine in zip(tables, numbers, strict=True)]

    def bring_together(self, bad: int, rates: Any, scratch: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Fill the mean squares that need the sums of other parts, or raise what is wrong anywhere.

        Parameters
        ----------
        bad : int
            The first leaf, of those that share no sums, whose gradient is not finite; -1 stands for none.
        rates
            The numbers of the step.
        scratch : list of (ndarray, ndarray)
            For each table the sums of its parts, and room for the means.
        """
        self.sharing.agree(None if bad < 0 else self.names[bad], self.names, rates)
        for crossing, (sums, means) in zip(self.crossings, scratch, strict=True):
            crossing.leave(sums, means, self.sent)
        self.sharing.gather(self.sent, self.route)
        found = [each.arrive(self.route.room, means) for each, (_, means) in zip(self.crossings, scratch, strict=True)]
        bad = first_bad(found)
        self.sharing.settle(None if bad < 0 else self.names[bad])
