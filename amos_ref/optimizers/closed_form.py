"""The derivation's Amos over parameter trees."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.checks import Arrays, check_array, check_finite, check_shape
from amos_ref.closed_form import Schedule
from amos_ref.closed_form import decide as page_decide
from amos_ref.dtypes import Shape
from amos_ref.errors import AmosError, BackendError, DirectionError, RuleError
from amos_ref.groups import number_of
from amos_ref.kernels import Method
from amos_ref.optimizers.base import Optimizer
from amos_ref.optimizers.directions import Adam, Sign
from amos_ref.optimizers.leaf import DirectedLeaf, Prepared, aim, refuse_gradient
from amos_ref.optimizers.scale import scale_at_start
from amos_ref.optimizers.state import ClosedFormState
from amos_ref.optimizers.trace import Lines
from amos_ref.outside import pass_on
from amos_ref.rules import slot_shape_of

LINES = (
    ("g", "g = clip(gradient, -chi, chi)"),
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


#: How backends make directions; gradients and what callables make of them are moved along as they are.
DIRECTIONS: dict[str, type[Sign] | type[Adam]] = {"sign": Sign, "adam": Adam}
LEAST_FULL = 2.0**-1022  # from here on float64 numbers have all their bits


class ClosedRates(NamedTuple):
    """The numbers of one step that all leaves share; the first by the names of :func:`amos_ref.closed_form.decide`."""

    shrink: float  # exp(-2 S_t)
    alpha_0: float
    q: float
    epsilon: float
    clip_value: float | None = None
    aims: Sign | Adam | None = None

    mu = 0.0  # no momentum

    @property
    def numbers(self) -> tuple[float, ...]:
        """What :func:`amos_ref.closed_form.decide` takes behind sigma."""
        return self[:4]

    @property
    def chi(self) -> float:
        """Where gradients are clipped; infinity leaves them as they are."""
        return np.inf if self.clip_value is None else self.clip_value


def decide_own(
    u2: float, sigma: float, lr_factor: float, shrink: float, alpha_0: float, q: float, epsilon: float
) -> tuple[float, float]:
    """Return (alpha, rho) of one slot of a leaf with a number of its own."""
    return page_decide(u2, sigma, shrink, alpha_0 * lr_factor, q, epsilon)


def decide_one(u: float, sigma: float, shrink: float, alpha_0: float, q: float, epsilon: float) -> tuple[float, float]:
    """Return (alpha, rho) of a slot of one entry without the root of u^2.

    That is |u| to the last bit, as long as u^2 has all its bits, from 2^-1022 on (Boldo 2015).
    """
    u2 = u * u
    if epsilon < LEAST_FULL:
        return page_decide(u2, sigma, shrink, alpha_0, q, epsilon)
    ratio = sigma / (abs(u) if u2 > epsilon else np.sqrt(epsilon))
    return closed_form.step_size(alpha_0, ratio, shrink), closed_form.weight_decay(alpha_0, q, shrink)


def decide_one_own(
    u: float, sigma: float, lr_factor: float, shrink: float, alpha_0: float, q: float, epsilon: float
) -> tuple[float, float]:
    """Return the same of a leaf with a number of its own."""
    return decide_one(u, sigma, shrink, alpha_0 * lr_factor, q, epsilon)


def compute_stages(leaf: DirectedLeaf, rates: ClosedRates, mean: Any = None) -> dict[str, Any]:
    """Return every intermediate of a leaf's step by the page, or raise NonFiniteError for its direction."""
    theta, (g, u, *moments) = leaf.theta.astype(np.float64), aim(leaf, rates)
    with np.errstate(all="ignore"):
        shrink, alpha_0, *others = rates.numbers
        after = closed_form.step(
            theta, u, float(leaf.sigma), leaf.slot, shrink, alpha_0 * leaf.own[0], *others, mean=mean
        )
    if not np.isfinite(after["u2"]).all():
        refuse_gradient(f"{leaf.source} of leaf {leaf.name!r}", u, np.inf)
    m, v = moments or (None, None)
    return dict(g=g, m=m, v=v, **after)


