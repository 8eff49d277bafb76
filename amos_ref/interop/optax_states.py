"""States under optax: of :mod:`amos_ref.ports.optax`, and of the authors' ``amos`` (jestimator)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays
from amos_ref.dtypes import as_dtype
from amos_ref.errors import MissingDependencyError, ShapeError, StateError
from amos_ref.interop.parts import Kept, as_array, build, check_optional, read_count
from amos_ref.optimizers.state import PARTS, AmosState, ClosedFormState, as_count
from amos_ref.optimizers.turn import check_unused

#: The containers that hold a state of each kind: their fields.
_FIELDS = {AmosState: ("count", "v", "b"), ClosedFormState: ("count", "sigma", "m", "v")}
_EMA, _MULTI_STEPS = ("count", "ema"), ("mini_step", "acc_grads")

Parts = dict[tree.Path, dict[str, Any]]  # parts of an optax state, each with its fields by name


def from_optax(opt_state: Any, params: Any, state_dtype: str = "param") -> Any:
    """Return the state of Amos, or of the closed form, that an optax state holds.

    Parameters
    ----------
    opt_state : state with count, v, b (and m), or with count, sigma, m, v; or containers with some in them
        The first is the state of ``amos``. This package's port has an m in it, which is None without momentum. The
        authors' code (jestimator) has none, and its momentum is the ``ema`` of the chain, if there is one. The second
        is the state of the closed form, whose m and v are None unless the direction is Adam's. Either may stand alone
        or inside ``optax.chain``, ``masked``, ``partition`` and the like. Containers are tuples, lists, mappings and
        dataclasses. Several states of a kind become one if no leaf is in two of them, as under ``partition``.
    params : tree of arrays
        Arrays of JAX or NumPy in such containers, without the leaves that are masked.
    state_dtype : {"param", "float64"}
        "param" keeps the dtypes of the arrays. "float64" converts them, which is exact. A ClosedFormState is always
        float64.

    Returns
    -------
    AmosState or ClosedFormState
        The state, with new arrays by the names of the leaves.

    Raises
    ------
    StateError, TreeError
        If there is no such state, or one of each kind; if several have a leaf in common or differ in their counts; if
        gradients are being accumulated; or if the state does not fit `params`. The error names the leaf, or says what
        was found and where.
    """
    kind, amos, emas = _find_parts(opt_state)
    for path, node in tree.walk(opt_state):
        if set(_MULTI_STEPS) <= set(tree.fields_of(node)) and as_count(tree.fields_of(node)["mini_step"]) != 0:
            where = f"{type(node).__name__} at {_at(path)}"
            raise StateError(f"{where} holds gradients of a step that is not whole, which {kind.__name__} cannot hold")
    counts = {path: read_count(part["count"]) for path, part in amos.items()}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{count} at {_at(path)}" for path, count in counts.items())
        raise StateError(f"parts of the optax state differ in their counts: {words}; {kind.__name__} has one for all")
    leaves = tree.flatten_any(params, "params")
    thetas = {n: a if hasattr(a, "shape") else as_array(a, f"params leaf {n!r}") for n, a in leaves.items()}
    if lost := [name for name in thetas if name in _find_masked(amos)]:
        raise StateError(f"the optax state has a MaskedNode for leaf {lost[0]!r}; give params without such leaves")
    arrays = {}
    for part, (found, field) in _find_sources(kind, amos, emas).items():
        leaves = tree.match(_merge(found, field), thetas, f"opt_state.{field}")
        arrays[part] = {name: as_array(a, f"opt_state.{field} of leaf {name!r}") for name, a in leaves.items()}
    count = next(iter(counts.values()))
    return build(kind, count, arrays, thetas, state_dtype)


def to_optax(state: Kept, like: Any) -> Any:
    """Return an optax state in the form of `like` that holds this state.

    Parameters
    ----------
    state : AmosState or ClosedFormState
        The state that is converted.
    like : optax state
        A state as ``init(params)`` returns it, in any containers that :func:`from_optax` knows. Its counts and arrays
        (v, b and m or ema; or sigma, m and v) are replaced by those of `state`, rounded once to their dtypes.
        Everything else stays as it is.

    Returns
    -------
    optax state
        Of the form of `like`, which is not changed.

    Raises
    ------
    StateError, ShapeError, TreeError
        If `like` is of the other kind, if it has other leaves, shapes, momentum or moments than `state`, or if its
        counter cannot hold the count.
    """
    check_unused(state)
    kind, amos, emas = _find_parts(like)
    if not isinstance(state, kind):
        raise StateError(f"the state is of type {type(state).__name__} but like holds one of type {kind.__name__}")
    sources = _find_sources(kind, amos, emas)
    check_optional(state, "m" in sources, "like")
    new: dict[str, Arrays] = {}
    for part, (found, field) in sources.items():
        new[field] = getattr(state, part)
        tree.match(new[field], _merge(found, field), f"leaves of state.{part}")

    def replace(path: tree.Path, part: Any) -> Any:
        own = tree.fields_of(part)
        changed: dict[str, Any] = {name: _fill_leaves(new[name], own[name], name) for name in new if name in own}
        return tree.rebuild(part, own | changed | {"count": _fill_count(state.count, own["count"])})

    return tree.replace_parts(like, amos | emas, replace)


def _at(path: tree.Path) -> str:
    return "".join(["opt_state", *(f"[{key!r}]" for key in path)])


def _is_named(path: tree.Path, node: Any) -> bool:
    """Whether this is the whole tree, or a container with a type of its own."""
    return path == () or hasattr(node, "_fields") or dataclasses.is_dataclass(node)


def _find(root: Any, names: tuple[str, ...]) -> Parts:
    """Return every container that has these fields (of a mapping: no others, but an m), but none inside another."""
    found: Parts = {}
    for path, node in tree.walk(root):
        own = set(tree.fields_of(node))
        fits = own >= set(names) and not (isinstance(node, Mapping) and own - {*names, "m"})
        if fits and not any(path[: len(above)] == above for above in found):
            found[path] = tree.fields_of(node)
    return found


def _find_parts(root: Any) -> tuple[type, Parts, Parts]:
    """Return the kind of state, the parts that hold it, and the averages that are its momentum: those of a chain.

    A part with an m needs none. What averages leaves that are masked for Amos belongs to something else.
    """
    kinds = {kind: found for kind, fields in _FIELDS.items() if (found := _find(root, fields))}
    if len(kinds) > 1:
        words = " and ".join(
            f"one of type {kind.__name__} at {_at(next(iter(found)))}" for kind, found in kinds.items()
        )
        raise StateError(f"the optax state has {words}; give the part that holds one of them")
    if not kinds:
        kinds = [f"{type(node).__name__} at {_at(path)}" for path, node in tree.walk(root) if _is_named(path, node)]
        words = ", ".join(kinds[:8]) + ", ..." * (len(kinds) > 8)
        wanted = f"a state with {' or with '.join(map(_list_fields, _FIELDS.values()))}"
        raise StateError(f"the optax state has 0 parts that are {wanted}; there is {words}")
    ((kind, amos),) = kinds.items()
    masked = _find_masked(amos)
    emas = {} if any("m" in part for part in amos.values()) else _find(root, _EMA)
    theirs = {path: set(tree.flatten_any(part["ema"], "ema")) for path, part in emas.items()}
    return kind, amos, {path: part for path, part in emas.items() if not theirs[path] or theirs[path] - masked}


def _find_sources(kind: type, amos: Parts, emas: Parts) -> dict[str, tuple[Parts, str]]:
    """Return for each part of a state, but the count, the containers that hold it, and the field that it is there."""
    sources = {part: (amos, part) for part in PARTS[kind].always}
    if emas:
        return sources | {"m": (emas, "ema")}
    entries = PARTS[kind].entries
    averaged = {path: [part.get(field) is not None for field in entries] for path, part in amos.items()}
    if len({has for each in averaged.values() for has in each}) > 1:
        each = {path: " and ".join(map("{} {}".format, entries, has)) for path, has in averaged.items()}
        words = f"{PARTS[kind].optional.split()[0]}: {', '.join(f'{has} at {_at(path)}' for path, has in each.items())}"
        raise StateError(f"parts of the optax state differ in having {words}; {kind.__name__} has all or none")
    return sources | {part: (amos, part) for part in entries if next(iter(averaged.values()))[0]}


def _find_masked(amos: Parts) -> set[str]:
    """Return the names of the leaves that no state of Amos has, because optax put a MaskedNode there."""
    nodes = [item for part in amos.values() for item in tree.walk(part.get("sigma", part["v"]))]
    masked = {tree.name_of(path) for path, node in nodes if type(node).__name__ == "MaskedNode"}
    return masked - {tree.name_of(path) for path, node in nodes if tree.children_of(node) is None}


def _merge(parts: Parts, field: str) -> dict[str, Any]:
    """Return the leaves of this field of all parts; raise StateError if two parts have the same leaf."""
    merged: dict[str, tuple[tree.Path, Any]] = {}
    for path, part in parts.items():
        for name, leaf in tree.flatten_any(part[field], f"opt_state.{field}").items():
            if name in merged:
                what = "an ema" if field == "ema" else f"a state with {_list_fields(parts[path])}"
                where = f"both {_at(merged[name][0])} and {_at(path)} have leaf {name!r}"
                raise StateError(f"the optax state has {len(parts)} parts that are {what}, and {where}")
            merged[name] = path, leaf
    return {name: leaf for name, (_, leaf) in merged.items()}


def _list_fields(part: Mapping[str, Any]) -> str:
    *first, last = next(fields for fields in _FIELDS.values() if set(fields) <= set(part))
    return f"{', '.join(first)} and {last}"


def _fill_leaves(arrays: Arrays, like: Any, part: str) -> Any:
    """Return a tree like this one with these arrays, of its leaves' shapes, rounded to their dtypes."""

    def fill(path: tree.Path, old: Any) -> Any:
        a = arrays[tree.name_of(path)]
        if a.shape != old.shape:
            words = f"state.{'m' if part == 'ema' else part} of leaf {tree.name_of(path)!r}"
            raise ShapeError(f"{words} has shape {a.shape}; like has shape {old.shape}")
        return _as_array_of(old, as_dtype(a, np.dtype(old.dtype)))

    leaves = {path for path, leaf in tree.walk(like) if leaf is not None and tree.children_of(leaf) is None}
    return tree.replace_parts(like, leaves, fill)


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
