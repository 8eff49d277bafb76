"""Departures that a port's author expects: a list in TOML, so that CI stays green where the port departs on purpose.

::

    [[departure]]
    case = "momentum*"      # a name, or a pattern with * and ?
    dtype = "float32"       # without it: in every dtype
    verdict = "departs"
    stage = "theta"         # without it: whichever departs
    step = 1                # without it: whichever departs
    does = ["clip-ignored"] # the page with these deviations does the same; `check --write-expect` writes it, or
    got = 0.0123            # the number that step, stage, leaf = "kernel" and index = [0, 1] point at
    reason = "kept as in our first release, see ..."

Without `does`, `got` and `message` an entry says only *that* a case departs.
"""

import fnmatch
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from amos_ref.conformance import pins
from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.judging.verdicts import FAILING, SILENT, UNANSWERED
from amos_ref.errors import ExpectationError, StorageError, escape
from amos_ref.storage.files import read_file

LISTABLE = tuple(verdict for verdict in FAILING if verdict != "no longer departs")
KINDS: dict[str, Any] = {"case": str, "dtype": str, "verdict": str, "stage": str, "step": int, "reason": str}
KINDS |= {"does": list, "only": str, "got": int | float, "leaf": str, "index": list, "message": str}
FORMERLY = {"ended": "crashes", "killed": "crashes"}  # what lists of 0.2.0 call them
NEEDED = ("case", "verdict", "reason")
AS_LISTED = "; listed "  # how what the list says begins in the details of a result


class Expectation(NamedTuple):
    """One entry of the list; `source` says which, of which file.

    Attributes
    ----------
    does : tuple of str or None
        Deviations: the case does what the page with them does, in `only` "theta" if the port keeps a state of its own.
    got : float or None
        The number at `index` of `stage` of `leaf` after `step`.
    message : str or None
        What the details are, as a pattern with * and ?.
    """

    source: str
    case: str
    verdict: str
    reason: str
    dtype: str | None = None
    stage: str | None = None
    step: int | None = None
    does: tuple[str, ...] | None = None
    only: str | None = None
    got: float | None = None
    leaf: str | None = None
    index: tuple[int, ...] = ()
    message: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the entry says what the case does, and not only that it departs."""
        return not (self.does is None and self.got is None and self.message is None)

    def names(self, case: str, dtype: str) -> bool:
        """Whether the entry is about this case."""
        return fnmatch.fnmatchcase(case, self.case) and self.dtype in (None, dtype)

    def fits(self, r: Result) -> bool:
        """Whether a case that the entry is about came out as it says."""
        named = self.verdict in (r.verdict, FORMERLY.get(r.verdict))
        return named and self.stage in (None, r.stage) and self.step in (None, r.step) and r.was_run

    def misses(self, r: Result, seen: Observation | None) -> str:
        """Return in words what the case does that is not pinned, though it comes out as the entry says; or ""."""
        if self.message is not None and not _matches(self.message, r.detail):
            return "the message is another one"
        if (self.does is not None or self.got is not None) and seen is None:
            return "there are no numbers"
        why = ""
        if self.does is not None and seen is not None:
            why = pins.differs(seen, self.does, None if self.only is None else (self.only,))
        if self.got is not None and seen is not None and not why:
            why = pins.misses(seen, self._place(), self.got)
        return why

    def _place(self) -> pins.Place:
        return pins.Place(self.step or 0, self.stage or "", self.leaf or "", self.index)

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"step {self.step}" if self.step else "", self.stage) if part)
        text = f"{self.verdict}{f' at {where}' if where else ''}"
        text += f" as {' and '.join(self.does) or 'the page'} does" if self.does is not None else ""
        at = f"{list(self.index) or ''} of leaf {self.leaf!r}".strip()
        text += f" with {self.got:.9g} at {at}" if self.got is not None else ""
        return text + (f" with the message {self.message!r}" if self.message is not None else "")


def _matches(pattern: str, text: str) -> bool:
    """Whether a text is as a pattern says, in which only * and ? are special: messages are full of brackets."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def read(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], algorithm: Algorithm = PAPER_AMOS
) -> list[Expectation]:
    """Return the entries of a TOML file, or of a list of mappings with the same keys, for a port of an algorithm.

    Raises
    ------
    ExpectationError
        If the file cannot be read, or an entry has an unknown key, names no case or gives no reason.
    """
    if isinstance(source, str | os.PathLike):
        name, entries = os.fspath(source), _entries(os.fspath(source))
    else:
        name, entries = "expect", list(source)
    return [_entry(f"{name}, entry {i}", entry, algorithm) for i, entry in enumerate(entries, 1)]


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


