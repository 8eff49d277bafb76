"""Cases of an optimizer's life: what it undergoes before the first step and between two steps (docs/life.md).

A right port goes on as if nothing had happened. `kernel` and `twin` have one shape, and else nothing in common.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from amos_ref.conformance.algorithms import PAPER_AMOS

if TYPE_CHECKING:
    from amos_ref.conformance.cases import Case

PREFIX = "life-"
_SHAPES = {"kernel": (4, 3), "twin": (4, 3), "bias": (3,)}
_PAIRS = {"kernel": (4, 3, 2), "bias": (3, 2)}  # the last axis holds a real and an imaginary part
_GROUPS = ("kernel", "bias")  # the leaves with options of their own
#: A momentum of 0 may be no momentum, after which m begins at 0, or an average that is the last change.
_AVERAGED_BEFORE = {
    "averages with a momentum of 0 as well, and goes on from the change before": {
        "m": lambda s, page: page(s) if s.momentum else s.delta
    }
}


class Lives(NamedTuple):
    """What differs between the lives of two algorithms.

    Attributes
    ----------
    kept : tuple
        Name, words and options of what an optimizer keeps in its state, beside its count.
    paths : tuple
        Name and options of all that a path of its own may leave out.
    groups : tuple
        Name, words, option and two values of what each group may have of its own.
    switched : dict
        Options that are switched on after step 2; {} if there are none.
    rates : tuple
        Learning rates, one a step; () where a schedule from outside makes no sense.
    modulus : dict
        The stage in which the mean of |g|^2 is twice the mean over real and imaginary parts.
    """

    kept: tuple[tuple[str, str, dict[str, Any]], ...]
    paths: tuple[str, dict[str, Any]]
    groups: tuple[tuple[str, str, str, Any, Any], ...]
    switched: dict[str, Any]
    rates: tuple[float, ...]
    modulus: Mapping[str, Any]


PAPER_LIVES = Lives(
    kept=(("momentum", "a momentum", {"momentum": 0.75}),),
    paths=("momentum", {"momentum": 0.75, "extra_l2": 0.125}),
    groups=(
        ("groups", "a learning rate for each group", "learning_rate", 0.125, 0.5),
        ("groups-decay", "an extra decay for each group", "extra_l2", 0.125, 0.25),
        ("groups-beta", "a beta for each group", "beta", 0.5, 0.875),
    ),
    switched={"momentum": (0.0, 0.0, 0.75, 0.75, 0.75)},
    rates=(0.5, 0.25, 0.25, 0.5, 0.125),
    modulus={"g2": lambda s, page: 2.0 * page(s)},
)


def is_life(case: "Case") -> bool:
    """Whether a case is one of an optimizer's life: it is run in the port's most precise dtype only."""
    return case.name.startswith(PREFIX)


def cases(make: Callable[..., "Case"], own: Lives = PAPER_LIVES) -> list["Case"]:
    """Return the cases of an algorithm in float64; `make` draws one."""

    def life(name: str, about: str, after: int | None = 0, event: str = "", **rest: Any) -> "Case":
        events = {} if after is None else {after: event or name}
        return make(PREFIX + name, about, **{"shapes": _SHAPES, "steps": 5, "events": events} | rest)

    kept = [
        case
        for event, about in _KEPT_WHEN.items()
        for case in (
            life(event, about, 3),
            *(
                life(f"{event}-{name}", f"{about}, with {words}", 3, event, **options)
                for name, words, options in own.kept
            ),
        )
    ]
    all_of_it, options = own.paths
    paths = [
        case
        for name in ("foreach", "fused", "capturable", "differentiable")
        for case in (
            life(name, f"{name}=True: another path through the same numbers"),
            life(f"{name}-{all_of_it}", f"{name}=True, all options", 0, name, **options),
        )
    ]
    groups = [
        life(name, about, 0, "groups", groups={leaf: {option: x} for leaf, x in zip(_GROUPS, values, strict=True)})
        for name, about, option, *values in own.groups
    ]
    switched = [
        life(f"{name}-on", f"a {name} that is switched on after step 2", 2, also=_AVERAGED_BEFORE, **{name: x})
        for name, x in own.switched.items()
    ]
    rates: dict[str, Any] = {PAPER_AMOS.rate: own.rates}
    scheduled = [
        life("lr-tensor", "the learning rate is a tensor, which is filled", **rates),
        life("lr-scheduler", "a scheduler of the framework sets the learning rate", **rates),
    ]
    joins = {0: "leave-out", 2: "add_param_group"}
    return [
        life("equal-shapes", "two leaves of one shape: a state for each", None),
        *kept,
        life("state_dict-otherwise", "loaded into an optimizer made with other options", 3),
        *groups,
        life(
            "add_param_group",
            "a leaf joins after step 2: the count is the tree's",
            events=joins,
            absent={"bias": (1, 2)},
        ),
        life("frozen", "a leaf that needs no gradient stays, and comes back", absent={"bias": (1, 2, 3)}),
        *switched,
        life("maximize", "maximize=True: the gradients are negated"),
        life(
            "maximize-again",
            "maximize=True, and a second step with the same gradients",
            again=(3,),
            events={0: "maximize", 2: "same-gradients"},
        ),
        life("same-gradients", "a second step with the gradients that the first one left", 2, again=(3,)),
        *paths,
        life("closure", "gradients come from a closure, which is called once"),
        life("zero_grad", "zero_grad before each step, to None and to 0 by turns"),
        *(scheduled if own.rates else []),
        life("gradients-transposed", "gradients that lie in memory by columns"),
        life("gradients-expanded", "gradients whose rows are one row in memory", constant=True),
        life("gradients-sparse", "sparse gradients: an error, or these numbers"),
        life("parameters-transposed", "parameters that lie in memory by columns"),
        life(
            "parameters-complex",
            "complex parameters: an error, or their real and imaginary parts stepped",
            shapes=_PAIRS,
            also={"takes the mean of |g|^2, twice the mean over real and imaginary parts": own.modulus},
        ),
    ]


#: Event -> what it is: each happens in the middle of a run.
_KEPT_WHEN = {
    "state_dict": "saved, and loaded into a new optimizer",
    "pickle": "pickled with its parameters, and loaded",
    "deepcopy": "copied with its parameters; the copy goes on",
}
