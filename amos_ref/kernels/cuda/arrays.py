"""Arrays on a GPU, whoever made them: found by ``__cuda_array_interface__`` or DLPack, and never copied.

Nothing here imports a framework, nor Numba before there is something to read from the device or to put there.
"""

import ctypes
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import GPU, ForeignArray, cuda_interface, dlpack_device
from amos_ref.dtypes import FLOATS, dtype_of
from amos_ref.errors import AmosError, BackendError, DtypeError
from amos_ref.kernels.cuda import driver

_BITS16 = np.dtype(np.uint16)  # how bfloat16 travels where there is no name for it
FEW = 6  # numbers: to set one takes about two microseconds, to wait for a stream ten
_SHAPE, _DTYPE = operator.attrgetter("shape"), operator.attrgetter("dtype")
_LASTING = ("numba.cuda.cudadrv.devicearray", "numba.cuda.simulator.cudadrv.devicearray")
_BFLOAT16 = "<V2"  # what ml_dtypes, torch and CuPy call it in an interface


class DeviceArray(ForeignArray):
    """An array on a GPU."""

    __slots__ = ()

    def astype(self, dtype: Any) -> np.ndarray:
        """Return a copy in NumPy."""
        return download(self).astype(dtype)


def fingerprint(a: Any) -> Any:
    """Return what stays the same only if :func:`device_array` does; cheap, as every step asks it of every array."""
    if a is None:
        return None
    if hasattr(a, "data_ptr"):  # of torch, which builds an interface in Python
        return a.data_ptr(), a.shape, a.dtype, a.is_contiguous(), a.is_cuda
    if type(a).__module__ == "numba.cuda.cudadrv.devicearray":
        return a.device_ctypes_pointer.value, a.shape, a.dtype, a.strides
    interface = cuda_interface(a)
    if interface is None:
        found = device_array(a, "")
        return found.address, *found.like
    masked = interface.get("mask") is not None
    return interface["data"], interface["shape"], interface["typestr"], interface.get("strides"), masked


class Marks:
    """The objects that were seen, and what of them may change in place: at a third of a microsecond each.

    Numba's arrays are as they were made; torch's tensors may get other memory, shapes and dtypes.
    """

    alive: bool
    objects: list[int]
    references: list[weakref.ref[Any]]
    places: list[int]
    kind: Any
    seen: Any

    def __init__(self, found: Sequence[Any]) -> None:
        self.alive = True
        self.objects = list(map(id, found))  # no other objects have these numbers before one of them is gone
        self.references = [weakref.ref(a, self._forget) for a in {id(a): a for a in found}.values()]
        self.places = [k for k, a in enumerate(found) if hasattr(a, "data_ptr")]
        self.kind = type(found[self.places[0]]) if self.places else None
        self.seen = self._look(found)

    @classmethod
    def of(cls, found: Sequence[Any]) -> "Marks | None":
        """Return the marks of Numba's arrays and torch's tensors; None where there are others."""
        tensors = [type(a) for a in found if hasattr(a, "data_ptr")]
        known = all(hasattr(a, "data_ptr") or type(a).__module__ in _LASTING for a in found)
        one = all(kind.data_ptr is tensors[0].data_ptr for kind in tensors)  # also of torch.nn.Parameter
        return cls(found) if known and one else None

    def hold(self, found: Sequence[Any]) -> bool:
        """Whether these are the same objects, and as they were."""
        return self.alive and list(map(id, found)) == self.objects and self._look(found) == self.seen

    def _forget(self, reference: Any) -> None:
        self.alive = False

    def _look(self, found: Sequence[Any]) -> Any:
        if self.kind is None:
            return None
        tensors = [found[k] for k in self.places]
        return [list(map(ask, tensors)) for ask in (self.kind.data_ptr, self.kind.is_contiguous, _SHAPE, _DTYPE)]


