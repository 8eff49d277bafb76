"""AmosState from and to the states of other implementations: the authors' code under optax, pytorch_optimizer's Amos.

With a converted state the next step is the same up to rounding, provided that both optimizers have the same options: a
state does not hold them. A framework is imported only where its arrays are built.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays, check_array
from amos_ref.dtypes import as_dtype, dtype_of
from amos_ref.errors import HyperParameterError, MissingDependencyError, ShapeError, StateError, TreeError
from amos_ref.optimizers.state import AmosState, check_fit
from amos_ref.optimizers.turn import check_unused

#: The fields of AmosState, and their keys in pytorch_optimizer.
_TORCH_FIELDS = (("v", "exp_avg_sq"), ("b", "decay"), ("m", "exp_avg"))
_AMOS, _EMA = ("count", "v", "b"), ("count", "ema")


def from_optax(opt_state: Any, params: Any, state_dtype: str = "param") -> AmosState:
    """Return the state that the authors' ``amos`` (jestimator) keeps in an optax state.

    Parameters
    ----------
    opt_state : ScaleByAmosState, or nested tuples with one in them
        As ``amos(...).init`` and ``update`` return it, alone or inside ``optax.chain``. The momentum is the ``ema`` of
        the chain, if it has one.
    params : tree of arrays
        Of JAX or NumPy.
    state_dtype : {"param", "float64"}
        "param" keeps the arrays' dtypes; "float64" widens them, which is exact.

    Raises
    ------
    StateError
        If there is no such state or more than one, or it does not fit `params`; the error names the leaf.
    """
    amos = _take_only(_find(opt_state, _AMOS), "state with count, v and b")
    emas = _find(opt_state, _EMA)
    thetas = {name: np.asarray(a) for name, a in tree.flatten(params).items()}
    parts = {"v": amos.v, "b": amos.b} | ({"m": _take_only(emas, "ema").ema} if emas else {})
    arrays = {part: _copy_leaves(leaves, thetas, f"opt_state.{part}") for part, leaves in parts.items()}
    return _convert(AmosState(_as_count(amos.count), arrays["v"], arrays["b"], arrays.get("m")), thetas, state_dtype)


def to_optax(state: AmosState, like: Any) -> Any:
    """Return an optax state in the form of `like` that holds this state.

    Parameters
    ----------
    state : AmosState
    like : optax state
        As ``amos(...).init(params)`` returns it. Its count, v, b and ema are replaced by ours, rounded once to their
        dtypes; everything else stays.

    Raises
    ------
    StateError, ShapeError, TreeError
        If `like` has other leaves, shapes or momentum than `state`, or its counter cannot hold the count.
    """
    check_unused(state)
    _take_only(_find(like, _AMOS), "state with count, v and b")
    if (emas := _find(like, _EMA)) and state.m is not None:
        _take_only(emas, "ema")
    _check_momentum(state, bool(emas), "like")
    return _replace_parts(like, state)


def from_torch(
    state_dict: Mapping[str, Any], names: Iterable[str], like: Any = None, state_dtype: str = "param"
) -> AmosState:
    """Return the state that ``pytorch_optimizer.Amos`` keeps, from its ``state_dict()``.

    Parameters
    ----------
    state_dict : dict
        v is its ``exp_avg_sq``, b its ``decay``; m is minus its ``exp_avg``, since it subtracts its average.
    names : iterable of str
        The parameters' names in the optimizer's order, as ``[name for name, _ in model.named_parameters()]``.
    like : tree of NumPy arrays, optional
        The parameters by these names. They are needed if one of them never had a gradient: the optimizer then has no
        state of it, and here its state is 0.
    state_dtype : {"param", "float64"}
        "param" keeps the arrays' dtypes; "float64" widens them, which is exact.

    Raises
    ------
    StateError
        If names or groups do not match, or the groups differ in their steps or in having momentum.
    """
    groups, own = _split_state_dict(state_dict)
    keys = _match_names(groups, names)
    thetas = None if like is None else tree.match(tree.flatten(like, "like"), keys, "like")
    steps = {_as_count(group.get("step", 0)) for group in groups}
    averaged = {group.get("momentum", 0) > 0 for group in groups}
    for values, what in ((steps, "steps taken"), (averaged, "whether they have momentum")):
        if len(values) != 1:
            raise StateError(f"the param_groups differ in {what}: {sorted(values)}; AmosState has one for all")
    parts: dict[str, Arrays] = {}
    for part, field in _TORCH_FIELDS[: 3 if True in averaged else 2]:
        parts[part] = {name: _from_tensor(own.get(key, {}), name, field, thetas) for name, key in keys.items()}
    m = {name: np.asarray(-a) for name, a in parts["m"].items()} if "m" in parts else None
    return _convert(AmosState(steps.pop(), parts["v"], parts["b"], m), thetas, state_dtype)


def to_torch(state: AmosState, names: Iterable[str], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` for ``pytorch_optimizer.Amos.load_state_dict`` that holds this state.

    Parameters
    ----------
    state : AmosState
        With one slot an array, as that optimizer has.
    names : iterable of str
        The parameters' names in the optimizer's order.
    like : dict
        ``optimizer.state_dict()``. Its options are kept, its steps and arrays are replaced. `load_state_dict` gives
        the arrays the dtype of their parameters; where `like` has arrays, they are rounded to their dtype here.

    Raises
    ------
    StateError, TreeError
        If names, slots or momentum of `state` and `like` do not match.
    """
    check_unused(state)
    groups, own = _split_state_dict(like)
    keys = _match_names(groups, names)
    _check_momentum(state, any(group.get("momentum", 0) > 0 for group in groups), "like")
    tree.match(state.v, keys, "leaves of state")
    theirs: dict[Any, dict[str, Any]] = {key: {} for key in keys.values()}
    for name, key in keys.items():
        if state.v[name].size != 1:
            raise StateError(f"leaf {name!r} has slots of shape {state.v[name].shape}; pytorch_optimizer has one slot")
        arrays = [state.v[name].reshape(()), state.b[name].reshape(())]
        arrays += [] if state.m is None else [np.asarray(-state.m[name])]
        for (_, field), a in zip(_TORCH_FIELDS, arrays, strict=False):
            theirs[key][field] = _to_tensor(a, own.get(key, {}).get(field))
    groups = [{**group, "step": int(state.count)} for group in groups]
    return {**like, "state": theirs, "param_groups": groups}


