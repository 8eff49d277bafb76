"""States under torch: of this package's port, of ``pytorch_optimizer.Amos``, and of an optimizer of the closed form."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays, check_array
from amos_ref.dtypes import as_dtype, dtype_of
from amos_ref.errors import MissingDependencyError, StateError, TreeError
from amos_ref.interop.parts import Kept, build, check_optional, read_count
from amos_ref.optimizers.state import AmosState, ClosedFormState
from amos_ref.optimizers.turn import check_unused
from amos_ref.rules import number, slot_shape_of

#: The fields of AmosState, and their keys in pytorch_optimizer.
_AMOS = (("v", "exp_avg_sq"), ("b", "decay"), ("m", "exp_avg"))
#: The arrays of ClosedFormState with Adam's direction, and their keys.
_MOMENTS = (("m", "exp_avg"), ("v", "exp_avg_sq"))


def from_torch(
    state_dict: Mapping[str, Any], names: Iterable[str], like: Any = None, state_dtype: str = "param"
) -> Any:
    """Return the state in the ``state_dict()`` of an optimizer of either algorithm.

    The optimizer is one of :mod:`amos_ref.ports.torch`, ``pytorch_optimizer.Amos``, or another one of the closed form
    that keeps its state as below.

    Parameters
    ----------
    state_dict : dict
        What ``optimizer.state_dict()`` returns. In pytorch_optimizer's, v is ``exp_avg_sq``, b is ``decay``, and m is
        minus ``exp_avg``, because that optimizer subtracts its average. In that of a closed form, each parameter has
        ``step`` and ``sigma``, and ``exp_avg`` and ``exp_avg_sq`` if the direction of the groups is "adam": the count,
        sigma, m and v. It is taken for a closed form if a parameter has a sigma or a group has an alpha_0. In those of
        this package's ports, each parameter has v, b and m, or m and v, by these names, and the groups have the count
        and sigma.
    names : iterable of str
        The names of the parameters in the order of the optimizer: ``[name for name, _ in model.named_parameters()]``,
        or the pairs of ``named_parameters()``. If the optimizer was itself given names, the state_dict holds them. The
        same names may then come in any order, and other names are new names of the leaves, in the order of the
        optimizer.
    like : tree of NumPy arrays, optional
        The parameters by these names. They are needed if a parameter never had a gradient: it has no state in the
        state_dict then, and gets one of zeros. The closed form has a state of each parameter from the start.
    state_dtype : {"param", "float64"}
        "param" keeps the dtypes of the arrays. "float64" converts them, which is exact. A ClosedFormState is always
        float64.

    Returns
    -------
    AmosState or ClosedFormState

    Raises
    ------
    StateError, TreeError
        If names or groups do not match, or if the parameters differ in their steps or in whether they have momentum.
    """
    groups, own = _split_state_dict(state_dict)
    keys = _match_names(groups, names)
    thetas = None if like is None else tree.match(tree.flatten(like, "like"), keys, "like")
    if _is_port(groups):
        return _from_port(groups, own, keys, thetas, state_dtype)
    if _is_closed_form(groups, own):
        return _from_closed_form(groups, own, keys, thetas, state_dtype)
    steps = {read_count(group.get("step", 0)) for group in groups}
    averaged = {number(group.get("momentum", 0)) > 0 for group in groups}
    for values, what in ((steps, "steps taken"), (averaged, "whether they have momentum")):
        if len(values) != 1:
            raise StateError(f"the param_groups differ in {what}: {sorted(values)}; AmosState has one for all")
    parts: dict[str, Arrays] = {}
    for part, field in _AMOS[: 3 if True in averaged else 2]:
        parts[part] = {name: _from_tensor(own.get(key, {}), name, field, thetas) for name, key in keys.items()}
    if "m" in parts:
        parts["m"] = {name: np.asarray(-a) for name, a in parts["m"].items()}
    return build(AmosState, steps.pop(), parts, thetas, state_dtype)


def to_torch(state: Kept, names: Iterable[str], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` that holds this state, for the ``load_state_dict`` of an optimizer of either kind.

    Parameters
    ----------
    state : AmosState or ClosedFormState
        The state that is converted. For pytorch_optimizer, an AmosState has one slot for each array.
    names : iterable of str
        The names of the parameters, as in :func:`from_torch`.
    like : dict
        What ``optimizer.state_dict()`` returns. Its options are kept, and its steps and arrays are replaced. Where it
        has arrays, the new ones are rounded to their dtypes; otherwise `load_state_dict` gives them the dtypes of the
        parameters. The closed form's step is an int and its sigma a float, which are never rounded.

    Returns
    -------
    dict
        Of the form of `like`, which is not changed.

    Raises
    ------
    StateError, TreeError
        If the names, slots, momentum or algorithm of `state` and `like` do not match.
    """
    check_unused(state)
    groups, own = _split_state_dict(like)
    keys = _match_names(groups, names)
    if isinstance(state, ClosedFormState) != _is_closed_form(groups, own):
        other = "is not" if isinstance(state, ClosedFormState) else "is"
        raise StateError(f"the state is of type {type(state).__name__} but like {other} of the closed form")
    if _is_port(groups):
        return {**like, **_to_port(state, groups, own, keys)}
    if isinstance(state, ClosedFormState):
        return {**like, "state": _to_closed_form(state, groups, own, keys)}
    check_optional(state, any(number(group.get("momentum", 0)) > 0 for group in groups), "like")
    tree.match(state.v, keys, "leaves of state")
    theirs: dict[Any, dict[str, Any]] = {key: {} for key in keys.values()}
    for name, key in keys.items():
        if state.v[name].size != 1:
            raise StateError(f"leaf {name!r} has slots of shape {state.v[name].shape}; pytorch_optimizer has one slot")
        arrays = [state.v[name].reshape(()), state.b[name].reshape(())]
        arrays += [] if state.m is None else [np.asarray(-state.m[name])]
        for (_, field), a in zip(_AMOS, arrays, strict=False):
            theirs[key][field] = _to_tensor(a, own.get(key, {}).get(field))
    groups = [{**group, "step": int(state.count)} for group in groups]
    return {**like, "state": theirs, "param_groups": groups}


