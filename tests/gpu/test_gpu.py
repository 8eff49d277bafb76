"""What only a GPU shows: large arrays, streams, graphs, and arrays of other libraries."""

import gc

import numpy as np
import pytest
from helpers import on_gpu
from helpers.on_gpu import call, new_stream, recording, same, same_state, tree
from numba import cuda

import amos_ref
from amos_ref.errors import BackendError, NonFiniteError
from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda.arrays import device_array, download

OPTIONS = dict(learning_rate=lambda t: 0.3 / t, eta=0.6, beta=0.75, extra_l2=0.05)


def optimizers(**changes):
    return [amos_ref.Amos(**(OPTIONS | changes), backend=backend) for backend in ("cpu", "cuda")]


@pytest.mark.parametrize("slot", ["tensor", "element", "(1, SHAPE[1])", "(SHAPE[0], 1)"])
@pytest.mark.parametrize("size", [1, 1000, 10**5, 10**6 + 1, 10**7, 10**8])
def test_sizes_up_to_a_hundred_million_have_the_bits_of_the_page(size, slot):
    # The CPU kernels stand for the page, whose bits they have: the page itself takes minutes and gigabytes here.
    if size > 10**7 and slot == "element":
        pytest.skip("slots of 10^8 elements take the host minutes")
    rng, shape = np.random.default_rng(size), (max(size // 1000, 1), min(size, 1000))
    params, grads = (rng.standard_normal(shape, np.float32) for _ in range(2))
    ours, theirs = optimizers(slot_shape=slot)
    there, gradient = cuda.to_device(params), cuda.to_device(grads)
    state, state_there = ours.init(params), theirs.init(there)
    for _ in range(2):
        state, state_there = ours.step(params, grads, state), theirs.step(there, gradient, state_there)
    assert there.copy_to_host().tobytes() == params.tobytes()
    assert state_there.v[""].copy_to_host().tobytes() == state.v[""].tobytes()
    gc.collect()


@pytest.mark.parametrize("direction", ["gradient", "sign", "adam"])
@pytest.mark.parametrize("slot", ["tensor", "element", "(1, SHAPE[1])", "(SHAPE[0], 1)"])
@pytest.mark.parametrize("size", [1, 1000, 10**5, 10**6 + 1, 10**7])
def test_the_closed_form_has_the_bits_of_the_page_at_any_size(size, slot, direction):
    rng, shape = np.random.default_rng(size), (max(size // 1000, 1), min(size, 1000))
    params, grads = (rng.standard_normal(shape, np.float32) for _ in range(2))
    ours, theirs = on_gpu.pair(direction, slot_shape=slot)
    there, gradient = cuda.to_device(params), cuda.to_device(grads)
    state, state_there = ours.init(params), theirs.init(there)
    for _ in range(2):
        state, state_there = ours.step(params, grads, state), theirs.step(there, gradient, state_there)
    same({"": params}, {"": there})
    same_state(state, state_there)
    if size > 1:
        rng.shuffle(grads.reshape(-1))
        grads[-1, -1] = np.nan
        gradient.copy_to_device(grads)
        with pytest.raises(NonFiniteError, match=rf"gradient of leaf ''\[{shape[0] - 1}, {shape[1] - 1}\] is nan"):
            theirs.step(there, gradient, state_there)
        same({"": params}, {"": there})
        same_state(state, state_there)
    gc.collect()


def test_one_slot_of_a_hundred_million_elements_is_the_pages():
    rng = np.random.default_rng(3)
    params, grads = (rng.standard_normal(10**8, np.float32) for _ in range(2))
    ours, theirs = optimizers()
    there = cuda.to_device(params)
    theirs.step(there, cuda.to_device(grads), theirs.init(there))
    ours.step(params, grads, ours.init(params))
    assert there.copy_to_host().tobytes() == params.tobytes()


# streams


def stepped(times=5, **launch):
    """Steps in a stream beside the same steps on the host."""
    params, grads = tree(1), tree(2)
    ours, theirs = optimizers(momentum=0.9)
    there, gradients = ({k: cuda.to_device(a) for k, a in t.items()} for t in (params, grads))
    state, state_there = ours.init(params), theirs.init(there)
    for _ in range(times):
        state, state_there = ours.step(params, grads, state), theirs.step(there, gradients, state_there, **launch)
    theirs.synchronize(stream=launch.get("stream"))
    same(params, there)


@pytest.mark.parametrize("sync", [True, False])
def test_any_stream_gives_the_same_bits(sync):
    stream = cuda.stream()
    for given in (None, stream, int(stream), stream.handle, new_stream(), 1, 2):
        stepped(stream=given, sync=sync)


def test_a_stream_of_torch_and_of_cupy():
    torch, cupy = pytest.importorskip("torch"), pytest.importorskip("cupy")
    stepped(stream=torch.cuda.Stream(), sync=False)
    stepped(stream=torch.cuda.current_stream())
    stepped(stream=cupy.cuda.Stream(non_blocking=True), sync=False)


@pytest.mark.skipif(len(cuda.gpus) < 2, reason="one GPU")
def test_a_stream_and_arrays_of_another_device_are_refused():
    with cuda.gpus[1]:
        stream, away = cuda.stream(), cuda.to_device(np.ones(3, np.float32))
    a = cuda.to_device(np.ones(3, np.float32))
    opt = optimizers()[1]
    state = opt.init(a)
    with pytest.raises(BackendError, match="stream belongs to device 1"):
        opt.step(a, cuda.to_device(np.ones(3, np.float32)), state, stream=stream)
    with pytest.raises(BackendError, match=r"on device 0 and .* on device 1"):
        opt.step(a, away, state)


def test_no_room_for_the_tables_is_named(monkeypatch):
    a = cuda.to_device(np.ones(3, np.float32))
    opt = optimizers()[1]
    state = opt.init(a)
    room = arrays.allocate
    monkeypatch.setattr(arrays, "allocate", lambda count: room(2**50))
    with pytest.raises(BackendError, match="no room on the device for 9007199254740992 bytes"):
        opt.step(a, cuda.to_device(np.ones(3, np.float32)), state)
    assert np.array_equal(a.copy_to_host(), np.ones(3, np.float32))


# graphs


def here_and_there(**changes):
    """Two optimizers after one step in a stream, with all that a second one takes, on the host and on the device."""
    params, grads = tree(1), tree(2)
    ours, theirs = optimizers(**changes)
    there, gradients = ({k: cuda.to_device(a) for k, a in t.items()} for t in (params, grads))
    cuda.synchronize()
    stream = new_stream()
    state_there = theirs.step(there, gradients, theirs.init(there), stream=stream, sync=False)
    return (
        (ours, params, grads, ours.step(params, grads, ours.init(params))),
        (theirs, there, gradients, state_there),
        stream,
    )


def test_a_graph_replays_the_bits_of_eager_steps():
    (ours, params, grads, state), (theirs, there, gradients, state_there), stream = here_and_there(momentum=0.9)
    graphs = []
    with recording(stream, graphs):
        assert theirs.step(there, gradients, state_there, stream=stream, sync=False) is state_there
    for t in range(4):
        for name, g in tree(10 + t).items():
            grads[name][...] = g
            gradients[name].copy_to_device(g)
        cuda.synchronize()
        state, state_there = ours.step(params, grads, state), theirs.advance(state_there, stream=stream)
        call("cuGraphLaunch", graphs[0], stream)
    theirs.synchronize(stream=stream)
    same(params, there)
    ours.step(params, grads, state)
    theirs.step(there, gradients, state_there, stream=stream)
    same(params, there)


def test_a_graph_outlives_its_optimizer():
    (ours, params, grads, state), (theirs, there, gradients, state_there), stream = here_and_there(learning_rate=0.3)
    graphs = []
    with recording(stream, graphs):
        theirs.step(there, gradients, state_there, stream=stream, sync=False)
    theirs.synchronize(stream=stream)
    del theirs
    gc.collect()
    others = [cuda.to_device(np.full(n, 2**62)) for n in (1, 9, 12, 100) for _ in range(20)]
    cuda.synchronize()
    call("cuGraphLaunch", graphs[0], stream)
    call("cuStreamSynchronize", stream)
    ours.step(params, grads, state)
    same(params, there)
    assert all((a.copy_to_host() == 2**62).all() for a in others)


def test_what_cannot_be_recorded_is_refused_and_spoils_no_recording():
    _, (theirs, there, gradients, state), stream = here_and_there()
    others = {name: cuda.to_device(a) for name, a in tree(3).items()}
    graphs = []
    with recording(stream, graphs):
        for refused in (theirs.advance, lambda state, stream: theirs.synchronize(stream=stream)):
            with pytest.raises(BackendError, match="into a graph only a step is recorded"):
                refused(state, stream=stream)
        theirs.step(there, gradients, state, stream=stream, sync=False)
        with pytest.raises(BackendError, match="only after a step with the same arrays"):
            theirs.step(there, others, state, stream=stream)
    assert len(graphs) == 1


def test_a_step_beside_the_recording_of_another_stream():
    (ours, params, grads, state), (theirs, there, gradients, state_there), stream = here_and_there()
    graphs = []
    with recording(new_stream(), graphs):
        state_there = theirs.step(there, gradients, state_there, stream=stream)
    ours.step(params, grads, state)
    same(params, there)
    with recording(new_stream(flags=0), graphs), pytest.raises(BackendError, match="give that one as stream"):
        theirs.step(there, gradients, state_there)
    same(params, there)


def test_a_torch_graph_replays_the_bits_of_eager_steps():
    torch = pytest.importorskip("torch")
    params, grads = tree(1), tree(2)
    ours, theirs = optimizers(momentum=0.9)
    there, gradients = ({k: torch.from_numpy(a.copy()).cuda() for k, a in t.items()} for t in (params, grads))
    state, state_there = ours.init(params), theirs.init(there)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    state = ours.step(params, grads, state)
    state_there = theirs.step(there, gradients, state_there, stream=stream)
    with torch.cuda.graph(graph, stream=stream):
        assert theirs.step(there, gradients, state_there, stream=stream, sync=False) is state_there
    for t in range(4):
        for name, g in tree(10 + t).items():
            grads[name][...] = g
            gradients[name].copy_(torch.from_numpy(g))
        torch.cuda.synchronize()
        state, state_there = ours.step(params, grads, state), theirs.advance(state_there, stream=stream)
        with torch.cuda.stream(stream):
            graph.replay()
    theirs.synchronize(stream=stream)
    assert state_there.count == state.count == 5
    same(params, there)


def test_a_replay_with_a_gradient_that_is_not_finite_writes_nothing():
    torch = pytest.importorskip("torch")
    theirs = optimizers()[1]
    there, gradients = ({k: torch.from_numpy(a).cuda() for k, a in tree(seed).items()} for seed in (1, 2))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    state = theirs.step(there, gradients, theirs.init(there), stream=stream)
    with torch.cuda.graph(graph, stream=stream):
        theirs.step(there, gradients, state, stream=stream, sync=False)
    before = {k: a.cpu().numpy().copy() for k, a in there.items()}
    gradients["b"][7] = float("nan")
    torch.cuda.synchronize()
    theirs.advance(state, stream=stream)
    with torch.cuda.stream(stream):
        graph.replay()
    with pytest.raises(NonFiniteError, match="'b'"):
        theirs.synchronize(stream=stream)
    same(before, there)


# arrays of other libraries


@pytest.mark.parametrize("member", ["schedule", "gradient", "sign", "adam"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_are_stepped_in_place(dtype, member):
    torch = pytest.importorskip("torch")
    slots = {"b": "element", "w": "(1, SHAPE[1])", "e": "(SHAPE[0], 1)"}
    ours, theirs = on_gpu.pair(member, slot_shape=slots, **dict(state_dtype="param") if member == "schedule" else {})
    tensors = {name: torch.from_numpy(a).cuda().to(getattr(torch, dtype)) for name, a in tree(1).items()}
    gradients = {name: torch.from_numpy(a).cuda().to(getattr(torch, dtype)) for name, a in tree(2).items()}
    params, grads = ({k: download(device_array(a, k)) for k, a in t.items()} for t in (tensors, gradients))
    leaves = {name: torch.nn.Parameter(a) for name, a in tensors.items()}
    state = theirs.step(leaves, gradients, theirs.init(leaves))
    theirs.step(leaves, gradients, state)
    ours.step(params, grads, ours.step(params, grads, ours.init(params)))
    same(params, leaves)


def test_cupy_arrays_are_stepped_in_place():
    cupy = pytest.importorskip("cupy")
    ours, theirs = optimizers()
    params, grads = tree(1), tree(2)
    there, gradients = ({k: cupy.asarray(a) for k, a in t.items()} for t in (params, grads))
    theirs.step(there, gradients, theirs.init(there))
    ours.step(params, grads, ours.init(params))
    same(params, there)
    with pytest.raises(BackendError, match="strides"):
        theirs.init({"w": there["w"].T})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_jax_are_read_in_place(dtype, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX has no GPU")
    ours, theirs = optimizers()
    params = tree(1)
    gradients = {name: jax.numpy.asarray(a).astype(dtype) for name, a in tree(2).items()}
    jax.block_until_ready(gradients)
    grads = {name: np.asarray(a) for name, a in gradients.items()}
    there = {name: cuda.to_device(a) for name, a in params.items()}
    theirs.step(there, gradients, theirs.init(there))
    ours.step(params, grads, ours.init(params))
    same(params, there)
