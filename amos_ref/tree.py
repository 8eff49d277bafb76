"""Parameter trees to named leaves and back. A leaf's name is its path joined by "/", as in "dense/0/kernel"."""

from typing import Any

import optree

from amos_ref.errors import TreeError


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


def unflatten(named: dict[str, Any], like: Any) -> Any:
    """Return a tree of the form of `like` whose leaves are the values of `named`, in `like`'s order."""
    return optree.tree_unflatten(optree.tree_structure(like, none_is_leaf=True), named.values())


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
