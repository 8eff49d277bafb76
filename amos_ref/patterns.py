"""Regular expressions matched in bounded time: all ways through a pattern are followed at once, none is tried again.

Python's re tries them one after the other: for `(a+)+$` these are 2^n, and nothing stops it. Here re reads the pattern,
and matches it if the ways are few, as they are for ordinary rules. Otherwise a set of places in the name goes through
the parts of the pattern.
"""

import functools
import math
import re
from re import _constants as op  # pyright: ignore[reportAttributeAccessIssue]
from re import _parser  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

from amos_ref.errors import RuleError

MOST_PATTERN = 10_000  # characters
MOST_WAYS = 1_000_000  # that are left to re: some 0.1 s
MOST_PLACES = 1_000_000  # looked at for one name: some 2 s

_AT: dict[Any, str] = {
    op.AT_BEGINNING: "^",
    op.AT_BEGINNING_STRING: r"\A",
    op.AT_BOUNDARY: r"\b",
    op.AT_NON_BOUNDARY: r"\B",
}
_AT |= {op.AT_END: "$", op.AT_END_STRING: r"\Z"}
_CATEGORIES: dict[Any, str] = {op.CATEGORY_DIGIT: r"\d", op.CATEGORY_SPACE: r"\s", op.CATEGORY_WORD: r"\w"}
_CATEGORIES |= {op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_NOT_SPACE: r"\S", op.CATEGORY_NOT_WORD: r"\W"}
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT)  # what is matched at all does not depend on which is tried first

_CHARACTERS = (op.ANY, op.IN, op.LITERAL, op.NOT_LITERAL)
_ALPHABETS = re.ASCII | re.UNICODE
_TAKING = dict.fromkeys((op.ATOMIC_GROUP, op.POSSESSIVE_REPEAT), "it has a group or repeat that gives nothing back")


def is_plain(text: Any, dots: bool = False) -> bool:
    """Whether a pattern is a plain text, which matches the names that begin with it; with `dots` it may hold "."."""
    if not isinstance(text, str) or not 0 < len(text) <= MOST_PATTERN:
        return False
    return all(c.isalnum() or c in "_-/ " or (dots and c == ".") for c in text)


