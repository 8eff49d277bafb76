"""The CPU kernels: reduce, apply and decide over a table of leaves, and a fused kernel for element slots.

A kernel does the tasks from `first` to `last`, numbered through all leaves of its table (kernels/table.py); `starts`
has the first task of each leaf. Every task is done whole by one thread, so the number of threads changes no bit. A
kernel that writes parameters or state sets the word at the address `mark` when it has done all of them.
Arguments named `like_` are empty arrays that only say which dtype lies at an address.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels.cpu.memory import READ_OWN, set_word, view
from amos_ref.kernels.cpu.pairs import aim, cut_each, load_each, note, pair_of, square, store_each
from amos_ref.kernels.jit import inline, kernel, specialise
from amos_ref.kernels.scalar import average_into, cut, load, store
from amos_ref.kernels.table import (
    INNER,
    LEAF,
    MOMENT_0,
    MOST_STATES,
    PIECE,
    PLACES,
    SCALE,
    SLOTS,
    STATE_0,
    STRIP,
    SUMS,
    THETA,
    G,
    M,
    N,
)

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
WIDE = 1024  # columns whose float64 sums, or alpha and rho, stay in the first-level cache


@inline
def leaf_of(task, starts):
    """Return the leaf that a task belongs to."""
    return np.searchsorted(starts, task, side="right") - 1


@inline
def onward(i, task, starts):
    """Return the leaf of a task that is leaf i's or behind it."""
    while task >= starts[i + 1]:
        i += 1
    return i


# reduce


@inline
def add_squares(acc, g, moments, chi, aims):
    """acc += u^2, entry by entry. Slices, not offsets: only then does the compiler use vectors."""
    for i in range(g.size):
        acc[i] += square(g, moments, i, chi, aims)


