"""Trees and names: nested containers, collisions, missing and extra leaves."""

import collections
import re

import numpy as np
import pytest

import amos_ref
from amos_ref import tree
from amos_ref.errors import TreeError

Pair = collections.namedtuple("Pair", "left right")


def test_names_are_paths():
    nested = {"a": {"b": [10, 11], "c": (12,)}, "d": Pair(13, {"e": 14}), "f": None}
    names = {"a/b/0": 10, "a/b/1": 11, "a/c/0": 12, "d/left": 13, "d/right/e": 14, "f": None}
    assert tree.flatten(nested) == names


def test_one_array_is_a_tree_of_one_nameless_leaf():
    a = np.ones(3)
    assert list(tree.flatten(a)) == [""]
    assert tree.flatten(a)[""] is a


@pytest.mark.parametrize("empty", [{}, [], ()])
def test_empty_trees_have_no_leaves(empty):
    opt = amos_ref.Amos(0.1, 0.5)
    state = opt.init(empty)
    assert tree.flatten(empty) == state.v == {}
    assert opt.step(empty, empty, state).count == 1


COLLISIONS = [
    ({"a": {"b": 1}, "a/b": 2}, "a/b"),
    ({"a": [1, 2], "a/1": 3}, "a/1"),
    ({1: 1, "1": 2}, "1"),
    ({"": 1, "b": {"": 2}, "b/": 3}, "b/"),
]


@pytest.mark.parametrize(("colliding", "name"), COLLISIONS)
def test_collisions_are_named(colliding, name):
    with pytest.raises(TreeError, match=re.escape(repr(name))):
        tree.flatten(colliding)


def test_unflatten_restores_the_form():
    nested = {"z": [1, (2, 3)], "a": {"k": 4}, "none": None, "pair": Pair(5, 6)}
    named = tree.flatten(nested)
    back = tree.unflatten({name: value and value * 10 for name, value in named.items()}, nested)
    assert back == {"z": [10, (20, 30)], "a": {"k": 40}, "none": None, "pair": Pair(50, 60)}
    assert isinstance(back["pair"], Pair)


def test_match_brings_the_order_of_the_other():
    assert list(tree.match({"b": 1, "a": 2}, {"a": 0, "b": 0}, "grads")) == ["a", "b"]


def test_match_lists_every_missing_and_extra_leaf():
    with pytest.raises(TreeError) as error:
        tree.match({"a": 1, "x": 2, "y": 3}, {"a": 1, "b/0": 2, "c": 3}, "grads")
    assert str(error.value) == "grads do not match params: missing 'b/0', 'c'; extra 'x', 'y'"


def test_the_list_of_missing_leaves_has_an_end():
    with pytest.raises(TreeError) as error:
        tree.match({}, dict.fromkeys(map(str, range(10000))), "grads")
    assert str(error.value).startswith("grads do not match params: missing '0', '1', '2', ")
    assert str(error.value).endswith(", '19' and 9980 more")


def test_containers_of_another_kind_with_the_same_names_match():
    params = {"w": [np.ones(2), np.ones(3)]}
    grads = {"w": (np.ones(2), np.ones(3))}
    opt = amos_ref.Amos(0.1, 0.5)
    updates, _ = opt.update(grads, opt.init(params), params)
    assert isinstance(updates["w"], list)