# the closed form


def _is_closed_form(groups: list[Mapping[str, Any]], own: Mapping[Any, Any]) -> bool:
    return any("alpha_0" in group for group in groups) or any("sigma" in entry for entry in own.values())


def _averages(groups: list[Mapping[str, Any]], own: Mapping[Any, Any]) -> bool:
    """Whether there are moments; raise StateError if the groups' directions say different things."""
    directions = {group.get("direction", "gradient") == "adam" for group in groups}
    if len(directions) != 1:
        raise StateError("the param_groups differ in direction: only some have 'adam'; ClosedFormState has m of all")
    (by_adam,) = directions
    if not by_adam and (odd := [key for key, entry in own.items() if "exp_avg" in entry]):
        raise StateError(f"the state_dict has exp_avg of parameter {odd[0]!r}, but no group has direction 'adam'")
    return by_adam


def _from_closed_form(
    groups: list[Mapping[str, Any]],
    own: Mapping[Any, Any],
    keys: dict[str, Any],
    thetas: dict[str, Any] | None,
    state_dtype: str,
) -> Any:
    if lost := [name for name, key in keys.items() if not own.get(key)]:
        words = "the closed form has one of every parameter from the start, with the sigma of its first entries"
        raise StateError(f"the state_dict has no state of leaf {lost[0]!r}; {words}")
    steps = {name: read_count(own[key].get("step"), f"step of leaf {name!r}") for name, key in keys.items()}
    if len(set(steps.values())) > 1:
        words = ", ".join(f"{count} of leaf {name!r}" for name, count in list(steps.items())[:8])
        raise StateError(f"the parameters differ in steps taken: {words}; ClosedFormState has one count for all")
    parts: dict[str, Arrays] = {}
    for part, field in [("sigma", "sigma"), *(_MOMENTS if _averages(groups, own) else ())]:
        parts[part] = {name: _from_tensor(own[key], name, field, None) for name, key in keys.items()}
    return build(ClosedFormState, next(iter(steps.values()), 0), parts, thetas, state_dtype)


def _to_closed_form(
    state: ClosedFormState, groups: list[Mapping[str, Any]], own: Mapping[Any, Any], keys: dict[str, Any]
) -> dict[Any, dict[str, Any]]:
    check_optional(state, _averages(groups, own), "like")
    tree.match(state.sigma, keys, "leaves of state")
    theirs = {}
    for name, key in keys.items():
        theirs[key] = {"step": int(state.count), "sigma": float(state.sigma[name])}
        for part, field in _MOMENTS if state.m is not None else ():
            theirs[key][field] = _to_tensor(getattr(state, part)[name], own.get(key, {}).get(field))
    return theirs


# amos_ref.ports.torch


def _is_port(groups: list[Mapping[str, Any]]) -> bool:
    return any("slot_shape" in group for group in groups)


