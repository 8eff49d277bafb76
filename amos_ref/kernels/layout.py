"""A step kept ready: what was checked and laid out for some trees holds as long as their arrays stay as they are.

To look at thousands of arrays in a microsecond each, compiled code reads the headers that NumPy keeps in memory
(PyArrayObject, part of NumPy's C interface) instead of asking each array in Python.
"""

from typing import Any, NamedTuple

import numpy as np
import optree

from amos_ref.kernels.cpu.memory import word
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import address
from amos_ref.optimizers.state import AmosState

_HEAD = object.__basicsize__  # bytes before the first field of an object of CPython; the last word is its type
DATA, NDIM, SHAPE, DTYPE, FLAGS = (_HEAD + offset for offset in (0, 8, 16, 40, 48))
CONTIGUOUS, ALIGNED, WRITEABLE = 1, 0x100, 0x400


class Headers(NamedTuple):
    """What some arrays were like: a row each."""

    words: np.ndarray  # int64 (arrays, 5): type, dtype, flags that must be set, dimensions, start in `shapes`
    shapes: np.ndarray  # int64: all shapes, one behind the other
    data: np.ndarray  # int64 (arrays,): addresses


@kernel
def unchanged(ids, fixed, words, shapes, data):
    """Whether the arrays at these addresses of objects are like their rows; `data` is compared for the first `fixed`.

    Of the others, the gradients, `data` takes the new addresses.
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
    for i in range(data.size):
        k = np.searchsorted(highs, data[i], side="right")
        if k < lows.size and lows[k] < data[i] + sizes[i]:
            return False
    return True


class Plan:
    """A step that was checked and laid out, for as long as `fits` says so.

    Parameters
    ----------
    work : Work
        Of the backend, over the leaves that have a gradient.
    params, grads : tree
    state : AmosState
        What was checked.
    """

    def __init__(self, work: Any, params: Any, grads: Any, state: AmosState) -> None:
        self.work = work
        paths, _, self.structure = optree.tree_flatten_with_path(params, none_is_leaf=True)
        self.names = ["/".join(map(str, path)) for path in paths]
        self.averages = state.m is not None
        self.numbers: dict[int, np.ndarray] = {}  # gradients that nobody else holds while the step runs
        leaves = optree.tree_leaves(grads, none_is_leaf=True)
        self.skipped = [k for k, g in enumerate(leaves) if g is None]
        self.single = [k for k, g in enumerate(leaves) if np.ndim(g) == 0 and g is not None]
        arrays = self._arrays(params, grads, state) or []
        self.fixed = len(arrays) - (len(leaves) - len(self.skipped))
        self.headers = _headers(arrays, self.fixed)
        spans = [(address(a), address(a) + a.nbytes) for a in arrays[: self.fixed] if a.size]
        self.lows, self.highs = np.array(sorted(spans), np.int64).reshape(-1, 2).T.copy()
        self.sizes = np.array([a.nbytes for a in arrays[self.fixed :]], np.int64)

    @classmethod
    def kept(cls, work: Any, params: Any, grads: Any, state: AmosState) -> "Plan | None":
        """Return a plan, or None where some array is not contiguous or the trees are of different types."""
        if optree.tree_structure(params, none_is_leaf=True) != optree.tree_structure(grads, none_is_leaf=True):
            return None
        plan = cls(work, params, grads, state)
        apart = (plan.highs[:-1] <= plan.lows[1:]).all()  # of the arrays that are only read, two may overlap
        return plan if apart and plan.fits(params, grads, state) else None

    def fits(self, params: Any, grads: Any, state: AmosState) -> bool:
        """Whether all arrays are those of the plan, but for gradients elsewhere; if so, the work takes these."""
        arrays = self._arrays(params, grads, state)
        if arrays is None:
            return False
        ids = np.fromiter(map(id, arrays), np.int64, len(arrays))
        if not unchanged(ids, self.fixed, *self.headers):
            return False
        data = self.headers.data[self.fixed :]
        if not apart(data, self.sizes, self.lows, self.highs):
            return False
        self.work.take(data)
        return True

    def _arrays(self, params: Any, grads: Any, state: AmosState) -> list[Any] | None:
        """Return all parameters, all state and the gradients, or None if they are not of the plan's trees."""
        if type(state) is not AmosState or type(state.count) is not int or state.count < 0:
            return None
        try:
            thetas, structure = optree.tree_flatten(params, none_is_leaf=True)
            gs, other = optree.tree_flatten(grads, none_is_leaf=True)
        except RecursionError:
            return None
        parts: Any = (state.v, state.b, state.m) if self.averages else (state.v, state.b)
        if (
            not (structure == other == self.structure)
            or self.averages != (state.m is not None)
            or any(type(part) is not dict or len(part) != len(thetas) for part in parts)
        ):
            return None
        for k in self.single:
            if isinstance(gs[k], np.floating):  # as the mean of an array is
                gs[k] = self.numbers[k] = np.asarray(gs[k])
        if [k for k, g in enumerate(gs) if g is None] != self.skipped:
            return None
        if self.skipped:
            gs = [g for g in gs if g is not None]
        try:
            return thetas + [part[name] for part in parts for name in self.names] + gs
        except KeyError:
            return None


def _headers(arrays: list[np.ndarray], fixed: int) -> Headers:
    words = np.zeros((len(arrays), 5), np.int64)
    starts = np.cumsum([0, *(a.ndim for a in arrays)])
    for i, a in enumerate(arrays):
        flags = CONTIGUOUS | ALIGNED | (WRITEABLE if i < fixed and a.flags.writeable else 0)
        words[i] = id(type(a)), id(a.dtype), flags, a.ndim, starts[i]
    shapes = np.array([n for a in arrays for n in a.shape], np.int64)
    return Headers(words, shapes, np.array([address(a) for a in arrays], np.int64))
