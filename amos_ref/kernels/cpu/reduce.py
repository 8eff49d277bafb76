"""The CPU kernels that reduce: sums of squares over a table of leaves, in the page's order, and their means.

How they are called is said in loops.py.
"""

import numpy as np

from amos_ref import spec
from amos_ref.kernels.cpu.memory import aligned, view
from amos_ref.kernels.cpu.pairs import cut_each, is_finite, pair_of, square
from amos_ref.kernels.cpu.tasks import leaf_of, onward, part_of
from amos_ref.kernels.jit import inline, kernel, merge, specialise
from amos_ref.kernels.table import INNER, LEAF, MOMENT_0, PLACES, SLOTS, STRIP, SUMS, G, N

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
WIDE = 1024  # columns whose float64 sums stay in the first-level cache


@merge
def add_squares(acc, g, moments, chi, aims):
    """acc += u^2, entry by entry. Slices, not offsets: only then does the compiler use vectors."""
    for i in range(g.size):
        acc[i] += square(g, moments, i, chi, aims)


@merge
def add_lanes(acc, g, moments, begin, chi, aims):
    """Add squares to 128 lanes, from an element on that is the first of them."""
    for left in range(begin, g.size, LANES):
        add_squares(acc, g[left : left + LANES], cut_each(moments, left, left + LANES), chi, aims)


@merge
def add_eight_squares(acc, g, chi, aims):
    """Add the squares of eight rows in order, so that their sums are read and written once for all."""
    n = acc.size
    g0, g1, g2, g3 = g[:n], g[n : 2 * n], g[2 * n : 3 * n], g[3 * n : 4 * n]
    g4, g5, g6, g7 = g[4 * n : 5 * n], g[5 * n : 6 * n], g[6 * n : 7 * n], g[7 * n :]
    for i in range(n):
        total = acc[i] + square(g0, (), i, chi, aims) + square(g1, (), i, chi, aims)
        total = total + square(g2, (), i, chi, aims) + square(g3, (), i, chi, aims)
        total = total + square(g4, (), i, chi, aims) + square(g5, (), i, chi, aims)
        acc[i] = total + square(g6, (), i, chi, aims) + square(g7, (), i, chi, aims)


@inline
def halve(acc, width):
    """Combine lanes by halving."""
    half = LANES // 2
    while half > 0:
        for lane in range(min(half, width - half)):
            acc[lane] += acc[lane + half]
        width = min(width, half)
        half //= 2
    return acc[0] if width > 0 else 0.0


@kernel
def reduce_rows(first, last, starts, leaves, like_g, like_moment, chi, aims, sums):
    """Sum u*u over a chunk of a row, a task: 128 lanes in order, combined by halving (spec.lanes)."""
    acc = aligned(LANES)
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        _, start, stop = part_of(task, last, i, starts, leaves, CHUNK)
        g, moments = view(leaves[i, G], start, stop, like_g), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
        acc[:] = 0.0
        add_lanes(acc, g, moments, 0, chi, aims)
        sums[leaves[i, SUMS] + task - starts[i]] = halve(acc, min(g.size, LANES))


@kernel
def reduce_far_rows(first, last, starts, leaves, like_g, like_moment, chi, aims, sums):
    """The same from memory: two chunks by turns, for the processor fetches two streams faster than one."""
    acc, acc_far, half = aligned(LANES), aligned(LANES), (last - first + 1) // 2
    i, i_far = leaf_of(first, starts), leaf_of(min(first + half, last - 1), starts)
    for task in range(first, first + half):
        i, i_far = onward(i, task, starts), onward(i_far, min(task + half, last - 1), starts)
        _, start, stop = part_of(task, last, i, starts, leaves, CHUNK)
        g, moments = view(leaves[i, G], start, stop, like_g), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
        _, start, stop = part_of(task + half, last, i_far, starts, leaves, CHUNK)
        g_far = view(leaves[i_far, G], start, stop, like_g)
        moments_far = pair_of(leaves, i_far, MOMENT_0, start, stop, like_moment)
        acc[:], acc_far[:] = 0.0, 0.0
        both = min(g.size, g_far.size) // LANES * LANES
        for left in range(0, both, LANES):
            right = left + LANES
            add_squares(acc, g[left:right], cut_each(moments, left, right), chi, aims)
            add_squares(acc_far, g_far[left:right], cut_each(moments_far, left, right), chi, aims)
        add_lanes(acc, g, moments, both, chi, aims)
        add_lanes(acc_far, g_far, moments_far, both, chi, aims)
        sums[leaves[i, SUMS] + task - starts[i]] = halve(acc, min(g.size, LANES))
        if task + half < last:
            sums[leaves[i_far, SUMS] + task + half - starts[i_far]] = halve(acc_far, min(g_far.size, LANES))


