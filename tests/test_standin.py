"""The stand-in for optree, for a GPU machine that lacks it, does as optree does."""

import importlib.util
import pathlib
from collections import OrderedDict, defaultdict, deque
from typing import NamedTuple

import numpy as np
import optree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amos_ref.optimizers.state import AmosState

PATH = pathlib.Path(__file__).parent / "gpu/standin/optree.py"
FUNCTIONS = (
    *("tree_flatten", "tree_flatten_with_path", "tree_leaves", "tree_structure", "tree_unflatten", "tree_map"),
    "NamedTupleEntry",
)


def loaded():
    spec = importlib.util.spec_from_file_location("standin", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


standin = loaded()


class Pair(NamedTuple):
    first: object
    second: object


keys = st.one_of(st.text("ab/", max_size=2), st.integers(-2, 11), st.booleans(), st.tuples(st.integers(0, 2)))
leaves = st.one_of(st.integers(0, 9), st.none())
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.dictionaries(keys, inner, max_size=3).map(lambda d: defaultdict(list, d)),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda a: deque(a, 4)),
        st.tuples(inner, inner).map(lambda a: Pair(*a)),
    ),
    max_leaves=8,
)


@given(trees, st.booleans())
def test_leaves_paths_and_the_way_back_are_optrees(tree, none_is_leaf):
    theirs = optree.tree_flatten_with_path(tree, none_is_leaf=none_is_leaf)
    ours = standin.tree_flatten_with_path(tree, none_is_leaf=none_is_leaf)
    assert ours[:2] == theirs[:2]
    assert standin.tree_flatten(tree, none_is_leaf=none_is_leaf)[0] == theirs[1]
    assert ours[2].paths() == theirs[2].paths() == theirs[0]
    steps = [
        [[(step.entry, getattr(step, "field", None)) for step in accessor] for accessor in spec.accessors()]
        for spec in (ours[2], theirs[2])
    ]
    assert steps[0] == steps[1]
    assert hash(ours[2]) == hash(standin.tree_structure(tree, none_is_leaf=none_is_leaf))
    numbers = range(len(ours[1]))
    back = standin.tree_unflatten(ours[2], numbers)
    assert repr(back) == repr(optree.tree_unflatten(theirs[2], numbers))
    assert repr(standin.tree_unflatten(ours[2], ours[1])) == repr(tree)


@given(trees, trees, st.booleans())
def test_structures_are_equal_where_optrees_are(one, other, none_is_leaf):
    pairs = [(one, other), (one, one), (one, optree.tree_map(lambda leaf: 7, one, none_is_leaf=none_is_leaf))]
    for a, b in pairs:
        same = [m.tree_structure(a, none_is_leaf=none_is_leaf) for m in (optree, standin)]
        others = [m.tree_structure(b, none_is_leaf=none_is_leaf) for m in (optree, standin)]
        assert (same[0] == others[0]) == (same[1] == others[1]), (a, b)


def test_a_dict_written_in_another_order_has_the_same_structure():
    for module in (optree, standin):
        assert module.tree_structure({"a": 1, "b": 2}) == module.tree_structure({"b": 1, "a": 2})
        assert module.tree_structure(OrderedDict(a=1, b=2)) != module.tree_structure(OrderedDict(b=1, a=2))


def test_arrays_states_and_trees_without_end():
    array, endless = np.zeros(3), []
    endless.append(endless)
    for module in (optree, standin):
        assert module.tree_leaves(AmosState(0, {"w": array}, {}, None), none_is_leaf=True)[1] is array
        assert module.tree_map(lambda x, y: x + y, {"a": 1, "b": [2]}, {"b": [3], "a": 4}) == {"a": 5, "b": [5]}
        with pytest.raises(RecursionError):
            module.tree_leaves(endless)
        with pytest.raises(ValueError, match="leaves"):
            module.tree_unflatten(module.tree_structure([1, 2]), [1])


def test_all_that_amos_ref_asks_of_optree_is_there():
    used = set()
    for path in pathlib.Path(standin.__file__).parents[3].glob("amos_ref/**/*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            used.update(part.split("(")[0] for part in line.split("optree.")[1:])
    assert {"tree_flatten", "tree_unflatten"} <= used <= set(FUNCTIONS)
    assert all(hasattr(standin, name) for name in FUNCTIONS)