# optax


def _fields(node: Any) -> tuple[str, ...]:
    return getattr(node, "_fields", ()) if isinstance(node, tuple) else ()


def _find(node: Any, fields: tuple[str, ...]) -> list[Any]:
    """Return every named tuple with these fields in nested tuples."""
    if set(fields) <= set(_fields(node)):
        return [node]
    return [match for child in node for match in _find(child, fields)] if isinstance(node, tuple) else []


def _take_only(parts: list[Any], what: str) -> Any:
    if len(parts) != 1:
        raise StateError(f"the optax state has {len(parts)} parts that are a {what}; it must have one")
    return parts[0]


def _replace_parts(node: Any, state: AmosState) -> Any:
    """Return nested tuples like `node` with the state's numbers in it."""
    fields = set(_fields(node))
    if set(_AMOS) <= fields:
        v, b = _fill_leaves(state.v, node.v, "v"), _fill_leaves(state.b, node.b, "b")
        return node._replace(count=_fill_count(state.count, node.count), v=v, b=b)
    if set(_EMA) <= fields and state.m is not None:
        return node._replace(count=_fill_count(state.count, node.count), ema=_fill_leaves(state.m, node.ema, "m"))
    if not isinstance(node, tuple):
        return node
    children = [_replace_parts(child, state) for child in node]
    return type(node)(*children) if hasattr(node, "_fields") else tuple(children)


def _fill_leaves(arrays: Arrays, like: Any, part: str) -> Any:
    leaves = tree.flatten(like, f"like.{part}")
    named = tree.match(arrays, leaves, f"leaves of state.{part}")
    new = {}
    for name, a in named.items():
        old = leaves[name]
        if a.shape != old.shape:
            raise ShapeError(f"state.{part} of leaf {name!r} has shape {a.shape}; like has shape {old.shape}")
        new[name] = _as_array_of(old, as_dtype(a, np.dtype(old.dtype)))
    return tree.unflatten(new, like)


