"""The CUDA kernels that apply: they write parameters, momentum and moments, and for element slots the state too."""

import functools
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref.kernels import Method
from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.directions import aiming
from amos_ref.kernels.cuda.memory import WORD, device
from amos_ref.kernels.cuda.reduce import FEW_LANES, LANES, MOST_LANES, has_moments, lanes_each, line, size_of
from amos_ref.kernels.cuda.scalar import add, add_square, average, change
from amos_ref.kernels.cuda.slots import (
    CHI,
    MU,
    NONE,
    ceiling,
    crowded,
    decision,
    field,
    integer,
    kernel,
    leaf_near,
    leaf_of,
    real,
)
from amos_ref.kernels.table import INNER, MOMENT_0, MOMENT_1, PLACES, STATE_0, STATE_1, THETA, G, M, N

cuda: Any = importlib.import_module("numba.cuda")  # typed as Any: its stubs know no kernels

TASK_ROWS = 16  # of a task, in columns


@device
def line_of(k, n, inner):
    """Return (place, first row, left) of a task of columns: 128 of them, 16 rows."""
    strips, tops = ceiling(inner, LANES), ceiling(n, TASK_ROWS)
    outer, top, left = k // strips // tops, k // strips % tops * TASK_ROWS, k % strips * LANES
    return outer, top, left


@device
def addresses(leaves, i, begin, size, size_g, size_s):
    """Return where element `begin` of theta, g, momentum and both moments lies."""
    at, at_g, at_m = field(leaves, i, THETA), field(leaves, i, G), field(leaves, i, M)
    first, second = field(leaves, i, MOMENT_0), field(leaves, i, MOMENT_1)
    return at + begin * size, at_g + begin * size_g, at_m + begin * size_s, first + begin * 8, second + begin * 8


@device
def onward(at, x, size, size_g, size_s):
    """Return where the elements lie that are x further."""
    return at[0] + x * size, at[1] + x * size_g, at[2] + x * size_s, at[3] + x * 8, at[4] + x * 8


def move_width(theta: str, g: str, state: str, averages: bool, direction: Any, kind: str) -> int:
    """Return of how many neighbours a thread has charge in rows, or columns."""
    most = FEW_LANES if has_moments(direction) and kind == "columns" else MOST_LANES
    return lanes_each(theta, g, *([state] if averages else []), most=most)


def step_width(method: Method, theta: str, g: str, state: str, averages: bool) -> int:
    """Return it for element slots: with momentum four neighbours would take the registers of two, and more than there
    are where moments meet numbers of a leaf's own.
    """
    held, few = [state] if method.states or averages else [], averages or (method.own and has_moments(method.direction))
    return lanes_each(theta, g, *held, most=FEW_LANES if few else MOST_LANES)


