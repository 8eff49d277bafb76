"""ClosedFormAmos over parameter trees: init, update, step, trace."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from amos_ref import closed_form, kernels, tree
from amos_ref.adamw import adam
from amos_ref.checks import Arrays, check_array, check_finite, check_shape, check_written, named_arrays, named_gradients
from amos_ref.closed_form import Schedule
from amos_ref.errors import AmosError, DirectionError
from amos_ref.optimizers.interrupt import Whole
from amos_ref.optimizers.leaf import computed
from amos_ref.optimizers.state import ClosedFormState, check_state, check_state_values
from amos_ref.optimizers.trace import Trace
from amos_ref.options import check_options
from amos_ref.rules import Shape, positive, resolve, slot_shape_of

LINES = (
    ("g", "g = gradient"),
    ("m", "m = beta1 m + (1 - beta1) g"),
    ("v", "v = beta2 v + (1 - beta2) g^2"),
    ("u", "u = direction"),
    ("u2", "u2 = mean(u^2)"),
    ("alpha", "alpha = alpha_0 sigma/sqrt(u2) exp(-2S)"),
    ("rho", "rho = alpha_0^2/(2q) exp(-2S)"),
    ("delta", "delta = -(alpha u + rho theta)"),
    ("theta", "theta = theta + delta"),
    ("error", "predicted mean(eps^2) before the step"),
)


class ClosedRates(NamedTuple):
    """The numbers of one step that all leaves share, by the names of :func:`amos_ref.closed_form.decide`."""

    shrink: float  # exp(-2 S_t)
    alpha_0: float
    q: float
    epsilon: float

    chi = np.inf  # what the kernels clip at
    momentum = None


class ClosedLeaf(NamedTuple):
    """One parameter array with all that its step reads and writes."""

    name: str
    theta: np.ndarray
    g: np.ndarray  # the direction u, theta's shape
    slot: Shape
    sigma: float
    source: str  # what g is: "gradient" or "direction"

    m = None  # momentum, which the kernels know
    mean = "u2"  # the stage that is not finite where g is to blame

    @property
    def scale(self) -> str:
        return f"sigma={self.sigma:.6g}"

    def before(self) -> Arrays:
        """Return what the step starts from, for a trace."""
        return {"theta": self.theta}

    def decide(self, u2: np.ndarray, rates: ClosedRates) -> tuple[np.ndarray, np.ndarray]:
        """Return alpha and rho per slot."""
        return closed_form.decide(u2, self.sigma, **rates._asdict())

    def stages(self, rates: ClosedRates) -> dict[str, Any]:
        """Return every intermediate of the leaf's step."""
        theta, u = self.theta.astype(np.float64), self.g.astype(np.float64)
        return closed_form.step(theta, u, self.sigma, self.slot, **rates._asdict())

    def written(self):
        """Yield what the backends overwrite, by its field's name."""
        yield "theta", self.theta


class Step(NamedTuple):
    """A step, checked and ready to be taken."""

    thetas: Arrays
    gradients: Arrays  # of the leaves that step
    averages: dict[str, Arrays]  # {"m": {leaf: new array}, "v": ...}, empty unless the direction is Adam's
    leaves: list[ClosedLeaf]
    rates: ClosedRates


