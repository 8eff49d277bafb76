"""Cases of an optimizer's life: what it undergoes before the first step and between two steps (docs/life.md).

A right port goes on as if nothing had happened. `kernel` and `twin` have one shape, and else nothing in common.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amos_ref.conformance.cases import Case

PREFIX = "life-"
_SHAPES = {"kernel": (4, 3), "twin": (4, 3), "bias": (3,)}
_GROUPS = ("kernel", "bias")  # the leaves with options of their own


def is_life(case: "Case") -> bool:
    """Whether a case is one of an optimizer's life: it is run in the port's most precise dtype only."""
    return case.name.startswith(PREFIX)


def cases(make: Callable[..., "Case"]) -> list["Case"]:
    """Return the cases in float64; `make` draws one."""

    def life(name: str, about: str, after: int | None = None, event: str = "", **rest: Any) -> "Case":
        events = {} if after is None else {after: event or name}
        return make(PREFIX + name, about, **{"shapes": _SHAPES, "steps": 5, "events": events} | rest)

    def groups(option: str, *values: Any) -> dict[str, dict[str, Any]]:
        return {leaf: {option: value} for leaf, value in zip(_GROUPS, values, strict=True)}

    kept = [
        case
        for event, about in _EVENTS.items()
        for case in (
            life(event, about, 3),
            life(f"{event}-momentum", f"{about}, with a momentum", 3, event, momentum=0.75),
        )
    ]
    return [
        life("equal-shapes", "two leaves of one shape: a state for each"),
        *kept,
        life("groups", "a learning rate for each group", 0, groups=groups("learning_rate", 0.125, 0.5)),
        life("groups-extra_l2", "an extra decay for each group", 0, "groups", groups=groups("extra_l2", 0.125, 0.25)),
    ]


#: Event -> what it is: each happens in the middle of a run.
_EVENTS = {
    "state_dict": "saved, and loaded into a new optimizer",
    "pickle": "pickled with its parameters, and loaded",
    "deepcopy": "copied with its parameters; the copy goes on",
}
