"""The CPU kernels: reduce, decide, apply, and a fused kernel for element slots.

A leaf is seen as (outer, n, inner) around its innermost run of reduced axes: rows where inner is 1, columns
otherwise. A kernel does the tasks from `first` to `last` of its work; every task is done whole by one thread, so
the number of threads changes no bit. Sums of pieces are combined by the page's own functions.
"""

import math

import numpy as np

from amos_ref import spec
from amos_ref.kernels.jit import inlined, kernel
from amos_ref.kernels.scalar import BITS, clip, cut, load, store
from amos_ref.kernels.threads import launch
from amos_ref.leaf import Leaf, refuse, rounded

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
SUMMED, MOVED = 2048, 1024  # columns at a time: their float64 sums, or alpha and rho, stay in the first-level cache
PIECE = 32768  # elements of one task


# reduce


@inlined
def add_squares(acc, g, chi):
    """acc += clip(g)^2, entry by entry. Slices, not offsets: only then does the compiler use vectors."""
    for i in range(g.size):
        x = clip(load(g, i), chi)
        acc[i] += x * x


@inlined
def chunk_of_squares(g, chi, acc):
    """Sum g*g over at most 8192 neighbours: 128 lanes in order, combined by halving (spec.lanes)."""
    width = min(g.size, LANES)
    acc[:width] = 0.0
    for start in range(0, g.size, LANES):
        add_squares(acc, g[start : start + LANES], chi)
    half = LANES // 2
    while half > 0:
        for lane in range(min(half, width - half)):
            acc[lane] += acc[lane + half]
        width = min(width, half)
        half //= 2
    return acc[0] if g.size > 0 else 0.0


@kernel
def square_chunks(first, last, g, n, chi, out):
    """Rows of n: out[row, k] is the sum of squares of the row's k-th chunk; a task is one such sum."""
    count = out.shape[1]
    acc = np.empty(LANES)
    for task in range(first, last):
        row, k = task // count, task % count
        out[row, k] = chunk_of_squares(g[row * n + k * CHUNK : row * n + min((k + 1) * CHUNK, n)], chi, acc)


@kernel
def square_rows(first, last, g, n, chi, out):
    """Columns: out[outer, k, column] is the sum of squares of the k-th 64 rows; a task is one (outer, k)."""
    _, groups, inner = out.shape
    for task in range(first, last):
        outer, k = task // groups, task % groups
        sums = out[outer, k]
        sums[:] = 0.0
        for start in range(0, inner, SUMMED):
            stop = min(start + SUMMED, inner)
            for row in range(outer * n + k * ROWS, outer * n + min((k + 1) * ROWS, n)):
                add_squares(sums[start:stop], g[row * inner + start : row * inner + stop], chi)


@kernel
def count_overflowing(first, last, g, chi):
    """How many squares are not finite (an element slot has no sum to show it); a task is one element."""
    found = 0
    part = g[first:last]
    for i in range(part.size):
        x = clip(load(part, i), chi)
        found += not x * x < np.inf
    return found


# decide


