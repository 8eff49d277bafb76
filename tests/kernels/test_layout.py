"""A step kept ready for the next is invisible: the answers and errors are those of an optimizer that keeps nothing."""

import collections
import copy
import gc
import threading
import tracemalloc
import warnings
import weakref

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amos_ref
from amos_ref.errors import AmosError, OverlapError
from amos_ref.kernels import layout
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import headers

SLOTS = {"top/a": "(SHAPE[0], 1)", "end": "SHAPE", ".*": ()}
OPTIONS = dict(learning_rate=0.1, eta=0.3, beta=0.9, extra_l2=0.01, slot_shape=SLOTS)


#: What looks at arrays: compiled code that reads headers, or Python, where kernels that run as Python show nothing new.
WATCHES = {True: headers.HeaderWatch} | ({} if numba.config.DISABLE_JIT else {False: headers.PlainWatch})


@pytest.fixture(scope="module", params=WATCHES, ids=lambda readable: WATCHES[readable].__name__, autouse=True)
def watched(request):
    """Whether headers can be read, and what looks at arrays then."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(headers, "headers_are_readable", lambda: request.param)
        yield WATCHES[request.param]


def test_arrays_are_looked_at_as_this_file_says(watched):
    params, grads, state = world()
    opt = optimizer()
    opt.step(params, grads, state)
    assert type(opt._last.peek().watch.watch) is watched


def world(momentum=None, seed=0):
    """Parameters, gradients and state of their own, with the same numbers each time."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": (), "c": (2, 0), "d": (129,)}
    params = {"top": {name: np.array(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}}
    params["end"] = rng.standard_normal(5)
    grads = {"top": {name: np.array(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}}
    grads["end"] = rng.standard_normal(5)
    opt = optimizer(momentum)
    return params, grads, opt.init(params)


def optimizer(momentum=None, backend="cpu", **changes):
    return amos_ref.Amos(**{**OPTIONS, "momentum": momentum, "backend": backend, **changes})


def bits(params, grads, state):
    """All that a step could change, as bytes."""
    arrays = [*amos_ref.tree.flatten(params).values(), *amos_ref.tree.flatten(grads).values()]
    for part in (state.v, state.b, state.m or {}):
        arrays += part.values()
    return state.count, [a.tobytes() if isinstance(a, np.ndarray) else repr(a) for a in arrays]


# What a user may do between two steps. Each takes (params, grads, state), changes what it likes and returns the three.


def nothing(params, grads, state):
    return params, grads, state


def new_gradients(params, grads, state):
    new = {name: None if g is None else g + 1 for name, g in amos_ref.tree.flatten(grads).items()}
    return params, amos_ref.tree.unflatten(new, grads), state


def new_parameters(params, grads, state):
    return copy.deepcopy(params), grads, state


def new_state(params, grads, state):
    return params, grads, copy.deepcopy(state)


def other_tree(params, grads, state):
    params["more"] = np.ones(3)
    return params, grads, state


def no_gradient(params, grads, state):
    grads["top"]["a"] = None
    return params, grads, state


def gradient_again(params, grads, state):
    grads["top"]["a"] = np.ones((3, 4), np.float32)
    return params, grads, state


def gradient_of_another_shape(params, grads, state):
    grads["top"]["a"] = np.ones((4, 3), np.float32)
    return params, grads, state


def gradient_reshaped_in_place(params, grads, state):
    if grads["top"]["a"] is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5
            grads["top"]["a"].shape = (12,)
    return params, grads, state


def gradient_of_another_dtype(params, grads, state):
    grads["top"]["d"] = np.ones(129)
    return params, grads, state


def gradient_of_integers(params, grads, state):
    grads["top"]["d"] = np.ones(129, np.int32)
    return params, grads, state


def gradient_with_strides(params, grads, state):
    grads["top"]["d"] = np.linspace(0, 1, 258, dtype=np.float32)[::2]
    return params, grads, state


def gradient_on_odd_bytes(params, grads, state):
    raw = np.frombuffer(bytearray(129 * 4 + 1), np.uint8)[1:].view(np.float32)
    raw[:] = 2
    grads["top"]["d"] = raw
    return params, grads, state


def gradient_not_finite(params, grads, state):
    grads["end"] = np.array([1, 2, 3, np.nan, 5])
    return params, grads, state


def gradient_finite_again(params, grads, state):
    grads["end"] = np.arange(5.0)
    return params, grads, state


def gradient_is_the_parameter(params, grads, state):
    grads["end"] = params["end"]
    return params, grads, state


def gradient_is_part_of_a_parameter(params, grads, state):
    grads["top"]["b"] = params["top"]["d"][7:8].reshape(())
    return params, grads, state


def gradient_is_state(params, grads, state):
    grads["end"] = np.ones(5)
    if state.m is not None:
        grads["end"] = state.m["end"]
    return params, grads, state


def gradient_is_a_number(params, grads, state):
    grads["top"]["b"] = np.float32(3)
    return params, grads, state


def gradient_is_a_python_number(params, grads, state):
    grads["top"]["b"] = 3.0
    return params, grads, state


def parameter_read_only(params, grads, state):
    params["end"].flags.writeable = False
    return params, grads, state


def parameter_writeable(params, grads, state):
    params["end"].flags.writeable = True
    return params, grads, state


def state_read_only(params, grads, state):
    state.b["top/c"].flags.writeable = False
    return params, grads, state


def parameter_of_another_dtype(params, grads, state):
    params["end"] = params["end"].astype(np.float16)
    return params, grads, state


def parameter_viewed_as_integers(params, grads, state):
    params["top"]["d"] = params["top"]["d"].view(np.int32)
    return params, grads, state


def parameters_overlap(params, grads, state):
    params["end"] = np.frombuffer(params["top"]["d"].data, np.float32)[:5]
    return params, grads, state


def state_lacks_a_leaf(params, grads, state):
    return params, grads, state._replace(v={k: a for k, a in state.v.items() if k != "end"})


def state_has_another_leaf(params, grads, state):
    return params, grads, state._replace(b={**state.b, "x": np.zeros(())})


def state_in_another_order(params, grads, state):
    return params, grads, state._replace(v=dict(reversed(state.v.items())))


def state_with_another_count(params, grads, state):
    return params, grads, state._replace(count=np.int64(state.count + 3))


def state_with_a_negative_count(params, grads, state):
    return params, grads, state._replace(count=-1)


def state_is_a_tuple(params, grads, state):
    return params, grads, tuple(state)


def gradients_in_another_container(params, grads, state):
    return params, {**grads, "top": collections.OrderedDict(grads["top"])}, state


CHANGES = [
    nothing,
    new_gradients,
    new_parameters,
    new_state,
    other_tree,
    no_gradient,
    gradient_again,
    gradient_of_another_shape,
    gradient_reshaped_in_place,
    gradient_of_another_dtype,
    gradient_of_integers,
    gradient_with_strides,
    gradient_on_odd_bytes,
    gradient_not_finite,
    gradient_finite_again,
    gradient_is_the_parameter,
    gradient_is_part_of_a_parameter,
    gradient_is_state,
    gradient_is_a_number,
    gradient_is_a_python_number,
    parameter_read_only,
    parameter_writeable,
    state_read_only,
    parameter_of_another_dtype,
    parameter_viewed_as_integers,
    parameters_overlap,
    state_lacks_a_leaf,
    state_has_another_leaf,
    state_in_another_order,
    state_with_another_count,
    state_with_a_negative_count,
    state_is_a_tuple,
    gradients_in_another_container,
]


def outcome(opt, params, grads, state):
    try:
        state = opt.step(params, grads, state)
    except AmosError as error:
        # Of several overlaps the first in memory is named.
        return state, type(error) if isinstance(error, OverlapError) else f"{type(error).__name__}: {error}"
    return state, None


def compare(changes, momentum):
    """Take steps with these changes between them, by one optimizer and by new ones that keep nothing."""
    kept, ours, theirs = optimizer(momentum), world(momentum), world(momentum)
    for change in changes:
        ours, theirs = change(*ours), change(*theirs)
        after = [outcome(kept, *ours), outcome(optimizer(momentum, "numpy"), *theirs)]
        assert after[0][1] == after[1][1], change.__name__
        ours, theirs = (*ours[:2], after[0][0]), (*theirs[:2], after[1][0])
        if isinstance(ours[2], amos_ref.AmosState):
            assert bits(*ours) == bits(*theirs), change.__name__
        else:
            return


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_change_is_seen(change, momentum):
    compare([nothing, nothing, change, nothing, new_gradients, nothing], momentum)


@settings(max_examples=200)
@given(changes=st.lists(st.sampled_from(CHANGES), max_size=8), momentum=st.sampled_from([None, 0.9]))
def test_any_changes_are_seen(changes, momentum):
    compare([nothing, *changes, nothing], momentum)


def test_a_plan_that_holds_is_used(monkeypatch):
    params, grads, state = world()
    opt = optimizer()
    state = opt.step(params, grads, state)
    monkeypatch.setattr(opt, "_prepare", None)
    for _ in range(3):
        params, grads, state = new_gradients(params, grads, state)
        state = opt.step(params, grads, state)


@pytest.mark.parametrize(
    ("careless", "change"),
    [
        (lambda first: first, new_gradients),
        (lambda first: first, parameter_read_only),
        (lambda first: first, new_parameters),
        (lambda first: first, state_lacks_a_leaf),
    ],
)
def test_a_plan_that_is_not_looked_at_would_be_seen(careless, change, monkeypatch):
    real = layout.KeptLayout.match
    seen, found = [], {}

    def match(self, params, grads, state):
        seen.append(self)
        if seen.count(self) == 1:
            found[self] = real(self, params, grads, state)
            return found[self]
        return careless(found[self])

    monkeypatch.setattr(layout.KeptLayout, "match", match)
    with pytest.raises(AssertionError, match=change.__name__):
        compare([nothing, change], None)


def test_gradients_that_meet_a_parameter_would_be_seen(monkeypatch):
    monkeypatch.setattr(headers, "apart", lambda *args: True)
    with pytest.raises(AssertionError, match="gradient_is_the_parameter"):
        compare([nothing, gradient_is_the_parameter], None)


@pytest.mark.no_cover
def test_one_optimizer_may_step_different_trees_in_different_threads():
    want = {}
    for seed in range(4):
        params, grads, state = world(seed=seed)
        for _ in range(50):
            state = optimizer().step(params, grads, state)
        want[seed] = bits(params, grads, state)
    shared, got, start = optimizer(), {}, threading.Barrier(4)

    def work(seed):
        params, grads, state = world(seed=seed)
        start.wait()
        for _ in range(50):
            state = shared.step(params, grads, state)
        got[seed] = bits(params, grads, state)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in want]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert got == want


def test_a_plan_keeps_no_array_alive():
    params, grads, state = world()
    opt = optimizer()
    opt.step(params, grads, state)
    alive = weakref.ref(params["end"])
    del params, grads, state
    gc.collect()
    assert alive() is None
    assert isinstance(opt._last.take().work, cpu.Work)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="kernels run as Python make numbers all the time")
