"""The CPU backend: a step as a few launches of kernels over tables of leaves."""

import math

import numpy as np

from amos_ref.kernels.cpu import loops as kernels
from amos_ref.kernels.cpu.threads import launch
from amos_ref.kernels.layout import Plan
from amos_ref.kernels.scalar import BITS
from amos_ref.kernels.table import FIELDS, LEAF, SLOTS, G, Table, address, tables
from amos_ref.optimizers.leaf import Leaf, Rates


def like(dtype):
    """Return an empty array of the type by which kernels know a dtype."""
    return np.empty(0, BITS.get(dtype.name, dtype))


def scratch(*shape):
    """Return memory for numbers that a step writes before it reads them (the tests fill it with NaN)."""
    return np.empty(shape)


def first_bad(found):
    """Return the least of the leaves that are to blame; -1 stands for none."""
    return min((bad for bad in found if bad >= 0), default=-1)


class Part:
    """One table on its way through a step, with the numbers between the kernels."""

    def __init__(self, table: Table) -> None:
        self.table, key = table, table.key
        self.theta, self.g = like(key.theta), like(key.g)
        self.v = None if key.state is None else like(key.state)
        self.m = self.v if key.averages else None
        self.sums = scratch(table.sums)
        self.g2, self.alpha, self.rho = scratch(3, table.places)

    def reduce(self, chi):
        """Compute g2 per slot; return the first leaf whose gradient is to blame for one that is not finite, or -1."""
        t = self.table
        if t.key.kind == "elements":
            found = launch(kernels.check_elements, t.reduce, t.leaves, self.g, chi)
        else:
            rows = t.key.kind == "rows"
            launch(kernels.reduce_rows if rows else kernels.reduce_columns, t.reduce, t.leaves, self.g, chi, self.sums)
            launch(kernels.combine_rows if rows else kernels.combine_columns, t.combine, t.leaves, self.sums, self.g2)
            for leaf in t.mixed:
                leaf.fold(self.g2)
            found = launch(kernels.mean_slots, t.slots, t.leaves, t.share, self.g2)
        return first_bad(found)

    def decide(self, numbers, leaves, rates):
        """Fill alpha and rho, and write the new v and b."""
        t = self.table
        if t.key.kind == "elements":
            return
        if numbers is not None:
            launch(kernels.decide_slots, t.slots, t.leaves, self.v, self.g2, self.alpha, self.rho, t.eta, *numbers)
        else:
            for row in t.leaves:
                leaf = leaves[row[LEAF]]
                slots = slice(row[SLOTS], row[SLOTS] + math.prod(leaf.slot))
                decided = leaf.decide(self.g2[slots].reshape(leaf.slot), rates)
                self.alpha[slots], self.rho[slots] = (a.reshape(-1) for a in decided)
        for leaf in t.mixed:
            leaf.spread(self.alpha)
            leaf.spread(self.rho)

    def apply(self, numbers, chi, mu):
        """Write theta and m; for element slots v and b too."""
        t, arrays = self.table, (self.theta, self.g, self.m)
        if t.key.kind == "elements":
            launch(kernels.step_elements, t.apply, t.leaves, *arrays, self.v, chi, mu, t.eta, *numbers)
        else:
            kernel = kernels.apply_rows if t.key.kind == "rows" else kernels.apply_columns
            launch(kernel, t.apply, t.leaves, *arrays, self.alpha, self.rho, chi, mu)


class Work:
    """The leaves of a step, ready for the kernels: tables, and copies of what is not contiguous in memory.

    It holds addresses; the caller keeps the arrays alive for as long as it runs.
    """

    def __init__(self, leaves):
        self.copies = []
        paper = all(isinstance(leaf, Leaf) for leaf in leaves)
        self.parts = [Part(table) for table in tables(map(self._contiguous, leaves), paper, address)]

    def plan(self, params, grads, state):
        """Return what tells later steps that this work serves for them too, or None."""
        return None if self.copies else Plan.kept(self, params, grads, state)

    def _contiguous(self, leaf):
        changes = {}
        for name in FIELDS.values():
            a = getattr(leaf, name, None)
            if a is not None and not (a.flags.c_contiguous and a.flags.aligned):
                changes[name] = np.array(a, order="C")
                self.copies.append((name, a, changes[name]))
        return leaf._replace(**changes)

    def run(self, leaves, rates):
        """Advance all leaves in place; return -1, or, nothing written, the leaf whose gradient is not finite."""
        numbers = None
        if isinstance(rates, Rates):
            numbers = rates.q, rates.xi, rates.beta, rates.extra_l2, rates.c_coef, rates.d_coef, rates.epsilon
        chi = None if rates.chi == np.inf else rates.chi  # kernels that need not clip are compiled without it
        with np.errstate(all="ignore"):
            bad = first_bad([part.reduce(chi) for part in self.parts])
            if bad >= 0:
                return bad
            for part in self.parts:
                part.decide(numbers, leaves, rates)
            for part in self.parts:
                part.apply(numbers, chi, rates.momentum or 0.0)
        for name, target, copy in self.copies:
            if name != "g":
                target[...] = copy
        return -1

    def take(self, gradients):
        """Take gradients at other addresses, in the order of the leaves."""
        if len(gradients) != sum(len(part.table.leaves) for part in self.parts):
            raise AssertionError(f"{len(gradients)} gradients for the leaves of another step")
        for part in self.parts:
            part.table.leaves[:, G] = gradients[part.table.leaves[:, LEAF]]
