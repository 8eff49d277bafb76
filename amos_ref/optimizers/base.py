"""What every optimizer of the package does in the same way: check, lay out, step, keep the layout, count.

A step is taken in three parts. *Prepare*: check all that is given, or see that it is what the last step was given.
*Run*: hand leaves and numbers to the backend. *Finish*: return the state under its next count, or raise with nothing
written. A member of the family says what its options and its state are, and how a slot's step size and weight decay
are decided.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays, check_finite, check_shape, check_written, named_arrays, named_gradients
from amos_ref.dtypes import Shape, round_like, vanishes
from amos_ref.float_mode import check_mode
from amos_ref.foreign import mark_written, tensors_of
from amos_ref.groups import is_frozen, is_neutral, warn_of_shadows, warn_of_unused
from amos_ref.kernels import BACKENDS, Backend, Method, check_backend, load_backend
from amos_ref.kernels.layout import KeptLayout, LastLayout
from amos_ref.kernels.shared import pages
from amos_ref.optimizers.bound import Bindable
from amos_ref.optimizers.configured import Configured
from amos_ref.optimizers.extent import WHOLE, Whole
from amos_ref.optimizers.interrupt import InterruptGuard
from amos_ref.optimizers.leaf import Prepared, aim, refuse_gradient
from amos_ref.optimizers.state import PARTS, as_count, check_state, check_state_values, warn_once
from amos_ref.optimizers.trace import Lines, Trace
from amos_ref.optimizers.turn import Taking, check_unused, share


class Optimizer(Configured, Bindable, abc.ABC):
    """Base of the optimizers. A member defines what follows, and calls ``super().__init__(**options)``.

    Attributes
    ----------
    options : mapping
        What it was made with, read-only; each is an attribute too.
    state_type : type
        A NamedTuple of `optimizers/state.py`: a count, and dicts of arrays by leaf name.
    method, own_method : Method
        What backends compute; and where a leaf has numbers of its own, which take more registers of a GPU.
    lines : tuple
        What a trace prints of each stage.
    first_step : int
        The t of the step that is taken at count 0.
    backends : tuple of str
        Those that can compute it.
    example : dict
        Options for a small example with leaves "kernel" and "bias", in which every term of the algorithm counts.
    """

    state_type: type
    method: ClassVar[Method]
    own_method: ClassVar[Method]
    lines: ClassVar[Lines]
    first_step: ClassVar[int] = 1
    backends: ClassVar[tuple[str, ...]] = tuple(BACKENDS)
    example: ClassVar[dict[str, Any]] = {}
    _extent: Whole = WHOLE
    _directs_by_callable = False  # `_directions` calls the caller's code; elsewhere leaves have their gradients

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_backend(options.get("backend", "numpy"), self.backends)
        warn_of_shadows(self.options)
        self._rules: dict[tuple[str, Shape], Any] = {}
        self._frozen: dict[tuple[str, Shape], bool] = {}
        self._last = LastLayout()
        self._warned: set[str] = set()  # the leaves that a warning has named

    # what a member says

    @property
    @abc.abstractmethod
    def averages(self) -> bool:
        """Whether the state holds the parts that are optional."""

    @abc.abstractmethod
    def _rates(self, count: int) -> Any:
        """Return the numbers of the step at this count (see :class:`amos_ref.kernels.Rates`)."""

    @abc.abstractmethod
    def _rule(self, name: str, shape: Shape) -> Any:
        """Return what the rules give for a leaf, as a tuple; the slot's shape is the last of it."""

    @abc.abstractmethod
    def _start(self, thetas: Arrays, place: Any) -> Any:
        """Return the state before the first step; ``place(a)`` puts an array of it where the parameters lie."""

    @abc.abstractmethod
    def _leaf(self, name: str, theta: Any, direction: Any, state: Any, rule: Any) -> Any:
        """Return a leaf of the step."""

    def _method(self, leaves: list[Any]) -> Method:
        """Return what backends compute with these options and for these leaves."""
        return self.method if all(is_neutral(leaf.own) for leaf in leaves) else self.own_method

    def _directions(self, gradients: Arrays, state: Any) -> Arrays:
        """Return what each leaf has as g; of a callable C-contiguous float64 arrays."""
        return gradients

    def _state_dtype(self, dtype: np.dtype) -> np.dtype:
        """Return how the state of a leaf of this dtype is stored."""
        return np.dtype(np.float64)

    # what is done for all

    def init(self, params: Any) -> Any:
        """Return the state before the first step, whose count is 0.

        Parameters
        ----------
        params : array, or nested dict, list or tuple of arrays
            Of dtype float16, bfloat16 (ml_dtypes), float32 or float64. The state keeps none of them.

        Returns
        -------
        NamedTuple
            :class:`amos_ref.AmosState`, or the state of this optimizer's own type.

        Raises
        ------
        DtypeError, NonFiniteError, RuleError, TreeError
            If a leaf is not such an array, if it holds NaN or infinity, if a rule gives nothing that is right for it,
            or if two leaves have the same name.
        """
        check_mode()
        thetas = named_arrays(self._backend.as_arrays(params, "params"))
        whole = self._extent.shapes(thetas)
        for name, theta in thetas.items():
            check_finite(theta, f"params leaf {name!r}", origin=self._extent.origin(name))
        state = self._start(thetas, self._backend.placing(thetas))
        for name, shape in whole.items():
            self._is_frozen(name, shape)
        warn_of_unused(self.options, self._extent.names(thetas))
        return state

    def update(self, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """Compute one step without changing anything. The order of the arguments is that of optax.

        Parameters
        ----------
        grads : tree like `params`
            The gradients, of any of the four dtypes, with None for a leaf that this step skips. A NumPy number counts
            as a 0-d array.
        state : NamedTuple
            What :meth:`init` or the last step returned.
        params : tree of arrays
            The parameters, for which :meth:`init` was called.

        Returns
        -------
        updates : tree like `params`
            The change of each leaf in float64, before it is rounded: :func:`amos_ref.apply_updates` adds it and
            rounds. For a skipped leaf it is -0.0 everywhere, which changes no bit when it is added.
        state : NamedTuple
            The new state. It shares the arrays of skipped leaves with the old one.

        Raises
        ------
        DtypeError, ShapeError, TreeError
            If a leaf is not an array that can be stepped, if a gradient has another shape than its parameter, or if
            the trees differ.
        StateError
            If the state does not belong to these parameters and options, or if it was stepped in place before.
        FloatModeError
            If the processor does not compute as IEEE 754 says.
        NonFiniteError
            If a gradient, or the sum of its squares, is not finite.
        ScheduleError
            If a schedule raises, or returns something that is not a number in its range.
        """
        self._backend.check_host("update")
        rates = self._rates_of(state)
        ready = self._prepare(grads, state, params)
        check_mode()
        deltas = {name: np.full(a.shape, -0.0) for name, a in ready.thetas.items()}
        named = zip(state._fields[1:], state[1:], strict=True)
        parts: dict[str, Any] = {part: None if a is None else dict(a) for part, a in named}
        vanished = []
        for leaf, after in pages(ready.leaves, self.method, rates, self._extent.sharing):
            deltas[leaf.name] = np.asarray(after["delta" if leaf.momentum is None else "m"])
            for part, old in leaf.written().items():
                if part != "theta":
                    parts[part][leaf.name] = round_like(after[part], old)
            if leaf.state and vanishes(after["g2"], parts["v"][leaf.name]):
                vanished.append(leaf.name)
        new = type(state)(int(state.count) + 1, **parts)
        if vanished:
            warn_once(self._warned, vanished, int(new.count) - 1 + self.first_step)
        return tree.unflatten(deltas, params), share(new, state) if len(ready.leaves) < len(ready.thetas) else new

    def step(self, params: Any, grads: Any, state: Any, *, stream: Any = None, sync: bool = True) -> Any:
        """Compute one step in place, which overwrites the arrays of `params` and of `state`.

        The bits are those of :meth:`update` followed by :func:`amos_ref.apply_updates`, on every backend and with any
        number of threads. If the step raises, nothing was written. A signal with a handler in Python waits until the
        step is complete. If its handler raises, as it does with KeyboardInterrupt after Ctrl-C, the exception carries
        the new state as ``amos_state``.

        Parameters
        ----------
        params : tree of writeable arrays
            None of them may share memory with another one, with a gradient or with an array of the state.
        grads : tree like `params`
            The gradients, with None for a leaf that this step skips.
        state : NamedTuple
            Its arrays are overwritten, and it cannot be used again: go on with the returned state. A step that raises
            leaves it as it was.
        stream : CUDA stream, optional
            A stream of Numba, CuPy, torch or cuda.core, or its handle, in which a backend on a GPU runs the step. By
            default it is the default stream. If the stream is being captured into a graph, the step is recorded
            instead of run, and the state is returned as it is: see :meth:`advance`.
        sync : bool
            Whether a backend on a GPU waits for the step. If it does not, :meth:`synchronize` raises the
            NonFiniteError, and neither the step of the gradient that is not finite nor any step until then writes.

        Returns
        -------
        NamedTuple
            The state after the step, with the same arrays and the next count.

        Raises
        ------
        ReadOnlyError, OverlapError
            If an array cannot be written in place.
        BackendError
            If the backend cannot step these arrays, or not in this stream.
        FloatModeError, DtypeError, ShapeError, TreeError, StateError, NonFiniteError, ScheduleError
            As in :meth:`update`.

        Examples
        --------
        >>> import numpy as np, amos_ref
        >>> params, opt = np.array([1.0, -2.0]), amos_ref.Amos(learning_rate=0.1, eta=0.5)
        >>> state = opt.step(params, np.array([3.0, 4.0]), opt.init(params))
        >>> state.count, params.round(4).tolist()
        (1, [0.9526, -2.0466])
        """
        self._backend.check_launch(stream, sync)
        validate = self.options.get("validate", False)
        rates = self._rates_of(state)
        layout = None if validate else self._last.take()
        try:
            given, aimed = (None, None) if layout is None else self._aim(layout, params, grads, state)
            if layout is None or given is None:
                work, layout, ready = self._lay_out(layout, params, grads, state, aimed, stream)
                names, directions = [leaf.name for leaf in ready.leaves], ready.directions
            else:
                work, names = layout.work, layout.stepping
                directions = given[0][layout.fixed :] if aimed is None else list(aimed.values())
                work.take(directions, given[1] if aimed is None else None)
            bad, new = self._take(work, names, rates, state, {"stream": stream, "sync": sync or validate})
        finally:
            if layout is not None:
                self._last.put(layout)
        if bad >= 0:
            self._refuse(names[bad], directions[bad], state, rates)
        if layout is None or layout.tensors:
            mark_written(tensors_of(params, names))
        return new

    def _take(self, work: Any, names: list[str], rates: Any, state: Any, launch: dict[str, Any]) -> tuple[int, Any]:
        """Take the step that is laid out; return the leaf that is not finite, or -1, and the state from here on."""
        check_mode()
        taking = Taking(state, self.first_step)
        try:
            if work.at_once:
                bad = taking.run(work, rates)
            else:
                with InterruptGuard():
                    bad = taking.run(work, rates, at=self._at(state), **launch)
            if work.vanished:
                warn_once(self._warned, [names[k] for k in work.vanished], taking.t)
            return bad, taking.new if taking.done else state
        except BaseException as error:
            taking.hand_over(error)
            raise

    def trace(self, grads: Any, state: Any, params: Any) -> Trace:
        """Return every intermediate of one step for each leaf, without changing anything.

        The arguments and the errors are those of :meth:`update`.
        """
        self._backend.check_host("trace")
        rates = self._rates_of(state)
        ready = self._prepare(grads, state, params)
        check_mode()
        found = pages(ready.leaves, self.method, rates, self._extent.sharing)
        steps = {leaf.name: (leaf, self._stages(leaf, dict(after), ready, rates)) for leaf, after in found}
        return Trace(int(state.count) + self.first_step, rates, steps, self.lines)

    def _stages(self, leaf: Any, after: dict[str, Any], ready: Prepared, rates: Any) -> dict[str, Any]:
        """Return what a trace shows of a leaf's step, of which the page has computed all this."""
        return after

    @property
    def _backend(self) -> Backend:
        return load_backend(self.options.get("backend", "numpy"))

    def _rates_of(self, state: Any) -> Any:
        """Return the numbers of the next step, before anything is looked at: a schedule is the caller's code.

        Raise StateError for a state that was stepped in place.
        """
        check_unused(state)
        count = as_count(getattr(state, "count", None))
        return None if count is None else self._rates(count)  # the check of the state says what is wrong

    def _prepare(self, grads: Any, state: Any, params: Any, directions: Arrays | None = None) -> Prepared:
        """Check everything that one step is given, and its directions if they are known.

        Rules and directions may be callables, which are the caller's code and could change the very arrays that were
        checked. So whatever was looked at before they were called is looked at once more afterwards.
        """
        backend, given = self._backend, state
        thetas = named_arrays(backend.as_arrays(params, "params"))
        whole = self._extent.shapes(thetas)
        asked = any((name, shape) not in self._rules for name, shape in whole.items())
        frozen = {name for name, shape in whole.items() if self._is_frozen(name, shape)}
        gradients = named_gradients(backend.as_arrays(grads, "grads"), thetas, frozen)
        state = backend.as_state(state)
        rules = {name: self._rule_here(name, shape) for name, shape in whole.items()}
        shapes = {name: (a.shape, rules[name][-1]) for name, a in thetas.items()}
        dtypes = {name: self._state_dtype(a.dtype) for name, a in thetas.items()}
        check_state(state, shapes, dtypes, self.state_type, optional=self.averages)
        if self.options.get("validate", False):
            for name, theta in thetas.items():
                check_finite(theta, f"params leaf {name!r}", origin=self._extent.origin(name))
            check_state_values(state)
        if directions is None:
            directions = self._directions(gradients, state)
            if asked or self._directs_by_callable:
                return self._prepare(grads, given, params, directions if self._directs_by_callable else None)
        else:
            for name, u in tree.match(directions, gradients, "directions").items():
                check_shape(u, thetas[name].shape, f"direction of leaf {name!r}")
        leaves = [self._leaf(name, thetas[name], u, state, rules[name]) for name, u in directions.items()]
        return Prepared(thetas, gradients, list(directions.values()), leaves, state)

    def _lay_out(
        self, last: KeptLayout | None, params: Any, grads: Any, state: Any, aimed: Arrays | None, stream: Any
    ) -> tuple[Any, KeptLayout | None, Prepared]:
        """Check everything, and lay out the work of this step and perhaps of the next ones."""
        self._backend.release(None if last is None else last.work, stream)
        ready = self._prepare(grads, state, params, aimed)
        constants = PARTS[self.state_type].constants
        parts = {part: getattr(ready.state, part) for part in ready.state._fields[1:]}
        written: dict[str, Any] = {"parameter": ready.thetas}
        written |= {f"state {part}": a for part, a in parts.items() if part not in constants}
        read = {f"state {part} of leaf {n!r}": a for part in constants for n, a in parts[part].items()}
        check_written(written, ready.gradients, read)
        work = self._extent.prepare(self._backend, ready.leaves, self._method(ready.leaves))
        if self.options.get("validate", False):
            return work, None, ready
        return work, KeptLayout.keep(self._backend, work, params, grads, state, list(ready.gradients)), ready

    def _aim(self, layout: KeptLayout, params: Any, grads: Any, state: Any) -> tuple[Any, Arrays | None]:
        """Return what the layout says of the arrays (None: it does not fit), and directions if a callable makes them.

        The arrays are held for as long as the step takes: another thread may take them out of the trees.
        """
        given = layout.match(params, grads, state)
        if given is None or not self._directs_by_callable:
            return given, None
        aimed = self._directions(dict(zip(layout.stepping, given[0][layout.fixed :], strict=True)), state)
        return layout.match(params, grads, state), aimed  # it could have changed what was compared before

    def _refuse(self, name: str, g: Any, state: Any, rates: Any) -> NoReturn:
        """Raise NonFiniteError for a leaf that a backend refused: its gradient, or the direction made of it."""
        g = self._backend.as_arrays(g, "grads")
        leaf = self._leaf(name, g, g, self._backend.as_state(state), self._rule_here(name, tuple(g.shape)))
        refuse_gradient(f"{leaf.source} of leaf {name!r}", aim(leaf, rates)[1], np.inf)

    def _has_rule(self, option: str) -> bool:
        """Whether an option is a rule, not one number for all leaves."""
        return isinstance(self.options[option], Mapping) or callable(self.options[option])

    def _is_frozen(self, name: str, shape: Shape) -> bool:
        key = (name, shape)
        if key not in self._frozen:
            self._frozen[key] = is_frozen(self.options.get("frozen", False), name, shape)
        return self._frozen[key]

    def _leaf_rule(self, name: str, shape: Shape) -> Any:
        key = (name, shape)
        if key not in self._rules:
            self._rules[key] = self._rule(name, shape)
        return self._rules[key]

    def _rule_here(self, name: str, shape: Shape) -> Any:
        """Return what the rules give for a leaf of this shape as a whole, with the shape of the slots that are here."""
        *others, slot = self._leaf_rule(name, shape)
        return (*others, self._extent.slot_of(name, slot))
