"""The CUDA kernels that reduce: they sum, or look at, the squares of directions.

Threads work in groups, each on a line of up to 128 neighbours at a time; a thread has 16 bytes of it.
"""

import functools
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.directions import aiming
from amos_ref.kernels.cuda.memory import SIMULATED, WORD, device, getter, mover, putter
from amos_ref.kernels.cuda.scalar import add, add_square
from amos_ref.kernels.cuda.slots import (
    CHI,
    ceiling,
    crowded,
    field,
    integer,
    kernel,
    leaf_near,
    leaf_of,
    lower,
    put_real,
    real,
    settle,
)
from amos_ref.kernels.table import INNER, LEAF, MOMENT_0, MOMENT_1, SUMS, G, N

cuda: Any = importlib.import_module("numba.cuda")  # typed as Any: its stubs know no kernels

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
WARP = 32  # threads
GPU_PIECE = 512, 2048  # neighbouring elements of a task that sums nothing, of a small table and a large one
FEW_LANES, MOST_LANES = 2, 4  # neighbours a thread has charge of, at most, where it computes more than a look
# Bytes whose loads a thread has under way at once: where it looks at gradients, and where it combines sums.
LOOK_AHEAD, COMBINE_AHEAD = 64, 256
SMALL_BLOCK = 64  # threads of a block of a small table
MOST_IN_COLUMNS = 16  # gradients whose loads are under way where columns are summed: of halves 32 bytes


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


