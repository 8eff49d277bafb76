"""The search for the smallest set of deviations under which the page reproduces what a port did.

A set is extended by what lets its first misfit come later: a deviation shows first where it acts first, so that several
are found one after the other. Extensions are the catalogue's, the grammar's, and factors fitted to the port's numbers.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator

from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.evidence import UNDECIDED, BudgetSpent, Evidence
from amos_ref.conformance.diagnosis.fit import fitted, fitted_offsets

LARGEST = 6  # deviations of a set
BEAM = 5  # sets of a size that are extended
SINGLES = 2  # lists that come of single deviations
PROBES = 4  # observations by which extensions are ranked


def sets(evidence: Evidence, largest: int = LARGEST, grammar: bool = True) -> Iterator[list[Names]]:
    """Yield, for each size from 1 on, the sets that explain all observations, as far as the budget reaches.

    The catalogue's come first, then, with the grammar, fitted factors, and as single deviations what the fit may miss
    and numbers that are added.
    """
    frontier: list[Names] = [()]
    try:
        for size in range(1, largest + 1):
            scores: dict[Names, tuple[int, ...]] = {}
            for source in _SOURCES[: (4 if size == 1 else 2) if grammar else 1]:
                new: dict[Names, tuple[int, ...]] = {}
                for names in frontier:
                    new |= _extensions(evidence, names, source)
                scores |= new
                yield [names for names in new if evidence.fits(names)]
            left = [names for names in scores if next(evidence.failing(names), None) is not None]
            frontier = heapq.nlargest(BEAM, left, key=scores.__getitem__)
    except BudgetSpent:
        return


Source = Callable[[Evidence, Names, list[int]], Iterator[Names]]


def _extensions(evidence: Evidence, names: Names, source: Source) -> dict[Names, tuple[int, ...]]:
    """Return the larger sets of a source that come further, each with a score."""
    failing = list(evidence.failing(names))
    if not failing:
        return {}
    probes = _spread(failing)
    found: dict[Names, tuple[int, ...]] = {}
    for added in source(evidence, names, failing):
        more = evidence.in_order(names + added)
        if set(added) & set(names):
            continue
        first = _gain(evidence, names, more, failing[0])
        # What rounds may miss its first number by a tie, and show in the others.
        if first > 0 or (first == 0 and all(evidence.deviation(name).stage == "storage" for name in added)):
            gains = [_gain(evidence, names, more, i) for i in probes]
            if min(gains) >= 0 and max(first, *gains) > 0:
                found[more] = (sum(gain > 1 for gain in gains), sum(gains), source is _known)
    return found


def _known(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    return _relevant(evidence, names, failing[0], evidence.known.catalogue)


def _grammar(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    return _relevant(evidence, names, failing[0], evidence.known.grammar.unfitted)


def _relevant(evidence: Evidence, names: Names, i: int, among: Iterable[str]) -> Iterator[Names]:
    """Yield the deviations that can change the first misfit of observation i."""
    misfit = evidence.misfit(names, i)
    stage = misfit.stage if misfit else "theta"
    case = evidence.seen[i].case
    for name in among:
        d, upstream = evidence.deviation(name), evidence.known.upstream
        if d.only(case) and (stage not in upstream or d.overrides.keys() & upstream[stage]):
            yield (name,)


_SOURCES: tuple[Source, ...] = (_known, fitted, _grammar, fitted_offsets)


def _spread(failing: list[int]) -> list[int]:
    """Return some of the observations, far apart in the table, so that they differ in what they show."""
    stride = max(len(failing) // PROBES, 1)
    return failing[::stride][:PROBES]


def _gain(evidence: Evidence, names: Names, more: Names, i: int) -> int:
    """2 if observation i fits now, 1 if its first misfit comes later, 0 if nothing can be said, -1 if it is earlier."""
    before, after = evidence.misfit(names, i), evidence.outcome(more, i)
    if after is UNDECIDED:
        return 0
    if after is None:
        return 2 if before is not None else 0
    if before is None:
        return -1
    then, now = evidence.place(before), evidence.place(after)
    return (now > then) - (now < then)