@pytest.mark.parametrize("slot", ["tensor", "element", lambda name, shape: (shape[0], 1), lambda name, shape: (1, 8)])
def test_a_kept_step_allocates_nothing_that_grows_with_the_parameters(slot):
    opt, peaks = optimizer(slot_shape=slot, momentum=0.9), []
    for rows in (16, 16384):
        params, grads = np.ones((rows, 8), np.float32), np.ones((rows, 8), np.float32)
        state = opt.step(params, grads, opt.init(params))
        tracemalloc.start()
        opt.step(params, grads, state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 8 * 16384  # even one byte for each parameter would be seen


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_gradients_may_lack_the_none_of_the_parameters(backend):
    opt, whole = (amos_ref.Amos(**OPTIONS, backend=backend) for _ in range(2))
    given = {"apart": None, "end": np.ones(3), "top": {"a": np.full((2, 3), 0.5)}}
    alone = {name: copy.deepcopy(part) for name, part in given.items() if part is not None}
    state, other = opt.init(given), whole.init(alone)
    for t in range(4):
        grads = {"end": np.arange(3.0) + t, "top": {"a": np.full((2, 3), 1.0 + t)}}
        state = opt.step(given, grads if t % 2 == 0 else {"apart": None, **grads}, state)
        other = whole.step(alone, grads, other)
    assert given["end"].tobytes() == alone["end"].tobytes()
    assert given["top"]["a"].tobytes() == alone["top"]["a"].tobytes()
    assert given["apart"] is None
