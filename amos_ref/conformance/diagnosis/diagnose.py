"""What a port does instead: the smallest set of deviations under which the page reproduces all that it did."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.cases import random_case
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.diagnosis.dialects import dialects
from amos_ref.conformance.diagnosis.search import SLACK, Names, Search, reading_of
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.drive import Failure, Observation, observe, unsupported
from amos_ref.conformance.judging.judge import STAGES, first_departure
from amos_ref.conformance.judging.tolerance import trajectory, trajectory_of_page
from amos_ref.conformance.ports.port import Port

LARGEST = 3  # deviations that are combined freely
MOST_DEVIATIONS = 6  # in all, where different cases show different ones
FURTHER = 40  # inputs that are tried to tell candidates apart

SINGLE = "this holds in float32's bounds, not in float64's: something of it is float32"
OWN_FORM = "its v, b or m is something else than ours, and was left out"


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
        If nothing explains everything: what explains most cases. Not a name for what the port does.
    """

    text: str
    deviations: list[str]
    candidates: list[list[str]]
    dialect: str | None
    nearest: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return self._asdict()


class Attempt(NamedTuple):
    """One way to look at the observations.

    Attributes
    ----------
    notes : tuple of str
        What must be said beside a finding; each note counts as a deviation.
    largest : int
        How many deviations are combined freely: an envelope costs too much for more than one.
    search : callable
        Returns the search, the same one every time; it is begun when it is first asked for.
    """

    notes: tuple[str, ...]
    largest: int
    search: Callable[[], Search]


def diagnose(
    port: Port, seen: Sequence[Observation], eta: Any = None, timeout: float | None = None
) -> Diagnosis | None:
    """Name what a port does instead of the page; None if everything conforms.

    Parameters
    ----------
    port : Port
        It is run again, on inputs that tell candidates apart.
    seen : sequence of Observation
        What it did with each case.
    eta, timeout : optional
        As for :func:`amos_ref.conformance.judging.drive.observe`.
    """
    attempts = _attempts(seen)
    if not attempts:
        return None
    for size in range(LARGEST + 3):
        for attempt in attempts:
            deviations = size - len(attempt.notes)
            if 0 <= deviations <= attempt.largest:
                search = attempt.search()
                found = _tell_apart(port, search, search.of_size(deviations), eta, timeout)
                if found:
                    return _explain(attempt, found)
    for attempt in (a for a in attempts if a.largest == LARGEST):
        found = attempt.search().case_by_case(MOST_DEVIATIONS, LARGEST)
        if found:
            return _explain(attempt, found)
    return _name_nearest(attempts[0].search())


def _attempts(seen: Sequence[Observation]) -> list[Attempt]:
    """Look at the most precise observations that depart: as they are, in float32's bounds, at theta alone."""
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        same = [one for one in seen if one.case.dtype == dtype]
        search = Search(same)
        if not search.fits(()):
            break
    else:
        return []
    largest = 1 if dtype in envelope.ENVELOPE_DTYPES else LARGEST
    attempts = [Attempt((), largest, lambda: search)]
    if dtype == "float64":
        lower = functools.cache(lambda: Search([one._replace(case=one.case._replace(dtype="float32")) for one in same]))
        attempts.append(Attempt((SINGLE,), largest, lower))
    if not any(set(shown) > {"theta"} for one in same for shown in one.shown):
        return attempts  # there is no state that could be left out
    theta = [functools.cache(lambda a=a: Search(a.search().given, ("theta",))) for a in attempts]
    return attempts + [Attempt((*a.notes, OWN_FORM), largest, s) for a, s in zip(attempts, theta, strict=True)]


def _tell_apart(port: Port, search: Search, found: list[Names], eta: Any, timeout: float | None) -> list[Names]:
    """Run the port on further inputs on which the candidates differ, until one is left or the inputs are used up."""
    dtype = search.seen[0].case.dtype
    for i in range(FURTHER):
        if len(found) < 2:
            break
        case = random_case(i, port.options)._replace(dtype=dtype)
        if unsupported(port, case):
            continue
        try:
            one = observe(port, case, eta, timeout)
        except Failure:
            continue
        if _differ(one, found):
            search.seen.append(one)
            found = [names for names in found if search.fits(names)]
    return found


