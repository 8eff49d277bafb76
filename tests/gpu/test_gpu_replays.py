"""What only a GPU shows of recorded steps: those of the caller's graphs, which count by themselves, and bound ones."""

import gc
import time

import numpy as np
import pytest
from helpers import on_gpu
from helpers.on_gpu import MEMBERS, call, new_stream, recording, same, same_state, tree
from numba import cuda

import amos_ref
from amos_ref import spec
from amos_ref.errors import BackendError, NonFiniteError
from amos_ref.kernels.cuda import arrays, driver, graphs
from amos_ref.kernels.cuda import rates as moving
from amos_ref.kernels.cuda.slots import NONE


def pair(member, stream, **changes):
    """Two optimizers after two steps, the second of which is a replay, with what they step."""
    ours, theirs = on_gpu.pair(member, **changes)
    params, grads = tree(1), tree(2)
    there, gradients = ({k: cuda.to_device(a) for k, a in t.items()} for t in (params, grads))
    cuda.synchronize()
    state, state_there = ours.init(params), theirs.init(there)
    for _ in range(2):
        state = ours.step(params, grads, state)
        state_there = theirs.step(there, gradients, state_there, stream=stream, sync=False)
    return [ours, params, grads, state], [theirs, there, gradients, state_there]


def recorded(theirs, stream):
    graphs_made = []
    opt, there, gradients, state = theirs
    with recording(stream, graphs_made):
        assert opt.step(there, gradients, state, stream=stream, sync=False) is state
    return graphs_made[0]


def test_the_second_step_is_recorded_and_later_ones_replay_it():
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair("schedule", stream)
    work = theirs._last.peek().work
    assert work.own is not None
    for where in (stream, None, cuda.stream()):
        cuda.synchronize()
        state, state_there = ours.step(params, grads, state), theirs.step(there, gradients, state_there, stream=where)
    assert theirs._last.peek().work is work
    same(params, there)


def test_replays_at_a_constant_rate_count_by_themselves():
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair("constant", stream)
    graph = recorded((theirs, there, gradients, state_there), stream)
    for _ in range(20):
        call("cuGraphLaunch", graph, stream)
        state = ours.step(params, grads, state)
    theirs.synchronize(stream=stream)
    same(params, there)
    state_there = state_there._replace(count=state.count)
    for _ in range(2):  # steps of its own in between, then replays go on after them
        state_there = theirs.step(there, gradients, state_there, stream=stream)
        state = ours.step(params, grads, state)
        call("cuGraphLaunch", graph, stream)
        state = ours.step(params, grads, state)
        state_there = state_there._replace(count=state.count)
    theirs.synchronize(stream=stream)
    same(params, there)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_steps_are_made_ready_ahead(member, steps):
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair(member, stream)
    graph = recorded((theirs, there, gradients, state_there), stream)
    for _ in range(2):
        state_there = theirs.advance(state_there, stream=stream, steps=steps)
        for _ in range(steps):
            call("cuGraphLaunch", graph, stream)
            state = ours.step(params, grads, state)
    theirs.synchronize(stream=stream)
    same_state(state, state_there)
    same(params, there)


@pytest.mark.parametrize("member", [name for name in MEMBERS if name != "constant"])
def test_a_replay_too_many_writes_nothing_and_is_named(member):
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair(member, stream)
    graph = recorded((theirs, there, gradients, state_there), stream)
    state_there = theirs.advance(state_there, stream=stream, steps=2)
    for _ in range(5):
        call("cuGraphLaunch", graph, stream)
    for _ in range(2):
        state = ours.step(params, grads, state)
    with pytest.raises(BackendError, match="a replay found no numbers"):
        theirs.synchronize(stream=stream)
    same(params, there)
    same_state(state, state_there)
    state = ours.step(params, grads, state)
    state_there = theirs.step(there, gradients, state_there, stream=stream)
    same(params, there)
    same_state(state, state_there)


def test_a_learning_rate_that_is_set_reaches_replays_by_advance():
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair("constant", stream)
    graph = recorded((theirs, there, gradients, state_there), stream)
    for rate in (0.1, lambda t: 0.2 / t, 0.3):
        for opt in (ours, theirs):
            opt.set_learning_rate(rate)
        state_there = theirs.advance(state_there, stream=stream, steps=2)
        for _ in range(2):
            call("cuGraphLaunch", graph, stream)
            state = ours.step(params, grads, state)
    theirs.synchronize(stream=stream)
    assert state_there.count == state.count
    same(params, there)