@kernel
def decide_slots(first, last, g2, v, b, alpha, rho, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
    """The page's decide for each slot; v and b are overwritten by their new values."""
    for s in range(first, last):
        v[s], _, _, _, _, alpha[s], rho[s], b[s] = spec.decide(
            g2[s], v[s], b[s], q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon
        )


# apply


@inlined
def move(theta, g, m, alpha, rho, chi, mu):
    """Entry by entry; alpha and rho are numbers, or arrays with an entry each. m may be None."""
    if m is None:
        for i in range(theta.size):
            x = load(theta, i)
            store(theta, i, x + spec.change(load(alpha, i), clip(load(g, i), chi), load(rho, i), x))
    else:
        for i in range(theta.size):
            x = load(theta, i)
            delta = spec.change(load(alpha, i), clip(load(g, i), chi), load(rho, i), x)
            delta = spec.average(load(m, i), delta, mu)
            store(m, i, delta)
            store(theta, i, x + delta)


@kernel
def apply_rows(first, last, theta, g, m, n, alpha, rho, chi, mu):
    """Rows of n elements, one alpha and rho a row; a task is one piece of a row."""
    pieces = (n + PIECE - 1) // PIECE
    for task in range(first, last):
        row, k = task // pieces, task % pieces
        start, stop = row * n + k * PIECE, row * n + min((k + 1) * PIECE, n)
        move(theta[start:stop], g[start:stop], cut(m, start, stop), alpha[row], rho[row], chi, mu)


@kernel
def apply_columns(first, last, theta, g, m, n, alpha, rho, chi, mu):
    """n rows for each outer index, one alpha and rho a column; a task is 64 rows, strip by strip."""
    inner, groups = alpha.shape[1], (n + ROWS - 1) // ROWS
    for task in range(first, last):
        outer, k = task // groups, task % groups
        alphas, rhos = alpha[outer], rho[outer]
        for left in range(0, inner, MOVED):
            right = min(left + MOVED, inner)
            for row in range(outer * n + k * ROWS, outer * n + min((k + 1) * ROWS, n)):
                start, stop = row * inner + left, row * inner + right
                part = cut(m, start, stop)
                move(theta[start:stop], g[start:stop], part, alphas[left:right], rhos[left:right], chi, mu)


@kernel
def step_elements(first, last, theta, g, m, v, b, chi, mu, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
    """Element slots: decide and apply, a few cached elements at a time; a task is one element."""
    alpha, rho = np.empty(CHUNK // 8), np.empty(CHUNK // 8)
    for start in range(first, last, alpha.size):
        stop = min(start + alpha.size, last)
        part, old_v, old_b = g[start:stop], v[start:stop], b[start:stop]
        for i in range(part.size):
            x = clip(load(part, i), chi)
            new_v, _, _, _, _, alpha[i], rho[i], new_b = spec.decide(
                x * x, load(old_v, i), load(old_b, i), q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon
            )
            store(old_v, i, new_v)
            store(old_b, i, new_b)
        move(theta[start:stop], part, cut(m, start, stop), alpha, rho, chi, mu)


# host


class Work:
    """One leaf on its way through a step: flat views (copies where memory is not contiguous), then results.

    `box` is (outer, n, inner), what lies before, in and behind the innermost run of reduced axes.
    """

    fused = True  # element slots decide and apply in one kernel

    def __init__(self, leaf, rates):
        self.leaf, self.rates = leaf, rates
        self.chi = rates.chi
        self.theta, self.g = flat(leaf.theta), flat(leaf.g)
        self.m = None if leaf.m is None else flat(leaf.m)
        self.runs = spec.runs(leaf.theta.shape, leaf.slot)
        reduced = [k for k, (reduced, _) in enumerate(self.runs) if reduced]
        self.by_element = self.fused and not reduced
        if self.by_element:
            self.v, self.b = flat(leaf.v), flat(leaf.b)
        else:
            if not reduced:
                self.runs, reduced = [(True, 1), *self.runs], [0]  # one row of slots
            self.cut = reduced[-1]
            lengths = [n for _, n in self.runs]
            self.box = math.prod(lengths[: self.cut]), lengths[self.cut], math.prod(lengths[self.cut + 1 :])

    @property
    def decision(self):
        """What the page's decide takes behind g2, v and b."""
        r = self.rates
        return r.q, r.xi, self.leaf.eta, r.beta, r.extra_l2, r.c_coef, r.d_coef, r.epsilon

    def reduce(self):
        """Return g2 per slot, or None for element slots; not finite anywhere: the gradient is to blame."""
        if self.by_element:
            found = launch(count_overflowing, self.g.size, self.g.size, self.g, self.chi)
            return None if sum(found) == 0 else np.array(np.nan)
        outer, n, inner = self.box
        if inner == 1:
            out = np.empty((outer, max(-(-n // CHUNK), 1)))
            launch(square_chunks, out.size, self.g.size, self.g, n, self.chi, out)
            total = out[:, 0] if out.shape[1] == 1 else spec.lanes(out)
        else:
            out = np.empty((outer, max(-(-n // ROWS), 1), inner))
            launch(square_rows, outer * out.shape[1], self.g.size, self.g, n, self.chi, out)
            total = spec.sum_rows(out, 1)
        kept = self.runs[: self.cut] + self.runs[self.cut + 1 :]
        total = spec.fold(total, kept).reshape(self.leaf.slot)
        return total / max(self.theta.size // max(total.size, 1), 1)

    def decide(self, g2):
        """Fill alpha, rho and the new v and b, none of them the caller's arrays."""
        v, b = (np.array(a, dtype=np.float64).reshape(-1) for a in (self.leaf.v, self.leaf.b))
        alpha, rho = np.empty_like(v), np.empty_like(v)
        launch(decide_slots, g2.size, 32 * g2.size, g2.reshape(-1), v, b, alpha, rho, *self.decision)
        self.v, self.b = rounded(v, self.leaf.v), rounded(b, self.leaf.b)
        self.alpha, self.rho = self._spread(alpha), self._spread(rho)

    def apply(self):
        """Write theta, v, b and m. All that could fail has been done."""
        arrays, tail = (self.theta, self.g, self.m), (self.chi, self.rates.momentum or 0.0)
        if self.by_element:
            launch(step_elements, self.v.size, 8 * self.v.size, *arrays, self.v, self.b, *tail, *self.decision)
        else:
            outer, n, inner = self.box
            if inner == 1:
                tasks, per_row = outer * -(-n // PIECE), (self.alpha.reshape(-1), self.rho.reshape(-1))
                launch(apply_rows, tasks, self.g.size, *arrays, n, *per_row, *tail)
            else:
                launch(apply_columns, outer * -(-n // ROWS), self.g.size, *arrays, n, self.alpha, self.rho, *tail)
        for name, target in self.leaf.written():
            put_back(target, getattr(self, name))

    def _spread(self, per_slot):
        """Give every (outer, column) its slot's value, where outer runs are reduced as well."""
        outer, _, inner = self.box
        if per_slot.size != outer * inner:
            slots = [1 if reduced else length for reduced, length in self.runs]
            full = [length for _, length in self.runs]
            full[self.cut] = 1
            per_slot = np.broadcast_to(per_slot.reshape(slots), full).copy()
        return per_slot.reshape(outer, inner)


class ClosedWork(Work):
    """A leaf of the closed form: another decide between the same kernels, written once, in NumPy."""

    fused = False

    def decide(self, g2):
        self.alpha, self.rho = (self._spread(a) for a in self.leaf.decide(g2, self.rates))


def flat(a):
    """A contiguous 1-d view that kernels can read, of the array itself or, if it must be, of a copy."""
    a = np.ascontiguousarray(a).reshape(-1)
    return a.view(BITS[a.dtype.name]) if a.itemsize == 2 else a


def put_back(target, values):
    """Carry the copy's values home, if it was a copy."""
    if not np.may_share_memory(target, values):
        target[...] = values.view(target.dtype).reshape(target.shape)


def step(leaves, rates):
    """Advance all leaves in place; everything that can fail comes before anything is written."""
    with np.errstate(all="ignore"):
        work = [(Work if isinstance(leaf, Leaf) else ClosedWork)(leaf, rates) for leaf in leaves]
        for w in work:
            g2 = w.reduce()
            if g2 is not None:
                if not np.isfinite(g2).all():
                    refuse(w.leaf, rates)
                w.decide(g2)
        for w in work:
            w.apply()