def _differ(one: Observation, found: list[Names]) -> bool:
    """Whether the candidates expect different things of a case."""
    try:
        first, *others = [list(trajectory(one.case, one.etas, reading_of(names))) for names in found]
    except Unbounded:
        return True
    expected = [
        {what: {name: getattr(moment.step, what) for name, moment in now.items()} for what in STAGES} for now in first
    ]
    momentum = all(a is not None for now in expected for a in now["m"].values())
    for now in expected if not momentum else ():
        del now["m"]
    return any(first_departure(expected, other, slack=SLACK)[0] is not None for other in others)


def _explain(attempt: Attempt, found: list[Names]) -> Diagnosis:
    search = attempt.search()
    dialect = " and ".join(d.name for d in dialects() if set(found[0]) <= set(d.deviations) and search.fits(d.names))
    dialect = dialect if len(found) == 1 and found[0] else ""
    lines = []
    if len(found) > 1:
        lines.append(f"one of {len(found)} readings, which {FURTHER} further inputs did not tell apart:")
    for names in found:
        lines += ["either:"] if len(found) > 1 else []
        lines += [_describe(search, names, name) for name in names]
    lines += [f"{note}." for note in attempt.notes]
    if dialect:
        lines.append(f"this is exactly the reading of {dialect}.")
    cases = f"{len(search.seen)} cases in {search.seen[0].case.dtype}"
    lines.append(f"with that, the page reproduces all {cases}.")
    only = list(found[0]) if len(found) == 1 else []
    return Diagnosis("\n".join(lines), only, [list(names) for names in found], dialect or None, [])


def _describe(search: Search, names: Names, name: str) -> str:
    """Say what a deviation of a set does, what comes of it, and where it shows first: what misfits without it."""
    d = CATALOGUE[name]
    without = tuple(other for other in names if other != name)
    i = next(search.failing(without))
    misfit = search.misfit(without, i) or {}
    where = f"case {search.seen[i].case.name}, step {misfit['step']}, {misfit['stage']} of leaf {misfit['leaf']!r}"
    return f"{d.name} ({d.stage}): {d.does}. In training: {d.effect}. First shown by {where}."


def _name_nearest(search: Search) -> Diagnosis:
    """Say what comes nearest, if anything comes nearer than the page, and by how much each quantity is off."""
    sets: list[Names] = [(), *((name,) for name in CATALOGUE)]
    count = {names: sum(1 for _ in search.failing(names)) for names in sets}
    nearest = min(sets, key=count.__getitem__)
    all_of = len(search.seen)
    lines = ["no known set of deviations explains it."]
    if nearest:
        agree = all_of - count[nearest]
        d = CATALOGUE[nearest[0]]
        lines.append(
            f"nearest, but not it: {d.name} ({d.does}), with which {agree} of {all_of} cases agree; "
            f"{all_of - count[()]} do without."
        )
    lines.append(f"first misfit: {_describe_errors(search)}")
    return Diagnosis("\n".join(lines), [], [], None, list(nearest))


def _describe_errors(search: Search) -> str:
    """The relative error of each quantity in the first step that departs."""
    one = search.seen[0]
    misfit = search.misfit((), 0) or {}
    t = misfit["step"]
    moments = trajectory_of_page(one.case, one.etas)[t - 1]
    parts = []
    for stage in STAGES:
        got = one.shown[t - 1].get(stage, {}).get(misfit["leaf"])
        ref = getattr(moments[misfit["leaf"]].step, stage)
        if got is not None and ref is not None and got.size == ref.size:
            gap, size = np.abs(got.reshape(ref.shape) - ref).max(), np.abs(ref).max()
            parts.append(f"{stage} {gap / size if size else gap:.2g}")
    return f"case {one.case.name}, step {t}, leaf {misfit['leaf']!r}; relative errors there: {', '.join(parts)}."
