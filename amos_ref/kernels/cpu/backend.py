"""The CPU backend: a step as a few launches of kernels over tables of leaves."""

from collections.abc import Callable, Sequence
from math import inf as INFINITY
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba.core import config

from amos_ref.kernels import BEGINNING, At, HostBackend, Method, PlainWork, Sharing, insist
from amos_ref.kernels.cpu import loops, reduce, whole
from amos_ref.kernels.cpu.headers import ApartWatch, watch_arrays
from amos_ref.kernels.cpu.memory import aligned
from amos_ref.kernels.cpu.tasks import FAR
from amos_ref.kernels.cpu.threads import Marks, launch, launch_marked
from amos_ref.kernels.scalar import BITS
from amos_ref.kernels.table import LEAF, SCALE, G, Table, address, own_rows, tables
from amos_ref.kernels.way import Way, first_bad, settle

#: What kernels that run as Python need, so that NumPy says nothing of overflow.
quiet: Callable[[Any], Any] = np.errstate(all="ignore") if getattr(config, "DISABLE_JIT", False) else lambda f: f


def empty_like(dtype: np.dtype) -> np.ndarray:
    """Return an empty array of the type by which kernels know a dtype."""
    return np.empty(0, BITS.get(dtype.name, dtype))


def scratch(*shape: int) -> np.ndarray:
    """Return memory for numbers that a step writes before it reads them (the tests fill it with NaN)."""
    return aligned(prod(shape)).reshape(shape)


#: The numbers of a step as kernels take them: chi, mu, aims and the numbers of *decide*.
How = tuple[float | None, float, Any, tuple[float, ...]]


class Part:
    """One table on its way through a step, with the numbers between the kernels."""

    table: Table
    scales: list[np.ndarray]
    own: np.ndarray
    theta: np.ndarray
    g: np.ndarray
    moment: np.ndarray | None
    m: np.ndarray | None
    state: np.ndarray | None
    gradients: np.ndarray  # where they lie, in the table
    kernels: SimpleNamespace
    sums: np.ndarray
    means: np.ndarray
    alpha: np.ndarray
    rho: np.ndarray
    decided: Marks
    applied: Marks
    vanished: np.ndarray | None

    def __init__(self, table: Table, leaves: Sequence[Any], method: Method) -> None:
        self.table, key = table, table.key
        here = [leaves[k] for k in table.leaves[:, LEAF]]
        self.scales = [np.asarray(leaf.scale, np.float64) for leaf in here]  # those of a state, not copies
        found = [address(a) for a in self.scales]
        if method.own:
            self.own = own_rows(found, [leaf.own for leaf in here])
            found = address(self.own) + self.own.strides[0] * np.arange(len(here))
        table.leaves[:, SCALE] = found
        self.theta, self.g = empty_like(key.theta), empty_like(key.g)
        self.moment = np.empty(0) if key.moments else None
        kept = None if key.state is None else empty_like(key.state)
        self.m, self.state = (kept if key.averages else None), (kept if method.states else None)
        self.gradients = table.leaves[:, G]
        self.kernels = loops.deciding(method)
        self.sums = scratch(table.sums)
        self.means, self.alpha, self.rho = scratch(3, table.places)
        half = method.states > 0 and key.state == np.float16
        self.vanished = np.zeros(len(table.leaves), np.int8) if half else None
        self._make_marks()

    def _make_marks(self) -> None:
        self.decided, self.applied = Marks(self.table.slots), Marks(self.table.apply)

    def clear(self) -> None:
        """Begin a step."""
        self.decided.clear()
        self.applied.clear()
        if self.vanished is not None:
            self.vanished.fill(0)

    @property
    def far(self) -> bool:
        """Whether rows are gone through in two parts that lie far apart, by turns."""
        return self.table.size > FAR

    @property
    def begun(self) -> bool:
        """Whether anything was written since."""
        return bool(self.decided.done.any() or self.applied.done.any())

    def reduce(self, how: How) -> int:
        """Sum the squares of each slot; return the first leaf for which they are not finite, or -1.

        Where the sums are shared, the way says so when those of other parts have come.
        """
        t, arrays, (chi, _, aims, _) = self.table, (self.g, self.moment), how
        if t.key.kind == "elements":
            return first_bad(launch(reduce.check_elements, t.reduce, t.leaves, *arrays, chi, aims))
        kernel = reduce.reduce_rows if t.key.kind == "rows" else reduce.reduce_columns
        if kernel is reduce.reduce_rows and self.far and self.g.itemsize < 8:
            kernel = reduce.reduce_far_rows
        launch(kernel, t.reduce, t.leaves, *arrays, chi, aims, self.sums)
        return -1 if t.key.shared else self.combine()

    def combine(self) -> int:
        """Make the mean square of each slot of the sums; return the first leaf for which it is not finite, or -1."""
        t, rows = self.table, self.table.key.kind == "rows"
        kernel = reduce.combine_rows if rows else reduce.combine_columns
        launch(kernel, t.combine, t.leaves, self.sums, self.means)
        return settle(t, self.means)

    def decide(self, how: How) -> None:
        """Fill alpha and rho, and write the new state."""
        t = self.table
        if t.key.kind != "elements":
            between = self.means, self.alpha, self.rho, self.vanished
            launch_marked(self.kernels.slots, self.decided, t.leaves, self.state, *between, how[-1])
            for leaf in t.mixed:
                leaf.spread(self.alpha)
                leaf.spread(self.rho)

    def apply(self, how: How) -> None:
        """Write theta, momentum and moments; for element slots the state too."""
        t, arrays, (chi, mu, aims, numbers) = self.table, (self.theta, self.g, self.m, self.moment), how
        if t.key.kind == "elements":
            state = self.state, self.vanished
            launch_marked(self.kernels.elements, self.applied, t.leaves, *arrays, *state, chi, mu, aims, numbers)
        else:
            kernel = loops.apply_rows if t.key.kind == "rows" else loops.apply_columns
            launch_marked(kernel, self.applied, self.far, t.leaves, *arrays, self.alpha, self.rho, chi, mu, aims)


