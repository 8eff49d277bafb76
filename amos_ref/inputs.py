"""What a step is given: trees of arrays, taken apart and checked leaf by leaf."""

from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import check_array, check_shape, check_targets

Arrays = dict[str, np.ndarray]


def named_arrays(params: Any, what: str = "params") -> Arrays:
    """Return the leaves of a tree by name, each an array the optimizers can work on."""
    return {name: check_array(a, f"{what} leaf {name!r}") for name, a in tree.flatten(params, what).items()}


def named_gradients(grads: Any, thetas: Arrays) -> Arrays:
    """Return the gradients that are there (not None), each of its parameter's shape."""
    found = {}
    for name, g in tree.match(tree.flatten(grads, "grads"), thetas, "grads").items():
        if g is not None:
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
