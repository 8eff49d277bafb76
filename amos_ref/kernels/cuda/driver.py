"""Devices, streams and memory, with errors that say what to do. In the simulator there is one device and one stream."""

import contextlib
import ctypes
import functools
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

from amos_ref.errors import BackendError, MissingDependencyError

INSTALL = "backend 'cuda' needs numba-cuda: pip install 'amos_ref[cuda]'"
FAILED = "a step failed on the device"


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
    return f"{name}, driver for CUDA {version_text(_driver_version())}"


@functools.cache
def simulated() -> bool:
    """Whether this process runs kernels in Numba's simulator."""
    from numba.core import config

    return bool(getattr(config, "ENABLE_CUDASIM", False))


def _reason() -> str | None:
    if simulated():
        return None
    try:
        from numba import cuda

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cuda-python warns of what older_driver says
            return (older_driver() or why_no_kernel()) if len(cuda.gpus) else "there is no GPU"
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError | ImportError) and not _of_driver(error):
            raise
        return " ".join(str(error).split()).rstrip(" :")


def why_no_kernel() -> str | None:
    """Compile a kernel, run it and wait for it; return why that cannot be done here, or None."""
    try:
        _run_kernel()
    except Exception as error:
        if isinstance(error, OSError | RuntimeError | ImportError) or _of_driver(error):
            raise
        versions = " and ".join(f"{name} {metadata.version(name)}" for name in ("numba-cuda", "numpy"))
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{versions} compile no kernel together ({said:.200}); install versions that do, such as numpy<2.5"
    return None


@functools.cache
def _run_kernel() -> None:
    """Compile a kernel and run it in a stream of its own; what went well is not done again."""
    from numba import cuda

    with on(0):
        stream = int(call(FAILED, "cuStreamCreate", 1))  # 1: it waits for no other stream
        try:
            _launcher(cuda.jit(_nothing, fastmath=False), 1, 1, stream)()
            synchronize(stream)
        finally:
            call(FAILED, "cuStreamDestroy", stream)


def _nothing() -> None:
    """A kernel that does nothing."""


def older_driver() -> str | None:
    """Return what is wrong if the driver cannot load what the toolkit compiles."""
    driver, toolkit = _driver_version(), _toolkit_version()
    if driver // 1000 >= toolkit // 1000:  # within one major version newer code loads on older drivers
        return None
    return (
        f"the driver is for CUDA {version_text(driver)} and the toolkit that compiles is {version_text(toolkit)}; "
        "update the driver, or install an older toolkit"
    )


def version_text(number: int) -> str:
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
    if error == driver.CUresult.CUDA_ERROR_INVALID_CONTEXT:
        with on(0):  # any context will do
            error, number = driver.cuPointerGetAttribute(attribute, address)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"the address {address:#x} is on no device: {error.name}")
    return int(number)


def check_devices(arrays: Iterable[tuple[str, Any]]) -> int:
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
    handle = _handle(stream)
    other = None if device is None else _stream_device(handle)
    if other != device:
        raise BackendError(f"stream belongs to device {other}, and the arrays are on device {device}")
    return handle


def _handle(stream: Any) -> int:
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:  # of torch, CuPy, older Numba
        names = ("cuda_stream", "ptr", "handle")
        handle = next((getattr(stream, name) for name in names if hasattr(stream, name)), stream)
    if isinstance(handle, ctypes.c_void_p):
        handle = handle.value or 0
    if isinstance(handle, bool) or not hasattr(handle, "__index__"):
        raise BackendError(f"stream is {stream!r:.80}; it must be a CUDA stream, its handle, or None")
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
    context = call(f"stream {handle:#x} is no CUDA stream", "cuStreamGetCtx", driver.CUstream(handle))
    driver.cuCtxPushCurrent(context)
    number = driver.cuCtxGetDevice()[1]
    driver.cuCtxPopCurrent()
    return int(number)


@functools.cache
def stream_aside(device: int) -> int:
    """Return a stream, for the current device, that nothing waits for but who asked for it."""
    return 0 if simulated() else int(call(FAILED, "cuStreamCreate", 1))


def is_capturing(stream: int) -> bool:
    """Whether launches on a stream are recorded into a graph, not run.

    Raises
    ------
    BackendError
        If a launch would spoil what is being recorded, or that is spoilt already.
    """
    if simulated():
        return False
    driver = bindings()
    error, status = driver.cuStreamIsCapturing(driver.CUstream(stream))
    if not error and status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE:
        return False
    statuses, results = driver.CUstreamCaptureStatus, driver.CUresult
    if error == results.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
        raise BackendError(
            "the default stream cannot be used while another one is recorded into a graph: give that one as stream"
        )
    if error != results.CUDA_SUCCESS:  # no context yet, or no stream: what comes next says so
        return False
    if status == statuses.CU_STREAM_CAPTURE_STATUS_INVALIDATED:
        raise BackendError("what was recorded into a graph so far is invalid, and nothing can be added to it")
    return status == statuses.CU_STREAM_CAPTURE_STATUS_ACTIVE


@contextlib.contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn the errors of the driver, and of what loads code into it, into BackendError."""
    try:
        yield
    except Exception as error:
        if not _of_driver(error):
            raise
        raise BackendError(f"{what}: {' '.join(str(error).split())}") from error


def _of_driver(error: Exception) -> bool:
    """Whether an error is Numba's of the driver or cuda-python's; they share no class, and versions differ."""
    return type(error).__module__.startswith(("numba.cuda.cudadrv.", "cuda."))


def call(what: str, name: str, *args: Any) -> Any:
    """Call a function of the driver; return its result, or raise BackendError that begins with `what`."""
    error, *found = getattr(bindings(), name)(*args)
    if error:
        raise BackendError(f"{what}: {getattr(error, 'name', error)}")
    return found[0] if len(found) == 1 else tuple(found)


def bindings() -> Any:
    """Return cuda-python's functions of the driver; an import statement would take ten times as long."""
    found = getattr(sys.modules.get("cuda.bindings"), "driver", None)
    if found is None:
        from cuda.bindings import driver as found
    return found


def on(device: int) -> contextlib.AbstractContextManager[object]:
    """Make a device the current one, and calls that wait or allocate harmless to what other streams record."""
    if simulated():
        return contextlib.nullcontext()
    return _Relaxed() if _is_current(device) else _entered(device)


@contextlib.contextmanager
def _entered(device: int) -> Iterator[None]:
    from numba import cuda

    with cuda.gpus[device], _Relaxed():
        yield


class _Relaxed:
    """No recording forbids this thread a call; otherwise one of another stream fails it, and is spoilt by it."""

    __slots__ = ("mode",)

    def __enter__(self) -> None:
        relaxed = bindings().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self.mode = call(FAILED, "cuThreadExchangeStreamCaptureMode", relaxed)

    def __exit__(self, *raised: object) -> None:
        call(FAILED, "cuThreadExchangeStreamCaptureMode", self.mode)


def _is_current(device: int) -> bool:
    """Whether a device is the current one; to ask takes a tenth of the time of making it current again."""
    error, number = bindings().cuCtxGetDevice()
    return not error and int(number) == device


def synchronize(stream: int | None = None) -> None:
    """Wait for all that was launched in a stream of the current device, or in any."""
    if simulated():
        return
    if stream is None:
        call(FAILED, "cuCtxSynchronize")
    else:
        call(FAILED, "cuStreamSynchronize", stream)