@functools.cache
def applying(theta: str, g: str, state: str, averages: bool, width: int, direction: Any = None) -> Any:
    """Return the kernels that write parameters for dtypes of theta, g and momentum, and a direction."""
    aimed = aiming(direction, g)
    aim, numbers_of, moments = aimed.aim, aimed.numbers, aimed.moments
    threads = LANES // width
    load, store = line(theta, width)
    load_g, _ = line(g, width)
    load_m, store_m = line(state, width)
    load_moment, store_moment = line("float64", width)
    size, size_g, size_m = size_of(theta), size_of(g), size_of(state)
    read, write, read_m, write_m = scalar.reads(theta), scalar.writes(theta), scalar.reads(state), scalar.writes(state)
    shape, shape_g, shape_m = (np.dtype(name).type for name in (theta, g, state))
    held = width if moments else 1
    by_two = not averages and not moments  # columns, two rows at a time
    lines = 2 * width if by_two else width

    @device
    def load_all(at, count, t, wide, whole, mine, first):
        load(at[0], count, t, wide, whole, mine[0], first)
        load_g(at[1], count, t, wide, whole, mine[1], first)
        if averages:
            load_m(at[2], count, t, wide, whole, mine[2], first)
        if moments:
            load_moment(at[3], count, t, wide, whole, mine[3], first)
            load_moment(at[4], count, t, wide, whole, mine[4], first)

    @device
    def change_all(mine, first, alpha, rho, chi, mu, numbers):
        """Compute what a thread has of a line; alpha and rho have an entry for each of its elements."""
        local, local_g, local_m, moment, other = mine
        for j in range(width):
            k = first + j
            x = read(local[k])
            _, u, new_moment, new_other = aim(k, local_g, moment, other, chi, numbers)
            delta = change(alpha[j], u, rho[j], x)
            if averages:
                delta = average(read_m(local_m[k]), delta, mu)
                local_m[k] = write_m(delta)
            if moments:
                moment[k], other[k] = new_moment, new_other
            local[k] = write(add(x, delta))

    @device
    def store_all(at, count, t, wide, whole, mine, first):
        store(at[0], count, t, wide, whole, mine[0], first)
        if averages:
            store_m(at[2], count, t, wide, whole, mine[2], first)
        if moments:
            store_moment(at[3], count, t, wide, whole, mine[3], first)
            store_moment(at[4], count, t, wide, whole, mine[4], first)

    @device
    def move(at, count, t, wide, mine, alpha, rho, chi, mu, numbers):
        """Apply to one line of all arrays."""
        whole = wide and t * width + width <= count
        if whole:
            load_all(at, count, t, wide, True, mine, 0)
        else:
            load_all(at, count, t, wide, False, mine, 0)
        change_all(mine, 0, alpha, rho, chi, mu, numbers)
        store_all(at, count, t, wide, whole, mine, 0)

    @device
    def move_two(at, other, count, t, wide, mine, alpha, rho, chi, mu, numbers):
        """Apply to two lines, whose loads are under way together."""
        whole = wide and t * width + width <= count
        if whole:
            load_all(at, count, t, wide, True, mine, 0)
            load_all(other, count, t, wide, True, mine, width)
        else:
            load_all(at, count, t, wide, False, mine, 0)
            load_all(other, count, t, wide, False, mine, width)
        for first in range(0, 2 * width, width):
            change_all(mine, first, alpha, rho, chi, mu, numbers)
        store_all(at, count, t, wide, whole, mine, 0)
        store_all(other, count, t, wide, whole, mine, width)

    @device
    def aligned(at):
        found = at[0] % WORD == 0 and at[1] % WORD == 0 and (not averages or at[2] % WORD == 0)
        return found and (not moments or (at[3] | at[4]) % WORD == 0)

    @kernel
    def rows(starts, members, leaves, piece, rates, alpha, rho, flag):
        """One alpha and rho a row; a task is a piece of a row. Backwards: the end of g was read last."""
        if integer(flag, 0) != NONE:
            return
        local_m, numbers = cuda.local.array(width, shape_m), numbers_of(rates)
        first, second = cuda.local.array(held, np.float64), cuda.local.array(held, np.float64)
        mine = cuda.local.array(width, shape), cuda.local.array(width, shape_g), local_m, first, second
        alphas, rhos = cuda.local.array(width, np.float64), cuda.local.array(width, np.float64)
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_near(task, starts, members)
            n, k = field(leaves, i, N), task - integer(starts, i)
            pieces = ceiling(n, piece)
            row, start = k // pieces, k % pieces * piece
            begin, count, place = row * n + start, min(piece, n - start), field(leaves, i, PLACES) + row
            for j in range(width):
                alphas[j], rhos[j] = real(alpha, place), real(rho, place)
            at = addresses(leaves, i, begin, size, size_g, size_m)
            wide = aligned(at)
            for x in range(0, count, LANES):
                here = onward(at, x, size, size_g, size_m)
                move(here, count - x, t, wide, mine, alphas, rhos, chi, mu, numbers)

    @(crowded(2) if by_two else kernel)
    def columns(starts, members, leaves, rates, alpha, rho, flag):
        """One alpha and rho a column; a task is 128 columns of 16 rows."""
        if integer(flag, 0) != NONE:
            return
        local_m, numbers = cuda.local.array(width, shape_m), numbers_of(rates)
        first, second = cuda.local.array(held, np.float64), cuda.local.array(held, np.float64)
        mine = cuda.local.array(lines, shape), cuda.local.array(lines, shape_g), local_m, first, second
        alphas, rhos = cuda.local.array(width, np.float64), cuda.local.array(width, np.float64)
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_of(task, starts, members)
            n, inner = field(leaves, i, N), field(leaves, i, INNER)
            outer, top, left = line_of(task - integer(starts, i), n, inner)
            begin, count = (outer * n + top) * inner + left, min(LANES, inner - left)
            at = addresses(leaves, i, begin, size, size_g, size_m)
            wide = inner % width == 0 and aligned(at)
            place = field(leaves, i, PLACES) + outer * inner + left
            for j in range(width):
                lane = min(t * width + j if wide else j * threads + t, count - 1)
                alphas[j], rhos[j] = real(alpha, place + lane), real(rho, place + lane)
            if by_two:
                row, stop = 0, min(TASK_ROWS, n - top)
                while row + 2 <= stop:
                    here = onward(at, row * inner, size, size_g, size_m)
                    there = onward(here, inner, size, size_g, size_m)
                    move_two(here, there, count, t, wide, mine, alphas, rhos, chi, mu, numbers)
                    row += 2
                if row < stop:
                    here = onward(at, row * inner, size, size_g, size_m)
                    move(here, count, t, wide, mine, alphas, rhos, chi, mu, numbers)
            else:
                for row in range(min(TASK_ROWS, n - top)):
                    here = onward(at, row * inner, size, size_g, size_m)
                    move(here, count, t, wide, mine, alphas, rhos, chi, mu, numbers)

    return SimpleNamespace(rows=rows, columns=columns)


