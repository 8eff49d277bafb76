"""What an array must be before a step touches it: dtype, shape, finite, writeable, apart from the others."""

from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.errors import (
    BackendError,
    DtypeError,
    MissingDependencyError,
    NonFiniteError,
    OverlapError,
    ReadOnlyError,
    ShapeError,
)
from amos_ref.kernels.cuda.arrays import DeviceArray, on_device

FLOATS = ("float16", "bfloat16", "float32", "float64")


def dtype_of(name: str) -> np.dtype:
    """Return the NumPy dtype of that name; bfloat16 comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise MissingDependencyError("bfloat16 needs ml_dtypes: pip install 'amos_ref[bf16]'") from None
    return np.dtype(ml_dtypes.bfloat16)


def last_place(x: Any, dtype: str) -> Any:
    """Return the exponent of one unit in the last place of x in float32, float16 or bfloat16."""
    bits, lowest = {"float32": (24, -126), **spec.NARROW}[dtype]
    return np.maximum(np.frexp(x)[1], lowest + 1) - bits


def check_array(a: Any, where: str) -> Any:
    """Return `a` if it is an array the optimizer can work on, else raise DtypeError."""
    if isinstance(a, DeviceArray):
        return a
    if not isinstance(a, np.ndarray):
        if on_device(a):
            raise BackendError(
                f"{where} is on a GPU, where only backend 'cuda' steps it: use that, or copy it to NumPy"
            )
        raise DtypeError(f"{where} is not a NumPy array but {type(a).__name__}: {a!r:.60}")
    if type(a) not in (np.ndarray, np.memmap):
        raise DtypeError(f"{where} is a {type(a).__name__}, whose arithmetic is not that of a plain NumPy array")
    if a.dtype.name not in FLOATS or not a.dtype.isnative:
        raise DtypeError(f"{where} has dtype {a.dtype!s}; it must be one of {', '.join(FLOATS)}, in native byte order")
    return a


def check_shape(a: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Raise ShapeError unless `a` has exactly the shape of its parameter."""
    if a.shape != shape:
        raise ShapeError(f"{where} has shape {a.shape}; its parameter has shape {shape}")


def check_finite(a: np.ndarray, where: str, *, squared: bool = False) -> None:
    """Raise NonFiniteError naming the first index whose value (or square) is not finite."""
    with np.errstate(all="ignore"):
        wide = a.astype(np.float64)
        bad = ~np.isfinite(wide * wide if squared else wide)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), a.shape))
        value = wide[index]
        why = ", whose square overflows float64" if np.isfinite(value) else ""
        raise NonFiniteError(f"{where}[{', '.join(map(str, index))}] is {float(value)!r}{why}")


def check_targets(targets: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    """Check that every target can be written in place without touching anything else.

    Raises
    ------
    ReadOnlyError
        If a target is read-only.
    OverlapError
        If a target shares memory with another array, or if its own elements do.
    """
    for where, a in targets.items():
        if not (a.writeable if isinstance(a, DeviceArray) else a.flags.writeable):
            raise ReadOnlyError(f"{where} is read-only, and a step writes to it")
        if _overlaps_itself(a):
            raise OverlapError(f"{where} has strides {a.strides} by which its own elements may share memory")
    # Sorted by address, only neighbours whose bounds meet can share memory.
    spans = []
    for arrays, written in ((targets, True), (others, False)):
        for where, a in arrays.items():
            if a.size:
                low, high = a.bounds if isinstance(a, DeviceArray) else np.lib.array_utils.byte_bounds(a)
                spans.append((low, high, where, a, written))
    spans.sort(key=lambda span: span[0])
    open_spans: list[tuple] = []
    for span in spans:
        open_spans = [other for other in open_spans if other[1] > span[0]]
        for other in open_spans:
            if (span[4] or other[4]) and _share(span[3], other[3]):
                first, second = sorted((span[2], other[2]))
                raise OverlapError(f"{first} shares memory with {second}, and a step writes to one of them")
        open_spans.append(span)


def _share(a: Any, other: Any) -> bool:
    """Whether two arrays whose bounds meet share memory; those on a GPU are contiguous."""
    return isinstance(a, DeviceArray) or isinstance(other, DeviceArray) or np.shares_memory(a, other)


def _overlaps_itself(a: Any) -> bool:
    """Whether strides let two elements share memory (certain for every ordinary view, cautious for the rest)."""
    if isinstance(a, DeviceArray):
        return False
    reach = a.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return a.size > 0
        reach += stride * (n - 1)
    return False
