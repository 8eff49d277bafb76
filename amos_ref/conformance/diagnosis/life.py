"""Deviations that act only where something happens to the optimizer (docs/life.md): each overrides a stage there."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.judging.paper import OPTIONS
from amos_ref.conformance.life import LOADED_INTO

_WORDS = {"state_dict": "load_state_dict", "pickle": "unpickling", "deepcopy": "copy.deepcopy"}


def add_all(add: Callable[..., None]) -> None:
    """Add the entries; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""

    def life(name: str, event: str, does: str, effect: str, **overrides: Any) -> None:
        there = {stage: _where(event, override) for stage, override in overrides.items()}
        add("life", name, does, effect, only=lambda case: _among(event, case.events), **there)

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
    for name, leaf, words in (("ignored", lambda s: None, "the constructor"), ("first", _first, "the first group")):
        life(f"groups-learning-rate-{name}", "groups", f"gives all parameter groups the learning rate of {words}",
             "the rate of a group does nothing", xi=lambda s, page, leaf=leaf: s.rates_of[leaf(s)][s.count - 1])
        life(f"groups-options-{name}", "groups", f"gives all parameter groups the beta, extra_l2, ... of {words}",
             "the options of a group do nothing", **_of(leaf))
    add("count", "groups-count-each", "counts a step for every parameter group that it comes to",
        "the bias correction ends too soon", only=_apart, t=lambda s, page: _count_of_groups(s) or page(s))
    life("added-group-restarts-count", "add_param_group", "counts the steps of an added group from 1",
         "an added group starts with small steps",
         t=lambda s, page: page(s) - _last(s, "add_param_group") * (s.name == _added(s)))
    life("added-group-ignored", "add_param_group", "never steps an added group", "the added parameters are not trained",
         grad=lambda s, page: _but_none(page(s), float(s.name != _added(s))))
    life("loaded-state-dict-keeps-learning-rate", "state_dict-otherwise",
         "goes on with the learning rate of the optimizer into which a state_dict is loaded",
         "a resumed run has another learning rate", xi=_loaded_into("learning_rate"))
    life("loaded-state-dict-keeps-beta", "state_dict-otherwise",
         "goes on with the beta of the optimizer into which a state_dict is loaded", "a resumed run has another beta",
         beta=_loaded_into("beta"))
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
    life("lr-tensor-frozen", "lr-tensor", "keeps a learning rate that is a tensor as a number",
         "a change of the tensor changes nothing", xi=lambda s, page: s.rates[0])
    life("lr-scheduler-ignored", "lr-scheduler", "does not read the learning rate that a scheduler sets", "no schedule",
         xi=lambda s, page: s.rates[0])
    life("momentum-stays-off", "momentum-on", "does not see that momentum is switched on", "no averaging",
         momentum=lambda s, page: None)
    life("gradient-in-memory-order", "gradients-transposed", "reads a gradient in the order of its memory",
         "gradients reach the wrong entries", grad=lambda s, page: _by_columns(page(s)))
    life("expanded-gradient-by-memory", "gradients-expanded", "reads an expanded gradient in the order of its memory",
         "gradients reach the wrong entries", grad=lambda s, page: _by_columns(page(s)))
    life("parameters-in-memory-order", "parameters-transposed", "steps parameters in the order of their memory",
         "gradients reach the wrong entries", delta=lambda s, page: _in_memory_order(s, page))
    for path in ("foreach", "fused"):
        life(f"{path}-without-extra_l2", path, f"leaves extra_l2 out where {path}=True", "no extra decay on that path",
             extra_l2=lambda s, page: 0.0)
        life(f"{path}-without-momentum", path, f"leaves momentum out where {path}=True", "no averaging on that path",
             momentum=lambda s, page: None)
        life(f"{path}-without-decay", path, f"does not decay by gamma/2 where {path}=True", "no decay on that path",
             rho=lambda s, page: page(s.but(gamma=0.0 * s.gamma)))
        life(f"{path}-global-mean", path, f"takes one mean square for all leaves where {path}=True",
             "leaves with small gradients hardly move", g2=lambda s, page: _global_mean_square(s))
    life("sparse-mean-of-present", "gradients-sparse", "takes the mean square over the entries that a gradient holds",
         "sparse gradients move too little", g2=lambda s, page: page(s) * s.g.size / max(np.count_nonzero(s.g), 1))
    # fmt: on


def _last(s: Any, event: str) -> int:
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


def _count_of_groups(s: Any) -> int:
    leaves = list(s.etas)
    several = len({float(eta) for eta in s.etas.values()}) > 1
    absent = _last(s, "add_param_group") if s.events.get(0) == "leave-out" else 0
    absent = absent or (s.count - 1 if s.events.get(0) == "leave-out" else 0)  # steps before the last leaf came
    return len(leaves) * (s.count - 1) - absent + 1 + leaves.index(s.name) if several else 0


def _added(s: Any) -> str:
    return list(s.etas)[-1]


def _loaded_into(option: str) -> Callable[..., Any]:
    event, value = "state_dict-otherwise", LOADED_INTO[option]
    return lambda s, page: value if _last(s, event) else page(s)


def _global_mean_square(s: Any) -> Any:
    squares = np.concatenate([np.ravel(g * g) for g in s.grads.values() if g is not None])
    return np.add.reduce(squares) / squares.size + 0.0 * s.old_v


def _but_none(g: Any, factor: float) -> Any:
    return None if g is None else factor * g


def _by_columns(g: Any) -> Any:
    """Return the entries of an array in the order in which they lie by columns."""
    return None if g is None else np.reshape(np.ravel(np.transpose(g)), np.shape(g))


def _in_memory_order(s: Any, page: Callable[[Any], Any]) -> Any:
    shape = np.shape(s.old_theta)
    delta = page(s.but(old_theta=_by_columns(s.old_theta)))
    return np.transpose(np.reshape(np.ravel(delta), shape[::-1]))


def _losing(part: str, event: str) -> Callable[..., Any]:
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


def _of(leaf: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    """Override every option by that of another leaf, or of the constructor."""

    def option(s: Any, name: str) -> Any:
        value = s.options_of[leaf(s)][name]
        return value[s.count - 1] if isinstance(value, list) else value

    return {name: lambda s, page, name=name: option(s, name) for name in OPTIONS}
