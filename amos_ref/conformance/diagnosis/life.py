"""Deviations that act only where something happens to the optimizer (docs/life.md): each overrides a stage there."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.diagnosis.deviation import over_all_leaves
from amos_ref.conformance.judging.paper import OPTIONS

PATHS = ("foreach", "fused")
#: Event -> what happened, as a sentence goes on after "after".
WORDS = {"state_dict": "load_state_dict", "pickle": "unpickling", "deepcopy": "copy.deepcopy"}


class Losses(NamedTuple):
    """What comes in training of what an optimizer loses when it is saved, copied or loaded.

    Attributes
    ----------
    parts : dict of str to str
        Part of the state -> what comes of it if it starts anew.
    count, state, all : str
        What comes of it if the count does, all of the state but the count, or everything.
    more : callable
        ``more(event)`` returns what else is overridden where everything starts anew.
    """

    parts: Mapping[str, str]
    count: str
    state: str
    all: str
    more: Callable[[str], dict[str, Any]] = lambda event: {}


def add_all(add: Callable[..., None]) -> None:
    """Add the entries of paper Amos; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""
    life = lives(add)
    parts = {"v": "the next steps are too large", "b": "steps and decay jump up", "m": "the momentum is gone"}
    losses = Losses(parts, "steps are far too small", parts["b"], "the decay of a whole run is lost")
    add_kept(add, PAPER_AMOS, losses)
    # A table: an entry reads best in two or three lines.
    # fmt: off
    for name, leaf, words in groups_of():
        life(f"groups-learning-rate-{name}", "groups", f"gives all parameter groups the learning rate of {words}",
             "the rate of a group does nothing", xi=lambda s, page, leaf=leaf: s.rates_of[leaf(s)][s.count - 1])
        life(f"groups-options-{name}", "groups", f"gives all parameter groups the beta, extra_l2, ... of {words}",
             "the options of a group do nothing", **options_of(leaf, OPTIONS))
    add_common(add)
    life("loaded-state-dict-keeps-learning-rate", "state_dict-otherwise",
         "goes on with the learning rate of the optimizer into which a state_dict is loaded",
         "a resumed run has another learning rate", xi=loaded_into("learning_rate", PAPER_AMOS))
    life("loaded-state-dict-keeps-beta", "state_dict-otherwise",
         "goes on with the beta of the optimizer into which a state_dict is loaded", "a resumed run has another beta",
         beta=loaded_into("beta", PAPER_AMOS))
    life("lr-tensor-frozen", "lr-tensor", "keeps a learning rate that is a tensor as a number",
         "a change of the tensor changes nothing", xi=lambda s, page: s.rates[0])
    life("lr-scheduler-ignored", "lr-scheduler", "does not read the learning rate that a scheduler sets", "no schedule",
         xi=lambda s, page: s.rates[0])
    life("momentum-stays-off", "momentum-on", "does not see that momentum is switched on", "no averaging",
         momentum=lambda s, page: None)
    for path in PATHS:
        life(f"{path}-without-extra_l2", path, f"leaves extra_l2 out where {path}=True", "no extra decay on that path",
             extra_l2=lambda s, page: 0.0)
        life(f"{path}-without-momentum", path, f"leaves momentum out where {path}=True", "no averaging on that path",
             momentum=lambda s, page: None)
        life(f"{path}-without-decay", path, f"does not decay by gamma/2 where {path}=True", "no decay on that path",
             rho=lambda s, page: page(s.but(gamma=0.0 * s.gamma)))
    # fmt: on
    add_of_mean(add, "g2", over_all_leaves)


def lives(add: Callable[..., None]) -> Callable[..., None]:
    """Return a function that adds an entry which acts where an event is: ``life(name, event, does, effect, ...)``."""

    def life(name: str, event: str, does: str, effect: str, **overrides: Any) -> None:
        there = {stage: _where(event, override) for stage, override in overrides.items()}
        add("life", name, does, effect, only=lambda case: _among(event, case.events), **there)

    return life


