"""From trees of parameters to named leaves and back. A leaf's name is its path, as in "dense/0/kernel"."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
import optree

from amos_ref.errors import TreeError, list_some

DEEPEST = 100  # containers in containers of other libraries
Path = tuple[Any, ...]  # the keys that lead to a part of a tree


def flatten(tree: Any, what: str = "params") -> dict[str, Any]:
    """Return ``{name: leaf}`` in the tree's order; None counts as a leaf.

    Parameters
    ----------
    tree : array or nested dict, list, tuple, namedtuple, dataclass or mapping of arrays
        A single array is a tree of one leaf, named "". Fields of a dataclass that equinox or flax call static are
        passed over.
    what : str
        The name of the tree in an error message.

    Raises
    ------
    TreeError
        If two leaves have the same name, as in ``{"a": {"b": x}, "a/b": y}``, or the nesting has no end.

    Examples
    --------
    >>> from amos_ref.tree import flatten
    >>> flatten({"dense": {"kernel": 1.0, "bias": 2.0}, "scales": [3.0]})
    {'dense/bias': 2.0, 'dense/kernel': 1.0, 'scales/0': 3.0}
    """
    try:
        leaves, structure = optree.tree_flatten(tree, none_is_leaf=True)
        names = names_of(structure)
        if any(map(_holds_more, leaves)):
            found = [(name_of(path), leaf) for path, leaf in walk(tree) if is_leaf(leaf)]
            names, leaves = [name for name, _ in found], [leaf for _, leaf in found]
    except (RecursionError, TreeError):
        raise TreeError(f"{what}: nested too deeply, or within itself") from None
    named: dict[str, Any] = {}
    for name, leaf in zip(names, leaves, strict=True):
        if name in named:
            raise TreeError(f"{what}: two leaves are named {name!r}")
        named[name] = leaf
    return named


@functools.lru_cache(maxsize=16)
def names_of(structure: Any) -> tuple[str, ...]:
    """Return the names of the leaves of a structure: keys, fields and numbers, joined by "/"."""
    paths = structure.paths()
    if not any(isinstance(key, int) for path in paths for key in path):
        return tuple(map(name_of, paths))
    fields = optree.NamedTupleEntry
    return tuple(
        "/".join(str(e.field if isinstance(e, fields) else e.entry) for e in path) for path in structure.accessors()
    )


def is_leaf(node: Any) -> bool:
    """Say whether a part of a tree is a leaf, and not a container of any library."""
    return isinstance(node, np.ndarray) or hasattr(node, "__array__") or children_of(node) is None


def _holds_more(leaf: Any) -> bool:
    """Say whether a leaf of optree is really a container of another library."""
    return type(leaf) is not np.ndarray and not is_leaf(leaf)


def present(tree: Any, what: str = "params") -> dict[str, Any]:
    """Return ``{name: leaf}`` without the leaves that are None; a tree that is None itself is a leaf."""
    return {name: leaf for name, leaf in flatten(tree, what).items() if leaf is not None or tree is None}


def unflatten(named: dict[str, Any], like: Any) -> Any:
    """Return a tree of the form of `like` whose leaves are the values of `named`, in `like`'s order.

    A leaf of `like` that is None, and that `named` lacks, stays None.
    """
    leaves, structure = optree.tree_flatten(like, none_is_leaf=True)
    if any(map(_holds_more, leaves)):
        return _refill(named, like)
    if len(named) != len(leaves):
        named = {name: named.get(name, leaf) for name, leaf in zip(names_of(structure), leaves, strict=True)}
    return optree.tree_unflatten(structure, named.values())


def _refill(named: dict[str, Any], node: Any, path: Path = ()) -> Any:
    if is_leaf(node):
        return named.get(name_of(path), node)
    children = children_of(node) or {}
    return rebuild(node, {key: _refill(named, child, (*path, key)) for key, child in children.items()})


def match(named: dict[str, Any], like: dict[str, Any], what: str) -> dict[str, Any]:
    """Return `named` in the order of `like`.

    Raises
    ------
    TreeError
        If a leaf is missing from `named` or extra in it; the message lists the first of them, and counts the others.
    """
    missing = [name for name in like if name not in named]
    extra = [name for name in named if name not in like]
    if missing or extra:
        both = {"missing": missing, "extra": extra}
        parts = [f"{word} {list_some(map(repr, names))}" for word, names in both.items() if names]
        raise TreeError(f"{what} do not match params: {'; '.join(parts)}")
    return {name: named[name] for name in like}


# Trees of other libraries, which hold mappings and dataclasses of their own.


def children_of(node: Any) -> dict[Any, Any] | None:
    """Return what a container holds by its keys, which are numbers for a list; return None if it is no container."""
    if isinstance(node, Mapping):
        return dict(node)
    if isinstance(node, tuple | list):
        return dict(zip(getattr(node, "_fields", range(len(node))), node, strict=True))
    if (own := _registered(node)) is not None:
        children, _, *keys = own.flatten_func(node)
        children = tuple(children)
        return dict(zip(keys[0] if keys and keys[0] is not None else range(len(children)), children, strict=True))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node) if not _is_static(field)}
    return None


def _registered(node: Any) -> Any:
    """Return how to take apart a type that was registered with optree in a namespace: there is no public way to ask."""
    if isinstance(node, np.ndarray):
        return None
    known = getattr(getattr(optree, "registry", None), "_NODETYPE_REGISTRY", {})
    found = [known[key] for key in known if isinstance(key, tuple) and key[1] is type(node)]
    return found[0] if len(found) == 1 else None


def _is_static(field: dataclasses.Field) -> bool:
    """Say whether equinox or flax mark a field as one that holds no arrays."""
    return bool(field.metadata.get("static")) or field.metadata.get("pytree_node") is False


def fields_of(node: Any) -> dict[str, Any]:
    """Return what a container holds by its names; lists and plain tuples have none."""
    if isinstance(node, tuple | list):
        return dict(zip(getattr(node, "_fields", ()), node, strict=False))
    return children_of(node) or {}


def rebuild(node: Any, children: dict[Any, Any]) -> Any:
    """Return a container of the same kind that holds these children instead."""
    if isinstance(node, dict):
        new = copy.copy(node)
        new.update(children)
        return new
    if isinstance(node, Mapping):
        return type(node)(children)  # pyright: ignore[reportCallIssue]
    if isinstance(node, tuple | list):
        return type(node)(*children.values()) if hasattr(node, "_fields") else type(node)(children.values())
    if (own := _registered(node)) is not None:
        return own.unflatten_func(own.flatten_func(node)[1], tuple(children.values()))
    new = copy.copy(node)  # an __init__ of its own need not take its fields
    for name, child in children.items():
        object.__setattr__(new, name, child)
    return new


def walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every container and leaf with its path, a container before what it holds."""
    if len(path) > DEEPEST:
        raise TreeError("nested too deeply, or within itself")
    yield path, node
    for key, child in (children_of(node) or {}).items():
        yield from walk(child, (*path, key))


def replace_parts(node: Any, parts: Container[Path], change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return the same tree with ``change(path, part)`` in place of each part whose path is in `parts`."""
    if path in parts:
        return change(path, node)
    children = children_of(node) or {}
    new = {key: replace_parts(child, parts, change, (*path, key)) for key, child in children.items()}
    return node if all(new[key] is child for key, child in children.items()) else rebuild(node, new)


def name_of(path: Path) -> str:
    return "/".join(map(str, path))


def flatten_any(leaves: Any, what: str) -> dict[str, Any]:
    """Return the leaves by name, as :func:`amos_ref.tree.present` does, from the containers of any state."""
    named = {}
    for path, leaf in walk(leaves):
        if leaf is not None and children_of(leaf) is None:
            if name_of(path) in named:
                raise TreeError(f"{what}: two leaves are named {name_of(path)!r}")
            named[name_of(path)] = leaf
    return named
