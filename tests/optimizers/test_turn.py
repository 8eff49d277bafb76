"""A state that was stepped in place is refused, by whoever is given it; copies are fresh."""

import copy
import pickle
import threading

import numpy as np
import optree
import pytest
from helpers.messages import one_line
from helpers.optimizers import cases, make, members, parts_of
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import errors, interop
from amos_ref.optimizers import base, turn
from amos_ref.optimizers.state import PARTS
from amos_ref.storage import checkpoint


def start(name, backend="numpy", seed=0):
    opt, params = make(name, backend), tree_of(seed)
    return opt, params, opt.step(params, tree_of(1), opt.init(params))


def refuses(call, *args, step):
    with pytest.raises(errors.StateError) as caught:
        call(*args)
    one_line(caught.value, [f"this state was stepped in place at step {step}", "the state that step returned"])


@cases
def test_a_state_that_was_stepped_is_refused_and_nothing_changes(name, backend):
    opt, params, used = start(name, backend)
    state = opt.step(params, tree_of(2), used)
    before, t = all_bits((params, used, state)), used.count + opt.first_step
    pure = make(name)
    for call in (opt.step, make(name, backend).step):
        refuses(call, params, tree_of(3), used, step=t)
    for call in (pure.update, pure.trace):
        refuses(call, tree_of(3), used, params, step=t)
    assert all_bits((params, used, state)) == before
    opt.step(params, tree_of(3), state)


@cases
def test_without_the_refusal_a_forgotten_state_would_repeat_its_step(name, backend, monkeypatch):
    monkeypatch.setattr(base, "check_unused", lambda state: None)
    monkeypatch.setattr(turn.Turn, "take", lambda self, claim: None)
    monkeypatch.setattr(turn.Turn, "give_back", lambda self, claim: None)
    ways = []
    for forgets in (False, True):
        opt, params, state = start(name, backend)
        for seed in (2, 3):
            new = opt.step(params, tree_of(seed), state)
            state = state if forgets else new
        ways.append(all_bits(params))
    assert ways[0] != ways[1]


@cases
def test_copies_are_fresh(name, backend):
    """A copy that was made before the step goes on from there; one made later says itself what it is."""
    copies = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda state: pickle.loads(pickle.dumps(state)),
        "tree_map": lambda state: optree.tree_map(lambda a: a if isinstance(a, int) else np.array(a), state),
        "replaced": lambda state: state._replace(
            **{part: {k: a.copy() for k, a in getattr(state, part).items()} for part in parts_of(state)}
        ),
    }
    for make_copy in copies.values():
        opt, params, state = start(name, backend)
        kept = copy.deepcopy(params), make_copy(state)
        new = opt.step(params, tree_of(2), state)
        again = opt.step(kept[0], tree_of(2), kept[1])
        assert all_bits((params, new)) == all_bits((kept[0], again))
        assert type(kept[1]) is type(state)
        # Of arrays that were advanced already: the caller's word for it is taken.
        opt.step(params, tree_of(3), make_copy(state))


@cases
def test_states_that_share_arrays_are_used_together(name, backend):
    shares = {
        "replaced count": lambda state: state._replace(count=7),
        "copy": copy.copy,
        "of a copy": lambda state: copy.copy(state)._replace(count=0),
    }
    for share in shares.values():
        for late in (False, True):
            opt, params, state = start(name, backend)
            other = None if late else share(state)
            opt.step(params, tree_of(2), state)
            with pytest.raises(errors.StateError, match="stepped in place"):
                opt.step(params, tree_of(2), share(state) if late else other)
        opt, params, state = start(name, backend)
        assert opt.step(params, tree_of(2), share(state)).count in (1, 2, 8)
        with pytest.raises(errors.StateError, match="stepped in place"):
            opt.step(params, tree_of(2), state)


@members
def test_update_shares_what_it_says_it_shares(name):
    """Arrays of skipped leaves are those of the old state, so that a step of one state uses the other up."""
    opt, params, state = start(name)
    some = {**tree_of(2), "scale": None}
    _, shared = opt.update(some, state, params)
    _, apart = opt.update(tree_of(2), state, params)
    opt.step(params, tree_of(2), state)
    opt.step(params, tree_of(2), apart)
    with pytest.raises(errors.StateError, match="stepped in place"):
        opt.step(params, tree_of(2), shared)


@cases
def test_a_step_that_raises_leaves_the_state_usable(name, backend):
    opt, params, state = start(name, backend)
    wrong = tree_of(2)
    wrong["scale"][-1] = np.nan
    for _ in range(2):
        with pytest.raises(errors.NonFiniteError):
            opt.step(params, wrong, state)
    opt.step(params, tree_of(2), state)


@members
def test_a_used_state_is_neither_saved_nor_converted(name, tmp_path):
    opt, params, used = start(name)
    opt.step(params, tree_of(2), used)
    t = used.count + opt.first_step
    path = tmp_path / "state"
    refuses(amos_ref.save_state, path, used, step=t)
    refuses(amos_ref.save, path, params, used, opt, step=t)
    assert not path.exists()
    if isinstance(used, amos_ref.AmosState):
        refuses(interop.to_torch, used, [], {}, step=t)
        refuses(interop.to_optax, used, (), step=t)


@members
def test_a_loaded_state_is_fresh(name, tmp_path):
    opt, params, state = start(name)
    path = tmp_path / "state"
    amos_ref.save_state(path, state)
    kept = copy.deepcopy(params)
    new = opt.step(params, tree_of(2), state)
    again = opt.step(kept, tree_of(2), amos_ref.load_state(path, like=params))
    assert all_bits((params, new)) == all_bits((kept, again))


@cases
def test_of_many_threads_one_steps_a_state(name, backend):
    opt, params, state = start(name, backend)
    barrier, outcomes = threading.Barrier(8), []

    def step():
        barrier.wait()
        try:
            outcomes.append(opt.step(params, tree_of(2), state).count)
        except errors.StateError:
            outcomes.append(None)

    threads = [threading.Thread(target=step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [state.count + 1] + [None] * 7
    wanted, want, first = start(name)
    wanted.step(want, tree_of(2), first)
    assert all_bits(params) == all_bits(want)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_a_state_is_a_named_tuple_like_any_other(kind):
    parts = [{"w": np.ones(2)} for _ in kind._fields[1:]]
    state = kind(3, *parts)
    count, *others = state
    assert (count, others) == (3, parts)
    assert state == kind._make(state) == (3, *parts)
    assert state._asdict() == dict(zip(kind._fields, state, strict=True))
    assert repr(state).startswith(f"{kind.__name__}(count=3, {kind._fields[1]}={{'w': array([1., 1.])}}")
    leaves, structure = optree.tree_flatten(state)
    assert type(optree.tree_unflatten(structure, leaves)) is kind
    assert state._replace(count=4) == (4, *parts)
    with pytest.raises(AttributeError):
        state.count = 4
    assert turn.turn_of(state) is turn.turn_of(state)
    assert checkpoint.kind_of(state) is kind
