"""States under Keras: of :mod:`amos_ref.ports.keras`, on every backend."""

from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays
from amos_ref.dtypes import as_dtype, dtype_of
from amos_ref.errors import StateError
from amos_ref.interop.parts import Kept, as_array, build, check_optional, read_count
from amos_ref.optimizers.state import AmosState, ClosedFormState
from amos_ref.optimizers.turn import check_unused


def from_keras(optimizer: Any, state_dtype: str = "param") -> Any:
    """Return the state of an optimizer of :mod:`amos_ref.ports.keras`, which must be built.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        An ``Amos`` or ``ClosedFormAmos`` of the port, also in a ``LossScaleOptimizer``. It is not changed.
    state_dtype : {"param", "float64"}
        "param" keeps the dtypes of an AmosState; "float64" widens it, for ``amos_ref.Amos`` as it is by default. A
        ClosedFormState is always in float64.

    Returns
    -------
    AmosState or ClosedFormState
        Its leaves are named by the paths of the variables, as "dense/kernel".

    Raises
    ------
    StateError
        If it is another optimizer, if it is not built, or if two variables have the same path.
    """
    optimizer, kind, fields = _open(optimizer)
    parts: dict[str, Arrays] = {}
    for part, variables in fields.items():
        named = zip(optimizer.paths, variables, strict=True)
        parts[part] = {name: as_array(x.numpy(), f"{part} of {name!r}") for name, x in named if x is not None}
    return build(kind, read_count(int(as_array(optimizer.iterations, "iterations"))), parts, None, state_dtype)


def to_keras(state: Kept, optimizer: Any) -> None:
    """Write a state into an optimizer of :mod:`amos_ref.ports.keras`, which must be built.

    Parameters
    ----------
    state : AmosState or ClosedFormState
        The state that is written; each number is rounded to the dtype of its variable. Leaves are named by the paths of
        the variables.
    optimizer : keras.optimizers.Optimizer
        As in :func:`from_keras`. Its options stay as they are, and nothing of it is changed if the state does not fit.

    Raises
    ------
    StateError, TreeError
        If names, slots, momentum or algorithm of the state and of the optimizer do not match.
    """
    check_unused(state)
    optimizer, kind, fields = _open(optimizer)
    if not isinstance(state, kind):
        raise StateError(f"the state is of type {type(state).__name__}, and the optimizer is of the other algorithm")
    check_optional(state, "m" in fields, "the optimizer")
    new = []
    for part, variables in fields.items():
        arrays = getattr(state, part)
        own = {name: x for name, x in zip(optimizer.paths, variables, strict=True) if x is not None}
        tree.match(arrays, own, "leaves of state")
        for name, x in own.items():
            if tuple(x.shape) != arrays[name].shape:
                shapes = f"{arrays[name].shape}; the optimizer has {tuple(x.shape)}"
                raise StateError(f"{part} of leaf {name!r} has the shape {shapes}")
            new.append((x, as_dtype(np.asarray(arrays[name]), dtype_of(str(x.dtype)))))
    for variable, a in new:
        variable.assign(a)
    optimizer._iterations.assign(int(state.count) * (optimizer.gradient_accumulation_steps or 1))


def _open(optimizer: Any) -> tuple[Any, type, dict[str, Any]]:
    """Return the port's optimizer, the kind of its state, and the variables of each part in the order of its paths."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    options = getattr(optimizer, "options", None)
    if not isinstance(options, dict) or not {"eta", "sigma"} & options.keys():
        raise StateError(f"the optimizer is of type {type(optimizer).__name__}, not one of amos_ref.ports.keras")
    if not getattr(optimizer, "built", False):
        raise StateError("the optimizer has no state yet: optimizer.build(model.trainable_variables)")
    if len(set(optimizer.paths)) < len(optimizer.paths):
        raise StateError(f"two variables have the path {max(optimizer.paths, key=optimizer.paths.count)!r}")
    fields = {part: getattr(optimizer, part) for part in optimizer.parts()}
    if "eta" in options:
        return optimizer, AmosState, fields
    return optimizer, ClosedFormState, {"sigma": optimizer.scales, **fields}
