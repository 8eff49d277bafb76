"""Trees of parameters, and all their bits."""

import numpy as np
import optree

from helpers import strategies as own

SHAPES = {
    "dense": [{"kernel": (6, 5), "bias": (5,)}, ({"kernel": (3, 2, 4), "bias": ()},)],
    "scale": (7,),
    "none": (0, 3),
}


def tree_of(seed, dtype="float64", middle=0):
    rng = np.random.default_rng(seed)
    return optree.tree_map(
        lambda shape: own.numbers(rng, shape, dtype, middle=middle, spread=3),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x),
    )


def all_bits(tree):
    return [None if a is None else own.bits(a) for a in optree.tree_leaves(tree, none_is_leaf=True)]
