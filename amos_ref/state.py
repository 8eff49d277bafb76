"""The state of the optimizer between steps."""

from typing import NamedTuple

import numpy as np

from amos_ref.arrays import check_array, check_finite
from amos_ref.errors import DtypeError, StateError


class AmosState(NamedTuple):
    """What Amos remembers from one step to the next.

    Attributes
    ----------
    count : int
        Steps taken, one count for the whole tree; the next step is t = count + 1.
    v : dict of str to ndarray
        Second moment per leaf name: running mean of the slot's mean squared gradient. The slot's shape.
    b : dict of str to ndarray
        Decay clock per leaf name, 0 at the start, never falling. The slot's shape.
    m : dict of str to ndarray, or None
        Momentum per leaf name, the parameter's shape; None without momentum.
    """

    count: int
    v: dict[str, np.ndarray]
    b: dict[str, np.ndarray]
    m: dict[str, np.ndarray] | None


def broadcasts(slot: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array of the slot's shape broadcasts to `shape`."""
    aligned = (1,) * (len(shape) - len(slot)) + slot
    return len(slot) <= len(shape) and all(k in (1, n) for k, n in zip(aligned, shape, strict=True))


def check_state(state: AmosState, shapes: dict[str, tuple], dtypes: dict[str, np.dtype], *, momentum: bool) -> None:
    """Raise StateError unless `state` is one that these leaves and options could have produced.

    Parameters
    ----------
    state : AmosState
    shapes : dict
        ``{name: (shape of theta, shape of the slot)}``.
    dtypes : dict
        ``{name: dtype of the stored state}``.
    momentum : bool
        Whether the optimizer has momentum.
    """
    if not isinstance(state, AmosState):
        raise StateError(f"state is not an AmosState but {type(state).__name__}; init(params) makes one")
    count = state.count
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
        raise StateError(f"state.count is {count!r}; it must be an integer >= 0")
    if (state.m is not None) != momentum:
        have, want = ("has", "has none") if state.m is not None else ("has no", "has it")
        raise StateError(f"the state {have} momentum m but the optimizer {want}; init(params) starts anew")
    for part in ("v", "b", "m"):
        arrays = getattr(state, part)
        if arrays is None and part == "m":
            continue
        if not isinstance(arrays, dict):
            raise StateError(f"state.{part} is not a dict of arrays by leaf name but {type(arrays).__name__}")
        odd = sorted(set(arrays) ^ set(shapes), key=str)
        if odd:
            word = "has an extra" if odd[0] in arrays else "lacks"
            raise StateError(f"state.{part} {word} leaf {odd[0]!r}")
        for name, (theta_shape, slot_shape) in shapes.items():
            _check_part(arrays[name], f"state.{part} of leaf {name!r}", part, theta_shape, slot_shape, dtypes[name])


def _check_part(a, where, part, theta_shape, slot_shape, dtype) -> None:
    try:
        check_array(a, where)
    except DtypeError as error:
        raise StateError(str(error)) from None
    shape = theta_shape if part == "m" else slot_shape
    if a.shape != shape:
        raise StateError(f"{where} has shape {a.shape}; it must have shape {shape}")
    if a.dtype != dtype:
        raise StateError(f"{where} has dtype {a.dtype}; state_dtype asks for {dtype}")


def check_state_values(state: AmosState) -> None:
    """Raise for values that no step leaves behind: NaN or infinite anywhere, v or b below 0."""
    for part in ("v", "b", "m"):
        for name, a in (getattr(state, part) or {}).items():
            check_finite(a, f"state.{part} of leaf {name!r}")
            if part != "m" and (a < 0).any():
                raise StateError(f"state.{part} of leaf {name!r} holds {float(a.min())!r}; it must be >= 0")
