"""An optimizer whose parameters lie over the ranks of an MPI job."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any, TypeVar

from amos_ref.checks import Arrays, named_arrays
from amos_ref.errors import LayoutError
from amos_ref.kernels.layout import LastLayout
from amos_ref.mpi.agreement import Agreement, Found, NotFinite, Plan
from amos_ref.mpi.cutting import slot_shapes
from amos_ref.mpi.layout import Layout
from amos_ref.mpi.parts import Parts
from amos_ref.mpi.ranks import Ranks
from amos_ref.mpi.saving import name_parts, write_together
from amos_ref.mpi.windows import on_host
from amos_ref.optimizers.interrupt import InterruptGuard
from amos_ref.optimizers.scale import DefaultEta, measures
from amos_ref.optimizers.trace import Trace
from amos_ref.storage.checkpoint import Path

T = TypeVar("T")


class Sharded:
    """An optimizer that steps the parts of parameters that each rank has, with the bits of one process.

    All ranks call the same methods in the same order. An error of any rank is raised on every rank, before anything is
    written; the communicator can be used after it. A signal with a handler in Python, such as Ctrl-C, waits until what
    the ranks do together is done.

    Parameters
    ----------
    opt : Amos or ClosedFormAmos
        Rules see the names and shapes of whole leaves. A callable direction is given the part of a gradient, so its
        entries must not depend on one another. With backend "cuda" the parts lie on a GPU of the rank's own or one that
        several ranks share; `step` alone computes there, and ranks send sums from the memory of their host.
    layout : Layout
        The same on all ranks.
    comm : mpi4py.MPI.Comm, optional
        By default ``MPI.COMM_WORLD``.
    timeout : float, optional
        How many seconds a rank waits for the others, in whatever they do together, before a RankError, after which the
        job must end; by default for ever. Rank 0 writes files meanwhile: a minute may be too little for large ones.

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
    HyperParameterError
        If `timeout` is not a number of seconds, or `opt` is another optimizer.

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
        self._agreement = Agreement(self._ranks, layout.shapes if isinstance(layout, Layout) else ())
        self._given: Any = None
        self._optimizer: Any = None
        with InterruptGuard():
            self._agreement.together("Sharded", self._check)

    def _check(self) -> None:
        """Raise if these cannot be stepped, here or on any other rank."""
        layout = self.layout
        self._ranks.check()
        if not isinstance(layout, Layout):
            raise LayoutError(f"layout is {layout!r:.60}; it must be a Layout")
        if layout.ranks != self._ranks.size:
            raise LayoutError(f"the layout is for {layout.ranks} ranks; the communicator has {self._ranks.size}")
        slot_shapes(self.opt, {})  # raises what is wrong with another optimizer
        options = self._view._extent.options
        kind = {"layout": layout.to_json(), "optimizer": type(self.opt).__name__}
        self._agreement.agree(None, Plan(**kind, options=options), None)

    @property
    def _view(self) -> Any:
        """The optimizer as it steps parts; it follows whoever sets an option of the given one."""
        options, given = self.opt.options, self._given
        if options is given:
            return self._optimizer
        rate_alone = given is not None and all(
            options[name] is given.get(name) for name in options if name != "learning_rate"
        )
        if rate_alone:
            self._optimizer.__dict__["options"] = options
        else:
            self.layout.check(self.opt)
            view = copy.copy(self.opt)
            parts = Parts(self.layout, self.opt, self._ranks, self._agreement)
            view.__dict__["_last"], view.__dict__["_extent"] = LastLayout(), parts
            self._optimizer = view
        self._given = options
        return self._optimizer

    def init(self, params: Any) -> Any:
        """Return the state of the parts before the first step, as ``opt.init`` does.

        Parameters
        ----------
        params : tree of arrays
            The parts that this rank has, of the same dtype on every rank; None for a leaf that is whole on another
            rank.
        """
        with InterruptGuard():
            return self._init(params)

    def _init(self, params: Any) -> Any:
        def look() -> tuple[Any, Arrays | None]:
            view = self._view
            thetas = named_arrays(view._backend.as_arrays(params, "params"))
            rules = [view.options[name] for name in ("eta", "sigma") if name in view.options]
            measured = any(measures(rule) or isinstance(rule, DefaultEta) for rule in rules)
            here = {name: on_host(theta) for name, theta in thetas.items()} if measured else None
            self._agreement.agree(None, view._extent.plan(thetas), None)
            return view, here

        view, here = self._agreement.together("init", look)
        if here is not None:
            view._extent.measure(here)
        return self._agreement.together("init", lambda: view.init(params))

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

        def look() -> tuple[Any, dict[str, Any]]:
            view = self._view
            plan = view._extent.plan(named_arrays(view._backend.as_arrays(params, "params")))
            arrays = name_parts(params, state, view)
            self._agreement.agree(None, plan, None)
            return view, arrays

        with InterruptGuard():
            view, arrays = self._agreement.together("save", look, getattr(state, "count", None))
            write_together(path, arrays, state, view, view._extent)

    def _step(self, doing: str, grads: Any, state: Any, params: Any, call: Callable[[], T]) -> T:
        """Call together; signals wait for that, so that no rank waits for one that was interrupted."""
        result: Any = None
        try:
            with InterruptGuard():
                try:
                    result = self._agreement.together(doing, call, getattr(state, "count", None))
                except NotFinite as error:
                    self._agreement.raise_not_finite(error.args[0], self._find(error.args[0], grads, state, params))
        except BaseException as error:
            if doing == "step" and result is not None:
                with contextlib.suppress(Exception):
                    error.amos_state = result  # pyright: ignore[reportAttributeAccessIssue]
            raise
        return result

    def _find(self, name: str, grads: Any, state: Any, params: Any) -> Found | None:
        """Return what is not finite in the part of a leaf that is here, if there is one."""
        view = self._view
        parts = view._extent
        if parts.here[name] is None:
            return None
        try:
            rates = view._rates_of(state)
            leaf = next(leaf for leaf in view._prepare(grads, state, params).leaves if leaf.name == name)
            return parts.look(leaf, rates)
        except Exception:  # the caller's code has changed its mind
            return None

    def __repr__(self) -> str:
        return f"Sharded({self.opt!r}, {self.layout!r}, rank={self.rank})"
