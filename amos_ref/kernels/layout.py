"""The layout of a step, kept for the next ones: what was checked serves for as long as the arrays stay as they are."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from amos_ref import tree
from amos_ref.errors import DtypeError
from amos_ref.foreign import is_tensor
from amos_ref.kernels import Backend, Watch, Work


class KeptLayout:
    """A step that was checked and laid out, for as long as `match` says so.

    Everything that it claims is compared with what is there now: the structure of both trees, which gradients are None,
    which arrays the state has, and of every array what the backend's watch looks at. It holds no array alive.

    Parameters
    ----------
    backend : Backend
    work : Work
        Over the leaves that have a gradient.
    params, grads : tree
        None among the parameters is passed over.
    stepping : sequence of str
        The leaves that step. A leaf of `params` that is not among them is frozen, or its gradient is None.
    state : NamedTuple
        A count, and dicts of arrays by leaf name (or None). All three were checked.
    """

    work: Work
    stepping: list[str]
    structure: Any
    here: list[int]
    passed: list[int]
    names: list[str]
    state_type: type
    present: list[int]
    absent: list[int]
    moved: list[int]
    skipped: list[int]
    single: list[int]
    fixed: int
    as_array: Callable[[Any, str], Any] | None
    tensors: bool  # whether there is a torch tensor among the parameters
    watch: Watch | None

    def __init__(
        self, backend: Backend, work: Work, params: Any, grads: Any, state: Any, stepping: Sequence[str]
    ) -> None:
        self.work, self.stepping = work, list(stepping)
        thetas, self.structure = optree.tree_flatten(params, none_is_leaf=True)
        names = tree.names_of(self.structure)
        self.here = [k for k, a in enumerate(thetas) if a is not None]
        self.passed = [k for k, a in enumerate(thetas) if a is None]
        self.names = [names[k] for k in self.here]
        self.state_type = type(state)
        self.present = [k for k in range(1, len(state)) if state[k] is not None]
        self.absent = [k for k in range(1, len(state)) if state[k] is None]
        leaves = optree.tree_leaves(grads, none_is_leaf=True)
        moved = set(self.stepping)
        self.moved = [k for k, name in enumerate(names) if name in moved]
        self.skipped = [k for k, g in enumerate(leaves) if g is None]
        self.single = [k for k in self.moved if np.ndim(leaves[k]) == 0]
        self.fixed = len(self.here) * (1 + len(self.present))
        self.as_array = (
            None if all(type(a) is np.ndarray for a in thetas + leaves if a is not None) else backend.as_array
        )
        self.tensors = any(map(is_tensor, thetas))
        arrays = self._arrays(params, grads, state)
        self.watch = None if arrays is None else backend.watch(arrays, self.fixed)

    @classmethod
    def keep(
        cls, backend: Backend, work: Work, params: Any, grads: Any, state: Any, stepping: Sequence[str]
    ) -> "KeptLayout | None":
        """Return a layout for later steps with the same arrays, or None where none can be kept."""
        if not work.keeps:
            return None
        trees = [optree.tree_structure(part, none_is_leaf=True) for part in (params, grads)]
        if trees[0] != trees[1]:  # gradients need not have a None of the parameters
            return None
        layout = cls(backend, work, params, grads, state, stepping)
        return None if layout.match(params, grads, state) is None else layout

    def match(self, params: Any, grads: Any, state: Any) -> tuple[list[Any], Any] | None:
        """Return all arrays, behind the `fixed` ones the gradients of the leaves that step, and where these lie.

        None if anything else is not as it was. Whoever uses the addresses holds the arrays meanwhile.
        """
        arrays = None if self.watch is None else self._arrays(params, grads, state)
        if arrays is None or self.watch is None:
            return None
        addresses = self.watch.compare(arrays)
        return None if addresses is None else (arrays, addresses)

    def _arrays(self, params: Any, grads: Any, state: Any) -> list[Any] | None:
        """Return all parameters, all state and the gradients, or None if they are not of the layout's trees."""
        if type(state) is not self.state_type or type(state.count) is not int or state.count < 0:
            return None
        try:
            thetas, structure = optree.tree_flatten(params, none_is_leaf=True)
            gs, other = optree.tree_flatten(grads, none_is_leaf=True)
        except RecursionError:
            return None
        if not (structure == other == self.structure):
            return None
        if self.passed:
            if any(thetas[k] is not None for k in self.passed):
                return None
            thetas = [thetas[k] for k in self.here]
        for k in self.single:
            if isinstance(gs[k], np.floating):  # as the mean of an array is
                gs[k] = np.asarray(gs[k])
        if any(gs[k] is not None for k in self.skipped):
            return None
        if len(self.moved) < len(gs):
            gs = [gs[k] for k in self.moved]  # the watch sees a None among them: it is no array
        for k in self.absent:
            if state[k] is not None:
                return None
        parts = [state[k] for k in self.present]
        for part in parts:
            if type(part) is not dict or len(part) != len(thetas):
                return None
        try:
            arrays = thetas + [part[name] for part in parts for name in self.names] + gs
            return arrays if self.as_array is None else [self.as_array(a, "") for a in arrays]
        except (KeyError, DtypeError):
            return None


class LastLayout:
    """Where an optimizer keeps the layout of its last step. What it holds is neither copied nor pickled."""

    def __init__(self) -> None:
        self._layouts: collections.deque[KeptLayout] = collections.deque(maxlen=1)

    def take(self) -> KeptLayout | None:
        """Return the layout, which no other thread gets meanwhile, or None."""
        try:
            return self._layouts.pop()
        except IndexError:
            return None

    def peek(self) -> KeptLayout | None:
        """Return the layout, which stays, or None."""
        return self._layouts[-1] if self._layouts else None

    def put(self, layout: KeptLayout) -> None:
        """Keep a layout."""
        self._layouts.append(layout)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return LastLayout, ()