def sums_ahead(size: int, block: int) -> int:
    """Return of how many elements of a size a thread has the loads under way where it sums: of more in a small table,
    where few threads are at work.
    """
    return min(256 // size, 64) // (1 if block <= SMALL_BLOCK else 2)


def has_moments(direction: Any) -> bool:
    """Whether a direction has moments, which take registers."""
    return direction is not None and direction.moments > 0


def sum_width(dtype: str, direction: Any, kind: str) -> int:
    """Return of how many neighbours a thread has charge where it sums rows, or columns."""
    return lanes_each(dtype, most=FEW_LANES if has_moments(direction) and kind == "rows" else MOST_LANES)


def look_width(dtype: str, direction: Any) -> int:
    """Return of how many neighbours a thread has charge where it only looks at them."""
    return lanes_each(dtype, most=MOST_LANES if has_moments(direction) else WORD)


@functools.cache
def loading(dtype: str, width: int, moments: int) -> Any:
    """Return ``load(at, x, count, t, wide, whole, mine, first)``: see `line`; of gradients, and their moments, x
    elements behind the addresses `at`.
    """
    size, (load, _), (load_moment, _) = size_of(dtype), line(dtype, width), line("float64", width)

    @device
    def load_all(at, x, count, t, wide, whole, mine, first):
        load(at[0] + x * size, count, t, wide, whole, mine[0], first)
        if moments:
            load_moment(at[1] + 8 * x, count, t, wide, whole, mine[1], first)
            load_moment(at[2] + 8 * x, count, t, wide, whole, mine[2], first)

    return load_all


@functools.cache
def summing(dtype: str, direction: Any, width: int, ahead: int, squares: bool = True) -> Any:
    """Return ``sum_line``, which adds u*u (or what there is) entry by entry.

    A thread has charge of `width` neighbours, and the loads of `ahead` elements under way.
    """
    aimed, lines_ahead = aiming(direction, dtype, scalar.magnitude), ahead // width
    aim, mark, load = aimed.aim, aimed.mark, loading(dtype, width, aimed.moments)

    @device
    def take(acc, mine, first, chi, numbers):
        for k in range(width):
            if squares:
                x, u, _, _ = aim(first + k, mine[0], mine[1], mine[2], chi, numbers)
                acc[k] = mark(add_square(acc[k], u), x)
            else:
                acc[k] = add(acc[k], mine[0][first + k])

    @device
    def load_lines(at, begin, count, stride, t, wide, whole, mine):
        for u in range(lines_ahead):
            load(at, begin + u * stride, count, t, wide, whole, mine, u * width)

    @device
    def sum_line(at, begin, count, stride, lines, t, wide, acc, mine, chi, numbers):
        """Add up to 128 neighbours from element `begin` on, and the next ones `stride` elements on, `lines` times."""
        done, whole = 0, wide and t * width + width <= count
        while done + lines_ahead <= lines:
            if whole:
                load_lines(at, begin + done * stride, count, stride, t, wide, True, mine)
            else:
                load_lines(at, begin + done * stride, count, stride, t, wide, False, mine)
            for u in range(lines_ahead):
                take(acc, mine, u * width, chi, numbers)
            done += lines_ahead
        while done < lines:
            load(at, begin + done * stride, count, t, wide, whole, mine, 0)
            take(acc, mine, 0, chi, numbers)
            done += 1

    return sum_line


@functools.cache
def reducing(dtype: str, block: int, width: int, direction: Any = None, squares: bool = True) -> Any:
    """Return the kernels that sum: squares of directions made of gradients of a dtype, or (float64) the chunks' sums of
    a row.
    """
    size, aimed = size_of(dtype), aiming(direction, dtype, scalar.magnitude)
    aim, mark, numbers_of, moments = aimed.aim, aimed.mark, aimed.numbers, aimed.moments
    ahead = width if moments else sums_ahead(size, block) if squares else COMBINE_AHEAD // size
    fewer = min(ahead, MOST_IN_COLUMNS, LOOK_AHEAD // size)
    sum_line, sum_strip = (summing(dtype, direction, width, most, squares) for most in (ahead, fewer))
    threads = LANES // width
    by_warps = threads <= WARP and not SIMULATED  # the simulator knows no warps
    groups = block // threads
    cells, shape, held = groups * LANES, np.dtype(dtype).type, ahead if moments else 1

    @device
    def wait():
        """Wait for the group: for the warp that it is, or else for the block."""
        if by_warps:
            cuda.syncwarp()
        else:
            cuda.syncthreads()

    @device
    def halve(acc, t, wide, shared, first):
        """Combine the lanes of a group by halving; every group of the block at once."""
        for k in range(width):
            shared[first + (t * width + k if wide else k * threads + t)] = acc[k]
        wait()
        half = LANES // 2
        while half > 0:
            for lane in range(first + t, first + half, threads):
                shared[lane] = add(shared[lane], shared[lane + half])
            wait()
            half //= 2

    @device
    def addresses(leaves, i, begin):
        """Return where element `begin` of a gradient and its moments lie."""
        at = field(leaves, i, G) + begin * size
        if moments:
            return at, field(leaves, i, MOMENT_0) + begin * 8, field(leaves, i, MOMENT_1) + begin * 8
        return at, at, at

    @device
    def aligned(at):
        return (at[0] | at[1] | at[2]) % WORD == 0

    @device
    def sum_row(at, count, t, acc, mine, chi, numbers):
        """Sum `count` elements lane by lane; return how the lanes lie."""
        wide = aligned(at)
        for k in range(width):
            acc[k] = 0.0
        full = count // LANES
        sum_line(at, 0, LANES, LANES, full, t, wide, acc, mine, chi, numbers)
        if full * LANES < count:
            sum_line(at, full * LANES, count - full * LANES, 0, 1, t, wide, acc, mine, chi, numbers)
        return wide

    @kernel
    def rows(starts, members, leaves, rates, sums, alone, share, means, flag):
        """Sum u*u over a chunk of a row, a task (spec.lanes); where every row is one chunk, `alone`, that is all."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(ahead, shape)
        mine = raw, cuda.local.array(held, np.float64), cuda.local.array(held, np.float64)
        shared = cuda.shared.array(cells, np.float64)
        t, group, total = cuda.threadIdx.x % threads, cuda.threadIdx.x // threads, integer(starts, members)
        chi, numbers = real(rates, CHI), numbers_of(rates)
        for begin in range(cuda.blockIdx.x * groups, total, cuda.gridDim.x * groups):
            task, i, wide = begin + group, 0, False
            if task < total:
                i = leaf_near(task, starts, members)
                n, k = field(leaves, i, N), task - integer(starts, i)
                count = max(ceiling(n, CHUNK), 1)
                start = k % count * CHUNK
                at = addresses(leaves, i, k // count * n + start)
                wide = sum_row(at, min(CHUNK, n - start), t, acc, mine, chi, numbers)
            halve(acc, t, wide, shared, group * LANES)
            if t == 0 and task < total:
                if alone:
                    settle(shared[group * LANES], leaves, i, task - integer(starts, i), share, means, flag)
                else:
                    put_real(sums, field(leaves, i, SUMS) + task - integer(starts, i), shared[group * LANES])
            wait()

    @kernel
    def combine(starts, members, leaves, sums, share, g2, flag):
        """Sum the chunks of a row, a task, as one chunk of any length."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(ahead, shape)
        shared = cuda.shared.array(cells, np.float64)
        t, group, total = cuda.threadIdx.x % threads, cuda.threadIdx.x // threads, integer(starts, members)
        for begin in range(cuda.blockIdx.x * groups, total, cuda.gridDim.x * groups):
            task, i, wide = begin + group, 0, False
            if task < total:
                i = leaf_near(task, starts, members)
                count = max(ceiling(field(leaves, i, N), CHUNK), 1)
                place = field(leaves, i, SUMS) + (task - integer(starts, i)) * count
                at = sums + place * size
                wide = sum_row((at, at, at), count, t, acc, (raw, raw, raw), np.inf, 0)
            halve(acc, t, wide, shared, group * LANES)
            if t == 0 and task < total:
                settle(shared[group * LANES], leaves, i, task - integer(starts, i), share, g2, flag)
            wait()

    @(crowded(3, since=9) if size == 4 and direction is None else crowded(2))
    def columns(starts, members, leaves, rates, sums):
        """Sum u*u over 64 rows, column by column; a task is 128 columns of 64 rows."""
        acc, raw = cuda.local.array(width, np.float64), cuda.local.array(fewer, shape)
        mine, numbers = (raw, cuda.local.array(held, np.float64), cuda.local.array(held, np.float64)), numbers_of(rates)
        t, chi, total = cuda.threadIdx.x % threads, real(rates, CHI), integer(starts, members)
        for task in range(cuda.grid(1) // threads, total, cuda.gridsize(1) // threads):
            i = leaf_of(task, starts, members)
            n, inner, k = field(leaves, i, N), field(leaves, i, INNER), task - integer(starts, i)
            strips, tops = ceiling(inner, LANES), max(ceiling(n, ROWS), 1)
            left, top, outer = k % strips * LANES, k // strips % tops * ROWS, k // strips // tops
            at = addresses(leaves, i, (outer * n + top) * inner + left)
            wide, count = aligned(at) and inner % width == 0, min(LANES, inner - left)
            for j in range(width):
                acc[j] = 0.0
            sum_strip(at, 0, count, inner, min(ROWS, n - top), t, wide, acc, mine, chi, numbers)
            place = field(leaves, i, SUMS) + (k // strips) * inner + left
            for j in range(width):
                lane = t * width + j if wide else j * threads + t
                if lane < count:
                    put_real(sums, place + lane, acc[j])

    at_once = look_width(dtype, direction)
    lookers, looked = LANES // at_once, at_once if moments else LOOK_AHEAD // size
    load_word, seen = loading(dtype, at_once, moments), looked if moments else 1

    @kernel
    def elements(starts, members, leaves, piece, rates, flag):
        """Look at the square of every element; a task is a piece of neighbours, and a thread has 16 bytes of a line."""
        raw, first = cuda.local.array(looked, shape), cuda.local.array(seen, np.float64)
        mine, numbers = (raw, first, cuda.local.array(seen, np.float64)), numbers_of(rates)
        t, chi, total = cuda.threadIdx.x % lookers, real(rates, CHI), integer(starts, members)
        for task in range(cuda.grid(1) // lookers, total, cuda.gridsize(1) // lookers):
            i = leaf_of(task, starts, members)
            start = (task - integer(starts, i)) * piece
            stop, at = min(start + piece, field(leaves, i, N)), addresses(leaves, i, 0)
            wide, wrong = aligned(at), 0
            for here in range(start, stop, lookers * looked):
                for u in range(looked // at_once):
                    left = stop - here - u * LANES
                    whole = wide and t * at_once + at_once <= left
                    load_word(at, here + u * LANES, left, t, wide, whole, mine, u * at_once)
                for j in range(looked):
                    x, u, _, _ = aim(j, mine[0], mine[1], mine[2], chi, numbers)
                    if not mark(add_square(0.0, u), x) < np.inf:
                        wrong = 1
            if wrong:
                lower(flag, field(leaves, i, LEAF))

    if not squares:
        return SimpleNamespace(rows=combine)
    return SimpleNamespace(rows=rows, columns=columns, elements=elements)
