"""The CUDA kernels that reduce: they sum, or look at, the squares of gradients.

Threads work in groups, each on a line of up to 128 neighbours at a time; a thread has 16 bytes of it.
"""

import functools
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.memory import WORD, device, getter, mover, putter
from amos_ref.kernels.cuda.slots import (
    CHI,
    ceiling,
    crowded,
    field,
    integer,
    kernel,
    leaf_of,
    lower,
    put_real,
    real,
    settle,
)
from amos_ref.kernels.table import INNER, LEAF, SUMS, G, N

cuda: Any = importlib.import_module("numba.cuda")  # typed as Any: its stubs know no kernels

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
GPU_PIECE = 512, 2048  # neighbouring elements of a task that sums nothing, of a small table and a large one
MOST_LANES = 4  # neighbours a thread has charge of, at most, where it computes more than a look
AHEAD, COMBINE_AHEAD = 64, 256  # bytes whose loads a thread has under way at once: of gradients, of sums
MOST_SUMMED = 16  # gradients whose loads a thread has under way at once where it sums them: of halves 32 bytes


add, add_square, clip = scalar.add, scalar.add_square, scalar.clip


def size_of(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def lanes_each(*dtypes: str, most: int = MOST_LANES) -> int:
    """Return of how many neighbours a thread has charge: `most`, or 16 bytes of the narrowest dtype if that is less."""
    return min(most, WORD // min(map(size_of, dtypes)))


@functools.cache
def line(dtype: str, width: int) -> Any:
    """Return ``(load, store)`` of a thread's part of a line of up to 128 neighbours.

    Both take (address, count, t, wide, whole, local, first): a thread's `width` entries of `local` begin at `first`.
    Entry k is element t * width + k if `wide`, and else, so that threads still touch neighbours, k * threads + t.
    `whole` says that a thread's part is wide and none of it is missing: it is moved 16 bytes at once. Ask once for all
    that is loaded together, and call with True or False: between branches of their own, loads wait for each other.
    """
    get, put, size, threads = getter(dtype), putter(dtype), size_of(dtype), LANES // width
    step, zero = min(WORD // size, width), np.dtype(dtype).type(0)
    load_word, store_word = mover(dtype, step, False), mover(dtype, step, True)

    @device
    def load(address, count, t, wide, whole, local, first):
        if whole:
            for k in range(0, width, step):
                load_word(address + (t * width + k) * size, local, first + k)
        else:
            for k in range(width):
                lane = t * width + k if wide else k * threads + t
                local[first + k] = get(address, lane) if lane < count else zero

    @device
    def store(address, count, t, wide, whole, local, first):
        if whole:
            for k in range(0, width, step):
                store_word(address + (t * width + k) * size, local, first + k)
        else:
            for k in range(width):
                lane = t * width + k if wide else k * threads + t
                if lane < count:
                    put(address, lane, local[first + k])

    return load, store


@functools.cache
def reducing(dtype: str, block: int, squares: bool = True) -> Any:
    """Return the kernels that sum: squares of gradients of a dtype, or (float64) the chunks' sums of a row."""
    width, size, read = lanes_each(dtype), size_of(dtype), scalar.reads(dtype)
    threads, (load, _) = LANES // width, line(dtype, width)
    groups = block // threads
    ahead = min(AHEAD // size, MOST_SUMMED) if squares else COMBINE_AHEAD // size
    cells, lines_ahead, shape = groups * LANES, ahead // width, np.dtype(dtype).type

    @device
    def take(acc, raw, first, chi):
        for k in range(width):
            x = read(raw[first + k])
            acc[k] = add_square(acc[k], clip(x, chi)) if squares else add(acc[k], x)

    @device
    def load_lines(address, count, stride, t, wide, whole, raw):
        for u in range(lines_ahead):
            load(address + u * stride, count, t, wide, whole, raw, u * width)

    @device
    def sum_line(address, count, stride, lines, t, wide, acc, raw, chi):
        """Add up to 128 neighbours at `address`, and the next ones `stride` bytes on, `lines` times."""
        done, whole = 0, wide and t * width + width <= count
        while done + lines_ahead <= lines:
            if whole:
                load_lines(address + done * stride, count, stride, t, wide, True, raw)
            else:
                load_lines(address + done * stride, count, stride, t, wide, False, raw)
            for u in range(lines_ahead):
                take(acc, raw, u * width, chi)
            done += lines_ahead
        while done < lines:
            load(address + done * stride, count, t, wide, whole, raw, 0)
            take(acc, raw, 0, chi)
            done += 1

    @device
    def halve(acc, t, wide, shared, first):
        """Combine the lanes of a group by halving; every group of the block at once."""
        for k in range(width):
            shared[first + (t * width + k if wide else k * threads + t)] = acc[k]
        cuda.syncthreads()
        half = LANES // 2
        while half > 0:
            for lane in range(first + t, first + half, threads):
                shared[lane] = add(shared[lane], shared[lane + half])
            cuda.syncthreads()
            half //= 2

    @device
    def sum_row(address, count, t, acc, raw, chi):
        """Sum `count` elements lane by lane; return how the lanes lie."""
        wide = address % WORD == 0
        for k in range(width):
            acc[k] = 0.0
        full = count // LANES
        sum_line(address, LANES, LANES * size, full, t, wide, acc, raw, chi)
        if full * LANES < count:
            sum_line(address + full * LANES * size, count - full * LANES, 0, 1, t, wide, acc, raw, chi)
        return wide

    @kernel
    def rows(starts, members, leaves, rates, sums):
        """Sum g*g over a chunk of a row, a task (spec.lanes)."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(ahead, shape)
        shared = cuda.shared.array(cells, np.float64)
        t, group, total = cuda.threadIdx.x % threads, cuda.threadIdx.x // threads, integer(starts, members)
        chi = real(rates, CHI)
        for begin in range(cuda.blockIdx.x * groups, total, cuda.gridDim.x * groups):
            task, i, wide = begin + group, 0, False
            if task < total:
                i = leaf_of(task, starts, members)
                n, k = field(leaves, i, N), task - integer(starts, i)
                count = max(ceiling(n, CHUNK), 1)
                start = k % count * CHUNK
                address = field(leaves, i, G) + (k // count * n + start) * size
                wide = sum_row(address, min(CHUNK, n - start), t, acc, raw, chi)
            halve(acc, t, wide, shared, group * LANES)
            if t == 0 and task < total:
                put_real(sums, field(leaves, i, SUMS) + task - integer(starts, i), shared[group * LANES])
            cuda.syncthreads()

    @kernel
    def combine(starts, members, leaves, sums, share, g2, flag):
        """Sum the chunks of a row, a task, as one chunk of any length."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(ahead, shape)
        shared = cuda.shared.array(cells, np.float64)
        t, group, total = cuda.threadIdx.x % threads, cuda.threadIdx.x // threads, integer(starts, members)
        for begin in range(cuda.blockIdx.x * groups, total, cuda.gridDim.x * groups):
            task, i, wide = begin + group, 0, False
            if task < total:
                i = leaf_of(task, starts, members)
                count = max(ceiling(field(leaves, i, N), CHUNK), 1)
                place = field(leaves, i, SUMS) + (task - integer(starts, i)) * count
                wide = sum_row(sums + place * size, count, t, acc, raw, np.inf)
            halve(acc, t, wide, shared, group * LANES)
            if t == 0 and task < total:
                settle(shared[group * LANES], leaves, i, task - integer(starts, i), share, g2, flag)
            cuda.syncthreads()

    @(crowded(3, since=9) if size == 4 else crowded(2))
    def columns(starts, members, leaves, rates, sums):
        """Sum g*g over 64 rows, column by column; a task is 128 columns of 64 rows."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(ahead, shape)
        t, chi, total = cuda.threadIdx.x % threads, real(rates, CHI), integer(starts, members)
        for task in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            i = leaf_of(task, starts, members)
            n, inner, k = field(leaves, i, N), field(leaves, i, INNER), task - integer(starts, i)
            strips, tops = ceiling(inner, LANES), max(ceiling(n, ROWS), 1)
            left, top, outer = k % strips * LANES, k // strips % tops * ROWS, k // strips // tops
            address = field(leaves, i, G) + ((outer * n + top) * inner + left) * size
            wide, count = address % WORD == 0 and inner % width == 0, min(LANES, inner - left)
            for j in range(width):
                acc[j] = 0.0
            sum_line(address, count, inner * size, min(ROWS, n - top), t, wide, acc, raw, chi)
            place = field(leaves, i, SUMS) + (k // strips) * inner + left
            for j in range(width):
                lane = t * width + j if wide else j * threads + t
                if lane < count:
                    put_real(sums, place + lane, acc[j])

    at_once = lanes_each(dtype, most=WORD)
    lookers, looked, (load_word, _) = LANES // at_once, AHEAD // size, line(dtype, at_once)

    @kernel
    def elements(starts, members, leaves, piece, rates, flag):
        """Look at the square of every element; a task is a piece of neighbours, and a thread has 16 bytes of a line."""
        raw = cuda.local.array(looked, shape)
        t, chi, total = cuda.threadIdx.x % lookers, real(rates, CHI), integer(starts, members)
        for task in range(cuda.grid(1) // lookers, total, cuda.gridsize(1) // lookers):
            i = leaf_of(task, starts, members)
            start = (task - integer(starts, i)) * piece
            stop, at = min(start + piece, field(leaves, i, N)), field(leaves, i, G)
            wide, wrong = at % WORD == 0, 0
            for here in range(start, stop, lookers * looked):
                for u in range(looked // at_once):
                    left = stop - here - u * LANES
                    whole = wide and t * at_once + at_once <= left
                    load_word(at + (here + u * LANES) * size, left, t, wide, whole, raw, u * at_once)
                for j in range(looked):
                    if not add_square(0.0, clip(read(raw[j]), chi)) < np.inf:
                        wrong = 1
            if wrong:
                lower(flag, field(leaves, i, LEAF))

    if not squares:
        return SimpleNamespace(rows=combine)
    return SimpleNamespace(rows=rows, columns=columns, elements=elements)
