"""What holds for every optimizer: its faces agree, and copies, files, threads and large counts change no bit."""

import copy
import os
import pickle
import threading
import warnings

import numpy as np
import optree
import pytest
from helpers import strategies as own
from helpers.messages import one_line
from helpers.optimizers import CASES, MEMBERS, arrays_of, callables_of, cases, make, members, parts_of
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import Amos, errors
from amos_ref.adamw import AdamW
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers import updates


def run(opt, params, seeds=(1, 2, 3), state=None, dtype="float64"):
    """Step in place on copies; the parameters and the state."""
    params, state = copy.deepcopy((params, opt.init(params) if state is None else state))
    for seed in seeds:
        state = opt.step(params, tree_of(seed, dtype), state)
    return params, state


def after(name, backend, steps=5):
    """All bits after so many steps of a new optimizer."""
    return all_bits(run(make(name, backend), tree_of(0), range(steps)))


# the faces of one step agree


def check_faces(opt, dtypes=("float64", "float64")):
    """Steps in place, and update with apply_updates, on trees of these dtypes of parameters and gradients."""
    params = tree_of(0, dtypes[0])
    stepped, state, pure = copy.deepcopy(params), opt.init(params), opt.init(params)
    for seed in range(3):
        grads = tree_of(seed, dtypes[1])
        updates, pure = opt.update(grads, pure, params)
        params = amos_ref.apply_updates(params, updates)
        state = opt.step(stepped, grads, state)
        assert {a.dtype for a in optree.tree_leaves(updates)} == {np.dtype("f8")}
        assert all_bits(stepped) == all_bits(params)
        assert all_bits(state) == all_bits(pure)
    assert state.count == pure.count == 3


# The other members of paper Amos differ from this one in what a combination says.
DTYPE_CASES = [case for case in CASES if case[0] not in ("Amos", "Amos with state like parameters")]


@pytest.mark.parametrize("combination", own.COMBINATIONS, ids=own.COMBINATION_IDS)
@pytest.mark.parametrize(("name", "backend"), DTYPE_CASES, ids=[", ".join(case) for case in DTYPE_CASES])
def test_step_is_update_and_apply_in_bits(name, backend, combination):
    paper = MEMBERS[name][0] is Amos
    changes = {"momentum": combination.momentum, "state_dtype": combination.state} if paper else {}
    check_faces(make(name, backend, **changes), (combination.theta, combination.g))


@cases
def test_a_step_that_rounds_otherwise_would_be_seen(name, backend, monkeypatch):
    right = updates.round_like
    monkeypatch.setattr(updates, "round_like", lambda a, like: np.nextafter(right(a, like), np.inf, dtype=like.dtype))
    with pytest.raises(AssertionError):
        check_faces(make(name, backend))


def check_purity(opt):
    params, grads = tree_of(0), tree_of(1)
    _, state = run(opt, params)
    before = all_bits((params, grads, state))
    opt.update(grads, state, params)
    opt.trace(grads, state, params)
    updates, _ = opt.update(grads, state, params)
    amos_ref.apply_updates(params, updates)
    # init reads the parameters and keeps none of them
    fresh = opt.init(params)
    for a in optree.tree_leaves(fresh[1:]):
        a[...] = 1
    assert all_bits((params, grads, state)) == before


@members
def test_init_update_and_trace_are_pure(name, monkeypatch):
    check_purity(make(name))
    right = MEMBERS[name][0].trace

    def careless(self, grads, state, params):
        self.step(params, grads, state)
        return right(self, grads, state, params)

    monkeypatch.setattr(MEMBERS[name][0], "trace", careless)
    with pytest.raises(errors.StateError, match="stepped in place"):
        check_purity(make(name))


@cases
def test_leaf_without_gradient_keeps_its_bits_while_the_count_goes_on(name, backend, monkeypatch):
    def check(skipped):
        opt = make(name, backend)
        params = {"a": np.array([1.0, -0.0, 2.0]), "b": np.array([-0.0, 0.0, 3.0])}
        state = opt.step(params, {"a": np.ones(3), "b": -np.ones(3)}, opt.init(params))
        params["b"][:2] = -0.0
        kept = all_bits((params["b"], arrays_of(state, "b")))
        grads = {"a": np.ones(3), "b": skipped}
        updates, pure = opt.update(grads, state, params)
        assert all_bits(amos_ref.apply_updates(params, updates)["b"]) == kept[:1]
        state = opt.step(params, grads, state)
        assert state.count == pure.count == 2
        for found in (state, pure):
            assert all_bits((params["b"], arrays_of(found, "b"))) == kept

    check(None)
    with pytest.raises(AssertionError):
        check(np.zeros(3))  # a gradient of 0 is not a missing one


