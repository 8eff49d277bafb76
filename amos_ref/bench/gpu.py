"""A GPU by its driver's own calls: what it is, its free memory, a stream, graphs, and events that tell the time."""

import contextlib
import functools
import re
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from amos_ref.errors import BackendError
from amos_ref.kernels import check_backend
from amos_ref.kernels.cuda import driver as cuda_driver

NON_BLOCKING = 1  # a stream that does not wait for the default one, which must not be waited for in a recording
_VERSION = "/proc/driver/nvidia/version"


def check() -> None:
    """Raise MissingDependencyError or BackendError where there is no GPU to measure."""
    check_backend("cuda")
    if cuda_driver.simulated():
        raise BackendError("backend 'cuda' is Numba's simulator here; there is no GPU to measure")


def call(name: str, *args: Any) -> Any:
    """Return what a function of the driver returns, or raise BackendError."""
    return cuda_driver.checked(f"the GPU cannot be measured: {name} returned", getattr(_driver(), name)(*args))


@functools.cache
def _driver() -> Any:
    """Return the driver; its calls are about the device that is the current one from here on."""
    from cuda.bindings import driver
    from numba import cuda

    cuda.current_context()
    return driver


# the device


def described() -> dict[str, Any]:
    """Return what is known of the device, and does not depend on its clocks."""
    name = call("cuDeviceGetName", 100, call("cuCtxGetDevice"))
    return {
        "name": name.partition(b"\0")[0].decode(),
        "compute_capability": f"{_attribute('COMPUTE_CAPABILITY_MAJOR')}.{_attribute('COMPUTE_CAPABILITY_MINOR')}",
        "multiprocessors": _attribute("MULTIPROCESSOR_COUNT"),
        "l2_bytes": l2_bytes(),
        "memory_bytes": call("cuMemGetInfo")[1],
        "driver": _kernel_module(),
        "cuda": cuda_driver.version_text(call("cuDriverGetVersion")),
    }


def _attribute(name: str) -> int:
    which = getattr(_driver().CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return call("cuDeviceGetAttribute", which, call("cuCtxGetDevice"))


def _kernel_module() -> str | None:
    """Return the version of the driver, as Linux has it."""
    with contextlib.suppress(OSError), open(_VERSION, encoding="utf-8") as file:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.readline())
        return found and found.group()
    return None


def l2_bytes() -> int:
    """Return the size of the cache that all multiprocessors share."""
    return _attribute("L2_CACHE_SIZE")


def free_memory() -> int:
    """Return how many bytes can be had, with what Numba and torch keep for later given back."""
    from numba import cuda

    cuda.current_context().deallocations.clear()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    return call("cuMemGetInfo")[0]


# streams and graphs


@functools.cache
def stream() -> int:
    """Return the handle of the stream in which this package's steps and copies are timed."""
    return int(call("cuStreamCreate", NON_BLOCKING))


def synchronize(handle: int | None = None) -> None:
    """Wait for a stream, or for all that the device does."""
    if handle is None:
        call("cuCtxSynchronize")
    else:
        call("cuStreamSynchronize", handle)


class Graph:
    """What was launched in a stream while it was recorded."""

    def __init__(self, handle: int) -> None:
        self.stream, self.made = handle, None

    def launch(self) -> None:
        """Run all of it, in the stream it was recorded in."""
        call("cuGraphLaunch", self.made, self.stream)


@contextlib.contextmanager
def recorded(handle: int) -> Iterator[Graph]:
    """Record what is launched in a stream meanwhile; nothing is run."""
    graph = Graph(handle)
    # What other threads, of other frameworks, do to the device meanwhile is no part of it and no error.
    mode = _driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    call("cuStreamBeginCapture", handle, mode)
    try:
        yield graph
    except BaseException:
        _driver().cuStreamEndCapture(handle)
        raise
    found = call("cuStreamEndCapture", handle)
    graph.made = call("cuGraphInstantiate", found, 0)
    call("cuGraphDestroy", found)
    weakref.finalize(graph, _driver().cuGraphExecDestroy, graph.made).atexit = False


# time


def now(handle: int) -> Any:
    """Return an event that a stream passes when it is done with all before."""
    event = call("cuEventCreate", 0)
    call("cuEventRecord", event, handle)
    return event


def since(event: Any, handle: int) -> float:
    """Wait for a stream; return the seconds from when it passed the event until it was done with all."""
    end = now(handle)
    call("cuEventSynchronize", end)
    milliseconds = call("cuEventElapsedTime", event, end)
    for used in (event, end):
        call("cuEventDestroy", used)
    return milliseconds * 1e-3
