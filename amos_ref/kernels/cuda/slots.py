"""The CUDA kernels of slots, and what all CUDA kernels share.

A task (see kernels/table.py) is done whole by one thread or one group of threads, and in the page's order, so the grid
changes no bit. Every argument that is no float is an integer: a number, or the address of an array. `flag` is where a
gradient that is not finite leaves the number of its leaf; kernels that write parameters or state look there first.
"""

import functools
import importlib
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.memory import SIMULATED, device, getter, lowest, putter
from amos_ref.kernels.cuda.scalar import add
from amos_ref.kernels.table import COLUMNS, INNER, LEAF, PLACES, SCALE, SLOTS, STATE_0, STATE_1, SUMS, N

cuda: Any = importlib.import_module("numba.cuda")  # typed as Any: its stubs know no kernels

CHUNK, ROWS = spec.CHUNK, spec.ROWS
HALF = np.float32(0.5)
FEW_CHUNKS = 4  # of a row, that one thread sums
AHEAD_ROWS = 32  # entries of a column whose loads a thread has under way at once
NONE = 2**62  # the flag where all gradients are finite
CHI, MU, AIMS = range(3)  # at `rates`; behind them lies what *direct* takes, and then what *decide* does

# PTX, as the compile check reads it, not link-time optimization, which the simulator does not know either.
_options: dict[str, Any] = {} if SIMULATED else dict(lto=False)
kernel: Any = cuda.jit(fastmath=False, **_options)


def crowded(blocks: int, since: int = 0) -> Any:
    """Compile a kernel with as few registers as it takes for `blocks` of 256 threads to share a multiprocessor.

    Devices of a compute capability before `since` are given as many as the kernel takes: they would have to spill some.
    """
    if SIMULATED or cuda.get_current_device().compute_capability < (since, 0):
        return kernel
    return cuda.jit(fastmath=False, **_options, launch_bounds=(256, blocks))


integer: Any = getter("int64")
real: Any = getter("float64")
put_real: Any = putter("float64")
lower: Any = lowest()


@device
def search(task, starts, low, high):
    while high - low > 1:
        middle = (low + high) // 2
        if integer(starts, middle) <= task:
            low = middle
        else:
            high = middle
    return low


@device
def leaf_of(task, starts, members):
    """Return the leaf that a task belongs to."""
    return search(task, starts, 0, members)


@device
def leaf_near(task, starts, members):
    """Return the same, of leaves that may all have as many tasks: then there is nothing to search."""
    each = np.float32(members) / np.float32(integer(starts, members))
    guess = min(np.int64((np.float32(task) + HALF) * each), members - 1)
    near = integer(starts, guess) <= task < integer(starts, guess + 1)
    return search(task, starts, guess if near else 0, guess + 1 if near else members)


@device
def field(leaves, i, column):
    return integer(leaves, i * COLUMNS + column)


@device
def ceiling(a, b):
    return (a + b - 1) // b


@device
def settle(total, leaves, i, place, share, means, flag):
    """Keep a sum: of a slot as its mean, looked at; of a leaf with reduced axes left as it is, for fold_slots."""
    places = field(leaves, i, PLACES)
    if places != field(leaves, i, SLOTS):
        put_real(means, places + place, total)
    else:
        look(total / real(share, i), leaves, i, places + place, means, flag)


@device
def look(mean, leaves, i, place, means, flag):
    put_real(means, place, mean)
    if not mean < np.inf:
        lower(flag, field(leaves, i, LEAF))


@device
def sum_rows(address, begin, count, stride):
    """Sum entries `stride` apart, 64 at a time, and those sums likewise (spec.sum_rows), in place."""
    ahead = cuda.local.array(AHEAD_ROWS, np.float64)
    while count > 1:
        sums = ceiling(count, ROWS)
        for k in range(sums):
            total, stop = 0.0, min(k * ROWS + ROWS, count)
            for row in range(k * ROWS, stop, AHEAD_ROWS):
                for u in range(AHEAD_ROWS):
                    ahead[u] = real(address, begin + (row + u) * stride) if row + u < stop else 0.0
                for u in range(AHEAD_ROWS):
                    total = add(total, ahead[u])
            put_real(address, begin + k * stride, total)
        count = sums
    return real(address, begin)


@kernel
def combine_few(starts, members, leaves, sums, share, means, flag):
    """Sum the chunks of a row that has at most four, as `combine` in reduce.py does; a task is one row, a thread's."""
    for task in range(cuda.grid(1), integer(starts, members), cuda.gridsize(1)):
        i = leaf_near(task, starts, members)
        k, count = task - integer(starts, i), max(ceiling(field(leaves, i, N), CHUNK), 1)
        begin = field(leaves, i, SUMS) + k * count
        first, second = real(sums, begin), real(sums, begin + 1) if count > 1 else 0.0
        third, fourth = real(sums, begin + 2) if count > 2 else 0.0, real(sums, begin + 3) if count > 3 else 0.0
        settle(add(add(first, third), add(second, fourth)), leaves, i, k, share, means, flag)


@kernel
def combine_columns(starts, members, leaves, sums, share, means, flag):
    """Sum the sums of 64 rows; a task is one column, a thread's."""
    for task in range(cuda.grid(1), integer(starts, members), cuda.gridsize(1)):
        i = leaf_of(task, starts, members)
        k, inner = task - integer(starts, i), field(leaves, i, INNER)
        count = max(ceiling(field(leaves, i, N), ROWS), 1)
        begin = field(leaves, i, SUMS) + k // inner * count * inner + k % inner
        settle(sum_rows(sums, begin, count, inner), leaves, i, k, share, means, flag)


