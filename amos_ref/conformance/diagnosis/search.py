"""The search for the smallest set of deviations under which the page reproduces what a port did."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.judge import STAGES, first_departure
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.judging.tolerance import trajectory, trajectory_of_page
from amos_ref.errors import ShapeError

Names = tuple[str, ...]  # of deviations, in the catalogue's order

#: The bounds are derived for the page's formulas; under another's they may be somewhat larger.
SLACK = 8.0

_ORDER = {name: i for i, name in enumerate(CATALOGUE)}


def in_order(names: Sequence[str]) -> Names:
    """Return names in the catalogue's order, in which their overrides are laid over each other."""
    return tuple(sorted(names, key=_ORDER.__getitem__))


def reading_of(names: Names) -> Reading:
    """Return the page with these deviations."""
    return Reading(CATALOGUE[name].overrides for name in names)


class Search:
    """Sets of deviations against observations.

    Parameters
    ----------
    seen : sequence of Observation
    stages : sequence of str
        What must agree, of theta, v, b, m, as far as it was shown.

    Attributes
    ----------
    given : tuple of Observation
        Those that depart from the page first.
    seen : list of Observation
        The same, and others that the port was run on since.
    """

    def __init__(self, seen: Sequence[Observation], stages: Sequence[str] = tuple(STAGES)) -> None:
        self.stages = stages
        self._undecided: dict[Names, int] = {}
        misfits = [(self._compare((), one), one) for one in seen]
        misfits.sort(key=lambda pair: pair[0] is None)  # what departs is looked at first
        self.given = tuple(one for _, one in misfits)
        self.seen = list(self.given)
        self._known: dict[tuple[Names, int], dict[str, Any] | None]
        self._known = {((), i): misfit for i, (misfit, _) in enumerate(misfits)}

    def misfit(self, names: Names, i: int) -> dict[str, Any] | None:
        """Return where observation i departs from the reading first; None if it fits."""
        names = tuple(name for name in names if CATALOGUE[name].only(self.seen[i].case))
        if (names, i) not in self._known:
            self._known[names, i] = self._compare(names, self.seen[i])
        return self._known[names, i]

    def _compare(self, names: Names, one: Observation) -> dict[str, Any] | None:
        try:
            if names:
                steps = trajectory(one.case, one.etas, reading_of(names))
            else:
                steps = trajectory_of_page(one.case, one.etas)
            return first_departure(one.shown, steps, self.stages, SLACK)[0]
        except ShapeError as error:
            return dict(step=0, stage="v", leaf="", ratio=float("inf"), detail=str(error))
        except Unbounded:
            self._undecided[names] = self._undecided.get(names, 0) + 1
            return None

    def failing(self, names: Names) -> Iterator[int]:
        """Yield the observations that do not fit."""
        return (i for i in range(len(self.seen)) if self.misfit(names, i) is not None)

    def fits(self, names: Names) -> bool:
        """Whether every observation fits, and at most half of them because no bound holds there."""
        return next(self.failing(names), None) is None and 2 * self._undecided.get(names, 0) <= len(self.seen)

    def of_size(self, size: int) -> list[Names]:
        """Return the sets of that many deviations that fit, given that no smaller set does."""
        level: set[Names] = {()}
        for k in range(1, size + 1):
            level = {
                more
                for names in level
                for i in itertools.islice(self.failing(names), 1)
                for more in self._larger(names, i)
                if k < 2 or k == size or self._reaches_further(more, 0)
            }
        return _sort(names for names in level if self.fits(names))

    def case_by_case(self, limit: int, largest: int) -> list[Names]:
        """Return larger sets that fit: at most `largest` deviations explain a case, then the next is looked at.

        Where several sets explain a case equally well, each is followed, but no larger ones.
        """
        pending, done = [()], set()
        while pending and len(done) < 100:
            names = min(pending, key=len)
            pending.remove(names)
            done.add(names)
            i = next(self.failing(names), None)
            if i is None:
                return [names]
            pending += [
                more for more in self._smallest_extensions(names, i, largest) if len(more) <= limit and more not in done
            ]
        return []

    def _smallest_extensions(self, names: Names, i: int, largest: int) -> list[Names]:
        """Return the smallest extensions of a set under which observation i fits."""
        level = {names}
        for k in range(1, largest + 1):
            level = {more for one in level for more in self._larger(one, i)}
            fitting = [more for more in level if self.misfit(more, i) is None]
            if fitting:
                return _sort(fitting)
            if k > 1:
                level = {more for more in level if self._reaches_further(more, i, names)}
        return []

    def _larger(self, names: Names, i: int) -> Iterator[Names]:
        """Yield the set with one deviation more, where that changes how observation i misfits."""
        before = self.misfit(names, i)
        for name in CATALOGUE:
            more = in_order((*names, name))
            if name not in names and self.misfit(more, i) != before:
                yield more

    def _reaches_further(self, names: Names, i: int, than: Names = ()) -> bool:
        before, after = self.misfit(than, i), self.misfit(names, i)
        return before is None or after is None or _place(after) > _place(before)


def _sort(sets: Iterable[Names]) -> list[Names]:
    return sorted(sets, key=lambda names: [_ORDER[name] for name in names])


def _place(misfit: dict[str, Any]) -> tuple[int, int]:
    return misfit["step"], list(STAGES).index(misfit["stage"])
