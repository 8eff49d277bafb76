"""How numbers and arrays are written in the vectors: their IEEE bits, big-endian, in hexadecimal digits."""

from typing import Any

import numpy as np

from amos_ref.errors import VectorError

Json = dict[str, Any]


def encode(a: Any) -> str:
    """Return the bits of an array (or of a number, as float64) in hexadecimal."""
    a = np.asarray(a)
    return np.ascontiguousarray(a).view(f"u{a.itemsize}").astype(f">u{a.itemsize}").tobytes().hex() if a.size else ""


def decode(text: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array that :func:`encode` wrote, or raise VectorError."""
    try:
        bits = np.frombuffer(bytes.fromhex(text), f">u{dtype.itemsize}")
        return bits.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape).copy()
    except ValueError as error:
        raise VectorError(f"{text[:20]!r}... is not the bits of {shape} {dtype}: {error}") from None


def number(text: str) -> float:
    """Return the float64 number with these bits."""
    return float(decode(text, np.dtype(np.float64), ()))