def _from_port(
    groups: list[Mapping[str, Any]],
    own: Mapping[Any, Any],
    keys: dict[str, Any],
    thetas: dict[str, Any] | None,
    state_dtype: str,
) -> Any:
    steps: list[Any] = [group.get("step") for group in groups]
    counts = {read_count(int(step) if hasattr(step, "detach") else step) for step in steps}  # or a tensor of it
    if len(counts) != 1:
        raise StateError(f"the param_groups differ in steps taken: {sorted(counts)}; a state has one count for all")
    kind, fields = _fields_of_port(groups, own)
    slots = _each_of_port(groups, "slot_shape")
    parts: dict[str, Arrays] = {part: {} for part in fields}
    for name, key in keys.items():
        for part in fields:
            if own.get(key):
                parts[part][name] = _from_tensor(own[key], name, part, None)
            elif thetas is None:
                raise StateError(_no_state(name))
            else:
                theta = check_array(thetas[name], f"like leaf {name!r}")
                whole = part == "m" or kind is ClosedFormState
                shape = theta.shape if whole else slot_shape_of(slots[key], name, theta.shape)
                parts[part][name] = np.zeros(shape, np.promote_types(np.float32, theta.dtype))
    if kind is ClosedFormState:
        sigma = _each_of_port(groups, "sigma")
        parts["sigma"] = {name: np.array(float(sigma[key])) for name, key in keys.items()}
    return build(kind, counts.pop(), parts, thetas, state_dtype)


def _to_port(
    state: Kept, groups: list[Mapping[str, Any]], own: Mapping[Any, Any], keys: dict[str, Any]
) -> dict[str, Any]:
    _, fields = _fields_of_port(groups, own)
    check_optional(state, "m" in fields, "like")
    tree.match(state.sigma if isinstance(state, ClosedFormState) else state.v, keys, "leaves of state")
    slots = _each_of_port(groups, "slot_shape")
    theirs: dict[Any, dict[str, Any]] = {}
    for name, key in keys.items():
        arrays = {part: getattr(state, part)[name] for part in fields}
        slot = () if slots[key] == "tensor" else slots[key]
        if isinstance(state, AmosState) and slot != "element" and arrays["v"].shape != tuple(slot):
            raise StateError(f"leaf {name!r} has slots of shape {arrays['v'].shape}; like has {tuple(slot)}")
        theirs[key] = {part: _to_tensor(a, own.get(key, {}).get(part)) for part, a in arrays.items()}
    new: list[dict[str, Any]] = [{**group, "step": int(state.count)} for group in groups]
    if isinstance(state, ClosedFormState):
        sigma = {key: float(state.sigma[name]) for name, key in keys.items()}
        new = [{**group, "sigma": [sigma[key] for key in group["params"]]} for group in new]
    return {"state": theirs, "param_groups": new}


def _fields_of_port(groups: list[Mapping[str, Any]], own: Mapping[Any, Any]) -> tuple[type, str]:
    """Return the kind of state, and the parts that its parameters have, a letter each."""
    if _is_closed_form(groups, own):
        return ClosedFormState, "mv" if _averages(groups, own) else ""
    averaged = {number(group.get("momentum", 0)) > 0 for group in groups}
    if len(averaged) != 1:
        raise StateError("the param_groups differ in whether they have momentum; AmosState has m of all or of none")
    return AmosState, "vbm" if averaged.pop() else "vb"


def _each_of_port(groups: list[Mapping[str, Any]], option: str) -> dict[Any, Any]:
    """Return an option of each parameter: a group has one for all, or a list."""
    found: dict[Any, Any] = {}
    for group in groups:
        value, params = group[option], group["params"]
        found |= zip(params, value if isinstance(value, list) else [value] * len(params), strict=True)
    return found


# both algorithms


def _no_state(name: str) -> str:
    return f"the state_dict has no state of leaf {name!r}, which never had a gradient; give like=params"


