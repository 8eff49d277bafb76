"""The CUDA kernels that apply: they write parameters and momentum, and for element slots the state too."""

import functools
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.memory import WORD, device, getter
from amos_ref.kernels.cuda.reduce import LANES, lanes_each, line, size_of
from amos_ref.kernels.cuda.slots import CHI, MU, NONE, NUMBERS, ceiling, crowded, field, integer, kernel, leaf_of, real
from amos_ref.kernels.table import INNER, PLACES, STATE_0, STATE_1, THETA, G, M, N

cuda: Any = importlib.import_module("numba.cuda")  # typed as Any: its stubs know no kernels

TASK_ROWS = 16  # of a task, in columns
add, add_square, average, change, clip = scalar.add, scalar.add_square, scalar.average, scalar.change, scalar.clip


@device
def line_of(k, n, inner):
    """Return (place, first row, left) of a task of columns: 128 of them, 16 rows."""
    strips, tops = ceiling(inner, LANES), ceiling(n, TASK_ROWS)
    outer, top, left = k // strips // tops, k // strips % tops * TASK_ROWS, k % strips * LANES
    return outer, top, left


@functools.cache
def applying(theta: str, g: str, state: str, averages: bool) -> Any:
    """Return the kernels that write parameters for dtypes of theta, g and the state."""
    width = lanes_each(theta, g, state) if averages else lanes_each(theta, g)
    threads = LANES // width
    load, store = line(theta, width)
    load_g, _ = line(g, width)
    load_m, store_m = line(state, width)
    size, size_g, size_m = size_of(theta), size_of(g), size_of(state)
    read, write, read_g = scalar.reads(theta), scalar.writes(theta), scalar.reads(g)
    read_m, write_m = scalar.reads(state), scalar.writes(state)
    shape, shape_g, shape_m = (np.dtype(name).type for name in (theta, g, state))

    @device
    def load_all(at, count, t, wide, whole, mine):
        load(at[0], count, t, wide, whole, mine[0], 0)
        load_g(at[1], count, t, wide, whole, mine[1], 0)
        if averages:
            load_m(at[2], count, t, wide, whole, mine[2], 0)

    @device
    def move(at, count, t, wide, mine, alpha, rho, chi, mu):
        """Apply to one line of theta, g and m; alpha and rho have an entry for each of the thread's `mine`."""
        whole = wide and t * width + width <= count
        if whole:
            load_all(at, count, t, wide, True, mine)
        else:
            load_all(at, count, t, wide, False, mine)
        local, local_g, local_m = mine
        for k in range(width):
            x = read(local[k])
            delta = change(alpha[k], clip(read_g(local_g[k]), chi), rho[k], x)
            if averages:
                delta = average(read_m(local_m[k]), delta, mu)
                local_m[k] = write_m(delta)
            local[k] = write(add(x, delta))
        store(at[0], count, t, wide, whole, local, 0)
        if averages:
            store_m(at[2], count, t, wide, whole, local_m, 0)

    @device
    def aligned(theta, g, m):
        return theta % WORD == 0 and g % WORD == 0 and (not averages or m % WORD == 0)

    @kernel
    def rows(starts, members, leaves, piece, rates, alpha, rho, flag):
        """One alpha and rho a row; a task is a piece of a row. Backwards: the end of g was read last."""
        if integer(flag, 0) != NONE:
            return
        mine = cuda.local.array(width, shape), cuda.local.array(width, shape_g), cuda.local.array(width, shape_m)
        alphas, rhos = cuda.local.array(width, np.float64), cuda.local.array(width, np.float64)
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_of(task, starts, members)
            n, k = field(leaves, i, N), task - integer(starts, i)
            pieces = ceiling(n, piece)
            row, start = k // pieces, k % pieces * piece
            begin, count, place = row * n + start, min(piece, n - start), field(leaves, i, PLACES) + row
            for j in range(width):
                alphas[j], rhos[j] = real(alpha, place), real(rho, place)
            at, at_g = field(leaves, i, THETA) + begin * size, field(leaves, i, G) + begin * size_g
            at_m = field(leaves, i, M) + begin * size_m
            wide = aligned(at, at_g, at_m)
            for x in range(0, count, LANES):
                here = at + x * size, at_g + x * size_g, at_m + x * size_m
                move(here, count - x, t, wide, mine, alphas, rhos, chi, mu)

    @kernel
    def columns(starts, members, leaves, rates, alpha, rho, flag):
        """One alpha and rho a column; a task is 128 columns of 16 rows."""
        if integer(flag, 0) != NONE:
            return
        mine = cuda.local.array(width, shape), cuda.local.array(width, shape_g), cuda.local.array(width, shape_m)
        alphas, rhos = cuda.local.array(width, np.float64), cuda.local.array(width, np.float64)
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_of(task, starts, members)
            n, inner = field(leaves, i, N), field(leaves, i, INNER)
            outer, top, left = line_of(task - integer(starts, i), n, inner)
            begin, count = (outer * n + top) * inner + left, min(LANES, inner - left)
            at, at_g = field(leaves, i, THETA) + begin * size, field(leaves, i, G) + begin * size_g
            at_m = field(leaves, i, M) + begin * size_m
            wide = inner % width == 0 and aligned(at, at_g, at_m)
            place = field(leaves, i, PLACES) + outer * inner + left
            for j in range(width):
                lane = min(t * width + j if wide else j * threads + t, count - 1)
                alphas[j], rhos[j] = real(alpha, place + lane), real(rho, place + lane)
            for row in range(min(TASK_ROWS, n - top)):
                x = row * inner
                here = at + x * size, at_g + x * size_g, at_m + x * size_m
                move(here, count, t, wide, mine, alphas, rhos, chi, mu)

    return SimpleNamespace(rows=rows, columns=columns)


