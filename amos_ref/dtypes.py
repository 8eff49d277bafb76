"""The four formats of numbers: their names, one rounding into them, and how slots broadcast."""

import functools
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.errors import MissingDependencyError
from amos_ref.float_mode import check_mode

Shape = tuple[int, ...]
FLOATS = ("float16", "bfloat16", "float32", "float64")


@functools.cache
def is_float(dtype: np.dtype) -> bool:
    """Whether this is one of the four formats, in native byte order. (A dtype takes microseconds to say its name.)"""
    return dtype.name in FLOATS and dtype.isnative


def dtype_of(name: str) -> np.dtype:
    """Return the NumPy dtype of that name; bfloat16 comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:  # it comes with amos_ref: removed since then, or built for another NumPy
        raise MissingDependencyError(
            f"bfloat16 needs ml_dtypes, which cannot be imported ({error}): pip install --force-reinstall ml_dtypes"
        ) from None
    return np.dtype(ml_dtypes.bfloat16)


def last_place(x: Any, dtype: str) -> Any:
    """Return the exponent of one unit in the last place of x in float32, float16 or bfloat16."""
    bits, lowest = {"float32": (24, -126), **spec.NARROW}[dtype]
    return np.maximum(np.frexp(x)[1], lowest + 1) - bits


def round_like(x: Any, like: np.ndarray) -> np.ndarray:
    """Return x as an array of `like`'s dtype and shape, rounded once."""
    with np.errstate(all="ignore"):
        return np.asarray(spec.round_to(np.asarray(x), like.dtype)).reshape(like.shape)


def vanishes(g2: Any, v: np.ndarray) -> bool:
    """Whether v is 0 in float16 somewhere where the mean square of the gradient is not."""
    return v.dtype == np.float16 and bool(((v == 0) & (np.asarray(g2) > 0)).any())


def as_dtype(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `a` itself, or a copy of another dtype, rounded once."""
    if a.dtype == dtype:
        return a
    check_mode()
    return round_like(a.astype(np.float64), np.empty(a.shape, dtype))


def broadcasts(slot: Shape, shape: Shape) -> bool:
    """Whether an array of the slot's shape broadcasts to `shape`."""
    aligned = (1,) * (len(shape) - len(slot)) + slot
    return len(slot) <= len(shape) and all(k in (1, n) for k, n in zip(aligned, shape, strict=True))
