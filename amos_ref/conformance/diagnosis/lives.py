"""What a port does instead of the page: in its formulas, and beside that in its life.

The cases of a life are looked at one by one, since what happens in one says nothing of another: whatever the formulas'
cases have shown holds in them too, and a deviation that acts where something happens explains the rest.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from amos_ref.conformance.cases import Case
from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.diagnose import SINGLE, Diagnosis
from amos_ref.conformance.diagnosis.diagnose import diagnose as diagnose_formulas
from amos_ref.conformance.diagnosis.evidence import BudgetSpent, Evidence, departs
from amos_ref.conformance.diagnosis.memory import find_memory
from amos_ref.conformance.diagnosis.own_form import LEFT_OUT, describe_left_out
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.life import is_life
from amos_ref.conformance.ports.port import Port

BUDGET_LIFE = 40_000  # steps of a leaf that are taken to explain the cases of a life


class Found(NamedTuple):
    """Readings that explain the same cases, and those."""

    alike: list[Names]
    cases: set[int]


def diagnose(
    port: Port, seen: Sequence[Observation], eta: Any = None, timeout: float | None = None, **more: Any
) -> Diagnosis | None:
    """Name what a port does instead of the page; None if everything conforms.

    The parameters are those of :func:`amos_ref.conformance.diagnosis.diagnose.diagnose`.
    """
    kept = find_memory(port, seen, eta, timeout)
    if kept is not None:
        return kept
    lives = [one for one in seen if is_special(one.case)]
    found = diagnose_formulas(port, [one for one in seen if not is_special(one.case)], eta, timeout, **more)
    if found is not None and not found.candidates and _departs(seen, lives):
        return found  # a life cannot be read without the formulas
    base = tuple(found.candidates[0]) if found and found.candidates else ()
    if found and SINGLE in found.text:
        lives = [one._replace(case=one.case._replace(dtype="float32")) for one in lives]
    shows = any(set(now) > {"theta"} for one in lives for now in one.shown)
    ways = [("theta",)] if found and LEFT_OUT in found.text else [None, ("theta",)] if shows else [None]
    best: tuple[list[str], list[str], int] = ([], [], len(lives) + 1)
    for stages in ways:  # the latter for a state of the port's own form
        evidence = Evidence(lives, stages, BUDGET_LIFE)
        lines, names, left = _explain(evidence, base)
        if stages is not None and not found:
            if not names:  # a state that departs is not explained by leaving it out
                continue
            lines.append(f"{describe_left_out(evidence.in_order((*base, *names)), lives)}.")
        best = min(best, (lines, names, left), key=lambda result: result[2])
        if not left:
            break
    lines, names, _ = best
    if not lines:
        return found
    if found:
        return found._replace(text="\n".join((found.text, *lines)), life=names)
    return Diagnosis("\n".join(lines), names, [names] if names else [], None, [], names)


def _departs(seen: Sequence[Observation], lives: Sequence[Observation]) -> bool:
    """Whether a case of the formulas departs in the dtype of these others."""
    dtypes = {one.case.dtype for one in lives}
    formulas = [one for one in seen if one.case.dtype in dtypes and not is_special(one.case)]
    return not lives or any(map(departs, formulas))


def is_special(case: Case) -> bool:
    """Whether a case is explained beside the formulas."""
    return is_life(case) or case.special()


def _explain(evidence: Evidence, base: Names) -> tuple[list[str], list[str], int]:
    """Return what is to be said of the cases of a life, the names in it, and how many cases have none."""
    left = set(evidence.failing(base))
    chosen, found = base, list[Found]()
    try:
        candidates = _candidates(evidence, base, sorted(left))
        while left:
            rest = {more: set(evidence.failing(evidence.in_order(chosen + more))) for more in candidates}
            rest = {more: found for more, found in rest.items() if not _contradicted(evidence, more, found)}
            better = [more for more in rest if rest[more] < left]
            if not better:
                break
            best = min(better, key=lambda more: (len(rest[more]), len(more)))
            alike = [more for more in better if rest[more] == rest[best] and len(more) == len(best)]
            found.append(Found(alike, left - rest[best]))
            if len(alike) == 1:
                chosen = evidence.in_order(chosen + best)
            left = rest[best]
            candidates = [more for more in candidates if more not in alike]
        while doubtful := [one for one in found if _looks_alike(evidence, base, one, left)]:
            found = [one for one in found if one not in doubtful]
            left = left.union(*(one.cases for one in doubtful))
    except BudgetSpent:
        pass
    lines = [line for one in found for line in _describe(evidence, one)]
    if left:
        beside = "beside that, " if base or lines else ""
        lines.append(f"{beside}no known deviation explains {_names_of(evidence, left)}.")
    elif lines:
        lines.append(
            f"with that, the page reproduces the {len(evidence.seen)} cases of its life and of extremes that were run."
        )
    single = tuple(name for one in found if len(one.alike) == 1 for name in one.alike[0])
    return lines, list(evidence.in_order(single)), len(left)


def _looks_alike(evidence: Evidence, base: Names, found: Found, left: Iterable[int]) -> bool:
    """Whether what was found changes as many cases that nothing explains as it explains: then it is something else."""
    readings = [evidence.in_order(base + more) for more in found.alike]
    changed = [i for i in left if any(evidence.misfit(names, i) != evidence.misfit(base, i) for names in readings)]
    return len(changed) >= len(found.cases)


def _contradicted(evidence: Evidence, names: Names, left: Iterable[int]) -> bool:
    """Whether a counter of some kind is named where a case that sets the count goes on to depart: it is another."""
    counted = any(evidence.seen[i].case.count is not None for i in left)
    return counted and any(evidence.deviation(name).stage == "count" for name in names)


def _candidates(evidence: Evidence, base: Names, failing: list[int]) -> list[Names]:
    """Return the sets of one or two deviations that explain some case; of two, where no single one does."""
    plain, found = evidence.algorithm.table()[0], []
    for i in failing:
        case = evidence.seen[i].case
        acting = [
            name
            for name, d in evidence.known.catalogue.items()
            if d.only(case) and not d.only(plain) and name not in base
        ]
        singles = [(name,) for name in acting]
        fitting = [more for more in singles if evidence.misfit(evidence.in_order(base + more), i) is None]
        pairs = () if fitting else itertools.combinations(acting, 2)
        fitting += [more for more in pairs if evidence.misfit(evidence.in_order(base + more), i) is None]
        found += [more for more in fitting if more not in found and evidence.decides(evidence.in_order(base + more), i)]
    return found


def _names_of(evidence: Evidence, cases: Iterable[int]) -> str:
    names = [evidence.seen[i].case.name for i in sorted(cases)]
    return f"case{'s' * (len(names) > 1)} {', '.join(names)}"


def _describe(evidence: Evidence, found: Found) -> list[str]:
    cases, several = _names_of(evidence, found.cases), len(found.alike)
    lines = [f"beside that, one of {several} readings of {cases}:"] if several > 1 else []
    named = [evidence.deviation(name) for more in found.alike for name in more]
    return lines + [f"{d.name} ({d.stage}): {d.does}. In training: {d.effect}. Shown by {cases}." for d in named]
