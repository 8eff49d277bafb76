"""What a port did, held against readings: which observations a set of deviations explains, and which decide nothing."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS, PAPER_AMOS, Algorithm
from amos_ref.conformance.diagnosis.catalogue import KNOWN, Knowledge, Names, deviation, in_order, reading_of
from amos_ref.conformance.diagnosis.deviation import Deviation
from amos_ref.conformance.diagnosis.shown import numbers_of, shown_by
from amos_ref.conformance.diagnosis.terms import count_right_terms
from amos_ref.conformance.judging.bound import UNIT_ROUNDOFF, Unbounded
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.envelope import ENVELOPE_DTYPES
from amos_ref.conformance.judging.judge import first_departure
from amos_ref.conformance.judging.reading import Reading, Step
from amos_ref.conformance.judging.tolerance import Moment, trajectory, trajectory_of_page
from amos_ref.errors import ShapeError

#: The bounds are derived for the page's formulas; under another's they may be somewhat larger.
SLACK = 8.0
ROUGHLY = 4.0 * SLACK
#: Runs of a reading with rounding errors in all that enters: each takes about half of all ties the other way.
NUDGED = 12
#: In how many observations a reading may make more of rounding errors than the page does. Each costs NUDGED runs, and
#: wrong readings miss more: this saves work and decides nothing, and any number up to half of what departs would do.
EXCUSED = 3
UNLIMITED = 1_000_000  # steps of a leaf: more than any use takes


class BudgetSpent(Exception):
    """All the work that a search may do is done."""


class Misfit(NamedTuple):
    """Where an observation departs from a reading first; `step` 0 is its start.

    Where that is theta, `right` says how many of the terms of its change are right (see terms.py).
    """

    step: int
    stage: str
    leaf: str
    detail: str
    right: int = 0


#: An observation that fits, but would fit the page as well, or for which no bound holds: it says nothing.
UNDECIDED = Misfit(0, "theta", "", "undecided")


def _off_by(u: float, seed: int) -> Callable[[Any], Any]:
    """Return what moves every number, but arrays of ones, by a random part of u, to either side."""
    rng = np.random.default_rng(seed)

    def move(x: Any) -> Any:
        # An array starts as exactly 1, and only then its sigma is 0.5: no rounding error makes another array of it.
        if isinstance(x, np.ndarray) and x.size and np.all(x == 1.0):
            return np.float64(x)
        return np.float64(x) * (1.0 + rng.uniform(-u, u, np.shape(x)))

    return move


def _reach(what: str, step: Step, others: Sequence[Step]) -> Any:
    """How far other steps are from one in a quantity; 0 where it has none."""
    here = getattr(step, what)
    if here is None:
        return 0.0
    with np.errstate(all="ignore"):
        gaps = [np.abs(getattr(other, what) - here) for other in others]
    return np.where(np.isfinite(here), np.fmax.reduce(gaps), 0.0)


def _are_same(x: Any, y: Any) -> bool:
    return x is y if x is None or y is None else np.array_equal(x, y, equal_nan=True)


def departs(one: Observation) -> bool:
    """Whether an observation departs from the page."""
    return Evidence([one]).misfit((), 0) is not None


class Evidence:
    """Observations, and how sets of deviations fit them.

    Parameters
    ----------
    seen : sequence of Observation
    stages : sequence of str
        What must agree, of theta and the state, as far as it was shown; all of it without them.
    budget : int
        How many steps of a leaf readings may take in all, to be compared with the port; more is a BudgetSpent.

    Attributes
    ----------
    seen : list of Observation
        Those that depart from the page first.
    given : int
        How many of them the check made; what comes after was added to confirm or refute a name.
    """

    algorithm: Algorithm
    known: Knowledge
    stages: tuple[str, ...]
    left: int
    seen: list[Observation]
    given: int

    def __init__(
        self, seen: Sequence[Observation], stages: Sequence[str] | None = None, budget: int = UNLIMITED
    ) -> None:
        self.algorithm = ALGORITHMS[seen[0].case.algorithm] if seen else PAPER_AMOS
        self.known = KNOWN[self.algorithm.name]
        self.stages, self.left = tuple(self.algorithm.stages if stages is None else stages), budget
        self._searching = True
        self._outcomes: dict[tuple[Names, int], Misfit | None] = {}
        self._excused: dict[tuple[Names, int], Misfit | None] = {}
        self._decided: dict[tuple[Names, int], bool] = {}
        self._in_numbers: dict[int, bool] = {}
        misfits = [(self._compare((), one), one) for one in seen]
        misfits.sort(key=lambda pair: pair[0] is None)
        self.seen, self.given = [one for _, one in misfits], len(misfits)
        self._outcomes = {((), i): misfit for i, (misfit, _) in enumerate(misfits)}

    def as_given(self) -> "Evidence":
        """Return what the check made, without what was added or excused; what is known of it is kept."""
        other = copy.copy(self)
        other.seen, other.left, other._searching, other._excused = self.seen[: self.given], UNLIMITED, True, {}
        other._outcomes = {key: found for key, found in self._outcomes.items() if key[1] < self.given}
        other._decided = {} if self._excused else {k: x for k, x in self._decided.items() if k[1] < self.given}
        return other

    def deviation(self, name: str) -> Deviation:
        """Return a deviation from the algorithm by its name."""
        return deviation(name, self.algorithm.name)

    def in_order(self, names: Names) -> Names:
        """Return names in the order in which their overrides are laid over each other."""
        return in_order(names, self.algorithm.name)

    def reading_of(self, names: Names) -> Reading:
        """Return the page with these deviations."""
        return reading_of(names, self.algorithm.name)

    def place(self, misfit: Misfit) -> tuple[int, int, int]:
        """Return what a misfit can be compared by: later is nearer to the truth."""
        return misfit.step, list(self.algorithm.stages).index(misfit.stage), misfit.right

    def add(self, one: Observation) -> None:
        """Add an observation that the check did not make."""
        self.seen.append(one)

    def outcome(self, names: Names, i: int) -> Misfit | None:
        """Return where observation i departs from the reading first; None if it fits, UNDECIDED if no bound holds."""
        names = self._acting(names, i)
        if (names, i) not in self._outcomes:
            self._outcomes[names, i] = self._compare(names, self.seen[i])
        return self._excused.get((names, i), self._outcomes[names, i])

    def _acting(self, names: Names, i: int) -> Names:
        """Return the deviations that can show in observation i."""
        return tuple(name for name in names if self.deviation(name).only(self.seen[i].case))

    def misfit(self, names: Names, i: int) -> Misfit | None:
        """Return where observation i departs from the reading first; None if it fits or is undecided."""
        found = self.outcome(names, i)
        return None if found is UNDECIDED else found

    def failing(self, names: Names) -> Iterator[int]:
        """Yield the observations that do not fit."""
        return (i for i in range(len(self.seen)) if self.misfit(names, i) is not None)

    def fits(self, names: Names) -> bool:
        """Whether all that could be decided fits, and more than half could: of all, and of what departs."""
        if next(self.failing(names), None) is not None and not self._fits_but_for_errors(names):
            return False
        decided = [self.decides(names, i) for i in range(len(self.seen))]
        departing = [one for i, one in enumerate(decided) if self.outcome((), i) is not None]
        return 2 * sum(decided) > len(decided) and (not departing or 2 * sum(departing) > len(departing))

    def needs_each(self, names: Names) -> bool:
        """Whether each deviation of a set is needed to explain something that is decided."""
        decided = [i for i in range(len(self.seen)) if self.decides(names, i)]
        without = (tuple(other for other in names if other != name) for name in names)
        return all(any(self.misfit(less, i) is not None for i in decided) for less in without)

    def _fits_but_for_errors(self, names: Names) -> bool:
        """Whether the few observations that do not fit do so where a reading makes much of a rounding error.

        What a reading rounds may lie next to a tie, and terms that the page adds may cancel.
        """
        if self.seen[0].case.dtype in ENVELOPE_DTYPES:
            return False
        edits = self.known.grammar.edits  # no bounds are derived for these
        rounds = any(self.deviation(name).stage == "storage" or name in edits for name in names)
        departing = sum(self.outcome((), i) is not None for i in range(len(self.seen)))
        most = (departing - 1) // 2 if rounds else min((departing - 1) // 2, EXCUSED)
        failing = list(itertools.islice(self.failing(names), most + 1))
        if len(failing) > most:
            return False
        for i in failing:
            acting = self._acting(names, i)
            if not acting:  # the page's own bounds are what they are
                return False
            try:
                page, steps = self._page(self.seen[i]), list(self._amid_errors(acting, self.seen[i]))
            except (Unbounded, ShapeError):
                return False
            if self._first(self.seen[i].shown, steps, SLACK, edits.keys() >= set(acting)) is not None:
                return False
            admits = self._first(shown_by(page, self.seen[i]), steps, 1.0) is None
            self._excused[acting, i] = UNDECIDED if admits else None
        return True

    def _amid_errors(self, names: Names, one: Observation) -> Iterator[dict[str, Moment]]:
        """Yield a reading's steps; its bounds reach as far as it goes if all that enters is off by rounding errors."""
        reading, u = self.reading_of(names), SLACK * UNIT_ROUNDOFF[one.case.dtype]
        others = [Reading(reading.overrides, _off_by(u, seed)).run(one.case, one.etas) for seed in range(NUDGED)]
        for now, *off in zip(trajectory(one.case, one.etas, reading), *others, strict=True):
            self.charge((1 + NUDGED) * len(now))
            yield {
                leaf: Moment(
                    step, {what: bound + _reach(what, step, [o[leaf] for o in off]) for what, bound in allowed.items()}
                )
                for leaf, (step, allowed) in now.items()
            }

    def count_right(self, names: Names, i: int) -> int:
        """Return how many quantities of observation i are right if each step starts from what the port showed.

        Unlike a first misfit, which hides what comes after it, this sees which of several readings is right later on.
        """
        one = self.seen[i]
        if one.case.dtype in ENVELOPE_DTYPES or not self.is_whole(one):
            return 0
        count = 0
        try:
            for now, got in zip(
                trajectory(one.case, one.etas, self.reading_of(names), one.shown), one.shown, strict=False
            ):
                self.charge(len(now))
                count += sum(first_departure([got], [now], (what,), SLACK)[0] is None for what in self.stages)
        except (Unbounded, ShapeError):
            pass  # what was right before
        return count

    def decides(self, names: Names, i: int) -> bool:
        """Whether observation i fits, and would not fit just as well if it were the page's."""
        if (names, i) not in self._decided:
            fits = self.outcome(names, i) is None
            departs = names and self.outcome((), i) is not None
            idle = fits and departs and (self._admits_page(names, self.seen[i]) or self._tells_nothing(names, i))
            self._decided[names, i] = fits and not idle
        return self._decided[names, i]

    def _tells_nothing(self, names: Names, i: int) -> bool:
        """Whether the port departs in NaN and infinity alone, which more than one of the grammar's readings have."""
        if all(name in self.known.catalogue for name in names):
            return False
        if i not in self._in_numbers:
            page = self._page(self.seen[i])
            numbers = numbers_of(self.seen[i], page)
            self._in_numbers[i] = first_departure(numbers, page, self.stages, SLACK)[0] is not None
        return not self._in_numbers[i]

    def _compare(self, names: Names, one: Observation) -> Misfit | None:
        if names and one.case.dtype in ENVELOPE_DTYPES:
            if far := self._far_off(names, one):
                return far
            if self._is_page(names, one):
                return self._against((), one, one.shown)
        return self._against(names, one, one.shown)

    def _is_page(self, names: Names, one: Observation) -> bool:
        """Whether a reading has the page's numbers, bit for bit, in a case: then the page's bounds are its own."""
        steps = zip(self.reading_of(names).run(one.case, one.etas), self._page(one), strict=True)
        return all(
            now.keys() == of_page.keys()
            and all(
                _are_same(getattr(step, what), getattr(of_page[name].step, what))
                for name, step in now.items()
                for what in self.algorithm.quantities
            )
            for now, of_page in steps
        )

    def _far_off(self, names: Names, one: Observation) -> Misfit | None:
        """Return where a reading is beyond the page's own bounds, widened: its own would cost two dozen evaluations."""
        steps = self._roughly(self.reading_of(names).run(one.case, one.etas), self._page(one))
        return self._first(one.shown, steps, ROUGHLY)

    def _roughly(self, steps: Iterable[dict[str, Any]], page: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for now, of_page in zip(steps, page, strict=True):
            self.charge(len(now))
            yield {
                name: Moment(step, of_page[name].allowed)
                for name, step in now.items()
                if name in of_page and step.slot == of_page[name].step.slot
            }

    def is_whole(self, one: Observation) -> bool:
        """Whether the port shows all of the state that a step starts from."""
        if self.algorithm.change:  # a momentum may be none
            return all({"v", "b"} <= set(shown) for shown in one.shown)
        needed = set(self.algorithm.parts) if one.case.options.get("direction") == "adam" else set()
        return all(needed <= set(shown) for shown in one.shown)

    def _against(self, names: Names, one: Observation, shown: list[Any]) -> Misfit | None:
        stepped: set[str] = set()
        loose = any(name in self.known.grammar.edits for name in names)
        try:
            steps = trajectory(one.case, one.etas, self.reading_of(names)) if names else self._page(one)
            found = self._first(shown, self._noting(steps, stepped, bool(names)), SLACK, loose)
            shows = shown is one.shown and one.case.dtype not in ENVELOPE_DTYPES and self.is_whole(one)
            shows = shows and set(self.stages) > {"theta"}  # a state of another form is none to start from
            if found and found.step > 1 and names and shows:  # no earlier error is left where each step starts anew
                steps = trajectory(one.case, one.etas, self.reading_of(names), shown)
                if self._first(shown, self._noting(steps, stepped, True), SLACK, loose) is None:
                    found = None
        except Unbounded:
            return UNDECIDED
        if found is not None:
            return found
        still = {} if one.case.inject else {k: a for k, a in one.case.params.items() if k not in stepped}
        moves = (
            Misfit(t, "theta", leaf, "moves, which the reading never does")
            for t, now in enumerate(shown, 1)
            for leaf, a in still.items()
            if np.any(now["theta"].get(leaf, a) != a)
        )
        return next(moves, None)

    def _first(
        self, shown: list[Any], steps: Iterable[dict[str, Any]], slack: float, loose: bool = False
    ) -> Misfit | None:
        """Return where what is shown departs from a reading's steps first."""
        taken: list[dict[str, Any]] = []
        try:
            found = first_departure(shown, (taken.append(now) or now for now in steps), self.stages, slack, loose)[0]
        except ShapeError as error:
            return Misfit(0, next(iter(self.algorithm.parts)), "", str(error))
        if found is None:
            return None
        t, right = found["step"], 0
        if found["stage"] == "theta":
            before = shown[t - 2]["theta"] if t > 1 else {}
            right = count_right_terms(taken[-1], shown[t - 1]["theta"], before, slack)
        return Misfit(t, found["stage"], found["leaf"], found["detail"], right)

    def _noting(self, steps: Iterable[dict[str, Any]], stepped: set[str], charged: bool) -> Iterator[dict[str, Any]]:
        """Pass steps on; note which leaves they step, and charge them."""
        for now in steps:
            if charged:
                self.charge(len(now))
            stepped.update(now)
            yield now

    def charge(self, steps: int) -> None:
        """Take steps of one leaf from the budget."""
        if self.left <= 0 and self._searching:
            raise BudgetSpent
        self.left -= steps

    @contextlib.contextmanager
    def beyond_budget(self) -> Iterator[None]:
        """Let what was found be confirmed, which takes few steps, although the search has spent the budget."""
        self._searching = False
        try:
            yield
        finally:
            self._searching = True

    def _page(self, one: Observation) -> Any:
        return trajectory_of_page(one.case, one.etas)

    def _admits_page(self, names: Names, one: Observation) -> bool:
        """Whether the bounds around a reading are so wide that the page would fit as well, in what the port departs in.

        It is asked of each quantity by itself: a reading without bounds for theta may be decided by v.
        """
        try:
            page, steps = self._page(one), list(trajectory(one.case, one.etas, self.reading_of(names)))
        except (Unbounded, ShapeError):
            return True
        shown = shown_by(page, one)
        departing = [what for what in self.stages if first_departure(one.shown, page, (what,), SLACK)[0] is not None]
        return any(first_departure(shown, steps, (what,))[0] is None for what in departing)