def test_a_recording_needs_a_step_before_it():
    stream, graphs_made = new_stream(), []
    opt = amos_ref.Amos(0.3, 0.6, backend="cuda")
    there, gradients = ({k: cuda.to_device(a) for k, a in tree(seed).items()} for seed in (1, 2))
    cuda.synchronize()
    state = opt.init(there)
    with pytest.raises(BackendError, match="advance needs a step"):
        opt.advance(state, stream=stream)
    with recording(stream, graphs_made), pytest.raises(BackendError, match="only after a step with the same arrays"):
        opt.step(there, gradients, state, stream=stream)
    assert opt.step(there, gradients, state, stream=stream).count == 1


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 1 - 2**-53])
def test_a_million_powers_are_the_pages(beta):
    rates, flag = arrays.allocate(5), arrays.upload(np.array([NONE]))
    for t in (1, 2, 3, 1000, 12345, 999_999, 2**31 + 1, 2**53 + 1, 2**62 + 5):
        place = arrays.upload(np.array([t - 1, 0, moving.STEADY, 0]))
        driver.launcher(moving.next_numbers, 1, 1, 0)(rates.address, 2, place.address, flag.address, beta)
        assert arrays.download(rates)[0] == spec.one_minus_power(beta, t)


def test_tables_go_when_the_graphs_that_read_them_are_gone():
    stream = new_stream()
    _, theirs = pair("constant", stream)
    work = theirs[0]._last.peek().work
    assert not graphs.is_kept(work)
    from cuda.bindings import driver as cu

    executable = recorded(theirs, stream)  # the graph itself is still there too
    assert graphs.is_kept(work)
    call("cuGraphLaunch", executable, stream)
    theirs[0].synchronize(stream=stream)
    assert graphs.is_kept(work)
    cu.cuGraphExecDestroy(executable)
    assert graphs.is_kept(work)  # `recording` leaves the graph


def test_tables_go_with_a_graph_of_torch():
    torch = pytest.importorskip("torch")
    options = dict(eta=0.6, backend="cuda")
    opt = amos_ref.Amos(0.3, **options)
    there, gradients = ({k: torch.from_numpy(a).cuda() for k, a in tree(seed).items()} for seed in (1, 2))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    state = opt.step(there, gradients, opt.init(there), stream=stream)
    work = opt._last.peek().work
    with torch.cuda.graph(graph, stream=stream):
        opt.step(there, gradients, state, stream=stream, sync=False)
    graph.replay()
    torch.cuda.synchronize()
    assert graphs.is_kept(work)
    graph.reset()
    del graph
    gc.collect()
    for _ in range(1000):  # the driver tells from a thread of its own
        if not graphs.is_kept(work):
            break
        time.sleep(0.005)
    assert not graphs.is_kept(work)


def refuse(bound):
    """Take a step whose gradient is not finite, which is told at once or later; the state counts it in neither case."""
    bound()
    bound.synchronize()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("slot", ["tensor", "element", {"b": "element", "w": "(1, SHAPE[1])", "e": "(SHAPE[0], 1)"}])
@pytest.mark.parametrize("sync", [True, False])
def test_bound_steps_have_the_bits_of_the_page(member, slot, sync):
    stream = new_stream()
    (ours, params, grads, state), (theirs, there, gradients, state_there) = pair(member, stream, slot_shape=slot)
    with theirs.bind(there, gradients, state_there, stream=stream, sync=sync) as bound:
        for t in range(6):
            for name, g in tree(10 + t).items():
                grads[name][...] = g
                gradients[name].copy_to_device(g)
            cuda.synchronize()
            state, now = ours.step(params, grads, state), bound()
            bound.synchronize()
            same(params, there)
            same_state(state, now)
        if slot == "tensor":
            gradients["b"].copy_to_device(np.full(300, np.nan, np.float32))
            cuda.synchronize()
            with pytest.raises(NonFiniteError, match="'b'"):
                refuse(bound)
            same(params, there)
            same_state(state, bound.state)


@pytest.mark.parametrize("member", MEMBERS)
def test_bound_steps_of_tensors_can_be_recorded_too(member):
    torch = pytest.importorskip("torch")
    ours, theirs = on_gpu.pair(member)
    params, grads = tree(1), tree(2)
    there, gradients = ({k: torch.from_numpy(a.copy()).cuda() for k, a in t.items()} for t in (params, grads))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    bound = theirs.bind(there, gradients, theirs.init(there), stream=stream)
    state = ours.init(params)
    for _ in range(4):
        bound()
        state = ours.step(params, grads, state)
    same(params, there)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        assert bound().count == 4
    if member == "constant":
        graph.replay()
        torch.cuda.synchronize()
        ours.step(params, grads, state)
        same(params, there)
    bound.close()


@pytest.mark.parametrize("make", ["numba", "torch"])
def test_the_very_same_arrays_are_asked_for_little(make, monkeypatch):
    torch = pytest.importorskip("torch") if make == "torch" else None
    move = cuda.to_device if torch is None else lambda a: torch.from_numpy(a.copy()).cuda()
    opt = amos_ref.Amos(0.3, 0.6, backend="cuda")
    there, gradients = ({k: move(a) for k, a in tree(seed).items()} for seed in (1, 2))
    state = opt.step(there, gradients, opt.init(there))
    layout = opt._last.peek()
    assert layout.watch.marks.alive
    state = opt.step(there, gradients, state)
    assert opt._last.peek() is layout
    gradients["b"] = move(tree(3)["b"])
    opt.step(there, gradients, state)
    assert opt._last.peek() is not layout
