"""What amos_ref needs of optree, in plain Python, for a GPU machine that has no optree and no network.

tests/gpu/run.py puts it on the path where optree cannot be imported; tests/test_standin.py compares the two.
"""

from collections import OrderedDict, defaultdict, deque
from typing import NamedTuple


class Spec(NamedTuple):
    """How a tree is built: of a leaf, `kind` is None."""

    kind: object
    entries: tuple = ()  # keys, or indices
    children: tuple = ()
    detail: object = None  # the default_factory or the maxlen
    written: "Written" = None

    @property
    def num_leaves(self):
        return 1 if self.kind is None else sum(child.num_leaves for child in self.children)

    def accessors(self):
        """Return for each leaf what leads to it."""
        if self.kind is None:
            return [()]
        names = getattr(self.kind, "_fields", ())
        steps = [NamedTupleEntry(i, names[i]) if names else Entry(i) for i in self.entries]
        return [(step, *rest) for step, child in zip(steps, self.children, strict=False) for rest in child.accessors()]

    def paths(self):
        """Return the same as keys and indices."""
        return [tuple(step.entry for step in accessor) for accessor in self.accessors()]


class Entry(NamedTuple):
    """A key, or an index."""

    entry: object


class NamedTupleEntry(NamedTuple):
    """The index and the name of a field."""

    entry: int
    field: str


class Written:
    """In which order the keys of a dict were written: kept, and the same as any other."""

    def __init__(self, keys):
        self.keys = keys

    def __eq__(self, other):
        return isinstance(other, Written)

    def __hash__(self):
        return 0


def tree_flatten(tree, *, none_is_leaf=False):
    """Return (leaves, structure)."""
    _, leaves, spec = tree_flatten_with_path(tree, none_is_leaf=none_is_leaf)
    return leaves, spec


def tree_flatten_with_path(tree, *, none_is_leaf=False):
    """Return (paths, leaves, structure)."""
    paths, leaves = [], []
    return paths, leaves, _flatten(tree, none_is_leaf, (), paths, leaves)


def tree_leaves(tree, *, none_is_leaf=False):
    """Return the leaves."""
    return tree_flatten(tree, none_is_leaf=none_is_leaf)[0]


def tree_structure(tree, *, none_is_leaf=False):
    """Return the structure."""
    return tree_flatten(tree, none_is_leaf=none_is_leaf)[1]


def tree_unflatten(spec, leaves):
    """Return a tree of this structure."""
    leaves = list(leaves)
    if len(leaves) != spec.num_leaves:
        raise ValueError(f"there are {len(leaves)} leaves, and there must be {spec.num_leaves}")
    return _unflatten(spec, iter(leaves))


def tree_map(fn, tree, *rest, none_is_leaf=False):
    """Return the tree of what `fn` makes of the leaves."""
    leaves, spec = tree_flatten(tree, none_is_leaf=none_is_leaf)
    return tree_unflatten(spec, map(fn, leaves, *(tree_leaves(other, none_is_leaf=none_is_leaf) for other in rest)))


def _flatten(node, none_is_leaf, path, paths, leaves):
    kind = type(node)
    named = isinstance(node, tuple) and hasattr(kind, "_fields")
    if kind in (dict, OrderedDict, defaultdict):
        entries = tuple(node) if kind is OrderedDict else tuple(_in_order(list(node)))
        detail, written = getattr(node, "default_factory", None), None if kind is OrderedDict else Written(list(node))
    elif kind in (list, tuple, deque) or named:
        entries, detail, written = tuple(range(len(node))), getattr(node, "maxlen", None), None
    elif node is None and not none_is_leaf:
        return Spec(type(None))
    else:
        paths.append(path)
        leaves.append(node)
        return Spec(None)
    children = [_flatten(node[entry], none_is_leaf, (*path, entry), paths, leaves) for entry in entries]
    return Spec(kind, entries, tuple(children), detail, written)


def _in_order(keys):
    """Sort keys, those of different types by the types' names, as far as they can be compared."""
    for rank in (None, lambda key: (f"{type(key).__module__}.{type(key).__qualname__}", key)):
        try:
            return sorted(keys, key=rank)
        except TypeError:
            pass
    return keys


def _unflatten(spec, leaves):
    if spec.kind is None:
        return next(leaves)
    if spec.kind is type(None):
        return None
    found = [_unflatten(child, leaves) for child in spec.children]
    if spec.kind in (dict, OrderedDict, defaultdict):
        pairs = dict(zip(spec.entries, found, strict=True))
        pairs = {key: pairs[key] for key in (spec.written.keys if spec.written else spec.entries)}
        return defaultdict(spec.detail, pairs) if spec.kind is defaultdict else spec.kind(pairs)
    if spec.kind is deque:
        return deque(found, spec.detail)
    return spec.kind(*found) if hasattr(spec.kind, "_fields") else spec.kind(found)
