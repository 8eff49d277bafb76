"""What a port does instead: the smallest set of deviations under which the page reproduces all that it did."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.dialects import dialects
from amos_ref.conformance.diagnosis.evidence import SLACK, UNDECIDED, Evidence, departs
from amos_ref.conformance.diagnosis.further import Confirming, Subject
from amos_ref.conformance.diagnosis.own_form import OWN_FORM, describe_left_out
from amos_ref.conformance.diagnosis.recognise import recognise
from amos_ref.conformance.diagnosis.search import EPSILON_DEFAULT, LARGEST, SINGLES, sets
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.drive import UNDECLARED_DTYPES, Observation
from amos_ref.conformance.judging.judge import first_departure
from amos_ref.conformance.judging.tolerance import is_bounded, trajectory, trajectory_of_page
from amos_ref.conformance.ports.port import Port
from amos_ref.errors import ShapeError

BESIDE = 3  # deviations of a set beside which something must be said
CONFIRMING = 8  # inputs that the search did not see, on which a name must hold
FEWEST = 12  # numbers that are all float32's by chance in no port
TWINS = 24  # inputs on which what is one reading is one reading: each option is in half of them
FURTHER = 40  # inputs that are tried to tell candidates apart
BUDGET = 120_000  # steps of a leaf that a search may take with readings
BUDGET_BESIDE = 15_000  # the same where something must be said beside a name
BUDGET_LOW = 5_000  # the same in float16 and bfloat16, where each costs two dozen evaluations: once all names, and more
GOOD_SHARE = 0.5  # of what departs from the page: how much a nearest deviation must explain

SINGLE = "it holds in float32's bounds, not in float64's: something of it is float32"


class Diagnosis(NamedTuple):
    """What was found.

    Attributes
    ----------
    text : str
        All of it in words.
    deviations : list of str
        The smallest set that explains everything; [] if there is none or more than one.
    candidates : list of list of str
        Every smallest set; more than one if no input that was tried tells them apart.
    dialect : str or None
        The published reading that this is.
    nearest : list of str
        If nothing explains everything: what explains a good share of it. Not a name for what the port does.
    life : list of str
        What explains the cases of its life, beside what explains the formulas; if these conform, `deviations` too.
    """

    text: str
    deviations: list[str]
    candidates: list[list[str]]
    dialect: str | None
    nearest: list[str]
    life: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return self._asdict()


class Attempt(NamedTuple):
    """One way to look at the observations, and what must be said beside what is found so."""

    evidence: Evidence
    notes: tuple[str, ...]
    setting: Sequence[Observation] = ()  # cases that set the state, where that is left out

    @property
    def judged(self) -> str:
        """The dtype in whose bounds the observations are judged."""
        return self.evidence.seen[0].case.dtype

    @property
    def dtype(self) -> str:
        """The dtype in which the port is run."""
        return "float64" if SINGLE in self.notes else self.judged


def diagnose(
    port: Port,
    seen: Sequence[Observation],
    eta: Any = None,
    timeout: float | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> Diagnosis | None:
    """Name what a port does instead of the page; None if everything conforms.

    Parameters
    ----------
    port : Port
        It is run again, on inputs that confirm what was found.
    seen : sequence of Observation
        What it did with each case.
    eta, timeout : optional
        As for :func:`amos_ref.conformance.judging.drive.observe`.
    say : callable
        Is told what is being tried.
    """
    same = _most_precise_departures(seen)
    if not same:
        return None
    subject = Subject(port, eta, timeout)
    confirming = Confirming(subject)
    as_they_are: Evidence | None = None
    for attempt, candidates in _candidates(subject, same, say):
        as_they_are = as_they_are if attempt.notes else attempt.evidence
        with attempt.evidence.beyond_budget():
            found = _tell_apart(subject, attempt, _confirm(subject, attempt, candidates, confirming))
            if found:  # further inputs may have refuted all of them
                return _explain(attempt, found)
    other = recognise(seen)
    if other:
        return Diagnosis(other, [], [], None, [])
    return _name_nearest(as_they_are.as_given() if as_they_are else Evidence(same))


def _most_precise_departures(seen: Sequence[Observation]) -> list[Observation]:
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        same = [one for one in seen if one.case.dtype == dtype]
        if any(map(departs, same)):
            return same
    return []


def _candidates(
    subject: Subject, same: list[Observation], say: Callable[[str], Any]
) -> Iterator[tuple[Attempt, list[Names]]]:
    """Yield sets that fit: the observations as they are come first, and float32's bounds last."""
    for attempts in _attempts(subject, same):
        # In float32's bounds a fitted number would be one of many.
        exact = [SINGLE not in a.notes for a in attempts]
        searches = [
            (a, sets(a.evidence, BESIDE if a.notes else LARGEST, grammar), SINGLES if grammar else 2)
            for a, grammar in zip(attempts, exact, strict=True)
        ]
        for attempt in attempts:
            if attempt.notes and attempt.evidence.fits(()):
                yield attempt, [()]
        # The single deviations of every way of looking, then what is left of each: by theta alone a wrong factor of a
        # state may do what an edit does that explains the state as well.
        for whole in (False, True):
            for attempt, search, singles in searches:
                say(f"what it does instead{_aside(attempt)}")
                part = search if whole else itertools.islice(search, singles)
                yield from ((attempt, found) for found in part)


