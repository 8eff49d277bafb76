"""Which leaves of a model are decided together, so that a model of 100,000 leaves takes a second or two.

Blocks of a model are alike where all that they hold is. A leaf right in a numbered module, such as a layer of torch's
Sequential, must have neighbours that are alike too: a weight (32, 16, 3, 3) is a convolution in one place and a
transposed one in another, and only the bias beside it, or the norm behind it, tells.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from amos_ref.choosing.shapes import Described

# Parts of a name that are numbers, and numbers of two digits in other parts. fc1 and fc2 are not alike.
_BLOCK_NUMBER = re.compile(r"((?<![^./])\d+(?=[./]|$)|\d{2,})(?=([^./]*))")
_MANY_DIGITS = re.compile(r"\d{2,}")


class _Place(NamedTuple):
    """A numbered part of the name of a module."""

    module: str  # the name up to the end of this part
    row: tuple[str, str]  # what is before and after the number in it: modules of one row follow one another
    number: int


class _Module(NamedTuple):
    """The module that a leaf is right in."""

    starred: str  # its name with a star for every number
    places: list[_Place]


def group(leaves: Mapping[str, Described]) -> tuple[list[list[str]], dict[str, None]]:
    """Return the leaves that are decided together, and those, in their order, that a decision has to look at."""
    module_of = {name: name[: max(name.rfind("."), name.rfind("/"), 0)] for name in leaves}
    modules = {module: _read(module) for module in dict.fromkeys(module_of.values())}
    holds: dict[str, list[Any]] = {}
    for name, leaf in leaves.items():
        for place in modules[module_of[name]].places:
            holds.setdefault(place.module, []).append((name[len(place.module) :], leaf.shape, leaf.trains))
    kinds: dict[tuple[Any, ...], int] = {}
    kind_of = {module: kinds.setdefault(tuple(held), len(kinds)) for module, held in holds.items()}
    beside = _find_neighbours(place for found in modules.values() for place in found.places)
    around = {module: _describe(module, found, kind_of, beside) for module, found in modules.items()}
    alike: dict[Any, list[str]] = {}
    lasts: dict[str, str] = {}  # the last parts of names, of which there are few, with stars
    for name, leaf in leaves.items():
        module = module_of[name]
        rest = name[len(module) :]
        last = lasts[rest] if rest in lasts else lasts.setdefault(rest, _MANY_DIGITS.sub("*", rest))
        alike.setdefault((around[module], last, leaf.shape, leaf.trains), []).append(name)
    groups = list(alike.values())
    seen = {name for names in groups for name in names[:2]}
    for first, *_ in groups:
        for other in beside.get(module_of[first], ()):
            seen.update(other + rest for rest, *_ in holds.get(other, ()))
    return groups, {name: None for name in leaves if name in seen}


def _read(module: str) -> _Module:
    places = []
    for matched in _BLOCK_NUMBER.finditer(module):
        start, stop = matched.span()
        number, rest = matched.groups()
        places.append(_Place(module[: stop + len(rest)], (module[:start], rest), int(number)))
    return _Module(_BLOCK_NUMBER.sub("*", module), places)


def _find_neighbours(places: Iterable[_Place]) -> dict[str, tuple[str, str]]:
    """Return of each numbered module the one before it and the one after it; "" where there is none."""
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for module, row, number in places:
        rows.setdefault(row, {})[number] = module
    beside: dict[str, tuple[str, str]] = {}
    for row in rows.values():
        modules = [row[number] for number in sorted(row)]
        beside |= zip(modules, zip(["", *modules[:-1]], [*modules[1:], ""], strict=True), strict=True)
    return beside


def _describe(
    module: str, found: _Module, kind_of: Mapping[str, int], beside: Mapping[str, tuple[str, str]]
) -> tuple[Any, ...]:
    """Return a module's name, what its numbered modules hold, and what those before and after it hold."""
    kinds = [kind_of[place.module] for place in found.places]
    return found.starred, *kinds, *map(kind_of.get, beside.get(module, ()))