class Matcher:
    """Whether patterns match at the start of a name, within one bound for all of them."""

    name: str
    left: int

    def __init__(self, name: str) -> None:
        self.name, self.left = name, MOST_PLACES

    def matches(self, pattern: str | re.Pattern[str]) -> bool:
        """Return what ``bool(re.match(pattern, name))`` is.

        Raises
        ------
        RuleError
            If it is not a regular expression, is too long or too deeply nested, or takes too long; also if it has
            repeats inside repeats and refers back to a group or has an atomic one.
        """
        text, flags = (pattern.pattern, pattern.flags) if isinstance(pattern, re.Pattern) else (pattern, 0)
        if not isinstance(text, str):
            raise RuleError(f"{text!r} is not a regular expression: it is not a string")
        try:
            if len(text) > MOST_PATTERN:
                raise RuleError(f"it has {len(text)} characters; at most {MOST_PATTERN} are allowed")
            parsed = _parse(text, flags)
            ways = _ways(parsed, len(self.name))
            if ways <= MOST_WAYS:
                self._count(int(ways) // 100)
                return re.match(pattern, self.name) is not None
            return bool(self._ends(parsed, {0}, parsed.state.flags))
        except RecursionError:
            why = "it is nested too deeply"
        except (re.error, OverflowError, RuleError) as error:
            why = str(error)
        raise RuleError(f"{text[:80]!r}{'...' * (len(text) > 80)} is not a regular expression for rules: {why}")

    def _ends(self, parts: Any, starts: set[int], flags: int) -> set[int]:
        """Return where in the name `parts` can end that begin at one of `starts`."""
        for kind, value in parts:
            if not starts:
                break
            self._count(len(starts) * (len(value) if kind is op.IN else 1))
            if kind in _REPEATS:
                least, most, inner = value
                starts = self._repeat(least, most, inner, starts, flags)
            elif kind is op.BRANCH:
                starts = set().union(*(self._ends(branch, starts, flags) for branch in value[1]))
            elif kind is op.SUBPATTERN:
                _, added, removed, inner = value
                kept = flags & ~(_ALPHABETS if added & _ALPHABETS else 0)
                starts = self._ends(inner, starts, (kept | added) & ~removed)
            elif kind in (op.ASSERT, op.ASSERT_NOT):
                direction, inner = value
                starts = {i for i in starts if self._looks(direction, inner, i, flags) is (kind is op.ASSERT)}
            elif kind is op.AT:
                here = re.compile(_AT[value], flags)
                starts = {i for i in starts if here.match(self.name, i)}
            elif kind in _CHARACTERS:
                size = len(self.name)
                starts = {i + 1 for i in starts if i < size and _holds(kind, value, self.name[i], flags)}
            else:
                raise RuleError(f"{_TAKING.get(kind, 'it refers back to a group')}, which rules cannot do")
        return starts

    def _count(self, places: int) -> None:
        self.left -= places
        if self.left < 0:
            raise RuleError(f"it takes too long on a name of {len(self.name)} characters")

    def _repeat(self, least: int, most: int, inner: Any, starts: set[int], flags: int) -> set[int]:
        for _ in range(least):
            self._count(1)
            before, starts = starts, self._ends(inner, starts, flags)
            if starts == before:  # as it then stays: none, or as many empty ones as are wanted
                break
        found, new = set(starts), starts
        for _ in range(most - least):
            self._count(1)
            new = self._ends(inner, new, flags) - found
            if not new:
                break
            found |= new
        return found

    def _looks(self, direction: int, inner: Any, i: int, flags: int) -> bool:
        """Whether `inner` matches ahead of a place, or behind it."""
        if direction > 0:
            return bool(self._ends(inner, {i}, flags))
        least, most = inner.getwidth()
        if least != most:
            raise RuleError("look-behind requires fixed-width pattern")
        return i >= least and i in self._ends(inner, {i - least}, flags)


@functools.lru_cache(maxsize=1024)
def _parse(text: str, flags: int) -> Any:
    return _parser.parse(text, flags)


def _ways(parts: Any, size: int) -> float:
    """Return a bound of how many ways re tries through a pattern, on a name of `size` characters; or infinity."""
    ways = 1.0
    for kind, value in parts:
        if kind in _REPEATS or kind is op.POSSESSIVE_REPEAT:
            least, most, inner = value
            if len(inner) == 1 and inner[0][0] in _CHARACTERS:
                ways *= min(most - least, size) + 1
            else:
                ways *= 1 + _ways(inner, size) if most == 1 else math.inf
        elif kind is op.BRANCH:
            ways *= sum(_ways(branch, size) for branch in value[1])
        elif kind in (op.SUBPATTERN, op.ASSERT, op.ASSERT_NOT):
            ways *= _ways(value[-1], size)
        elif kind not in (*_CHARACTERS, op.AT, op.GROUPREF):
            return math.inf
    return ways


def _holds(kind: Any, value: Any, c: str, flags: int) -> bool:
    """Whether one part of a pattern, which stands for one character, stands for `c`."""
    if kind is op.ANY:
        return c != "\n" or bool(flags & re.DOTALL)
    if kind is op.IN:
        negated = value[0][0] is op.NEGATE
        return negated is not any(_holds(each, item, c, flags) for each, item in value[negated:])
    if kind is op.NOT_LITERAL:
        return not _holds(op.LITERAL, value, c, flags)
    if kind is op.CATEGORY:
        return re.compile(_CATEGORIES[value], flags).match(c) is not None
    cases = _cases(c, flags)
    if kind is op.RANGE:
        return any(value[0] <= ord(x) <= value[1] for x in cases)
    return not cases.isdisjoint(_cases(chr(value), flags))


def _cases(c: str, flags: int) -> set[str]:
    """Return a character and, if their case does not matter, those that are the same but for it."""
    if not flags & re.IGNORECASE or (flags & re.ASCII and not c.isascii()):
        return {c}
    cases = (c, c.lower(), c.upper(), c.upper().lower())
    return {x for x in cases if len(x) == 1}
