"""Parameter trees to named leaves and back. A leaf's name is its path joined by "/", as in "dense/0/kernel"."""

import copy
import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping
from typing import Any

import optree

from amos_ref.errors import TreeError

DEEPEST = 100  # containers in containers of other libraries
Path = tuple[Any, ...]  # the keys that lead to a part of a tree


def flatten(tree: Any, what: str = "params") -> dict[str, Any]:
    """Return ``{name: leaf}`` in the tree's order; None counts as a leaf.

    Parameters
    ----------
    tree : array or nested dict, list, tuple or namedtuple of arrays
        A single array is a tree of one leaf, named "".
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
        paths, leaves, _ = optree.tree_flatten_with_path(tree, none_is_leaf=True)
    except RecursionError:
        raise TreeError(f"{what}: nested too deeply, or within itself") from None
    named: dict[str, Any] = {}
    for path, leaf in zip(paths, leaves, strict=True):
        name = "/".join(map(str, path))
        if name in named:
            raise TreeError(f"{what}: two leaves are named {name!r}")
        named[name] = leaf
    return named


def present(tree: Any, what: str = "params") -> dict[str, Any]:
    """Return ``{name: leaf}`` without the leaves that are None; a tree that is None itself is a leaf."""
    return {name: leaf for name, leaf in flatten(tree, what).items() if leaf is not None or tree is None}


def unflatten(named: dict[str, Any], like: Any) -> Any:
    """Return a tree of the form of `like` whose leaves are the values of `named`, in `like`'s order.

    A leaf of `like` that is None, and that `named` lacks, stays None.
    """
    structure = optree.tree_structure(like, none_is_leaf=True)
    leaves = list(named.values())
    if len(leaves) != structure.num_leaves:
        leaves = [named.get(name, leaf) for name, leaf in flatten(like).items()]
    return optree.tree_unflatten(structure, leaves)


def match(named: dict[str, Any], like: dict[str, Any], what: str) -> dict[str, Any]:
    """Return `named` in the order of `like`.

    Raises
    ------
    TreeError
        If a leaf is missing from `named` or extra in it; the message lists them all.
    """
    missing = [name for name in like if name not in named]
    extra = [name for name in named if name not in like]
    if missing or extra:
        parts = [
            f"{word} {', '.join(map(repr, names))}" for word, names in (("missing", missing), ("extra", extra)) if names
        ]
        raise TreeError(f"{what} do not match params: {'; '.join(parts)}")
    return {name: named[name] for name in like}


# Trees of other libraries, which hold mappings and dataclasses of their own.


def children_of(node: Any) -> dict[Any, Any] | None:
    """Return what a container holds by its keys (of tuples, numbers), or None if it is none."""
    if isinstance(node, Mapping):
        return dict(node)
    if isinstance(node, tuple | list):
        return dict(enumerate(node))
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return None


def fields_of(node: Any) -> dict[str, Any]:
    """Return what a container holds by names, which lists and plain tuples do not have."""
    if isinstance(node, tuple | list):
        return dict(zip(getattr(node, "_fields", ()), node, strict=False))
    return children_of(node) or {}


def rebuild(node: Any, children: dict[Any, Any]) -> Any:
    """Return a container of the same kind that holds these instead."""
    if isinstance(node, MutableMapping):
        new = copy.copy(node)
        new.update(children)
        return new
    if isinstance(node, Mapping):
        return type(node)(children)  # pyright: ignore[reportCallIssue]
    if isinstance(node, tuple | list):
        return type(node)(*children.values()) if hasattr(node, "_fields") else type(node)(children.values())
    return dataclasses.replace(node, **children)


def walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield all containers and leaves with their paths, each container before what it holds."""
    if len(path) > DEEPEST:
        raise TreeError("nested too deeply, or within itself")
    yield path, node
    for key, child in (children_of(node) or {}).items():
        yield from walk(child, (*path, key))


def replace_parts(node: Any, parts: Container[Path], change: Callable[[Path, Any], Any], path: Path = ()) -> Any:
    """Return containers like these with ``change(path, part)`` in place of the parts at these paths."""
    if path in parts:
        return change(path, node)
    children = children_of(node) or {}
    new = {key: replace_parts(child, parts, change, (*path, key)) for key, child in children.items()}
    return node if all(new[key] is child for key, child in children.items()) else rebuild(node, new)


def name_of(path: Path) -> str:
    return "/".join(map(str, path))


def flatten_any(leaves: Any, what: str) -> dict[str, Any]:
    """Return the leaves by name, as :func:`amos_ref.tree.flatten` does, in any containers that states have."""
    named = {}
    for path, leaf in walk(leaves):
        if children_of(leaf) is None:
            if name_of(path) in named:
                raise TreeError(f"{what}: two leaves are named {name_of(path)!r}")
            named[name_of(path)] = leaf
    return named
