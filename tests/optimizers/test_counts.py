"""States as other libraries give them back: the count is an array of shape (), or a whole number of another type."""

import copy
import io
import pickle

import numpy as np
import optree
import pytest
from helpers.attempts import Attempt
from helpers.optimizers import cases, make, members
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import errors
from amos_ref.optimizers import base


def by_savez(state):
    """Every leaf of a state through a file of NumPy's."""
    leaves, structure = optree.tree_flatten(state, none_is_leaf=False)
    file = io.BytesIO()
    np.savez(file, *leaves)
    file.seek(0)
    return optree.tree_unflatten(structure, [a.copy() for a in np.load(file).values()])


class Tensor:
    """As much of an integer of another library as is read."""

    shape, dtype = (), "torch.int64"

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


WAYS = {
    "np.savez": by_savez,
    "np.asarray": lambda state: optree.tree_map(np.array, state),
    "pickle": lambda state: pickle.loads(pickle.dumps(by_savez(state))),
    "dict": lambda state: type(state)(**{**by_savez(state)._asdict(), "count": np.uint8(state.count)}),
    "tensor": lambda state: state._replace(count=Tensor(state.count)),
}


def check_going_on(name, backend, way):
    opt, params = make(name, backend), tree_of(0)
    state = opt.step(params, tree_of(1), opt.init(params))
    again, theirs = copy.deepcopy(params), way(copy.deepcopy(state))
    assert str(opt.trace(tree_of(2), theirs, again)) == str(opt.trace(tree_of(2), state, params))
    assert all_bits(opt.update(tree_of(2), theirs, again)) == all_bits(opt.update(tree_of(2), state, params))
    for seed in (2, 3):
        state, theirs = opt.step(params, tree_of(seed), state), opt.step(again, tree_of(seed), theirs)
    assert type(theirs.count) is int
    assert all_bits((again, theirs)) == all_bits((params, state))


@cases
def test_a_state_that_comes_back_goes_on_to_the_bit(name, backend):
    for way in WAYS.values():
        check_going_on(name, backend, way)


@pytest.mark.parametrize("way", WAYS)
def test_such_a_state_is_saved(way, tmp_path):
    state = amos_ref.Amos(eta=0.5).init(tree_of(0))._replace(count=7)
    amos_ref.save_state(tmp_path / "state", WAYS[way](state))
    assert repr(amos_ref.load_state(tmp_path / "state")) == repr(state)


BAD = [np.array([5]), np.array(True), np.True_, np.array(5.0), np.array(-1), np.array("5"), "5", 2.5]


@pytest.mark.parametrize("count", BAD, ids=repr)
@members
def test_what_is_no_count_is_refused(name, count):
    attempt = Attempt(name)
    attempt.state = attempt.state._replace(count=count)
    attempt.fails(errors.StateError, ["state.count is", "it must be an integer >= 0"])


def test_counts_that_must_be_ints_would_be_noticed(monkeypatch):
    monkeypatch.setattr(base, "as_count", lambda value: value if type(value) is int else None)
    with pytest.raises(AttributeError):
        check_going_on("Amos", "numpy", WAYS["np.savez"])
