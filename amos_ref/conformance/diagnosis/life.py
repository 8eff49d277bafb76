"""Deviations that act only where something happens to the optimizer (docs/life.md): each overrides a stage there."""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.conformance.judging.reading import OPTIONS

_WORDS = {"state_dict": "load_state_dict", "pickle": "unpickling", "deepcopy": "copy.deepcopy"}


def add_all(add: Callable[..., None]) -> None:
    """Add the entries; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""

    def life(name: str, event: str, does: str, effect: str, **overrides: Any) -> None:
        add("life", name, does, effect, only=lambda case: event in case.events.values(), **overrides)

    # A table: an entry reads best in two or three lines.
    # fmt: off
    for event, words in _WORDS.items():
        name = event.replace("_", "-")
        losing = {part: _losing(part, event) for part in ("old_v", "old_b", "old_m")}
        count = {"t": lambda s, page, event=event: page(s) - _last(s, event)}
        life(f"{name}-loses-v", event, f"starts v anew after {words}", "the next steps are too large",
             old_v=losing["old_v"])
        life(f"{name}-loses-b", event, f"starts b anew after {words}", "steps and decay jump up",
             old_b=losing["old_b"])
        life(f"{name}-loses-m", event, f"starts m anew after {words}", "the momentum is gone",
             old_m=losing["old_m"])
        life(f"{name}-loses-count", event, f"counts from 1 again after {words}", "steps are far too small", **count)
        life(f"{name}-loses-state", event, f"starts v, b and m anew after {words}, but not the count",
             "steps and decay jump up", **losing)
        life(f"{name}-restarts", event, f"starts v, b, m and the count anew after {words}",
             "the decay of a whole run is lost", **losing, **count)
    add("life", "state-keyed-by-shape", "keeps one state for all leaves of a shape",
        "leaves of a shape disturb each other", only=_twins,
        **{f"old_{part}": _taken(part) for part in "vbm"}, **{part: _given(part) for part in "vbm"})
    life("groups-ignored", "groups", "gives all parameter groups the options of the constructor",
         "options of a group do nothing", xi=lambda s, page: s.rates_of[None][s.count - 1], **_of(lambda s: None))
    life("groups-first", "groups", "gives all parameter groups the options of the first",
         "options of a group do nothing", xi=lambda s, page: s.rates_of[_first(s)][s.count - 1], **_of(_first))
    # fmt: on


def _last(s: Any, event: str) -> int:
    """Return after which step an event was last before this step; 0 if it was not yet."""
    return max((after for after, name in s.events.items() if name == event and after < s.count), default=0)


def _losing(part: str, event: str) -> Callable[..., Any]:
    return lambda s, page: 0.0 * page(s) if s.event == event else page(s)


def _twins(case: Any) -> bool:
    return len({a.shape for a in case.params.values()}) < len(case.params)


def _taken(part: str) -> Callable[..., Any]:
    return lambda s, page: s.tree.get((part, np.shape(s.old_theta)), page(s))


def _given(part: str) -> Callable[..., Any]:
    def keep(s: Any, page: Callable[[Any], Any]) -> Any:
        s.tree[part, np.shape(s.old_theta)] = value = page(s)
        return value

    return keep


def _first(s: Any) -> str:
    return next(iter(s.etas))


def _of(leaf: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    """Override every option by that of another leaf, or of the constructor."""

    def option(s: Any, name: str) -> Any:
        value = s.options_of[leaf(s)][name]
        return value[s.count - 1] if isinstance(value, list) else value

    return {name: lambda s, page, name=name: option(s, name) for name in OPTIONS}
