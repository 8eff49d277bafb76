"""What an array must be before a step touches it: dtype, shape, finite, writeable, apart from the others."""

import math
import operator
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.dtypes import FLOATS, is_float
from amos_ref.errors import (
    BackendError,
    DtypeError,
    NonFiniteError,
    OverlapError,
    ReadOnlyError,
    ShapeError,
)

Arrays = dict[str, np.ndarray]
GPU = (2, 13)  # how DLPack numbers the memory of a GPU, and memory that it shares with the host


class ForeignArray:
    """An array outside NumPy's memory, as checks and layouts see it; the backend that steps it makes it.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
        float16, bfloat16 (of ml_dtypes), float32 or float64.
    address : int
        Of the first element; the others follow in C order.
    writeable : bool
    source : object
        The array that this describes, so that it stays alive.
    """

    address: int
    dtype: np.dtype
    shape: tuple[int, ...]
    source: Any
    writeable: bool

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


def lies_on_gpu(a: Any) -> bool:
    """Whether this is an array on a GPU, whoever made it."""
    if isinstance(a, np.ndarray | np.generic):
        return False
    return cuda_interface(a) is not None or dlpack_device(a) in GPU


def cuda_interface(a: Any) -> dict[str, Any] | None:
    """Return ``a.__cuda_array_interface__``, or None where there is none."""
    if getattr(type(a), "__module__", "").startswith("numba.cuda.simulator"):
        return a._ary.__array_interface__
    try:
        return getattr(a, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError, KeyError):  # of older torch: for bfloat16
        return None


def dlpack_device(a: Any) -> int | None:
    """Return on what kind of device DLPack says that an array is, or None."""
    return int(a.__dlpack_device__()[0]) if hasattr(a, "__dlpack__") else None


def check_array(a: Any, where: str) -> Any:
    """Return `a` if it is an array the optimizer can work on, else raise DtypeError."""
    if isinstance(a, ForeignArray):
        return a
    if not isinstance(a, np.ndarray):
        if lies_on_gpu(a):
            raise BackendError(
                f"{where} is on a GPU, where only backend 'cuda' steps it: use that, or copy it to NumPy"
            )
        how = "; give dict(module.named_parameters()) of it" if hasattr(a, "named_parameters") else ""
        how = "; give a dict of what it yields: dict(module.named_parameters())" if isinstance(a, Iterator) else how
        raise DtypeError(f"{where} is not a NumPy array but {type(a).__name__}: {a!r:.60}{how}")
    if type(a) not in (np.ndarray, np.memmap):
        raise DtypeError(f"{where} is a {type(a).__name__}, whose arithmetic is not that of a plain NumPy array")
    if not is_float(a.dtype):
        raise DtypeError(f"{where} has dtype {a.dtype!s}; it must be one of {', '.join(FLOATS)}, in native byte order")
    return a


def check_shape(a: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Raise ShapeError unless `a` has exactly the shape of its parameter."""
    if a.shape != shape:
        raise ShapeError(f"{where} has shape {a.shape}; its parameter has shape {shape}")


def check_finite(a: np.ndarray, where: str, *, squared: bool = False, origin: tuple[int, ...] | None = None) -> None:
    """Raise NonFiniteError naming the first index whose value (or square) is not finite.

    Of a part of an array `origin` says where in the whole it begins.
    """
    with np.errstate(all="ignore"):
        wide = a.astype(np.float64)
        bad = ~np.isfinite(wide * wide if squared else wide)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), a.shape))
        value = wide[index]
        index = tuple(map(operator.add, index, origin or (0,) * len(index)))
        why = ", whose square overflows float64" if np.isfinite(value) else ""
        error = NonFiniteError(f"{where}[{', '.join(map(str, index))}] is {float(value)!r}{why}")
        error.index = index
        raise error


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
        if not (a.writeable if isinstance(a, ForeignArray) else a.flags.writeable):
            raise ReadOnlyError(
                f"{where} is read-only, and a step writes to it; copy it, or call update, which does not"
            )
        if _overlaps_itself(a):
            raise OverlapError(f"{where} has strides {a.strides} by which its own elements may share memory")
    # Sorted by address, only neighbours whose bounds meet can share memory.
    spans = []
    for arrays, written in ((targets, True), (others, False)):
        for where, a in arrays.items():
            if a.size:
                low, high = a.bounds if isinstance(a, ForeignArray) else np.lib.array_utils.byte_bounds(a)
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
    return isinstance(a, ForeignArray) or isinstance(other, ForeignArray) or np.shares_memory(a, other)


def _overlaps_itself(a: Any) -> bool:
    """Whether strides let two elements share memory (certain for every ordinary view, cautious for the rest)."""
    if isinstance(a, ForeignArray):
        return False
    reach = a.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return a.size > 0
        reach += stride * (n - 1)
    return False


def named_arrays(params: Any, what: str = "params") -> Arrays:
    """Return the leaves of a tree by name, each an array the optimizers can work on; None in a tree is passed over."""
    return {name: check_array(a, f"{what} leaf {name!r}") for name, a in tree.present(params, what).items()}


def named_gradients(grads: Any, thetas: Arrays, frozen: Collection[str] = ()) -> Arrays:
    """Return the gradients that are there (not None), each of its parameter's shape, but for those of frozen leaves."""
    found = {}
    given = {name: g for name, g in tree.flatten(grads, "grads").items() if g is not None or name in thetas}
    for name, g in tree.match(given, thetas, "grads").items():
        if g is not None and name not in frozen:
            g = np.asarray(g) if isinstance(g, np.floating) else g  # as the mean of an array is
            where = f"gradient of leaf {name!r}"
            check_shape(check_array(g, where), thetas[name].shape, where)
            found[name] = g
    return found


def check_written(written: dict[str, Arrays | None], gradients: Arrays, others: Arrays | None = None) -> None:
    """Check that the arrays of the leaves with a gradient can be written, and share memory with nothing else.

    Parameters
    ----------
    written : dict
        What a step writes, as it is called in an error: ``{"parameter": {leaf: array}, "state v": ...}``.
    gradients : dict
        ``{leaf: array}`` of the leaves that step.
    others : dict, optional
        More arrays that are only read, by what they are called.
    """
    targets: Arrays = {}
    kept = {f"gradient of leaf {name!r}": g for name, g in gradients.items()} | (others or {})
    for word, arrays in written.items():
        for name, a in (arrays or {}).items():
            (targets if name in gradients else kept)[f"{word} of leaf {name!r}"] = a
    check_targets(targets, kept)
