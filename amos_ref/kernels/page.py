"""The page itself as a backend, in NumPy."""

from typing import Any

from amos_ref.leaf import computed, rounded


def step(leaves: list[Any], rates: Any) -> None:
    """Advance all leaves in place; everything is computed before anything is written."""
    results = []
    for leaf in leaves:
        after = computed(leaf, rates)
        results.append({name: rounded(after[name], target) for name, target in leaf.written()})
    for leaf, after in zip(leaves, results, strict=True):
        for name, target in leaf.written():
            target[...] = after[name]
