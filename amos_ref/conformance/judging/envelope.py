"""How far a right port may be from the page in float16 and bfloat16: measured on right evaluations of the same case.

Rounding errors of first order do not describe these formats: a b that grows by less than half a unit in the last place
does not grow at all. So the case is evaluated MEMBERS times (evaluation.py: orders of evaluation, precision of the
intermediates, of the state and of the scalars, rounding to nearest or at random, all drawn from seeds), and what these
evaluations do, widened, is allowed. For each of theta, v, b and m one relative error is taken: the largest that any
member had so far in any entry of any leaf, but at least OPERATIONS rounding errors; the allowance is MARGIN times that,
times the size of the entry, plus what storing alone may cost:

========  ====================================  ===================================================
quantity  size of an entry                      storing
========  ====================================  ===================================================
v, b      the page's value                      one unit in the last place
m         the leaf's largest change so far      one unit in the last place
theta     the way the entry has gone: the sum   half a unit in the last place for each step (this is
          of |alpha g| + |rho theta|            not counted as a member's error)
========  ====================================  ===================================================

Of the page, in the cases of the table, the relative errors are stored (envelope.json, which
``python -m tools.envelope`` writes), since measuring them takes most of a check's time.
"""

import functools
import importlib.resources
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.cases import Case, table
from amos_ref.conformance.judging.evaluation import draw
from amos_ref.conformance.judging.reading import STATE, Reading, Step
from amos_ref.dtypes import last_place

ENVELOPE_DTYPES = ("float16", "bfloat16")
MEMBERS = 24
MARGIN = 4.0
OPERATIONS = 4

Allowed = dict[str, dict[str, np.ndarray]]  # leaf -> theta, v, b, m -> one an entry


def allowances(case: Case, etas: Mapping[str, float], reading: Reading) -> Iterator[Allowed]:
    """Yield, step by step, how far a right port may be from a reading's theta, v, b and m, by leaf."""
    stored = None if reading.overrides or dict(etas) != case.eta else _stored().get(case)
    worst = measure(case, etas, reading) if stored is None else (dict(zip(STATE, row, strict=True)) for row in stored)
    for steps, sizes in zip(worst, _all_sizes(case, etas, reading), strict=True):
        with np.errstate(all="ignore"):
            allowed = {
                name: {what: MARGIN * steps[what] * size + stored for what, (size, stored) in of_leaf.items()}
                for name, of_leaf in sizes.items()
            }
        yield allowed


def measure(case: Case, etas: Mapping[str, float], reading: Reading) -> Iterator[dict[str, float]]:
    """Yield, step by step, the largest relative error that any member had so far in theta, v, b and m."""
    members = [draw(case.dtype, seed).reading(reading.overrides).run(case, etas) for seed in range(MEMBERS)]
    bits, _ = spec.NARROW[case.dtype]
    worst = dict.fromkeys(STATE, OPERATIONS * 2.0 ** (-bits))
    runs = reading.run(case, etas), _all_sizes(case, etas, reading), *members
    for steps, sizes, *others in zip(*runs, strict=True):
        for name, of_leaf in sizes.items():
            for what, (size, stored) in of_leaf.items():
                with np.errstate(all="ignore"):
                    gaps = [np.abs(_value(other[name], what) - getattr(steps[name], what)) for other in others]
                    gap = np.fmax.reduce(gaps, axis=0) - (stored if what == "theta" else 0.0)
                worst[what] = max(worst[what], _largest(gap, size))
        yield dict(worst)


def key_of(case: Case) -> str:
    """Return how the table of stored errors calls a case."""
    return f"{case.name}/{case.dtype}"


@functools.cache
def _stored() -> dict[Case, list[list[float]]]:
    """Return what :func:`measure` gives for the page in each case of the table itself, as the package has it."""
    text = (
        importlib.resources.files("amos_ref.conformance.judging").joinpath("envelope.json").read_text(encoding="utf-8")
    )
    rows = json.loads(text)
    return {case: rows[key_of(case)] for case in table() if case.dtype in ENVELOPE_DTYPES}


def _all_sizes(
    case: Case, etas: Mapping[str, float], reading: Reading
) -> Iterator[dict[str, dict[str, tuple[Any, Any]]]]:
    """Yield, step by step and by leaf, the size of each entry and what storing it costs."""
    way: dict[str, Any] = {}
    for t, steps in enumerate(reading.run(case, etas), 1):
        for name, step in steps.items():
            if step.count == t:
                with np.errstate(all="ignore"):
                    moved = np.abs(step.alpha * step.g) + np.abs(step.rho * step.old_theta)
                way[name] = way.get(name, 0.0) + moved
        yield {name: _sizes(step, way[name], case.dtype) for name, step in steps.items()}
        if t == 1 and case.inject:
            way = dict.fromkeys(way, 0.0)


def _sizes(step: Step, way: Any, dtype: str) -> dict[str, tuple[Any, Any]]:
    """For theta, v, b and m: the size of each entry, and what storing it costs."""
    found = {what: (np.abs(_value(step, what)), _last_place(getattr(step, what), dtype)) for what in ("v", "b")}
    if step.m is not None:
        found["m"] = (np.full(step.m.shape, np.max(way, initial=0.0)), _last_place(step.m, dtype))
    found["theta"] = (way, step.count * _last_place(step.theta, dtype) / 2.0)
    return found


def _value(step: Step, what: str) -> np.ndarray:
    return np.asarray(getattr(step, what))


def _largest(gap: np.ndarray, size: np.ndarray) -> float:
    """The largest gap relative to size; entries of size 0 have none."""
    with np.errstate(all="ignore"):
        return float(np.max(np.where(size > 0, gap / size, 0.0), initial=0.0))


def _last_place(x: Any, dtype: str) -> np.ndarray:
    """One unit in the last place of x in a format."""
    return np.ldexp(1.0, last_place(x, dtype))