@kernel
def fold_slots(starts, members, leaves, runs, share, means, flag):
    """Sum over the reduced runs before the innermost one (spec.fold); a task is one slot, a thread's.

    `runs` has for each leaf where its runs begin and how many they are; a run is its length and whether it is reduced.
    """
    for task in range(cuda.grid(1), integer(starts, members), cuda.gridsize(1)):
        i = leaf_of(task, starts, members)
        slot = task - integer(starts, i)
        first, count = integer(runs, 2 * i), integer(runs, 2 * i + 1)
        place, stride, left = field(leaves, i, PLACES), 1, slot
        for k in range(count - 1, -1, -1):
            n = integer(runs, first + 2 * k)
            if not integer(runs, first + 2 * k + 1):
                place += left % n * stride
                left //= n
            stride *= n
        size, stride = 1, 1
        for k in range(count):
            size *= integer(runs, first + 2 * k)
        if size == 0:  # nothing was summed, so there is nothing to fold
            look(0.0, leaves, i, field(leaves, i, SLOTS) + slot, means, flag)
            continue
        for k in range(count - 1, -1, -1):
            n = integer(runs, first + 2 * k)
            if integer(runs, first + 2 * k + 1):
                fold_run(means, place, runs, first, k, n, stride)
            stride *= n
        total = real(means, place)
        look(total / real(share, i), leaves, i, field(leaves, i, SLOTS) + slot, means, flag)


@device
def fold_run(means, place, runs, first, k, n, stride):
    """Sum one reduced run for every index into the reduced runs before it."""
    times = 1
    for j in range(k):
        if integer(runs, first + 2 * j + 1):
            times *= integer(runs, first + 2 * j)
    for index in range(times):
        at, left, step = place, index, stride * n
        for j in range(k - 1, -1, -1):
            length = integer(runs, first + 2 * j)
            if integer(runs, first + 2 * j + 1):
                at += left % length * step
                left //= length
            step *= length
        sum_rows(means, at, n, stride)


@kernel
def spread_slots(starts, members, leaves, runs, alpha, rho):
    """Give every place the alpha and rho of its slot; a task is one place, a thread's."""
    for task in range(cuda.grid(1), integer(starts, members), cuda.gridsize(1)):
        i = leaf_of(task, starts, members)
        left = task - integer(starts, i)
        place = field(leaves, i, PLACES) + left
        slot, stride, first = field(leaves, i, SLOTS), 1, integer(runs, 2 * i)
        for k in range(integer(runs, 2 * i + 1) - 1, -1, -1):
            n = integer(runs, first + 2 * k)
            if not integer(runs, first + 2 * k + 1):
                slot += left % n * stride
                stride *= n
            left //= n
        put_real(alpha, place, real(alpha, slot))
        put_real(rho, place, real(rho, slot))


def first_number(method: Any) -> int:
    """Return where at `rates` what a member's *decide* takes begins."""
    return AIMS + (0 if method.direction is None else len(method.direction._fields))


@functools.cache
def decision(method: Any) -> Any:
    """Return ``(decide, own, numbers)``, device functions: ``decide(mean, v, b, own(leaves, i), numbers(rates))`` makes
    alpha, rho and the new v and b, which without state are what they were.
    """
    decide, first = scalar.compile_rounded(method.decide), first_number(method)
    numbers_at, own_at = getter("float64", method.numbers), getter("float64", method.own)

    @device
    def with_state(mean, v, b, own, numbers):
        theirs = own + numbers
        return decide(mean, v, b, *theirs)

    @device
    def without(mean, v, b, own, numbers):
        theirs = own + numbers
        alpha, rho = decide(mean, *theirs)
        return alpha, rho, v, b

    @device
    def scale_of(leaves, i):
        return (real(field(leaves, i, SCALE), 0),)

    @device
    def row_of(leaves, i):
        row = field(leaves, i, SCALE)
        return (real(integer(row, 0), 0),) + own_at(row, 1)  # noqa: RUF005

    numbers_of = device(lambda rates: numbers_at(rates, first))
    return with_state if method.states else without, row_of if method.own else scale_of, numbers_of


@functools.cache
def deciding(method: Any, state: str) -> Any:
    """Return the kernel that decides, for a member of the family, and state of a dtype."""
    (decide, own_of, numbers_of), states = decision(method), method.states
    get, put, read, write = getter(state), putter(state), scalar.reads(state), scalar.writes(state)

    @kernel
    def decide_slots(starts, members, leaves, rates, means, alpha, rho, flag):
        """Decide: mean -> state, alpha, rho; a task is one slot, a thread's."""
        if integer(flag, 0) != NONE:
            return
        numbers = numbers_of(rates)
        for task in range(cuda.grid(1), integer(starts, members), cuda.gridsize(1)):
            i = leaf_near(task, starts, members)
            k = task - integer(starts, i)
            place, v, b = field(leaves, i, SLOTS) + k, field(leaves, i, STATE_0), field(leaves, i, STATE_1)
            old_v, old_b = 0.0, 0.0
            if states:
                old_v, old_b = read(get(v, k)), read(get(b, k))
            new_alpha, new_rho, new_v, new_b = decide(real(means, place), old_v, old_b, own_of(leaves, i), numbers)
            if states:
                put(v, k, write(new_v))
                put(b, k, write(new_b))
            put_real(alpha, place, new_alpha)
            put_real(rho, place, new_rho)

    return decide_slots
