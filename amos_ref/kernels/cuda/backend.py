"""The CUDA backend: a step as a few launches over tables of leaves, whatever the number of leaves.

reduce, combine and perhaps fold for every table; then decide, perhaps spread, and apply. Nothing in between waits for
the host, and the numbers of the step are on the device, so that a recorded step can be replayed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import optree

from amos_ref.errors import AmosError, BackendError, NonFiniteError
from amos_ref.kernels.cuda import arrays, driver
from amos_ref.kernels.cuda import slots as kernels
from amos_ref.kernels.cuda.apply import ROWS, applying, stepping
from amos_ref.kernels.cuda.arrays import fingerprint
from amos_ref.kernels.cuda.reduce import LANES, PIECE, lanes_each, reducing
from amos_ref.kernels.cuda.slots import MU, NONE
from amos_ref.kernels.scalar import BITS
from amos_ref.kernels.table import FIELDS, INNER, OUTER, N, Table, tables
from amos_ref.optimizers.leaf import Leaf, Rates
from amos_ref.optimizers.state import AmosState

BLOCK = 256  # threads of a block: a multiple of 64
_recorded: "list[Work]" = []  # a graph reads their tables for as long as it lives, and it may outlive the optimizer


class Tasks:
    """Where the tasks of each leaf begin, on the host and at an address of the device."""

    def __init__(self, starts: np.ndarray, address: int) -> None:
        self.count, self.address = int(starts[-1]), address


class Part:
    """One table on the device, and how its kernels are launched.

    Parameters
    ----------
    table : Table
    shared : dict
        Addresses of what all tables share: "rates" and "flag".
    """

    def __init__(self, table: Table, shared: dict[str, int]) -> None:
        self.table, self.members, key = table, len(table.leaves), table.key
        self.rates, self.flag = shared["rates"], shared["flag"]
        runs = _runs(table)
        starts = {name: np.concatenate([[0], np.cumsum(counts)]) for name, counts in _counts(table).items()}
        self.integers = [*starts.values(), runs]
        self.leaves = arrays.upload(table.leaves.reshape(-1))
        self._integers = arrays.upload(np.concatenate(self.integers).astype(np.int64))
        offsets = self._integers.address + 8 * np.cumsum([0, *map(len, self.integers)])
        self.tasks = {name: Tasks(a, int(at)) for (name, a), at in zip(starts.items(), offsets, strict=False)}
        self.runs = int(offsets[len(starts)])
        self._floats = arrays.upload(np.concatenate([table.eta, table.share]))
        self.eta, self.share = self._floats.address, self._floats.address + 8 * self.members
        self._scratch = arrays.allocate(table.sums + 3 * table.places)
        self.sums = self._scratch.address
        self.g2, self.alpha, self.rho = (self.sums + 8 * (table.sums + k * table.places) for k in range(3))
        self.theta, self.g, self.state = map(_bits, (key.theta, key.g, key.state))

    def launch(self, kernel: Any, tasks: str, width: int | None, stream: int, *args: int) -> None:
        """Run a kernel over all its tasks: one for each thread, or for each group with `width` elements a thread."""
        each = BLOCK if width is None else BLOCK * width // LANES
        count = self.tasks[tasks].count
        if count:
            blocks = min(-(-count // each), driver.most_blocks())
            driver.launcher(kernel, blocks, BLOCK, stream)(
                self.tasks[tasks].address, self.members, self.leaves.address, *args
            )

    def reduce(self, stream: int) -> None:
        """Compute g2 per slot; leave the first leaf whose gradient is to blame for one that is not finite."""
        reduce, width, kind = reducing(self.g, BLOCK), lanes_each(self.g), self.table.key.kind
        settled = self.share, self.g2, self.flag
        if kind == "elements":
            self.launch(reduce.elements, "reduce", width, stream, self.rates, self.flag)
            return
        if kind == "rows":
            self.launch(reduce.rows, "reduce", width, stream, self.rates, self.sums)
            combine = reducing("float64", BLOCK, squares=False).rows
            self.launch(combine, "combine", lanes_each("float64"), stream, self.sums, *settled)
        else:
            self.launch(reduce.columns, "reduce", width, stream, self.rates, self.sums)
            self.launch(kernels.combine_columns, "combine", None, stream, self.sums, *settled)
        self.launch(kernels.fold_slots, "fold", None, stream, self.runs, *settled)

    def decide(self, stream: int) -> None:
        """Compute alpha and rho, and write the new v and b."""
        if self.table.key.kind != "elements":
            args = self.rates, self.eta, self.g2, self.alpha, self.rho, self.flag
            self.launch(kernels.deciding(self.state), "slots", None, stream, *args)
            self.launch(kernels.spread_slots, "spread", None, stream, self.runs, self.alpha, self.rho)

    def apply(self, stream: int) -> None:
        """Write theta and m; for element slots v and b too."""
        key, dtypes = self.table.key, (self.theta, self.g, self.state, self.table.key.averages)
        if key.kind == "elements":
            width = lanes_each(self.theta, self.g, self.state)
            self.launch(stepping(*dtypes), "apply", width, stream, self.rates, self.eta, self.flag)
        else:
            width = lanes_each(self.theta, self.g, *([self.state] if key.averages else []))
            args = self.rates, self.alpha, self.rho, self.flag
            self.launch(getattr(applying(*dtypes), key.kind), "apply", width, stream, *args)


def _bits(dtype: Any) -> str:
    """Return by which dtype kernels know one."""
    return BITS.get(dtype.name, dtype.type).__name__


def _counts(table: Table) -> dict[str, np.ndarray]:
    """Return how many tasks of each kind every leaf has."""
    outer, n, inner = table.leaves[:, OUTER], table.leaves[:, N], table.leaves[:, INNER]
    slots = np.diff(table.slots.starts)
    mixed = np.isin(np.arange(len(outer)), [k for k, _ in _mixed(table)])
    pieces, strips = -(-n // PIECE), -(-inner // LANES)
    if table.key.kind == "elements":
        none = 0 * n
        return dict(reduce=pieces, combine=none, fold=none, slots=none, spread=none, apply=pieces)
    rows = table.key.kind == "rows"
    groups = np.diff(table.reduce.starts)
    return dict(
        reduce=groups if rows else groups * strips,
        combine=outer * inner,
        fold=slots * mixed,
        slots=slots,
        spread=outer * inner * mixed,
        apply=outer * pieces if rows else outer * -(-n // ROWS) * strips,
    )


def _mixed(table: Table) -> list[tuple[int, Any]]:
    """Return the members that have reduced runs before the innermost one."""
    return [(k, box) for k, box in enumerate(table.boxes) if box.kind != "elements" and box.mixed]


def _runs(table: Table) -> np.ndarray:
    """Return for each leaf where its runs are, and how many; then the runs that the first kernels leave."""
    heads, runs = np.zeros((len(table.leaves), 2), np.int64), []
    for k, box in _mixed(table):
        left = box.runs[: box.cut] + box.runs[box.cut + 1 :]
        heads[k] = heads.size + len(runs), len(left)
        for reduced, n in left:
            runs += [n, int(reduced)]
    return np.concatenate([heads.reshape(-1), np.array(runs, np.int64)])


class Work:
    """The leaves of a step on one device: tables, the numbers of the step, and a flag.

    Raises
    ------
    BackendError
        If the leaves are on several devices, or there is no room for the tables.
    """

    def __init__(self, leaves: list[Leaf]) -> None:
        located = [
            (f"{name} of leaf {leaf.name!r}", getattr(leaf, name)) for leaf in leaves for name in FIELDS.values()
        ]
        self.names, self.pending, self.recorded = [leaf.name for leaf in leaves], False, False
        self.lasting: tuple[Any, ...] | None = None  # the numbers on the device that no step changes
        self.device = driver.check_devices((where, a) for where, a in located if a is not None)
        with driver.on(self.device):
            self.rates, self.flag = arrays.allocate(MU + 1), arrays.upload(np.array([NONE]))
            shared = dict(rates=self.rates.address, flag=self.flag.address)
            self.parts = [Part(table, shared) for table in tables(leaves, True, lambda a: a.address)]

    def plan(self, params: Any, grads: Any, state: AmosState) -> "Plan":
        """Return what tells later steps whether this work serves for them too."""
        return Plan(self, params, grads, state)

    def set_rates(self, rates: Rates, stream: int) -> None:
        """Put the numbers of a step on the device, in the order of the stream."""
        if rates[2:] != self.lasting:
            lasting = rates.beta, rates.extra_l2, rates.c_coef, rates.d_coef, rates.epsilon
            numbers = np.array([rates.q, rates.xi, *lasting, rates.chi, rates.momentum or 0.0])
            arrays.refill(self.rates, numbers, stream)
            self.lasting = rates[2:]
        driver.launcher(kernels.set_rates, 1, 1, stream)(self.rates.address, rates.q, rates.xi)

    def launch(self, stream: int) -> None:
        """Run the kernels of a step, or have them recorded."""
        for part in self.parts:
            part.reduce(stream)
        for part in self.parts:
            part.decide(stream)
        for part in self.parts:
            part.apply(stream)

    def run(self, leaves: list[Leaf], rates: Rates, stream: Any = None, sync: bool = True) -> int:
        """Advance all leaves in place; with `sync`, return -1, or, nothing written, the leaf that is to blame."""
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            handle = driver.stream_of(stream, self.device)
            self.recorded = driver.is_capturing(handle)
            if not self.recorded:
                self.set_rates(rates, handle)
            elif self not in _recorded:
                _recorded.append(self)
            self.launch(handle)
        if self.recorded or not sync:
            self.pending = True
            return -1
        return self.found(handle)

    def advance(self, rates: Rates, stream: Any) -> None:
        """Make ready for a replay."""
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            handle = self.unrecorded(stream)
            self.set_rates(rates, handle)
        self.pending = True

    def found(self, stream: int) -> int:
        """Wait for the stream; return -1, or the leaf whose gradient was not finite, and forget it."""
        with driver.on(self.device):
            bad = int(arrays.read(self.flag, stream)[0])
            if bad == NONE:
                self.pending = False
                return -1
            arrays.refill(self.flag, np.array([NONE]), stream)
        if self.pending:
            self.pending = False
            raise NonFiniteError(
                f"gradient of leaf {self.names[bad]!r} is or was not finite, in some step since the host last waited; "
                "that step and all after it wrote nothing"
            )
        return bad

    def synchronize(self, stream: Any = None) -> None:
        """Wait for all launched steps; raise NonFiniteError for a gradient that was not finite."""
        with driver.on(self.device):
            handle = self.unrecorded(stream)
        self.pending = True
        self.found(handle)

    def unrecorded(self, stream: Any) -> int:
        """Return the handle of a stream, or raise BackendError where it is being recorded into a graph."""
        handle = driver.stream_of(stream, self.device)
        if driver.is_capturing(handle):
            raise BackendError("into a graph only a step is recorded; advance before each replay, synchronize after it")
        return handle


class Plan:
    """A step that was checked and laid out, for as long as its arrays stay as and where they are."""

    def __init__(self, work: Work, params: Any, grads: Any, state: AmosState) -> None:
        self.work = work
        self.key = _key(params, grads, state)

    def fits(self, params: Any, grads: Any, state: AmosState) -> bool:
        """Whether all arrays are those of the plan."""
        try:
            same = type(state) is AmosState and type(state.count) is int and state.count >= 0
            return same and _key(params, grads, state) == self.key
        except (AmosError, RuntimeError, TypeError, KeyError):
            return False  # what is wrong is said where everything is checked


def leave(plan: Plan | None, stream: Any) -> None:
    """Give up a plan that does not fit: wait for its steps."""
    if driver.is_capturing(driver.stream_of(stream, None)):
        raise BackendError("a step can be recorded only after a step with the same arrays, which lays it out")
    if plan is not None and plan.work.pending:
        with driver.on(plan.work.device):
            driver.synchronize()  # all streams: kernels in any of them may still read the tables
        plan.work.synchronize(stream)


def zeros_beside(thetas: dict[str, Any]) -> Callable[[tuple[int, ...], np.dtype], Any]:
    """Return what makes arrays of zeros on the device of the parameters; bfloat16 as its bits, uint16."""
    device = driver.check_devices((f"params leaf {name!r}", a) for name, a in thetas.items())

    def zeros(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        with driver.on(device):
            return arrays.copy_to_device(np.zeros(shape, np.uint16 if dtype.name == "bfloat16" else dtype))

    return zeros


def _key(params: Any, grads: Any, state: AmosState) -> tuple[Any, ...]:
    trees: Any = (params, grads, state.v, state.b, state.m)
    arrays, structure = optree.tree_flatten(trees, none_is_leaf=True)
    return structure, list(map(fingerprint, arrays))
