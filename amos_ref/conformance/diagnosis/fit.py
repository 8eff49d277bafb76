"""Factors fitted to the port's own numbers: by how much a quantity is off, step by step, and of what that is made.

Each step is computed from the state that the port itself shows before it, so that nothing of an earlier error is left
in it. For each target of the grammar, the factor K is solved for under which the reading meets the port there. If K is
one number at all steps, it is the factor; if it varies, quantities of the step whose powers give it are looked for.
"""

import fractions
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.diagnosis.grammar import Grammar, Target
from amos_ref.conformance.diagnosis.replay import Place, Replay, are_apart
from amos_ref.conformance.judging.bound import UNIT_ROUNDOFF
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.paper import Override
from amos_ref.conformance.judging.reading import Reading, Step
from amos_ref.errors import ShapeError

LOOKED_AT = 8  # observations
SEVERAL = 3  # quantities in a product
UNFIT = ("momentum",)  # has no least squares: without it, no m
ROUNDS = 8  # of the secant method
ROUNDING = 16  # units in the last place that a step may be off
NEAR = {"float64": 1e-7, "float32": 1e-3}  # how well a product of powers must give K
FINEST = 1e-6  # of a number that many places tell: ROUNDING errors in float32

_SIMPLE = {sign * n / d for sign in (1, -1) for n in range(1, 13) for d in (1, 2, 3, 4, 5, 8, 10)}


class Points(NamedTuple):
    """Places of an observation, and what the port has there of the first quantity that is off.

    `apart` says that each of the steps hangs on nothing of another.
    """

    seen: Observation
    stage: str
    got: Mapping[Place, np.ndarray]
    steps: Mapping[Place, Step]
    apart: bool = False


