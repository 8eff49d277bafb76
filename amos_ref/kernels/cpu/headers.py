"""Whether NumPy arrays are still what they were, at a tenth of a microsecond each.

Asking an array in Python for its type, dtype, shape, flags and address takes more than a microsecond, and a step of
1,000 leaves has 4,000 arrays. So compiled code reads the headers of the arrays (PyArrayObject_fields) from memory.
Their layout is part of the binary interface that NumPy keeps for all of 2.x: the macros that every extension module is
compiled with read the same fields. Nobody relies on that unseen: `headers_are_readable` compares the fields of sample
arrays with what Python says of them, and where they differ, where NumPy is not 2.x, or where another thread may change
an array while it is looked at (Python without its global lock), :class:`PlainWatch` asks each array in Python instead.
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.kernels.cpu.memory import word
from amos_ref.kernels.cpu.tasks import count_up_to
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import address

_HEAD = object.__basicsize__  # bytes of an object before its first field; the last of them are its type
DATA, NDIM, SHAPE, DTYPE, FLAGS = (_HEAD + offset for offset in (0, 8, 16, 40, 48))
CONTIGUOUS, ALIGNED, WRITEABLE = 1, 0x100, 0x400


@kernel
def unchanged(ids, fixed, words, shapes, data):
    """Whether the arrays at these addresses of objects are like their rows; `data` is compared for the first `fixed`.

    Of the others `data` takes the new addresses. A row of `words` is an array's type, dtype, the flags that must be
    set, its number of dimensions, and where its shape begins in `shapes`.
    """
    if not (ids.size == words.shape[0] == data.size and fixed <= ids.size):
        raise AssertionError("a kept step compares as many arrays as it has rows for")
    for i in range(ids.size):
        at = ids[i]
        if word(at + _HEAD - 8) != words[i, 0] or word(at + DTYPE) != words[i, 1]:
            return False
        if word(at + FLAGS) & words[i, 2] != words[i, 2] or word(at + NDIM) & 0xFFFFFFFF != words[i, 3]:
            return False
        for k in range(words[i, 3]):
            if word(word(at + SHAPE) + 8 * k) != shapes[words[i, 4] + k]:
                return False
        if i >= fixed:
            data[i] = word(at + DATA)
        elif data[i] != word(at + DATA):
            return False
    return True


@kernel
def apart(data, sizes, lows, highs):
    """Whether none of the spans that begin at `data` meets one of the sorted, disjoint spans from `lows` to `highs`."""
    if not (data.size == sizes.size and lows.size == highs.size):
        raise AssertionError("spans have a beginning and an end each")
    for i in range(data.size):
        k = count_up_to(data[i], highs)
        if k < lows.size and lows[k] < data[i] + sizes[i]:
            return False
    return True


class HeaderWatch:
    """What arrays were like, compared by compiled code; see :class:`amos_ref.kernels.Watch`.

    Parameters
    ----------
    arrays : sequence of ndarray
        Contiguous and aligned.
    fixed : int
        How many of them, from the first, must stay where they are.
    """

    kinds: list[tuple[type[np.ndarray], np.dtype]]
    words: np.ndarray
    shapes: np.ndarray
    data: np.ndarray

    def __init__(self, arrays: Sequence[np.ndarray], fixed: int) -> None:
        self.fixed = fixed
        self.kinds = [(type(a), a.dtype) for a in arrays]  # alive, so that nothing else is found at their addresses
        self.words = np.zeros((len(arrays), 5), np.int64)
        starts = np.cumsum([0, *(a.ndim for a in arrays)])
        for i, a in enumerate(arrays):
            flags = CONTIGUOUS | ALIGNED | (WRITEABLE if i < fixed and a.flags.writeable else 0)
            self.words[i] = id(type(a)), id(a.dtype), flags, a.ndim, starts[i]
        self.shapes = np.array([n for a in arrays for n in a.shape], np.int64)
        self.data = np.array([address(a) for a in arrays], np.int64)

    def compare(self, arrays: Sequence[Any]) -> np.ndarray | None:
        """Return the addresses of the arrays behind the fixed ones; None if anything else is not as it was."""
        ids = np.fromiter(map(id, arrays), np.int64, len(arrays))
        return self.data[self.fixed :] if unchanged(ids, self.fixed, self.words, self.shapes, self.data) else None


class PlainWatch:
    """The same by asking each array in Python."""

    kinds: list[type[np.ndarray]]
    rows: list[tuple[Any, ...]]
    writeable: list[bool]
    data: list[int]

    def __init__(self, arrays: Sequence[np.ndarray], fixed: int) -> None:
        self.fixed = fixed
        self.kinds = [type(a) for a in arrays]
        self.rows = [_describe(a) for a in arrays]
        self.writeable = [a.flags.writeable for a in arrays[:fixed]]
        self.data = [address(a) for a in arrays[:fixed]]

    def compare(self, arrays: Sequence[Any]) -> np.ndarray | None:
        """Return the addresses of the arrays behind the fixed ones; None if anything else is not as it was."""
        if len(arrays) != len(self.rows):
            raise AssertionError("a kept step compares as many arrays as it has rows for")
        if [type(a) for a in arrays] != self.kinds or [_describe(a) for a in arrays] != self.rows:
            return None
        here = [a.flags.writeable or not wanted for a, wanted in zip(arrays, self.writeable, strict=False)]
        if not all(here) or [address(a) for a in arrays[: self.fixed]] != self.data:
            return None
        return np.array([address(a) for a in arrays[self.fixed :]], np.int64)


def _describe(a: np.ndarray) -> tuple[Any, ...]:
    return a.dtype, a.shape, a.flags.c_contiguous and a.flags.aligned


class ApartWatch:
    """A watch that also sees to it that gradients share no memory with what a step writes.

    Parameters
    ----------
    watch : HeaderWatch or PlainWatch
    arrays : sequence of ndarray
    fixed : int
        The spans of these, from the first, must not meet each other nor those of the rest.
    """

    lows: np.ndarray
    highs: np.ndarray
    sizes: np.ndarray

    def __init__(self, watch: Any, arrays: Sequence[np.ndarray], fixed: int) -> None:
        self.watch = watch
        spans = [(address(a), address(a) + a.nbytes) for a in arrays[:fixed] if a.size]
        self.lows, self.highs = np.array(sorted(spans), np.int64).reshape(-1, 2).T.copy()
        self.sizes = np.array([a.nbytes for a in arrays[fixed:]], np.int64)

    @property
    def disjoint(self) -> bool:
        """Whether the spans are apart; of arrays that are only read, two may overlap."""
        return bool((self.highs[:-1] <= self.lows[1:]).all())

    def compare(self, arrays: Sequence[Any]) -> np.ndarray | None:
        """Return the addresses of the gradients; None if anything else is not as it was."""
        data = self.watch.compare(arrays)
        return data if data is not None and apart(data, self.sizes, self.lows, self.highs) else None


def watch_arrays(arrays: Sequence[np.ndarray], fixed: int) -> ApartWatch | None:
    """Return a watch over arrays, or None if they cannot be watched (one is not contiguous, or two overlap)."""
    if not all(a.flags.c_contiguous and a.flags.aligned for a in arrays):
        return None
    kind = HeaderWatch if headers_are_readable() else PlainWatch
    watch = ApartWatch(kind(arrays, fixed), arrays, fixed)
    return watch if watch.disjoint else None


@functools.cache
def headers_are_readable() -> bool:
    """Whether the fields of headers are where this module looks for them, by sample arrays of every kind."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    known = sys.implementation.name == "cpython" and sys.maxsize == 2**63 - 1 and np.__version__.startswith("2.")
    if not (locked and known):
        return False
    base = np.arange(24.0)
    samples = [base, base[3:9].reshape(2, 3), base[5:6].reshape(()), np.zeros((2, 0, 3), np.float32)]
    samples.append(np.ones((3, 1, 4, 2), np.float16))
    watch = HeaderWatch(samples, len(samples))
    if watch.compare(samples) is None:
        return False
    read_only = base.view()
    read_only.flags.writeable = False
    wrong = [base[1:], base[:23], base.reshape(4, 6), base.view(np.int64), base.copy(), read_only, base[::-1], 0.5]
    return all(watch.compare([other, *samples[1:]]) is None for other in wrong)