@functools.cache
def stepping(method: Any, theta: str, g: str, state: str, averages: bool) -> Any:
    """Return the kernel that decides and applies for element slots of a member of the family."""
    (decide, own_of, decided_by), states, aimed = (
        decision(method),
        method.states,
        aiming(method.direction, g, scalar.clip_at_once),
    )
    aim, aimed_by, moments = aimed.aim, aimed.numbers, aimed.moments
    width = step_width(method, theta, g, state, averages)
    threads = LANES // width
    load, store = line(theta, width)
    load_g, _ = line(g, width)
    load_s, store_s = line(state, width)
    load_moment, store_moment = line("float64", width)
    size, size_g, size_s = size_of(theta), size_of(g), size_of(state)
    read, write, read_s, write_s = scalar.reads(theta), scalar.writes(theta), scalar.reads(state), scalar.writes(state)
    shape, shape_g, shape_s = (np.dtype(name).type for name in (theta, g, state))
    held_s, held = width if states else 1, width if moments else 1

    @device
    def load_all(at, state_at, count, t, wide, whole, mine, mine_s):
        load(at[0], count, t, wide, whole, mine[0], 0)
        load_g(at[1], count, t, wide, whole, mine[1], 0)
        if states:
            load_s(state_at[0], count, t, wide, whole, mine_s[0], 0)
            load_s(state_at[1], count, t, wide, whole, mine_s[1], 0)
        if averages:
            load_s(at[2], count, t, wide, whole, mine[2], 0)
        if moments:
            load_moment(at[3], count, t, wide, whole, mine[3], 0)
            load_moment(at[4], count, t, wide, whole, mine[4], 0)

    @device
    def store_all(at, state_at, count, t, wide, whole, mine, mine_s):
        store(at[0], count, t, wide, whole, mine[0], 0)
        if states:
            store_s(state_at[0], count, t, wide, whole, mine_s[0], 0)
            store_s(state_at[1], count, t, wide, whole, mine_s[1], 0)
        if averages:
            store_s(at[2], count, t, wide, whole, mine[2], 0)
        if moments:
            store_moment(at[3], count, t, wide, whole, mine[3], 0)
            store_moment(at[4], count, t, wide, whole, mine[4], 0)

    @device
    def step(k, mine, mine_s, own, chi, mu, numbers, aims):
        """Decide for entry k, and apply."""
        local, local_g, local_m, first, second = mine
        local_v, local_b = mine_s
        p = read(local[k])
        _, u, new_first, new_second = aim(k, local_g, first, second, chi, aims)
        old_v, old_b = 0.0, 0.0
        if states:
            old_v, old_b = read_s(local_v[k]), read_s(local_b[k])
        alpha, rho, v, b = decide(add_square(0.0, u), old_v, old_b, own, numbers)
        delta = change(alpha, u, rho, p)
        if averages:
            delta = average(read_s(local_m[k]), delta, mu)
            local_m[k] = write_s(delta)
        if moments:
            first[k], second[k] = new_first, new_second
        local[k] = write(add(p, delta))
        if states:
            local_v[k], local_b[k] = write_s(v), write_s(b)

    @(crowded(2, since=9 if theta == g == "int16" else 0))
    def elements(starts, members, leaves, piece, rates, flag):
        """A task is a piece of neighbours."""
        if integer(flag, 0) != NONE:
            return
        local_m, first, second = (
            cuda.local.array(width, shape_s),
            cuda.local.array(held, np.float64),
            cuda.local.array(held, np.float64),
        )
        mine = cuda.local.array(width, shape), cuda.local.array(width, shape_g), local_m, first, second
        mine_s = cuda.local.array(held_s, shape_s), cuda.local.array(held_s, shape_s)
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        numbers, aims = decided_by(rates), aimed_by(rates)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_of(task, starts, members)
            n, start = field(leaves, i, N), (task - integer(starts, i)) * piece
            at, own = addresses(leaves, i, 0, size, size_g, size_s), own_of(leaves, i)
            at_v, at_b = field(leaves, i, STATE_0), field(leaves, i, STATE_1)
            wide = (at[0] | at[1] | at[2] | at[3] | at[4] | at_v | at_b) % WORD == 0
            for x in range(start, min(start + piece, n), LANES):
                here, there = onward(at, x, size, size_g, size_s), (at_v + x * size_s, at_b + x * size_s)
                whole = wide and t * width + width <= n - x
                if whole:
                    load_all(here, there, n - x, t, wide, True, mine, mine_s)
                else:
                    load_all(here, there, n - x, t, wide, False, mine, mine_s)
                for k in range(width):
                    step(k, mine, mine_s, own, chi, mu, numbers, aims)
                if whole:
                    store_all(here, there, n - x, t, wide, True, mine, mine_s)
                else:
                    store_all(here, there, n - x, t, wide, False, mine, mine_s)

    return elements