class DeviceWatch:
    """What arrays on a device were like; all of them must stay where they are. See :class:`amos_ref.kernels.Watch`.

    Of the very objects that were seen last only what can change in place is asked.
    """

    fingerprints: list[Any]
    marks: Marks | None

    def __init__(self, found: Sequence[Any]) -> None:
        self.fingerprints = list(map(fingerprint, found))
        self.marks = Marks.of(found)

    def compare(self, found: Sequence[Any]) -> tuple[()] | None:
        """Return no addresses, as none may change; None if anything is not as it was."""
        try:
            if self.marks is not None and self.marks.hold(found):
                return ()
            return () if list(map(fingerprint, found)) == self.fingerprints else None
        except (AmosError, RuntimeError, TypeError, KeyError, AttributeError):
            return None  # what is wrong is said where everything is checked


def device_array(a: Any, where: str) -> DeviceArray:
    """Return what a step must know of an array on a GPU, or raise DtypeError or BackendError."""
    if isinstance(a, DeviceArray):
        return a
    plain = isinstance(a, np.ndarray | np.generic)
    a = a.detach() if getattr(a, "requires_grad", False) else a
    interface = None if plain else cuda_interface(a)
    if plain or (interface is None and dlpack_device(a) not in GPU):
        what = "a NumPy array" if isinstance(a, np.ndarray) else f"{type(a).__name__}"
        raise BackendError(
            f"{where} is not on a GPU but {what}; backend 'cuda' steps arrays there: move it with "
            "numba.cuda.to_device, cupy.asarray or torch's .cuda()"
        )
    try:
        found, strides = _from_interface(a, interface) if interface is not None else _from_dlpack(a)
    except (RuntimeError, TypeError, ValueError, BufferError) as error:
        raise DtypeError(f"{where} cannot be read as a float array on a GPU: {error}") from None
    if strides is not None and found.size and not _contiguous(found.shape, strides):
        raise BackendError(
            f"{where} has strides {strides} (in elements); backend 'cuda' steps arrays that are contiguous in C order"
        )
    if found.address % found.dtype.itemsize:
        raise BackendError(f"{where} begins at {found.address:#x}, which is no address of {found.dtype}")
    return found


def as_device_tree(params: Any, what: str) -> Any:
    """Return the same tree with a DeviceArray for every array; None stays."""
    named = tree.flatten(params, what).items()
    word = {"grads": "gradient of"}.get(what, what)
    found = {name: None if a is None else device_array(a, f"{word} leaf {name!r}") for name, a in named}
    return tree.unflatten(found, params)


def as_device_state(state: Any) -> Any:
    """Return the same state with a DeviceArray for every array; anything else as it is, to be refused later."""
    if not hasattr(state, "_replace"):
        return state
    parts = {}
    for part, arrays in zip(state._fields, state, strict=True):
        if isinstance(arrays, dict):
            parts[part] = {name: device_array(a, f"state.{part} of leaf {name!r}") for name, a in arrays.items()}
    return state._replace(**parts)


def describe(a: Any) -> DeviceArray:
    """Return an array of Numba's, of any dtype, that this package made for itself."""
    interface = cuda_interface(a) or {}
    return DeviceArray(a.shape, a.dtype, int(interface["data"][0] or 0), True, a)


