"""What of a port's state is left out where it is diagnosed from theta alone, in words."""

from collections.abc import Collection, Iterable, Sequence

from amos_ref.conformance.diagnosis.catalogue import Names
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.judging.drive import Observation

#: Stands for what :func:`describe_left_out` says, where it is not yet known of which parts.
OWN_FORM = "its state is something else than ours, and was left out"
LEFT_OUT = " left out"  # stands in everything that is said so


def describe_left_out(names: Names, seen: Sequence[Observation], setting: Sequence[Observation] = ()) -> str:
    """Say which parts of the state a reading does not explain that explains theta.

    Parameters
    ----------
    names : tuple of str
        The reading.
    seen : sequence of Observation
        Those that it explains in theta.
    setting : sequence of Observation
        Those of cases that set the state, which were left out.
    """
    shown = [part for part in Evidence(seen).algorithm.parts if any(part in now for one in seen for now in one.shown)]
    wrong = [part for part in shown if _is_missed(Evidence(seen, (part,)), names)]
    if wrong:
        are, were = ("are", "were") if len(wrong) > 1 else ("is", "was")
        return f"its {_listed(wrong)} {are} something else than ours, and {were} left out"
    held = Evidence(setting)
    missed = [held.seen[i].case.name for i in held.failing(names)]
    if missed:
        cases = f"case{'s' * (len(missed) > 1)} {', '.join(missed)}"
        return f"its {_listed(shown)} {_right(shown)}, but where they are set it goes on otherwise: {cases} left out"
    return f"its {_listed(shown)} {_right(shown)} in all that could be compared, and left out elsewhere"


def _is_missed(evidence: Evidence, names: Names) -> bool:
    return next(evidence.failing(names), None) is not None


def _right(parts: Collection[str]) -> str:
    return "are ours" if len(parts) > 1 else "is ours"


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
