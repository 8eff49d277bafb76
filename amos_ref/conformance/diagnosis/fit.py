"""Factors fitted to the port's own numbers: by how much a quantity is off at each first misfit, and of what that is made.

For each target of the grammar the factor K is solved for under which the reading meets the port at its first misfit,
in several observations. If K is one number in all of them, it is the factor; if it varies, two quantities of the
step whose powers give it are looked for.
"""

import fractions
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from amos_ref.conformance.diagnosis.catalogue import Names, reading_of
from amos_ref.conformance.diagnosis.evidence import Evidence, Misfit
from amos_ref.conformance.diagnosis.grammar import QUANTITIES, TARGETS, scaled
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.reading import Reading, Step

POINTS = 10  # observations that are looked at
ROUNDS = 8  # of the secant method
#: Factors that the catalogue names: the target, the number, the name.
WORDS = {
    "extra_l2": {-1.0: "extra_l2-sign", 0.5: "extra_l2-halved", 2.0: "extra_l2-doubled", 0.0: "extra_l2-ignored"},
    "gamma_in_rho": {-1.0: "gamma-sign", 2.0: "gamma-whole"},
}
NEAR = {"float64": 1e-7, "float32": 1e-3}  # how well a product of powers must give K


class Point(NamedTuple):
    """A first misfit: what the port has there, and the reading's step."""

    seen: Observation
    misfit: Misfit
    got: np.ndarray
    step: Step


def fitted(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    """Yield deviations, with fitted numbers or quantities, that may explain the first misfits."""
    near = NEAR.get(evidence.seen[failing[0]].case.dtype)
    if near is None:
        return
    chosen = failing[:: max(len(failing) // POINTS, 1)][:POINTS]
    points = [point for i in chosen for point in _points(evidence, names, i)]
    for target in TARGETS if points else ():
        known = [(k, point) for point in points if (k := _solve(target, names, point)) is not None]
        if known:
            yield from _explain(target, known, near)


def _points(evidence: Evidence, names: Names, i: int) -> Iterator[Point]:
    """Yield the leaves at the first misfit of an observation, where one slot covers the leaf."""
    misfit, one = evidence.misfit(names, i), evidence.seen[i]
    if misfit is None or not misfit.step:
        return
    steps = _steps(reading_of(names), one, misfit.step)
    for leaf, got in one.shown[misfit.step - 1].get(misfit.stage, {}).items():
        step = steps.get(leaf)
        if step is None or step.count != misfit.step or step.old_v.size != 1:
            continue
        if got.size == np.size(getattr(step, misfit.stage)):
            yield Point(one, misfit._replace(leaf=leaf), got.reshape(-1), step)


def _steps(reading: Reading, one: Observation, count: int) -> dict[str, Step]:
    return next(itertools.islice(reading.run(one.case, one.etas), count - 1, None))


def _solve(target: str, names: Names, point: Point) -> float | None:
    """Return the factor of a target under which the reading meets the port at a point, by the secant method."""

    def value(k: float) -> np.ndarray:
        factor = TARGETS[target].scaled(lambda s: k)
        reading = Reading([*reading_of(names).overrides, factor])
        step = _steps(reading, point.seen, point.misfit.step)[point.misfit.leaf]
        return np.asarray(getattr(step, point.misfit.stage), dtype=np.float64).reshape(-1)

    k, other = 1.0, 0.75
    with np.errstate(all="ignore"):
        at_k, at_other = value(k), value(other)
        for _ in range(ROUNDS):
            slope = (at_k - at_other) / (k - other)
            size = float(slope @ slope)
            if not size or not math.isfinite(size):
                return None
            change = float(slope @ (point.got - at_k)) / size
            other, at_other, k = k, at_k, k + change
            if not math.isfinite(k) or abs(k) > 1e9:
                return None
            at_k = value(k)
            if abs(change) <= 1e-15 * abs(k):
                break
        gap, moved = np.abs(at_k - point.got).max(), np.abs(slope).max() * abs(k - 1.0)
    return k if gap <= 1e-3 * moved else None


def _explain(target: str, known: list[tuple[float, Point]], near: float) -> Iterator[Names]:
    """Yield the number that K is, or the powers of quantities that give it at every point."""
    ks = np.array([k for k, _ in known])
    if np.ptp(ks) <= near * np.abs(ks).max():
        k = _rounded(float(np.median(ks)), near)
        if k != 1.0:
            yield _in_known_words(target, k)
    if np.all(ks > 0) or np.all(ks < 0):
        columns = dict(_columns(target, known))
        for several in (1, 2):
            yield from _powers(target, np.log(np.abs(ks)), float(np.sign(ks[0])), columns, several, near)


def _in_known_words(target: str, k: float) -> Names:
    """A factor that the catalogue has words for, alone or as sign and size, is told in these."""
    named = WORDS.get(target, {})
    for names in ([k], [-1.0, -k]):
        if all(part in named for part in names):
            return tuple(named[part] for part in names)
    return (scaled(target, (), k).name,)


def _columns(target: str, known: list[tuple[float, Point]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the logarithms of each quantity at the points, as far as it can be a factor."""
    for quantity in TARGETS[target].factors:
        with np.errstate(all="ignore"):
            values = [float(np.ravel(np.asarray(QUANTITIES[quantity](point.step)))[0]) for _, point in known]
            column = np.log(values)
        if np.isfinite(column).all() and column.any():
            yield quantity, column


def _powers(
    target: str, logs: np.ndarray, sign: float, columns: dict[str, np.ndarray], several: int, near: float
) -> Iterator[Names]:
    """Yield products of so many powers, with a number, that give K at every point."""
    for chosen in itertools.combinations(columns, several):
        basis = np.stack([*(columns[quantity] for quantity in chosen), np.ones(len(logs))], axis=1)
        if len(logs) < several + 2 or np.linalg.matrix_rank(basis, tol=1e-6) <= several:
            continue
        solution = np.linalg.lstsq(basis, logs, rcond=None)[0]
        exponents = [fractions.Fraction(round(2 * x), 2) for x in solution[:several]]
        left = logs - basis[:, :several] @ np.array([float(x) for x in exponents])
        if np.ptp(left) <= 10 * near and all(exponents) and max(map(abs, exponents)) <= 4:
            number = _rounded(sign * math.exp(float(np.median(left))), 10 * near)
            yield (scaled(target, tuple(zip(chosen, exponents, strict=True)), number).name,)


def _rounded(k: float, near: float) -> float:
    """Return the simplest number near k: a fraction, a short decimal, or k."""
    simple = [
        float(fractions.Fraction(k).limit_denominator(64)),
        *(float(f"{k:.{digits}g}") for digits in (2, 3, 4, 5, 6)),
    ]
    return next((x for x in simple if abs(x - k) <= near * abs(k)), k)
