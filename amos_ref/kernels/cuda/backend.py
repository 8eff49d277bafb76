"""The CUDA backend: a step as a few launches over tables of leaves, whatever the number of leaves.

reduce, combine and perhaps fold for every table; then decide, perhaps spread, and apply. Nothing in between waits for
the host, and the numbers of the step are on the device, so that a recorded step can be replayed.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.errors import BackendError, NonFiniteError
from amos_ref.kernels import BEGINNING, At, Method, PlainWork, Sharing
from amos_ref.kernels.cuda import arrays, driver, graphs
from amos_ref.kernels.cuda import rates as moving
from amos_ref.kernels.cuda import slots as kernels
from amos_ref.kernels.cuda.apply import applying, move_width, step_width, stepping
from amos_ref.kernels.cuda.arrays import DeviceArray, DeviceWatch, as_device_state, as_device_tree
from amos_ref.kernels.cuda.rates import Numbers
from amos_ref.kernels.cuda.reduce import GPU_PIECE, LANES, SMALL_BLOCK, look_width, reducing, sum_width
from amos_ref.kernels.cuda.slots import CHUNK, FEW_CHUNKS, NONE
from amos_ref.kernels.cuda.sums import HostSums
from amos_ref.kernels.cuda.views import count_tasks, runs_of
from amos_ref.kernels.scalar import BITS
from amos_ref.kernels.table import INNER, LEAF, OUTER, SCALE, N, Table, own_rows, tables

BLOCK = 256  # threads of a block, a multiple of 64; there are fewer where those would leave multiprocessors idle


class Tasks(NamedTuple):
    """How many tasks all leaves have, and the address on the device that says where those of each leaf begin."""

    count: int
    address: int


class Part:
    """One table on the device, and how its kernels are launched.

    Parameters
    ----------
    table : Table
    leaves : sequence
        All leaves of the step.
    method : Method
    shared : dict
        Addresses of what all tables share: "rates" and "flag".
    """

    def __init__(self, table: Table, leaves: Sequence[Any], method: Method, shared: dict[str, int]) -> None:
        self.table, self.members, key = table, len(table.leaves), table.key
        self.method = method
        self.rates, self.flag = shared["rates"], shared["flag"]
        runs = runs_of(table)
        small, large = GPU_PIECE
        elements = int((table.leaves[:, OUTER] * table.leaves[:, N] * table.leaves[:, INNER]).sum())
        self.piece = large if elements > large * driver.most_blocks() else small
        self.chunks = -(-int(table.leaves[:, N].max()) // CHUNK)  # of the longest row
        self.alone = self.chunks <= 1 and not key.shared  # rows are sums at once
        counts = count_tasks(table, self.piece)
        starts = {name: np.concatenate([[0], np.cumsum(tasks)]) for name, tasks in counts.items()}
        self.integers: list[np.ndarray] = [*starts.values(), runs]
        here = [leaves[n] for n in table.leaves[:, LEAF]]
        # A scale that is no number lies on the device, and is read there.
        scales = [0.0 if hasattr(leaf.scale, "address") else float(leaf.scale) for leaf in here]
        self._floats = arrays.upload(np.concatenate([table.share, scales]))
        self.share, first = self._floats.address, self._floats.address + 8 * self.members
        found = [getattr(leaf.scale, "address", first + 8 * k) for k, leaf in enumerate(here)]
        if method.own:
            rows = own_rows(found, [leaf.own for leaf in here])
            self._own = arrays.upload(rows.reshape(-1))
            found = self._own.address + rows.strides[0] * np.arange(self.members)
        table.leaves[:, SCALE] = found
        self.leaves: DeviceArray = arrays.upload(table.leaves.reshape(-1))
        self._integers = arrays.upload(np.concatenate(self.integers).astype(np.int64))
        offsets = self._integers.address + 8 * np.cumsum([0, *map(len, self.integers)])
        self.tasks = {name: Tasks(int(a[-1]), int(at)) for (name, a), at in zip(starts.items(), offsets, strict=False)}
        self.runs: int = int(offsets[len(starts)])
        self._scratch = arrays.allocate(table.sums + 3 * table.places)
        self.sums: int = self._scratch.address
        self.means, self.alpha, self.rho = (self.sums + 8 * (table.sums + k * table.places) for k in range(3))
        self.theta, self.g, self.state = map(_bits, (key.theta, key.g, key.state or np.dtype(np.float64)))

    def block(self, tasks: str, width: int | None) -> int:
        """Return how many threads a block has, with a thread a task, or a group with `width` elements a thread."""
        group = 1 if width is None else LANES // width
        large = self.tasks[tasks].count * group > SMALL_BLOCK * driver.most_blocks()
        return max(BLOCK if large else min(BLOCK, SMALL_BLOCK), group)

    def launch(self, kernel: Any, tasks: str, width: int | None, stream: int, *args: int) -> None:
        """Run a kernel over all its tasks."""
        count, block = self.tasks[tasks].count, self.block(tasks, width)
        each = block if width is None else block * width // LANES
        if count:
            blocks = min(-(-count // each), driver.most_blocks())
            driver.launcher(kernel, blocks, block, stream)(
                self.tasks[tasks].address, self.members, self.leaves.address, *args
            )

    def reduce(self, stream: int) -> None:
        """Compute the mean square of each slot; leave at the flag the first leaf for which it is not finite.

        Where the sums are shared, the host makes means of them.
        """
        kind, direction = self.table.key.kind, self.method.direction
        width = look_width(self.g, direction) if kind == "elements" else sum_width(self.g, direction, kind)
        reduce = reducing(self.g, self.block("reduce", width), width, direction)
        if kind == "elements":
            self.launch(reduce.elements, "reduce", width, stream, self.piece, self.rates, self.flag)
            return
        settled = self.share, self.means, self.flag
        more = (int(self.alone), *settled) if kind == "rows" else ()
        self.launch(getattr(reduce, kind), "reduce", width, stream, self.rates, self.sums, *more)
        if not self.table.key.shared:
            self.combine(stream, *settled)

    def combine(self, stream: int, *settled: int) -> None:
        """Make the mean square of each slot of the sums."""
        if self.table.key.kind != "rows":
            self.launch(kernels.combine_columns, "combine", None, stream, self.sums, *settled)
        elif self.chunks > FEW_CHUNKS:
            combine = reducing("float64", self.block("combine", 1), 1, squares=False).rows
            self.launch(combine, "combine", 1, stream, self.sums, *settled)
        elif not self.alone:
            self.launch(kernels.combine_few, "combine", None, stream, self.sums, *settled)
        self.launch(kernels.fold_slots, "fold", None, stream, self.runs, *settled)

    def decide(self, stream: int) -> None:
        """Compute alpha and rho, and write the new state."""
        if self.table.key.kind != "elements":
            args = self.rates, self.means, self.alpha, self.rho, self.flag
            self.launch(kernels.deciding(self.method, self.state), "slots", None, stream, *args)
            self.launch(kernels.spread_slots, "spread", None, stream, self.runs, self.alpha, self.rho)

    def apply(self, stream: int) -> None:
        """Write theta, momentum and moments; for element slots the state too."""
        key, direction = self.table.key, self.method.direction
        dtypes = self.theta, self.g, self.state, key.averages
        if key.kind == "elements":
            args, width = (self.piece, self.rates, self.flag), step_width(self.method, *dtypes)
            self.launch(stepping(self.method, *dtypes), "apply", width, stream, *args)
        else:
            piece = (self.piece,) if key.kind == "rows" else ()
            args, width = (
                (*piece, self.rates, self.alpha, self.rho, self.flag),
                move_width(*dtypes, direction, key.kind),
            )
            self.launch(getattr(applying(*dtypes, width, direction), key.kind), "apply", width, stream, *args)


def _bits(dtype: Any) -> str:
    """Return by which dtype kernels know one."""
    return BITS.get(dtype.name, dtype.type).__name__


class Work(PlainWork):
    """The leaves of a step on one device: tables, numbers, and a flag; see :class:`amos_ref.kernels.Work`.

    Raises
    ------
    BackendError
        If the leaves are on several devices, or there is no room for the tables.
    """

    keeps = True

    def __init__(self, leaves: Sequence[Any], method: Method, sharing: Sharing | None = None) -> None:
        located = [(f"{name} of leaf {leaf.name!r}", a) for leaf in leaves for name, a in leaf.arrays().items()]
        self.names, self.pending, self.advanced = [leaf.name for leaf in leaves], False, True
        self.own: Callable[[int], None] | None = None  # the launches of a step, recorded
        self.compiled: bool = False
        self.handle: tuple[Any, int] | None = None  # a stream that was found to be of the device, and its handle
        self.device: int = driver.check_devices(located)
        with driver.on(self.device):
            self.numbers, self.flag = Numbers(method), arrays.upload(np.array([NONE]))
            shared = dict(rates=self.numbers.rates.address, flag=self.flag.address)
            made = tables(leaves, lambda a: a.address, sharing)
            self.parts: list[Part] = [Part(table, leaves, method, shared) for table in made]
            self.sums = None if sharing is None else HostSums(sharing, leaves, self.parts)

    def take(self, gradients: Sequence[Any], addresses: Any) -> None:
        """Nothing is to be taken: all arrays are where they were."""

    @property
    def recorded(self) -> bool:
        """Whether there may be a graph that replays the step, unseen by the host."""
        return graphs.is_kept(self)

    def launch(self, stream: int) -> None:
        """Run the kernels of a step, or have them recorded."""
        for part in self.parts:
            part.reduce(stream)
        self.write(stream)

    def write(self, stream: int) -> None:
        """Run those that write, or have them recorded."""
        for part in self.parts:
            part.decide(stream)
        for part in self.parts:
            part.apply(stream)

    def record(self, at: At, place: DeviceArray, stream: int) -> None:
        """Have a step recorded, or run, that moves its numbers on by itself."""
        self.numbers.move(place, self.flag.address, at.beta or 0.0, stream)
        self.launch(stream)

    def launching(self, at: At) -> Callable[[int], None]:
        """Return what runs a step: its kernels one by one at first, from the second step on as a graph."""
        step = functools.partial(self.record, at, self.numbers.steps)
        if self.own is None and self.compiled and not driver.simulated():
            with contextlib.suppress(BackendError):  # of a driver that cannot; the launches say what else is wrong
                self.own = graphs.record(step)
        return self.own or step

    def run(self, rates: Any, *, at: At = BEGINNING, stream: Any = None, sync: bool = True) -> int:
        """Advance all leaves in place; with `sync`, return -1, or, nothing written, the leaf that is not finite."""
        if self.sums is not None:
            return self.run_parts(self.sums, rates)
        self.begun = False
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            handle = self.handle_of(stream)
            self.advanced = not driver.is_capturing(handle)
            if self.advanced:
                if self.recorded:
                    self.pending = True
                    self.numbers.forget(self.numbers.moving)
                    self.numbers.set_replays(at._replace(count=at.count + 1), handle)
                self.numbers.begin(rates, at, handle)
                launch, self.begun = self.own or self.launching(at), True
                launch(handle)
                self.numbers.end(at)
                self.compiled = True
            else:
                graphs.keep(self, handle)
                self.numbers.in_turn = False
                aside = driver.stream_aside(self.device)
                self.numbers.set_replays(at, aside)
                driver.synchronize(aside)
                self.record(at, self.numbers.replays, handle)
        if not (self.advanced and sync):
            self.pending = True
            return -1
        return self.wait(handle)

    def handle_of(self, stream: Any) -> int:
        """Return the handle of a stream; one that is given again and again is looked at once."""
        if self.handle is None or self.handle[0] is not stream:
            self.handle = stream, driver.stream_of(stream, self.device)
        return self.handle[1]

    def run_parts(self, sums: HostSums, rates: Any) -> int:
        """Advance parts of arrays in place, in the default stream, and return -1; or raise what is wrong anywhere."""
        self.begun = False
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            self.numbers.put(moving.all_numbers(rates), 0)
            for part in self.parts:
                part.reduce(0)
            bad = self.wait(0)
            sums.fetch(0)
        sums.bring_together(bad, rates)
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            sums.put(0)
            self.begun = True
            self.write(0)
        return self.wait(0)

    def advance(self, rates: Sequence[Any], at: At, stream: Any) -> None:
        """Make ready for the replays of the next steps."""
        with driver.on(self.device), driver.device_errors("the step could not be launched"):
            handle = self.unrecorded(stream)
            self.numbers.advance(rates, at, handle)
        self.pending = True

    def wait(self, stream: int) -> int:
        """Wait for the stream; return -1, or the leaf whose gradient was not finite, and forget it."""
        with driver.on(self.device):
            bad = int(arrays.read(self.flag, stream)[0])
            taken = None if bad == NONE else self.numbers.taken(stream)
            self.numbers.waited(self.recorded)
            if bad == NONE:
                self.pending = False
                return -1
            arrays.refill(self.flag, np.array([NONE]), stream)
        self.begun = False
        if bad == moving.PAST:
            self.pending = False
            raise BackendError(
                "a replay found no numbers for its step: more ran than opt.advance(state, steps=...) made ready; it "
                "and all after it wrote nothing"
            )
        if self.pending:
            self.pending = False
            when = "in some step since the host last waited" if taken is None else f"in the step after {taken}"
            error = NonFiniteError(
                f"gradient of leaf {self.names[bad]!r} is or was not finite, {when}; that step and all after it wrote "
                "nothing"
            )
            error.count = taken
            raise error
        return bad

    def synchronize(self, stream: Any = None) -> None:
        """Wait for all launched steps; raise NonFiniteError for a gradient that was not finite."""
        with driver.on(self.device):
            handle = self.unrecorded(stream)
        self.pending = True
        self.wait(handle)

    def unrecorded(self, stream: Any) -> int:
        """Return the handle of a stream, or raise BackendError where it is being recorded into a graph."""
        handle = driver.stream_of(stream, self.device)
        if driver.is_capturing(handle):
            raise BackendError("into a graph only a step is recorded; advance before each replay, synchronize after it")
        return handle


class CudaBackend:
    """See :class:`amos_ref.kernels.Backend`."""

    as_array = None

    def as_arrays(self, tree: Any, what: str) -> Any:
        return as_device_tree(tree, what)

    def as_state(self, state: Any) -> Any:
        return as_device_state(state)

    def placing(self, beside: Mapping[str, Any]) -> Callable[[Any], Any]:
        device = driver.check_devices((f"params leaf {name!r}", a) for name, a in beside.items())

        def place(a: np.ndarray) -> Any:
            with driver.on(device):  # bfloat16 as its bits, uint16
                return arrays.copy_to_device(a.view(np.uint16) if a.dtype.name == "bfloat16" else a)

        return place

    def check_host(self, method: str) -> None:
        raise BackendError(f"{method} computes in NumPy; with backend 'cuda' there is step, in place")

    def check_launch(self, stream: Any, sync: bool) -> None:
        pass

    def prepare(self, leaves: Sequence[Any], method: Method) -> Work:
        return Work(leaves, method)

    def prepare_parts(self, leaves: Sequence[Any], method: Method, sharing: Sharing) -> Work:
        return Work(leaves, method, sharing)

    def watch(self, arrays: Sequence[Any], fixed: int) -> DeviceWatch:
        return DeviceWatch(arrays)

    def release(self, work: Any, stream: Any) -> None:
        if driver.is_capturing(driver.stream_of(stream, None)):
            raise BackendError("a step can be recorded only after a step with the same arrays, which lays it out")
        if work is not None and work.pending:
            with driver.on(work.device):
                driver.synchronize()  # all streams: kernels in any of them may still read the tables
            work.synchronize(stream)

    def advance(self, work: Any, rates: Sequence[Any], at: At, stream: Any) -> None:
        if work is None:
            raise BackendError("advance needs a step of backend 'cuda' before it, recorded into a graph")
        work.advance(rates, at, stream)

    def synchronize(self, work: Any, stream: Any) -> None:
        if work is not None:
            work.synchronize(stream)


BACKEND = CudaBackend()
