"""Deviations that act only in some way to use an optimizer (docs/life.md): each overrides a stage there."""

from collections.abc import Callable, Iterable
from typing import Any


def add_all(add: Callable[..., None]) -> None:
    """Add the entries of paper Amos; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""
    add_common(add, "vbm", old_v="beta")
    # A table: an entry reads best in two or three lines.
    # fmt: off
    add_way(add, "injected-learning-rate-frozen", ("inject_hyperparams",),
            "keeps the learning rate with which it was made, whatever inject_hyperparams sets", "no schedule",
            xi=lambda s, page: s.rates[0])
    # fmt: on


def add_way(
    add: Callable[..., None], name: str, events: tuple[str, ...], does: str, effect: str, **overrides: Any
) -> None:
    """Add an entry that acts where one of some events is."""
    there = {stage: _where(events, override) for stage, override in overrides.items()}
    add("life", name, does, effect, only=lambda case: _undergoes(events, case), **there)


def add_common(add: Callable[..., None], parts: Iterable[str], **fading: str) -> None:
    """Add the entries of both algorithms.

    Parameters
    ----------
    add : callable
    parts : iterable of str
        Of the state.
    **fading
        Averages, and the options by which a step with gradients of zero makes them smaller.
    """
    # fmt: off
    add_way(add, "count-outside-the-state",
            ("jit", "donate", "inject_hyperparams", "multi-steps", "state_dict", "pickle"),
            "counts in Python, outside the state: a compiled step counts once, a new transformation from the beginning",
            "every step of a compiled training is taken as the first", t=_from_1(_counted_outside))
    add_way(add, "count-shared-between-optimizers", ("two-at-once",), "has one count for all optimizers of the process",
            "the count runs ahead of the steps", t=_from_1(lambda s, t: 2 * t))
    add_way(add, "state-shared-between-optimizers", ("two-at-once",),
            f"has one {' and '.join(name.removeprefix('old_') for name in fading)} for all optimizers of the process",
            "models disturb each other",
            **{name: lambda s, page, beta=beta: s.options[beta] * page(s) for name, beta in fading.items()})
    add("life", "state-follows-order", "keeps states in the order in which leaves come",
        "leaves exchange their states", only=_changes_order,
        **{part: lambda s, page, part=part: _keep(s, part, page(s)) for part in parts},
        **{f"old_{part}": lambda s, page, part=part: _kept(s, part, page) for part in parts})
    # fmt: on


def _from_1(count: Callable[[Any, int], int]) -> Callable[..., Any]:
    """Override t by a count of steps from 1, in an algorithm that may count from 0."""

    def override(s: Any, page: Callable[[Any], Any]) -> int:
        behind = 1 - s.algorithm.first_step
        return count(s, page(s) + behind) - behind

    return override


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
