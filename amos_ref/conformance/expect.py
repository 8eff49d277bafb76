"""Departures that a port's author expects: a list in TOML, so that CI stays green where the port departs on purpose.

::

    [[departure]]
    case = "momentum*"      # a name, or a pattern with * and ?
    dtype = "float32"       # without it: in every dtype
    verdict = "departs"
    stage = "theta"         # without it: whichever departs
    step = 1                # without it: whichever departs
    reason = "kept as in our first release, see ..."
"""

import fnmatch
import json
import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from amos_ref.conformance.cases import table
from amos_ref.conformance.judging.judge import STAGES, Result
from amos_ref.conformance.judging.verdicts import FAILING
from amos_ref.errors import ExpectationError, StorageError, escape
from amos_ref.storage.files import read_file

LISTABLE = tuple(verdict for verdict in FAILING if verdict != "no longer departs")
KINDS = {"case": str, "dtype": str, "verdict": str, "stage": str, "step": int, "reason": str}
FORMERLY = {"ended": "crashes", "killed": "crashes"}  # what lists of 0.2.0 call them
NEEDED = ("case", "verdict", "reason")


class Expectation(NamedTuple):
    """One entry of the list; `source` says which, of which file."""

    source: str
    case: str
    verdict: str
    reason: str
    dtype: str | None = None
    stage: str | None = None
    step: int | None = None

    def names(self, case: str, dtype: str) -> bool:
        """Whether the entry is about this case."""
        return fnmatch.fnmatchcase(case, self.case) and self.dtype in (None, dtype)

    def fits(self, r: Result) -> bool:
        """Whether a case that the entry is about came out as it says."""
        named = self.verdict in (r.verdict, FORMERLY.get(r.verdict))
        return named and self.stage in (None, r.stage) and self.step in (None, r.step)

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"step {self.step}" if self.step else "", self.stage) if part)
        return f"{self.verdict}{f' at {where}' if where else ''}"


def read(source: str | os.PathLike[str] | Iterable[Mapping[str, Any]]) -> list[Expectation]:
    """Return the entries of a TOML file, or of a list of mappings with the same keys.

    Raises
    ------
    ExpectationError
        If the file cannot be read, or an entry has an unknown key, names no case or gives no reason.
    """
    if isinstance(source, str | os.PathLike):
        name, entries = os.fspath(source), _entries(os.fspath(source))
    else:
        name, entries = "expect", list(source)
    return [_entry(f"{name}, entry {i}", entry) for i, entry in enumerate(entries, 1)]


def _entries(path: str) -> list[Any]:
    try:
        content = tomllib.loads(read_file(path).decode())
    except StorageError as error:
        raise ExpectationError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ExpectationError(f"{path!r} is not TOML: {error}") from error
    entries = content.pop("departure", [])
    if content or not isinstance(entries, list):
        raise ExpectationError(f"{path!r} must be a list of [[departure]] and nothing else; it has {sorted(content)}")
    return entries


def _entry(source: str, entry: Any) -> Expectation:
    if not isinstance(entry, Mapping):
        raise ExpectationError(f"{source} is {entry!r:.80}; it must be a table")
    source += f" (case {entry['case']!r:.80})" if "case" in entry else ""
    for key, value in entry.items():
        if key not in KINDS:
            raise ExpectationError(f"{source}: unknown key {key!r}; the keys are {', '.join(KINDS)}")
        if not isinstance(value, KINDS[key]) or isinstance(value, bool):
            raise ExpectationError(f"{source}: {key} is {value!r:.80}; it must be of type {KINDS[key].__name__}")
    missing = [key for key in NEEDED if not str(entry.get(key, "")).strip()]
    if missing:
        raise ExpectationError(f"{source}: {missing[0]} is missing or empty")
    found = Expectation(source, **{**entry, "reason": escape(" ".join(entry["reason"].split()))})
    _check_values(found)
    return found


def _check_values(entry: Expectation) -> None:
    cases = table()
    for key, known in (
        ("case", any(fnmatch.fnmatchcase(case.name, entry.case) for case in cases)),
        ("dtype", any(entry.names(case.name, case.dtype) for case in cases)),
        ("verdict", entry.verdict in LISTABLE),
        ("stage", entry.stage in (None, *STAGES)),
        ("step", entry.step is None or entry.step >= 1),
    ):
        if not known:
            raise ExpectationError(f"{entry.source}: there is no {key} {getattr(entry, key)!r:.80}")


def apply(results: Iterable[Result], listed: list[Expectation], supported: Collection[tuple[str, str]]) -> list[Result]:
    """Mark what was expected; what was listed and did not happen fails.

    Parameters
    ----------
    results : iterable of Result
    listed : list of Expectation
    supported : collection of (str, str)
        Case and dtype of all that the port supports. Where an entry names some of these, it says nothing of others.
    """
    about = {entry: [key for key in supported if entry.names(*key)] for entry in listed}
    found = []
    for r in results:
        entries = [entry for entry in listed if entry.names(r.case, r.dtype)]
        found.append(_apply(r, [e for e in entries if r.verdict != "not supported" or not about[e]]))
    return found


def list_supported(results: Iterable[Result]) -> set[tuple[str, str]]:
    """Return case and dtype of what was run."""
    return {(r.case, r.dtype) for r in results if r.verdict != "not supported"}


def _apply(r: Result, entries: list[Expectation]) -> Result:
    if not entries:
        return r
    fitting = next((entry for entry in entries if entry.fits(r)), None)
    if fitting is not None:
        return r._replace(expected=fitting.reason)
    listed = f"{entries[0].source} expects: {entries[0]}"
    if r.verdict in FAILING:
        return r._replace(detail=f"{r.detail}; {listed}")
    why = f" ({r.verdict}: {r.detail})" if r.detail else ""
    detail = f"expected departure did not happen: remove it from {entries[0].source}{why}"
    return r._replace(verdict="no longer departs", ratio=None, detail=detail)


def as_toml(results: list[Result]) -> str:
    """Return a list that expects exactly these results; new reasons are empty, and `read` refuses empty ones."""
    known, supported = {(case.name, case.dtype) for case in table()}, list_supported(results)
    unseen = {case for case, _ in known - {(r.case, r.dtype) for r in results}}
    seen: dict[tuple[str, str, str | None, str], set[str]] = {}
    for r in results:
        if r.verdict in LISTABLE:
            seen.setdefault((r.case, r.verdict, r.stage, r.expected or ""), set()).add(r.dtype)
    text = "# What this port does otherwise than the page, and why: every reason must be filled in.\n"
    for (case, verdict, stage, reason), found in seen.items():
        all_of_them = case not in unseen and found == {dtype for name, dtype in supported if name == case}
        for dtype in [None] if all_of_them else sorted(found):
            entry = {"case": case, "dtype": dtype, "verdict": verdict, "stage": stage, "reason": reason}
            text += "\n[[departure]]\n"
            # A JSON string of printable characters is a TOML string.
            text += "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in entry.items() if v is not None)
    return text