def _aside(attempt: Attempt) -> str:
    return "".join({SINGLE: ", in float32", OWN_FORM: ", by theta alone"}[note] for note in attempt.notes)


def _attempts(subject: Subject, same: list[Observation]) -> Iterator[list[Attempt]]:
    """Look at the observations as they are and at theta alone, then likewise in float32's bounds."""
    dtype = same[0].case.dtype
    if dtype in envelope.ENVELOPE_DTYPES:
        yield [Attempt(Evidence(same, budget=BUDGET_LOW), ())]
        return
    shows = any(set(shown) > {"theta"} for one in same for shown in one.shown)
    yield _ways(same, (), shows, BUDGET)
    if dtype == "float64" and "float32" in getattr(subject.port, "dtypes", UNDECLARED_DTYPES):
        table = ALGORITHMS[same[0].case.algorithm].table()
        both = {case.name for case in table if case.dtype == "float32"}  # some cases are for float64 alone
        lower = [one._replace(case=one.case._replace(dtype="float32")) for one in same if one.case.name in both]
        yield _ways(lower, (SINGLE,), shows, BUDGET_BESIDE)


def _ways(same: list[Observation], notes: tuple[str, ...], shows: bool, budget: int) -> list[Attempt]:
    found = [Attempt(Evidence(same, budget=budget), notes)]
    own = [one for one in same if not one.case.inject]  # a state of another form cannot have been set to the page's
    if not shows or not any(map(departs, own)):
        return found
    setting = [one for one in same if one.case.inject]
    return [*found, Attempt(Evidence(own, ("theta",), BUDGET_BESIDE), (*notes, OWN_FORM), setting)]


def _confirm(subject: Subject, attempt: Attempt, candidates: list[Names], confirming: Confirming) -> list[Names]:
    """Return the candidates that hold on inputs which the search did not see, and, said of float32, in float32.

    In larger sets one deviation may hide most of what another one does, so that they need more inputs.
    """
    if not candidates:
        return []
    evidence, largest = attempt.evidence, max(map(len, candidates))
    wanted = CONFIRMING // 4 if attempt.judged in envelope.ENVELOPE_DTYPES else CONFIRMING * max(largest - 1, 1)
    further = confirming.first(wanted, evidence.algorithm.name, attempt.dtype)
    for one in further[len(evidence.seen) - evidence.given :]:
        evidence.add(_judged(one, attempt))
    found = [names for names in candidates if evidence.fits(names) and evidence.needs_each(names)]
    found = _hold_near_epsilon(attempt, found, confirming)
    if SINGLE in attempt.notes:
        found = [names for names in found if _holds_in_float32(subject, evidence, names)]
    return found


def _judged(one: Observation, attempt: Attempt) -> Observation:
    """Return an observation that is judged by the bounds of an attempt."""
    return one._replace(case=one.case._replace(dtype=attempt.judged))


def _hold_near_epsilon(attempt: Attempt, candidates: list[Names], confirming: Confirming) -> list[Names]:
    """Return the candidates that hold where gradients are as small as a default of epsilon that they have.

    Far from it an epsilon that is added is as good as one that is a least value: so each is tried beside the default.
    """
    evidence, found = attempt.evidence, []
    places = {name for name, d in evidence.known.catalogue.items() if d.stage == "epsilon"}
    for names in candidates:
        sizes = [float(name.removeprefix(EPSILON_DEFAULT)) for name in names if name.startswith(EPSILON_DEFAULT)]
        near = [one for x in sizes for one in confirming.near(x, evidence.algorithm.name, attempt.dtype)]
        near = [one for one in (_judged(one, attempt) for one in near) if is_bounded(one.case, one.etas)]
        small = Evidence(near, evidence.stages)
        if not near or small.fits(names):
            found.append(names)
        elif places >= {*names}:
            others = {name for name in places if not name.startswith(EPSILON_DEFAULT)} - {*names}
            beside = [evidence.in_order((*names, place)) for place in sorted(others)]
            found += [both for both in beside if small.fits(both) and evidence.fits(both)]
    return found


