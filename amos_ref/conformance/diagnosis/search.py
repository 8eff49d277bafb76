"""The search for the smallest set of deviations under which the page reproduces what a port did.

A set is extended by what lets its first misfit come later: a deviation shows first where it acts first, so that several
are found one after the other. Extensions are the catalogue's, the grammar's, and factors fitted to the port's numbers.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.evidence import UNDECIDED, BudgetSpent, Evidence
from amos_ref.conformance.diagnosis.fit import fitted, fitted_offsets
from amos_ref.conformance.judging.envelope import ENVELOPE_DTYPES

LARGEST = 6  # deviations of a set
BEAM = 5  # sets of a size that are extended
SINGLES = 4  # lists that come of single deviations, up to the edits; without the grammar, 2 that come first
CASE_OF_DEFAULTS = "defaults"  # the case in which every option is what it is without being set
EPSILON_DEFAULT = "epsilon-default-"  # how names of deviations begin that have another default of epsilon
PROBES = 4  # observations by which extensions are ranked

Scores = dict[Names, tuple[int, ...]]  # what is more comes first
Source = Callable[[Evidence, Names, list[int]], Iterator[Names]]


def sets(evidence: Evidence, largest: int = LARGEST, grammar: bool = True) -> Iterator[list[Names]]:
    """Yield the sets that explain all observations, smaller ones first, as far as the budget reaches.

    Single deviations are the catalogue's, then, with the grammar, fitted factors, what the fit may miss, edits of the
    formulas, and numbers that are added. An edit stands alone, since it hides what else its stage makes of a deviation.
    Pairs and larger sets grow by the catalogue, at first only the most promising one, then more of
    them, and then, with the grammar, by fitted factors too: a fit costs as much as ten catalogues.
    """
    singles: Scores = {}
    try:
        for source in _SOURCES if grammar else _SOURCES[:1]:
            new = _extensions(evidence, (), source)
            if source is not _edits:
                singles |= new
            yield _smallest([names for names in new if evidence.fits(names)])
        # What was computed once is not charged again.
        passes = ((2, BEAM, 1), (largest, 1, 1), (largest, BEAM, 1), (largest, BEAM, 2))
        for upto, beam, sources in passes if grammar else passes[:-1]:
            yield from _larger(evidence, singles, upto, beam, _SOURCES[:sources])
    except BudgetSpent:
        return


def _larger(
    evidence: Evidence, scores: Scores, largest: int, beam: int, sources: Sequence[Source]
) -> Iterator[list[Names]]:
    for _ in range(1, largest):
        frontier, scores = _frontier(evidence, scores, beam), {}
        for source in sources:
            new: Scores = {}
            for names in frontier:
                new |= _extensions(evidence, names, source)
            scores |= new
            yield _smallest([names for names in new if evidence.fits(names) and not _idles(evidence, names)])


def _smallest(found: list[Names]) -> list[Names]:
    """Leave out what another set explains with fewer deviations: where epsilon stands, say, without another default."""
    return [names for names in found if not any(set(other) < set(names) for other in found)]


def _frontier(evidence: Evidence, scores: Scores, beam: int) -> list[Names]:
    """Return the most promising of the sets that do not explain everything."""
    left = [names for names in scores if next(evidence.failing(names), None) is not None]
    best = sorted(left, key=scores.__getitem__, reverse=True)
    if len(best) > beam:
        best = _settle_ties(evidence, best, scores, scores[best[beam - 1]])
    return list(itertools.islice((names for names in best if not _idles(evidence, names)), beam))


def _settle_ties(evidence: Evidence, best: list[Names], scores: Scores, score: tuple[int, ...]) -> list[Names]:
    """Order the sets of one score by what they make right in later steps too."""
    tied = [names for names in best if scores[names] == score]
    probes = _spread(list(evidence.failing(())))
    right = {names: sum(evidence.count_right(names, i) for i in probes) for names in tied} if len(tied) > 1 else {}
    start = best.index(tied[0])
    return [*best[:start], *sorted(tied, key=lambda names: -right.get(names, 0)), *best[start + len(tied) :]]


def _extensions(evidence: Evidence, names: Names, source: Source) -> Scores:
    """Return the larger sets of a source that come further, each with a score."""
    failing = list(evidence.failing(names))
    if not failing:
        return {}
    probes = _spread(failing)
    if not names:  # an option that is not heeded is wrong wherever it is set, and hides what else is
        probes += [i for i in failing if evidence.seen[i].case.name == CASE_OF_DEFAULTS and i not in probes]
    found: Scores = {}
    for added in source(evidence, names, failing):
        more = evidence.in_order(names + added)
        if set(added) & set(names):
            continue
        first = _gain(evidence, names, more, failing[0])
        # What rounds may miss its first number by a tie, and show in the others.
        shows = not names or all(evidence.deviation(name).stage == "storage" for name in added)
        if first > 0 or (first == 0 and shows):
            gains = [_gain(evidence, names, more, i) for i in probes]
            if min(gains) >= 0 and max(first, *gains) > 0:
                found[more] = (sum(gain > 1 for gain in gains), sum(gains), source is _known)
    return found


def _idles(evidence: Evidence, names: Names) -> bool:
    """Whether one of the deviations changes nothing beside the others: then the smaller set was extended before."""
    smaller = (names[:k] + names[k + 1 :] for k in range(len(names)))
    return any(all(_gain(evidence, less, names, i) <= 0 for i in evidence.failing(less)) for less in smaller)


def _known(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    """Yield the catalogue's deviations; where epsilon stands shows in most cases only together with its default.

    In half precision, where a trial costs two dozen evaluations, there is no room for such pairs.
    """
    alone = list(_relevant(evidence, names, failing[0], evidence.known.catalogue))
    yield from alone
    if evidence.seen[0].case.dtype in ENVELOPE_DTYPES:
        return
    of_epsilon = [added for added in alone if evidence.deviation(*added).stage == "epsilon"]
    defaults = [added for added in of_epsilon if added[0].startswith(EPSILON_DEFAULT)]
    yield from (value + place for value in defaults for place in of_epsilon if place not in defaults)


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


def _edits(evidence: Evidence, names: Names, failing: list[int]) -> Iterator[Names]:
    return _relevant(evidence, names, failing[0], evidence.known.grammar.edits)


_SOURCES: tuple[Source, ...] = (_known, fitted, _grammar, _edits, fitted_offsets)


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