@members
def test_every_leaf_may_be_skipped(name):
    opt, params = make(name), tree_of(0)
    _, state = run(opt, params)
    before = all_bits((params, state[1:]))
    none = optree.tree_map(lambda a: None, params)
    updates, pure = opt.update(none, state, params)
    assert all_bits(amos_ref.apply_updates(params, updates)) == all_bits(params)
    assert pure.count == 4
    state = opt.step(params, none, state)
    assert state.count == 4
    assert all_bits((params, state[1:])) == before
    assert len(opt.trace(none, state, params)) == 0


COUNTS = [2**31 - 1, 2**31, np.int32(2**31 - 1), np.int64(2**40), 2**70, 10**400]


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: f"{type(count).__name__} of {len(str(count))} digits")
@cases
def test_huge_counts(name, backend, count):
    opt, params, grads = make(name, backend), tree_of(0), tree_of(1)
    state = opt.init(params)._replace(count=count)
    assert opt.trace(grads, state, params).t == int(count) + opt.first_step
    updates, pure = opt.update(grads, state, params)
    state = opt.step(stepped := copy.deepcopy(params), grads, state)
    assert pure.count == state.count == int(count) + 1
    assert all_bits(stepped) == all_bits(amos_ref.apply_updates(params, updates))
    assert all_bits(state[1:]) == all_bits(pure[1:])
    assert all(np.isfinite(a.astype(np.float64)).all() for a in optree.tree_leaves(stepped))


@cases
def test_the_count_passes_2_to_the_31(name, backend):
    opt, params = make(name, backend), tree_of(0)
    state = opt.init(params)._replace(count=2**31 - 2)
    for k in range(4):
        state = opt.step(params, tree_of(10 + k), state)
    assert state.count == 2**31 + 2
    assert opt.trace(tree_of(1), state, params).t == 2**31 + 2 + opt.first_step


@cases
def test_one_optimizer_serves_trees_of_other_shapes(name, backend):
    shared, found, wanted = make(name, backend), {}, {}
    trees = {"wide": np.linspace(-1, 2, 6).reshape(3, 2), "long": np.linspace(1, 2, 5), "deep": {"x": np.ones(3)}}
    states = {key: shared.init(params) for key, params in trees.items()}
    for _ in range(3):
        for key, params in trees.items():
            grads = optree.tree_map(np.cos, params)
            states[key] = shared.step(params, grads, states[key])
    for key, params in trees.items():
        found[key] = all_bits((params, states[key]))
    trees = {"wide": np.linspace(-1, 2, 6).reshape(3, 2), "long": np.linspace(1, 2, 5), "deep": {"x": np.ones(3)}}
    for key, params in trees.items():
        alone = make(name, backend)
        state = alone.init(params)
        for _ in range(3):
            state = alone.step(params, optree.tree_map(np.cos, params), state)
        wanted[key] = all_bits((params, state))
    assert found == wanted


# options


@members
def test_repr_makes_the_same_optimizer(name):
    opt = make(name)
    shown = repr(opt)
    assert "\n" not in shown
    assert shown.startswith(f"{type(opt).__name__}(")
    assert all(f"{key}={value!r}" in shown for key, value in opt.options.items())
    if not callables_of(name):
        again = eval(shown, {"Amos": Amos, "ClosedFormAmos": amos_ref.ClosedFormAmos, "AdamW": AdamW})
        assert again.options == opt.options
        assert repr(again) == shown


@pytest.mark.parametrize("name", [name for name, (kind, _) in MEMBERS.items() if kind is not AdamW])
def test_unknown_backends_are_refused(name):
    for backend in ("", "gpu", "CPU", "tpu", None, 3, ["cpu"]):
        with pytest.raises(errors.BackendError) as caught:
            make(name, backend=backend)
        one_line(caught.value, [repr(backend)])


