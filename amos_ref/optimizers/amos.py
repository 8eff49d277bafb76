"""Amos over parameter trees: init, update, step, trace."""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec, tree
from amos_ref.checks import check_array, check_finite, check_shape, check_written, named_arrays, named_gradients
from amos_ref.dtypes import rounded
from amos_ref.errors import BackendError
from amos_ref.kernels import Kept, check_backend, load_backend
from amos_ref.kernels.cuda import arrays as device
from amos_ref.optimizers.interrupt import Whole
from amos_ref.optimizers.leaf import Leaf, Rates, computed, refuse
from amos_ref.optimizers.state import AmosState, check_state, check_state_values
from amos_ref.optimizers.trace import Trace
from amos_ref.options import check_options, learning_rate_at
from amos_ref.rules import Shape, eta_of, slot_shape_of


class Amos:
    """Paper Amos (Tian & Parikh 2022): adaptive steps whose size and weight decay fall by themselves.

    For each slot of a parameter array theta with gradient g, at step t = 1, 2, ...::

        v     = beta v + (1 - beta) mean(g^2)         r = (1 - beta^t) / max(v, epsilon)
        gamma = xi^2 r mean(g^2) / sqrt(1 + c_coef sqrt(xi) b)
        theta = theta - (xi eta sqrt(r) g + (gamma/2 + extra_l2) theta) / (1 + d_coef sqrt(xi eta) b)
        b     = b + gamma (1 + b)

    Parameters
    ----------
    learning_rate : float or callable
        xi >= 0, or a schedule called with the step t, from 1. The authors advise about 1/sqrt(N) for N
        independent batches in the training set.
    eta : float, callable, mapping or rules.Preset
        The scale > 0 that a leaf's trained entries are expected to have: a number, ``eta(name, shape)``,
        ``{regex: number or expression in SHAPE}``, or one of ``amos_ref.rules.PAPER_FLAX``, ``PAPER_TORCH``.
    slot_shape : {"tensor", "element"}, callable, mapping or rules.Preset
        The shape of v and b, which broadcasts to the leaf's shape; axes of size 1 are averaged over. "tensor"
        is (), one slot for the array; "element" is the full shape.
    beta : float
        In [0, 1): decay of the second moment; 1 - beta of xi's order is advised.
    momentum : float, optional
        In [0, 1): decay of the averaged change; None or 0 for none.
    clip_value : float, optional
        > 0: gradients are clipped to [-clip_value, clip_value] first.
    extra_l2 : float
        >= 0: extra weight decay beside gamma/2.
    c_coef, d_coef : float
        >= 0: how fast the decay and the step fall with b.
    epsilon : float
        > 0: the least v that is divided by.
    state_dtype : {"float64", "param"}
        How v, b and m are stored; "param" takes each parameter's own dtype, as frameworks do. The arithmetic
        is float64 always; storing rounds once.
    backend : {"auto", "numpy", "cpu", "cuda"}
        What computes :meth:`step`: the page itself in NumPy, the compiled CPU kernels ("auto"), or CUDA kernels, for
        arrays on a GPU. The bits are the same.
    validate : bool
        Look at every parameter and state value on each step and refuse what is not finite.

    Raises
    ------
    HyperParameterError
        If an option is of the wrong type or out of its range.
    BackendError
        If the backend does not exist or is not available.

    References
    ----------
    Tian and Parikh, "Amos: An Adam-style Optimizer with Adaptive Weight Decay towards Model-Oriented Scale",
    arXiv 2210.11693. Where paper and authors' code differ, the code (jestimator 0.3.3, amos.py) is followed.

    Examples
    --------
    >>> import numpy as np, amos_ref
    >>> params = {"w": np.array([1.0, -2.0]), "b": np.array(0.0)}
    >>> opt = amos_ref.Amos(learning_rate=0.1, eta=0.5)
    >>> state = opt.init(params)
    >>> grads = {"w": np.array([3.0, 4.0]), "b": np.array(1.0)}
    >>> updates, state = opt.update(grads, state, params)
    >>> amos_ref.apply_updates(params, updates)
    {'w': array([ 0.95257359, -2.04656854]), 'b': array(-0.05)}
    """

    state_type = AmosState

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 1e-3,
        eta: Any = 0.5,
        slot_shape: Any = "tensor",
        *,
        beta: float = 0.999,
        momentum: float | None = None,
        clip_value: float | None = None,
        extra_l2: float = 0.0,
        c_coef: float = 0.25,
        d_coef: float = 0.25,
        epsilon: float = 2.0**-125,
        state_dtype: str = "float64",
        backend: str = "auto",
        validate: bool = False,
    ) -> None:
        self.options = check_options(
            learning_rate=learning_rate,
            eta=eta,
            slot_shape=slot_shape,
            beta=beta,
            momentum=momentum,
            clip_value=clip_value,
            extra_l2=extra_l2,
            c_coef=c_coef,
            d_coef=d_coef,
            epsilon=epsilon,
            state_dtype=state_dtype,
            backend=backend,
            validate=validate,
        )
        check_backend(backend)
        self._rules: dict[tuple[str, Shape], tuple[float, Shape]] = {}
        self._kept = Kept()

    def __repr__(self) -> str:
        return f"Amos({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    @property
    def averages(self) -> bool:
        """Whether the state holds m."""
        return bool(self.options["momentum"])

    def init(self, params: Any) -> AmosState:
        """Return the state before the first step: count 0 and zeros.

        Parameters
        ----------
        params : array, or nested dict, list or tuple of arrays
            Of dtype float16, bfloat16 (ml_dtypes), float32 or float64. They are read, not kept.

        Raises
        ------
        DtypeError, NonFiniteError, RuleError, TreeError
            If a leaf is no such array, holds NaN or infinity, has no eta or slot shape, or shares its name.
        """
        thetas = named_arrays(device.as_device_tree(params, "params") if self._cuda else params)
        for name, theta in thetas.items():
            check_finite(theta, f"params leaf {name!r}")
        filled = load_backend("cuda").zeros_beside(thetas) if self._cuda else np.zeros

        def zeros(slot: bool) -> dict[str, Any]:
            return {
                name: filled(self._rule(name, a.shape)[1] if slot else a.shape, self._state_dtype(a.dtype))
                for name, a in thetas.items()
            }

        return AmosState(0, zeros(True), zeros(True), zeros(False) if self.averages else None)

    def update(self, grads: Any, state: AmosState, params: Any) -> tuple[Any, AmosState]:
        """Compute one step and change nothing: ``(updates, new state)``, in optax's order of arguments.

        Parameters
        ----------
        grads : tree like `params`
            Gradients, of any of the four dtypes; None for a leaf that this step skips. A NumPy number is taken for
            a 0-d array.
        state : AmosState
        params : tree of arrays

        Returns
        -------
        updates : tree like `params`
            delta per leaf, float64, not rounded: :func:`apply_updates` adds and rounds. A skipped leaf has
            -0.0 everywhere, the number that changes no bit when added.
        state : AmosState
            A new state; arrays of skipped leaves are shared with the old one.

        Raises
        ------
        DtypeError, ShapeError, TreeError, StateError, NonFiniteError, ScheduleError
            As the input deserves.
        """
        self._only_numpy("update")
        thetas, leaves, rates = self._prepare(grads, state, params)
        deltas = {name: np.full(a.shape, -0.0) for name, a in thetas.items()}
        v, b, m = dict(state.v), dict(state.b), None if state.m is None else dict(state.m)
        for leaf in leaves:
            after = computed(leaf, rates)
            deltas[leaf.name] = np.asarray(after["delta" if leaf.m is None else "m"])
            v[leaf.name], b[leaf.name] = rounded(after["v"], leaf.v), rounded(after["b"], leaf.b)
            if m is not None and leaf.m is not None:
                m[leaf.name] = rounded(after["m"], leaf.m)
        return tree.unflatten(deltas, params), AmosState(int(state.count) + 1, v, b, m)

    def step(self, params: Any, grads: Any, state: AmosState, *, stream: Any = None, sync: bool = True) -> AmosState:
        """Compute one step in place: the arrays of `params` and of `state` are overwritten.

        The bits are those of :meth:`update` followed by :func:`apply_updates`, on every backend and with any number
        of threads. On an error nothing is written. Ctrl-C takes effect after the whole step; the KeyboardInterrupt then
        has the new state as its attribute ``amos_state``.

        Parameters
        ----------
        params : tree of writeable arrays
            None of them may share memory with another, nor with a gradient or a state array.
        grads : tree like `params`
            None for a leaf that this step skips.
        state : AmosState
            Its arrays are overwritten; use the returned state from here on.
        stream : CUDA stream, optional
            Of Numba, CuPy, torch or cuda.core, or its handle: where backend "cuda" runs the step, by default in the
            default stream. If it is being captured into a graph, the step is recorded, not run, and the state returned
            as it is: see :meth:`advance`.
        sync : bool
            Whether backend "cuda" waits for the step. Otherwise :meth:`synchronize` raises the NonFiniteError; the step
            of a gradient that is not finite, and all steps until then, write nothing.

        Returns
        -------
        AmosState
            The same arrays under the next count.

        Raises
        ------
        ReadOnlyError, OverlapError
            If an array cannot be written in place.
        DtypeError, ShapeError, TreeError, StateError, NonFiniteError, ScheduleError
            As in :meth:`update`.
        """
        launch = self._launch(stream, sync)
        plan = None if self.options["validate"] else self._kept.take()
        if plan is not None and plan.fits(params, grads, state):
            work, leaves, rates = plan.work, [], self._rates(state.count + 1)
        else:
            if self._cuda:
                self._leave(plan, stream)
            thetas, leaves, rates = self._prepare(grads, state, params)
            held = device.as_device_state(state) if self._cuda else state
            written = {"parameter": thetas, "state v": held.v, "state b": held.b, "state m": held.m}
            check_written(written, {leaf.name: leaf.g for leaf in leaves})
            work = load_backend(self.options["backend"]).Work(leaves)
            plan = work.plan(params, grads, state)
        new = state._replace(count=int(state.count) + 1)
        try:
            with Whole(new):
                bad = work.run(leaves, rates, **launch)
        finally:
            if plan is not None:
                self._kept.put(plan)
        if bad >= 0:
            refuse(self._prepare(grads, state, params)[1][bad], rates)
        return state if self._cuda and work.recorded else new

    def advance(self, state: AmosState, *, stream: Any = None) -> AmosState:
        """Make ready for one replay of a recorded step: put its learning rate and 1 - beta^t on the device.

        Parameters
        ----------
        state : AmosState
        stream : CUDA stream, optional
            The one in which the graph is replayed next.

        Returns
        -------
        AmosState
            The state after the replay.

        Raises
        ------
        BackendError
            If there is no recorded step.
        ScheduleError
            As in :meth:`update`.
        """
        plan = self._kept.peek() if self._cuda else None
        if plan is None:
            raise BackendError("advance needs a step of backend 'cuda' before it, recorded into a graph")
        new = state._replace(count=int(state.count) + 1)
        plan.work.advance(self._rates(new.count), stream)
        return new

    def synchronize(self, *, stream: Any = None) -> None:
        """Wait for the steps of backend "cuda" in a stream.

        Raises
        ------
        NonFiniteError
            If a gradient was not finite since the host last waited: that step and all after it wrote nothing.
        """
        plan = self._kept.peek() if self._cuda else None
        if plan is not None:
            plan.work.synchronize(stream)

    def trace(self, grads: Any, state: AmosState, params: Any) -> "Trace":
        """Return every intermediate of one step, per leaf; nothing is changed.

        Examples
        --------
        >>> import numpy as np, amos_ref
        >>> opt = amos_ref.Amos(learning_rate=0.1, eta=0.5)
        >>> params = np.array([1.0, -2.0])
        >>> trace = opt.trace(np.array([3.0, 4.0]), opt.init(params), params)
        >>> float(trace[""]["g2"]), float(trace[""]["gamma"])
        (12.5, 0.010000000000000002)
        """
        self._only_numpy("trace")
        _, leaves, rates = self._prepare(grads, state, params)
        return Trace(int(state.count) + 1, rates, {leaf.name: (leaf, computed(leaf, rates)) for leaf in leaves})

    @property
    def _cuda(self) -> bool:
        return self.options["backend"] == "cuda"

    def _only_numpy(self, method: str) -> None:
        if self._cuda:
            raise BackendError(f"{method} computes in NumPy; with backend 'cuda' there is step, in place")

    def _launch(self, stream: Any, sync: bool) -> dict[str, Any]:
        """Return what is said of the launch, which only backend "cuda" has."""
        if not self._cuda and (stream is not None or sync is not True):
            raise BackendError(f"stream and sync are for backend 'cuda', not {self.options['backend']!r}")
        return dict(stream=stream, sync=bool(sync) or self.options["validate"]) if self._cuda else {}

    def _leave(self, plan: Any, stream: Any) -> None:
        """Give up a plan that does not fit; where a recording forbids that, keep it and raise BackendError."""
        try:
            load_backend("cuda").leave(plan, stream)
        except BackendError:
            if plan is not None:
                self._kept.put(plan)
            raise

    def _prepare(self, grads: Any, state: AmosState, params: Any) -> tuple[dict[str, np.ndarray], list[Leaf], Rates]:
        """Check everything that one step is given: all parameters, the leaves to step, the step's numbers."""
        if self._cuda:
            params, grads, state = (
                device.as_device_tree(params, "params"),
                device.as_device_tree(grads, "grads"),
                device.as_device_state(state),
            )
        thetas = named_arrays(params)
        gradients = named_gradients(grads, thetas)
        rules = {name: self._rule(name, a.shape) for name, a in thetas.items()}
        shapes = {name: (a.shape, rules[name][1]) for name, a in thetas.items()}
        dtypes = {name: self._state_dtype(a.dtype) for name, a in thetas.items()}
        check_state(state, shapes, dtypes, momentum=self.averages)
        leaves = []
        for name, g in gradients.items():
            m = None if state.m is None else state.m[name]
            leaves.append(Leaf(name, thetas[name], g, state.v[name], state.b[name], m, rules[name][0]))
        if self.options["validate"]:
            for name, theta in thetas.items():
                check_finite(theta, f"params leaf {name!r}")
            check_state_values(state)
        return thetas, leaves, self._rates(int(state.count) + 1)

    def _rates(self, t: int) -> Rates:
        o = self.options
        shared = {name: o[name] for name in Rates._fields[2:]}
        shared["momentum"] = o["momentum"] or None
        return Rates(spec.one_minus_power(o["beta"], t), learning_rate_at(o["learning_rate"], t), **shared)

    def _rule(self, name: str, shape: Shape) -> tuple[float, Shape]:
        key = (name, shape)
        if key not in self._rules:
            self._rules[key] = (
                eta_of(self.options["eta"], name, shape),
                slot_shape_of(self.options["slot_shape"], name, shape),
            )
        return self._rules[key]

    def _state_dtype(self, dtype: np.dtype) -> np.dtype:
        wanted = self.options["state_dtype"]
        return dtype if wanted == "param" else np.dtype(wanted)


def apply_updates(params: Any, updates: Any) -> Any:
    """Return new parameters: ``theta + delta`` in float64, rounded once to the parameter's dtype.

    Parameters
    ----------
    params : tree of arrays
    updates : tree like `params`
        What :meth:`Amos.update` returned.

    Raises
    ------
    TreeError, DtypeError, ShapeError
        If `updates` is no tree of float arrays like `params`.
    """
    thetas = tree.flatten(params)
    deltas = tree.match(tree.flatten(updates, "updates"), thetas, "updates")
    new = {}
    for name, theta in thetas.items():
        check_array(theta, f"params leaf {name!r}")
        delta = check_array(deltas[name], f"update of leaf {name!r}")
        check_shape(delta, theta.shape, f"update of leaf {name!r}")
        with np.errstate(all="ignore"):
            new[name] = rounded(theta.astype(np.float64) + delta.astype(np.float64), theta)
    return tree.unflatten(new, params)
