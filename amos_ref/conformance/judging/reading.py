"""A reading of the algorithm: the page's stages in order, any of them overridden.

With nothing overridden the numbers are those of the page (amos_ref/spec.py, or amos_ref/closed_form.py), bit for bit.
The formulas of an algorithm are a table (paper.py, closed_form/formulas.py). A deviation overrides a stage with another
formula; what it overrides may itself be overridden already, so that deviations combine.
"""

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref.checks import check_shape
from amos_ref.conformance.algorithms import ALGORITHMS, Algorithm
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.paper import Override, Stage


class Step:
    """One step of one leaf: what it is given (old_theta, old_v, ...) and each stage's result.

    Attributes
    ----------
    name : str
        The leaf; `grads`, `etas`, `shapes` and `initial`, the first parameters, hold all leaves'.
    algorithm : Algorithm
    count : int
        From 1, for the whole tree.
    slot : tuple of int
    ahead : int
        How far the count was set ahead by the case.
    memory : dict
        Of this leaf, kept from step to step, for readings that remember more than v, b and m; `tree` is that of all.
    options_of, rates_of : dict
        Each leaf's options and learning rates, and under None those of the leaves that have none of their own.
    squares : dict
        Mean squares of the case, kept for other readings of it.
    asked : set of str
        The options that the case sets.
    """

    name: str
    algorithm: Algorithm
    slot: tuple[int, ...]
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
        ``store(what, array)`` is applied to theta and the state between two steps.
    """

    number: Callable[[Any], Any]
    store: Callable[[str, Any], Any]
    overrides: list[Mapping[str, Override]]

    def __init__(
        self,
        overrides: Iterable[Mapping[str, Override]] = (),
        number: Callable[[Any], Any] = np.float64,
        store: Callable[[str, Any], Any] = lambda what, a: a,
    ) -> None:
        self.number, self.store, self.overrides = number, store, list(overrides)

    def stages(self, algorithm: Algorithm) -> dict[str, Stage]:
        """Return "slot" and the stages of an algorithm, in their order."""
        stages: dict[str, Stage] = {"slot": lambda s: s.slot, **algorithm.load("formulas").FORMULAS}
        for override in self.overrides:
            for name, function in override.items():
                stages[name] = _over(function, stages[name])
        return stages

    def run(
        self, case: Case, etas: Mapping[str, float], shown: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[dict[str, Step]]:
        """Yield each step of a case, leaf by leaf; a skipped leaf keeps its last step, if it had one.

        Arrays enter as they are; the state starts as zeros. With what a port has `shown` after each step, every step
        but the first starts from that, as far as it has the shapes of the reading's.

        Raises
        ------
        ShapeError
            If the case sets a state of another shape than the reading's.
        """
        algorithm = ALGORITHMS[case.algorithm]
        stages, shared = self.stages(algorithm), self._shared(case, etas)
        slot_of = stages.pop("slot")
        rates_of, options_of = shared["rates_of"], shared["options_of"]
        slots = {name: slot_of(Step(name=name, slot=case.slots[name], **shared)) for name in case.params}
        state = {name: self._start(algorithm, a, slots[name]) for name, a in case.params.items()}
        memory: dict[str, dict[str, Any]] = {name: {} for name in state}
        now: dict[str, Step] = {}
        for count, given in enumerate(case.grads, 1):
            grads = {name: None if g is None else self.number(g) for name, g in given.items()}
            for name in grads:  # in the order in which they come
                old = state[name]
                ahead = case.count - 1 if case.count is not None and count > 1 else 0
                options = {k: x[count - 1] if isinstance(x, list) else x for k, x in options_of[name].items()}
                own = dict(ahead=ahead, memory=memory[name], options=options, rates=rates_of[name], slot=slots[name])
                step = Step(name=name, count=count, grads=grads, **own, **old, **shared)
                if take(stages, step):
                    now[name] = step
                    state[name] = {
                        f"old_{what}": self.store(what, getattr(step, what)) for what in algorithm.quantities
                    }
            yield dict(now)
            if shown:
                self._follow(state, shown[count - 1], algorithm.change)
            for what, arrays in (case.inject or {}).items() if count == 1 else ():
                for name, a in arrays.items():
                    if state[name][f"old_{what}"] is None:  # a reading without momentum has no place for one
                        continue
                    check_shape(a, np.shape(state[name][f"old_{what}"]), f"{what} of leaf {name!r}")
                    state[name][f"old_{what}"] = self.number(a)

    def _follow(self, state: dict[str, dict[str, Any]], shown: Mapping[str, Any], change: str | None) -> None:
        """Replace the state by a port's, whose momentum may have the opposite sign."""
        for what, arrays in shown.items():
            for name, a in arrays.items():
                own = state[name].get(f"old_{what}")
                if own is not None and np.shape(own) == np.shape(a):
                    state[name][f"old_{what}"] = self.number(-a if what == change and is_opposite(own, a) else a)

    def _shared(self, case: Case, etas: Mapping[str, float]) -> dict[str, Any]:
        """Return what every step of every leaf is given."""
        rates = [self.number(xi) for xi in case.learning_rates()]
        own: dict[Any, Any] = {None: {}} | {name: case.groups.get(name, {}) for name in case.params}
        algorithm = ALGORITHMS[case.algorithm]
        given, names = dict(algorithm.options) | case.options, algorithm.load("formulas").OPTIONS
        return dict(
            algorithm=algorithm,
            options_of={name: self._options(names, given | own[name]) for name in own},
            rates_of={
                name: self._rates(own[name][algorithm.rate], rates) if algorithm.rate in own[name] else rates
                for name in own
            },
            asked=set(case.options),
            events=case.events,
            tree={},
            squares=_squares_of(case) if self.number is np.float64 else {},
            etas={name: self.number(eta) for name, eta in etas.items()},
            shapes={name: a.shape for name, a in case.params.items()},
            initial={name: self.number(a) for name, a in case.params.items()},
        )

    def _options(self, names: Iterable[str], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the numbers, or words, that enter; a list has one for each step."""

        def entering(x: Any) -> Any:
            if isinstance(x, tuple | list):
                return [entering(one) for one in x]
            return x if x is None or isinstance(x, str) else self.number(x)

        return {name: entering(options[name]) for name in names}

    def _rates(self, xi: Any, like: list[Any]) -> list[Any]:
        """Return the learning rates of a leaf that has its own."""
        return [self.number(x) for x in (xi if isinstance(xi, tuple | list) else [xi] * len(like))]

    def _start(self, algorithm: Algorithm, theta: np.ndarray, slot: tuple[int, ...]) -> dict[str, Any]:
        """Return theta and a state of zeros."""
        shapes = {"slot": slot, "leaf": theta.shape}
        zeros = {f"old_{part}": self.number(np.zeros(shapes[kind])) for part, kind in algorithm.parts.items()}
        return dict(old_theta=self.number(theta), **zeros)


@functools.lru_cache(maxsize=256)
def _squares_of(case: Case) -> dict[Any, Any]:
    """Return where the mean squares of a case are kept."""
    return {}


def is_opposite(own: Any, shown: np.ndarray) -> bool:
    """Whether a momentum that a port shows is nearer to a reading's with the opposite sign."""
    with np.errstate(invalid="ignore"):  # of infinities
        return bool(np.abs(own + shown).max(initial=0.0) < np.abs(own - shown).max(initial=0.0))


def take(stages: Mapping[str, Stage], step: Step) -> bool:
    """Compute every stage; False if the leaf is skipped."""
    with np.errstate(all="ignore"):
        for name, stage in stages.items():
            try:
                step.__dict__[name] = stage(step)
            except ZeroDivisionError:  # of plain numbers; a quotient of arrays is no error
                step.__dict__[name] = np.nan
            if name == "grad" and step.grad is None:
                return False
    return True


def _over(function: Override, inner: Stage) -> Stage:
    return lambda s: function(s, inner)
