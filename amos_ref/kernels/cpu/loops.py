"""The CPU kernels: apply and decide over a table of leaves, and a fused kernel for element slots.

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
from amos_ref.kernels import Method
from amos_ref.kernels.cpu.memory import READ_OWN, set_word, view
from amos_ref.kernels.cpu.pairs import aim, load_each, note, pair_of, store_each
from amos_ref.kernels.cpu.tasks import leaf_of, onward, part_of
from amos_ref.kernels.jit import inline, kernel, merge, specialise
from amos_ref.kernels.scalar import average_into, cut, load, store
from amos_ref.kernels.table import (
    INNER,
    MOMENT_0,
    MOST_STATES,
    PIECE,
    PLACES,
    SCALE,
    SLOTS,
    STATE_0,
    THETA,
    G,
    M,
    N,
)

CHUNK, ROWS = spec.CHUNK, spec.ROWS
TURN = 512  # elements of a row before it is another's turn
WIDE = 1024  # columns whose alpha and rho stay in the first-level cache


# apply


@merge
def aim_into(g, moments, i, chi, aims):
    """Return along what entry i moves; ``moments`` are written."""
    aimed = aim(g, moments, i, chi, aims)
    store_each(moments, i, aimed)
    return aimed[0]


@merge
def step_entry(i, theta, u, m, alpha, rho, mu):
    """Return the new ``theta[i]``, not yet rounded; ``m[i]`` is written."""
    x = load(theta, i)
    return x + average_into(m, i, spec.change(alpha, u, rho, x), mu)


@merge
def move(theta, g, m, moments, alpha, rho, chi, mu, aims):
    """Entry by entry; alpha and rho are numbers, or arrays with an entry each. m may be None."""
    for i in range(theta.size):
        u = aim_into(g, moments, i, chi, aims)
        store(theta, i, step_entry(i, theta, u, m, load(alpha, i), load(rho, i), mu))


@merge
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
def apply_rows(
    first, last, starts, mark, far, leaves, like_theta, like_g, like_m, like_moment, alpha, rho, chi, mu, aims
):
    """Rows of n elements, one alpha and rho a row; a task is one piece of a row. `far`: two parts by turns."""
    half = (last - first + 1) // 2 if far else last - first
    i, i_far = leaf_of(first, starts), leaf_of(min(first + half, last - 1), starts)
    for task in range(first, first + half):
        i, i_far = onward(i, task, starts), onward(i_far, min(task + half, last - 1), starts)
        row, start, stop = part_of(task, last, i, starts, leaves, PIECE)
        row_far, start_far, stop_far = part_of(task + half, last, i_far, starts, leaves, PIECE)
        place, place_far = leaves[i, PLACES] + row, leaves[i_far, PLACES] + row_far
        turn = TURN if start_far < stop_far else PIECE
        for left in range(0, max(stop - start, stop_far - start_far), turn):
            for second in range(2):
                k, here = (i_far, place_far) if second else (i, place)
                end = stop_far if second else stop
                begin = min((start_far if second else start) + left, end)
                end = min(begin + turn, end)
                if begin == end:
                    continue
                theta, g = view(leaves[k, THETA], begin, end, like_theta), view(leaves[k, G], begin, end, like_g)
                m, moments = (
                    view(leaves[k, M], begin, end, like_m),
                    pair_of(leaves, k, MOMENT_0, begin, end, like_moment),
                )
                move(theta, g, m, moments, alpha[here], rho[here], chi, mu, aims)
    set_word(mark, 1)


@inline
def is_even(a):
    """Whether all entries are the same, to the last bit."""
    bits, others = a.view(np.int64), 0
    for i in range(bits.size):
        others += bits[i] != bits[0]
    return others == 0


@kernel
def apply_columns(
    first, last, starts, mark, far, leaves, like_theta, like_g, like_m, like_moment, alpha, rho, chi, mu, aims
):
    """n rows for each outer index, one alpha and rho a column; a task is 64 rows. `far` is for rows alone.

    With moments, a rho that is the same for all of many columns is not read for each.
    """
    i = leaf_of(first, starts)
    for task in range(first, last):
        i = onward(i, task, starts)
        n, inner, k = leaves[i, N], leaves[i, INNER], task - starts[i]
        groups = (n + ROWS - 1) // ROWS
        outer, top = k // groups, k % groups * ROWS
        place = leaves[i, PLACES] + outer * inner
        alphas, rhos = alpha[place : place + inner], rho[place : place + inner]
        row, stop = outer * n + top, outer * n + min(top + ROWS, n)
        even = like_moment is not None and inner > WIDE and is_even(rhos)
        while row < stop:
            rows = 4 if like_moment is None and row + 4 <= stop and inner > WIDE else 1
            start, end = row * inner, (row + rows) * inner
            theta, g = view(leaves[i, THETA], start, end, like_theta), view(leaves[i, G], start, end, like_g)
            m, moments = view(leaves[i, M], start, end, like_m), pair_of(leaves, i, MOMENT_0, start, end, like_moment)
            if rows == 4:
                move_together(theta, g, m, moments, alphas, rhos, chi, mu, aims)
            elif even:
                move(theta, g, m, moments, alphas, rhos[0], chi, mu, aims)
            else:
                move(theta, g, m, moments, alphas, rhos, chi, mu, aims)
            row += rows
    set_word(mark, 1)


# With moments rows are taken one by one, and this is never called.


def move_together(theta, g, m, moments, alpha, rho, chi, mu, aims):
    move_four(theta, g, m, alpha, rho, chi, mu, aims)


@specialise(move_together)
def _move_together(theta, g, m, moments, alpha, rho, chi, mu, aims):
    if len(moments) > 0:
        return lambda theta, g, m, moments, alpha, rho, chi, mu, aims: None
    return lambda theta, g, m, moments, alpha, rho, chi, mu, aims: move_four(theta, g, m, alpha, rho, chi, mu, aims)


# decide


def deciding(method: Method) -> SimpleNamespace:
    """Return the kernels that decide, compiled for a member of the family.

    `slots` fills alpha and rho of each slot and writes the state; `elements` decides and applies.
    """
    return _deciding(method.decide, method.states, method.own, method.decide_one)


@functools.cache
def _deciding(
    decide: Callable[..., Any], states: int, own: int, decide_one: Callable[..., Any] | None
) -> SimpleNamespace:
    if states not in (0, MOST_STATES):
        raise AssertionError(f"kernels know members with 0 or {MOST_STATES} arrays of state, not {states}")
    inline(decide)
    one = inline(decide_one or (lambda u, *others: decide(u * u, *others)))
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
                decided = one(*((u,) + load_each(state, k) + mine + numbers))  # noqa: RUF005
                store_each(state, k, decided)
                store(theta, k, step_entry(k, theta, u, m, decided[0], decided[1], mu))
            note(vanished, i, state, g)
        set_word(mark, 1)

    return SimpleNamespace(slots=slots, elements=elements)
