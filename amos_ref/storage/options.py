"""Options of an optimizer as JSON: a file of state holds numbers, texts and rules, and of a callable only its name."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from amos_ref.errors import HyperParameterError, StorageError
from amos_ref.rules import Preset, number


def encode_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON can hold them: a float by the shortest digits that read back as the same float.

    A callable, or anything else that JSON cannot hold, becomes ``{"callable": its name}``.
    """
    written = {}
    for name, value in options.items():
        try:
            written[name] = _encode(value)
        except TypeError:
            written[name] = {"callable": getattr(value, "__qualname__", type(value).__name__)}
    return written


def _encode(value: Any) -> Any:
    """Return a value that JSON can hold, or raise TypeError."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral) and abs(int(value)) < 2**63:
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(number(value)):
        return float(value)
    if isinstance(value, Preset):
        return {"preset": [_encode(value.eta), _encode(value.slot_shape)]}
    if isinstance(value, Mapping) and all(isinstance(pattern, str) for pattern in value):
        return {"rules": [[pattern, _encode(rule)] for pattern, rule in value.items()]}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    raise TypeError


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
    raise StorageError(f"an option has the value {value!r:.80}, which is of no known kind")