def _entry(source: str, entry: Any, algorithm: Algorithm) -> Expectation:
    if not isinstance(entry, Mapping):
        raise ExpectationError(f"{source} is {entry!r:.80}; it must be a table")
    source += f" (case {entry['case']!r:.80})" if "case" in entry else ""
    for key, value in entry.items():
        if key not in KINDS:
            raise ExpectationError(f"{source}: unknown key {key!r}; the keys are {', '.join(KINDS)}")
        if not isinstance(value, KINDS[key]) or isinstance(value, bool):
            raise ExpectationError(f"{source}: {key} is {value!r:.80}; it must be of type {_type_name(KINDS[key])}")
    missing = [key for key in NEEDED if not str(entry.get(key, "")).strip()]
    if missing:
        raise ExpectationError(f"{source}: {missing[0]} is missing or empty")
    lists = {key: tuple(entry[key]) for key in ("does", "index") if key in entry}
    found = Expectation(source, **{**entry, **lists, "reason": escape(" ".join(entry["reason"].split()))})
    _check_values(found, algorithm)
    _check_pins(found, algorithm)
    return found


def _type_name(kind: Any) -> str:
    return "float" if kind == KINDS["got"] else kind.__name__


def _check_values(entry: Expectation, algorithm: Algorithm) -> None:
    cases = algorithm.table()
    for key, known in (
        ("case", any(fnmatch.fnmatchcase(case.name, entry.case) for case in cases)),
        ("dtype", any(entry.names(case.name, case.dtype) for case in cases)),
        ("verdict", entry.verdict in LISTABLE),
        ("stage", entry.stage in (None, *algorithm.stages)),
        ("step", entry.step is None or entry.step >= 1),
    ):
        if not known:
            raise ExpectationError(f"{entry.source}: there is no {key} {getattr(entry, key)!r:.80}")


def _check_pins(entry: Expectation, algorithm: Algorithm) -> None:
    leaves = {leaf for case in algorithm.table() if entry.names(case.name, case.dtype) for leaf in case.params}
    numbers = entry.does is not None or entry.got is not None
    finite = not isinstance(entry.got, int) or abs(entry.got) < 1 << 1023
    counts = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in entry.index)
    named = entry.does is None or all(isinstance(name, str) for name in entry.does)
    for wrong, text in (
        (numbers and entry.verdict in UNANSWERED, f"a port that {entry.verdict} shows no numbers: pin its message"),
        (not named, "does must be a list of names of deviations"),
        (entry.only not in (None, "theta"), f"only is {entry.only!r:.80}; it must be 'theta'"),
        (entry.only is not None and entry.does is None, "only says something about does, and there is none"),
        (not counts, f"index is {list(entry.index)!r:.80}; it must be a list of numbers >= 0"),
        (
            entry.got is None and (entry.leaf is not None or entry.index),
            "leaf and index say where got is; got is missing",
        ),
        (not finite, "got is an integer that float64 cannot hold"),
        (entry.got is not None and None in (entry.step, entry.stage, entry.leaf), "got needs step, stage and leaf"),
        (entry.leaf is not None and entry.leaf not in leaves, f"there is no leaf {entry.leaf!r:.80}"),
    ):
        if wrong:
            raise ExpectationError(f"{entry.source}: {text}")
    try:
        pins.check_names(entry.does or ())
    except ExpectationError as error:
        raise ExpectationError(f"{entry.source}: {error}") from None


def apply(
    results: Iterable[Result],
    listed: list[Expectation],
    supported: Collection[tuple[str, str]],
    observations: Iterable[Observation] = (),
) -> list[Result]:
    """Mark what was expected; what was listed and did not happen fails.

    Parameters
    ----------
    results : iterable of Result
    listed : list of Expectation
    supported : collection of (str, str)
        Case and dtype of all that the port supports. Where an entry names some of these, it says nothing of others.
    observations : iterable of Observation
        What the port did with the cases, for entries that say it.
    """
    seen = _by_case(observations)
    about = {entry: [key for key in supported if entry.names(*key)] for entry in listed}
    found = []
    for r in results:
        entries = [entry for entry in listed if entry.names(r.case, r.dtype)]
        entries = [e for e in entries if r.verdict != "not supported" or not about[e]]
        found.append(_apply(r, entries, seen.get((r.case, r.dtype))) if r.was_run else r)
    return found