class ClosedFormAmos:
    """The derivation's Amos: step size and weight decay follow one closed form. It is *not* paper Amos.

    For each slot of a parameter array theta with direction u, at step t = 0, 1, ...::

        alpha = alpha_0 sigma / sqrt(max(mean(u^2), epsilon)) exp(-2 S_t)
        rho   = alpha_0^2 / (2 q) exp(-2 S_t)
        theta = theta - (alpha u + rho theta)

    with exp(-2 S_t) = 1 / (1 + t / half_life), or another `decay`.

    Parameters
    ----------
    alpha_0 : float
        In (0, 1): the relative size of the first step; 1e-3, or 1e-2 for easy tasks.
    half_life, p_0 : float, optional
        Exactly one: the step at which alpha and rho are halved, or the cosine of direction and error at the start.
    decay, p_t, q
        As in :class:`amos_ref.closed_form.Schedule`.
    sigma : "init", float, callable, mapping or rules.Preset
        The distance > 0 that an entry is expected to have to travel. "init": the root mean square of the leaf's
        initial entries, 0.5 where all are 0 or all are 1. Otherwise a rule, as eta of :class:`amos_ref.Amos`; one of a
        mapping's values may be "init".
    slot_shape : {"tensor", "element"}, callable, mapping or rules.Preset
        As in :class:`amos_ref.Amos`; the document has one slot an array.
    direction : {"gradient", "adam", "sign"} or callable
        u: the gradient g; m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + adam_epsilon) after n = t + 1 gradients; the
        sign of g; or ``direction(name, g, t)``, an array of g's shape (g is a copy in float64).
    beta1, beta2, adam_epsilon : float
        Only for Adam's direction.
    epsilon : float
        > 0: the least mean(u^2) that is divided by.
    backend : {"auto", "numpy", "cpu"}
        What computes :meth:`step`; the bits are the same.
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
    Su Jianlin, kexue.fm archive 9344; :mod:`amos_ref.closed_form` has the derivation and its slips.

    Examples
    --------
    >>> import numpy as np, amos_ref
    >>> params = {"w": np.array([3.0, -4.0]), "b": np.array(0.0)}
    >>> opt = amos_ref.ClosedFormAmos(alpha_0=0.01, half_life=100)
    >>> state = opt.init(params)
    >>> {name: round(float(sigma), 4) for name, sigma in state.sigma.items()}
    {'b': 0.5, 'w': 3.5355}
    >>> state = opt.step(params, {"w": np.array([0.6, -0.8]), "b": np.array(2.0)}, state)
    >>> params
    {'w': array([ 2.96985, -3.9598 ]), 'b': array(-0.005)}
    """

    state_type = ClosedFormState

    def __init__(
        self,
        alpha_0: float = 1e-3,
        *,
        half_life: float | None = None,
        p_0: float | None = None,
        decay: str = "inverse-time",
        p_t: str | Callable[[int, float], float] | None = None,
        q: float = 1.0,
        sigma: Any = "init",
        slot_shape: Any = "tensor",
        direction: str | Callable[[str, np.ndarray, int], np.ndarray] = "gradient",
        beta1: float = 0.9,
        beta2: float = 0.999,
        adam_epsilon: float = 1e-8,
        epsilon: float = 2.0**-125,
        backend: str = "auto",
        validate: bool = False,
    ) -> None:
        schedule: dict[str, Any] = dict(alpha_0=alpha_0, half_life=half_life, p_0=p_0, decay=decay, p_t=p_t, q=q)
        self.options = check_options(
            **schedule,
            sigma=sigma,
            slot_shape=slot_shape,
            direction=direction,
            beta1=beta1,
            beta2=beta2,
            adam_epsilon=adam_epsilon,
            epsilon=epsilon,
            backend=backend,
            validate=validate,
        )
        self.schedule = Schedule(**schedule)
        kernels.check_backend(backend, cuda=False)
        self._slots: dict[tuple[str, Shape], Shape] = {}

    def __repr__(self) -> str:
        return f"ClosedFormAmos({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"

    @property
    def averages(self) -> bool:
        """Whether the state holds m and v."""
        return self.options["direction"] == "adam"

    def init(self, params: Any) -> ClosedFormState:
        """Return the state before the first step: count 0, sigma of every leaf, zeros for Adam's averages.

        Parameters
        ----------
        params : array, or nested dict, list or tuple of arrays
            Of dtype float16, bfloat16 (ml_dtypes), float32 or float64. They are read, not kept.

        Raises
        ------
        DtypeError, NonFiniteError, RuleError, TreeError
            If a leaf is no such array, holds NaN or infinity, has no sigma > 0 or no slot shape, or shares its name.
        """
        thetas = named_arrays(params)
        sigma = {}
        for name, theta in thetas.items():
            check_finite(theta, f"params leaf {name!r}")
            self._slot(name, theta.shape)
            sigma[name] = np.array(self._sigma(name, theta))

        def zeros() -> Arrays | None:
            return {name: np.zeros(theta.shape) for name, theta in thetas.items()} if self.averages else None

        return ClosedFormState(0, sigma, zeros(), zeros())

    def update(self, grads: Any, state: ClosedFormState, params: Any) -> tuple[Any, ClosedFormState]:
        """Compute one step and change nothing: ``(updates, new state)``; see :meth:`amos_ref.Amos.update`."""
        ready = self._prepare(grads, state, params)
        deltas = {name: np.full(a.shape, -0.0) for name, a in ready.thetas.items()}
        for leaf in ready.leaves:
            deltas[leaf.name] = np.asarray(computed(leaf, ready.rates)["delta"])
        averages = {part: getattr(state, part) | new for part, new in ready.averages.items()}
        return tree.unflatten(deltas, params), state._replace(count=int(state.count) + 1, **averages)

    def step(self, params: Any, grads: Any, state: ClosedFormState) -> ClosedFormState:
        """Compute one step in place, with the bits of :meth:`update`; see :meth:`amos_ref.Amos.step`."""
        ready = self._prepare(grads, state, params)
        written = {"parameter": ready.thetas, "state m": state.m, "state v": state.v}
        check_written(written, ready.gradients, {f"state sigma of leaf {n!r}": a for n, a in state.sigma.items()})
        new = state._replace(count=int(state.count) + 1)
        with Whole(new):
            kernels.step(self.options["backend"], ready.leaves, ready.rates)
            for part, arrays in ready.averages.items():
                for name, a in arrays.items():
                    getattr(state, part)[name][...] = a
        return new

    def trace(self, grads: Any, state: ClosedFormState, params: Any) -> Trace:
        """Return every intermediate of one step, per leaf; nothing is changed.

        Examples
        --------
        >>> import numpy as np, amos_ref
        >>> opt = amos_ref.ClosedFormAmos(alpha_0=0.25, half_life=100)
        >>> params = np.array([3.0, -4.0])
        >>> trace = opt.trace(np.array([0.6, -0.8]), opt.init(params), params)
        >>> float(trace[""]["rho"]), trace.rates.shrink
        (0.03125, 1.0)
        """
        ready = self._prepare(grads, state, params)
        steps = {}
        for leaf in ready.leaves:
            averages = {part: ready.averages.get(part, {}).get(leaf.name) for part in "mv"}
            error = leaf.sigma**2 * ready.rates.shrink
            found = dict(g=ready.gradients[leaf.name], **averages, **computed(leaf, ready.rates), error=error)
            steps[leaf.name] = leaf, found
        return Trace(int(state.count), ready.rates, steps, LINES)

    def _prepare(self, grads: Any, state: ClosedFormState, params: Any) -> Step:
        """Check everything that one step is given, and compute the directions."""
        thetas = named_arrays(params)
        gradients = named_gradients(grads, thetas)
        shapes = {name: (a.shape, ()) for name, a in thetas.items()}
        dtypes = dict.fromkeys(thetas, np.dtype(np.float64))
        check_state(state, shapes, dtypes, momentum=self.averages, kind=ClosedFormState)
        if self.options["validate"]:
            for name, theta in thetas.items():
                check_finite(theta, f"params leaf {name!r}")
            check_state_values(state)
        # A count of hundreds of digits is legal, and no float64.
        shrink = float(self.schedule.shrink(min(int(state.count), 2**1000)))
        rates = ClosedRates(shrink, *(self.options[name] for name in ClosedRates._fields[1:]))
        averages: dict[str, Arrays] = {"m": {}, "v": {}} if self.averages else {}
        leaves = []
        for name, g in gradients.items():
            u = self._direction(name, g, state, averages)
            word = "gradient" if u is g else "direction"
            sigma = float(state.sigma[name])
            leaves.append(ClosedLeaf(name, thetas[name], u, self._slot(name, g.shape), sigma, word))
        return Step(thetas, gradients, averages, leaves, rates)

    def _direction(self, name: str, g: np.ndarray, state: Any, averages: dict[str, Arrays]) -> np.ndarray:
        """Return u; Adam's new averages go into `averages`."""
        direction, count = self.options["direction"], int(state.count)
        if direction == "gradient":
            return g
        check_finite(g, f"gradient of leaf {name!r}", squared=True)
        wide = g.astype(np.float64)
        if callable(direction):
            return _called(direction, name, wide, count)
        if direction == "sign":
            return np.asarray(np.sign(wide))
        betas = {key: self.options[key] for key in ("beta1", "beta2", "adam_epsilon")}
        m, v, u = (np.asarray(a) for a in adam(wide, state.m[name], state.v[name], count + 1, **betas))
        averages["m"][name], averages["v"][name] = m, v
        return u

    def _sigma(self, name: str, theta: np.ndarray) -> float:
        value = resolve(self.options["sigma"], "sigma", name, theta.shape)
        if isinstance(value, str) and value == "init":
            with np.errstate(all="ignore"):
                value = closed_form.initial_sigma(theta.astype(np.float64))
        return positive(value, f"sigma of leaf {name!r}")

    def _slot(self, name: str, shape: Shape) -> Shape:
        key = (name, shape)
        if key not in self._slots:
            self._slots[key] = slot_shape_of(self.options["slot_shape"], name, shape)
        return self._slots[key]


def _called(direction: Callable[[str, np.ndarray, int], Any], name: str, g: np.ndarray, t: int) -> np.ndarray:
    """Return what a callable direction gives, or raise DirectionError."""
    where = f"direction of leaf {name!r}"
    shape = g.shape
    try:
        u = direction(name, g, t)
    except Exception as error:
        raise DirectionError(f"{where}: the callable raised {type(error).__name__}: {error}") from error
    try:
        check_shape(check_array(np.asarray(u) if isinstance(u, np.floating) else u, where), shape, where)
    except AmosError as error:
        raise DirectionError(str(error)) from None
    return np.array(u)  # it might be part of a parameter