@functools.cache
def stepping(method: Any, count: int, theta: str, g: str, state: str, averages: bool) -> Any:
    """Return the kernel that decides and applies for element slots; `method`, `count`: see `deciding` in slots.py."""
    decide, numbers_at = scalar.compile_rounded(method), getter("float64", count)
    width = lanes_each(theta, g, state)
    threads = LANES // width
    load, store = line(theta, width)
    load_g, _ = line(g, width)
    load_s, store_s = line(state, width)
    size, size_g, size_s = size_of(theta), size_of(g), size_of(state)
    read, write, read_g = scalar.reads(theta), scalar.writes(theta), scalar.reads(g)
    read_s, write_s = scalar.reads(state), scalar.writes(state)
    shape, shape_g, shape_s = (np.dtype(name).type for name in (theta, g, state))

    @device
    def load_all(at, count, t, wide, whole, mine):
        load(at[0], count, t, wide, whole, mine[0], 0)
        load_g(at[1], count, t, wide, whole, mine[1], 0)
        load_s(at[2], count, t, wide, whole, mine[2], 0)
        load_s(at[3], count, t, wide, whole, mine[3], 0)
        if averages:
            load_s(at[4], count, t, wide, whole, mine[4], 0)

    @device
    def store_all(at, count, t, wide, whole, mine):
        store(at[0], count, t, wide, whole, mine[0], 0)
        store_s(at[2], count, t, wide, whole, mine[2], 0)
        store_s(at[3], count, t, wide, whole, mine[3], 0)
        if averages:
            store_s(at[4], count, t, wide, whole, mine[4], 0)

    # With momentum four neighbours take more registers than two blocks have: some would be spilled.
    @(kernel if averages and width > 2 else crowded(2, since=9 if theta == g == "int16" else 0))
    def elements(starts, members, leaves, piece, rates, scale, flag):
        """A task is a piece of neighbours."""
        if integer(flag, 0) != NONE:
            return
        local, local_g = cuda.local.array(width, shape), cuda.local.array(width, shape_g)
        local_v, local_b = cuda.local.array(width, shape_s), cuda.local.array(width, shape_s)
        local_m = cuda.local.array(width, shape_s)
        mine = local, local_g, local_v, local_b, local_m
        t, total, chi, mu = cuda.threadIdx.x % threads, integer(starts, members), real(rates, CHI), real(rates, MU)
        numbers = numbers_at(rates, NUMBERS)
        for index in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            task = total - 1 - index
            i = leaf_of(task, starts, members)
            n, start = field(leaves, i, N), (task - integer(starts, i)) * piece
            at, at_g, at_v = field(leaves, i, THETA), field(leaves, i, G), field(leaves, i, STATE_0)
            at_b, at_m, eta = field(leaves, i, STATE_1), field(leaves, i, M), real(scale, i)
            wide = (at | at_g | at_v | at_b | at_m) % WORD == 0
            for x in range(start, min(start + piece, n), LANES):
                here = at + x * size, at_g + x * size_g, at_v + x * size_s, at_b + x * size_s, at_m + x * size_s
                whole = wide and t * width + width <= n - x
                if whole:
                    load_all(here, n - x, t, wide, True, mine)
                else:
                    load_all(here, n - x, t, wide, False, mine)
                for k in range(width):
                    p, u = read(local[k]), clip(read_g(local_g[k]), chi)
                    alpha, rho, v, b = decide(add_square(0.0, u), read_s(local_v[k]), read_s(local_b[k]), eta, *numbers)
                    delta = change(alpha, u, rho, p)
                    if averages:
                        delta = average(read_s(local_m[k]), delta, mu)
                        local_m[k] = write_s(delta)
                    local[k], local_v[k], local_b[k] = write(add(p, delta)), write_s(v), write_s(b)
                if whole:
                    store_all(here, n - x, t, wide, True, mine)
                else:
                    store_all(here, n - x, t, wide, False, mine)

    return elements