@cases
def test_streams_and_recorded_steps_are_for_a_gpu(name, backend):
    opt, params = make(name, backend), np.ones(3)
    state = opt.init(params)
    for launch, what in ((dict(stream=7), "stream is 7"), (dict(sync=False), "sync is False")):
        with pytest.raises(errors.BackendError, match=f"{what}, which is for backend 'cuda'; this one steps NumPy's"):
            opt.step(params, np.ones(3), state, **launch)
    with pytest.raises(errors.BackendError, match="advance needs a step of backend 'cuda'"):
        opt.advance(state)
    opt.synchronize()
    assert np.array_equal(params, np.ones(3))


# copies, files, threads, forks

CLONES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda opt: pickle.loads(pickle.dumps(opt))}


@pytest.mark.parametrize("clone", CLONES)
@cases
def test_a_copy_of_an_optimizer_steps_like_it(name, backend, clone):
    opt, params = make(name, backend), tree_of(0)
    state = opt.step(params, tree_of(1), opt.init(params))
    other, others = CLONES[clone](opt), copy.deepcopy((params, state))
    assert repr(other) == repr(opt)
    assert all_bits(run(opt, params, (2, 3), state)) == all_bits(run(other, others[0], (2, 3), others[1]))


@cases
def test_resuming_from_a_copied_state_gives_the_same_bits(name, backend):
    params = tree_of(0)
    whole = run(make(name, backend), params, range(6))
    half, state = run(make(name, backend), params, range(3))
    state = type(state)(*copy.deepcopy(tuple(state)))
    assert all_bits(run(make(name, backend), half, range(3, 6), state)) == all_bits(whole)


@members
def test_training_goes_on_from_disk_with_the_same_bits(name, tmp_path):
    opt = make(name)
    params, state = run(opt, tree_of(0))
    amos_ref.save(tmp_path / "run", params, state, opt)
    saved = amos_ref.load(tmp_path / "run", like=tree_of(5), **callables_of(name))
    assert type(saved.opt) is type(opt)
    assert repr(saved.opt) == repr(opt)
    assert type(saved.state) is type(state)
    assert saved.state.count == state.count == 3
    assert all_bits(saved.state) == all_bits(state)
    assert all_bits(saved.params) == all_bits(params)
    assert all_bits(amos_ref.load_state(tmp_path / "run", like=tree_of(5))) == all_bits(state)
    wanted = all_bits(run(opt, params, (4, 5), state))
    assert all_bits(run(saved.opt, saved.params, (4, 5), saved.state)) == wanted
    # A state that lost one part would have shown.
    for part in parts_of(state):
        lost = {leaf: np.asarray(a + a.dtype.type(1)) for leaf, a in getattr(saved.state, part).items()}
        assert all_bits(run(saved.opt, saved.params, (4, 5), saved.state._replace(**{part: lost}))) != wanted


@members
def test_a_state_alone_on_disk(name, tmp_path):
    state = make(name).init(tree_of(0))._replace(count=10**30)
    amos_ref.save_state(tmp_path / "state", state)
    found = amos_ref.load_state(tmp_path / "state")
    assert type(found) is type(state)
    assert found.count == 10**30
    assert all_bits(found[1:]) == all_bits(state[1:])


@pytest.mark.parametrize("name", [name for name in MEMBERS if callables_of(name)])
def test_callables_must_be_given_again(name, tmp_path):
    opt, params = make(name), tree_of(0)
    amos_ref.save(tmp_path / "run", params, opt.init(params), opt)
    with pytest.raises(errors.HyperParameterError, match=r"must be given: direction \(shifted\)"):
        amos_ref.load(tmp_path / "run", like=params)


@cases
def test_threads_step_trees_of_their_own(name, backend):
    """With an optimizer each, and all with one."""
    wanted, shared, got = after(name, backend), make(name, backend), {}
    begin = threading.Barrier(8)

    def work(k):
        begin.wait()
        opt = shared if k % 2 else make(name, backend)
        got[k] = all_bits(run(opt, tree_of(0), range(5)))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == dict.fromkeys(range(8), wanted)


@cases
def test_a_forked_child_steps_on(name, backend):
    wanted = after(name, backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if after(name, backend) == wanted else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_scratch_memory_is_not_read_before_it_is_written():
    assert np.isnan(cpu.scratch(2, 3)).all()
