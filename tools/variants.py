"""Ways to write the CPU kernels: those that were tried, beside the one that the package uses, timed in turns.

    python tools/variants.py [MILLIONS [ROUNDS]]       ns a parameter: median (least), and the ratio to the stream
    python tools/variants.py assembly                  how many vector instructions each kernel was compiled to

The arrays are float32, with tensor slots (as one row), element slots, and column slots of three widths; then what
Adam's direction costs apart from the memory. All threads that Numba may use take part.
"""

import collections
import functools
import re
import statistics
import sys
import time
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from amos_ref import spec
from amos_ref.bench.roof import read
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import loops, reduce, threads
from amos_ref.kernels.cpu.loops import TURN, move, move_four
from amos_ref.kernels.cpu.reduce import add_eight_squares, add_squares
from amos_ref.kernels.jit import inline, kernel
from amos_ref.kernels.table import CHUNK, PIECE, ROWS, Tasks
from amos_ref.optimizers.amos import Amos, Rates
from amos_ref.optimizers.directions import Adam
from amos_ref.optimizers.leaf import Leaf
from amos_ref.spec import LANES, average, second_moment

PARTS = (1, 2, 3, 4, 8)  # that are gone through by turns; a remainder of tasks is left out
NO_CLIP = np.inf  # a bound that every gradient is compared with, though it clips none


# what the memory does alone


@kernel
def stream(first, last, starts, g, theta, a, b):
    for task in range(first, last):
        x, y = theta[task * PIECE : (task + 1) * PIECE], g[task * PIECE : (task + 1) * PIECE]
        for i in range(x.size):
            x[i] = a * x[i] + b * y[i]


# rows


@kernel
def reduce_lanes(first, last, starts, g, chi, out):
    """The way of the package, reduce_rows; chi is None or a bound."""
    acc = np.zeros(LANES)
    for task in range(first, last):
        part = g[task * CHUNK : (task + 1) * CHUNK]
        for left in range(0, part.size, LANES):
            add_squares(acc, part[left : left + LANES], (), chi, None)
        out[task] = acc[0]


@kernel
def reduce_eight_lanes(first, last, starts, g, chi, out):
    """Add eight times 128 neighbours at once, with an eighth of the loads and stores of the sums."""
    acc = np.zeros(LANES)
    for task in range(first, last):
        part = g[task * CHUNK : (task + 1) * CHUNK]
        for left in range(0, part.size, 8 * LANES):
            add_eight_squares(acc, part[left : left + 8 * LANES], chi, None)
        out[task] = acc[0]


@kernel
def apply_forwards(first, last, starts, g, theta, chi, alpha, rho):
    for task in range(first, last):
        start, stop = task * PIECE, (task + 1) * PIECE
        move(theta[start:stop], g[start:stop], None, (), alpha, rho, chi, 0.0, None)


@kernel
def apply_backwards(first, last, starts, g, theta, chi, alpha, rho):
    """Begin with the last pieces, which are still in the cache from the first pass."""
    for task in range(last - 1, first - 1, -1):
        start, stop = task * PIECE, (task + 1) * PIECE
        move(theta[start:stop], g[start:stop], None, (), alpha, rho, chi, 0.0, None)


# rows in several parts that lie far apart, some elements of each by turns


@functools.cache
def by_turns(parts):
    """Return kernels that sum, and apply, so many parts of their tasks by turns: 128 elements, and 512."""

    @kernel
    def reduce_parts(first, last, starts, g, out):
        acc, apart = np.zeros(parts * LANES), (last - first) // parts
        for task in range(first, first + apart):
            for left in range(0, CHUNK, LANES):
                for k in range(parts):
                    start = (task + k * apart) * CHUNK + left
                    add_squares(acc[k * LANES : (k + 1) * LANES], g[start : start + LANES], (), None, None)
        out[first] = acc[0]

    @kernel
    def apply_parts(first, last, starts, g, theta, alpha, rho):
        apart = (last - first) // parts
        for task in range(first, first + apart):
            for left in range(0, PIECE, TURN):
                for k in range(parts):
                    start = (task + k * apart) * PIECE + left
                    stop = start + TURN
                    move(theta[start:stop], g[start:stop], None, (), alpha, rho, None, 0.0, None)

    return reduce_parts, apply_parts


# columns: `rows` of them at once, in strips of `width` columns


