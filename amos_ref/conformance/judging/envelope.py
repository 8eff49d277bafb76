"""How far a right port may be from the page in float16 and bfloat16: measured on right evaluations of the same case.

Rounding errors of first order do not describe these formats: a b that grows by less than half a unit in the last place
does not grow at all. So the case is evaluated MEMBERS times (evaluation.py: orders of evaluation, precision of the
intermediates, of the state and of the scalars, rounding to nearest or at random, all drawn from seeds), and what these
evaluations do, widened, is allowed. For theta and each part of the state one relative error is taken: the largest that
any member had so far in any entry of any leaf, but at least OPERATIONS rounding errors; the allowance is MARGIN times
that, times the size of the entry, plus what storing alone may cost:

========  ====================================  ===================================================
quantity  size of an entry                      storing
========  ====================================  ===================================================
state     what the algorithm's SIZES say: the   one unit in the last place
          page's value, the leaf's largest
          change so far, ...
theta     the way the entry has gone: the sum   half a unit in the last place for each step (this is
          of |alpha u| + |rho theta|            not counted as a member's error)
========  ====================================  ===================================================

Of the page, in the cases of the tables, the relative errors are stored (envelope.json beside each algorithm's bound,
which ``python -m tools.envelope`` writes), since measuring them takes most of a check's time: with the table's eta, and
for paper Amos with the eta that the published ports for torch hard-code.
"""

import functools
import importlib.resources
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.algorithms import ALGORITHMS, Algorithm
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.evaluation import draw
from amos_ref.conformance.judging.reading import Reading, Step
from amos_ref.dtypes import last_place

ENVELOPE_DTYPES = ("float16", "bfloat16")
MEMBERS = 24
MARGIN = 4.0
OPERATIONS = 4

Allowed = dict[str, dict[str, np.ndarray]]  # leaf -> theta and parts of the state -> one an entry


def allowances(case: Case, etas: Mapping[str, float], reading: Reading) -> Iterator[Allowed]:
    """Yield, step by step, how far a right port may be from a reading's theta and state, by leaf."""
    algorithm = ALGORITHMS[case.algorithm]
    known = {} if reading.overrides else _stored(case.algorithm).get(case, {})
    stored = known.get(tuple(sorted(etas.items())))
    if stored is None:
        worst = measure(case, etas, reading)
    else:
        worst = (dict(zip(algorithm.quantities, row, strict=True)) for row in stored)
    for steps, sizes in zip(worst, _all_sizes(case, etas, reading), strict=True):
        with np.errstate(all="ignore"):
            allowed = {
                name: {what: MARGIN * steps[what] * size + stored for what, (size, stored) in of_leaf.items()}
                for name, of_leaf in sizes.items()
            }
        yield allowed


def measure(case: Case, etas: Mapping[str, float], reading: Reading) -> Iterator[dict[str, float]]:
    """Yield, step by step, the largest relative error that any member had so far in theta and the state."""
    drawn = [draw(case.dtype, seed, case.algorithm) for seed in range(MEMBERS)]
    members = [one.reading(reading.overrides).run(case, etas) for one in drawn]
    bits, _ = spec.NARROW[case.dtype]
    worst = dict.fromkeys(ALGORITHMS[case.algorithm].quantities, OPERATIONS * 2.0 ** (-bits))
    runs = reading.run(case, etas), _all_sizes(case, etas, reading), *members
    for steps, sizes, *others in zip(*runs, strict=True):
        for name, of_leaf in sizes.items():
            for what, (size, stored) in of_leaf.items():
                with np.errstate(all="ignore"):
                    gaps = [np.abs(_value(getattr(other[name], what)) - getattr(steps[name], what)) for other in others]
                    gap = np.fmax.reduce(gaps, axis=0) - (stored if what == "theta" else 0.0)
                worst[what] = max(worst[what], _largest(gap, size))
        yield dict(worst)


def key_of(case: Case) -> str:
    """Return how the table of stored errors calls a case."""
    return f"{case.name}/{case.dtype}"


def low_cases(algorithm: Algorithm) -> list[Case]:
    """Return the cases in float16 and bfloat16."""
    return [case for case in algorithm.table() if case.dtype in ENVELOPE_DTYPES]


def path_of(algorithm: Algorithm) -> Any:
    """Return the file with an algorithm's stored errors."""
    return importlib.resources.files(algorithm.load("bound").__package__).joinpath("envelope.json")


def get_scale(shape: tuple[int, ...]) -> float:
    """Return the eta of a leaf in ports that take none: what pytorch_optimizer's get_scale says, and its relatives'."""
    return 0.5 if len(shape) <= 1 else math.sqrt((2 if len(shape) == 2 else 1) / shape[1]) if shape[1] else math.inf


def stored_etas(case: Case) -> dict[str, Mapping[str, float]]:
    """Return the etas with which the errors of a case are stored, each under what its key ends in."""
    found: dict[str, Mapping[str, float]] = {"": case.eta}
    if ALGORITHMS[case.algorithm].scale == "eta":
        own = {name: get_scale(a.shape) for name, a in case.params.items()}
        found |= {"/get_scale": own} if all(map(math.isfinite, own.values())) else {}
    return found


@functools.cache
def _stored(name: str) -> dict[Case, dict[Any, list[list[float]]]]:
    """Return what :func:`measure` gives for the page in each case of the table, by its etas, as the package has it."""
    rows = json.loads(path_of(ALGORITHMS[name]).read_text(encoding="utf-8"))
    return {
        case: {tuple(sorted(etas.items())): rows[key_of(case) + end] for end, etas in stored_etas(case).items()}
        for case in low_cases(ALGORITHMS[name])
    }


def _all_sizes(
    case: Case, etas: Mapping[str, float], reading: Reading
) -> Iterator[dict[str, dict[str, tuple[Any, Any]]]]:
    """Yield, step by step and by leaf, the size of each entry and what storing it costs."""
    algorithm, way = ALGORITHMS[case.algorithm], dict[str, Any]()
    for t, steps in enumerate(reading.run(case, etas), 1):
        for name, step in steps.items():
            if step.count == t:
                with np.errstate(all="ignore"):
                    moved = np.abs(step.alpha * getattr(step, algorithm.along)) + np.abs(step.rho * step.old_theta)
                way[name] = way.get(name, 0.0) + moved
        yield {name: _sizes(step, way[name], case.dtype) for name, step in steps.items()}
        if t == 1 and case.inject:
            way = dict.fromkeys(way, 0.0)


def _sizes(step: Step, way: Any, dtype: str) -> dict[str, tuple[Any, Any]]:
    """For theta and the state: the size of each entry, and what storing it costs."""
    sizes = step.algorithm.load("formulas").SIZES
    parts = [part for part in step.algorithm.parts if getattr(step, part) is not None]
    found = {part: (_value(sizes[part](step, way)), _last_place(getattr(step, part), dtype)) for part in parts}
    found["theta"] = (way, step.count * _last_place(step.theta, dtype) / 2.0)
    return found


def _value(x: Any) -> np.ndarray:
    return np.asarray(x)


def _largest(gap: np.ndarray, size: np.ndarray) -> float:
    """The largest gap relative to size; entries of size 0 have none, and NaN is none."""
    with np.errstate(all="ignore"):
        return float(np.fmax.reduce(np.ravel(np.where(size > 0, gap / size, 0.0)), initial=0.0))


def _last_place(x: Any, dtype: str) -> np.ndarray:
    """One unit in the last place of x in a format."""
    return np.ldexp(1.0, last_place(x, dtype))
