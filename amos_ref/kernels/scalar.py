"""What one element or one slot needs, for every kernel: the page's stages, and loads and stores.

The stages are not written again: :mod:`amos_ref.spec` itself is compiled. Arrays of half precision reach
the kernels as bits, float16 as uint16 and bfloat16 as int16, so that the type alone says how to read them.
"""

import numpy as np
from numba import types

from amos_ref import spec
from amos_ref.kernels.jit import inlined, specialised

for _stage in (
    spec.second_moment,
    spec.reciprocal,
    spec.decay_factor_c,
    spec.growth,
    spec.decay_factor_d,
    spec.step_size,
    spec.weight_decay,
    spec.grown,
    spec.decide,
    spec.change,
    spec.average,
):
    inlined(_stage)

BITS = {"float16": np.uint16, "bfloat16": np.int16}


@inlined
def from_plain(x):
    return np.float64(x)


@inlined
def from_half(bits):
    # Sign aside, the bits of a float16 at the top of a float64 read as its value times 2^-1008.
    bits = np.int64(bits)
    if (bits & 0x7C00) == 0x7C00:
        word = np.int64(0x7FF0000000000000) | ((bits & 0x3FF) << 42)
        x = np.int64(word).view(np.float64)
    else:
        x = np.int64((bits & 0x7FFF) << 42).view(np.float64) * 2.0**1008
    return -x if bits & 0x8000 else x


@inlined
def from_bfloat(bits):
    return np.float64(np.int32(np.int32(bits) << 16).view(np.float32))


@inlined
def snap(x, bits, lowest):
    """Round to `bits` significant bits, exponent at least `lowest`, ties to even; still a float64."""
    word = np.float64(x).view(np.int64)
    exponent = np.int64((word >> 52) & 0x7FF)
    if exponent == 0x7FF:
        return x
    exponent = max(exponent, np.int64(lowest + 1023)) + np.int64(53 - bits)
    # 1.5 * 2^k holds a spacing of 2^(k-52): adding it rounds x, taking it away gives the rest back.
    if exponent > 2046:
        return x * np.inf
    anchor = np.int64((exponent << 52) | 0x8000000000000).view(np.float64)
    return (x + anchor) - anchor


@inlined
def to_half(x):
    y = abs(snap(x, 11, -14))
    if y != y:
        bits = np.int64(0x7E00)
    elif y > 65504.0:
        bits = np.int64(0x7C00)
    else:
        bits = np.float64(y * 2.0**-1008).view(np.int64) >> 42
    sign = np.float64(x).view(np.int64) < 0
    return np.uint16(bits | 0x8000 if sign else bits)


@inlined
def to_bfloat(x):
    y = np.float32(abs(snap(x, 8, -126)))
    bits = np.int64(0x7FC0) if y != y else np.int64(np.float32(y).view(np.int32) >> 16)
    sign = np.float64(x).view(np.int64) < 0
    return np.int16(bits - 0x8000 if sign else bits)


def _reader(dtype):
    return {"uint16": from_half, "int16": from_bfloat}.get(str(dtype), from_plain)


def _writer(dtype):
    return {"uint16": to_half, "int16": to_bfloat, "float32": np.float32}.get(str(dtype), from_plain)


def clip(g, chi):
    """:func:`amos_ref.spec.clip` for one number, as comparisons that NaN passes through; None is no clipping."""
    if chi is None:
        return g
    return chi if g > chi else -chi if g < -chi else g


def load(a, i):
    """Return ``a[i]`` as float64; a number is its own every entry."""
    return _reader(a.dtype)(a[i]) if isinstance(a, np.ndarray) else a


def store(a, i, x):
    """Set ``a[i]`` to x, rounded once."""
    a[i] = _writer(a.dtype)(x)


def averaged(m, i, delta, mu):
    """Return the change, averaged into ``m[i]``; without momentum (None) as it is."""
    if m is None:
        return delta
    delta = spec.average(load(m, i), delta, mu)
    store(m, i, delta)
    return delta


def cut(a, start, stop):
    """Return ``a[start:stop]``; None of None."""
    return None if a is None else a[start:stop]


@specialised(clip)
def _clip(g, chi):
    if chi == types.none:
        return lambda g, chi: g
    return lambda g, chi: chi if g > chi else -chi if g < -chi else g


@specialised(load)
def _load(a, i):
    if not isinstance(a, types.Array):
        return lambda a, i: a
    read = _reader(a.dtype)
    return lambda a, i: read(a[i])


@specialised(store)
def _store(a, i, x):
    write = types.float32 if a.dtype == types.float32 else _writer(a.dtype)

    def put(a, i, x):
        a[i] = write(x)

    return put


@specialised(averaged)
def _averaged(m, i, delta, mu):
    if m == types.none:
        return lambda m, i, delta, mu: delta

    def average(m, i, delta, mu):
        delta = spec.average(load(m, i), delta, mu)
        store(m, i, delta)
        return delta

    return average


@specialised(cut)
def _cut(a, start, stop):
    if a == types.none:
        return lambda a, start, stop: None
    return lambda a, start, stop: a[start:stop]