def fitted(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    """Yield deviations, with fitted factors, that may explain the misfits."""
    grammar, (points, near) = evidence.known.grammar, _all_points(evidence, names, failing)
    for target in [t for t in grammar.targets if t not in UNFIT] if points else ():
        of = grammar.targets[target]
        known = [pair for one in points for pair in _solve(evidence, of, names, one, 1.0)]
        if known:
            yield from _explain(grammar, target, known, near)


def fitted_offsets(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    """Yield deviations that add a number: the one that most places have, as the secant method may miss it in some.

    An added number is no rounding error only if it shows beyond the bounds, with their slack, in most observations:
    rounding errors show, at most, where everything else is tiny.
    """
    if 2 * len(failing) <= len(evidence.seen):
        return
    grammar, (points, near) = evidence.known.grammar, _all_points(evidence, names, failing)
    for target, of in grammar.offsets.items() if points else ():
        ks = np.array([k for one in points for k, _ in _solve(evidence, of, names, one, 0.0) if k])
        middle = float(np.median(ks)) if ks.size else 0.0
        if middle and 2 * np.count_nonzero(np.abs(ks - middle) <= near * abs(middle)) > ks.size:
            yield (grammar.shifted(target, _rounded(middle, _finer(ks, near))).name,)


def _all_points(evidence: Evidence, names: Names, failing: list[int]) -> tuple[list[Points], float]:
    """Return the places of some observations, and how near a fit must come; none where nothing can be fitted."""
    near = NEAR.get(evidence.seen[failing[0]].case.dtype)
    if near is None:
        return [], 0.0
    try:
        return [found for i in _diverse(evidence, failing) if (found := _points(evidence, names, i)).got], near
    except ShapeError:  # slots of another shape than those of the state that a case sets
        return [], near


def _diverse(evidence: Evidence, failing: list[int]) -> list[int]:
    """Return some observations whose options differ as much as can be."""
    values = {
        i: {*evidence.seen[i].case.options.items(), *(a.shape for a in evidence.seen[i].case.params.values())}
        for i in failing
    }
    chosen = failing[:1]
    while len(chosen) < min(LOOKED_AT, len(failing)):
        known = set().union(*(values[i] for i in chosen))
        chosen.append(max((i for i in failing if i not in chosen), key=lambda i: len(values[i] - known)))
    return chosen


def _points(evidence: Evidence, names: Names, i: int) -> Points:
    """Return the first misfit, and the later steps as well if the port shows the state that they start from."""
    misfit, one = evidence.misfit(names, i), evidence.seen[i]
    if misfit is None or not misfit.step:
        return Points(one, "theta", {}, {})
    last = len(one.shown) if evidence.is_whole(one) else misfit.step
    steps = _run(evidence, evidence.reading_of(names), one, last)
    got = {
        (leaf, t): one.shown[t - 1][misfit.stage][leaf].reshape(-1)
        for (leaf, t), step in steps.items()
        if t >= misfit.step and math.prod(step.slot) == 1 and leaf in one.shown[t - 1].get(misfit.stage, {})
    }
    got = {place: a for place, a in got.items() if a.size == np.size(getattr(steps[place], misfit.stage))}
    return Points(one, misfit.stage, got, steps, are_apart(one, steps, misfit.step))


def _run(evidence: Evidence, reading: Reading, one: Observation, last: int) -> dict[Place, Step]:
    """Return each step of each leaf, from the state that the port shows before it."""
    evidence.charge(last)
    runs = itertools.islice(reading.run(one.case, one.etas, one.shown), last)
    return {(leaf, t): step for t, now in enumerate(runs, 1) for leaf, step in now.items() if step.count == t}


def _solve(
    evidence: Evidence, target: Target, names: Names, points: Points, neutral: float
) -> Iterator[tuple[float, Step]]:
    """Yield the number of a target under which the reading meets the port, for each place, by the secant method.

    `neutral` is the number that changes nothing: 1 for a factor, 0 for what is added.
    """
    dtype = points.seen.case.dtype
    near, unit = NEAR[dtype], UNIT_ROUNDOFF[dtype]
    values = _computing(evidence, target, names, points, neutral)
    old, new = dict.fromkeys(points.got, neutral - 0.25), dict.fromkeys(points.got, neutral)
    at_old, at_new = values(old, old), values(new, new)
    left = set(points.got)
    with np.errstate(all="ignore"):
        slopes = {place: (at_new[place] - at_old[place]) / 0.25 for place in points.got}
        for _ in range(ROUNDS):
            changes = {place: _change(points.got[place] - at_new[place], slopes[place]) for place in left}
            left = {place for place, change in changes.items() if abs(change) > 1e-15 * abs(new[place])}
            if not left:
                break
            old, at_old = new, at_new
            new = new | {place: new[place] + changes[place] for place in left}
            at_new = at_new | values(new, left)
            slopes |= {place: (at_new[place] - at_old[place]) / (new[place] - old[place]) for place in left}
        for place, got in points.got.items():
            k, slope = new[place], float(np.abs(slopes[place]).max())
            noise, gap = ROUNDING * unit * np.abs(got).max(), np.abs(at_new[place] - got).max()
            if noise <= near * slope * abs(k):  # K shows well enough
                if gap <= noise + near * slope * abs(k):
                    yield k, points.steps[place]
            elif noise <= near * slope and gap <= noise:  # a K of 1 would show, and there is none
                yield 0.0, points.steps[place]


def _computing(
    evidence: Evidence, target: Target, names: Names, points: Points, neutral: float
) -> Callable[[Mapping[Place, float], Collection[Place]], dict[Place, np.ndarray]]:
    """Return what computes the quantity at some places with the number of a target at each; `neutral` elsewhere."""
    ks: dict[Place, float] = {}
    overrides, last = evidence.reading_of(names).overrides, max(t for _, t in points.got)
    factor: Mapping[str, Override] = target.scaled(lambda s: ks.get((s.name, s.count), neutral))
    there = {place: points.steps[place] for place in points.got}
    restarts = any(name.startswith("old_") for name in factor)  # what a step starts from is no longer the port's
    replay = Replay(overrides, factor, points.stage, there, points.seen) if points.apart and not restarts else None

    def values(numbers: Mapping[Place, float], wanted: Collection[Place]) -> dict[Place, np.ndarray]:
        ks.update(numbers)
        if replay is not None:
            found = {place: replay.at(place) for place in wanted}
            if all(a is not None for a in found.values()):
                evidence.charge(last)
                return found  # type: ignore[return-value]
        steps = _run(evidence, Reading([*overrides, factor]), points.seen, last)
        return {place: np.asarray(getattr(steps[place], points.stage)).reshape(-1) for place in wanted}

    return values


def _change(gap: np.ndarray, slope: np.ndarray) -> float:
    """A step of the secant method, towards the least squares of the gap; 0 where nothing moves."""
    size = float(slope @ slope)
    change = float(slope @ gap) / size if size and math.isfinite(size) else 0.0
    return change if math.isfinite(change) else 0.0


def _explain(grammar: Grammar, target: str, known: list[tuple[float, Step]], near: float) -> Iterator[Names]:
    """Yield the number that K is, or the powers of quantities that give it everywhere."""
    known = [pair for pair in known if pair[0]] or known[:1]  # where K is tiny, it may be told as 0
    ks = np.array([k for k, _ in known])
    if np.ptp(ks) <= near * np.abs(ks).max():
        k = _rounded(float(np.median(ks)), _finer(ks, near))
        if k != 1.0:
            yield _in_known_words(grammar, target, k)
            # It may be an option that has one value wherever the target shows.
            columns = dict(_columns(grammar, target, [step for _, step in known]))
            yield from _powers(grammar, target, np.log(np.abs(ks)), float(np.sign(k)), columns, 1, near) if k else ()
        return
    middle = float(np.median(ks))
    near_by = np.abs(ks - middle) <= near * abs(middle)
    if 2 * np.count_nonzero(near_by) > ks.size and abs(middle - 1.0) > near:  # the secant method may miss it in some
        yield _in_known_words(grammar, target, _rounded(middle, _finer(ks, near)))
    if np.all(ks > 0) or np.all(ks < 0):
        columns = dict(_columns(grammar, target, [step for _, step in known]))
        for several in range(1, SEVERAL + 1):
            found = list(_powers(grammar, target, np.log(np.abs(ks)), float(np.sign(ks[0])), columns, several, near))
            yield from found
            if found:
                return


def _in_known_words(grammar: Grammar, target: str, k: float) -> Names:
    """A factor that the catalogue has words for, alone or as sign and size, is told in these."""
    named = {part: name for part, name in grammar.words.get(target, {}).items() if name in grammar.catalogue}
    for parts in ([k], [-1.0, -k]):
        if all(part in named for part in parts):
            return tuple(named[part] for part in parts)
    return (grammar.scaled(target, (), k).name,)


def _columns(grammar: Grammar, target: str, steps: list[Step]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the logarithms of each quantity at the steps, as far as it can be a factor; not finite where it is 0."""
    for quantity in grammar.targets[target].factors:
        with np.errstate(all="ignore"):
            column = np.log([float(np.ravel(np.asarray(grammar.factors[quantity](step)))[0]) for step in steps])
        there = np.isfinite(column)
        if 2 * there.sum() > there.size and column[there].any():
            yield quantity, column


def _powers(
    grammar: Grammar,
    target: str,
    logs: np.ndarray,
    sign: float,
    columns: Mapping[str, np.ndarray],
    several: int,
    near: float,
) -> Iterator[Names]:
    """Yield products of so many powers, with a number, that give K everywhere."""
    for chosen, constant in itertools.product(_near_enough(logs, columns, several, 10 * near), (0, 1)):
        # Without a number of its own first: fewer inputs tell that.
        basis = np.stack([*(columns[quantity] for quantity in chosen), *[np.ones(len(logs))] * constant], axis=1)
        there = np.isfinite(basis).all(axis=1)
        basis, wanted = basis[there], logs[there]
        if len(wanted) < several + 1 + constant:
            continue
        solution, _, rank, _ = np.linalg.lstsq(basis, wanted, rcond=1e-9)
        finest = 4 if several == 1 else 2
        exponents = [fractions.Fraction(round(finest * x), finest) for x in solution[:several]]
        left = wanted - basis[:, :several] @ np.array([float(x) for x in exponents])
        spread = np.ptp(left) if constant else np.abs(left).max()
        if rank == several + constant and spread <= 10 * near and all(exponents) and max(map(abs, exponents)) <= 4:
            finer = _finer(np.exp(left), 10 * near) if constant else 10 * near
            number = _rounded(sign * math.exp(float(np.median(left))), finer)
            factors = tuple(zip(chosen, exponents, strict=True))
            # Powers of halves and any number fit too much.
            if constant and number not in _SIMPLE and target not in grammar.fixed:
                continue
            yield (grammar.scaled(target, factors, number).name,)


def _near_enough(
    logs: np.ndarray, columns: Mapping[str, np.ndarray], several: int, near: float
) -> list[tuple[str, ...]]:
    """Return the products of so many powers that can give K, whatever the exponents and the number: all at once.

    No exponents come nearer than those of least squares, in the sum over the places where every quantity is known.
    """
    chosen = list(itertools.combinations(columns, several))
    if not chosen:
        return []
    known = np.stack(list(columns.values()), axis=1)
    there = np.isfinite(known).all(axis=1)
    places = {quantity: i for i, quantity in enumerate(columns)}
    bases = known[there][:, [[places[quantity] for quantity in some] for some in chosen]].transpose(1, 0, 2)
    q = np.linalg.qr(np.concatenate([bases, np.ones((*bases.shape[:2], 1))], axis=2)).Q
    wanted = logs[there][:, None]
    left = np.linalg.norm(wanted - q @ (q.transpose(0, 2, 1) @ wanted), axis=(1, 2))
    limit = math.sqrt(there.sum()) * near + 1e-12 * np.linalg.norm(wanted)
    return [some for some, gap in zip(chosen, left, strict=True) if gap <= limit]


def _finer(ks: np.ndarray, near: float) -> float:
    """Return how well a number is known that many places tell: some tell it badly, and half of them well."""
    middle = float(np.median(ks))
    known = 8.0 * float(np.median(np.abs(ks - middle))) / abs(middle) if middle else near
    return min(near, max(known, FINEST))


def _rounded(k: float, near: float) -> float:
    """Return the simplest number near k: a fraction, a short decimal, the root of a fraction, or k."""
    short = [float(f"{k:.{digits}g}") for digits in range(2, 7)]
    root = math.copysign(math.sqrt(float(fractions.Fraction(k * k).limit_denominator(16))), k)
    simple = [float(fractions.Fraction(k).limit_denominator(64)), *short[:2], root, *short[2:]]
    return next((x for x in simple if abs(x - k) <= near * abs(k)), k)
