"""A reading of the algorithm: the page's stages in order, any of them overridden.

With nothing overridden the numbers are those of the page (amos_ref/spec.py), bit for bit. A deviation
(diagnosis/deviations.py) overrides a stage with another formula; what it overrides may itself be overridden already, so
that deviations combine.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.checks import check_shape
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.drive import DEFAULTS

Stage = Callable[[Any], Any]
Override = Callable[[Any, Stage], Any]  # is given the step so far, and the stage that it overrides

OPTIONS = ("beta", "momentum", "clip_value", "extra_l2", "c_coef", "d_coef", "epsilon")

#: Name -> how the page computes it from what stands before it.
FORMULAS: dict[str, Stage] = {
    # what the step is given
    "event": lambda s: s.events.get(s.count - 1, ""),  # what the optimizer underwent before this step
    "grad": lambda s: s.grads[s.name],  # None: the leaf is skipped
    "old_v": lambda s: s.old_v,
    "old_b": lambda s: s.old_b,
    "old_m": lambda s: np.zeros(s.old_theta.shape) if s.old_m is None else s.old_m,  # None: no momentum until now
    "t": lambda s: s.count + s.ahead,
    "xi": lambda s: s.rates[s.count - 1],
    "eta": lambda s: s.etas[s.name],
    **{name: lambda s, name=name: s.options[name] for name in OPTIONS},
    # gradient, reduce
    "g": lambda s: spec.clip(s.grad, np.inf if s.clip_value is None else s.clip_value),
    "g2": lambda s: spec.mean_square(s.g, s.old_v.shape),
    # decide
    "v": lambda s: spec.second_moment(s.old_v, s.g2, s.beta),
    "q": lambda s: spec.one_minus_power(s.beta, s.t),
    "r": lambda s: spec.reciprocal(s.v, s.q, s.epsilon),
    "c": lambda s: spec.decay_factor_c(s.old_b, s.xi, s.c_coef),
    "gamma": lambda s: spec.growth(s.c, s.xi, s.r, s.g2),
    "d": lambda s: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.d_coef),
    "alpha": lambda s: spec.step_size(s.d, s.xi, s.eta, s.r),
    "rho": lambda s: spec.weight_decay(s.d, s.gamma, s.extra_l2),
    "b": lambda s: spec.grown(s.old_b, s.gamma),
    # apply
    "delta": lambda s: spec.change(s.alpha, s.g, s.rho, s.old_theta),
    "m": lambda s: spec.average(s.old_m, s.delta, s.momentum) if s.momentum else None,
    "theta": lambda s: s.old_theta + (s.delta if s.m is None else s.m),
}

#: Name -> other ways to compute a stage that are as good as the page's: only the rounding errors differ.
ORDERS: dict[str, tuple[Override, ...]] = {
    "g2": (
        lambda s, page: _mean(s, lambda x, axes: np.add.reduce(x, axes, keepdims=True)),
        lambda s, page: _mean(s, _one_by_one),
    ),
    "v": (
        lambda s, page: s.old_v + (1.0 - s.beta) * (s.g2 - s.old_v),
        lambda s, page: s.old_v - (1.0 - s.beta) * (s.old_v - s.g2),
    ),
    "q": (
        lambda s, page: 1.0 - _power(s.beta, s.t),
        lambda s, page: -np.expm1(s.t * np.log(s.beta)) if s.beta else page(s),
    ),
    "r": (lambda s, page: s.q * (1.0 / np.maximum(s.v, s.epsilon)),),
    "c": (
        lambda s, page: 1.0 / np.sqrt(1.0 + s.old_b * (s.c_coef * np.sqrt(s.xi))),
        lambda s, page: (1.0 + np.sqrt(s.xi) * (s.c_coef * s.old_b)) ** -0.5,
    ),
    "gamma": (
        lambda s, page: s.c * s.xi * s.xi * s.r * s.g2,
        lambda s, page: s.xi * s.xi * (s.c * s.r) * s.g2,
        lambda s, page: s.g2 * s.r * s.c * (s.xi * s.xi),
    ),
    "d": (
        lambda s, page: 1.0 / (1.0 + s.old_b * (s.d_coef * np.sqrt(s.xi * s.eta))),
        lambda s, page: 1.0 / (1.0 + s.d_coef * np.sqrt(s.xi) * np.sqrt(s.eta) * s.old_b),
    ),
    "alpha": (
        lambda s, page: s.xi * s.eta * s.d * np.sqrt(s.r),
        lambda s, page: s.d * np.sqrt(s.r) * s.eta * s.xi,
    ),
    "rho": (lambda s, page: 0.5 * s.gamma * s.d + s.extra_l2 * s.d,),
    "b": (lambda s, page: s.old_b * (1.0 + s.gamma) + s.gamma,),
    "delta": (lambda s, page: -(s.rho * s.old_theta) - s.g * s.alpha,),
    "m": (lambda s, page: s.old_m + (1.0 - s.momentum) * (s.delta - s.old_m) if s.momentum else None,),
}

STATE: tuple[str, ...] = ("theta", "v", "b", "m")


def _mean(s: Any, add: Callable[..., Any]) -> Any:
    aligned = (1,) * (s.g.ndim - s.old_v.ndim) + s.old_v.shape
    axes = tuple(i for i, n in enumerate(aligned) if n != s.g.shape[i])
    total = add(s.g * s.g, axes).reshape(s.old_v.shape)
    return total / max(math.prod(s.g.shape[i] for i in axes), 1)


def _one_by_one(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum axis after axis, entry after entry."""
    for axis in axes:
        total, *rest = np.moveaxis(x, axis, 0) if x.shape[axis] else [np.zeros(np.delete(x.shape, axis))]
        for one in rest:
            total = total + one
        x = np.expand_dims(total, axis)
    return x


