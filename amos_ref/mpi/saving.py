"""A run over ranks in the project's one file, which rank 0 writes and reads in windows, never whole in memory.

The file is that of :func:`amos_ref.save`, to the byte: one process reads it with :func:`amos_ref.load`, and any number
of ranks with :func:`load`. So a run that was stopped on 4 ranks goes on with 3, or in one process.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import named_arrays
from amos_ref.dtypes import Shape
from amos_ref.errors import LayoutError, RankError, StateError, StorageError, list_some
from amos_ref.mpi import windows
from amos_ref.mpi.agreement import Agreement, Plan
from amos_ref.mpi.layout import Cut, Layout
from amos_ref.mpi.parts import Parts
from amos_ref.mpi.ranks import Ranks
from amos_ref.mpi.windows import DONE, STOP, Spread, Stopped, fill_from_root, on_host, windows_at_root
from amos_ref.optimizers.interrupt import InterruptGuard
from amos_ref.optimizers.state import PARTS, check_unused
from amos_ref.storage import checkpoint, container
from amos_ref.storage.checkpoint import Checkpoint, Path, fit_state
from amos_ref.storage.files import name_errors, regular
from amos_ref.storage.options import encode_options


class Incoming:
    """An array that lies over ranks, as the writer of a file sees it (see :class:`container.Windows`)."""

    ranks: Ranks
    spread: Spread
    local: Any
    dtype: np.dtype
    shape: Shape
    itemsize: int
    nbytes: int

    def __init__(self, ranks: Ranks, spread: Spread, local: Any, dtype: np.dtype) -> None:
        self.ranks, self.spread, self.local = ranks, spread, local
        self.dtype, self.shape = dtype, spread.shape
        self.itemsize, self.nbytes = dtype.itemsize, spread.size * dtype.itemsize

    def view(self) -> "Incoming":
        return self

    def windows(self) -> Iterator[np.ndarray]:
        return windows_at_root(self.ranks, self.spread, self.local, self.dtype)


def spread_of(parts: Parts, kind: Any, part: str, name: str) -> Spread:
    """Return how an array of a file lies over ranks: of a part of a state of this kind, or "theta"."""
    if part in PARTS[kind].constants:
        cut = parts.layout.cuts[name]
        return Spread((), owner=0, everywhere=True) if isinstance(cut, Cut) else Spread((), owner=cut)
    return parts.spread(name, slot=part in PARTS[kind].slots)


def name_parts(params: Any, state: Any, opt: Any) -> dict[str, np.ndarray]:
    """Return the arrays of one rank by the names that a file has for them; copies of those on a GPU."""
    thetas = {name: on_host(a) for name, a in named_arrays(opt._backend.as_arrays(params, "params")).items()}
    check_unused(state)
    state = _with_arrays_on_host(opt._backend.as_state(state))
    arrays = checkpoint.name_arrays(state, opt.state_type, thetas, momentum=opt.averages)
    return arrays | {f"theta/{leaf}": a for leaf, a in thetas.items()}


def _with_arrays_on_host(state: Any) -> Any:
    """Return a state with its arrays in NumPy; anything else as it is, to be refused later."""
    if not hasattr(state, "_replace"):
        return state
    parts = {part: arrays for part, arrays in zip(state._fields, state, strict=True) if isinstance(arrays, dict)}
    return state._replace(**{part: {name: on_host(a) for name, a in arrays.items()} for part, arrays in parts.items()})


def write_together(path: Path, arrays: dict[str, np.ndarray], state: Any, opt: Any, parts: Parts) -> None:
    """Write a file of what all ranks have; every rank calls this after they have agreed to."""
    ranks, kind = parts.ranks, opt.state_type
    dtypes = _merge(ranks.tell({name: a.dtype for name, a in arrays.items()}))
    sources = {}
    for part in (*checkpoint.parts_of(kind, opt.averages), "theta"):
        for leaf in parts.layout.shapes:
            name = f"{part}/{leaf}"
            spread = spread_of(parts, kind, part, leaf)
            sources[name] = Incoming(ranks, spread, arrays.get(name), dtypes[name])

    def write() -> None:
        texts = checkpoint.describe_state(state) | {"leaves": json.dumps(list(parts.layout.shapes), ensure_ascii=False)}
        options = json.dumps(encode_options(opt.options), ensure_ascii=False)
        with name_errors("write", path) as name:
            container.write(name, sources, texts | {"optimizer": type(opt).__name__, "options": options})

    def follow() -> None:
        for _, source in container.in_file_order(sources):
            for _ in source.windows():
                pass

    lead(ranks, parts.agreement, write, follow)


def lead(ranks: Ranks, agreement: Agreement, first: Any, others: Any) -> None:
    """Have rank 0 do what the others follow window by window; raise its error on all.

    Signals must wait outside: what rank 0 has announced is sent, and what is sent is received.
    """
    if ranks.rank == 0:
        try:
            first()
        except BaseException as error:
            ranks.say(STOP)
            agreement.raise_told(error)
        ranks.say(DONE)
        return
    try:
        others()
        if ranks.say(DONE) == DONE:
            return
    except Stopped:
        pass
    agreement.raise_told(None)


def _merge(told: list[dict[str, np.dtype]]) -> dict[str, np.dtype]:
    """Return the dtype of every array; raise RankError if parts of one have several."""
    found: dict[str, np.dtype] = {}
    for rank, dtypes in enumerate(told):
        for name, dtype in dtypes.items():
            if found.setdefault(name, dtype) != dtype:
                raise RankError(f"{name!r} has dtype {dtype} on rank {rank} and {found[name]} on one before it")
    return found


def load(
    path: Path, layout: Layout, comm: Any = None, *, like: Any = None, timeout: float | None = None, **options: Any
) -> Checkpoint:
    """Read what :meth:`Sharded.save` or :func:`amos_ref.save` wrote, each rank its own parts. All ranks call it.

    Parameters
    ----------
    path : str or path
        Rank 0 reads it; the others need not see it.
    layout : Layout
        Of any number of ranks, those that the file was written by or others.
    comm : mpi4py.MPI.Comm, optional
        By default ``MPI.COMM_WORLD``.
    like : tree, optional
        Gives the form of the tree; its leaves must have the names of the layout's. By default a dict by leaf name.
    timeout : float, optional
        As of :class:`Sharded`.
    **options
        Options of the optimizer that replace those in the file. An option that was a callable must be given.

    Returns
    -------
    Checkpoint
        ``(params, state, opt)``: the parts that this rank has; the optimizer is to be given to :class:`Sharded`.

    Raises
    ------
    StorageError, StateError, HyperParameterError
        As :func:`amos_ref.load`, on every rank.
    LayoutError
        If the layout is for another number of ranks, or illegal for the slots.
    """
    ranks = Ranks(comm, timeout)
    with InterruptGuard(), contextlib.ExitStack() as opened:
        return _Loading(path, layout, ranks, like, options, opened).load()


class _Loading:
    """One call of :func:`load`."""

    def __init__(self, path: Path, layout: Layout, ranks: Ranks, like: Any, options: Any, opened: Any) -> None:
        self.path, self.layout, self.ranks, self.like, self.options = path, layout, ranks, like, options
        self.agreement = Agreement(ranks)
        self.opened: contextlib.ExitStack = opened

    def load(self) -> Checkpoint:
        reader = self.agreement.together("load", self._begin)
        header = self.ranks.tell(None if reader is None else reader.header._replace(blanked=b""))[0]
        opt, spreads, arrays = self.agreement.together("load", lambda: self._prepare(header))

        def give() -> None:
            for entry in header.entries:
                source = reader.windows(entry) if reader is not None else iter(())
                fill_from_root(self.ranks, spreads[entry.name], arrays.get(entry.name), entry.dtype, source)
            if reader is not None:
                with name_errors("read", self.path):
                    reader.check()

        lead(self.ranks, self.agreement, give, give)
        return self.agreement.together("load", lambda: self._build(header, opt, arrays))

    def _begin(self) -> "Reader | None":
        """Open the file on rank 0."""
        self.ranks.check()
        layout = self.layout
        if not isinstance(layout, Layout):
            raise LayoutError(f"layout is {layout!r:.60}; it must be a Layout")
        if layout.ranks != self.ranks.size:
            raise LayoutError(f"the layout is for {layout.ranks} ranks; the communicator has {self.ranks.size}")
        options = {name: repr(value) for name, value in encode_options(self.options).items()}
        reader = Reader(self.path) if self.ranks.rank == 0 else None
        if reader is not None:
            self.opened.callback(reader.file.close)
        self.agreement.agree(None, Plan(layout=layout.to_json(), options=options), None)
        return reader

    def _prepare(self, header: Any) -> tuple[Any, dict[str, Spread], dict[str, np.ndarray]]:
        """Return the optimizer, how each array of the file lies over ranks, and room for what is here."""
        with name_errors("read", self.path):
            _match_leaves(header, self.layout)
            opt = checkpoint.build_optimizer(header, self.options)
            self.layout.check(opt)
            spreads = _match(header, Parts(self.layout, opt, self.ranks, self.agreement), opt.state_type)
        self._as_like(dict.fromkeys(self.layout.shapes))
        arrays: dict[str, np.ndarray] = {}
        for entry in header.entries:
            shape = _local_shape(spreads[entry.name], self.ranks.rank)
            if shape is not None:
                arrays[entry.name] = np.empty(shape, entry.dtype)
        return opt, spreads, arrays

    def _build(self, header: Any, opt: Any, arrays: dict[str, np.ndarray]) -> Checkpoint:
        """Return what was read, as these options want it."""
        layout, rank = self.layout, self.ranks.rank
        thetas = {name: a for name in layout.shapes if (a := arrays.get(f"theta/{name}")) is not None}
        state = checkpoint.build_state(header, arrays, list(thetas), {}, {}, None)
        if self.options:
            slots = {name: opt._leaf_rule(name, shape)[-1] for name, shape in layout.shapes.items()}
            pieces = {name: layout.piece(name, rank, slots[name]) for name in thetas}
            here = {name: slots[name] if piece is None else piece.slot_here for name, piece in pieces.items()}
            with name_errors("read", self.path):
                state = fit_state(state, opt, thetas, here)
        return Checkpoint(self._as_like({name: thetas.get(name) for name in layout.shapes}), state, opt)

    def _as_like(self, named: dict[str, Any]) -> Any:
        if self.like is None:
            return named
        wanted = tree.match(named, tree.flatten(self.like, "like"), "the file's leaves")
        return tree.unflatten(wanted, self.like)


def _match(header: Any, parts: Parts, kind: Any) -> dict[str, Spread]:
    """Return how each array of a file lies over ranks; raise StateError if it is not of these leaves."""
    spreads = {}
    for entry in header.entries:
        part, _, name = entry.name.partition("/")
        spreads[entry.name] = spread_of(parts, kind, part, name)
        if entry.shape != spreads[entry.name].shape:
            wanted = spreads[entry.name].shape
            raise StateError(f"it does not match the layout: {entry.name!r} has shape {entry.shape}, not {wanted}")
    return spreads


def _match_leaves(header: Any, layout: Layout) -> None:
    """Raise StateError unless a file has the leaves of the layout."""
    names = {entry.name.partition("/")[2] for entry in header.entries}
    odd = [f"missing leaf {name!r}" for name in layout.shapes if name not in names]
    odd += [f"extra leaf {name!r}" for name in sorted(names) if name not in layout.shapes]
    if odd:
        raise StateError(f"it does not match the layout: {list_some(odd, '; ')}")


def _local_shape(spread: Spread, rank: int) -> tuple[int, ...] | None:
    """Return the shape of what a rank has of an array; None where it has nothing of one that is whole elsewhere."""
    if spread.axis is None:
        return spread.shape if spread.everywhere or spread.owner == rank else None
    n = spread.edges[rank + 1] - spread.edges[rank]
    return (*spread.shape[: spread.axis], n, *spread.shape[spread.axis + 1 :])


class Reader:
    """A file with parameters, on rank 0: checked as a whole when it is opened, and hashed again as it is read."""

    header: container.Header

    def __init__(self, path: Path) -> None:
        with name_errors("read", path) as name:
            self.file: io.BufferedReader = open(regular(name), "rb")  # noqa: SIM115
            try:
                self.header, _ = checkpoint.read_header(self.file)
                if "optimizer" not in self.header.metadata:
                    raise StorageError("it holds a state alone, without parameters and optimizer")
            except BaseException:
                self.file.close()
                raise
        self._sha = hashlib.sha256(self.header.blanked)
        self.file.seek(len(self.header.blanked))

    def windows(self, entry: Any) -> Iterator[np.ndarray]:
        """Yield the bits of an array in windows; arrays are read in the order of the file."""
        width = entry.dtype.itemsize
        most = windows.WINDOW * width
        for at in range(entry.start, entry.stop, most):
            data = self.file.read(min(most, entry.stop - at))
            if len(data) < min(most, entry.stop - at):
                raise StorageError(f"it ends inside array {entry.name!r}")
            self._sha.update(data)
            yield np.frombuffer(data, f"<u{width}").astype(f"=u{width}", copy=False)

    def check(self) -> None:
        """Raise StorageError if what was read is not what the file was written with."""
        if self._sha.hexdigest() != self.header.digest:
            raise StorageError("it was changed while it was read")
