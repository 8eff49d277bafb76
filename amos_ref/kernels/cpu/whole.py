"""The step of a small table in one call of compiled code, which nothing can break off in the middle.

A step of a thousand parameters takes less than a microsecond to compute. Five launches of kernels, each from Python,
take ten times as long; and between them a signal's handler may run, so signals have to wait in Python too.
"""

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref.kernels.cpu import loops, reduce
from amos_ref.kernels.cpu.memory import view
from amos_ref.kernels.jit import inline, kernel, merge
from amos_ref.kernels.table import COLUMNS, Table, address

READ_ONLY, WRITE_ONLY, ALL = 1, 2, 3  # what a call does: reduce, or decide and apply, or both

#: What stands in a table's row of words, by which its arrays take one argument of a call and not ten: a mark that is
#: set when all is written, the address of another one for the kernels within, and addresses of arrays, with their
#: sizes.
MARK, OTHER_MARK, WITHIN, LEAVES, LEAF_COUNT, STARTS, SHARE, SUMS_AT, SUMS_SIZE, MEANS, ALPHA, RHO, PLACES_SIZE = range(
    13
)
_FLOAT64 = np.empty(0)


def is_small(t: Table) -> bool:
    """Whether no part of a table's step is worth another thread, nor needs anything from elsewhere in between."""
    launches = (t.reduce, t.apply) if t.key.kind == "elements" else (t.reduce, t.combine, t.slots, t.apply)
    return not t.key.shared and not t.mixed and all(tasks.little for tasks in launches)


def words_of(t: Table, sums: np.ndarray, between: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return a table's row of words, and the arrays that it has addresses of; `between` are means, alpha and rho."""
    starts = np.array([tasks.starts for tasks in (t.reduce, t.combine, t.slots, t.apply)])
    words = np.zeros(13, np.int64)
    within = address(words) + words.itemsize * OTHER_MARK
    words[WITHIN:] = (
        *(within, address(t.leaves), len(t.leaves), address(starts), address(t.share), address(sums), sums.size),
        *(*map(address, between), between[0].size),
    )
    return words, (starts, t.leaves, t.share, sums, between)


@inline
def ints_at(words, k, rows, columns):
    """Return the table of integers whose address is the k-th word."""
    return view(words[k], 0, rows * columns, words).reshape((rows, columns))


@inline
def starts_of(words):
    """Return the first task of each leaf, for each of the four launches."""
    return ints_at(words, STARTS, 4, words[LEAF_COUNT] + 1)


@inline
def leaves_of(words):
    """Return the leaves of the table."""
    return ints_at(words, LEAVES, words[LEAF_COUNT], COLUMNS)


@inline
def numbers_at(words, k, size):
    """Return the float64 numbers whose address is the k-th word, as many as the word at `size` says."""
    return view(words[k], 0, words[size], _FLOAT64)


@inline
def set_mark(words):
    """Say that all is written."""
    words[MARK] = 1


@functools.cache
def stepping(decide: Callable[..., Any], states: int, own: int) -> SimpleNamespace:
    """Return the kernels that step a table of a kind, compiled for the *decide* of a member of the family.

    Each returns the first leaf whose gradient is not finite, with nothing written, or -1.
    """
    made = loops.deciding(decide, states, own)
    # As plain functions: a kernel among the constants of another one would keep that from being found on the disk.
    decide_slots, decide_and_apply = (merge(getattr(k, "py_func", k)) for k in (made.slots, made.elements))

    @inline
    def decide_all(words, starts, leaves, like_state, vanished, numbers):
        means, alpha = numbers_at(words, MEANS, PLACES_SIZE), numbers_at(words, ALPHA, PLACES_SIZE)
        rho = numbers_at(words, RHO, PLACES_SIZE)
        decide_slots(0, starts[-1], starts, words[WITHIN], leaves, like_state, means, alpha, rho, vanished, numbers)
        return alpha, rho

    @kernel
    def rows(what, words, like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
        """Rows: reduce, combine, decide and apply."""
        starts, leaves, sums = starts_of(words), leaves_of(words), numbers_at(words, SUMS_AT, SUMS_SIZE)
        if what & READ_ONLY:
            means, share = numbers_at(words, MEANS, PLACES_SIZE), numbers_at(words, SHARE, LEAF_COUNT)
            reduce.reduce_rows(0, starts[0, -1], starts[0], leaves, like_g, like_moment, chi, aims, sums)
            reduce.combine_rows(0, starts[1, -1], starts[1], leaves, sums, means)
            bad = reduce.mean_slots(0, starts[2, -1], starts[2], leaves, share, means)
            if bad >= 0:
                return bad
        if what & WRITE_ONLY:
            alpha, rho = decide_all(words, starts[2], leaves, like_state, vanished, numbers)
            arrays = (leaves, like_theta, like_g, like_m, like_moment, alpha, rho)
            loops.apply_rows(0, starts[3, -1], starts[3], words[WITHIN], False, *arrays, chi, mu, aims)
            set_mark(words)
        return -1

    @kernel
    def columns(what, words, like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
        """Columns likewise."""
        starts, leaves, sums = starts_of(words), leaves_of(words), numbers_at(words, SUMS_AT, SUMS_SIZE)
        if what & READ_ONLY:
            means, share = numbers_at(words, MEANS, PLACES_SIZE), numbers_at(words, SHARE, LEAF_COUNT)
            reduce.reduce_columns(0, starts[0, -1], starts[0], leaves, like_g, like_moment, chi, aims, sums)
            reduce.combine_columns(0, starts[1, -1], starts[1], leaves, sums, means)
            bad = reduce.mean_slots(0, starts[2, -1], starts[2], leaves, share, means)
            if bad >= 0:
                return bad
        if what & WRITE_ONLY:
            alpha, rho = decide_all(words, starts[2], leaves, like_state, vanished, numbers)
            arrays = (leaves, like_theta, like_g, like_m, like_moment, alpha, rho)
            loops.apply_columns(0, starts[3, -1], starts[3], words[WITHIN], *arrays, chi, mu, aims)
            set_mark(words)
        return -1

    @kernel
    def elements(what, words, like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
        """Elements: look at the gradients, decide and apply."""
        starts, leaves = starts_of(words), leaves_of(words)
        if what & READ_ONLY:
            bad = reduce.check_elements(0, starts[0, -1], starts[0], leaves, like_g, like_moment, chi, aims)
            if bad >= 0:
                return bad
        if what & WRITE_ONLY:
            arrays = (leaves, like_theta, like_g, like_m, like_moment, like_state, vanished)
            decide_and_apply(0, starts[3, -1], starts[3], words[WITHIN], *arrays, chi, mu, aims, numbers)
            set_mark(words)
        return -1

    return SimpleNamespace(rows=rows, columns=columns, elements=elements)
