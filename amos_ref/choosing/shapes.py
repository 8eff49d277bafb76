"""Names and shapes of a tree of arrays, or of shapes."""

import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import optree

from amos_ref import tree
from amos_ref.dtypes import Shape
from amos_ref.errors import DtypeError, ShapeError, TreeError
from amos_ref.outside import pass_on

MOST_AXES = 64


class Described(NamedTuple):
    """What choose knows of a leaf."""

    shape: Shape
    trains: bool  # whether its numbers are floats, as far as they are known
    place: Any  # where its numbers lie, the same of arrays that are tied; None of a shape


class _Shaped:
    """A shape as a leaf of a tree."""

    __slots__ = ("shape",)

    def __init__(self, shape: Any) -> None:
        self.shape = shape


def _is_shape(node: Any) -> bool:
    """Whether a part of a tree is a shape: a tuple or list of integers, perhaps none."""
    if not isinstance(node, tuple | list) or hasattr(node, "_fields"):
        return False
    return {type(n) for n in node} <= {int} or all(isinstance(n, np.integer) for n in node)


def _is_meant_as_shape(node: Any) -> bool:
    """Whether a part of a tree is a shape, or a list of numbers that is none but has an integer."""
    if _is_shape(node):
        return True
    if not isinstance(node, tuple | list) or hasattr(node, "_fields"):
        return False
    kinds = {type(n) for n in node}
    return int in kinds and kinds <= {int, float, bool, str, type(None)}


def _shape_leaves(params: Any) -> Any:
    """Return the tree with shapes as leaves, and mappings of other libraries, such as flax's, as dicts."""

    def change(leaf: Any) -> Any:
        if _is_meant_as_shape(leaf):
            return _Shaped(leaf)
        return _shape_leaves(dict(leaf)) if isinstance(leaf, Mapping) else leaf

    return optree.tree_map(change, params, is_leaf=_is_meant_as_shape)


def read_tree(params: Any) -> dict[str, Described]:
    """Return every leaf by name; raise TreeError, DtypeError or ShapeError for what is no tree of arrays or shapes."""
    if hasattr(params, "state_dict"):
        raise TreeError("params is a module; give choose its parameters, as in choose(dict(model.named_parameters()))")
    if isinstance(params, str | os.PathLike):
        raise TreeError(f"params is {str(params)!r:.60}; choose takes arrays; `amos-ref choose FILE` reads a file")
    if isinstance(params, Iterator):
        raise TreeError("params is an iterator; give a mapping, as in dict(model.named_parameters())")
    try:
        shaped = _shape_leaves(params)
    except RecursionError:
        raise TreeError("params: nested too deeply, or within itself") from None
    named = tree.flatten(shaped)
    if any(not isinstance(leaf, _Shaped) for leaf in named.values()):  # then () is a container with nothing in it
        named = {n: leaf for n, leaf in named.items() if not (isinstance(leaf, _Shaped) and not leaf.shape)}
    if isinstance(params, Mapping) and {str(key) for key in params} >= set(named):  # the order in which it was written
        named = {str(key): named[str(key)] for key in params if str(key) in named}
    found = {name: _describe(name, leaf) for name, leaf in named.items() if leaf is not None}
    if not found:
        raise TreeError("params holds no arrays and no shapes")
    return found


def _describe(name: str, leaf: Any) -> Described:
    if isinstance(leaf, _Shaped):
        if not _is_shape(leaf.shape):
            wrong = next(n for n in leaf.shape if type(n) is not int)
            raise DtypeError(f"leaf {name!r} has shape {leaf.shape!r:.60}, of which {wrong!r:.30} is not an integer")
        return Described(as_shape(name, leaf.shape), True, None)
    shape = getattr(leaf, "shape", None)
    if shape is None or isinstance(leaf, type):
        raise DtypeError(f"leaf {name!r} is {leaf!r:.60}, which has no shape; choose takes arrays, or shapes as (3, 4)")
    kind = str(getattr(leaf, "dtype", "float"))
    return Described(as_shape(name, shape), "float" in kind, _place(leaf))


def as_shape(name: str, shape: Any) -> Shape:
    """Return the shape of a leaf as a tuple of int; raise ShapeError if it is none."""
    try:
        sizes = tuple(map(operator.index, shape))
    except Exception as error:  # whatever somebody's own type raises
        pass_on(error)
        raise ShapeError(f"leaf {name!r} has shape {shape!r:.60}; it must be a sequence of integers") from None
    if len(sizes) > MOST_AXES or min(sizes, default=0) < 0:
        raise ShapeError(f"leaf {name!r} has shape {sizes!s:.60}; it must be up to {MOST_AXES} integers >= 0")
    return sizes


def _place(leaf: Any) -> Any:
    """Return where the numbers of an array lie, where that can be asked."""
    if isinstance(leaf, np.ndarray):
        return leaf.__array_interface__["data"][0] if leaf.size else id(leaf)
    try:
        return leaf.data_ptr() or id(leaf)
    except Exception as error:  # not of torch, or without numbers
        pass_on(error)
        return id(leaf)
