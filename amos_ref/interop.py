"""AmosState from and to the states of other implementations: the authors' code under optax, pytorch_optimizer's Amos.

With a converted state the next step is the same up to rounding, provided that both optimizers have the same options: a
state does not hold them. A framework is imported only where its arrays are built.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays, check_array
from amos_ref.dtypes import as_dtype, dtype_of
from amos_ref.errors import DtypeError, HyperParameterError, MissingDependencyError, ShapeError, StateError, TreeError
from amos_ref.optimizers.state import AmosState, as_count, check_fit
from amos_ref.optimizers.turn import check_unused
from amos_ref.outside import pass_on
from amos_ref.rules import number

#: The fields of AmosState, and their keys in pytorch_optimizer.
_TORCH_FIELDS = (("v", "exp_avg_sq"), ("b", "decay"), ("m", "exp_avg"))
_AMOS, _EMA, _MULTI_STEPS = ("count", "v", "b"), ("count", "ema"), ("mini_step", "acc_grads")

Parts = dict[tree.Path, dict[str, Any]]  # parts of an optax state, each with its fields by name


def from_optax(opt_state: Any, params: Any, state_dtype: str = "param") -> AmosState:
    """Return the state that the authors' ``amos`` (jestimator) keeps in an optax state.

    Parameters
    ----------
    opt_state : ScaleByAmosState, or containers with some in them
        As ``amos(...).init`` and ``update`` return it, alone or inside ``optax.chain``, ``masked``, ``partition`` and
        the like; containers are tuples, lists, mappings and dataclasses. The momentum is the ``ema`` of the chain, if
        it has one. Several such states become one if no leaf is in two of them, as under ``partition``.
    params : tree of arrays
        Of JAX or NumPy, in such containers, without the leaves that are masked.
    state_dtype : {"param", "float64"}
        "param" keeps the arrays' dtypes; "float64" widens them, which is exact.

    Raises
    ------
    StateError, TreeError
        If there is no such state, several have a leaf in common or differ in their counts, gradients are being
        accumulated, or it does not fit `params`. The error names the leaf, or what was found and where.
    """
    amos, emas = _find_parts(opt_state)
    for path, node in tree.walk(opt_state):
        if set(_MULTI_STEPS) <= set(tree.fields_of(node)) and as_count(tree.fields_of(node)["mini_step"]) != 0:
            where = f"{type(node).__name__} at {_at(path)}"
            raise StateError(f"{where} holds gradients of a step that is not whole, which AmosState cannot hold")
    counts = {path: _as_count(part["count"]) for path, part in amos.items()}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{count} at {_at(path)}" for path, count in counts.items())
        raise StateError(f"parts of the optax state differ in their counts: {words}; AmosState has one for all")
    leaves = tree.flatten_any(params, "params")
    thetas = {n: a if hasattr(a, "shape") else _as_array(a, f"params leaf {n!r}") for n, a in leaves.items()}
    if lost := [name for name in thetas if name in _find_masked(amos)]:
        raise StateError(f"the optax state has a MaskedNode for leaf {lost[0]!r}; give params without such leaves")
    arrays = {}
    for part, found, field in (("v", amos, "v"), ("b", amos, "b"), *([("m", emas, "ema")] if emas else [])):
        leaves = tree.match(_merge(found, field), thetas, f"opt_state.{field}")
        arrays[part] = {name: _as_array(a, f"opt_state.{field} of leaf {name!r}") for name, a in leaves.items()}
    count = next(iter(counts.values()))
    return _convert(AmosState(count, arrays["v"], arrays["b"], arrays.get("m")), thetas, state_dtype)


def to_optax(state: AmosState, like: Any) -> Any:
    """Return an optax state in the form of `like` that holds this state.

    Parameters
    ----------
    state : AmosState
    like : optax state
        As ``amos(...).init(params)`` returns it, in any containers that :func:`from_optax` knows. Its counts, v, b and
        ema are replaced by ours, rounded once to their dtypes; everything else stays.

    Raises
    ------
    StateError, ShapeError, TreeError
        If `like` has other leaves, shapes or momentum than `state`, or its counter cannot hold the count.
    """
    check_unused(state)
    amos, emas = _find_parts(like)
    _check_momentum(state, bool(emas), "like")
    new: dict[str, Arrays] = {"v": state.v, "b": state.b, "ema": state.m or {}}
    for field, arrays in new.items():
        words = f"leaves of state.{'m' if field == 'ema' else field}"
        tree.match(arrays, _merge(emas if field == "ema" else amos, field), words)

    def replace(path: tree.Path, part: Any) -> Any:
        own = tree.fields_of(part)
        changed: dict[str, Any] = {name: _fill_leaves(new[name], own[name], name) for name in new if name in own}
        return tree.rebuild(part, own | changed | {"count": _fill_count(state.count, own["count"])})

    return tree.replace_parts(like, amos | emas, replace)


def from_torch(
    state_dict: Mapping[str, Any], names: Iterable[str], like: Any = None, state_dtype: str = "param"
) -> AmosState:
    """Return the state that ``pytorch_optimizer.Amos`` keeps, from its ``state_dict()``.

    Parameters
    ----------
    state_dict : dict
        v is its ``exp_avg_sq``, b its ``decay``; m is minus its ``exp_avg``, since it subtracts its average.
    names : iterable of str
        The parameters' names in the optimizer's order, as ``[name for name, _ in model.named_parameters()]``; the
        pairs of ``named_parameters()`` do as well. Of an optimizer that was itself given names, the state_dict holds
        them: these same names may stand in any order, and all others are the leaves' new names, in its order.
    like : tree of NumPy arrays, optional
        The parameters by these names. They are needed if one of them never had a gradient: the optimizer then has no
        state of it, and here its state is 0.
    state_dtype : {"param", "float64"}
        "param" keeps the arrays' dtypes; "float64" widens them, which is exact.

    Raises
    ------
    StateError, TreeError
        If names or groups do not match, or the groups differ in their steps or in having momentum.
    """
    groups, own = _split_state_dict(state_dict)
    keys = _match_names(groups, names)
    thetas = None if like is None else tree.match(tree.flatten(like, "like"), keys, "like")
    steps = {_as_count(group.get("step", 0)) for group in groups}
    averaged = {number(group.get("momentum", 0)) > 0 for group in groups}
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
        The parameters' names, as in :func:`from_torch`.
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
    _check_momentum(state, any(number(group.get("momentum", 0)) > 0 for group in groups), "like")
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


def _at(path: tree.Path) -> str:
    return "".join(["opt_state", *(f"[{key!r}]" for key in path)])


def _is_named(path: tree.Path, node: Any) -> bool:
    """Whether this is the whole tree, or a container with a type of its own."""
    return path == () or hasattr(node, "_fields") or dataclasses.is_dataclass(node)


def _find(root: Any, names: tuple[str, ...]) -> Parts:
    """Return every container that has these fields (of a mapping: no others), but none inside another."""
    found: Parts = {}
    for path, node in tree.walk(root):
        own = set(tree.fields_of(node))
        fits = own == set(names) if isinstance(node, Mapping) else own >= set(names)
        if fits and not any(path[: len(above)] == above for above in found):
            found[path] = tree.fields_of(node)
    return found


def _find_parts(root: Any) -> tuple[Parts, Parts]:
    """Return the states of Amos, and the averages that are not of masked leaves alone: somebody else's."""
    amos = _find(root, _AMOS)
    if not amos:
        kinds = [f"{type(node).__name__} at {_at(path)}" for path, node in tree.walk(root) if _is_named(path, node)]
        words = ", ".join(kinds[:8]) + ", ..." * (len(kinds) > 8)
        raise StateError(f"the optax state has 0 parts that are a state with count, v and b; there is {words}")
    masked, emas = _find_masked(amos), _find(root, _EMA)
    theirs = {path: set(tree.flatten_any(part["ema"], "ema")) for path, part in emas.items()}
    return amos, {path: part for path, part in emas.items() if not theirs[path] or theirs[path] - masked}