def _split_state_dict(state_dict: Any) -> tuple[list[Mapping[str, Any]], Mapping[Any, Any]]:
    """Return the groups and the state of each parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        words = f"a dict of {', '.join(map(repr, state_dict))}" if isinstance(state_dict, Mapping) else repr(state_dict)
        raise StateError(f"{words:.80} is not an optimizer's state_dict: it must have state and param_groups")
    groups, own = state_dict["param_groups"], state_dict["state"]
    if not isinstance(own, Mapping) or not isinstance(groups, list | tuple):
        kinds = f"{type(own).__name__} and {type(groups).__name__}"
        raise StateError(f"state and param_groups of the state_dict are {kinds}; they must be a dict and a list")
    try:
        for group in groups:
            if not all(isinstance(group.get(part, ()), list | tuple) for part in ("params", "param_names")):
                raise TypeError("params or param_names is not a list")
        keys, _ = ({key for group in groups for key in group.get(part, ())} for part in ("params", "param_names"))
    except (AttributeError, TypeError) as error:
        raise StateError(f"the param_groups are not dicts that have a list of params: {error}") from None
    for key, state in own.items():
        if key not in keys or not isinstance(state, Mapping):
            what = f"which is of type {type(state).__name__}" if key in keys else "which is in none of its param_groups"
            raise StateError(f"the state_dict has a state of parameter {key!r}, {what}")
    return list(groups), own


def _match_names(groups: list[Mapping[str, Any]], names: Any) -> dict[str, Any]:
    """Return ``{name: key of the parameter in the state_dict}``; names that it holds itself decide about the order."""
    keys = [key for group in groups for key in group.get("params", ())]
    if not isinstance(names, Iterable):
        raise TreeError(f"names is of type {type(names).__name__}; it must be the names of all parameters")
    names = [_as_name(entry, i) for i, entry in enumerate([names] if isinstance(names, str) else names)]
    known = [name for group in groups for name in group.get("param_names", group.get("params", ()))]
    if len(names) != len(keys) or len(set(names)) != len(names):
        many = f"{len(names)} names, {len(set(names))} of them different"
        raise TreeError(f"there are {many}, for {len(keys)} parameters in the param_groups{_compare(names, known)}")
    if len(known) == len(keys) and set(known) == set(names):
        own = dict(zip(known, keys, strict=True))
        return {name: own[name] for name in names}
    for i, (name, other) in enumerate(zip(names, known, strict=False)):
        if name != other and (name in known or other in names):
            raise TreeError(f"names[{i}] is {name!r}; the state_dict has {other!r} there{_compare(names, known)}")
    return dict(zip(names, keys, strict=True))


def _as_name(entry: Any, i: int) -> str:
    """Return a name, also from a pair of ``named_parameters()``."""
    name = entry[0] if isinstance(entry, tuple) and len(entry) == 2 else entry
    if not isinstance(name, str):
        raise TreeError(
            f"names[{i}] is of type {type(entry).__name__}; it must be a str, or a pair of named_parameters()"
        )
    return name


def _compare(names: list[str], known: list[Any]) -> str:
    """Return how names differ from those in the state_dict, if it has any."""
    if not all(isinstance(name, str) for name in known):
        return ""
    rows = (("missing", [n for n in known if n not in names]), ("extra", [n for n in names if n not in known]))
    return "".join(f"; {word} {', '.join(map(repr, odd))}" for word, odd in rows if odd)


def _from_tensor(own: Mapping[str, Any], name: str, field: str, thetas: dict[str, Any] | None) -> np.ndarray:
    """Return a NumPy copy of a parameter's tensor; a bfloat16 goes through float32, which holds it exactly."""
    if not own:
        if thetas is None:
            raise StateError(_no_state(name))
        theta = check_array(thetas[name], f"like leaf {name!r}")
        # Minus 0, since the average changes its sign.
        return np.full(theta.shape, -0.0, theta.dtype) if field == "exp_avg" else np.zeros((), theta.dtype)
    if field not in own:
        raise StateError(f"the state_dict has no {field} of leaf {name!r}; it has {', '.join(map(str, own))}")
    tensor = own[field]
    if field == "sigma" and isinstance(tensor, float):
        return np.array(tensor)
    try:
        tensor = tensor.detach().cpu() if hasattr(tensor, "detach") else tensor
        if str(tensor.dtype) == "torch.bfloat16":
            return tensor.float().numpy().astype(dtype_of("bfloat16"))
        return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
    except (AttributeError, TypeError, RuntimeError) as error:  # of a number, a sparse tensor, one without data
        raise StateError(f"{field} of leaf {name!r} is {type(tensor).__name__}, not a dense array: {error}") from None


def _to_tensor(a: np.ndarray, like: Any) -> Any:
    """Return a torch tensor of the dtype and on the device of `like`, if there is one."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependencyError("to_torch needs torch, which is not installed: pip install torch") from None
    if like is not None:
        a = as_dtype(a, dtype_of(str(getattr(like, "dtype", like)).removeprefix("torch.")))
    if a.dtype.name == "bfloat16":
        tensor = torch.tensor(a.astype(np.float32)).to(torch.bfloat16)
    else:
        tensor = torch.tensor(np.ascontiguousarray(a).reshape(a.shape))
    return tensor if like is None else tensor.to(like.device)
