"""What single leaves have of their own: a factor of the learning rate, extra weight decay, and whether they move.

These options are rules by name, as eta is (see :mod:`amos_ref.rules`): a number, ``{regex: value}`` or a callable
``(name, shape)``. A leaf that no regex matches has what it would have without the option.
"""

import bisect
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref.errors import RuleError, list_some
from amos_ref.expressions import Shape
from amos_ref.outside import level_of_caller
from amos_ref.patterns import Matcher, is_plain
from amos_ref.rules import LeafRule, LeafRules, Preset, number, resolve

#: What a leaf has that no rule names; and which of these options are numbers, in the order in which leaves have them.
NEUTRAL: dict[str, Any] = {"lr_factor": 1.0, "extra_l2": 0.0, "frozen": False}
NUMBERS = ("lr_factor", "extra_l2")


class RuleWarning(UserWarning):
    """A rule by name can have no effect: an earlier one takes all its leaves, or it matches none."""


def number_of(rule: Any, option: str, name: str, shape: Shape) -> float:
    """Return `lr_factor` or `extra_l2` of one leaf, a finite float >= 0, or raise RuleError."""
    value = resolve(rule, option, name, shape, NEUTRAL[option])
    x = number(value)
    if not 0.0 <= x < math.inf:
        raise RuleError(f"{option} of leaf {name!r} is {value!r:.60}; it must be a finite number >= 0")
    return x


def is_neutral(own: Iterable[float]) -> bool:
    """Return whether the numbers of a leaf are those of one that no rule names."""
    return all(x == NEUTRAL[name] for name, x in zip(NUMBERS, own, strict=False))


def list_own(own: Iterable[float]) -> str:
    """Return in words what numbers of its own a leaf has, where they are not those of a leaf that no rule names."""
    return "".join(f", {name}={x:.6g}" for name, x in zip(NUMBERS, own, strict=False) if x != NEUTRAL[name])


def is_frozen(rule: Any, name: str, shape: Shape) -> bool:
    """Return whether a leaf does not move, or raise RuleError."""
    value = resolve(rule, "frozen", name, shape, NEUTRAL["frozen"])
    if not isinstance(value, bool | np.bool_):
        raise RuleError(f"frozen of leaf {name!r} is {value!r:.60}; it must be True or False")
    return bool(value)


def warn_of_shadows(options: Mapping[str, Any]) -> None:
    """Warn of rules that no leaf can reach, because an earlier one is the beginning of all names that they match."""
    for option, rules in _mappings(options):
        seen: set[str] = set()
        sizes: list[int] = []  # of what was seen; there are few, and a mapping may have a rule for each of many leaves
        for later in (pattern for pattern in rules if isinstance(pattern, str)):
            begins = (later[:size] for size in sizes if size < len(later))
            if earlier := next((text for text in begins if text in seen and _begins(text, later)), None):
                _warn(
                    f"{option}: the rule {later!r} is never reached, as {earlier!r} before it matches the beginning of "
                    f"the same names; put it first, or give rules.full_match({{...}})"
                )
            if isinstance(rules[later], LeafRule):  # it matches a whole name
                continue
            if len(later) not in sizes:
                sizes.append(len(later))
            seen.add(later)


def warn_of_unused(options: Mapping[str, Any], names: Iterable[str]) -> None:
    """Warn of rules for groups that match no leaf of a tree."""
    names = sorted(names)
    for option, rules in _mappings({option: options.get(option) for option in NEUTRAL}):
        for pattern in rules:
            if not (_begins_some(pattern, names) or any(Matcher(name).matches(pattern) for name in names)):
                some = list_some(map(repr, names), most=5)
                _warn(f"{option}: the rule {pattern!r} matches no leaf; the leaves are {some}")


def _mappings(options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for option, rule in options.items():
        if isinstance(rule, Preset):
            rule = rule.slot_shape if option == "slot_shape" else rule.eta
        if isinstance(rule, Mapping) and not isinstance(rule, LeafRules):
            yield option, rule


def _begins(earlier: str, later: str) -> bool:
    """Whether every name that `later` matches begins with `earlier`, a plain text."""
    follows = later[len(earlier) : len(earlier) + 1]
    return is_plain(earlier) and later.startswith(earlier) and follows not in tuple("*?{") and "|" not in later


def _begins_some(pattern: Any, names: list[str]) -> bool:
    """Whether a rule is a plain text, or one with dots, with which one of these sorted names begins."""
    if not is_plain(pattern, dots=True):
        return False
    k = bisect.bisect_left(names, pattern)
    return k < len(names) and names[k].startswith(pattern)


def _warn(message: str) -> None:
    warnings.warn(message, RuleWarning, stacklevel=level_of_caller())