def add_kept(add: Callable[..., None], algorithm: Algorithm, losses: Losses) -> None:
    """Add what is lost when an optimizer is saved, copied or loaded, and one state for all leaves of a shape."""
    life, parts = lives(add), list(algorithm.parts)
    words = " and ".join([", ".join(parts[:-1]), parts[-1]])
    # fmt: off
    for event, after in WORDS.items():
        name = event.replace("_", "-")
        losing = {f"old_{part}": _losing(event) for part in parts}
        count = {"t": lambda s, page, event=event: page(s) - last(s, event)}
        for part in parts:
            life(f"{name}-loses-{part}", event, f"starts {part} anew after {after}", losses.parts[part],
                 **{f"old_{part}": losing[f"old_{part}"]})
        life(f"{name}-loses-count", event, f"counts from {algorithm.first_step} again after {after}", losses.count,
             **count)
        life(f"{name}-loses-state", event, f"starts {words} anew after {after}, but not the count", losses.state,
             **losing)
        life(f"{name}-restarts", event, f"starts {', '.join(parts)} and the count anew after {after}", losses.all,
             **losing, **count, **losses.more(event))
    add("life", "state-keyed-by-shape", "keeps one state for all leaves of a shape",
        "leaves of a shape disturb each other", only=_twins,
        **{f"old_{part}": _taken(part) for part in parts}, **{part: _given(part) for part in parts})
    # fmt: on


def groups_of() -> tuple[tuple[str, Callable[[Any], Any], str], ...]:
    """Return whose options all groups may be given: a name, a function of a step, and words."""
    return ("ignored", lambda s: None, "the constructor"), ("first", _first, "the first group")