def _holds_in_float32(subject: Subject, evidence: Evidence, names: Names) -> bool:
    """Whether float64's bounds are too narrow for most of what is seen, and the port does the same in float32."""
    if not any(_is_single(one, evidence.reading_of(names)) for one in evidence.seen):
        return False
    double = Evidence([one._replace(case=one.case._replace(dtype="float64")) for one in evidence.seen], evidence.stages)
    if 2 * len(list(double.failing(names))) <= len(double.seen):
        return False  # the roundings of float32 show everywhere
    names_seen = {one.case.name for one in evidence.seen}
    cases = [case for case in evidence.algorithm.table() if case.dtype == "float32" and case.name in names_seen]
    seen = [one for case in cases[::4] if (one := subject.observe(case))]
    return bool(seen) and Evidence(seen, evidence.stages).fits(names)


def _is_single(one: Observation, reading: Any) -> bool:
    """Whether something that a port shows, of theta, v, b and m, holds float32 numbers where the reading has others."""
    parts: dict[str, list[np.ndarray]] = {}
    with np.errstate(over="ignore"):
        for shown, now in zip(one.shown, reading.run(one.case._replace(dtype="float64"), one.etas), strict=False):
            for what, arrays in shown.items():
                for name in arrays.keys() & now.keys():
                    a, ours = arrays[name], getattr(now[name], what, None)
                    if ours is not None and np.shape(ours) == np.shape(a):
                        told = a[np.isfinite(a) & (a != 0) & (ours != np.float32(ours))]
                        parts.setdefault(what, []).append(np.ravel(told))
        numbers = (np.concatenate(arrays) for arrays in parts.values() if arrays)
        return any(a.size >= FEWEST and bool(np.all(a == np.float32(a))) for a in numbers)


def _tell_apart(subject: Subject, attempt: Attempt, found: list[Names]) -> list[Names]:
    """Run the port on further inputs on which the candidates differ, until one is left or the inputs are used up.

    What no input could tell apart is one reading; its simplest name is kept.
    """
    if len(found) > 1:
        found = _drop_twins(attempt.evidence, found, subject.port.options)
    for i in range(FURTHER):
        if len(found) < 2:
            break
        one = subject.observe_further(attempt.evidence.algorithm.name, i, attempt.dtype)
        if one is not None and _differ(attempt.evidence, one, found):
            attempt.evidence.add(_judged(one, attempt))
            found = [names for names in found if attempt.evidence.fits(names)]
    return found


def _drop_twins(evidence: Evidence, found: list[Names], options: Collection[str]) -> list[Names]:
    """Leave out what gives the same numbers as one before it, on inputs with every option that the port has."""
    algorithm = evidence.algorithm
    cases = [algorithm.load("cases").random_case(i, tuple(options)) for i in range(TWINS)]
    kept: dict[bytes, Names] = {}
    for names in found:
        runs = (now for case in cases for now in evidence.reading_of(names).run(case, case.eta))
        shown = (getattr(step, what) for now in runs for step in now.values() for what in algorithm.stages)
        with np.errstate(over="ignore"):
            numbers = np.concatenate([np.float32(a).ravel() for a in shown if a is not None])
        kept.setdefault(np.where(np.isfinite(numbers), numbers, np.nan).tobytes(), names)
    return list(kept.values())


def _differ(evidence: Evidence, one: Observation, found: list[Names]) -> bool:
    """Whether the candidates expect different things of a case."""
    try:
        first, *others = [list(trajectory(one.case, one.etas, evidence.reading_of(names))) for names in found]
    except (Unbounded, ShapeError):
        return True
    expected = [
        {what: {name: getattr(moment.step, what) for name, moment in now.items()} for what in evidence.algorithm.stages}
        for now in first
    ]
    absent = {what for now in expected for what, arrays in now.items() if any(a is None for a in arrays.values())}
    expected = [{what: arrays for what, arrays in now.items() if what not in absent} for now in expected]
    return any(first_departure(expected, other, slack=SLACK)[0] is not None for other in others)


