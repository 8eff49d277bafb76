"""A made-up GPU behind the driver's functions: it runs nothing, and it has a clock of its own."""

import sys
from types import SimpleNamespace

import numpy as np

import amos_ref
from amos_ref.bench import gpu
from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import DeviceArray

L2 = 50_000_000
ATTRIBUTES = dict(L2_CACHE_SIZE=L2, COMPUTE_CAPABILITY_MAJOR=9, COMPUTE_CAPABILITY_MINOR=0, MULTIPROCESSOR_COUNT=132)
STREAM = 77


class Driver:
    """A device that works off what is launched in turn, in the time that each thing takes, while the host goes on.

    `host` is the time of the host in seconds, and `done` the time at which the device will have finished everything.
    """

    def __init__(self, free=10**11):
        self.host, self.done, self.free, self.recording, self.log = 0.0, 0.0, free, None, []
        self.CUdevice_attribute = SimpleNamespace(**{f"CU_DEVICE_ATTRIBUTE_{name}": name for name in ATTRIBUTES})
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread local")

    def work(self, what, seconds, host=0.0):
        self.host += host
        if self.recording is not None:
            self.recording.append((what, seconds))
            return
        self.log.append(what)
        self.done = max(self.done, self.host) + seconds

    def wait(self):
        self.host = max(self.host, self.done)
        return (0,)

    def cuDeviceGetName(self, length, device):
        return 0, b"Made-up GPU".ljust(length, b"\0")

    def cuDriverGetVersion(self):
        return 0, 13010

    def cuCtxGetDevice(self):
        return 0, 0

    def cuDeviceGetAttribute(self, which, device):
        return 0, ATTRIBUTES[which]

    def cuMemGetInfo(self):
        return 0, self.free, 2 * self.free

    def cuStreamCreate(self, flags):
        assert flags == 1  # a blocking stream cannot be recorded while the default stream is used
        return 0, STREAM

    def cuCtxSynchronize(self):
        return self.wait()

    def cuStreamSynchronize(self, stream):
        return self.wait()

    def cuEventSynchronize(self, event):
        return self.wait()

    def cuEventCreate(self, flags):
        assert flags == 0  # others tell no time
        return 0, {}

    def cuEventRecord(self, event, stream):
        assert stream == STREAM
        event["at"] = max(self.done, self.host)
        return (0,)

    def cuEventElapsedTime(self, start, end):
        assert end["at"] <= self.host, "asked before it is done"
        return 0, (end["at"] - start["at"]) * 1e3

    def cuEventDestroy(self, event):
        event.clear()
        return (0,)

    def cuStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (0,)

    def cuStreamEndCapture(self, stream):
        graph, self.recording = self.recording, None
        return 0, graph

    def cuGraphInstantiate(self, graph, flags):
        return 0, list(graph)

    def cuGraphDestroy(self, graph):
        return (0,)

    cuGraphExecDestroy = cuGraphDestroy

    def cuGraphLaunch(self, graph, stream):
        assert stream == STREAM
        self.host += 2e-6
        for what, seconds in graph:
            self.work(what, seconds)
        return (0,)

    def cuMemcpyDtoDAsync(self, target, source, size, stream):
        assert (target, source, stream) == (2, 1, STREAM)
        self.work(f"copy {size}", 2 * size / 2e12)
        return (0,)


class Opt:
    """Stands for amos_ref.Amos: a step moves 16 bytes a parameter at 1.8 TB/s, and advance takes 10 us of the host."""

    driver: Driver

    def __init__(self, *args, **options):
        assert options["backend"] == "cuda"

    def init(self, params):
        self.parameters = sum(a.size for a in params.values())
        return 0

    def step(self, params, grads, state, *, stream, sync=True):
        assert stream == STREAM
        assert sync is (self.driver.recording is None)  # nothing may wait in a recording
        self.driver.work("step", 16 * self.parameters / 1.8e12)
        return state + 1

    def advance(self, state, *, stream):
        assert stream == STREAM
        self.driver.work("advance", 1e-6, host=10e-6)
        return state + 1

    def synchronize(self, *, stream):
        self.driver.wait()


def replace_driver(monkeypatch):
    """Put a made-up driver in the place of the real one, and return it."""
    driver = Driver()
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=driver))
    monkeypatch.setattr(gpu, "_use_device", lambda: None)
    monkeypatch.setattr(cuda_driver, "simulated", lambda: False)
    return driver


def install(monkeypatch):
    """Put a made-up GPU, with made-up arrays and steps, in the place of the real one; return its driver."""
    driver = replace_driver(monkeypatch)
    monkeypatch.setattr(gpu, "find_stream", lambda: STREAM)
    monkeypatch.setattr(gpu, "check", lambda: None)
    monkeypatch.setattr(gpu, "read_free_memory", lambda: driver.free)
    monkeypatch.setattr(Opt, "driver", driver, raising=False)
    monkeypatch.setattr(amos_ref, "Amos", Opt)
    monkeypatch.setattr(arrays, "copy_to_device", lambda a: a)
    monkeypatch.setattr(arrays, "upload", lambda a: DeviceArray(a.shape, a.dtype, 1, True, a))
    monkeypatch.setattr(arrays, "allocate", lambda n: DeviceArray((n,), np.dtype(float), 2, True, None))
    return driver
