"""What the states of all frameworks have in common: arrays, counts, and whether what comes out fits the parameters."""

from typing import Any

import numpy as np

from amos_ref.checks import Arrays
from amos_ref.dtypes import as_dtype, is_float
from amos_ref.errors import DtypeError, HyperParameterError, StateError
from amos_ref.optimizers.state import PARTS, AmosState, ClosedFormState, as_count, check_fit
from amos_ref.outside import pass_on

Kept = AmosState | ClosedFormState


def as_array(a: Any, where: str) -> np.ndarray:
    """Return a NumPy copy of an array of any library."""
    try:
        copied = np.array(a)
    except Exception as error:  # whatever another library raises
        pass_on(error)
        raise DtypeError(f"{where} is of type {type(a).__name__}, not an array: {error}") from None
    if copied.dtype == object:
        raise DtypeError(f"{where} is of type {type(a).__name__}, not an array")
    return copied


def read_count(value: Any, where: str = "the count") -> int:
    if (count := as_count(value)) is None:
        raise StateError(f"{where} is {value!r:.60}; it must be an integer >= 0")
    return count


def check_optional(state: Kept, theirs: bool, what: str) -> None:
    """Raise StateError unless the state has momentum, or moments, where the other side has them."""
    if (state.m is not None) != theirs:
        words = PARTS[type(state)].optional
        has, lacks = ("has them", "has none") if " and " in words else ("has one", "has none")
        have, other = ("has", lacks) if state.m is not None else ("has no", has)
        raise StateError(f"the state {have} {words} but {what} {other}")


def build(kind: type, count: int, parts: dict[str, Arrays], thetas: dict[str, Any] | None, state_dtype: str) -> Any:
    """Return the state of these parts; raise StateError if it is not valid or does not fit the parameters."""
    if state_dtype not in ("param", "float64"):
        raise HyperParameterError(f"state_dtype is {state_dtype!r}; it must be 'param' or 'float64'")
    if state_dtype == "float64" or kind is ClosedFormState:
        parts = {part: {name: _widen(a) for name, a in arrays.items()} for part, arrays in parts.items()}
    state = kind(**{**dict.fromkeys(kind._fields), "count": count, **parts})
    check_fit(state, kind, thetas, optional=state.m is not None)
    return state


def _widen(a: np.ndarray) -> np.ndarray:
    """Return an array of floats as one of float64; what it is not is refused with the state."""
    return as_dtype(a, np.dtype(np.float64)) if is_float(a.dtype) else a
