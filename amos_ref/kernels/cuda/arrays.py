"""Arrays on a GPU, whoever made them: found by ``__cuda_array_interface__`` or DLPack, and never copied.

Nothing here imports a framework, or Numba before there is something to read from the device.
"""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.errors import BackendError, DtypeError

CUDA, MANAGED = 2, 13  # kinds of device in DLPack
_BITS16 = np.dtype(np.uint16)  # how bfloat16 travels where there is no name for it
_BFLOAT16 = "<V2"  # what ml_dtypes, torch and CuPy call it in an interface


class DeviceArray:
    """What a step must know of an array on a GPU.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        float16, bfloat16 (of ml_dtypes), float32 or float64.
    address : int
    writeable : bool
    """

    __slots__ = ("address", "dtype", "shape", "source", "writeable")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, address: int, writeable: bool, source: Any) -> None:
        self.shape, self.dtype, self.address, self.writeable, self.source = shape, dtype, address, writeable, source

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def bounds(self) -> tuple[int, int]:
        return self.address, self.address + self.nbytes

    @property
    def like(self) -> tuple[Any, ...]:
        """What does not change when the same array lies elsewhere."""
        return self.shape, self.dtype, self.writeable

    def astype(self, dtype: Any) -> np.ndarray:
        """Return a copy in NumPy."""
        from amos_ref.kernels.cuda.driver import download

        return download(self).astype(dtype)


def fingerprint(a: Any) -> Any:
    """Return what stays the same only if :func:`device_array` does; cheap, as every step asks it of every array."""
    if a is None:
        return None
    if hasattr(a, "data_ptr"):  # of torch, which builds an interface in Python
        return a.data_ptr(), a.shape, a.dtype, a.is_contiguous(), a.is_cuda
    if type(a).__module__ == "numba.cuda.cudadrv.devicearray":
        return a.device_ctypes_pointer.value, a.shape, a.dtype, a.strides
    interface = _interface(a)
    if interface is None:
        found = device_array(a, "")
        return found.address, *found.like
    masked = interface.get("mask") is not None
    return interface["data"], interface["shape"], interface["typestr"], interface.get("strides"), masked


def on_device(a: Any) -> bool:
    """Whether this is an array on a GPU."""
    if isinstance(a, np.ndarray | np.generic):
        return False
    return _interface(a) is not None or _dlpack_device(a) in (CUDA, MANAGED)


def device_array(a: Any, where: str) -> DeviceArray:
    """Return what a step must know of an array on a GPU, or raise DtypeError or BackendError."""
    plain = isinstance(a, np.ndarray | np.generic)
    a = a.detach() if getattr(a, "requires_grad", False) else a
    interface = None if plain else _interface(a)
    if plain or (interface is None and _dlpack_device(a) not in (CUDA, MANAGED)):
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


def seen(params: Any, what: str) -> Any:
    """Return the same tree with a DeviceArray for every array; None stays."""
    named = tree.flatten(params, what).items()
    word = {"grads": "gradient of"}.get(what, what)
    found = {name: None if a is None else device_array(a, f"{word} leaf {name!r}") for name, a in named}
    return tree.unflatten(found, params)


def seen_state(state: Any) -> Any:
    """Return the same state with a DeviceArray for every array; what is no state is left to be refused."""
    if not hasattr(state, "_replace") or state._fields != ("count", "v", "b", "m"):
        return state
    parts = {}
    for part, arrays in zip("vbm", state[1:], strict=True):
        if isinstance(arrays, dict):
            parts[part] = {name: device_array(a, f"state.{part} of leaf {name!r}") for name, a in arrays.items()}
    return state._replace(**parts)


def memory(a: Any) -> DeviceArray:
    """Return an array of Numba's, of any dtype, that this package made for itself."""
    interface = _interface(a) or {}
    return DeviceArray(a.shape, a.dtype, int(interface["data"][0] or 0), True, a)


def _interface(a: Any) -> dict[str, Any] | None:
    if getattr(type(a), "__module__", "").startswith("numba.cuda.simulator"):
        return a._ary.__array_interface__
    try:
        return getattr(a, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError, KeyError):  # of older torch: for bfloat16
        return None


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
    from amos_ref.checks import FLOATS, dtype_of

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


def _dlpack_device(a: Any) -> int | None:
    if not hasattr(a, "__dlpack__"):
        return None
    return int(a.__dlpack_device__()[0])


def _from_dlpack(a: Any) -> tuple[DeviceArray, tuple[int, ...] | None]:
    from amos_ref.checks import dtype_of

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
