"""Devices, streams and memory, with errors that say what to do. In the simulator there is one device and one stream."""

import contextlib
import ctypes
import functools
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from amos_ref.device import DeviceArray, memory
from amos_ref.errors import BackendError, MissingDependencyError

INSTALL = "backend 'cuda' needs numba-cuda: pip install 'amos_ref[cuda]'"


def check() -> None:
    """Raise MissingDependencyError or BackendError where no CUDA kernel can run."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise MissingDependencyError(INSTALL)
    reason = _reason()
    if reason is not None:
        raise BackendError(f"backend 'cuda' cannot be used here: {reason}")


def usable() -> bool:
    """Whether CUDA kernels can run, on a GPU or in the simulator."""
    try:
        check()
    except (MissingDependencyError, BackendError):
        return False
    return True


def status() -> str:
    """Return one line: which device there is, or why there is none to use."""
    try:
        check()
    except (MissingDependencyError, BackendError) as error:
        return str(error)
    from numba import cuda

    device = cuda.get_current_device()
    if simulated():
        return "Numba's simulator"
    name = device.name.decode() if isinstance(device.name, bytes) else device.name
    return f"{name}, driver for CUDA {_version(_driver_version())}"


def simulated() -> bool:
    """Whether this process runs kernels in Numba's simulator."""
    from numba.core import config

    return bool(getattr(config, "ENABLE_CUDASIM", False))


def _reason() -> str | None:
    if simulated():
        return None
    from numba import cuda
    from numba.cuda.cudadrv.error import CudaDriverError, CudaSupportError

    try:
        if not len(cuda.gpus):
            return "there is no GPU"
        return older_driver()
    except (CudaSupportError, CudaDriverError, OSError, RuntimeError) as error:
        return " ".join(str(error).split()).rstrip(" :")


def older_driver() -> str | None:
    """Return what is wrong if the driver cannot load what the toolkit compiles."""
    driver, toolkit = _driver_version(), _toolkit_version()
    if driver // 1000 >= toolkit // 1000:  # within one major version newer code loads on older drivers
        return None
    return (
        f"the driver is for CUDA {_version(driver)} and the toolkit that compiles is {_version(toolkit)}; update the "
        "driver, or install an older toolkit"
    )


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver_version() -> int:
    from cuda.bindings import driver

    return int(driver.cuDriverGetVersion()[1])


def _toolkit_version() -> int:
    from cuda.bindings import nvrtc

    _, major, minor = nvrtc.nvrtcVersion()
    return 1000 * major + 10 * minor


@functools.cache
def most_blocks() -> int:
    """Return how many blocks keep a device busy: eight for each multiprocessor of the first one used."""
    from numba import cuda

    return 32 if simulated() else 8 * cuda.get_current_device().MULTIPROCESSOR_COUNT


def device_of(address: int) -> int:
    """Return the number of the device on which an address is."""
    if simulated():
        return 0
    from cuda.bindings import driver

    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    error, number = driver.cuPointerGetAttribute(attribute, address)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"the address {address:#x} is on no device: {error.name}")
    return int(number)


def check_devices(arrays: Iterable[tuple[str, DeviceArray]]) -> int:
    """Return the number of the one device that holds all arrays, by what they are called."""
    found: dict[int, str] = {}
    for where, a in arrays:
        if a.size:
            found.setdefault(device_of(a.address), where)
    if len(found) > 1:
        (first, here), (second, there) = list(found.items())[:2]
        raise BackendError(f"{here} is on device {first} and {there} on device {second}; a step takes one device")
    return next(iter(found), 0)


def stream_of(stream: Any, device: int | None) -> int:
    """Return the handle of a stream of Numba, CuPy, torch or cuda.core; None is the default stream."""
    if stream is None or simulated():
        return 0
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        handle = next((getattr(stream, name) for name in ("cuda_stream", "ptr") if hasattr(stream, name)), stream)
    if isinstance(handle, bool) or not isinstance(handle, int | np.integer):
        raise BackendError(f"stream is {stream!r:.80}; it must be a CUDA stream, its handle, or None")
    other = None if device is None else _stream_device(int(handle))
    if other != device:
        raise BackendError(f"stream belongs to device {other}, and the arrays are on device {device}")
    return int(handle)


def launcher(kernel: Any, blocks: int, block: int, stream: int) -> Any:
    """Return a kernel ready to be called with its arguments."""
    return kernel[blocks, block] if simulated() else _launcher(kernel, blocks, block, stream)


@functools.lru_cache(1024)
def _launcher(kernel: Any, blocks: int, block: int, stream: int) -> Any:
    from numba import cuda

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few blocks leave much of a GPU unused
        return kernel[blocks, block, cuda.external_stream(stream)]


def _stream_device(handle: int) -> int:
    from cuda.bindings import driver
    from numba import cuda

    if handle in (0, 1, 2):  # the default streams are those of the current device
        return int(cuda.get_current_device().id)
    error, context = driver.cuStreamGetCtx(driver.CUstream(handle))
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"stream {handle:#x} is no CUDA stream: {error.name}")
    driver.cuCtxPushCurrent(context)
    number = driver.cuCtxGetDevice()[1]
    driver.cuCtxPopCurrent()
    return int(number)


def is_capturing(stream: int) -> bool:
    """Whether launches on a stream are recorded into a graph, not run."""
    if simulated():
        return False
    from cuda.bindings import driver

    error, status = driver.cuStreamIsCapturing(driver.CUstream(stream))
    return (
        error == driver.CUresult.CUDA_SUCCESS and status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
    )


@contextlib.contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn the driver's errors into BackendError."""
    if simulated():
        yield
        return
    from numba.cuda.cudadrv.error import CudaDriverError

    try:
        yield
    except CudaDriverError as error:
        raise BackendError(f"{what}: {error}") from error


def download(a: DeviceArray) -> np.ndarray:
    """Return a copy of an array in NumPy."""
    host = np.empty(a.shape, a.dtype)
    if a.size == 0:
        return host
    if simulated():
        ctypes.memmove(host.ctypes.data, a.address, a.nbytes)
        return host
    from numba import cuda

    with device_errors("copying from the device failed"):
        found = cuda.as_cuda_array(_Bytes(a), sync=False).copy_to_host()
    return found.view(a.dtype).reshape(a.shape)


class _Bytes:
    def __init__(self, a: DeviceArray) -> None:
        data = (a.address, True)
        self.__cuda_array_interface__ = {"shape": (a.nbytes,), "typestr": "|u1", "data": data, "version": 2}


def on(device: int) -> Any:
    """Return a context in which a device is the current one."""
    from numba import cuda

    return contextlib.nullcontext() if simulated() else cuda.gpus[device]


def allocated(a: np.ndarray) -> Any:
    """Return a copy of an array on the current device, as an array of Numba's."""
    from numba import cuda

    with device_errors(f"no room on the device for {a.nbytes} bytes"):
        return cuda.to_device(a)


def upload(a: np.ndarray) -> DeviceArray:
    """Return a copy of an array on the current device, as kernels see it."""
    return memory(allocated(a))


def room(count: int) -> DeviceArray:
    """Return memory for some float64 numbers on the current device."""
    from numba import cuda

    with device_errors(f"no room on the device for {8 * count} bytes"):
        return memory(cuda.device_array(max(count, 1), np.float64))


def refill(a: DeviceArray, host: np.ndarray) -> None:
    """Copy from NumPy to the device."""
    a.source.copy_to_device(host)


def synchronize(stream: int) -> None:
    """Wait for all that was launched in a stream."""
    from numba import cuda

    if not simulated():
        cuda.external_stream(stream).synchronize()