def _from_interface(a: Any, interface: dict[str, Any]) -> tuple[DeviceArray, tuple[int, ...] | None]:
    """Return the array, and its strides in elements (None: contiguous)."""
    dtype = _BITS16 if interface["typestr"] == _BFLOAT16 else np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if interface.get("mask") is not None:
        raise ValueError("it has a mask")
    address, read_only = interface["data"]
    shape = tuple(map(int, interface["shape"]))
    found = DeviceArray(shape, _float(dtype), int(address or 0), not read_only, a)
    return found, None if strides is None else tuple(s // dtype.itemsize for s in strides)


def _float(dtype: np.dtype) -> np.dtype:
    """Return the dtype, bfloat16 for its bits, or raise TypeError."""
    if dtype == _BITS16:
        return dtype_of("bfloat16")
    if dtype.name not in FLOATS or not dtype.isnative:
        raise TypeError(f"its dtype is {dtype}; it must be one of {', '.join(FLOATS)} (bfloat16 perhaps as uint16)")
    return dtype


class _Tensor(ctypes.Structure):
    """DLPack's DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_CODES = {(2, 16): "float16", (2, 32): "float32", (2, 64): "float64", (4, 16): "bfloat16"}
_content: Callable[..., int] = ctypes.pythonapi.PyCapsule_GetPointer
_content.restype, _content.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)  # type: ignore[attr-defined]


def _from_dlpack(a: Any) -> tuple[DeviceArray, tuple[int, ...] | None]:
    # -1 is no waiting, as the caller orders streams; JAX takes it for a stream's handle, and given none waits itself.
    capsule = a.__dlpack__(stream=None if type(a).__module__.startswith("jax") else -1)
    tensor = _Tensor.from_address(_content(capsule, b"dltensor"))
    name = _CODES.get((tensor.code, tensor.bits))
    if name is None or tensor.lanes != 1:
        raise TypeError(f"DLPack calls its dtype ({tensor.code}, {tensor.bits}), which is none of the four")
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    strides = tuple(tensor.strides[k] for k in range(tensor.ndim)) if tensor.strides else None
    address = int(tensor.data or 0) + tensor.byte_offset
    return DeviceArray(shape, dtype_of(name), address, True, a), strides


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True


# memory on a device: made, filled, and copied


def download(a: DeviceArray) -> np.ndarray:
    """Return a copy of an array in NumPy."""
    host = np.empty(a.shape, a.dtype)
    if a.size == 0:
        return host
    if driver.simulated():
        ctypes.memmove(host.ctypes.data, a.address, a.nbytes)
        return host
    with driver.on(driver.device_of(a.address)):
        driver.call("copying from the device failed", "cuMemcpyDtoH", host.ctypes.data, a.address, a.nbytes)
    return host


def copy_to_device(a: np.ndarray) -> Any:
    """Return a copy of an array on the current device, as an array of Numba's."""
    from numba import cuda

    with driver.device_errors(f"no room on the device for {a.nbytes} bytes"):
        made = cuda.to_device(a)
    driver.synchronize(0)  # such a copy may still be under way, and not every stream waits for the default one
    return made


def upload(a: np.ndarray) -> DeviceArray:
    """Return a copy of an array on the current device, as kernels see it."""
    return describe(copy_to_device(a))


def allocate(count: int) -> DeviceArray:
    """Return memory for some float64 numbers on the current device."""
    from numba import cuda

    with driver.device_errors(f"no room on the device for {8 * count} bytes"):
        return describe(cuda.device_array(max(count, 1), np.float64))


def read(a: DeviceArray, stream: int) -> np.ndarray:
    """Wait for all that was launched in a stream, of the current device; return a copy of an array in NumPy."""
    host = np.empty(a.shape, a.dtype)
    read_into(host, a.address, stream)
    return host


def read_into(host: np.ndarray, address: int, stream: int) -> None:
    """The same of what lies at an address, into an array of NumPy's."""
    if driver.simulated():
        ctypes.memmove(host.ctypes.data, address, host.nbytes)
        return
    if host.size:
        # In the stream: a copy in the default one would spoil what any stream records.
        driver.call(driver.FAILED, "cuMemcpyDtoHAsync", host.ctypes.data, address, host.nbytes, stream)
    driver.synchronize(stream)


def _differing(a: np.ndarray, b: np.ndarray) -> list[int]:
    return np.flatnonzero(a.view(np.int64) != b.view(np.int64)).tolist()


def refill(a: DeviceArray, host: np.ndarray, stream: int, known: np.ndarray | None = None) -> None:
    """Put numbers at the beginning of an array on the current device, in the order of a stream.

    Numbers that are like `known` are there already (NaN says that it is not known). A few travel inside the calls;
    where there are more they are copied, and waited for: the driver may read NumPy's memory after the call.
    """
    if driver.simulated():
        ctypes.memmove(a.address, host.ctypes.data, host.nbytes)
        return
    words = host.view(np.uint32)
    changed = range(host.size) if known is None else _differing(host, known)
    if len(changed) <= FEW:
        for k in (word for i in changed for word in (2 * i, 2 * i + 1)):
            driver.call(driver.FAILED, "cuMemsetD32Async", a.address + 4 * k, int(words[k]), 1, stream)
    else:
        driver.call(driver.FAILED, "cuMemcpyHtoDAsync", a.address, host.ctypes.data, host.nbytes, stream)
        driver.synchronize(stream)
