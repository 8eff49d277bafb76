"""What lies at an address: arrays, and the headers of NumPy's arrays. For compiled code, and the same in Python."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic

from amos_ref.kernels.jit import inline, specialise

LINE = 8  # float64 numbers in a line of the caches


def view(address: int, start: int, stop: int, like: Any) -> Any:
    """Return the elements start <= i < stop of the array at `address`, of the dtype of `like`; None of None."""
    if like is None:
        return None
    begin, end = (int(address) + int(i) * like.itemsize for i in (start, stop))
    return np.frombuffer((ctypes.c_char * (end - begin)).from_address(begin), like.dtype)


def word(address: int) -> int:
    """Return the 64-bit integer at an address."""
    return ctypes.c_int64.from_address(int(address)).value


def set_word(address: int, value: int) -> None:
    """Set the 64-bit integer at an address."""
    ctypes.c_int64.from_address(int(address)).value = int(value)


@intrinsic
def _pointer(typingctx, address) -> Any:
    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@specialise(view)
def _view(address, start, stop, like):
    if like == types.none:
        return lambda address, start, stop, like: None
    dtype, size = like.dtype, like.dtype.bitwidth // 8

    def found(address, start, stop, like):
        return carray(_pointer(address + start * size), (stop - start,), dtype)  # pyright: ignore[reportCallIssue]

    return found


@intrinsic
def _word_now(typingctx, address) -> Any:
    def generate(context, builder, signature, args):
        # Atomic, so that a loop that waits for another thread reads it anew each time.
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@specialise(word)
def _word(address):
    return lambda address: _word_now(address)  # pyright: ignore[reportCallIssue]


@intrinsic
def _set_word(typingctx, address, value) -> Any:
    def generate(context, builder, signature, args):
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate


@specialise(set_word)
def _set_word_now(address, value):
    return lambda address, value: _set_word(address, value)  # pyright: ignore[reportCallIssue]


@inline
def aligned(count):
    """Return uninitialized memory for float64 numbers that begins with a cache line.

    Otherwise every vector of 64 bytes lies on two lines, and a loop that does little else than add to it takes up to
    1.8 times as long.
    """
    a = np.empty(count + LINE - 1)
    skip = (LINE - ((a.ctypes.data // a.itemsize) & (LINE - 1))) & (LINE - 1)
    return a[skip : skip + count]


@inline
def number(address):
    """Return the float64 at an address."""
    return np.int64(word(address)).view(np.float64)


#: By how many numbers of its own a leaf has: what reads its scale, and them, at the address in its column SCALE.
READ_OWN: tuple[Callable[[int], tuple[float, ...]], ...] = (
    lambda address: (number(address),),
    lambda address: (number(word(address)), number(address + 8)),
    lambda address: (number(word(address)), number(address + 8), number(address + 16)),
)
