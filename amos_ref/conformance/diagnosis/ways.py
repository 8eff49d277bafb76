"""Deviations that act only in some way to use an optimizer (docs/life.md): each overrides a stage there."""

from collections.abc import Callable
from typing import Any


def add_all(add: Callable[..., None]) -> None:
    """Add the entries; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""

    def way(name: str, events: tuple[str, ...], does: str, effect: str, **overrides: Any) -> None:
        there = {stage: _where(events, override) for stage, override in overrides.items()}
        add("life", name, does, effect, only=lambda case: _undergoes(events, case), **there)

    # A table: an entry reads best in two or three lines.
    # fmt: off
    way("count-outside-the-state", ("jit", "donate", "inject_hyperparams", "multi-steps", "state_dict", "pickle"),
        "counts in Python, outside the state: a compiled step counts once, a new transformation from 1",
        "every step of a compiled training is corrected as the first", t=lambda s, page: _counted_outside(s, page(s)))
    way("injected-learning-rate-frozen", ("inject_hyperparams",),
        "keeps the learning rate with which it was made, whatever inject_hyperparams sets", "no schedule",
        xi=lambda s, page: s.rates[0])
    way("count-shared-between-optimizers", ("two-at-once",), "has one count for all optimizers of the process",
        "the bias correction ends too soon", t=lambda s, page: 2 * page(s))
    way("state-shared-between-optimizers", ("two-at-once",), "has one v for all optimizers of the process",
        "models disturb each other", old_v=lambda s, page: s.options["beta"] * page(s))
    add("life", "state-follows-order", "keeps states in the order in which leaves come",
        "leaves exchange their states", only=_changes_order,
        **{part: lambda s, page, part=part: _keep(s, part, page(s)) for part in "vbm"},
        **{f"old_{part}": lambda s, page, part=part: _kept(s, part, page) for part in "vbm"})
    # fmt: on


def _undergoes(events: tuple[str, ...], case: Any) -> bool:
    return not set(events).isdisjoint(case.events.values())


def _where(events: tuple[str, ...], override: Callable[..., Any]) -> Callable[..., Any]:
    return lambda s, page: override(s, page) if _undergoes(events, s) else page(s)


def _counted_outside(s: Any, t: int) -> int:
    event = s.events.get(0)
    if event == "multi-steps":
        return 4 * t  # optax looks at a transformation twice for each of two gradients
    since = max((after for after in s.events if after < s.count), default=0)
    return t - since if event is None else 1


def _changes_order(case: Any) -> bool:
    return len({tuple(grads) for grads in case.grads}) > 1


def _place(s: Any) -> int:
    return list(s.grads).index(s.name)


def _keep(s: Any, part: str, value: Any) -> Any:
    s.tree[part, _place(s), s.count] = value
    return value


def _kept(s: Any, part: str, page: Callable[[Any], Any]) -> Any:
    kept = s.tree.get((part, _place(s), s.count - 1))
    return page(s) if kept is None else kept
