"""The page itself as a backend, in NumPy."""

from amos_ref.leaf import Leaf, Rates, computed, rounded


def step(leaves: list[Leaf], rates: Rates) -> None:
    """Advance all leaves in place; everything is computed before anything is written."""
    results = [computed(leaf, rates) for leaf in leaves]
    for leaf, after in zip(leaves, results, strict=True):
        for name, target in zip(("theta", "v", "b", "m"), (leaf.theta, leaf.v, leaf.b, leaf.m), strict=True):
            if target is not None:
                target[...] = rounded(after[name], target)