def _find_masked(amos: Parts) -> set[str]:
    """Return the names of the leaves that no state of Amos has, because optax put a MaskedNode there."""
    nodes = [item for part in amos.values() for item in tree.walk(part["v"])]
    masked = {tree.name_of(path) for path, node in nodes if type(node).__name__ == "MaskedNode"}
    return masked - {tree.name_of(path) for path, node in nodes if tree.children_of(node) is None}


def _merge(parts: Parts, field: str) -> dict[str, Any]:
    """Return the leaves of this field of all parts; raise StateError if two parts have the same leaf."""
    merged: dict[str, tuple[tree.Path, Any]] = {}
    for path, part in parts.items():
        for name, leaf in tree.flatten_any(part[field], f"opt_state.{field}").items():
            if name in merged:
                what = "an ema" if field == "ema" else "a state with count, v and b"
                where = f"both {_at(merged[name][0])} and {_at(path)} have leaf {name!r}"
                raise StateError(f"the optax state has {len(parts)} parts that are {what}, and {where}")
            merged[name] = path, leaf
    return {name: leaf for name, (_, leaf) in merged.items()}


def _fill_leaves(arrays: Arrays, like: Any, part: str) -> Any:
    """Return a tree like this one with these arrays, of its leaves' shapes, rounded to their dtypes."""

    def fill(path: tree.Path, old: Any) -> Any:
        a = arrays[tree.name_of(path)]
        if a.shape != old.shape:
            words = f"state.{'m' if part == 'ema' else part} of leaf {tree.name_of(path)!r}"
            raise ShapeError(f"{words} has shape {a.shape}; like has shape {old.shape}")
        return _as_array_of(old, as_dtype(a, np.dtype(old.dtype)))

    return tree.replace_parts(like, {path for path, leaf in tree.walk(like) if tree.children_of(leaf) is None}, fill)


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