class SmallPart(Part):
    """A table of little work, which one call of compiled code steps, or one that looks and then one that writes."""

    words: np.ndarray
    fixed: tuple[Any, ...]

    def __init__(self, table: Table, leaves: Sequence[Any], method: Method) -> None:
        super().__init__(table, leaves, method)
        self.call = quiet(whole.elements if table.key.kind == "elements" else whole.slots)

    def _make_marks(self) -> None:
        self.words, self.held = whole.words_of(self.table, self.sums, (self.means, self.alpha, self.rho))
        self.fixed = self.words, self.theta, self.g, self.m, self.moment, self.state, self.vanished

    def clear(self) -> None:
        self.words[whole.MARK] = 0
        if self.vanished is not None:
            self.vanished.fill(0)

    @property
    def begun(self) -> bool:
        return bool(self.words[whole.MARK])

    def find_kernels(self, how: How) -> None:
        """Compile what is called, for arguments of the types of `how`."""
        whole.find_kernels(self.table, self.kernels, self.words, self.held, (*self.fixed[1:], *how))

    def reduce(self, how: How) -> int:
        bad = self.call(whole.READ_ONLY, *self.fixed, *how)
        if bad != whole.OTHERS:
            return bad
        self.find_kernels(how)
        return self.call(whole.READ_ONLY, *self.fixed, *how)

    def decide(self, how: How) -> None:
        pass  # together with `apply`

    def apply(self, how: How) -> None:
        if not self.begun:
            self.call(whole.WRITE_ONLY, *self.fixed, *how)


def make_part(table: Table, leaves: Sequence[Any], method: Method) -> Part:
    """Return a table of leaves as one to be stepped."""
    return (SmallPart if whole.is_small(table) else Part)(table, leaves, method)