def _by_case(observations: Iterable[Observation]) -> dict[tuple[str, str], Observation]:
    return {(one.case.name, one.case.dtype): one for one in observations}


def list_supported(results: Iterable[Result]) -> set[tuple[str, str]]:
    """Return case and dtype of what was run."""
    return {(r.case, r.dtype) for r in results if r.verdict != "not supported"}


def _apply(r: Result, entries: list[Expectation], seen: Observation | None) -> Result:
    if not entries:
        return r
    why = ""
    for entry in sorted((entry for entry in entries if entry.fits(r)), key=lambda entry: not entry.pinned):
        missed = entry.misses(r, seen)
        if not missed:
            says = "" if entry.pinned or r.verdict in SILENT else f"{AS_LISTED}only as {entry.verdict!r}, not how"
            return r._replace(expected=entry.reason, detail=r.detail + says)
        why = why or f", but {missed}"
    if r.verdict in FAILING:
        return r._replace(detail=f"{r.detail}{AS_LISTED}otherwise: {entries[0].source} expects: {entries[0]}{why}")
    why = f" ({r.verdict}: {r.detail})" if r.detail else ""
    detail = f"expected departure did not happen: remove it from {entries[0].source}{why}"
    return r._replace(verdict="no longer departs", ratio=None, detail=detail)


def as_toml(
    results: list[Result],
    observations: Iterable[Observation] = (),
    deviations: Sequence[str] = (),
    algorithm: Algorithm = PAPER_AMOS,
) -> str:
    """Return a list that expects exactly these results; new reasons are empty, and `read` refuses empty ones.

    Parameters
    ----------
    results : list of Result
    observations : iterable of Observation
        What the port did with the cases.
    deviations : sequence of str
        What the diagnosis found: entries say it of each case in which the port does that.
    algorithm : Algorithm
        Whose cases they are.
    """
    known, supported = {(case.name, case.dtype) for case in algorithm.table()}, list_supported(results)
    unseen = {case for case, _ in known - {(r.case, r.dtype) for r in results}}
    listable = [r for r in results if r.verdict in LISTABLE and r.was_run]
    grouped: dict[tuple[str, ...], set[str]] = {}
    for r, pin in zip(listable, _pins(listable, _by_case(observations), deviations), strict=True):
        entry = {"verdict": r.verdict, "stage": r.stage, **pin, "reason": r.expected or ""}
        lines = tuple(f"{key} = {_toml(value)}" for key, value in entry.items() if value is not None)
        grouped.setdefault((r.case, *lines), set()).add(r.dtype)
    text = "# What this port does otherwise than the page, and why: every reason must be filled in.\n"
    for (case, *lines), found in grouped.items():
        all_of_them = case not in unseen and found == {dtype for name, dtype in supported if name == case}
        for dtype in [None] if all_of_them else sorted(found):
            head = [f"case = {_toml(case)}", *([f"dtype = {_toml(dtype)}"] if dtype else [])]
            text += "\n[[departure]]\n" + "".join(f"{line}\n" for line in (*head, *lines))
    return text


def _pins(
    results: list[Result], seen: Mapping[tuple[str, str], Observation], deviations: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what pins each result: the deviations where they say it, else its first number, or what the port said."""
    shown = [seen.get((r.case, r.dtype)) for r in results]
    does, said = [False] * len(results), {"does": list(deviations)}
    # Where the state is of a form of its own, no case does the same in all stages.
    for only in ({}, {"only": "theta"}) if deviations else ():
        if not any(does):
            stages = tuple(only.values()) or None
            does = [one is not None and not pins.differs(one, deviations, stages) for one in shown]
            said |= only if any(does) else {}
    return [said if same else _pin(r, one) for r, one, same in zip(results, shown, does, strict=True)]


def _pin(r: Result, one: Observation | None) -> dict[str, Any]:
    found = pins.first_number(one, r) if one else None
    if found is not None:
        place, got = found
        return {"step": place.step, "leaf": place.leaf, "index": list(place.index) or None, "got": got}
    if r.verdict in SILENT:
        return {}
    head, listed, _ = r.detail.rpartition(AS_LISTED)
    # An address in memory is another one each time.
    return {"message": re.sub(r"0x[0-9a-f]+", "*", f"{head}*" if listed else r.detail)}


def _toml(value: Any) -> str:
    # A JSON string of printable characters is a TOML string; a float is as Python shows it: nan and inf too.
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
