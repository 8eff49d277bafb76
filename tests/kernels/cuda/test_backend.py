"""Amos with backend="cuda": whose arrays it takes, what it refuses, and the page's bits step after step."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import strategies as own
from helpers.placed import Array, Tensor, bits_of, to_device
from numba import cuda as numba_cuda

import amos_ref
from amos_ref.errors import (
    BackendError,
    DtypeError,
    NonFiniteError,
    OverlapError,
    ReadOnlyError,
    ShapeError,
    StateError,
)
from amos_ref.kernels.cuda import arrays, graphs
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import device_array, fingerprint

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
RULES = {"bias": (), "kernel": "(1, SHAPE[1])", "gain": "SHAPE", "table": "(SHAPE[0], 1)", "conv": "(1, SHAPE[1], 1)"}
SHAPES = {"bias": (5,), "kernel": (66, 4), "gain": (7,), "table": (2, 9), "conv": (3, 2, 2)}
DTYPES = {"bias": "float16", "kernel": "float32", "gain": "float64", "table": "bfloat16", "conv": "float32"}


def optimizer(backend, **changes):
    options = dict(slot_shape=RULES, beta=0.75, momentum=0.9, clip_value=1.5, extra_l2=0.05, backend=backend)
    return amos_ref.Amos(**{"learning_rate": lambda t: 0.3 / t, "eta": 0.6, **options, **changes})


def tree(seed, names=tuple(SHAPES)):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal(SHAPES[k]).astype(own.DTYPES[DTYPES[k]]) for k in names}


def few(seed):
    """A tree with one table of rows and one of elements."""
    return tree(seed, ("bias", "gain"))


def moved(arrays):
    return {k: None if a is None else to_device(a) for k, a in arrays.items()}


def back(a, like):
    return a.copy_to_host().view(like.dtype)


def same_bits(params, state, there, state_there):
    assert state.count == state_there.count
    for ours, theirs in ((params, there), *zip(state[1:], state_there[1:], strict=True)):
        for name, a in (ours or {}).items():
            assert own.bits(back(theirs[name], a)) == own.bits(a), name


@pytest.mark.parametrize("state_dtype", ["float64", "param"])
def test_trees_step_as_in_numpy(state_dtype):
    ours, theirs = (optimizer(backend, state_dtype=state_dtype) for backend in ("numpy", "cuda"))
    params = tree(1)
    there = moved(params)
    state, state_there = ours.init(params), theirs.init(there)
    for t in range(1, 4):
        grads = tree(10 + t) | ({"conv": None} if t == 2 else {})
        state = ours.step(params, grads, state)
        state_there = theirs.step(there, moved(grads), state_there, sync=t != 2)
        same_bits(params, state, there, state_there)
    assert theirs._last.peek() is not None


GROUPS = dict(lr_factor={"bias": 0.25, "gain": 3.0, "conv": 0.5}, frozen={"table": True})


def closed_form(backend, **changes):
    return amos_ref.ClosedFormAmos(0.2, half_life=3, sigma=0.6, slot_shape=RULES, backend=backend, **changes)


@pytest.mark.parametrize("make", [optimizer, closed_form])
def test_leaves_with_numbers_of_their_own_step_as_in_numpy(make):
    own_l2 = {"extra_l2": {"kernel": 0.3, "gain": 0.1}} if make is optimizer else {}
    ours, theirs = (make(backend, **GROUPS, **own_l2) for backend in ("numpy", "cuda"))
    params = tree(1)
    there, plain = moved(params), make("numpy").init(params)
    state, state_there = ours.init(params), theirs.init(there)
    start = own.bits(params["table"])
    for t in range(1, 4):
        grads = tree(10 + t)
        state = ours.step(params, grads, state)
        state_there = theirs.step(there, moved(grads), state_there)
        same_bits(params, state, there, state_there)
    assert theirs._last.peek() is not None
    assert own.bits(params["table"]) == start
    other = tree(1)
    make("numpy").step(other, tree(11), plain)
    assert own.bits(other["gain"]) != own.bits(params["gain"])


def test_arrays_that_stay_are_laid_out_once():
    opt, there, grads = optimizer("cuda"), moved(few(1)), moved(few(2))
    state = opt.step(there, grads, opt.init(there))
    work = opt._last.peek().work
    state = opt.step(there, grads, state)
    assert opt._last.peek().work is work
    opt.step(there, moved(few(2)), state)
    assert opt._last.peek().work is not work


def test_arrays_of_other_libraries_are_stepped_in_place():
    a, g = np.linspace(-1, 2, 6, dtype="f4").reshape(2, 3), np.full((2, 3), 0.5, "f4")
    ours, theirs = (amos_ref.Amos(0.1, 0.5, backend=backend) for backend in ("numpy", "cuda"))
    params, grad = Array(a), Array(g, strides=(12, 4))
    state = theirs.step(params, grad, theirs.init(params))
    ours.step(a, g, ours.init(a))
    assert own.bits(params.memory.copy_to_host()) == own.bits(a)
    assert state.count == 1


@pytest.mark.skipif(not SIMULATED, reason="host memory stands for the device's")
@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_dlpack_is_read_in_place(name):
    a = np.linspace(-1, 2, 6, dtype=name).reshape(2, 3)
    found = device_array(Tensor(a), "w")
    assert (found.shape, found.dtype, found.address) == (a.shape, a.dtype, a.ctypes.data)
    part = device_array(Tensor(a[1:]), "w")
    assert (part.shape, part.address) == ((1, 3), a.ctypes.data + 3 * a.itemsize)


def test_bfloat16_comes_as_its_bits():
    a = np.linspace(-1, 2, 6).astype(own.BFLOAT16)
    assert bits_of(a).dtype == np.uint16
    assert device_array(to_device(a), "w").dtype == own.BFLOAT16


def test_bfloat16_has_a_name_in_interfaces_too():
    a = np.linspace(-1, 2, 6).astype(own.BFLOAT16)
    assert a.dtype.str == "<V2"
    assert device_array(Array(a, typestr="<V2"), "w").dtype == own.BFLOAT16
    with pytest.raises(DtypeError, match="its dtype is"):
        device_array(Array(a, typestr="|V2"), "w")


def test_jax_is_not_told_of_a_stream_that_it_would_wait_for():
    class OfJax(Tensor):
        def __dlpack__(self, stream=None):
            assert stream is None
            return self.a.__dlpack__()

    OfJax.__module__ = "jaxlib._jax"
    assert device_array(OfJax(np.ones(3, "f4")), "w").shape == (3,)


def test_a_fingerprint_changes_with_all_that_a_step_reads():
    def shown(**changes):
        made = Array(ROWS)
        made.__cuda_array_interface__ |= dict(data=(1024, False)) | changes
        return fingerprint(made)

    changed = [dict(data=(1040, False)), dict(data=(1024, True)), dict(shape=(3, 2)), dict(typestr="<f2")]
    changed += [dict(strides=(4, 8)), dict(mask=ROWS)]
    prints = [shown(), *(shown(**change) for change in changed)]
    assert shown() == prints[0]
    assert all(a != b for k, a in enumerate(prints) for b in prints[:k])
    arrays = [to_device(np.ones(shape, dtype)) for shape in ((2, 3), (3, 2), (2, 3)) for dtype in ("f4", "f8")]
    assert len({repr(fingerprint(a)) for a in arrays}) == len(arrays)
    assert fingerprint(arrays[0]) == fingerprint(arrays[0])


@pytest.mark.parametrize("change", [dict(address=1040), dict(shape=(3, 2)), dict(dtype="half"), dict(whole=False)])
def test_a_fingerprint_of_torch_changes_with_all_that_a_step_reads(change):
    class OfTorch:
        is_cuda = True

        def __init__(self, address=1024, shape=(2, 3), dtype="float", whole=True):
            self.data_ptr, self.shape, self.dtype, self.is_contiguous = lambda: address, shape, dtype, lambda: whole

    assert fingerprint(OfTorch()) == fingerprint(OfTorch())
    assert fingerprint(OfTorch()) != fingerprint(OfTorch(**change))


# learned later


def test_a_step_that_is_not_waited_for_tells_later_and_nothing_is_written_from_it_on():
    opt, params, grads = optimizer("cuda", momentum=None), few(1), few(2)
    there, good, bad = moved(params), moved(grads), moved(grads | {"bias": grads["bias"] * np.nan})
    state = opt.step(there, good, opt.init(there))
    before = {k: back(a, params[k]).copy() for k, a in there.items()}
    state = opt.step(there, bad, state, sync=False)
    state = opt.step(there, bad, state, sync=False)
    with pytest.raises(NonFiniteError, match=r"'bias' is or was not finite.*all after it wrote nothing"):
        opt.synchronize()
    opt.synchronize()
    assert all(own.bits(back(a, params[k])) == own.bits(before[k]) for k, a in there.items())
    opt.step(there, good, state)
    assert own.bits(back(there["bias"], params["bias"])) != own.bits(before["bias"])


def test_a_step_with_other_arrays_waits_for_what_was_not_waited_for():
    opt, params, grads = optimizer("cuda"), few(1), few(2)
    there, bad = moved(params), moved(grads | {"gain": grads["gain"] * np.nan})
    state = opt.step(there, bad, opt.init(there), sync=False)
    with pytest.raises(NonFiniteError, match="'gain'"):
        opt.step(there, moved(grads), state)


@pytest.mark.skipif(not SIMULATED, reason="nothing is recorded; tests/gpu/test_gpu_replays.py does")
def test_a_captured_step_is_recorded_and_needs_one_before_it(monkeypatch):
    opt, there, grads = optimizer("cuda"), moved(few(1)), moved(few(2))
    with pytest.raises(BackendError, match="advance needs a step"):
        opt.advance(opt.init(there))
    state = opt.init(there)
    monkeypatch.setattr(cuda_driver, "is_capturing", lambda stream: True)
    with pytest.raises(BackendError, match="only after a step with the same arrays"):
        opt.step(there, grads, state)
    monkeypatch.undo()
    state = opt.step(there, grads, state)
    monkeypatch.setattr(cuda_driver, "is_capturing", lambda stream: True)
    assert opt.step(there, grads, state) is state
    assert graphs.is_kept(opt._last.peek().work)
    for refused in (lambda: opt.advance(state), opt.synchronize):
        with pytest.raises(BackendError, match="into a graph only a step is recorded"):
            refused()


def test_other_arrays_are_refused_in_a_recording_before_anything_is_waited_for(monkeypatch):
    opt, there, grads = optimizer("cuda"), moved(few(1)), moved(few(2))
    state = opt.step(there, grads, opt.init(there), sync=False)
    monkeypatch.setattr(cuda_driver, "is_capturing", lambda stream: True)
    monkeypatch.setattr(cuda_driver, "synchronize", lambda *args: pytest.fail("it waits"))
    with pytest.raises(BackendError, match="only after a step with the same arrays"):
        opt.step(there, moved(few(2)), state)
    assert opt._last.peek().work.pending  # what a step that was not waited for has to tell is not lost


def test_errors_of_the_driver_are_told_whoever_raises_them():
    for module in ("numba.cuda.cudadrv.driver", "cuda.core._utils.cuda_utils"):
        error = type("CUDAError", (Exception,), {"__module__": module})
        with pytest.raises(BackendError, match="it failed: two lines"), cuda_driver.device_errors("it failed"):
            raise error("two\nlines")
    with pytest.raises(KeyError), cuda_driver.device_errors("it failed"):
        raise KeyError("no error of the driver")


# bad input


def step_with(**changes):
    """A step of one leaf of two rows of three, with parts replaced; returns what it leaves of the parameters."""
    a = np.linspace(-1, 2, 6, dtype="f4").reshape(2, 3)
    opt = amos_ref.Amos(0.1, 0.5, backend="cuda")
    params = to_device(a)
    parts = dict(params=params, grads=to_device(np.ones_like(a)), state=opt.init(params)) | changes
    try:
        opt.step(parts["params"], parts["grads"], parts["state"], **changes.get("launch", {}))
    finally:
        assert own.bits(params.copy_to_host()) == own.bits(a)


ROWS = np.ones((2, 3), "f4")
REFUSED = {
    "params in NumPy": (dict(params=ROWS), BackendError, "params leaf '' is not on a GPU but a NumPy array.*to_device"),
    "grads in NumPy": (dict(grads=ROWS), BackendError, "gradient of leaf '' is not on a GPU but a NumPy array"),
    "a number": (dict(grads=1.0), BackendError, "is not on a GPU but float"),
    "no state": (dict(state=None), StateError, "state is not of type AmosState"),
    "state in NumPy": (
        dict(state=amos_ref.AmosState(0, {"": np.zeros(())}, {"": np.zeros(())}, None)),
        BackendError,
        "state.v of leaf '' is not on a GPU",
    ),
    "shape": (dict(grads=lambda: to_device(np.ones((3, 2), "f4"))), ShapeError, r"has shape \(3, 2\)"),
    "integers": (dict(grads=lambda: to_device(np.ones((2, 3), "i4"))), DtypeError, "its dtype is int32"),
    "int64": (dict(grads=lambda: to_device(np.ones((2, 3), "i8"))), DtypeError, "its dtype is int64"),
    "byte order": (dict(grads=lambda: Array(ROWS, typestr=">f4")), DtypeError, "its dtype is >f4"),
    "strides": (dict(grads=lambda: Array(ROWS, strides=(4, 8))), BackendError, r"strides \(1, 2\).*contiguous"),
    "mask": (dict(grads=lambda: Array(ROWS, mask=ROWS)), DtypeError, "mask"),
    "read-only": (dict(params=lambda: Array(ROWS, read_only=True)), ReadOnlyError, "parameter of leaf '' is read-only"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_refused_is_named_and_nothing_is_written(which):
    changes, error, match = REFUSED[which]
    made = {k: a() if callable(a) else a for k, a in changes.items()}
    with pytest.raises(error, match=match) as seen:
        step_with(**made)
    assert "\n" not in str(seen.value)


def test_overlap_is_refused():
    a = to_device(np.ones(6, "f4"))
    opt = amos_ref.Amos(0.1, 0.5, backend="cuda")
    with pytest.raises(OverlapError, match="gradient of leaf '' shares memory with parameter"):
        opt.step(a, a, opt.init(a))


def test_arrays_of_two_devices_are_refused(monkeypatch):
    opt, params, grads = amos_ref.Amos(0.1, 0.5, backend="cuda"), to_device(ROWS), to_device(ROWS)
    state, away = opt.init(params), device_array(grads, "g").address
    monkeypatch.setattr(cuda_driver, "device_of", lambda address: int(address == away))
    with pytest.raises(BackendError, match="theta of leaf '' is on device 0 and g of leaf '' on device 1"):
        opt.step(params, grads, state)


def test_no_room_for_the_tables_is_one_line_and_nothing_is_written(monkeypatch):
    def full(*args):
        raise BackendError("no room on the device for 8 bytes: out of memory")

    monkeypatch.setattr(arrays, "allocate", full)
    with pytest.raises(BackendError, match="no room"):
        step_with()


def test_gradients_and_parameters_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteError, match=r"gradient of leaf ''\[1, 2\] is nan"):
        step_with(grads=to_device(np.where(np.arange(6).reshape(2, 3) == 5, np.float32(np.nan), ROWS)))
    with pytest.raises(NonFiniteError, match=r"params leaf ''\[0, 0\] is inf"):
        amos_ref.Amos(0.1, 0.5, backend="cuda").init(to_device(ROWS * np.inf))


def test_validate_looks_at_every_parameter_and_state_value():
    opt = amos_ref.Amos(0.1, 0.5, backend="cuda", validate=True)
    params, grads = to_device(ROWS), to_device(ROWS)
    state = opt.step(params, grads, opt.init(params), sync=False)
    with pytest.raises(StateError, match=r"state\.v of leaf '' holds -1.0"):
        opt.step(params, grads, state._replace(v={"": to_device(np.array(-1.0))}))


def test_update_and_trace_say_where_they_are():
    opt, params = amos_ref.Amos(0.1, 0.5, backend="cuda"), to_device(ROWS)
    state = opt.init(params)
    for method in (opt.update, opt.trace):
        with pytest.raises(BackendError, match="computes in NumPy; with backend 'cuda' there is step"):
            method(params, state, params)


def test_a_callable_direction_is_refused_as_it_computes_in_numpy():
    with pytest.raises(BackendError, match="direction is a callable, which computes in NumPy; backend 'cuda' has"):
        amos_ref.ClosedFormAmos(half_life=10, direction=lambda name, g, t: g, backend="cuda")


def test_other_backends_say_what_to_do_with_arrays_on_a_gpu():
    params = Array(ROWS)
    with pytest.raises(BackendError, match="params leaf '' is on a GPU, where only backend 'cuda' steps it"):
        amos_ref.Amos(0.1, 0.5, backend="cpu").init(params)


@pytest.mark.skipif(SIMULATED, reason="there are no streams")
def test_streams_of_any_kind_are_taken_and_others_refused():
    stream = numba_cuda.stream()
    opt, params, grads = amos_ref.Amos(0.1, 0.5, backend="cuda"), to_device(ROWS), to_device(ROWS)
    state = opt.init(params)
    for given in (None, stream, int(stream), stream.handle, SimpleNamespace(ptr=int(stream)), 1, 2):
        state = opt.step(params, grads, state, stream=given)
    for given in ("default", 1.5, True):
        with pytest.raises(BackendError, match="must be a CUDA stream"):
            opt.step(params, grads, state, stream=given)
