"""The CPU kernels: reduce, decide, apply, and a fused kernel for element slots.

A leaf is seen as (outer, n, inner) around its innermost run of reduced axes: rows where inner is 1, columns
otherwise. Each kernel walks memory once, in pieces that a thread takes whole, so the number of threads
changes no bit. Sums of a piece are combined by the page's own functions.
"""

import threading

import numpy as np
from numba import prange

from amos_ref import spec
from amos_ref.kernels.jit import inlined, kernel
from amos_ref.kernels.scalar import BITS, clip, load, store
from amos_ref.leaf import refuse

CHUNK, LANES, ROWS = spec.CHUNK, spec.LANES, spec.ROWS
STRIP = 1024  # columns that one task sums: their float64 sums stay in the first-level cache
PIECE = 32768  # elements that one task applies
_ONE_AT_A_TIME = threading.Lock()  # a kernel already takes every core, and not every threading layer nests


# reduce


@inlined
def chunk_of_squares(g, start, n, chi, acc):
    """Sum g*g over at most 8192 neighbours: 128 lanes in order, combined by halving (spec.lanes)."""
    width = min(n, LANES)
    for lane in range(width):
        acc[lane] = 0.0
    for row in range(n // LANES):
        base = start + row * LANES
        for lane in range(LANES):
            x = clip(load(g, base + lane), chi)
            acc[lane] += x * x
    base = start + n // LANES * LANES
    for lane in range(n % LANES):
        x = clip(load(g, base + lane), chi)
        acc[lane] += x * x
    half = LANES // 2
    while half > 0:
        for lane in range(min(half, width - half)):
            acc[lane] += acc[lane + half]
        width = min(width, half)
        half //= 2
    return acc[0] if n > 0 else 0.0


@kernel
def square_chunks(g, n, chi, out):
    """Rows of n: out[row, k] is the sum of squares of the row's k-th chunk."""
    count = out.shape[1]
    per_task = max(PIECE // max(min(n, CHUNK), 1), 1)
    for task in prange((out.size + per_task - 1) // per_task):
        acc = np.empty(LANES)
        for piece in range(task * per_task, min((task + 1) * per_task, out.size)):
            row, k = piece // count, piece % count
            out[row, k] = chunk_of_squares(g, row * n + k * CHUNK, min(CHUNK, n - k * CHUNK), chi, acc)


@kernel
def square_rows(g, n, chi, out):
    """Columns: out[outer, k, column] is the sum of squares of the k-th 64 rows (spec.sum_rows)."""
    _, groups, inner = out.shape
    strips = (inner + STRIP - 1) // STRIP
    for task in prange(out.shape[0] * groups * strips):
        outer, k, first = task // (groups * strips), task // strips % groups, task % strips * STRIP
        last = min(first + STRIP, inner)
        for column in range(first, last):
            out[outer, k, column] = 0.0
        for row in range(k * ROWS, min((k + 1) * ROWS, n)):
            base = (outer * n + row) * inner
            for column in range(first, last):
                x = clip(load(g, base + column), chi)
                out[outer, k, column] += x * x


@kernel
def count_overflowing(g, chi):
    """How many squares are not finite (an element slot has no sum to show it)."""
    found = 0
    for i in prange(g.size):
        x = clip(load(g, i), chi)
        if not x * x < np.inf:
            found += 1
    return found


# decide


@kernel
def decide_slots(g2, v, b, alpha, rho, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
    """The page's decide for each slot; v and b are overwritten by their new values."""
    for s in prange(g2.size):
        v[s], _, _, _, _, alpha[s], rho[s], b[s] = spec.decide(
            g2[s], v[s], b[s], q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon
        )


# apply


@inlined
def move(theta, g, m, i, alpha, rho, chi, mu):
    x = load(theta, i)
    delta = spec.change(alpha, clip(load(g, i), chi), rho, x)
    if m is not None:
        delta = spec.average(load(m, i), delta, mu)
        store(m, i, delta)
    store(theta, i, x + delta)


@kernel
def apply_rows(theta, g, m, n, alpha, rho, chi, mu):
    """Rows of n elements, one alpha and rho a row."""
    pieces = (n + PIECE - 1) // PIECE
    rows = max(PIECE // max(n, 1), 1)
    for task in prange((alpha.size + rows - 1) // rows * pieces):
        first = task // pieces * rows
        start, stop = task % pieces * PIECE, min((task % pieces + 1) * PIECE, n)
        for row in range(first, min(first + rows, alpha.size)):
            for i in range(row * n + start, row * n + stop):
                move(theta, g, m, i, alpha[row], rho[row], chi, mu)


@kernel
def apply_columns(theta, g, m, n, alpha, rho, chi, mu):
    """n rows for each outer index, one alpha and rho a column."""
    outer, inner = alpha.shape
    rows = max(PIECE // max(inner, 1), 1)
    groups = (n + rows - 1) // rows
    for task in prange(outer * groups):
        o, first = task // groups, task % groups * rows
        for row in range(first, min(first + rows, n)):
            base = (o * n + row) * inner
            for column in range(inner):
                move(theta, g, m, base + column, alpha[o, column], rho[o, column], chi, mu)


@kernel
def step_elements(theta, g, m, v, b, chi, mu, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
    """Element slots: reduce, decide and apply, one element after the other."""
    for i in prange(theta.size):
        x = clip(load(g, i), chi)
        new_v, _, _, _, _, alpha, rho, new_b = spec.decide(
            x * x, load(v, i), load(b, i), q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon
        )
        store(v, i, new_v)
        store(b, i, new_b)
        move(theta, g, m, i, alpha, rho, chi, mu)


# host


class Work:
    """One leaf on its way through a step: flat views (copies where memory is not contiguous), then results."""

    def __init__(self, leaf, rates):
        self.leaf, self.rates = leaf, rates
        self.chi = np.inf if rates.clip_value is None else rates.clip_value
        self.decision = (rates.q, rates.xi, leaf.eta, rates.beta)
        self.decision += (rates.extra_l2, rates.c_coef, rates.d_coef, rates.epsilon)
        self.runs = spec.runs(leaf.theta.shape, leaf.v.shape)
        reduced = [k for k, (reduced, _) in enumerate(self.runs) if reduced]
        self.by_element, self.cut = not reduced, max(reduced, default=0)
        self.theta, self.g = flat(leaf.theta), flat(leaf.g)
        self.m = None if leaf.m is None else flat(leaf.m)

    def reduce(self):
        """Return g2 per slot, or None for element slots; not finite anywhere: the gradient is to blame."""
        if self.by_element:
            return None if count_overflowing(self.g, self.chi) == 0 else np.array(np.nan)
        n, outer, inner = self._box()
        if inner == 1:
            out = np.empty((outer, max(-(-n // CHUNK), 1)))
            square_chunks(self.g, n, self.chi, out)
            total = out[:, 0] if out.shape[1] == 1 else spec.lanes(out)
        else:
            out = np.empty((outer, max(-(-n // ROWS), 1), inner))
            square_rows(self.g, n, self.chi, out)
            total = spec.sum_rows(out, 1)
        kept = self.runs[: self.cut] + self.runs[self.cut + 1 :]
        total = spec.fold(total, kept).reshape(self.leaf.v.shape)
        return total / max(self.theta.size // max(total.size, 1), 1)

    def decide(self, g2):
        """Fill alpha, rho and the new v and b, all float64 and none of them the caller's arrays."""
        shape = self.leaf.v.shape
        self.v, self.b = (np.array(a, dtype=np.float64).reshape(-1) for a in (self.leaf.v, self.leaf.b))
        alpha, rho = np.empty_like(self.v), np.empty_like(self.v)
        decide_slots(g2.reshape(-1), self.v, self.b, alpha, rho, *self.decision)
        self.alpha, self.rho = (self._spread(a.reshape(shape)) for a in (alpha, rho))

    def apply(self):
        """Write theta, v, b and m. Nothing here can fail."""
        leaf, tail = self.leaf, (self.chi, self.rates.momentum or 0.0)
        if self.by_element:
            v, b = flat(leaf.v), flat(leaf.b)
            step_elements(self.theta, self.g, self.m, v, b, *tail, *self.decision)
            put_back(leaf.v, v)
            put_back(leaf.b, b)
        else:
            n, _, inner = self._box()
            if inner == 1:
                apply_rows(self.theta, self.g, self.m, n, self.alpha.reshape(-1), self.rho.reshape(-1), *tail)
            else:
                apply_columns(self.theta, self.g, self.m, n, self.alpha, self.rho, *tail)
            leaf.v[...] = spec.round_to(self.v, leaf.v.dtype).reshape(leaf.v.shape)
            leaf.b[...] = spec.round_to(self.b, leaf.b.dtype).reshape(leaf.b.shape)
        put_back(leaf.theta, self.theta)
        if leaf.m is not None:
            put_back(leaf.m, self.m)

    def _box(self):
        lengths = [n for _, n in self.runs]
        outer, inner = (int(np.prod(part)) for part in (lengths[: self.cut], lengths[self.cut + 1 :]))
        return lengths[self.cut], outer, inner

    def _spread(self, per_slot):
        """Give every (outer, column) its slot's value, where outer runs are reduced as well."""
        _, outer, inner = self._box()
        slots = [1 if reduced else length for reduced, length in self.runs]
        full = [length for _, length in self.runs]
        full[self.cut] = 1
        return np.ascontiguousarray(np.broadcast_to(per_slot.reshape(slots), full)).reshape(outer, inner)


def flat(a):
    """A contiguous 1-d view that kernels can read, of the array itself or, if it must be, of a copy."""
    a = np.ascontiguousarray(a).reshape(-1)
    return a.view(BITS.get(a.dtype.name, a.dtype))


def put_back(target, values):
    """Carry the copy's values home, if it was a copy."""
    if not np.may_share_memory(target, values):
        target[...] = values.view(target.dtype).reshape(target.shape)


def step(leaves, rates):
    """Advance all leaves in place; everything that can fail comes before anything is written."""
    with _ONE_AT_A_TIME, np.errstate(all="ignore"):
        work = [Work(leaf, rates) for leaf in leaves]
        for w in work:
            g2 = w.reduce()
            if g2 is not None:
                if not np.isfinite(g2).all():
                    refuse(w.leaf, rates)
                w.decide(g2)
        for w in work:
            w.apply()
