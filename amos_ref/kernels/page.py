"""The page itself as a backend, in NumPy."""

from typing import Any

from amos_ref.dtypes import rounded
from amos_ref.optimizers.leaf import computed


class Work:
    """The leaves of a step; see :class:`amos_ref.kernels.cpu.backend.Work`."""

    def __init__(self, leaves: list[Any]) -> None:
        pass

    def plan(self, *trees: Any) -> None:
        """Keep nothing."""

    def run(self, leaves: list[Any], rates: Any) -> int:
        """Advance all leaves in place; everything is computed before anything is written."""
        results = []
        for leaf in leaves:
            after = computed(leaf, rates)
            results.append({name: rounded(after[name], target) for name, target in leaf.written()})
        for leaf, after in zip(leaves, results, strict=True):
            for name, target in leaf.written():
                target[...] = after[name]
        return -1