def _fill_count(count: Any, like: Any) -> Any:
    dtype = np.asarray(like).dtype
    if int(count) > np.iinfo(dtype).max:
        raise StateError(
            f"state.count is {int(count)}; the counter of like is {dtype} and ends at {np.iinfo(dtype).max}"
        )
    return _as_array_of(like, np.array(count, dtype))


def _as_array_of(like: Any, a: np.ndarray) -> Any:
    """Return a JAX array if `like` is one, else the array itself."""
    if isinstance(like, np.ndarray | np.generic):
        return a
    try:
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependencyError("this optax state needs jax, which is not installed: pip install jax") from None
    return jnp.asarray(a)


def _copy_leaves(leaves: Any, thetas: Arrays, what: str) -> Arrays:
    return {name: np.array(a) for name, a in tree.match(tree.flatten(leaves, what), thetas, what).items()}


# torch


def _split_state_dict(state_dict: Any) -> tuple[list[Mapping[str, Any]], Mapping[Any, Any]]:
    """Return the groups and the state of each parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise StateError(f"{state_dict!r:.60} is not a state_dict: it must have state and param_groups")
    return list(state_dict["param_groups"]), state_dict["state"]


def _match_names(groups: list[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """Return ``{name: key of the parameter in the state_dict}``."""
    keys, names = [key for group in groups for key in group["params"]], list(names)
    if len(names) != len(keys) or len(set(names)) != len(names):
        many = f"{len(names)} names, {len(set(names))} of them different"
        raise TreeError(f"there are {many}, for {len(keys)} parameters in the param_groups")
    return dict(zip(names, keys, strict=True))


def _from_tensor(own: Mapping[str, Any], name: str, field: str, thetas: dict[str, Any] | None) -> np.ndarray:
    """Return a NumPy copy of a parameter's tensor; a bfloat16 goes through float32, which holds it exactly."""
    if not own:
        if thetas is None:
            raise StateError(
                f"the state_dict has no state of leaf {name!r}, which never had a gradient; give like=params"
            )
        theta = check_array(thetas[name], f"like leaf {name!r}")
        # Minus 0, since the average changes its sign.
        return np.full(theta.shape, -0.0, theta.dtype) if field == "exp_avg" else np.zeros((), theta.dtype)
    if field not in own:
        raise StateError(f"the state_dict has no {field} of leaf {name!r}")
    tensor = own[field].detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.float().numpy().astype(dtype_of("bfloat16"))
    return np.array(tensor.numpy())


def _to_tensor(a: np.ndarray, like: Any) -> Any:
    """Return a torch tensor of the dtype and on the device of `like`, if there is one."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependencyError("to_torch needs torch, which is not installed: pip install torch") from None
    if like is not None:
        a = as_dtype(a, dtype_of(str(like.dtype).removeprefix("torch.")))
    if a.dtype.name == "bfloat16":
        tensor = torch.tensor(a.astype(np.float32)).to(torch.bfloat16)
    else:
        tensor = torch.tensor(np.ascontiguousarray(a).reshape(a.shape))
    return tensor if like is None else tensor.to(like.device)


# both


def _as_count(value: Any) -> int:
    count = np.asarray(value)
    if count.shape != () or count.dtype.kind not in "iu" or count < 0:
        raise StateError(f"the count is {value!r:.60}; it must be an integer >= 0")
    return int(count)


def _check_momentum(state: AmosState, theirs: bool, what: str) -> None:
    if (state.m is not None) != theirs:
        have, has = ("has", "has none") if state.m is not None else ("has no", "has one")
        raise StateError(f"the state {have} momentum m but {what} {has}")


def _convert(state: AmosState, thetas: dict[str, Any] | None, state_dtype: str) -> AmosState:
    """Return the state with `state_dtype`; raise StateError if it is not valid or does not fit the parameters."""
    if state_dtype not in ("param", "float64"):
        raise HyperParameterError(f"state_dtype is {state_dtype!r}; it must be 'param' or 'float64'")
    parts = {"v": state.v, "b": state.b, "m": state.m or {}}
    for part, arrays in parts.items() if state_dtype == "float64" else ():
        parts[part] = {name: as_dtype(a, np.dtype(np.float64)) for name, a in arrays.items()}
    state = AmosState(state.count, parts["v"], parts["b"], None if state.m is None else parts["m"])
    check_fit(state, AmosState, thetas, optional=state.m is not None)
    return state