@kernel
def combine_rows(first, last, starts, leaves, sums, totals):
    """Sum the chunks of each row, as one chunk of any length; a task is one row."""
    acc = np.empty(LANES)
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        row = task - starts[i]
        count = max((leaves[i, N] + CHUNK - 1) // CHUNK, 1)
        start = leaves[i, SUMS] + row * count
        part = sums[start : start + count]
        width = min(count, LANES)
        copy(acc, part[:width])
        for k in range(width, count):
            acc[k % LANES] += part[k]
        totals[leaves[i, PLACES] + row] = halve(acc, width)


@kernel
def reduce_columns(first, last, starts, leaves, like_g, like_moment, chi, aims, sums):
    """Sum u*u over 64 rows at a time, column by column; a task is one (outer, 64 rows)."""
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        n, inner, k = leaves[i, N], leaves[i, INNER], task - starts[i]
        groups = max((n + ROWS - 1) // ROWS, 1)
        outer, top = k // groups, k % groups * ROWS
        row, stop = outer * n + top, outer * n + min(top + ROWS, n)
        acc = sums[leaves[i, SUMS] + k * inner : leaves[i, SUMS] + (k + 1) * inner]
        acc[:] = 0.0
        while row < stop:
            rows = 8 if like_moment is None and row + 8 <= stop and inner > WIDE else 1
            start, end = row * inner, (row + rows) * inner
            g, moments = view(leaves[i, G], start, end, like_g), pair_of(leaves, i, MOMENT_0, start, end, like_moment)
            if rows == 8:
                add_eight(acc, g, moments, chi, aims)
            else:
                add_squares(acc, g, moments, chi, aims)
            row += rows


@kernel
def combine_columns(first, last, starts, leaves, sums, totals):
    """Sum those sums 64 at a time, and theirs likewise (spec.sum_rows), in place; a task is one strip of columns."""
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        inner, k = leaves[i, INNER], task - starts[i]
        strips = (inner + STRIP - 1) // STRIP
        count = max((leaves[i, N] + ROWS - 1) // ROWS, 1)
        outer, left = k // strips, k % strips * STRIP
        width = min(STRIP, inner - left)
        begin = leaves[i, SUMS] + outer * count * inner + left
        while count > 1:
            for group in range((count + ROWS - 1) // ROWS):
                acc = sums[begin + group * inner : begin + group * inner + width]
                start, stop = group * ROWS, min(group * ROWS + ROWS, count)
                copy(acc, sums[begin + start * inner : begin + start * inner + width])
                for row in range(start + 1, stop):
                    add(acc, sums[begin + row * inner : begin + row * inner + width])
            count = (count + ROWS - 1) // ROWS
        place = leaves[i, PLACES] + outer * inner + left
        copy(totals[place : place + width], sums[begin : begin + width])


@merge
def add(acc, x):
    for i in range(x.size):
        acc[i] += x[i]


@merge
def copy(acc, x):
    """Set acc to x: ``acc[:] = x`` takes a second and a half to compile, for Numba writes an error's text for it."""
    for i in range(x.size):
        acc[i] = x[i]


@kernel
def mean_slots(first, last, starts, leaves, share, totals):
    """totals /= share; return the leaf of the first mean that is not finite, or -1. A task is one slot."""
    bad, i = -1, leaf_of(first, starts)
    while first < last:
        stop = min(starts[i + 1], last)
        begin = leaves[i, SLOTS] - starts[i]
        part, count = totals[begin + first : begin + stop], share[i]
        wrong = 0
        for k in range(part.size):
            part[k] = part[k] / count
            wrong += not part[k] < np.inf
        if wrong and bad < 0:
            bad = leaves[i, LEAF]
        first, i = stop, i + 1
    return bad


@kernel
def check_elements(first, last, starts, leaves, like_g, like_moment, chi, aims):
    """Return the first leaf with a square that is not finite, or -1; a task is one chunk."""
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        start = (task - starts[i]) * CHUNK
        stop, unseen, wrong = min(start + CHUNK, leaves[i, N]), 0, 0
        g, moments = view(leaves[i, G], start, stop, like_g), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
        for k in range(g.size):
            unseen += not is_finite(g, moments, k, chi, aims)
        if unseen:
            for k in range(g.size):
                wrong += not square(g, moments, k, chi, aims) < np.inf
        if wrong:
            return leaves[i, LEAF]
    return -1


# With moments rows are taken one by one, and this is never called.


def add_eight(acc, g, moments, chi, aims):
    add_eight_squares(acc, g, chi, aims)


@specialise(add_eight)
def _add_eight(acc, g, moments, chi, aims):
    if len(moments) > 0:
        return lambda acc, g, moments, chi, aims: None
    return lambda acc, g, moments, chi, aims: add_eight_squares(acc, g, chi, aims)
