"""Paper Amos over parameter trees."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.checks import Arrays
from amos_ref.dtypes import Shape
from amos_ref.groups import number_of
from amos_ref.kernels import At, Method
from amos_ref.optimizers.base import Optimizer
from amos_ref.optimizers.leaf import Leaf, aim, refuse_gradient
from amos_ref.optimizers.scale import DefaultEta, measures, scale_at_start, warn_of_default
from amos_ref.optimizers.state import AmosState, ScaledAmosState
from amos_ref.optimizers.trace import Lines
from amos_ref.options import learning_rate_at
from amos_ref.rules import eta_of, slot_shape_of
from amos_ref.spec import decide as page_decide

# What each line of Algorithm 1 computes, in the order in which it runs.
LINES = (
    ("g", "g = clip(gradient, -chi, chi)"),
    ("g2", "g2 = mean(g^2)"),
    ("v", "v = beta v + (1 - beta) g2"),
    ("r", "r = (1 - beta^t) / max(v, epsilon)"),
    ("c", "c = 1 / sqrt(1 + c_coef sqrt(xi) b)"),
    ("gamma", "gamma = c xi^2 r g2"),
    ("d", "d = 1 / (1 + d_coef sqrt(xi eta) b)"),
    ("alpha", "alpha = d xi eta sqrt(r)"),
    ("rho", "rho = d (gamma/2 + extra_l2)"),
    ("delta", "delta = -(alpha g + rho theta)"),
    ("b", "b = b + gamma (1 + b)"),
    ("m", "m = mu m + (1 - mu) delta"),
    ("theta", "theta = theta + delta (or + m)"),
)


class Rates(NamedTuple):
    """The numbers of one step that all leaves share, by the names of :func:`amos_ref.spec.step`."""

    q: float  # 1 - beta^t
    xi: float  # learning rate at t
    beta: float
    momentum: float | None
    clip_value: float | None
    extra_l2: float | None  # None where leaves have their own
    c_coef: float
    d_coef: float
    epsilon: float

    aims = None  # leaves move along their gradients

    @property
    def numbers(self) -> tuple[float, ...]:
        """What :func:`decide` takes behind eta."""
        return self.q, self.xi, self.beta, self.extra_l2 or 0.0, self.c_coef, self.d_coef, self.epsilon

    def of(self, leaf: Leaf) -> dict[str, Any]:
        """Return the arguments of :func:`amos_ref.spec.step` for a leaf."""
        lr_factor, own_l2 = leaf.own
        own = {"xi": self.xi * lr_factor, "extra_l2": (self.extra_l2 or 0.0) + own_l2}
        return {**self._asdict(), "eta": float(leaf.eta), **own}

    @property
    def chi(self) -> float:
        """Where gradients are clipped; infinity leaves them as they are."""
        return np.inf if self.clip_value is None else self.clip_value

    @property
    def mu(self) -> float:
        """The decay of momentum."""
        return self.momentum or 0.0


def decide(g2, v, b, eta, q, xi, beta, extra_l2, c_coef, d_coef, epsilon):
    """Return (alpha, rho, v, b) of one slot, as backends take it from the page."""
    v, _, _, _, _, alpha, rho, b = page_decide(g2, v, b, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon)
    return alpha, rho, v, b


def decide_own(g2, v, b, eta, lr_factor, own_l2, q, xi, beta, extra_l2, c_coef, d_coef, epsilon):
    """Return what :func:`decide` does, for a leaf with numbers of its own."""
    return decide(g2, v, b, eta, q, xi * lr_factor, beta, extra_l2 + own_l2, c_coef, d_coef, epsilon)


def compute_stages(leaf: Leaf, rates: Rates, mean: Any = None) -> dict[str, Any]:
    """Return every intermediate of a leaf's step by the page, or raise NonFiniteError for its gradient."""
    theta, g, v, b = (a.astype(np.float64) for a in (leaf.theta, leaf.g, leaf.v, leaf.b))
    m = None if leaf.m is None else leaf.m.astype(np.float64)
    with np.errstate(all="ignore"):
        after = spec.step(theta, g, v, b, m, **rates.of(leaf), mean=mean)
    if not np.isfinite(after["g2"]).all():
        refuse_gradient(f"{leaf.source} of leaf {leaf.name!r}", leaf.g, rates.chi)
    return after


