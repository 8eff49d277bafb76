"""A table of the optimizers, in every way in which their steps differ. What holds for all is tested over it."""

from typing import Any

import numpy as np
import pytest

from amos_ref import Amos, ClosedFormAmos
from amos_ref.adamw import AdamW
from amos_ref.kernels import page
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers.state import PARTS

BACKENDS = {"numpy": page, "cpu": cpu}

SLOTS = {".*bias": "tensor", ".*scale": "element", ".*": "(1,) * (len(SHAPE) - 1) + SHAPE[-1:]"}
AMOS = dict(
    learning_rate=0.2,
    eta={".*bias": 0.5, ".*": "sqrt(2 / SHAPE[-1])"},
    slot_shape=SLOTS,
    beta=0.75,
    extra_l2=0.05,
    c_coef=0.3,
    d_coef=0.4,
    epsilon=2.0**-20,
)
ADAM = dict(beta1=0.7, beta2=0.8, adam_epsilon=0.125)
CLOSED = dict(
    alpha_0=0.2, half_life=3.0, q=0.75, sigma={".*bias": 0.6, ".*": "init"}, slot_shape=SLOTS, epsilon=2.0**-20, **ADAM
)


def shifted(name, g, t):
    """A direction of the caller's own, which knows the leaf's name and the step."""
    return g - 0.25 * (t % 64 + 1) * len(name)


#: Name -> class and options. Of these and of the dtypes follow all kernels that are compiled.
MEMBERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Amos": (Amos, AMOS),
    "Amos that averages and clips": (Amos, {**AMOS, "momentum": 0.6, "clip_value": 2.5}),
    "Amos with state like parameters": (Amos, {**AMOS, "momentum": 0.9, "state_dtype": "param"}),
    "ClosedFormAmos by gradient": (ClosedFormAmos, CLOSED),
    "ClosedFormAmos by Adam": (ClosedFormAmos, {**CLOSED, "direction": "adam"}),
    "ClosedFormAmos by sign": (ClosedFormAmos, {**CLOSED, "direction": "sign"}),
    "ClosedFormAmos by a callable": (ClosedFormAmos, {**CLOSED, "direction": shifted}),
    "AdamW": (AdamW, {"learning_rate": 0.2, "weight_decay": 0.05, **ADAM}),
}
#: Each with each backend that has kernels for it.
CASES = [(name, backend) for name, (kind, _) in MEMBERS.items() for backend in BACKENDS if backend in kind.backends]

members = pytest.mark.parametrize("name", MEMBERS)
cases = pytest.mark.parametrize(("name", "backend"), CASES, ids=[f"{name}, {backend}" for name, backend in CASES])


def make(name, backend="numpy", **changes):
    """Return the optimizer of this name with these options changed."""
    kind, options = MEMBERS[name]
    return kind(**{**options, "backend": backend, **changes})


def backends_of(name):
    """Return the backends that have kernels for it."""
    return [backend for member, backend in CASES if member == name]


def callables_of(name):
    """Return the options that a file does not hold."""
    return {key: value for key, value in MEMBERS[name][1].items() if callable(value)}


def parts_of(state, *, constants=True):
    """Return the names of the parts that the state has; perhaps without those that no step changes."""
    unwanted = () if constants else PARTS[type(state)].constants
    return [part for part in state._fields[1:] if getattr(state, part) is not None and part not in unwanted]


def arrays_of(state, leaf):
    """Return what the state has of a leaf."""
    return [np.asarray(getattr(state, part)[leaf]) for part in parts_of(state)]