def _explain(attempt: Attempt, found: list[Names]) -> Diagnosis:
    evidence = attempt.evidence
    only = list(found[0]) if len(found) == 1 else []
    dialect = " and ".join(
        d.name
        for d in dialects()
        if d.algorithm == evidence.algorithm.name and only and set(only) <= set(d.deviations) and evidence.fits(d.names)
    )
    lines = []
    if len(found) > 1:
        lines.append(f"one of {len(found)} readings, which no further input told apart:")
    for names in found:
        lines += ["either:"] if len(found) > 1 else []
        lines += [_describe(evidence, names, name) for name in names]
    lines += [f"{_in_words(attempt, found[0], note)}." for note in attempt.notes]
    if dialect:
        lines.append(f"this is exactly the reading of {dialect}.")
    lines.append(f"with that, the page reproduces {_count(evidence, found[0])}.")
    return Diagnosis("\n".join(lines), only, [list(names) for names in found], dialect or None, [])


def _in_words(attempt: Attempt, names: Names, note: str) -> str:
    seen = attempt.evidence.seen
    return describe_left_out(names, seen, attempt.setting) if note == OWN_FORM else note


def _count(evidence: Evidence, names: Names) -> str:
    """Say in how many cases the port was reproduced, and how many decided nothing."""
    decided = sum(evidence.decides(names, i) for i in range(evidence.given))
    dtype, more = evidence.seen[0].case.dtype, len(evidence.seen) - evidence.given
    cases = f"the {decided} of {evidence.given} cases in {dtype} that could be decided"
    if decided == evidence.given:
        cases = f"all {evidence.given} cases in {dtype}" if evidence.given > 1 else f"the one case in {dtype}"
    return f"{cases}, and {more} further inputs" if more else cases


def _describe(evidence: Evidence, names: Names, name: str) -> str:
    """Say what a deviation of a set does, what comes of it, and where it shows first: what misfits without it."""
    d = evidence.deviation(name)
    without = tuple(other for other in names if other != name)
    text = f"{d.name} ({d.stage}): {d.does}. In training: {d.effect}."
    i = next(evidence.failing(without), None)
    if i is None:
        return text
    step, stage, leaf, *_ = evidence.misfit(without, i) or UNDECIDED
    return f"{text} First shown by case {evidence.seen[i].case.name}, step {step}, {stage} of leaf {leaf!r}."


def _name_nearest(evidence: Evidence) -> Diagnosis:
    """Say what explains a good share, if anything does, and by how much each quantity is off."""
    departing = list(evidence.failing(()))
    explained = {(name,): _share(evidence, (name,), departing) for name in evidence.known.catalogue}
    nearest = max(explained, key=explained.__getitem__)
    lines = ["no known set of deviations explains it."]
    if explained[nearest] == 1.0:
        d = evidence.deviation(nearest[0])
        lines.append(f"{d.name} ({d.does}) explains the cases that were run, and not the further inputs.")
    elif explained[nearest] >= GOOD_SHARE:
        d = evidence.deviation(nearest[0])
        count = round(explained[nearest] * len(departing))
        cases = f"{count} of the {len(departing)} cases that depart"
        lines.append(f"nearest, but not it: {d.name} ({d.does}), which explains {cases}.")
    else:
        nearest = ()
    lines.append(f"first misfit: {_describe_errors(evidence)}")
    return Diagnosis("\n".join(lines), [], [], None, list(nearest))


def _share(evidence: Evidence, names: Names, departing: list[int]) -> float:
    """How much of what departs a set explains, if that is a good share; 0 if something departs with it only."""
    missed = 0
    for i in departing:
        missed += not evidence.decides(names, i)
        if missed > (1.0 - GOOD_SHARE) * len(departing):
            return 0.0
    if any(evidence.misfit(names, i) is not None for i in range(len(evidence.seen)) if i not in departing):
        return 0.0
    return 1.0 - missed / max(len(departing), 1)


def _describe_errors(evidence: Evidence) -> str:
    """The relative error of each quantity in the first step that departs."""
    one, misfit = evidence.seen[0], evidence.misfit((), 0) or UNDECIDED
    t = misfit.step
    moments = trajectory_of_page(one.case, one.etas)[t - 1]
    parts = []
    for stage in evidence.algorithm.stages:
        got = one.shown[t - 1].get(stage, {}).get(misfit.leaf)
        ref = getattr(moments[misfit.leaf].step, stage)
        if got is not None and ref is not None and got.size == ref.size:
            gap, size = np.abs(got.reshape(ref.shape) - ref).max(), np.abs(ref).max()
            parts.append(f"{stage} {gap / size if size else gap:.2g}")
    return f"case {one.case.name}, step {t}, leaf {misfit.leaf!r}; relative errors there: {', '.join(parts)}."
