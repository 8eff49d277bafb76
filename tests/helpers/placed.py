"""Arrays on the device, real or simulated, for the CUDA tests."""

import numpy as np
from numba import cuda

from amos_ref.kernels.cuda.arrays import DeviceArray, device_array, download
from amos_ref.optimizers.leaf import Leaf
from helpers import strategies as own


def bits_of(a):
    """The array as Numba takes it: bfloat16 as its bits."""
    return a.view(np.uint16) if a.dtype == own.BFLOAT16 else a


def to_device(a):
    """An array of Numba's on the device."""
    return cuda.to_device(np.ascontiguousarray(bits_of(a)).reshape(a.shape))


def placed(a, offset=0):
    """What a step knows of a copy of `a` on the device, `offset` elements behind an address of 256 bytes."""
    if a is None:
        return None
    memory = cuda.to_device(np.concatenate([np.zeros(offset, a.dtype), a.reshape(-1), np.zeros(1, a.dtype)]).view("u2"))
    start = device_array(memory, "test").address + offset * a.dtype.itemsize
    return DeviceArray(a.shape, a.dtype, start, True, memory)


def on_device(leaf, offsets=(0, 0, 0, 0, 0)):
    """The leaf with all its arrays on the device."""
    names = ("theta", "g", "v", "b", "m") if isinstance(leaf, Leaf) else ("theta", "g", "m", "v", "sigma")
    return leaf._replace(**{k: placed(getattr(leaf, k), n) for k, n in zip(names, offsets, strict=True)})


def written(leaf):
    """What a step overwrote, back in NumPy."""
    return [(what, download(a)) for what, a in leaf.written().items()]


class Array:
    """An array of another library, as ``__cuda_array_interface__`` shows it."""

    def __init__(self, a, *, typestr=None, strides=None, read_only=False, **more):
        self.memory = to_device(a)
        base = device_array(self.memory, "test")
        self.__cuda_array_interface__ = {
            "shape": a.shape,
            "typestr": typestr or bits_of(a).dtype.str,
            "data": (base.address, read_only),
            "strides": strides,
            "version": 3,
            **more,
        }


class Tensor:
    """An array of another library, as DLPack shows it; its address is that of NumPy's array."""

    requires_grad = False

    def __init__(self, a, device=2):
        self.a, self.device = a, device

    def __dlpack__(self, stream=None):
        assert stream == -1
        return self.a.__dlpack__()

    def __dlpack_device__(self):
        return self.device, 0
