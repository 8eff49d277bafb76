"""What a departing case does, as a list of expected departures pins it.

A case is pinned by the deviations under which the page does the same, or by one number of what the port shows. Both
are compared in the bounds of the case.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.diagnosis.catalogue import reading_of
from amos_ref.conformance.diagnosis.evidence import SLACK
from amos_ref.conformance.judging.bound import UNIT_ROUNDOFF, Unbounded
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.judge import Result, first_departure
from amos_ref.conformance.judging.tolerance import trajectory, trajectory_of_page
from amos_ref.errors import ExpectationError, ShapeError

WIDER = UNIT_ROUNDOFF["float32"] / UNIT_ROUNDOFF["float64"]


class Place(NamedTuple):
    """Where a number stands: in theta or a part of the state (`stage`) of a leaf after a step."""

    step: int
    stage: str
    leaf: str
    index: tuple[int, ...]


def check_names(names: Sequence[str]) -> None:
    """Raise ExpectationError if one of these is no deviation."""
    for name in names:
        if not any(_is_deviation(name, algorithm) for algorithm in ALGORITHMS):
            raise ExpectationError(f"there is no deviation {name!r:.80}; docs/deviations.md lists them")


def _is_deviation(name: str, algorithm: str) -> bool:
    try:
        reading_of((name,), algorithm)
    except (LookupError, ValueError):
        return False
    return True


def differs(one: Observation, names: Sequence[str], stages: Iterable[str] | None = None) -> str:
    """Return where a case does something else than the page with these deviations; "" if it does the same."""
    other = next((name for name in names if not _is_deviation(name, one.case.algorithm)), None)
    if other is not None:
        return f"{other} is no deviation from {ALGORITHMS[one.case.algorithm].title}"
    try:
        steps = trajectory(one.case, one.etas, reading_of(tuple(names), one.case.algorithm))
        found = first_departure(one.shown, steps, stages, SLACK)[0]
    except Unbounded:
        return "no bound holds for that in this case, so that it must be pinned by got"
    except ShapeError as error:
        return str(error)
    text = found and found["detail"].replace("the page has", "the page with that has")
    return f"at step {found['step']}, {found['stage']} of leaf {found['leaf']!r} {text}" if found else ""


def first_number(one: Observation, r: Result) -> tuple[Place, float] | None:
    """Return where a case departs first, and the number that is there; None if an array of another shape is."""
    if r.step is None or r.stage is None or r.leaf is None:
        return None
    got = one.shown[r.step - 1][r.stage][r.leaf]
    ref, allowed = _page(one, r.step, r.stage, r.leaf)
    if got.size != ref.size or (r.stage == "theta" and got.shape != ref.shape):
        return None
    got = got.reshape(ref.shape)
    with np.errstate(all="ignore"):
        gap = abs(got - ref)
        ratios = np.where(np.isfinite(got), np.where(gap == 0, 0.0, gap / allowed), np.inf)
    index = np.unravel_index(int(np.argmax(ratios)), ref.shape)
    return Place(r.step, r.stage, r.leaf, tuple(map(int, index))), float(got[index])


def misses(one: Observation, place: Place, value: float) -> str:
    """Return what a case has instead of a number that is pinned; "" if it has that."""
    step, stage, leaf, index = place
    got = one.shown[step - 1].get(stage, {}).get(leaf) if step <= len(one.shown) else None
    try:
        ref, allowed = _page(one, step, stage, leaf)
    except (LookupError, TypeError):  # no such step, a leaf that was never stepped, no momentum
        got = None
    if got is None:
        return "the port shows nothing there"
    got = got.reshape(ref.shape) if got.size == ref.size else got
    try:
        found, page, bound = (float(a[index]) for a in (got, ref, np.broadcast_to(allowed, ref.shape)))
    except (IndexError, TypeError):
        return f"it has the shape {got.shape}"
    largest = float(np.max(abs(ref), initial=0.0))
    # A number that is many times the page's has errors that are as many times larger.
    tolerance = max(bound, abs(value) * float(np.max(allowed, initial=0.0)) / largest if largest else 0.0)
    if one.case.dtype == "float64" and abs(value - page) <= bound * WIDER:
        tolerance *= WIDER  # a float64 port that computes in float32: what it rounds is another thing elsewhere
    same = found == value or (np.isnan(found) and np.isnan(value))
    same = same or (np.isfinite(value) and abs(found - value) <= SLACK * tolerance)
    return "" if same else f"it is {found:.9g} there"


def _page(one: Observation, step: int, stage: str, leaf: str) -> tuple[np.ndarray, Any]:
    """Return what the page has at a place, and how far a right port may be from it."""
    moment = trajectory_of_page(one.case, one.etas)[step - 1][leaf]
    return np.asarray(getattr(moment.step, stage)), moment.allowed[stage]
