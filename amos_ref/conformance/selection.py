"""Which of the cases are run: by dtype and by name."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.drive import unsupported
from amos_ref.conformance.ports.port import Port
from amos_ref.dtypes import FLOATS
from amos_ref.errors import TargetError

Texts = str | Iterable[str] | None


def select(
    every: Sequence[Case],
    dtypes: Texts = None,
    cases: Texts = None,
    skip: Texts = (),
    algorithm: Algorithm = PAPER_AMOS,
) -> list[Case]:
    """Return those of the cases that are asked for.

    Parameters
    ----------
    every : sequence of Case
    dtypes : str or iterable of str, optional
        Names of dtypes; None is all.
    cases, skip : str or iterable of str, optional
        Names of cases, or patterns with * and ?, of what is run (None is all) and what is not. A name with a dtype,
        as reports write it, is one of them: ``plain/float32``.
    algorithm : Algorithm
        Whose cases may be named.

    Raises
    ------
    TargetError
        If there is no such dtype or case.
    """
    dtypes, cases, skip = (None if texts is None else as_list(texts) for texts in (dtypes, cases, skip))
    names = list(dict.fromkeys(case.name for case in algorithm.table()))
    for dtype in dtypes or ():
        if dtype not in FLOATS:
            raise TargetError(f"there is no dtype {dtype!r}{_close(dtype, FLOATS)}; the dtypes are {', '.join(FLOATS)}")
    for pattern in (*(cases or ()), *(skip or ())):
        name, slash, dtype = pattern.partition("/")
        if not fnmatch.filter(names, name) or (slash and not fnmatch.filter(FLOATS, dtype)):
            raise TargetError(
                f"there is no case {pattern!r}{_close(pattern, names)}; `amos-ref check TARGET` lists them"
            )
    return [
        case
        for case in every
        if (dtypes is None or case.dtype in dtypes)
        and (cases is None or any(_matches(case, pattern) for pattern in cases))
        and not any(_matches(case, pattern) for pattern in skip or ())
    ]


def check_runnable(port: Port, chosen: Sequence[Case], every: Sequence[Case]) -> None:
    """Raise TargetError if a choice leaves nothing that the port could be run on: that would be no pass."""
    if len(chosen) == len(every):
        return
    if not chosen:
        dtypes = ", ".join(dict.fromkeys(case.dtype for case in every)) or "none"
        raise TargetError(f"nothing is left to run of {port.name}'s {len(every)} cases; their dtypes are {dtypes}")
    reasons = [unsupported(port, case) for case in chosen]
    if all(reasons):
        raise TargetError(f"nothing is left to run: {port.name} supports none of {len(chosen)} cases: {reasons[0]}")


def as_list(texts: str | Iterable[str]) -> list[str]:
    """Return texts, of which each may hold several between commas."""
    return [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]


def _matches(case: Case, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (case.name, f"{case.name}/{case.dtype}"))


def _close(text: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(text, names, cutoff=0.5) or [name for name in names if text and text in name]
    return f" (did you mean {' or '.join(close[:3])}?)" if close else ""
