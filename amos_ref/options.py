"""Hyper-parameters: their ranges, and the learning rate of a step."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from amos_ref.errors import HyperParameterError, ScheduleError
from amos_ref.rules import Preset, number

# name -> (test, words, may be None)
_RANGES: dict[str, tuple[Callable[[float], bool], str, bool]] = {
    "beta": (lambda x: 0 <= x < 1, "in [0, 1)", False),
    "momentum": (lambda x: 0 <= x < 1, "in [0, 1), or None", True),
    "clip_value": (lambda x: 0 < x < math.inf, "finite and > 0, or None", True),
    "extra_l2": (lambda x: 0 <= x < math.inf, "finite and >= 0", False),
    "c_coef": (lambda x: 0 <= x < math.inf, "finite and >= 0", False),
    "d_coef": (lambda x: 0 <= x < math.inf, "finite and >= 0", False),
    "epsilon": (lambda x: 0 < x < math.inf, "finite and > 0", False),
    "alpha_0": (lambda x: 0 < x < 1, "in (0, 1)", False),
    "half_life": (lambda x: 0 < x < math.inf, "finite and > 0", True),
    "p_0": (lambda x: 0 < x < math.inf, "finite and > 0", True),
    "q": (lambda x: 0 < x < math.inf, "finite and > 0", False),
    "beta1": (lambda x: 0 <= x < 1, "in [0, 1)", False),
    "beta2": (lambda x: 0 <= x < 1, "in [0, 1)", False),
    "weight_decay": (lambda x: 0 <= x < math.inf, "finite and >= 0", False),
    "adam_epsilon": (lambda x: 0 < x < math.inf, "finite and > 0", False),
}
_CHOICES = {
    "state_dtype": ("float64", "param"),
    "decay": ("inverse-time", "inverse-square", "recurrence"),
}


def check_options(**options: Any) -> dict[str, Any]:
    """Return the options with numbers as floats, or raise HyperParameterError naming the one that is wrong."""
    for name, value in options.items():
        if name in _RANGES:
            test, words, optional = _RANGES[name]
            if value is not None or not optional:
                options[name] = number(value)
                if not test(options[name]):
                    raise HyperParameterError(f"{name} is {value!r}; it must be {words}")
        elif name in _CHOICES and not (isinstance(value, str) and value in _CHOICES[name]):
            raise HyperParameterError(f"{name} is {value!r}; it must be {' or '.join(map(repr, _CHOICES[name]))}")
        elif name in _KINDS:
            options[name] = _KINDS[name](name, value)
    return options


def _validate(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise HyperParameterError(f"{name} is {value!r}; it must be True or False")
    return value


def _learning_rate(name: str, value: Any) -> Any:
    xi = value if callable(value) else number(value)
    if not callable(xi) and not 0 <= xi < math.inf:
        raise HyperParameterError(f"{name} is {value!r}; it must be finite and >= 0, or callable")
    return xi


def _scale(name: str, value: Any) -> Any:
    if not (isinstance(value, str | Mapping | Preset) or callable(value) or 0 < number(value) < math.inf):
        raise HyperParameterError(
            f"{name} is {value!r}; it must be a number > 0, an expression, a callable, a mapping or a preset"
        )
    return value


def _slot_shape(name: str, value: Any) -> Any:
    if not (isinstance(value, str | Mapping | Preset | tuple | list) or callable(value)):
        raise HyperParameterError(
            f"{name} is {value!r}; it must be 'tensor', 'element', a tuple, an expression, a callable or a mapping"
        )
    return value


def _direction(name: str, value: Any) -> Any:
    if not (value in ("gradient", "adam", "sign") if isinstance(value, str) else callable(value)):
        raise HyperParameterError(f"{name} is {value!r}; it must be 'gradient', 'adam', 'sign' or a callable")
    return value


def _p_t(name: str, value: Any) -> Any:
    if not (value is None or callable(value) or (isinstance(value, str) and value in ("falling", "constant"))):
        raise HyperParameterError(f"{name} is {value!r}; it must be 'falling', 'constant' or a callable")
    return value


_KINDS: dict[str, Callable[[str, Any], Any]] = {
    "learning_rate": _learning_rate,
    "eta": _scale,
    "sigma": _scale,
    "slot_shape": _slot_shape,
    "direction": _direction,
    "p_t": _p_t,
    "validate": _validate,
}


def learning_rate_at(learning_rate: Any, t: int) -> float:
    """Return xi at step t (from 1), or raise ScheduleError if the schedule fails or gives no number >= 0."""
    if not callable(learning_rate):
        return learning_rate
    try:
        value = learning_rate(t)
    except Exception as error:
        raise ScheduleError(f"learning_rate({t}) raised {type(error).__name__}: {error}") from error
    xi = number(value)
    if not 0 <= xi < math.inf:
        raise ScheduleError(f"learning_rate({t}) is {value!r}; it must be a finite number >= 0")
    return xi