class Amos(Optimizer):
    """Paper Amos (Tian & Parikh 2022): adaptive steps whose size and weight decay fall by themselves.

    For each slot of a parameter array theta with gradient g, at step t = 1, 2, ...::

        v     = beta v + (1 - beta) mean(g^2)         r = (1 - beta^t) / max(v, epsilon)
        gamma = xi^2 r mean(g^2) / sqrt(1 + c_coef sqrt(xi) b)
        theta = theta - (xi eta sqrt(r) g + (gamma/2 + extra_l2) theta) / (1 + d_coef sqrt(xi eta) b)
        b     = b + gamma (1 + b)

    Parameters
    ----------
    learning_rate : float or callable
        xi >= 0, or a schedule, which is called with the step t = 1, 2, ... and returns such a number. The authors
        advise about 1/sqrt(N) for N independent batches in the training set.
    eta : Choice, float, "init", callable, mapping or rules.Preset
        The scale > 0 that a leaf's trained entries are expected to have. It may be what :func:`amos_ref.choose`
        returns, a number, a function ``eta(name, shape)``, a mapping ``{regex: number or expression in SHAPE}``, or
        one of the presets ``amos_ref.rules.PAPER_FLAX`` and ``PAPER_TORCH``. "init", which may also be a value of a
        mapping, stands for the root mean square of the leaf's initial entries, or 0.5 where all of them are 0 or all
        are 1; :meth:`init` measures it, and the state keeps it. If you give no eta, `init` warns (EtaWarning) of
        leaves of two or more dimensions whose entries are not of the size of 0.5.
    slot_shape : {"tensor", "element"}, Choice, callable, mapping or rules.Preset
        The shape of v and b. It broadcasts to the leaf's shape, and g^2 is averaged over the axes where it has size 1.
        "tensor" is (), which is one slot for the whole array; "element" is the full shape.
    beta : float
        In [0, 1): how much of v is kept at each step. The authors advise a 1 - beta of the order of xi.
    momentum : float, optional
        In [0, 1): how much of the averaged change is kept at each step. None and 0 mean no averaging.
    clip_value : float, optional
        > 0: before anything else, each entry of a gradient is clipped to [-clip_value, clip_value].
    extra_l2 : float, callable or mapping
        >= 0: weight decay that is added to gamma/2. It may be a rule, as eta may, and is 0 where no regex matches.
    c_coef, d_coef : float
        >= 0: how fast gamma (c_coef) and the whole change (d_coef) fall as b grows.
    epsilon : float
        > 0: where v is smaller, the step divides by epsilon instead.
    state_dtype : {"float64", "param"}
        The dtype in which v, b and m are stored. "param" is the dtype of each parameter, as in most frameworks. The
        arithmetic is float64 in both cases, and storing rounds once.
    backend : {"auto", "numpy", "cpu", "cuda"}
        What computes :meth:`step`: the page, which is ``amos_ref/spec.py``, in NumPy; compiled kernels on the CPU,
        which "auto" takes; or CUDA kernels, for arrays on a GPU. All of them compute the same bits.
    validate : bool
        Whether each step checks every entry of the parameters and of the state, and refuses what is not finite.
    lr_factor : float, callable or mapping
        >= 0: a factor of xi for each leaf, which is stepped as if the product were the learning rate. It may be a rule,
        as eta may, and is 1 where no regex matches.
    frozen : bool, callable or mapping
        Whether a leaf stays as it is. It may be a rule, as eta may, and is False where no regex matches. A step does
        not look at the gradient of a frozen leaf, and changes neither its parameter nor its state.

    Raises
    ------
    HyperParameterError
        If an option is of the wrong type or out of its range.
    BackendError
        If the backend does not exist or is not available.

    References
    ----------
    Tian and Parikh, "Amos: An Adam-style Optimizer with Adaptive Weight Decay towards Model-Oriented Scale",
    arXiv 2210.11693. Where the paper and its authors' code differ, this follows the code (jestimator 0.3.3, amos.py).

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

    state_type: type = AmosState
    method: ClassVar[Method] = Method(decide, 2, compute_stages, aim)
    own_method: ClassVar[Method] = Method(decide_own, 2, compute_stages, aim, own=2)
    lines: ClassVar[Lines] = LINES
    example: ClassVar[dict[str, Any]] = dict(
        learning_rate=0.1,
        eta={"bias": 0.5, "kernel": "sqrt(1/SHAPE[0])"},
        slot_shape={"bias": "tensor", "kernel": "(1, SHAPE[1])"},
        beta=0.9,
        extra_l2=0.01,
    )

    def __init__(
        self,
        learning_rate: float | Callable[[int], float] = 1e-3,
        eta: Any = DefaultEta(0.5),  # noqa: B008
        slot_shape: Any = "tensor",
        *,
        beta: float = 0.999,
        momentum: float | None = None,
        clip_value: float | None = None,
        extra_l2: Any = 0.0,
        c_coef: float = 0.25,
        d_coef: float = 0.25,
        epsilon: float = 2.0**-125,
        state_dtype: str = "float64",
        backend: str = "auto",
        validate: bool = False,
        lr_factor: Any = 1.0,
        frozen: Any = False,
    ) -> None:
        super().__init__(
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
            lr_factor=lr_factor,
            frozen=frozen,
        )
        self._measures = measures(self.options["eta"])
        self.state_type = ScaledAmosState if self._measures else AmosState

    @property
    def averages(self) -> bool:
        """Whether the state holds m."""
        return bool(self.options["momentum"])

    def _at(self, state: AmosState) -> At:
        return At(int(state.count), self.options["beta"], not callable(self.options["learning_rate"]))

    def _rates(self, count: int) -> Rates:
        t, constants = count + 1, self._constants
        q, xi = spec.one_minus_power(constants[0], t), learning_rate_at(self.options["learning_rate"], t)
        return tuple.__new__(Rates, (q, xi, *constants))

    @functools.cached_property
    def _constants(self) -> tuple[Any, ...]:
        """The numbers that are the same at every step, in the order of `Rates`."""
        shared = {name: self.options[name] for name in Rates._fields[2:]}
        shared["momentum"] = shared["momentum"] or None
        shared["extra_l2"] = None if self._has_rule("extra_l2") else shared["extra_l2"]
        return tuple(shared.values())

    def _rule(self, name: str, shape: Shape) -> tuple[float | None, float, float, Shape]:
        o = self.options
        eta = None if self._measures else eta_of(o["eta"], name, shape)
        factor = number_of(o["lr_factor"], "lr_factor", name, shape)
        own_l2 = number_of(o["extra_l2"], "extra_l2", name, shape) if self._has_rule("extra_l2") else 0.0
        return eta, factor, own_l2, slot_shape_of(o["slot_shape"], name, shape)

    def _start(self, thetas: Arrays, place: Any) -> AmosState | ScaledAmosState:
        entries = {name: self._extent.entries(name, a) for name, a in thetas.items()}
        whole = {name: found.shape for name, found in entries.items()}

        def zeros(slot: bool) -> Arrays:
            shapes = {name: self._rule_here(name, whole[name])[-1] if slot else a.shape for name, a in thetas.items()}
            return {name: place(np.zeros(shapes[name], self._state_dtype(a.dtype))) for name, a in thetas.items()}

        option = self.options["eta"]
        if isinstance(option, DefaultEta):
            warn_of_default(option, entries)
        zero = AmosState(0, zeros(True), zeros(True), zeros(False) if self.averages else None)
        if not self._measures:
            return zero
        scales = {name: scale_at_start(option, "eta", name, a, self._warned) for name, a in entries.items()}
        eta = {name: place(np.array(scale)) for name, scale in scales.items()}
        return ScaledAmosState(0, eta, *zero[1:])

    def _leaf(self, name: str, theta: Any, direction: Any, state: Any, rule: Any) -> Leaf:
        m = None if state.m is None else state.m[name]
        eta = state.eta[name] if rule[0] is None else rule[0]
        return Leaf(name, theta, direction, state.v[name], state.b[name], m, eta, rule[1:3])

    def _state_dtype(self, dtype: np.dtype) -> np.dtype:
        wanted = self.options["state_dtype"]
        return dtype if wanted == "param" else np.dtype(wanted)
