"""Options of every optimizer: what is out of range or of a wrong type is refused, in one line that says which it is."""

import math

import numpy as np
import pytest
from helpers.messages import one_line

from amos_ref import Amos, ClosedFormAmos, errors
from amos_ref.adamw import AdamW

Z = np.ones((2, 3))


class Tensor:
    """Shows itself in two lines, as arrays of other libraries do."""

    def __repr__(self):
        return "tensor([[1., 2.],\n        [3., 4.]])"


NAN_INF = (math.nan, math.inf, -math.inf)
ADAM = {
    "beta1": (*NAN_INF, 1, -0.1, None, "0.9", True),
    "beta2": (*NAN_INF, 1.0, -0.1, None, True),
    "adam_epsilon": (*NAN_INF, 0, -1e-8, None, "1e-8"),
}
#: Class -> what else it needs, and values that are refused for each option.
WRONG = {
    Amos: (
        {},
        {
            "learning_rate": (*NAN_INF, -0.1, None, "0.1", True, 1j, [0.1], np.ones(2)),
            "eta": (*NAN_INF, 0, -0.5, None, True, 1j, [0.5], iter([1])),
            "slot_shape": (3, None, iter([1])),
            "beta": (*NAN_INF, 1, 1.0, -0.1, None, "0.9", True, 1j, [0.9], np.ones(1)),
            "momentum": (*NAN_INF, 1, -0.1, "0.9", False, 1j),
            "clip_value": (*NAN_INF, 0, 0.0, -1.0, "1", True),
            "extra_l2": (*NAN_INF, -1e-3, None, "0", True, 1j),
            "c_coef": (*NAN_INF, -0.25, None, "0.25", True),
            "d_coef": (*NAN_INF, -0.25, None, "0.25", True),
            "epsilon": (*NAN_INF, 0, 0.0, -1e-9, None, "1e-9", True),
            "state_dtype": ("float32", None, np.float64, 64),
            "validate": ("no", 1, None),
        },
    ),
    ClosedFormAmos: (
        {"half_life": 9},
        {
            "alpha_0": (*NAN_INF, 1.0, 0, -0.1, None, "0.1", True),
            "half_life": (*NAN_INF, 0, -1, "9"),
            "p_0": (0.5,),  # beside half_life
            "p_t": ("falling", "rising", 1),  # of a decay that has none
            "sigma": (*NAN_INF, 0, -1.0, None, [1.0]),
            "slot_shape": (3, None, iter([1])),
            "direction": ("adagrad", None, 1),
            **ADAM,
            "epsilon": (*NAN_INF, 0, -1, None),
            "validate": ("no", 1, None),
        },
    ),
    AdamW: (
        {},
        {
            "learning_rate": (*NAN_INF, -0.1, None, "0.1", True, 1j, [0.1], np.ones(2)),
            **ADAM,
            "weight_decay": (*NAN_INF, -1, None, "0", True),
        },
    ),
}
WRONG_VALUES = [
    (kind, name, value) for kind, (_, wrong) in WRONG.items() for name, values in wrong.items() for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG_VALUES)
def test_options_out_of_range_are_refused(kind, name, value):
    with pytest.raises(errors.HyperParameterError) as caught:
        kind(**{**WRONG[kind][0], name: value})
    # Of two options that exclude each other no value is shown.
    one_line(caught.value, [name] if kind is ClosedFormAmos and name in ("p_0", "p_t") else [name, repr(value)])


@pytest.mark.parametrize(
    "slot_shape", [{".*": 3}, {".*": None}, {"a.*": "tensor"}, {".*": "(7,)"}, "(2, 3", lambda name, shape: 3]
)
def test_slot_shapes_that_fit_no_leaf_are_refused_by_init(slot_shape):
    with pytest.raises(errors.RuleError) as caught:
        Amos(slot_shape=slot_shape).init({"z": Z})
    one_line(caught.value, ["slot_shape", "'z'"])
    with pytest.raises(errors.RuleError) as caught:
        ClosedFormAmos(half_life=9, slot_shape=slot_shape).init({"z": Z})
    one_line(caught.value, ["slot_shape", "'z'"])


@pytest.mark.parametrize("value", [np.True_, np.complex128(1), 1j, "0.1", np.ones(2)])
def test_what_is_no_real_number_is_refused_from_option_and_schedule_alike(value):
    for kind in (Amos, AdamW):
        with pytest.raises(errors.HyperParameterError):
            kind(learning_rate=value)
        opt = kind(learning_rate=lambda t: value)
        with pytest.raises(errors.ScheduleError):
            opt.update(Z, opt.init(Z), Z)


def raising(*_):
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": np.ones((2, 2))},
        {"learning_rate": raising},
        {"learning_rate": lambda t: np.ones((2, 2))},
        {"eta": Tensor()},
        {"eta": {".*": Tensor()}},
        {"eta": raising},
        {"slot_shape": raising},
        {"slot_shape": {".*": Tensor()}},
        {"backend": Tensor()},
    ],
)
def test_messages_stay_in_one_line_whatever_they_show(options):
    with pytest.raises(errors.AmosError) as caught:
        (opt := Amos(**options)).update(Z, opt.init(Z), Z)
    one_line(caught.value, [])
