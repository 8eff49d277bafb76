"""What lies at an address of the device: one element, or 16 bytes at once; and the same in Numba's simulator.

Kernels take addresses as integers: an array among its arguments costs a launch about ten times as much.
"""

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config

SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", False))
WORD = 16  # bytes that one instruction moves at most

_TYPES: dict[str, Any] = {
    "uint16": (ctypes.c_uint16, ir.IntType(16)),
    "int16": (ctypes.c_int16, ir.IntType(16)),
    "int64": (ctypes.c_int64, ir.IntType(64)),
    "float32": (ctypes.c_float, ir.FloatType()),
    "float64": (ctypes.c_double, ir.DoubleType()),
}
_one_at_a_time = threading.Lock()


def intrinsic(fn: Callable[..., Any]) -> Any:
    """Make a code generator known to Numba's CUDA compiler."""
    from numba.cuda.extending import intrinsic as known

    return known(fn)


def _pointer(builder, address, llvm, count=None):
    """Return a pointer into global memory, to one element or to a vector."""
    kind = llvm if count is None else ir.VectorType(llvm, count)
    return builder.inttoptr(address, kind.as_pointer(1))


@functools.cache
def getter(dtype: str, count: int | None = None) -> Any:
    """Return ``get(address, i)``: element i of the array at an address; or `count` elements from there, as a tuple."""
    c, llvm = _TYPES[dtype]
    size, numba_type, number = ctypes.sizeof(c), getattr(types, dtype), np.dtype(dtype).type
    if SIMULATED:

        def element(address, i):
            return number(c.from_address(int(address + size * i)).value)

        def elements(address, i):
            return tuple(element(address, i + k) for k in range(count or 0))

        return element if count is None else elements

    @intrinsic
    def at(typingctx, address):
        def generate(context, builder, signature, args):
            start = _pointer(builder, args[0], llvm)
            places = [builder.gep(start, [ir.Constant(ir.IntType(64), k)]) for k in range(count or 1)]
            entries = [builder.load(place, align=size) for place in places]
            return entries[0] if count is None else context.make_tuple(builder, signature.return_type, entries)

        return (numba_type if count is None else types.UniTuple(numba_type, count))(types.int64), generate

    return device(lambda address, i: at(address + size * i))


@functools.cache
def putter(dtype: str) -> Any:
    """Return ``put(address, i, x)``: set element i of the array at an address."""
    c, llvm = _TYPES[dtype]
    size, numba_type = ctypes.sizeof(c), getattr(types, dtype)
    if SIMULATED:

        def put(address, i, x):
            c.from_address(int(address + size * i)).value = x

        return put

    @intrinsic
    def at(typingctx, address, x):
        def generate(context, builder, signature, args):
            builder.store(args[1], _pointer(builder, args[0], llvm), align=size)
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), generate

    return device(lambda address, i, x: at(address + size * i, x))


@functools.cache
def mover(dtype: str, count: int, store: bool) -> Any:
    """Return ``move(address, local, i)``: `count` elements at once, between an address and entries i... of local.

    They are at most 16 bytes, and the address is a multiple of their size.
    """
    _, llvm = _TYPES[dtype]
    if SIMULATED:
        get, put = getter(dtype), putter(dtype)

        def move(address, local, i):
            for k in range(count):
                if store:
                    put(address, k, local[i + k])
                else:
                    local[i + k] = get(address, k)

        return move

    @intrinsic
    def at(typingctx, address, local, i):
        def generate(context, builder, signature, args):
            entries = context.make_array(signature.args[1])(context, builder, value=args[1]).data
            # Entry by entry: only then are the local entries kept in registers.
            entry = [builder.gep(entries, [builder.add(args[2], ir.Constant(args[2].type, k))]) for k in range(count)]
            (_store_word if store else _load_word)(builder, args[0], llvm, entry)
            return context.get_dummy_value()

        return types.void(types.int64, local, types.int64), generate

    return device(lambda address, local, i: at(address, local, i))


def _parts(llvm: Any) -> tuple[Any, int]:
    """Return the type of which vectors are moved, and how many entries one holds: the GPU moves no 16-bit integers."""
    return (ir.IntType(32), 2) if llvm.intrinsic_name == "i16" else (llvm, 1)


def _bytes(llvm: Any) -> int:
    return {"i32": 4, "f32": 4, "f64": 8, "i64": 8}[llvm.intrinsic_name]


def _load_word(builder, address, llvm, entry):
    part, each = _parts(llvm)
    count = len(entry) // each
    word = builder.load(_pointer(builder, address, part, count), align=count * _bytes(part))
    for k, target in enumerate(entry):
        x = builder.extract_element(word, ir.Constant(ir.IntType(32), k // each))
        if each == 2:
            x = builder.trunc(builder.lshr(x, ir.Constant(part, k % 2 * 16)), llvm)
        builder.store(x, target)


def _store_word(builder, address, llvm, entry):
    part, each = _parts(llvm)
    count = len(entry) // each
    word = ir.Constant(ir.VectorType(part, count), ir.Undefined)
    for k in range(0, len(entry), each):
        x = builder.load(entry[k])
        if each == 2:
            low, high = builder.zext(x, part), builder.zext(builder.load(entry[k + 1]), part)
            x = builder.or_(low, builder.shl(high, ir.Constant(part, 16)))
        word = builder.insert_element(word, x, ir.Constant(ir.IntType(32), k // each))
    builder.store(word, _pointer(builder, address, part, count), align=count * _bytes(part))


def _simulated_lowest(address, x):
    with _one_at_a_time:
        entry = ctypes.c_int64.from_address(int(address))
        entry.value = min(entry.value, int(x))


def device(fn: Callable[..., Any]) -> Any:
    """Compile a function that kernels call; in the simulator they call it as it is."""
    if SIMULATED:
        return fn
    from numba import cuda

    return cuda.jit(device=True, forceinline=True, fastmath=False)(fn)


@functools.cache
def lowest() -> Any:
    """Return ``lower(address, x)``: the integer at an address becomes x if that is less, whoever else does so."""
    if SIMULATED:
        return _simulated_lowest

    @intrinsic
    def at(typingctx, address, x):
        def generate(context, builder, signature, args):
            builder.atomic_rmw("min", _pointer(builder, args[0], ir.IntType(64)), args[1], "monotonic")
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return device(lambda address, x: at(address, x))
