"""What one element or one slot needs, for every kernel: the page's stages, and loads and stores.

The stages are not written again: :mod:`amos_ref.spec` itself is compiled. Arrays of half precision reach
the kernels as bits, float16 as uint16 and bfloat16 as int16, so that the type alone says how to read them.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from amos_ref import spec
from amos_ref.kernels.jit import inline, specialise

inline(spec.change)
inline(spec.average)

BITS: dict[str, Any] = {"float16": np.uint16, "bfloat16": np.int16}


@inline
def from_plain(x):
    return np.float64(x)


@inline
def from_half(bits):
    # Sign aside, the bits of a float16 at the top of a float64 read as its value times 2^-1008.
    bits = np.int64(bits)
    if (bits & 0x7C00) == 0x7C00:
        word = np.int64(0x7FF0000000000000) | ((bits & 0x3FF) << 42)
        x = np.int64(word).view(np.float64)
    else:
        x = np.int64((bits & 0x7FFF) << 42).view(np.float64) * 2.0**1008
    return -x if bits & 0x8000 else x


@inline
def from_bfloat(bits):
    return np.float64(np.int32(np.int32(bits) << 16).view(np.float32))


@inline
def snap(x, drop, least, anchor):
    """Round to 53 - drop significant bits, from `least` down to the spacing there, ties to even; still a float64.

    anchor is 1.5 * 2^52 spacings of the numbers below `least`: adding it rounds them, taking it away gives them back.
    """
    word = np.float64(x).view(np.int64)
    size = np.int64(word & 0x7FFFFFFFFFFFFFFF)
    half = (np.int64(1) << (drop - 1)) - 1 + ((size >> drop) & 1)
    near = np.int64((size + half) >> drop << drop).view(np.float64)
    near = (abs(x) + anchor) - anchor if abs(x) < least else near
    near = np.int64(np.float64(near).view(np.int64) | (word ^ size)).view(np.float64)
    return near if x == x else x


@inline
def to_half(x):
    y = abs(snap(x, 42, 2.0**-14, 1.5 * 2.0**28))
    if y != y:
        bits = np.int64(0x7E00)
    elif y > 65504.0:
        bits = np.int64(0x7C00)
    else:
        bits = np.float64(y * 2.0**-1008).view(np.int64) >> 42
    sign = np.float64(x).view(np.int64) < 0
    return np.uint16(bits | 0x8000 if sign else bits)


@inline
def to_bfloat(x):
    # A bfloat16 is the upper half of a float32, which holds the rounded number as it is, or infinity.
    y = np.float32(snap(x, 45, 2.0**-126, 1.5 * 2.0**-81))
    return np.int16(np.float32(y).view(np.int32) >> 16)


# Faster on a CPU: float16 by the instructions of the processor, where it has them, and fewer steps for bfloat16.


@intrinsic
def _half_to_single(typingctx, bits) -> Any:
    def generate(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _single_to_half(typingctx, x) -> Any:
    def generate(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@inline
def from_half_fast(bits):
    return np.float64(_half_to_single(bits))  # pyright: ignore[reportCallIssue]


@inline
def cut_odd(x, drop):
    """Cut x to 53 - drop significant bits, and set the last one if anything was cut; still a float64.

    It lies on the same side as x of every number of fewer bits, so where it is rounded to two bits less, x would be
    rounded to the same number.
    """
    word, tail = np.float64(x).view(np.int64), (np.int64(1) << drop) - 1
    return np.int64((word | ((word & tail) + tail)) & ~tail).view(np.float64)


@inline
def to_half_fast(x):
    # A float32 holds 24 bits, but for numbers of which both roundings make 0.
    return _single_to_half(np.float32(cut_odd(x, 29)))  # pyright: ignore[reportCallIssue]


@inline
def to_bfloat_fast(x):
    # A bfloat16 is the upper half of a float32, which holds 16 bits of all numbers from 2^-134, half of the least
    # bfloat16, on; less does not become more than that, and so 0.
    y = np.float32(cut_odd(x, 37))
    bits = np.float32(y if y == y else np.nan).view(np.int32)
    return np.int16(np.int32(bits + np.int32(0x7FFF + ((bits >> 16) & 1))) >> 16)


def _converts_halves() -> bool:
    """Whether the processor that is compiled for converts float16 (x86 since 2012)."""
    name, features = (getattr(config, key, None) for key in ("CPU_NAME", "CPU_FEATURES"))
    if name or features:  # another processor than this one
        return "+f16c" in (features or "")
    return bool(binding.get_host_cpu_features().get("f16c"))


def _reader(dtype):
    return {"uint16": from_half, "int16": from_bfloat}.get(str(dtype), from_plain)


def _writer(dtype):
    return {"uint16": to_half, "int16": to_bfloat, "float32": np.float32}.get(str(dtype), from_plain)


def clip(g: float, chi: float | None) -> float:
    """:func:`amos_ref.spec.clip` for one number, as comparisons that NaN passes through; None is no clipping."""
    if chi is None:
        return g
    return chi if g > chi else -chi if g < -chi else g


def load(a: Any, i: int) -> Any:
    """Return ``a[i]`` as float64; a number is its own every entry."""
    return _reader(a.dtype)(a[i]) if isinstance(a, np.ndarray) else a


def store(a: np.ndarray, i: int, x: float) -> None:
    """Set ``a[i]`` to x, rounded once."""
    a[i] = _writer(a.dtype)(x)


def average_into(m: np.ndarray | None, i: int, delta: float, mu: float) -> float:
    """Return the change, averaged into ``m[i]``; without momentum (None) as it is."""
    if m is None:
        return delta
    delta = spec.average(load(m, i), delta, mu)
    store(m, i, delta)
    return delta


def cut(a: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    """Return ``a[start:stop]``; None of None."""
    return None if a is None else a[start:stop]


@specialise(clip)
def _clip(g, chi):
    if chi == types.none:
        return lambda g, chi: g
    return lambda g, chi: chi if g > chi else -chi if g < -chi else g


@specialise(load)
def _load(a, i):
    if not isinstance(a, types.Array):
        return lambda a, i: a
    read = from_half_fast if a.dtype == types.uint16 and _converts_halves() else _reader(a.dtype)
    return lambda a, i: read(a[i])


@specialise(store)
def _store(a, i, x):
    fast = {types.float32: types.float32, types.int16: to_bfloat_fast}
    if _converts_halves():
        fast[types.uint16] = to_half_fast
    write = fast.get(a.dtype) or _writer(a.dtype)

    def put(a, i, x):
        a[i] = write(x)

    return put


@specialise(average_into)
def _average_into(m, i, delta, mu):
    if m == types.none:
        return lambda m, i, delta, mu: delta

    def average(m, i, delta, mu):
        delta = spec.average(load(m, i), delta, mu)
        store(m, i, delta)
        return delta

    return average


@specialise(cut)
def _cut(a, start, stop):
    if a == types.none:
        return lambda a, start, stop: None
    return lambda a, start, stop: a[start:stop]
