"""Hyper-parameters: what values they may have, and the learning rate of a step."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from amos_ref.errors import HyperParameterError, ScheduleError
from amos_ref.groups import NUMBERS
from amos_ref.outside import pass_on
from amos_ref.rules import LeafRule, LeafRules, Preset, RuleIndex, number

# Options that are numbers: a test of the range, its words, and whether None is allowed.
_NUMBERS: dict[str, tuple[Callable[[float], bool], str, bool]] = {
    "beta": (lambda x: 0 <= x < 1, "in [0, 1)", False),
    "momentum": (lambda x: 0 <= x < 1, "in [0, 1), or None", True),
    "clip_value": (lambda x: 0 < x < math.inf, "finite and > 0, or None", True),
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


def _one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _is_rule(value: Any) -> bool:
    return isinstance(value, str | Mapping | Preset) or callable(value)


_SCALE = (
    lambda value: _is_rule(value) or 0 < number(value) < math.inf,
    "a number > 0, an expression, a callable, a mapping or a preset",
)

_GROUP = (
    lambda value: isinstance(value, Mapping) or callable(value) or 0 <= number(value) < math.inf,
    "finite and >= 0, a callable or a mapping",
)

# The other options: a test of the value, and its words.
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "learning_rate": (lambda x: callable(x) or 0 <= number(x) < math.inf, "finite and >= 0, or callable"),
    "eta": _SCALE,
    "sigma": _SCALE,
    **dict.fromkeys(NUMBERS, _GROUP),
    "frozen": (lambda x: isinstance(x, bool | Mapping) or callable(x), "True, False, a callable or a mapping"),
    "slot_shape": (
        lambda value: _is_rule(value) or isinstance(value, tuple | list),
        "'tensor', 'element', a tuple, an expression, a callable or a mapping",
    ),
    "direction": (
        lambda value: _one_of("gradient", "adam", "sign")(value) or callable(value),
        "'gradient', 'adam', 'sign' or a callable",
    ),
    "decay": (
        _one_of("inverse-time", "inverse-square", "recurrence"),
        "'inverse-time' or 'inverse-square' or 'recurrence'",
    ),
    "p_t": (
        lambda value: value is None or _one_of("falling", "constant")(value) or callable(value),
        "'falling', 'constant' or a callable",
    ),
    "state_dtype": (_one_of("float64", "param"), "'float64' or 'param'"),
    "validate": (lambda value: isinstance(value, bool), "True or False"),
}


def check_options(**options: Any) -> dict[str, Any]:
    """Return the options with numbers as floats; raise HyperParameterError, which names it, for one that is wrong."""
    for name, value in options.items():
        if name in _NUMBERS:
            test, words, optional = _NUMBERS[name]
            if value is not None or not optional:
                options[name] = number(value)
                if not test(options[name]):
                    raise HyperParameterError(f"{name} is {value!r}; it must be {words}")
        elif name in _VALUES:
            test, words = _VALUES[name]
            if isinstance(value, LeafRule):
                field = "slot_shape" if name == "slot_shape" else "eta"
                raise HyperParameterError(f"{name} is one entry of a choice; give the choice, or the entry's {field}")
            if not test(value):
                raise HyperParameterError(f"{name} is {value!r}; it must be {words}")
            if name in ("learning_rate", *NUMBERS) and not (callable(value) or isinstance(value, Mapping)):
                options[name] = number(value)
    return options


class ReadOnlyOptions(dict[str, Any]):
    """Options of an optimizer, or rules by name: a dict that cannot be changed."""

    @functools.cached_property
    def rule_index(self) -> RuleIndex:
        """The rules, for the first that matches a name."""
        return RuleIndex(self)

    def _refuse(self, *args: Any, **changes: Any) -> NoReturn:
        raise HyperParameterError(
            "the options of an optimizer and their rules are read-only; make another optimizer, which can step the "
            "same state, or call set_learning_rate"
        )

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def freeze(value: Any) -> Any:
    """Return an option that its giver can no longer change: mappings, lists and arrays are copied.

    What nobody can change is returned itself, as scikit-learn's clone asks of a constructor.
    """
    if isinstance(value, ReadOnlyOptions):
        return value
    if isinstance(value, tuple) and all(freeze(entry) is entry for entry in value):
        return value
    if isinstance(value, Preset):
        return Preset(*map(freeze, value))
    if isinstance(value, LeafRules):  # which cannot be changed
        return value
    if isinstance(value, Mapping):
        return ReadOnlyOptions({key: freeze(rule) for key, rule in value.items()})
    if isinstance(value, list | tuple):
        return tuple(map(freeze, value))
    return np.array(value)[()] if isinstance(value, np.ndarray) else value


def learning_rate_at(learning_rate: Any, t: int) -> float:
    """Return xi at step t (from 1); raise ScheduleError if the schedule raises, or returns no finite number >= 0."""
    if not callable(learning_rate):
        return learning_rate
    try:
        value = learning_rate(t)
    except Exception as error:
        pass_on(error)
        raise ScheduleError(f"learning_rate({t}) raised {type(error).__name__}: {error}") from error
    xi = number(value)
    if not 0 <= xi < math.inf:
        raise ScheduleError(f"learning_rate({t}) is {value!r}; it must be a finite number >= 0")
    return xi
