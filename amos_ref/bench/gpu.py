"""What the benchmark asks of a GPU's driver: facts about the device, its free memory, a stream, recorded launches."""

import contextlib
import functools
import re
import sys
import weakref
from collections.abc import Callable
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
    _use_device()
    return cuda_driver.call(f"the GPU cannot be measured, as {name} failed", name, *args)


@functools.cache
def _use_device() -> None:
    """Make the first device the current one, to which the driver's functions refer."""
    from numba import cuda

    cuda.current_context()


# the device


def describe() -> dict[str, Any]:
    """Return what is known of the device and does not depend on its clocks."""
    name = call("cuDeviceGetName", 100, call("cuCtxGetDevice"))
    return {
        "name": name.partition(b"\0")[0].decode(),
        "compute_capability": f"{_attribute('COMPUTE_CAPABILITY_MAJOR')}.{_attribute('COMPUTE_CAPABILITY_MINOR')}",
        "multiprocessors": _attribute("MULTIPROCESSOR_COUNT"),
        "l2_bytes": read_l2_bytes(),
        "memory_bytes": call("cuMemGetInfo")[1],
        "driver": _kernel_module(),
        "cuda": cuda_driver.version_text(call("cuDriverGetVersion")),
    }


def _attribute(name: str) -> int:
    from cuda.bindings import driver

    which = getattr(driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return call("cuDeviceGetAttribute", which, call("cuCtxGetDevice"))


def _kernel_module() -> str | None:
    """Return the version of the driver's kernel module, which Linux tells."""
    with contextlib.suppress(OSError), open(_VERSION, encoding="utf-8") as file:
        match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.readline())
        return match and match.group()
    return None


def read_l2_bytes() -> int:
    """Return the size of the cache that all multiprocessors share."""
    return _attribute("L2_CACHE_SIZE")


def read_free_memory() -> int:
    """Return how many bytes are free, after Numba and torch gave back what they keep for later."""
    from numba import cuda

    cuda.current_context().deallocations.clear()
    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
    return call("cuMemGetInfo")[0]


# streams and recordings


@functools.cache
def find_stream() -> int:
    """Return the handle of the one stream in which this package's steps and copies are timed."""
    return int(call("cuStreamCreate", NON_BLOCKING))


def record(stream: int, launch: Callable[[], Any]) -> Callable[[], None]:
    """Record what a function launches in a stream, without running it; return a function that runs it there."""
    from cuda.bindings import driver

    # In this mode other threads, such as those of other frameworks, may use the device meanwhile.
    call("cuStreamBeginCapture", stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
    try:
        launch()
    except BaseException:
        driver.cuStreamEndCapture(stream)
        raise
    graph = call("cuStreamEndCapture", stream)
    executable = call("cuGraphInstantiate", graph, 0)
    call("cuGraphDestroy", graph)
    replay = functools.partial(call, "cuGraphLaunch", executable, stream)
    weakref.finalize(replay, driver.cuGraphExecDestroy, executable).atexit = False
    return replay