def options_of(leaf: Callable[[Any], Any], options: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """Override options by those of another leaf, or of the constructor."""

    def option(s: Any, name: str) -> Any:
        value = s.options_of[leaf(s)][name]
        return value[s.count - 1] if isinstance(value, list) else value

    return {name: lambda s, page, name=name: option(s, name) for name in options}


def add_common(add: Callable[..., None]) -> None:
    """Add the entries that are the same for both algorithms."""
    life = lives(add)
    # fmt: off
    add("count", "groups-count-each", "counts a step for every parameter group that it comes to",
        "the count runs ahead of the steps", only=_apart, t=lambda s, page: _count_of_groups(s, page(s)))
    life("added-group-restarts-count", "add_param_group", "counts the steps of an added group from its own first one",
         "an added group takes steps of another size than the others",
         t=lambda s, page: page(s) - last(s, "add_param_group") * (s.name == _added(s)))
    life("added-group-ignored", "add_param_group", "never steps an added group", "the added parameters are not trained",
         grad=lambda s, page: _but_none(page(s), float(s.name != _added(s))))
    life("maximize-ignored", "maximize", "ignores maximize", "descends instead of climbing",
         grad=lambda s, page: _but_none(page(s), -1.0))
    life("maximize-negates-in-place", "same-gradients", "negates p.grad itself where it maximizes",
         "a second step with the same gradients goes back",
         grad=lambda s, page: _but_none(page(s), -1.0 if _negates_again(s) else 1.0))
    life("closure-ignored", "closure", "does not call the closure", "no gradient reaches the optimizer",
         grad=lambda s, page: _but_none(page(s), 0.0))
    life("closure-called-twice", "closure", "calls the closure twice",
         "each step takes twice the time, and what it returns belongs to other gradients",
         grad=lambda s, page: None if page(s) is None else np.flip(page(s)))
    life("gradient-in-memory-order", "gradients-transposed", "reads a gradient in the order of its memory",
         "gradients reach the wrong entries", grad=lambda s, page: _by_columns(page(s)))
    life("expanded-gradient-by-memory", "gradients-expanded", "reads an expanded gradient in the order of its memory",
         "gradients reach the wrong entries", grad=lambda s, page: _by_columns(page(s)))
    life("parameters-in-memory-order", "parameters-transposed", "steps parameters in the order of their memory",
         "gradients reach the wrong entries", delta=lambda s, page: _in_memory_order(s, page))
    # fmt: on


def add_of_mean(add: Callable[..., None], stage: str, over_all: Callable[..., Any]) -> None:
    """Add the entries that take another mean square: `stage` has it, and `over_all` makes it one of all leaves."""
    life = lives(add)
    # fmt: off
    for path in PATHS:
        life(f"{path}-global-mean", path, f"takes one mean square for all leaves where {path}=True",
             "leaves with small gradients hardly move", **{stage: over_all})
    life("sparse-mean-of-present", "gradients-sparse", "takes the mean square over the entries that a gradient holds",
         "sparse gradients move too little",
         **{stage: lambda s, page: page(s) * s.g.size / max(np.count_nonzero(s.g), 1)})
    # fmt: on


def last(s: Any, event: str) -> int:
    """Return after which step an event was last before this step; 0 if it was not yet."""
    return max((after for after, name in s.events.items() if name.startswith(event) and after < s.count), default=0)


def _among(event: str, events: Mapping[int, str]) -> bool:
    """Whether an event is among others, or one whose name begins so: "state_dict" is "state_dict-otherwise" as well."""
    return any(name.startswith(event) for name in events.values())


def _where(event: str, override: Callable[..., Any]) -> Callable[..., Any]:
    """Return the override where an event is, or was before; the page elsewhere."""
    return lambda s, page: override(s, page) if _among(event, s.events) else page(s)


def _negates_again(s: Any) -> bool:
    return s.events.get(0) == "maximize" and s.event == "same-gradients"


def _apart(case: Any) -> bool:
    return len(set(case.eta.values())) > 1  # a leaf with an eta of its own may be a group of its own


def _count_of_groups(s: Any, t: int) -> int:
    leaves = list(s.etas)
    if len({float(eta) for eta in s.etas.values()}) < 2:
        return t
    absent = last(s, "add_param_group") if s.events.get(0) == "leave-out" else 0
    absent = absent or (s.count - 1 if s.events.get(0) == "leave-out" else 0)  # steps before the last leaf came
    return len(leaves) * (s.count - 1) - absent + leaves.index(s.name) + s.algorithm.first_step


def _added(s: Any) -> str:
    return list(s.etas)[-1]


def loaded_into(option: str, algorithm: Algorithm) -> Callable[..., Any]:
    """Override an option by that of the optimizer into which a state_dict was loaded."""
    event, value = "state_dict-otherwise", algorithm.otherwise[option]
    return lambda s, page: value if last(s, event) else page(s)


def _but_none(g: Any, factor: float) -> Any:
    return None if g is None else factor * g


def _by_columns(g: Any) -> Any:
    """Return the entries of an array in the order in which they lie by columns."""
    return None if g is None else np.reshape(np.ravel(np.transpose(g)), np.shape(g))


def _in_memory_order(s: Any, page: Callable[[Any], Any]) -> Any:
    shape = np.shape(s.old_theta)
    delta = page(s.but(old_theta=_by_columns(s.old_theta)))
    return np.transpose(np.reshape(np.ravel(delta), shape[::-1]))


def _losing(event: str) -> Callable[..., Any]:
    return lambda s, page: 0.0 * page(s) if s.event.startswith(event) else page(s)


def _twins(case: Any) -> bool:
    return len({a.shape for a in case.params.values()}) < len(case.params)


def _taken(part: str) -> Callable[..., Any]:
    def take(s: Any, page: Callable[[Any], Any]) -> Any:
        kept = s.tree.get((part, np.shape(s.old_theta)))
        return page(s) if kept is None else kept

    return take


def _given(part: str) -> Callable[..., Any]:
    def keep(s: Any, page: Callable[[Any], Any]) -> Any:
        s.tree[part, np.shape(s.old_theta)] = value = page(s)
        return value

    return keep


def _first(s: Any) -> str:
    return next(iter(s.etas))
