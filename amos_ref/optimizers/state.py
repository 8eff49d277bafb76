"""The state of the optimizer between steps."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.checks import Arrays, check_array, check_finite
from amos_ref.dtypes import broadcasts
from amos_ref.errors import DtypeError, StateError
from amos_ref.optimizers.turn import Steppable, check_unused
from amos_ref.outside import level_of_caller


class _AmosFields(NamedTuple):
    count: int
    v: dict[str, np.ndarray]
    b: dict[str, np.ndarray]
    m: dict[str, np.ndarray] | None


class AmosState(Steppable, _AmosFields):
    """What Amos remembers from one step to the next.

    Attributes
    ----------
    count : int
        How many steps were taken, one number for the whole tree. The next step is t = count + 1.
    v : dict of str to ndarray
        The second moment of each leaf, by its name: the running mean of the slots' mean squared gradients. It has the
        slots' shape.
    b : dict of str to ndarray
        The clock of each leaf, which is 0 at the start and never falls. It has the slots' shape.
    m : dict of str to ndarray, or None
        The averaged change of each leaf, of the parameter's shape; None without momentum.
    """


class _ScaledAmosFields(NamedTuple):
    count: int
    eta: dict[str, np.ndarray]
    v: dict[str, np.ndarray]
    b: dict[str, np.ndarray]
    m: dict[str, np.ndarray] | None


class ScaledAmosState(Steppable, _ScaledAmosFields):
    """What Amos remembers if a leaf has eta="init": the state keeps the eta that `init` read off the entries.

    Attributes
    ----------
    count : int
        As in :class:`AmosState`.
    eta : dict of str to ndarray
        Scale of the entries per leaf name, also of those that a rule has: a number > 0, shape (), float64.
    v, b, m : dict of str to ndarray
        As in :class:`AmosState`.
    """

    _constants = ("eta",)


class _ClosedFormFields(NamedTuple):
    count: int
    sigma: dict[str, np.ndarray]
    m: dict[str, np.ndarray] | None
    v: dict[str, np.ndarray] | None


class ClosedFormState(Steppable, _ClosedFormFields):
    """What ClosedFormAmos remembers from one step to the next.

    Attributes
    ----------
    count : int
        How many steps were taken. It is the t of the next step, because the derivation counts from 0.
    sigma : dict of str to ndarray
        How far an entry is expected to be from its optimum, for each leaf by its name: a number > 0, of shape () and
        dtype float64.
    m, v : dict of str to ndarray, or None
        Running means of the gradient and of its square for each leaf, of the parameter's shape and dtype float64;
        None unless the direction is Adam's.
    """

    _constants = ("sigma",)


class _AdamWFields(NamedTuple):
    count: int
    m: dict[str, np.ndarray]
    v: dict[str, np.ndarray]


class AdamWState(Steppable, _AdamWFields):
    """What AdamW remembers from one step to the next.

    Attributes
    ----------
    count : int
        Steps taken; the next step is t = count + 1.
    m, v : dict of str to ndarray
        Means of the gradient and of its square per leaf name, the parameter's shape, float64.
    """


State = AmosState | ScaledAmosState | ClosedFormState | AdamWState


class Parts(NamedTuple):
    """The arrays of a kind of state."""

    constants: tuple[str, ...]  # one number a leaf, which no step changes
    slots: tuple[str, ...]  # of the slot's shape
    entries: tuple[str, ...]  # of the parameter's shape
    optional: str  # what the entries are called where they may be None

    @property
    def always(self) -> tuple[str, ...]:
        """Those that every state has."""
        return self.constants + self.slots


PARTS: dict[type, Parts] = {
    AmosState: Parts((), ("v", "b"), ("m",), "momentum m"),
    ScaledAmosState: Parts(ScaledAmosState._constants, ("v", "b"), ("m",), "momentum m"),
    ClosedFormState: Parts(ClosedFormState._constants, (), ("m", "v"), "moments m and v"),
    AdamWState: Parts((), (), ("m", "v"), "moments m and v"),
}


def kind_of(state: Any) -> type:
    """Return the kind of state that this is, or (of what is none) should be."""
    return next((kind for kind in PARTS if isinstance(state, kind)), AmosState)


def as_count(value: Any) -> int | None:
    """Return a count of steps as an int, or None unless it is a whole number >= 0, perhaps as an array of shape ().

    That is how files and frameworks give back an int: ``np.load``, ``jax.tree.map(np.asarray, state)``.
    """
    if type(value) is not int:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool") or getattr(value, "shape", ()):
            return None
        try:
            value = operator.index(value)
        except TypeError:
            return None
    return value if value >= 0 else None


def check_state(
    state: State,
    shapes: dict[str, tuple[Any, Any]],
    dtypes: dict[str, np.dtype],
    kind: type = AmosState,
    *,
    optional: bool,
) -> None:
    """Raise StateError unless `state` is one that these leaves and options could have produced.

    Parameters
    ----------
    state : NamedTuple
    shapes : dict
        ``{name: (shape of theta, shape of the slot)}``.
    dtypes : dict
        ``{name: dtype of the stored state}``; the numbers of a leaf that no step changes are always float64.
    kind : type
        What the state must be.
    optional : bool
        Whether the optimizer keeps the optional parts.
    """
    constants, slots, entries, words = PARTS[kind]
    if not isinstance(state, kind):
        raise StateError(f"state is not of type {kind.__name__} but {type(state).__name__}; init(params) makes one")
    if as_count(state.count) is None:
        raise StateError(f"state.count is {state.count!r:.60}; it must be an integer >= 0")
    for part in entries:
        if (getattr(state, part) is not None) != optional:
            them = "them" if " and " in words else "one"
            have, want = ("has no", f"has {them}") if optional else ("has", "has none")
            raise StateError(f"the state {have} {words} but the optimizer {want}; init(params) starts anew")
    for part in constants + slots + entries * optional:
        arrays = getattr(state, part)
        if not isinstance(arrays, dict):
            raise StateError(f"state.{part} is not a dict of arrays by leaf name but {type(arrays).__name__}")
        odd = sorted(set(arrays) ^ set(shapes), key=str)
        if odd:
            word = "has an extra" if odd[0] in arrays else "lacks"
            raise StateError(f"state.{part} {word} leaf {odd[0]!r}")
        for name, (theta_shape, slot_shape) in shapes.items():
            shape = () if part in constants else slot_shape if part in slots else theta_shape
            dtype = np.dtype(np.float64) if part in constants else dtypes[name]
            _check_part(arrays[name], f"state.{part} of leaf {name!r}", shape, dtype)


def _check_part(a, where, shape, dtype) -> None:
    try:
        check_array(a, where)
    except DtypeError as error:
        raise StateError(str(error)) from None
    if a.shape != shape:
        raise StateError(f"{where} has shape {a.shape}; it must have shape {shape}")
    if a.dtype != dtype:
        raise StateError(f"{where} has dtype {a.dtype}; it must have dtype {dtype}")


def check_fit(state: Any, kind: type, thetas: Arrays | None, *, optional: bool) -> None:
    """Raise StateError unless this is a state of that kind (for these parameters), of whatever dtype and slots.

    A state that was stepped in place is none: its count is not that of its arrays.
    """
    check_unused(state)

    def leaves_of(parts: tuple[str, ...]) -> Arrays:
        arrays = getattr(state, parts[0], None) if parts else None
        return arrays if isinstance(arrays, dict) else {}

    first = leaves_of(PARTS[kind].slots + PARTS[kind].entries) or leaves_of(PARTS[kind].constants)
    slots, like = leaves_of(PARTS[kind].slots), leaves_of(PARTS[kind].entries) if thetas is None else thetas
    names = first if thetas is None else thetas
    shapes: dict[str, Any] = {name: tuple(getattr(a.get(name), "shape", None) for a in (like, slots)) for name in names}
    dtypes: dict[str, Any] = {name: getattr(first.get(name), "dtype", None) for name in names}
    check_state(state, shapes, dtypes, kind, optional=optional)
    _check_constants(state)
    for name, (shape, slot) in shapes.items():
        if None not in (shape, slot) and not broadcasts(slot, shape):
            where = f"state.{PARTS[kind].slots[0]} of leaf {name!r}"
            raise StateError(f"{where} has shape {slot}, which does not broadcast to {shape}")


def _check_constants(state: State) -> None:
    """Raise StateError for a number of a leaf that no init makes; what lies on a GPU is not looked at."""
    for part in PARTS[kind_of(state)].constants:
        for name, a in getattr(state, part).items():
            if isinstance(a, np.ndarray) and not 0.0 < float(a) < np.inf:
                raise StateError(f"state.{part} of leaf {name!r} is {float(a)!r}; it must be finite and > 0")


def check_state_values(state: State) -> None:
    """Raise for values that no step leaves behind: NaN or infinite anywhere, all but m below 0."""
    parts = PARTS[kind_of(state)]
    _check_constants(state)
    for part in parts.always + parts.entries:
        for name, a in (getattr(state, part) or {}).items():
            check_finite(a, f"state.{part} of leaf {name!r}")
            least = a.astype(np.float64).min(initial=0.0)
            if part != "m" and least < 0:
                raise StateError(f"state.{part} of leaf {name!r} holds {float(least)!r}; it must be >= 0")


class UnderflowWarning(RuntimeWarning):
    """The second moment of a leaf is stored in float16, and too small for it: it became 0 where it is not 0."""


class LeavesWarning(UserWarning):
    """A state was loaded for a tree that has other leaves than the one that it was saved of."""


class SigmaWarning(RuntimeWarning):
    """sigma or eta of a leaf was read off initial entries that are all the same number, and neither 0 nor 1."""


class EtaWarning(RuntimeWarning):
    """eta was not given, and there are leaves whose entries are not of the size of its default."""


def warn_once(warned: set[str], names: Sequence[str], t: int) -> None:
    """Warn of those leaves, unless they are among the `warned`, that their v became 0 in step t."""
    for name in names:
        if name not in warned:
            warned.add(name)
            warnings.warn(
                f"state.v of leaf {name!r} became 0 at step {t}, as float16 holds nothing so small: from here on its "
                "steps are far too long; give state_dtype='float64', or scale the loss",
                UnderflowWarning,
                stacklevel=level_of_caller(),
            )
