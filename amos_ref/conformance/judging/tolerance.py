"""How far a right port may be from the page: proven for float64 and float32, measured for float16 and bfloat16."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.reading import Reading, Step

#: Which methods made the tolerances of a report; the number changes when a tolerance does.
METHOD = "bound-1 (float64, float32), envelope-1 (float16, bfloat16)"


class Moment(NamedTuple):
    """A leaf after one of its steps: the step, and how far a port may be from its theta and its state."""

    step: Step
    allowed: dict[str, np.ndarray]


def trajectory(
    case: Case, etas: Mapping[str, float], reading: Reading, shown: Sequence[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Moment]]:
    """Yield a case's steps in float64, leaf by leaf, with tolerances; a skipped leaf keeps its last moment.

    With what a port has `shown` after each step, in float64 or float32, every step starts from that, and no rounding
    error of an earlier step is left in what was shown.

    Raises
    ------
    Unbounded
        If the bounds would not hold, which no case does to the page.
    """
    if case.dtype in envelope.ENVELOPE_DTYPES:
        for steps, allowed in zip(reading.run(case, etas), envelope.allowances(case, etas, reading), strict=True):
            yield {name: Moment(step, allowed[name]) for name, step in steps.items()}
        return
    make, bounds = ALGORITHMS[case.algorithm].load("bound").Bound, {}
    now: dict[str, Moment] = {}
    for t, steps in enumerate(reading.run(case, etas, shown), 1):
        for name, step in steps.items():
            if step.count == t:  # not a skipped leaf's last step
                bound = bounds.setdefault(name, make(step, case.dtype))
                bound.advance(step)
                now[name] = Moment(step, bound.allowed())
        yield dict(now)
        if t == 1 and case.inject:
            for name, bound in bounds.items():
                bound.forget(what for what, arrays in case.inject.items() if name in arrays)
        if shown:
            for bound in bounds.values():
                bound.forget(what for what in bound.like if shown[t - 1].get(what))


def trajectory_of_page(case: Case, etas: Mapping[str, float]) -> tuple[dict[str, Moment], ...]:
    """Return the page's whole trajectory; the last ones are kept, since a check needs each of them several times."""
    return _trajectory_of_page(case, tuple(etas.items()))


def is_bounded(case: Case, etas: Mapping[str, float]) -> bool:
    """Whether there are bounds around the page: not where squares of gradients are too small for a precision."""
    try:
        trajectory_of_page(case, etas)
    except Unbounded:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _trajectory_of_page(case: Case, etas: tuple[tuple[str, float], ...]) -> tuple[dict[str, Moment], ...]:
    return tuple(trajectory(case, dict(etas), Reading()))