@inline
def add_rows(acc, g, inner, left, right, row, rows):
    for k in range(row, row + rows):
        add_squares(acc[left:right], g[k * inner + left : k * inner + right], (), None, None)


@kernel
def reduce_strips(first, last, starts, g, inner, out, width, rows):
    """Keep the sums of a strip in the first-level cache, for `rows` rows or for all 64."""
    for task in range(first, last):
        acc = out[task]
        acc[:] = 0.0
        for row in range(task * ROWS, (task + 1) * ROWS, rows):
            for left in range(0, inner, width):
                add_rows(acc, g, inner, left, min(left + width, inner), row, rows)


@kernel
def reduce_eight(first, last, starts, g, inner, out):
    for task in range(first, last):
        acc = out[task]
        acc[:] = 0.0
        for row in range(task * ROWS, (task + 1) * ROWS, 8):
            add_eight_squares(acc, g[row * inner : (row + 8) * inner], None, None)


@kernel
def apply_strips(first, last, starts, g, theta, inner, alpha, rho, width, rows):
    for task in range(first, last):
        for row in range(task * ROWS, (task + 1) * ROWS, rows):
            for left in range(0, inner, width):
                right = min(left + width, inner)
                for k in range(row, row + rows):
                    start, stop = k * inner + left, k * inner + right
                    move(
                        theta[start:stop], g[start:stop], None, (), alpha[left:right], rho[left:right], None, 0.0, None
                    )


@kernel
def apply_four(first, last, starts, g, theta, inner, alpha, rho):
    for task in range(first, last):
        for row in range(task * ROWS, (task + 1) * ROWS, 4):
            start, stop = row * inner, (row + 4) * inner
            move_four(theta[start:stop], g[start:stop], None, alpha, rho, None, 0.0, None)


# elements


@kernel
def divide(first, last, starts, b, out):
    """Do nothing but the three divisions and two roots of each element, within the first-level cache."""
    acc = out[0]
    for _ in range(first, last):
        for i in range(acc.size):
            x = b[i]
            acc[i] = 1.0 / np.sqrt(x) + x / np.sqrt(x + 1.0) + 1.0 / (x + 2.0)


# Adam's direction


@intrinsic
def _fma(typingctx, a, b, c) -> Any:
    """a b + c, rounded once."""
    signature = types.float64(types.float64, types.float64, types.float64)
    return signature, lambda context, builder, signature, args: builder.fma(*args)


@inline
def quotient(x, c, h, rest):
    """x / c without the divider (Markstein 1990): h is 1/c rounded, rest is (1 - c h) h, and 2^-960 < |x| < 2^960."""
    q = _fma(x, h, x * rest)
    return _fma(-_fma(c, q, -x), h, q)


# element slots: the last division of *decide*, 1 / (1 + d_coef sqrt(xi eta) b), without the divider


@intrinsic
def _bits(typingctx, x) -> Any:
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.IntType(64))


@intrinsic
def _from_bits(typingctx, x) -> Any:
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(args[0], ir.DoubleType())


@inline
def reciprocal(y):
    """1 / y by Newton's steps from a guess that is 12 % off; right to the last bit for most y of ordinary size."""
    h = _from_bits(0x7FDE623822FC16E6 - _bits(y))
    for _ in range(2):  # of the third order
        rest = _fma(-y, h, 1.0)
        h = _fma(h, _fma(rest, rest, rest), h)
    for _ in range(3):
        h = _fma(h, _fma(-y, h, 1.0), h)
    return h


def decide_by(last, page=True):
    """Return *decide* of paper Amos with the last division by another function, and c's too unless `page`."""
    inline(last)

    def decide(g2, v, b, eta, q, xi, beta, extra_l2, c_coef, d_coef, epsilon):
        v = spec.second_moment(v, g2, beta)
        r = spec.reciprocal(v, q, epsilon)
        c = spec.decay_factor_c(b, xi, c_coef) if page else last(np.sqrt(1.0 + c_coef * np.sqrt(xi) * b))
        gamma = spec.growth(c, xi, r, g2)
        d = last(1.0 + d_coef * np.sqrt(xi * eta) * b)
        return spec.step_size(d, xi, eta, r), spec.weight_decay(d, gamma, extra_l2), v, spec.grown(b, gamma)

    return decide


def free(y):
    """Cost nothing: not 1 / y, but what would be left without that division."""
    return y


