"""What the CUDA backend asks of the driver beside launches, with a stand-in for the driver that copies late."""

import ctypes
import gc
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from amos_ref.kernels.cuda import arrays, graphs
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import DeviceArray, Marks


class Driver:
    """A driver that does what was asked of a stream when that is waited for, and graphs that tell when they go."""

    class CUgraph:
        posts = ()

    def __init__(self):
        self.late, self.log, self.held, self.graph = [], [], [], None
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)
        self.CUuserObjectRetain_flags = SimpleNamespace(CU_GRAPH_USER_OBJECT_MOVE=1)
        self.CUstream, self.CUhostFn = int, lambda function: function

    def __getattr__(self, name):
        def ask(*args):
            self.log.append((name, *args))
            return (0, self.CUgraph() if name == "cuStreamEndCapture" else 7)

        return ask

    def cuMemcpyHtoDAsync(self, target, source, size, stream):
        self.late.append(lambda: ctypes.memmove(target, source, size))
        return (0,)

    def cuMemsetD32Async(self, target, word, count, stream):
        assert count == 1
        self.late.append(lambda: ctypes.c_uint32.from_address(target).__setattr__("value", word))
        return (0,)

    def cuStreamSynchronize(self, stream):
        for do in self.late:
            do()
        self.late.clear()
        return (0,)

    def cuStreamGetCaptureInfo(self, stream):
        return 0, 1, 5, self.graph, [], 0

    def cuUserObjectCreate(self, pointer, destroy, count, flags):
        return 0, (pointer, destroy)

    def cuGraphRetainUserObject(self, graph, owned, count, flags):
        pointer, destroy = owned
        # What is retained is given back by a call from a thread of the driver's.
        weakref.finalize(graph, ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(destroy), pointer)
        return (0,)


@pytest.fixture
def made_up(monkeypatch):
    made = Driver()
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=made))
    monkeypatch.setattr(cuda_driver, "simulated", lambda: False)
    return made


def device(host):
    return DeviceArray(host.shape, host.dtype, host.ctypes.data, True, host)


def puts(made, count):
    """Whether numbers reach their place, though the driver copies late and their memory is used anew meanwhile."""
    there, host = device(np.zeros(count)), np.arange(1.0, count + 1)
    wanted = host.copy()
    arrays.refill(there, host, 9)
    host[:] = -1.0  # as if it was freed
    made.cuStreamSynchronize(9)
    return np.array_equal(there.source, wanted)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 1000])
def test_nothing_is_copied_from_memory_that_is_gone(made_up, count):
    assert puts(made_up, count)


def test_a_copy_that_is_not_waited_for_would_be_seen(made_up, monkeypatch):
    monkeypatch.setattr(cuda_driver, "synchronize", lambda stream: None)
    assert not puts(made_up, 1000)


def test_only_numbers_that_differ_are_set_and_both_words_of_what_is_not_known(made_up):
    known, host = np.array([1.0, np.nan, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 5.0])
    there = device(np.array([1.0, 1 / 3, 3.0, 4.0]))  # a word of the NaN is one of 2.0's, and none of 1/3's
    arrays.refill(there, host, 9, known)
    assert len(made_up.late) == 4
    made_up.cuStreamSynchronize(9)
    assert np.array_equal(there.source, host)


def test_a_recording_is_made_in_a_stream_of_its_own_and_replayed_in_any(made_up):
    replay = graphs.record(lambda stream: made_up.log.append(("launch", stream)))
    names = [name for name, *_ in made_up.log]
    assert (
        names
        == "cuStreamCreate cuStreamBeginCapture launch cuStreamEndCapture cuGraphInstantiate cuGraphDestroy "
        "cuStreamDestroy".split()
    )
    assert ("launch", 7) in made_up.log
    replay(11)
    assert made_up.log[-1] == ("cuGraphLaunch", 7, 11)
    del replay
    gc.collect()
    assert made_up.log[-1] == ("cuGraphExecDestroy", 7)


def test_a_recording_that_fails_ends(made_up):
    def launch(stream):
        raise KeyError

    with pytest.raises(KeyError):
        graphs.record(launch)
    assert [name for name, *_ in made_up.log][-2:] == ["cuStreamEndCapture", "cuStreamDestroy"]


@pytest.mark.skipif(sys.platform != "linux", reason="semaphores of C's")
def test_what_a_graph_reads_is_kept_until_it_is_gone(made_up):
    owners = [SimpleNamespace(name=name) for name in "ab"]
    made_up.graph = first = Driver.CUgraph()
    graphs.keep(owners[0], 3)
    made_up.graph = second = Driver.CUgraph()
    graphs.keep(owners[0], 3)
    graphs.keep(owners[1], 3)
    assert all(map(graphs.is_kept, owners))
    del first
    assert all(map(graphs.is_kept, owners))
    del second
    made_up.graph = None
    gc.collect()
    assert not any(map(graphs.is_kept, owners))
    assert graphs._read == []


def test_without_semaphores_it_is_kept_for_ever(made_up, monkeypatch):
    monkeypatch.setattr(graphs, "_semaphore", lambda: None)
    owner = SimpleNamespace()
    graphs.keep(owner, 3)
    assert graphs.is_kept(owner)
    graphs._read.clear()


class Tensor:
    """An array that may change in place, as torch's do."""

    def __init__(self, **changed):
        self.parts = dict(address=1024, shape=(2, 3), dtype="float", whole=True) | changed

    def data_ptr(self):
        return self.parts["address"]

    def is_contiguous(self):
        return self.parts["whole"]

    shape = property(lambda self: self.parts["shape"])
    dtype = property(lambda self: self.parts["dtype"])


@pytest.mark.parametrize("change", [dict(address=1040), dict(shape=(3, 2)), dict(dtype="half"), dict(whole=False)])
def test_marks_hold_of_the_same_objects_as_they_were(change):
    found = [Tensor(), Tensor(), Tensor()]
    marks = Marks.of(found)
    assert marks.hold(found)
    assert not marks.hold([found[0], Tensor(), found[2]])
    assert not marks.hold(found[::-1])
    assert not marks.hold(found[:2])
    found[1].parts |= change
    assert not marks.hold(found)


def test_marks_hold_no_array_and_know_when_one_is_gone():
    found = [Tensor(), Tensor()]
    marks = Marks.of(found)
    found[1] = None
    gc.collect()
    assert not marks.alive
    assert Marks.of([np.zeros(3)]) is None  # of which nothing is known