@inline
def add_eight_squares(acc, g, chi, aims):
    """Add the squares of eight rows in order, so that sums too many for the first-level cache are read once for all."""
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
    acc = np.empty(LANES)
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        n, k = leaves[i, N], task - starts[i]
        count = max((n + CHUNK - 1) // CHUNK, 1)
        row, start = k // count * n, k % count * CHUNK
        stop = min(start + CHUNK, n)
        g = view(leaves[i, G], row + start, row + stop, like_g)
        moments = pair_of(leaves, i, MOMENT_0, row + start, row + stop, like_moment)
        width = min(g.size, LANES)
        acc[:width] = 0.0
        for left in range(0, g.size, LANES):
            add_squares(acc, g[left : left + LANES], cut_each(moments, left, left + LANES), chi, aims)
        sums[leaves[i, SUMS] + k] = halve(acc, width)


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
        acc[:width] = part[:width]
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
                acc[:] = sums[begin + start * inner : begin + start * inner + width]
                for row in range(start + 1, stop):
                    add(acc, sums[begin + row * inner : begin + row * inner + width])
            count = (count + ROWS - 1) // ROWS
        place = leaves[i, PLACES] + outer * inner + left
        totals[place : place + width] = sums[begin : begin + width]


@inline
def add(acc, x):
    for i in range(x.size):
        acc[i] += x[i]


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
        stop, wrong = min(start + CHUNK, leaves[i, N]), 0
        g, moments = view(leaves[i, G], start, stop, like_g), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
        for k in range(g.size):
            wrong += not square(g, moments, k, chi, aims) < np.inf
        if wrong:
            return leaves[i, LEAF]
    return -1


# apply


@inline
def aim_into(g, moments, i, chi, aims):
    """Return along what entry i moves; ``moments`` are written."""
    aimed = aim(g, moments, i, chi, aims)
    store_each(moments, i, aimed)
    return aimed[0]


@inline
def step_entry(i, theta, u, m, alpha, rho, mu):
    """Return the new ``theta[i]``, not yet rounded; ``m[i]`` is written."""
    x = load(theta, i)
    return x + average_into(m, i, spec.change(alpha, u, rho, x), mu)


@inline
def move(theta, g, m, moments, alpha, rho, chi, mu, aims):
    """Entry by entry; alpha and rho are numbers, or arrays with an entry each. m may be None."""
    for i in range(theta.size):
        u = aim_into(g, moments, i, chi, aims)
        store(theta, i, step_entry(i, theta, u, m, load(alpha, i), load(rho, i), mu))


@inline
def move_four(theta, g, m, alpha, rho, chi, mu, aims):
    """Four rows, so that alpha and rho too many for the first-level cache are read once for four."""
    n = alpha.size
    t0, t1, t2, t3 = theta[:n], theta[n : 2 * n], theta[2 * n : 3 * n], theta[3 * n :]
    g0, g1, g2, g3 = g[:n], g[n : 2 * n], g[2 * n : 3 * n], g[3 * n :]
    m0, m1, m2, m3 = cut(m, 0, n), cut(m, n, 2 * n), cut(m, 2 * n, 3 * n), cut(m, 3 * n, 4 * n)
    for i in range(n):
        a, r = alpha[i], rho[i]
        u0, u1 = aim_into(g0, (), i, chi, aims), aim_into(g1, (), i, chi, aims)
        u2, u3 = aim_into(g2, (), i, chi, aims), aim_into(g3, (), i, chi, aims)
        x0, x1 = step_entry(i, t0, u0, m0, a, r, mu), step_entry(i, t1, u1, m1, a, r, mu)
        x2, x3 = step_entry(i, t2, u2, m2, a, r, mu), step_entry(i, t3, u3, m3, a, r, mu)
        store(t0, i, x0)
        store(t1, i, x1)
        store(t2, i, x2)
        store(t3, i, x3)


@kernel
def apply_rows(first, last, starts, mark, leaves, like_theta, like_g, like_m, like_moment, alpha, rho, chi, mu, aims):
    """Rows of n elements, one alpha and rho a row; a task is one piece of a row."""
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        n, k = leaves[i, N], task - starts[i]
        pieces = (n + PIECE - 1) // PIECE
        row, start = k // pieces, k % pieces * PIECE
        start, stop = row * n + start, row * n + min(start + PIECE, n)
        theta, g = view(leaves[i, THETA], start, stop, like_theta), view(leaves[i, G], start, stop, like_g)
        m, moments = view(leaves[i, M], start, stop, like_m), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
        place = leaves[i, PLACES] + row
        move(theta, g, m, moments, alpha[place], rho[place], chi, mu, aims)
    set_word(mark, 1)


@kernel
def apply_columns(
    first, last, starts, mark, leaves, like_theta, like_g, like_m, like_moment, alpha, rho, chi, mu, aims
):
    """n rows for each outer index, one alpha and rho a column; a task is 64 rows."""
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        n, inner, k = leaves[i, N], leaves[i, INNER], task - starts[i]
        groups = (n + ROWS - 1) // ROWS
        outer, top = k // groups, k % groups * ROWS
        place = leaves[i, PLACES] + outer * inner
        alphas, rhos = alpha[place : place + inner], rho[place : place + inner]
        row, stop = outer * n + top, outer * n + min(top + ROWS, n)
        while row < stop:
            rows = 4 if like_moment is None and row + 4 <= stop and inner > WIDE else 1
            start, end = row * inner, (row + rows) * inner
            theta, g = view(leaves[i, THETA], start, end, like_theta), view(leaves[i, G], start, end, like_g)
            m, moments = view(leaves[i, M], start, end, like_m), pair_of(leaves, i, MOMENT_0, start, end, like_moment)
            if rows == 4:
                move_together(theta, g, m, moments, alphas, rhos, chi, mu, aims)
            else:
                move(theta, g, m, moments, alphas, rhos, chi, mu, aims)
            row += rows
    set_word(mark, 1)


# With moments rows are taken one by one, and the following are never called.


def add_eight(acc, g, moments, chi, aims):
    add_eight_squares(acc, g, chi, aims)


def move_together(theta, g, m, moments, alpha, rho, chi, mu, aims):
    move_four(theta, g, m, alpha, rho, chi, mu, aims)


@specialise(add_eight)
def _add_eight(acc, g, moments, chi, aims):
    if len(moments) > 0:
        return lambda acc, g, moments, chi, aims: None
    return lambda acc, g, moments, chi, aims: add_eight_squares(acc, g, chi, aims)


@specialise(move_together)
def _move_together(theta, g, m, moments, alpha, rho, chi, mu, aims):
    if len(moments) > 0:
        return lambda theta, g, m, moments, alpha, rho, chi, mu, aims: None
    return lambda theta, g, m, moments, alpha, rho, chi, mu, aims: move_four(theta, g, m, alpha, rho, chi, mu, aims)


# decide


@functools.cache
def deciding(decide: Callable[..., Any], states: int, own: int) -> SimpleNamespace:
    """Return the kernels that decide, compiled for the *decide* of a member of the family (kernels.Method).

    `slots` fills alpha and rho of each slot and writes the state; `elements` decides and applies.
    """
    if states not in (0, MOST_STATES):
        raise AssertionError(f"kernels know members with 0 or {MOST_STATES} arrays of state, not {states}")
    inline(decide)
    read = inline(READ_OWN[own])

    @kernel
    def slots(first, last, starts, mark, leaves, like_state, means, alpha, rho, vanished, numbers):
        """Decide for each slot: mean -> state, alpha, rho; a task is one slot."""
        i = leaf_of(first, starts)
        while first < last:
            stop = min(starts[i + 1], last)
            begin, base, mine = first - starts[i], leaves[i, SLOTS], read(leaves[i, SCALE])
            state = pair_of(leaves, i, STATE_0, begin, stop - starts[i], like_state)
            mean = means[base + begin : base + stop - starts[i]]
            alphas, rhos = alpha[base + begin : base + stop - starts[i]], rho[base + begin : base + stop - starts[i]]
            for s in range(mean.size):
                decided = decide(*((mean[s],) + load_each(state, s) + mine + numbers))  # noqa: RUF005
                alphas[s], rhos[s] = decided[0], decided[1]
                store_each(state, s, decided)
            note(vanished, i, state, mean)
            first, i = stop, i + 1
        set_word(mark, 1)

    @kernel
    def elements(
        first,
        last,
        starts,
        mark,
        leaves,
        like_theta,
        like_g,
        like_m,
        like_moment,
        like_state,
        vanished,
        chi,
        mu,
        aims,
        numbers,
    ):
        """Element slots: decide and apply in one loop, so that the divider never waits; a task is one chunk."""
        i = leaf_of(first, starts)
        for task in range(first, last):
            i = onward(i, task, starts)
            start = (task - starts[i]) * CHUNK
            stop, mine = min(start + CHUNK, leaves[i, N]), read(leaves[i, SCALE])
            theta, g = view(leaves[i, THETA], start, stop, like_theta), view(leaves[i, G], start, stop, like_g)
            m, moments = view(leaves[i, M], start, stop, like_m), pair_of(leaves, i, MOMENT_0, start, stop, like_moment)
            state = pair_of(leaves, i, STATE_0, start, stop, like_state)
            for k in range(theta.size):
                u = aim_into(g, moments, k, chi, aims)
                decided = decide(*((u * u,) + load_each(state, k) + mine + numbers))  # noqa: RUF005
                store_each(state, k, decided)
                store(theta, k, step_entry(k, theta, u, m, decided[0], decided[1], mu))
            note(vanished, i, state, g)
        set_word(mark, 1)

    return SimpleNamespace(slots=slots, elements=elements)