class Work(PlainWork):
    """The leaves of a step as tables; see :class:`amos_ref.kernels.Work`.

    What is not contiguous is stepped as a copy.
    """

    parts: list[Part]
    shared: list[Part]
    halves: list[Part]
    count: int
    begun: bool
    late: BaseException | None
    way: Way | None
    only: SmallPart | None  # where one call does all

    def __init__(self, leaves: Sequence[Any], method: Method, sharing: Sharing | None = None) -> None:
        self.copies: list[tuple[str, np.ndarray, np.ndarray]] = []
        found = tables(map(self._contiguous, leaves), address, sharing)
        self.parts = [make_part(table, leaves, method) for table in found]
        alone = len(self.parts) == 1 and sharing is None and not self.copies
        self.only = self.parts[0] if alone and isinstance(self.parts[0], SmallPart) else None
        self.shared = [part for part in self.parts if part.table.key.shared]
        self.way = None if sharing is None else Way(sharing, leaves, [part.table for part in self.shared])
        self.halves = [part for part in self.parts if part.vanished is not None]
        self.count, self.begun = len(leaves), False

    @property
    def keeps(self) -> bool:
        """Whether a later step can be taken by the same work."""
        return not self.copies

    def _contiguous(self, leaf: Any) -> Any:
        changes = {}
        for name, a in leaf.arrays().items():
            if not (a.flags.c_contiguous and a.flags.aligned):
                changes[name] = np.array(a, order="C")
                self.copies.append((name, a, changes[name]))
        return leaf._replace(**changes) if changes else leaf

    def start(self) -> None:
        if self.only is not None:
            self.only.clear()
            return
        self.begun = False
        for part in self.parts:
            part.clear()

    @property
    def at_once(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether one call does all."""
        return self.only is not None

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether that call has happened."""
        return self.only is not None and self.only.begun

    def run(self, rates: Any, *, at: At = BEGINNING, stream: Any = None, sync: bool = True) -> int:
        """Advance all leaves in place; return -1, or, nothing written, the leaf whose gradient is not finite."""
        chi = rates.chi
        # None: compiled without clipping.
        how: How = None if chi == INFINITY else chi, rates.mu, rates.aims, rates.numbers
        if self.only is not None:
            bad = self.only.call(whole.ALL, *self.only.fixed, *how)
            if bad == whole.OTHERS:
                self.only.find_kernels(how)
                bad = self.only.call(whole.ALL, *self.only.fixed, *how)
            return bad
        self.start()
        with np.errstate(all="ignore"):
            bad = first_bad([part.reduce(how) for part in self.parts])
            if self.way is not None:
                self.way.bring_together(bad, rates, [(part.sums, part.means) for part in self.shared])
        if bad >= 0:
            return bad
        self.begun = True
        try:
            self.late = insist(lambda: self._write(how))
        except BaseException:
            self.begun = any(part.begun for part in self.parts)
            raise
        return -1

    @quiet
    def _write(self, how: How) -> None:
        for part in self.parts:
            part.decide(how)
        for part in self.parts:
            part.apply(how)
        for name, target, copy in self.copies:
            if name != "g":
                target[...] = copy

    @property
    def vanished(self) -> Sequence[int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The leaves whose v became 0."""
        if not self.halves:
            return ()
        return [int(k) for part in self.halves for k in part.table.leaves[part.vanished != 0, LEAF]]

    def take(self, gradients: Sequence[Any], addresses: np.ndarray | None) -> None:
        """Take gradients at other addresses, in the order of the leaves."""
        if addresses is None:
            addresses = np.array([address(g) for g in gradients], np.int64)
        if not len(gradients) == len(addresses) == self.count:
            raise AssertionError(f"{len(gradients)} gradients for a step of {self.count} leaves")
        for part in self.parts:
            part.gradients[...] = addresses if self.only is part else addresses[part.table.leaves[:, LEAF]]


class CpuBackend(HostBackend):
    """See :class:`amos_ref.kernels.Backend`."""

    def prepare(self, leaves: Sequence[Any], method: Method) -> Work:
        return Work(leaves, method)

    def prepare_parts(self, leaves: Sequence[Any], method: Method, sharing: Sharing) -> Work:
        return Work(leaves, method, sharing)

    def watch(self, arrays: Sequence[Any], fixed: int) -> ApartWatch | None:
        return watch_arrays(arrays, fixed)


BACKEND = CpuBackend()
