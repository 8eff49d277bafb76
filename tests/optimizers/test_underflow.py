"""State in the parameters' dtype: where float16 cannot hold v, a step says so once for each leaf."""

import copy
import pickle
import warnings

import ml_dtypes
import numpy as np
import pytest
from helpers.messages import one_line
from helpers.optimizers import BACKENDS
from helpers.trees import all_bits

import amos_ref
from amos_ref.kernels import page
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers.state import UnderflowWarning

SMALL = 1e-4  # a gradient whose square times 1 - beta is below half of the least float16, 2^-25


def tree(value, dtype=np.float16):
    """Rows, columns, elements, one number and reduced axes on both sides of kept ones."""
    shapes = {"rows": (4, 9), "columns": (9, 4), "elements": (5, 3), "number": (), "mixed": (3, 4, 5)}
    return {name: np.full(shape, value, dtype) for name, shape in shapes.items()}


SLOTS = {"rows": (4, 1), "columns": (1, 4), "elements": (5, 3), "mixed": (1, 4, 1), ".*": "tensor"}


def start(backend="numpy", dtype=np.float16, **options):
    opt = amos_ref.Amos(0.01, 0.5, SLOTS, **{"state_dtype": "param", "backend": backend, **options})
    params = tree(1.0, dtype)
    return opt, params, opt.init(params)


def warned(call, *args):
    """What it returns, and the leaves that it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*args)
    assert {one.category for one in caught} <= {UnderflowWarning}
    return found, [str(one.message).split("'")[1] for one in caught]


def step(opt, params, grads, state, how):
    if how == "update":
        return warned(lambda: opt.update(grads, state, params)[1])
    return warned(opt.step, params, grads, state)


WAYS = [*BACKENDS, "update"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("momentum", [None, 0.5])
def test_each_leaf_is_named_once(how, momentum):
    opt, params, state = start("numpy" if how == "update" else how, momentum=momentum)
    state, found = step(opt, params, tree(0.5), state, how)
    assert found == []
    opt, params, state = start("numpy" if how == "update" else how, momentum=momentum)
    grads = tree(SMALL)
    grads["rows"] = None
    grads["columns"][...] = 0  # whose v is 0, and not too small
    state, found = step(opt, params, grads, state, how)
    assert sorted(found) == ["elements", "mixed", "number"]
    assert all(not state.v[name].any() for name in found)
    grads["rows"] = np.full((4, 9), SMALL, np.float16)
    grads["rows"][:3] = 0.5
    state, found = step(opt, params, grads, state, how)
    assert found == ["rows"]
    state, found = step(opt, params, tree(SMALL), state, how)
    assert found == ["columns"]
    for again in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert step(again, copy.deepcopy(params), tree(SMALL), copy.deepcopy(state), how)[1] == []


@pytest.mark.parametrize("how", WAYS)
def test_one_entry_among_many_is_enough(how):
    opt, params, state = start("numpy" if how == "update" else how)
    grads = tree(0.5)
    grads["elements"][4, 2] = SMALL
    assert step(opt, params, grads, state, how)[1] == ["elements"]


@pytest.mark.parametrize("how", WAYS)
def test_other_ways_to_keep_the_state_are_not_warned_of(how):
    backend = "numpy" if how == "update" else how
    for dtype, options in (
        (np.float16, {"state_dtype": "float64"}),
        (ml_dtypes.bfloat16, {}),
        (np.float32, {}),
        (np.float64, {}),
    ):
        opt, params, state = start(backend, dtype, **options)
        assert step(opt, params, tree(SMALL, dtype), state, how)[1] == []


def test_the_message_says_what_to_do_and_steps_are_too_long_as_it_says():
    ways = {}
    for state_dtype in ("float64", "param"):
        opt, params, state = start("cpu", state_dtype=state_dtype)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(30):
                state = opt.step(params, tree(SMALL), state)
        ways[state_dtype] = float(1 - params["elements"].astype(np.float64).min())
    one_line(caught[0].message, ["state.v of leaf", "became 0 at step 1", "float16", "state_dtype='float64'"])
    assert ways["param"] > 3 * ways["float64"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_warning_that_is_an_error_comes_with_the_new_state(backend):
    opt, params, state = start(backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnderflowWarning) as caught:
            opt.step(params, tree(SMALL), state)
    want, other, first = start("numpy")
    last, _ = warned(want.step, other, tree(SMALL), first)
    assert all_bits((params, caught.value.amos_state)) == all_bits((other, last))


@pytest.mark.parametrize(("backend", "module"), [("numpy", page), ("cpu", cpu)])
def test_a_backend_that_keeps_it_to_itself_is_seen(backend, module, monkeypatch):
    monkeypatch.setattr(module.Work, "vanished", (), raising=False)
    if backend == "numpy":
        monkeypatch.setattr(page, "vanishes", lambda x, rounded: False)
    with pytest.raises(AssertionError):
        test_one_entry_among_many_is_enough(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_elements_on_many_threads(backend):
    params = {"a": np.ones(40_000, np.float16), "b": np.ones(30_000, np.float16)}
    opt = amos_ref.Amos(0.01, 0.5, "element", state_dtype="param", backend=backend)
    grads = {name: np.ones_like(a) for name, a in params.items()}
    grads["b"][-1] = SMALL
    assert warned(opt.step, params, grads, opt.init(params))[1] == ["b"]
