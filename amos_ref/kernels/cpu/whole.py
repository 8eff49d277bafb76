"""The step of a small table in one call of compiled code, which nothing can break off in the middle.

A step of a thousand parameters takes less than a microsecond to compute. Five launches of kernels, each from Python,
take ten times as long; and between them a signal's handler may run, so signals have to wait in Python too. The same
kernels are called here by their addresses, from one that is compiled in a fraction of a second.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import types

from amos_ref.kernels.cpu import loops, reduce
from amos_ref.kernels.cpu.calls import address_of, ask, call, key, key_of, kinds_of
from amos_ref.kernels.cpu.memory import view
from amos_ref.kernels.jit import inline, kernel
from amos_ref.kernels.table import COLUMNS, Table, address

READ_ONLY, WRITE_ONLY, ALL = 1, 2, 3  # what a call does: reduce, or decide and apply, or both
OTHERS = -2  # what a call returns that has done nothing, because other kernels have to be found for such arguments

#: What stands in a table's row of words, by which its arrays take one argument of a call and not ten: a mark that is
#: set when all is written, the address of another one for the kernels that are called, addresses of arrays, with their
#: sizes, and addresses of these kernels, with the key of the types that they were compiled for.
MARK, OTHER_MARK, WITHIN, LEAVES, LEAF_COUNT, STARTS, SHARE, SUMS_AT, SUMS_SIZE, MEANS, ALPHA, RHO = range(12)
PLACES_SIZE, KEY, REDUCE, COMBINE, MEAN, DECIDE, APPLY = range(12, 19)
WORDS = 19
_FLOAT64 = np.empty(0)


def is_small(t: Table) -> bool:
    """Whether no part of a table's step is worth another thread, nor needs anything from elsewhere in between."""
    launches = (t.reduce, t.apply) if t.key.kind == "elements" else (t.reduce, t.combine, t.slots, t.apply)
    return not t.key.shared and not t.mixed and all(tasks.little for tasks in launches)


def words_of(t: Table, sums: np.ndarray, between: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Return a table's row of words, and the arrays that it has addresses of; `between` are means, alpha and rho."""
    starts = np.array([tasks.starts for tasks in (t.reduce, t.combine, t.slots, t.apply)])
    words = np.zeros(WORDS, np.int64)
    within = address(words) + words.itemsize * OTHER_MARK
    words[WITHIN:KEY] = (
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


def find_kernels(t: Table, deciding: SimpleNamespace, words: np.ndarray, held: Any, args: tuple[Any, ...]) -> None:
    """Put the addresses of kernels into a row of words, compiled for such arguments of `slots` or `elements`.

    `held` is what `words_of` returned with the row; `deciding` are the kernels of the optimizer.
    """
    like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers = args
    starts, leaves, share, sums, (means, alpha, rho) = held
    tasks, arrays = (0, 0, starts[0]), (leaves, like_theta, like_g, like_m, like_moment)
    words[KEY] = 0  # nothing is called before all are found
    if t.key.kind == "elements":
        check = kinds_of(*tasks, leaves, like_g, like_moment, chi, aims)
        step = kinds_of(*tasks, 0, *arrays, like_state, vanished, chi, mu, aims, numbers)
        words[REDUCE] = address_of(reduce.check_elements, check, types.int64)
        words[APPLY] = address_of(deciding.elements, step, types.none)
    else:
        rows = t.key.kind == "rows"
        squares = kinds_of(*tasks, leaves, like_g, like_moment, chi, aims, sums)
        decide = kinds_of(*tasks, 0, leaves, like_state, means, alpha, rho, vanished, numbers)
        apply = kinds_of(*tasks, 0, False, *arrays, alpha, rho, chi, mu, aims)
        combine = reduce.combine_rows if rows else reduce.combine_columns
        words[REDUCE] = address_of(reduce.reduce_rows if rows else reduce.reduce_columns, squares, types.none)
        words[COMBINE] = address_of(combine, kinds_of(*tasks, leaves, sums, means), types.none)
        words[MEAN] = address_of(reduce.mean_slots, kinds_of(*tasks, leaves, share, means), types.int64)
        words[DECIDE] = address_of(deciding.slots, decide, types.none)
        words[APPLY] = address_of(loops.apply_rows if rows else loops.apply_columns, apply, types.none)
    words[KEY] = key_of(kinds_of(*args))


@kernel
def slots(what, words, like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
    """Step a table of rows or columns: reduce, combine, decide and apply.

    Return -1; or, with nothing written, the first leaf whose gradient is not finite, or OTHERS where `find_kernels` has
    to be called first.
    """
    if words[KEY] != key(like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
        return OTHERS
    starts, leaves = starts_of(words), leaves_of(words)
    means = numbers_at(words, MEANS, PLACES_SIZE)
    if what & READ_ONLY:
        sums, share = numbers_at(words, SUMS_AT, SUMS_SIZE), numbers_at(words, SHARE, LEAF_COUNT)
        call(words[REDUCE], 0, starts[0, -1], starts[0], leaves, like_g, like_moment, chi, aims, sums)
        call(words[COMBINE], 0, starts[1, -1], starts[1], leaves, sums, means)
        bad = ask(words[MEAN], 0, starts[2, -1], starts[2], leaves, share, means)
        if bad >= 0:
            return bad
    if what & WRITE_ONLY:
        alpha, rho = numbers_at(words, ALPHA, PLACES_SIZE), numbers_at(words, RHO, PLACES_SIZE)
        at, mark, first, last = words[APPLY], words[WITHIN], starts[2], starts[3]
        call(words[DECIDE], 0, first[-1], first, mark, leaves, like_state, means, alpha, rho, vanished, numbers)
        end = last[-1]
        call(at, 0, end, last, mark, False, leaves, like_theta, like_g, like_m, like_moment, alpha, rho, chi, mu, aims)
        words[MARK] = 1
    return -1


@kernel
def elements(what, words, like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
    """Step a table of elements likewise: look at the gradients, decide and apply."""
    if words[KEY] != key(like_theta, like_g, like_m, like_moment, like_state, vanished, chi, mu, aims, numbers):
        return OTHERS
    starts, leaves = starts_of(words), leaves_of(words)
    if what & READ_ONLY:
        bad = ask(words[REDUCE], 0, starts[0, -1], starts[0], leaves, like_g, like_moment, chi, aims)
        if bad >= 0:
            return bad
    if what & WRITE_ONLY:
        call(
            words[APPLY], 0, starts[3, -1], starts[3], words[WITHIN], leaves, like_theta, like_g, like_m, like_moment,
            like_state, vanished, chi, mu, aims, numbers,
        )  # fmt: skip
        words[MARK] = 1
    return -1