_PRODUCTS = 2**10  # a count that was set to more has no products behind it


def _power(beta: Any, t: int) -> Any:
    if t > _PRODUCTS:
        return beta ** float(t)
    power = beta
    for _ in range(t - 1):
        power = power * beta
    return power


class Step:
    """One step of one leaf: what it is given (old_theta, old_v, old_b, old_m, ...) and each stage's result.

    Attributes
    ----------
    name : str
        The leaf; `grads`, `etas` and `shapes` hold all leaves'.
    count : int
        From 1, for the whole tree.
    ahead : int
        How far the count was set ahead by the case.
    memory : dict
        Of this leaf, kept from step to step, for readings that remember more than v, b and m; `tree` is that of all.
    options_of, rates_of : dict
        Each leaf's options and learning rates, and under None those of the leaves that have none of their own.
    asked : set of str
        The options that the case sets.
    """

    name: str
    count: int
    ahead: int
    memory: dict[str, Any]
    asked: set[str]

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name!r} is not computed yet")

    def but(self, **changed: Any) -> "Step":
        """Return a copy in which some values are others."""
        other = copy.copy(self)
        other.__dict__.update(changed)
        return other


class Reading:
    """The page with overrides.

    Parameters
    ----------
    overrides : iterable of mappings
        Each maps names of stages (or "slot", which is asked once a leaf) to functions ``(step, overridden) -> value``.
    number : callable
        Applied to every array and number that enters: what they are decides in which arithmetic the stages compute.
    store : callable
        ``store(what, array)`` is applied to theta, v, b and m between two steps.
    """

    def __init__(
        self,
        overrides: Iterable[Mapping[str, Override]] = (),
        number: Callable[[Any], Any] = np.float64,
        store: Callable[[str, Any], Any] = lambda what, a: a,
    ) -> None:
        self.number, self.store, self.overrides = number, store, list(overrides)
        self.stages: dict[str, Stage] = {"slot": lambda s: s.slot, **FORMULAS}
        for override in self.overrides:
            for name, function in override.items():
                self.stages[name] = _over(function, self.stages[name])
        self.slot = self.stages.pop("slot")

    def run(
        self, case: Case, etas: Mapping[str, float], shown: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[dict[str, Step]]:
        """Yield each step of a case, leaf by leaf; a skipped leaf keeps its last step, if it had one.

        Arrays enter as they are; v, b and m start as zeros. With what a port has `shown` after each step, every step
        but the first starts from that, as far as it has the shapes of the reading's.

        Raises
        ------
        ShapeError
            If the case sets a state of another shape than the reading's.
        """
        shared = self._shared(case, etas)
        rates_of, options_of = shared["rates_of"], shared["options_of"]
        state = {name: self._start(name, a, case, shared) for name, a in case.params.items()}
        memory: dict[str, dict[str, Any]] = {name: {} for name in state}
        now: dict[str, Step] = {}
        for count, given in enumerate(case.grads, 1):
            grads = {name: None if g is None else self.number(g) for name, g in given.items()}
            for name in grads:  # in the order in which they come
                old = state[name]
                ahead = case.count - 1 if case.count is not None and count > 1 else 0
                options = {k: x[count - 1] if isinstance(x, list) else x for k, x in options_of[name].items()}
                own = dict(ahead=ahead, memory=memory[name], options=options, rates=rates_of[name])
                step = Step(name=name, count=count, grads=grads, **own, **old, **shared)
                if self._take(step):
                    now[name] = step
                    state[name] = {f"old_{what}": self.store(what, getattr(step, what)) for what in STATE}
            yield dict(now)
            if shown:
                self._follow(state, shown[count - 1])
            for what, arrays in (case.inject or {}).items() if count == 1 else ():
                for name, a in arrays.items():
                    if state[name][f"old_{what}"] is None:  # a reading without momentum has no place for one
                        continue
                    check_shape(a, np.shape(state[name][f"old_{what}"]), f"{what} of leaf {name!r}")
                    state[name][f"old_{what}"] = self.number(a)

    def _follow(self, state: dict[str, dict[str, Any]], shown: Mapping[str, Any]) -> None:
        """Replace the state by a port's, whose m may have the opposite sign."""
        for what, arrays in shown.items():
            for name, a in arrays.items():
                own = state[name].get(f"old_{what}")
                if own is not None and np.shape(own) == np.shape(a):
                    opposite = what == "m" and np.abs(own + a).max(initial=0.0) < np.abs(own - a).max(initial=0.0)
                    state[name][f"old_{what}"] = self.number(-a if opposite else a)

    def _shared(self, case: Case, etas: Mapping[str, float]) -> dict[str, Any]:
        """Return what every step of every leaf is given."""
        rates = [self.number(xi) for xi in case.learning_rates()]
        own: dict[Any, Any] = {None: {}} | {name: case.groups.get(name, {}) for name in case.params}
        return dict(
            options_of={name: self._options(DEFAULTS | case.options | own[name]) for name in own},
            rates_of={
                name: self._rates(own[name]["learning_rate"], rates) if "learning_rate" in own[name] else rates
                for name in own
            },
            asked=set(case.options),
            events=case.events,
            tree={},
            etas={name: self.number(eta) for name, eta in etas.items()},
            shapes={name: a.shape for name, a in case.params.items()},
        )

    def _options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the numbers that enter; a list has one for each step."""

        def entering(x: Any) -> Any:
            return (
                [entering(one) for one in x] if isinstance(x, tuple | list) else None if x is None else self.number(x)
            )

        return {name: entering(options[name]) for name in OPTIONS}

    def _rates(self, xi: Any, like: list[Any]) -> list[Any]:
        """Return the learning rates of a leaf that has its own."""
        return [self.number(x) for x in (xi if isinstance(xi, tuple | list) else [xi] * len(like))]

    def _start(self, name: str, theta: np.ndarray, case: Case, shared: dict[str, Any]) -> dict[str, Any]:
        slot = self.slot(Step(name=name, slot=case.slots[name], **shared))
        zero = self.number(np.zeros(slot))
        return dict(old_theta=self.number(theta), old_v=zero, old_b=zero, old_m=self.number(np.zeros(theta.shape)))

    def _take(self, step: Step) -> bool:
        """Compute every stage; False if the leaf is skipped."""
        with np.errstate(all="ignore"):
            for name, stage in self.stages.items():
                step.__dict__[name] = stage(step)
                if name == "grad" and step.grad is None:
                    return False
        return True


def _over(function: Override, inner: Stage) -> Stage:
    return lambda s: function(s, inner)
