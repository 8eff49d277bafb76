"""An optimizer whose parameters lie over the ranks of an MPI job."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from amos_ref.checks import named_arrays
from amos_ref.errors import BackendError, LayoutError, RankError
from amos_ref.kernels.layout import LastLayout
from amos_ref.mpi.agreement import Differ, Failed, NotFinite
from amos_ref.mpi.layout import Layout
from amos_ref.mpi.parts import Parts
from amos_ref.mpi.ranks import Ranks
from amos_ref.mpi.saving import name_parts, write_together
from amos_ref.optimizers.scale import DefaultEta, measures
from amos_ref.optimizers.trace import Trace
from amos_ref.storage.checkpoint import Path
from amos_ref.storage.options import encode_options

T = TypeVar("T")


class Sharded:
    """An optimizer that steps the parts of parameters that each rank has, with the bits of one process.

    All ranks call the same methods in the same order. An error of any rank is raised on every rank, before anything is
    written; the communicator can be used after it.

    Parameters
    ----------
    opt : Amos or ClosedFormAmos
        Of backend "auto", "cpu" or "numpy". Rules see the names and shapes of whole leaves. A callable direction is
        given the part of a gradient, so its entries must not depend on one another.
    layout : Layout
        The same on all ranks.
    comm : mpi4py.MPI.Comm, optional
        By default ``MPI.COMM_WORLD``.
    timeout : float, optional
        How many seconds a step waits for the other ranks before a RankError, after which the job must end; by default
        for ever.

    Attributes
    ----------
    opt, layout
    rank : int
        Which rank this is.

    Raises
    ------
    MissingDependencyError
        If there is no mpi4py, or it finds no MPI.
    LayoutError
        If the layout is for another number of ranks, cuts a leaf where its slots could not have the bits of one
        process, or differs between ranks.
    RankError
        If optimizers differ between ranks.
    BackendError
        If the optimizer's arrays lie on a GPU.

    Examples
    --------
    On four ranks (``mpiexec -n 4 python -m mpi4py script.py``)::

        layout = amos_ref.mpi.Layout.even(shapes, 4, opt)
        sharded = amos_ref.mpi.Sharded(opt, layout)
        params = layout.pieces(full, sharded.rank)
        state = sharded.init(params)
        state = sharded.step(params, grads, state)  # grads: the parts of gradients, of the parameters' shapes
    """

    def __init__(self, opt: Any, layout: Layout, comm: Any = None, *, timeout: float | None = None) -> None:
        self.opt: Any = opt
        self.layout: Layout = layout
        self._ranks = Ranks(comm, timeout)
        self.rank: int = self._ranks.rank
        if not isinstance(layout, Layout):
            raise LayoutError(f"layout is {layout!r:.60}; it must be a Layout")
        if layout.ranks != self._ranks.size:
            raise LayoutError(f"the layout is for {layout.ranks} ranks; the communicator has {self._ranks.size}")
        layout.check(opt)
        if opt.options["backend"] == "cuda":
            raise BackendError("parts over ranks are stepped by backend 'cpu' or 'numpy'; 'cuda' steps whole arrays")
        self._check_same()
        self._given: Any = None
        self._optimizer: Any = None

    def _check_same(self) -> None:
        """Raise on every rank if layouts or optimizers differ."""
        opt = self.opt
        mine = {"layout": self.layout.to_json(), "optimizer": f"{type(opt).__name__}: {encode_options(opt.options)}"}
        told = self._ranks.tell(mine)
        for rank, other in enumerate(told):
            if other["layout"] != told[0]["layout"]:
                raise LayoutError(f"the layouts of rank 0 and rank {rank} differ; make one and give it to all ranks")
            if other["optimizer"] != told[0]["optimizer"]:
                raise RankError(
                    f"the optimizers of rank 0 and rank {rank} differ: {told[0]['optimizer']} and {other['optimizer']}"
                )

    @property
    def _view(self) -> Any:
        """The optimizer as it steps parts; it follows whoever sets an option of the given one."""
        if self.opt.options is not self._given:
            view = copy.copy(self.opt)
            view.__dict__["_last"], view.__dict__["_extent"] = LastLayout(), Parts(self.layout, self.opt, self._ranks)
            self._given, self._optimizer = self.opt.options, view
        return self._optimizer

    def init(self, params: Any) -> Any:
        """Return the state of the parts before the first step, as ``opt.init`` does.

        Parameters
        ----------
        params : tree of arrays
            The parts that this rank has; None for a leaf that is whole on another rank.
        """
        view = self._view
        parts = view._extent

        def look() -> Any:
            thetas = named_arrays(params)
            parts.shapes(thetas)
            return thetas

        thetas = self._together("init", look)
        rules = [view.options[name] for name in ("eta", "sigma") if name in view.options]
        if any(measures(rule) or isinstance(rule, DefaultEta) for rule in rules):
            parts.measure(thetas)
        return self._together("init", lambda: view.init(params))

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """Compute one step of the parts and change nothing, as ``opt.update`` does."""
        return self._step("update", grads, state, params, lambda: self._view.update(grads, state, params))

    def step(self, params: Any, grads: Any, state: Any) -> Any:
        """Compute one step of the parts in place, as ``opt.step`` does.

        Parameters
        ----------
        params : tree of writeable arrays
            The parts that this rank has.
        grads : tree like `params`
            Of the gradients of the whole loss: whoever has data-parallel ones adds them up first. A leaf that is cut is
            None on every rank or on none.
        state : NamedTuple
            Its arrays are overwritten; use the returned state.
        """
        return self._step("step", grads, state, params, lambda: self._view.step(params, grads, state))

    def trace(self, grads: Any, state: Any, params: Any) -> Trace:
        """Return every intermediate of one step of the parts, as ``opt.trace`` does; nothing is changed."""
        return self._step("trace", grads, state, params, lambda: self._view.trace(grads, state, params))

    def save(self, path: Path, params: Any, state: Any) -> None:
        """Write the parts of all ranks to one file, as :func:`amos_ref.save` writes whole arrays: to the same byte.

        Rank 0 writes it, in pieces of bounded size; no rank has more than its parts and one such piece in memory. One
        process reads the file with :func:`amos_ref.load`, any number of ranks with :func:`amos_ref.mpi.load`.

        Parameters
        ----------
        path : str or path
            On rank 0. An existing file is replaced when the new one is whole.
        params, state
            The parts that this rank has.

        Raises
        ------
        StateError, DtypeError, TreeError, HyperParameterError, StorageError
            As :func:`amos_ref.save`, on every rank; the old file is intact then.
        """
        view = self._view

        def look() -> dict[str, Any]:
            arrays = name_parts(params, state, view)
            view._extent.shapes(named_arrays(params))
            return arrays

        arrays = self._together("save", look, getattr(state, "count", None))
        write_together(path, arrays, state, view, view._extent)

    def _step(self, doing: str, grads: Any, state: Any, params: Any, call: Callable[[], T]) -> T:
        try:
            return self._together(doing, call, getattr(state, "count", None))
        except NotFinite as error:
            (name,) = error.args
        view = self._view
        parts, found = view._extent, None
        if parts.here[name] is not None:  # and a gradient is there, as the round was agreed on
            rates = view._rates_of(state)
            leaf = next((leaf for leaf in view._prepare(grads, state, params).leaves if leaf.name == name), None)
            found = None if leaf is None else parts.look(leaf, rates)
        return parts.agreement.raise_not_finite(name, found)

    def _together(self, doing: str, call: Callable[[], T], count: Any = None) -> T:
        """Call, and return what that returns; raise the same error on every rank if one of them fails before it writes.

        What is raised after all have agreed is a rank's own.
        """
        agreement = self._view._extent.agreement
        agreement.begin(doing, count)
        try:
            result = call()
            if not agreement.done:
                agreement.agree(None, (), None)
            return result
        except Failed:
            pass
        except Differ:
            agreement.raise_difference()
        except BaseException as error:
            if not agreement.done:
                agreement.fail(error)
            raise
        return agreement.raise_told(None)

    def __repr__(self) -> str:
        return f"Sharded({self.opt!r}, {self.layout!r}, rank={self.rank})"
