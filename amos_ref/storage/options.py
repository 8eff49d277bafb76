"""Options of an optimizer as JSON: a file of state holds numbers, texts and rules, and of a callable only its name."""

import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from amos_ref.choosing.choice import Choice, Entry
from amos_ref.errors import HyperParameterError, StorageError
from amos_ref.groups import NEUTRAL
from amos_ref.outside import pass_on
from amos_ref.rules import Preset, number

RULES = ("eta", "sigma", "slot_shape", *NEUTRAL)  # the options that may be rules by name
LONGEST_INT = 2000  # bits


def encode_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON can hold them: a float by the shortest digits that read back as the same float.

    A number of any type is written as the int or float that it is used as. A callable, or rules of which one is a
    callable, becomes ``{"callable": its name}``.

    Raises
    ------
    HyperParameterError
        If a value is none of these, so that no file could give it back.
    """
    written = {}
    for name, value in options.items():
        if _calls(value) or (callable(value) and name not in RULES):
            written[name] = {"callable": _name(value)}
        elif isinstance(value, Preset):
            written[name] = {"preset": [_encode_rules(part, name) for part in value]}
        else:
            written[name] = _encode_rules(value, name)
    return written


def _name(value: Any) -> str:
    return "rules" if isinstance(value, Mapping) else getattr(value, "__qualname__", type(value).__name__)


def _calls(value: Any) -> bool:
    """Whether a rule is a callable, or has one among its values."""
    if isinstance(value, Preset):
        return any(map(_calls, value))
    if isinstance(value, Mapping) and not isinstance(value, Choice):
        return any(map(callable, value.values()))
    return callable(value)


def _encode_rules(value: Any, where: str) -> Any:
    if isinstance(value, Choice) or not isinstance(value, Mapping):
        return _encode_value(value, where)
    rows: dict[str, Any] = {}
    for pattern, rule in value.items():
        text = _encode_pattern(pattern, where)
        if text in rows:
            raise HyperParameterError(f"{where} has two rules for {text!r:.60}; a file holds one")
        rows[text] = _encode_value(rule, f"{where} for {text!r:.60}")
    return {"rules": [list(row) for row in rows.items()]}


def _encode_pattern(pattern: Any, where: str) -> str:
    text = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    if not isinstance(text, str) or (text is not pattern and re.compile(text).flags != pattern.flags):
        raise HyperParameterError(f"{where} has a rule for {pattern!r:.60}; a file holds only rules for texts")
    return str.__str__(text)


def _encode_value(value: Any, where: str) -> Any:
    if isinstance(value, Choice):
        return {"choice": value.to_dict()}
    if isinstance(value, Entry):
        return {"entry": value._asdict()}
    if isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) == 1:
        return [_encode_plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    return _encode_plain(value, where)


def _encode_plain(value: Any, where: str) -> Any:
    """Return None, a truth value, a text or a number as JSON has it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # str() of an enum is its name
    if not getattr(value, "shape", ()):
        try:
            whole = operator.index(value)
        except Exception as error:  # whatever the conversion of somebody's own type raises
            pass_on(error)
            if math.isfinite(x := number(value)):
                return x
        else:
            if whole.bit_length() <= LONGEST_INT:
                return whole
            value = type(value)  # Python writes no integer of so many digits
    raise HyperParameterError(
        f"{where} is {value!r:.60}, which a file cannot hold: it holds numbers, texts, tuples of them and rules by name"
    )


def decode_options(written: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that :func:`encode_options` wrote; those in `given` replace them.

    Raises
    ------
    HyperParameterError
        If an option that was a callable is not given.
    StorageError
        If a value is not one that :func:`encode_options` writes.
    """
    options, missing = dict(given), []
    for name, value in written.items():
        if name in given:
            continue
        match value:
            case {"callable": str(callable_name)}:
                missing.append(f"{name} ({callable_name})")
            case _:
                options[name] = _decode(value)
    if missing:
        raise HyperParameterError(f"a file holds no callables; these options must be given: {', '.join(missing)}")
    return options


def _decode(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case [*entries]:
            return tuple(_decode(entry) for entry in entries)
        case {"rules": [*rows]} if all(isinstance(r, list) and len(r) == 2 and isinstance(r[0], str) for r in rows):
            return {pattern: _decode(rule) for pattern, rule in rows}
        case {"preset": [eta, slot_shape]}:
            return Preset(_decode(eta), _decode(slot_shape))
        case {"choice": dict(chosen)} | {"entry": dict(chosen)}:
            kind, read = ("a choice", Choice.from_dict) if "choice" in value else ("an entry of one", Entry.from_dict)
            try:
                return read(chosen)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise StorageError(
                    f"an option is {kind} that cannot be read: {type(error).__name__}: {error}"
                ) from None
    raise StorageError(f"an option has the value {value!r:.80}, of an unknown kind")