class ClosedFormAmos(Optimizer):
    """The derivation's Amos: step size and weight decay follow one closed form. It is *not* paper Amos.

    For each slot of a parameter array theta, with a direction u that is computed from its gradient, at step
    t = 0, 1, ...::

        alpha = alpha_0 sigma / sqrt(max(mean(u^2), epsilon)) exp(-2 S_t)
        rho   = alpha_0^2 / (2 q) exp(-2 S_t)
        theta = theta - (alpha u + rho theta)

    with exp(-2 S_t) = 1 / (1 + t / half_life), or another `decay`.

    Parameters
    ----------
    alpha_0 : float
        In (0, 1): the size of the first step, as a share of sigma. The document has 1e-3, and 1e-2 for easy tasks.
    half_life, p_0 : float, optional
        Give exactly one of them: the step at which alpha and rho have halved, or the cosine of the angle between the
        direction and the error at the start.
    decay, p_t, q
        As in :class:`amos_ref.closed_form.Schedule`.
    sigma : "init", float, callable, mapping or rules.Preset
        The distance > 0 that an entry is expected to travel. "init" stands for the root mean square of the leaf's
        initial entries, or 0.5 where all of them are 0 or all are 1. If they all have another value, `init` warns
        (SigmaWarning). Otherwise sigma is a rule, like eta of :class:`amos_ref.Amos`, and a value of a mapping may be
        "init".
    slot_shape : {"tensor", "element"}, callable, mapping or rules.Preset
        As in :class:`amos_ref.Amos`. The document has one slot for each array.
    direction : {"gradient", "adam", "sign"} or callable
        What u is. "gradient" is the gradient g, and "sign" is its sign. "adam" is
        m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + adam_epsilon) after n = t + 1 gradients. A callable
        ``direction(name, g, t)`` gets a copy of g in float64 and returns an array of its shape.
    beta1, beta2, adam_epsilon : float
        The options of Adam's direction; the others do not use them.
    clip_value : float, optional
        > 0: each entry of a gradient is clipped to [-clip_value, clip_value] before u is computed.
    epsilon : float
        > 0: where mean(u^2) is smaller, the step divides by epsilon instead.
    backend : {"auto", "numpy", "cpu", "cuda"}
        What computes :meth:`step`, as in :class:`amos_ref.Amos`. On a GPU the direction cannot be a callable.
    validate : bool
        Whether each step checks every entry of the parameters and of the state, and refuses what is not finite.
    lr_factor : float, callable or mapping
        >= 0: a factor of alpha_0 for each leaf, as in :class:`amos_ref.Amos`. The product must be below 1. It does
        not change exp(-2 S_t), which is the same for all leaves.
    frozen : bool, callable or mapping
        Whether a leaf stays as it is, as in :class:`amos_ref.Amos`.

    Raises
    ------
    HyperParameterError
        If an option is of the wrong type or out of its range.
    BackendError
        If the backend does not exist or is not available.

    References
    ----------
    Su Jianlin's article 9344 on kexue.fm; :mod:`amos_ref.closed_form` has the derivation, and corrects its slips.

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

    state_type: type = ClosedFormState
    method: ClassVar[Method] = Method(closed_form.decide, 0, compute_stages, aim, decide_one=decide_one)
    own_method: ClassVar[Method] = Method(decide_own, 0, compute_stages, aim, own=1, decide_one=decide_one_own)
    lines: ClassVar[Lines] = LINES
    first_step: ClassVar[int] = 0
    example: ClassVar[dict[str, Any]] = dict(alpha_0=0.1, half_life=10, direction="adam")

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
        clip_value: float | None = None,
        epsilon: float = 2.0**-125,
        backend: str = "auto",
        validate: bool = False,
        lr_factor: Any = 1.0,
        frozen: Any = False,
    ) -> None:
        schedule: dict[str, Any] = dict(alpha_0=alpha_0, half_life=half_life, p_0=p_0, decay=decay, p_t=p_t, q=q)
        super().__init__(
            **schedule,
            sigma=sigma,
            slot_shape=slot_shape,
            direction=direction,
            beta1=beta1,
            beta2=beta2,
            adam_epsilon=adam_epsilon,
            clip_value=clip_value,
            epsilon=epsilon,
            backend=backend,
            validate=validate,
            lr_factor=lr_factor,
            frozen=frozen,
        )
        if callable(direction) and backend == "cuda":
            raise BackendError(
                "direction is a callable, which computes in NumPy; backend 'cuda' has 'gradient', 'adam' and 'sign'"
            )
        self._schedule = Schedule(**schedule)
        self._directs_by_callable = callable(direction)
        self._direction = None if callable(direction) else DIRECTIONS.get(direction)

    @property
    def schedule(self) -> Schedule:
        """What its step sizes and weight decay follow, apart from sigma and u."""
        return self._schedule

    @property
    def averages(self) -> bool:
        """Whether the state holds m and v."""
        return self.options["direction"] == "adam"

    def _method(self, leaves: list[Any]) -> Method:
        return super()._method(leaves)._replace(direction=self._direction)

    def _rates(self, count: int) -> ClosedRates:
        o, direction = self.options, self._direction
        # A count of hundreds of digits is legal, and no float64.
        shrink = float(self.schedule.shrink(min(count, 2**1000)))
        chi = None if self._directs_by_callable else o["clip_value"]  # a callable is given clipped gradients
        aims = Adam.after(count + 1, o["beta1"], o["beta2"], o["adam_epsilon"]) if direction is Adam else None
        aims = Sign() if direction is Sign else aims
        return ClosedRates(shrink, o["alpha_0"], o["q"], o["epsilon"], chi, aims)

    def _rule(self, name: str, shape: Shape) -> tuple[float, Shape]:
        factor, alpha_0 = number_of(self.options["lr_factor"], "lr_factor", name, shape), self.options["alpha_0"]
        if not alpha_0 * factor < 1.0:
            raise RuleError(f"lr_factor of leaf {name!r} is {factor!r}; times alpha_0={alpha_0!r} it must be below 1")
        return factor, slot_shape_of(self.options["slot_shape"], name, shape)

    def _start(self, thetas: Arrays, place: Any) -> ClosedFormState:
        def zeros() -> Arrays | None:
            return {name: place(np.zeros(theta.shape)) for name, theta in thetas.items()} if self.averages else None

        sigma = {}
        for name, theta in thetas.items():
            entries = self._extent.entries(name, theta)
            self._leaf_rule(name, entries.shape)
            scale = scale_at_start(self.options["sigma"], "sigma", name, entries, self._warned)
            sigma[name] = place(np.array(scale))
        return ClosedFormState(0, sigma, zeros(), zeros())

    def _leaf(self, name: str, theta: Any, direction: Any, state: ClosedFormState, rule: Any) -> DirectedLeaf:
        word = "gradient" if self.options["direction"] == "gradient" else "direction"
        moments = [None if part is None else part[name] for part in (state.m, state.v)]
        factor, slot = rule
        return DirectedLeaf(name, theta, direction, slot, state.sigma[name], word, *moments, own=(factor,))

    def _directions(self, gradients: Arrays, state: ClosedFormState) -> Arrays:
        if not self._directs_by_callable:
            return gradients
        found = {}
        for name, g in gradients.items():
            wide = self._clipped(g)
            check_finite(wide, f"gradient of leaf {name!r}", squared=True, origin=self._extent.origin(name))
            found[name] = _call_direction(self.options["direction"], name, wide, int(state.count))
        return found

    def _clipped(self, g: np.ndarray) -> np.ndarray:
        """Return a gradient as a callable is given it."""
        chi = self.options["clip_value"]
        return np.asarray(spec.clip(g.astype(np.float64), np.inf if chi is None else chi))

    def _stages(self, leaf: DirectedLeaf, after: dict[str, Any], ready: Prepared, rates: ClosedRates) -> dict[str, Any]:
        if self._directs_by_callable:
            after["g"] = self._clipped(ready.gradients[leaf.name])
        return after | {"error": float(leaf.sigma) ** 2 * rates.shrink}


def _call_direction(direction: Callable[[str, np.ndarray, int], Any], name: str, g: np.ndarray, t: int) -> np.ndarray:
    """Return what a callable direction gives, or raise DirectionError."""
    where = f"direction of leaf {name!r}"
    shape = g.shape
    try:
        u = direction(name, g, t)
    except Exception as error:
        pass_on(error)
        raise DirectionError(f"{where}: the callable raised {type(error).__name__}: {error}") from error
    try:
        check_shape(check_array(np.asarray(u) if isinstance(u, np.floating) else u, where), shape, where)
    except AmosError as error:
        raise DirectionError(str(error)) from None
    return np.array(u, np.float64, order="C")  # a copy, as it might be part of a parameter