@inline
def add_adam_squares(acc, g, m, v, aims):
    """What add_squares does along Adam's direction, with one division an entry in place of three."""
    h1, h2 = 1.0 / aims.q1, 1.0 / aims.q2
    rest1, rest2 = _fma(-aims.q1, h1, 1.0) * h1, _fma(-aims.q2, h2, 1.0) * h2
    for i in range(g.size):
        x = np.float64(g[i])
        mean, second = average(m[i], x, aims.beta1), second_moment(v[i], x * x, aims.beta2)
        u = quotient(mean, aims.q1, h1, rest1) / (np.sqrt(quotient(second, aims.q2, h2, rest2)) + aims.adam_epsilon)
        acc[i] += u * u + 0.0 * (x * x)


@kernel
def reduce_adam(first, last, starts, g, m, v, aims, divides, out):
    """A chunk again and again, from the caches: as the package does it, or with quotients from multipliers."""
    acc = out[0]
    for _ in range(first, last):
        for left in range(0, g.size, LANES):
            right = left + LANES
            if divides:
                add_squares(acc, g[left:right], (m[left:right], v[left:right]), None, aims)
            else:
                add_adam_squares(acc, g[left:right], m[left:right], v[left:right], aims)


def make_tasks(count, size):
    """Return tasks of `size` parameters each."""
    return Tasks(np.array([0, count // size]), np.array([0, count]))


def row_ways(g, theta):
    tiny = np.float32(1e-9)
    chunks, pieces, out = make_tasks(g.size, CHUNK), make_tasks(g.size, PIECE), np.zeros(g.size // CHUNK)
    return {
        "read": (read, pieces, 1, (g.view(np.uint64),), np.zeros(g.size // PIECE, np.uint64)),
        "reduce": (reduce_lanes, chunks, g, None, out),
        "reduce, with clipping": (reduce_lanes, chunks, g, NO_CLIP, out),
        "reduce, 8 x 128 at once": (reduce_eight_lanes, chunks, g, None, out),
        **{f"reduce, {k} parts": (by_turns(k)[0], chunks, g, out) for k in PARTS},
        "stream": (stream, pieces, g, theta, np.float32(1), tiny),
        **{f"apply, {k} parts": (by_turns(k)[1], pieces, g, theta, 1e-9, 1e-9) for k in PARTS},
        "apply": (apply_forwards, pieces, g, theta, None, 1e-9, 1e-9),
        "apply, with clipping": (apply_forwards, pieces, g, theta, NO_CLIP, 1e-9, 1e-9),
        "apply, backwards": (apply_backwards, pieces, g, theta, None, 1e-9, 1e-9),
    }


def column_ways(g, theta, inner):
    groups = g.size // inner // ROWS
    size, tasks = groups * ROWS * inner, make_tasks(groups * ROWS * inner, ROWS * inner)
    g, theta, out, alpha = g[:size], theta[:size], np.zeros((groups, inner)), np.full(inner, 1e-9)
    found = {"read": row_ways(g, theta)["read"], "reduce, 8 rows at once": (reduce_eight, tasks, g, inner, out)}
    shapes = {"row by row": (inner, ROWS), "strips of 1024": (1024, ROWS), "tiles of 4 x 256": (256, 4)}
    for name, shape in shapes.items():
        found[f"reduce, {name}"] = (reduce_strips, tasks, g, inner, out, *shape)
    found["stream"] = row_ways(g, theta)["stream"]
    found["apply, 4 rows at once"] = (apply_four, tasks, g, theta, inner, alpha, alpha)
    for name, shape in shapes.items():
        found[f"apply, {name}"] = (apply_strips, tasks, g, theta, inner, alpha, alpha, *shape)
    return found


def element_ways(g, theta):
    v, b = np.full(g.size, 0.5, np.float32), np.full(g.size, 0.25, np.float32)
    work = cpu.Work([Leaf("w", theta, g, v, b, None, 0.5)], Amos.method)
    numbers = (0.5, 1e-3, 0.999, 0.0, 0.25, 0.25, 2.0**-125)
    first = work.parts[0]
    kept = (first.table.apply, first.applied.at, first.table.leaves, first.theta, first.g, first.m)
    kept += (first.moment, first.state, None, None, 0.0, None)  # nothing told of v, no clip, mu nor direction
    others = {
        "1 / d by multipliers": decide_by(reciprocal),
        "1 / c, 1 / d by multipliers": decide_by(reciprocal, False),
    }
    others["1 / d for nothing"] = decide_by(free)
    return {
        "stream": row_ways(g, theta)["stream"],
        "decide and apply": (first.kernels.elements, *kept, numbers),
        **{k: (loops.deciding(Amos.method._replace(decide=f)).elements, *kept, numbers) for k, f in others.items()},
        "divisions and roots alone": (divide, make_tasks(g.size, 1024), np.full(1024, 0.5), np.zeros((8, 1024))),
    }, (v, b, work)


def adam_ways(count):
    rng = np.random.default_rng(0)
    g, m = rng.standard_normal(CHUNK, np.float32), rng.standard_normal(CHUNK)
    same = g, m, m * m, Adam.after(5, 0.9, 0.999, 1e-8)
    tasks, sums = make_tasks(count, CHUNK), np.zeros((2, 2, LANES))
    ways = {
        "reduce, with the divider": (reduce_adam, tasks, *same, True, sums[0]),
        "reduce, with multipliers": (reduce_adam, tasks, *same, False, sums[1]),
    }
    return ways, sums


def compare(title, ways, count, rounds):
    """Time every way once in each round, and print a table."""
    spent = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            threads.launch(*way)
            if turn:
                spent[name].append((time.perf_counter() - begin) / count * 1e9)
    print(title)
    for name, times in spent.items():
        alone = "read" if name.startswith("re") else "stream"
        roof = spent.get(alone, next(iter(spent.values())))
        ratio = statistics.median(seconds / least for seconds, least in zip(times, roof, strict=True))
        print(f"  {name:26} {statistics.median(times):6.3f} ({min(times):.3f})  x {ratio:.2f}")


def assembly():
    """Count the vector instructions of each kernel, for float32 parameters and state."""
    rates = Rates(0.5, 1e-3, 0.999, None, None, 0.0, 0.25, 0.25, 2.0**-125)
    cpu.whole.is_small = lambda table: False  # the kernels of large tables
    for slot in ((), (1, 2000), (4, 2000)):
        theta, v = np.ones((4, 2000), np.float32), np.zeros(slot, np.float32)
        leaves = [Leaf("w", theta, theta.copy(), v, v.copy(), None, 0.5)]
        for cpu.FAR in (0, theta.size):  # in two parts by turns, and in one
            cpu.Work(leaves, Amos.method).run(rates)
    kinds = "add|sub|mul|div|sqrt|cvtps2|cvtpd2"
    kernels = {"step elements": loops.deciding(Amos.method).elements}
    kernels |= {n: getattr(reduce, n) for n in ("reduce_rows", "reduce_far_rows", "reduce_columns")}
    kernels |= {n: getattr(loops, n) for n in ("apply_rows", "apply_columns")}
    for name, kept in kernels.items():
        fresh = numba.njit(fastmath=False, error_model="numpy")(kept.py_func)  # what comes from the disk has no text
        fresh.compile(kept.signatures[0])
        (text,) = fresh.inspect_asm().values()
        found = collections.Counter(re.findall(rf"\bv?(?:{kinds})p[ds]\b", text))
        fused = len(re.findall(r"\bvfn?m(?:add|sub)", text))
        wide = {register: len(re.findall(register, text)) for register in ("xmm", "ymm", "zmm")}
        print(f"{name:15} {dict(sorted(found.items()))} fused: {fused} registers: {wide}")


def main():
    if sys.argv[1:] == ["assembly"]:
        assembly()
        return
    millions, rounds = (float(sys.argv[1]) if sys.argv[1:] else 32), int(sys.argv[2]) if sys.argv[2:] else 20
    count = int(millions * 2**20) // PIECE * PIECE
    g = np.random.default_rng(0).standard_normal(count, np.float32)
    theta = g.copy()
    compare(f"rows, {count:,} parameters", row_ways(g, theta), count, rounds)
    ways, sums = adam_ways(count)
    compare(f"Adam's direction in the caches, {count:,} times", ways, count, rounds)
    if sums[0].tobytes() != sums[1].tobytes():
        raise AssertionError("the quotients from multipliers are not those of the divider")
    ways, _kept = element_ways(g, theta)
    compare(f"elements, {count:,} parameters", ways, count, rounds)
    for inner in (768, 3072, 7812):
        size = count // inner // ROWS * ROWS * inner
        compare(f"columns, {size // inner:,} x {inner:,}", column_ways(g, theta, inner), size, rounds)


if __name__ == "__main__":
    main()