# torch


def _split_state_dict(state_dict: Any) -> tuple[list[Mapping[str, Any]], Mapping[Any, Any]]:
    """Return the groups and the state of each parameter."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        words = f"a dict of {', '.join(map(repr, state_dict))}" if isinstance(state_dict, Mapping) else repr(state_dict)
        raise StateError(f"{words:.80} is no state_dict of an optimizer: it must have state and param_groups")
    groups, own = state_dict["param_groups"], state_dict["state"]
    if not isinstance(own, Mapping) or not isinstance(groups, list | tuple):
        kinds = f"{type(own).__name__} and {type(groups).__name__}"
        raise StateError(f"state and param_groups of the state_dict are {kinds}; they must be a dict and a list")
    try:
        for group in groups:
            if not all(isinstance(group.get(part, ()), list | tuple) for part in ("params", "param_names")):
                raise TypeError("params or param_names is no list")
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
            raise StateError(
                f"the state_dict has no state of leaf {name!r}, which never had a gradient; give like=params"
            )
        theta = check_array(thetas[name], f"like leaf {name!r}")
        # Minus 0, since the average changes its sign.
        return np.full(theta.shape, -0.0, theta.dtype) if field == "exp_avg" else np.zeros((), theta.dtype)
    if field not in own:
        raise StateError(f"the state_dict has no {field} of leaf {name!r}; it has {', '.join(map(str, own))}")
    tensor = own[field]
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


# both


def _as_array(a: Any, where: str) -> np.ndarray:
    """Return a NumPy copy of an array of any library."""
    try:
        copied = np.array(a)
    except Exception as error:  # whatever another library raises
        pass_on(error)
        raise DtypeError(f"{where} is of type {type(a).__name__}, not an array: {error}") from None
    if copied.dtype == object:
        raise DtypeError(f"{where} is of type {type(a).__name__}, not an array")
    return copied


def _as_count(value: Any) -> int:
    if (count := as_count(value)) is None:
        raise StateError(f"the count is {value!r:.60}; it must be an integer >= 0")
    return count


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
