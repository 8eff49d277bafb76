"""The messages between the check and the process in which a Python port runs: one line of JSON each.

Plain numbers, texts and arrays of numbers are all that there is: what comes from a port is read as data and cannot run
anything here, as a pickle could.
"""

import math
from collections.abc import Mapping
from json import dumps, loads  # by themselves, as frombuffer: a port may change the modules
from typing import Any

import numpy as np
from numpy import frombuffer

from amos_ref.conformance.ports.failures import Garbage, quote
from amos_ref.dtypes import FLOATS, dtype_of


def write_line(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line without its end."""
    return dumps(message, separators=(",", ":"), default=_write_value).encode()


def _write_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.name, "shape": value.shape, "bits": value.tobytes().hex()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no part of a message")


def read_line(line: bytes) -> dict[str, Any]:
    """Return what a line says, or raise Garbage."""
    try:
        found = loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Garbage(f"answered with {quote(line)}, which is no message")
    return found


def read_arrays(found: Any) -> dict[str, Any]:
    """Return arrays by leaf, None where there is none, or raise Garbage."""
    if not isinstance(found, dict):
        raise Garbage("answered with something else than arrays by leaf")
    return {name: None if entry is None else _read_array(entry) for name, entry in found.items()}


def _read_array(entry: Any) -> np.ndarray:
    try:
        dtype, shape, bits = entry["dtype"], tuple(entry["shape"]), entry["bits"]
        right = dtype in FLOATS and all(type(n) is int and n >= 0 for n in shape)
        if right and len(bits) == 2 * dtype_of(dtype).itemsize * math.prod(shape):
            plain = frombuffer(bytes.fromhex(bits), f"u{dtype_of(dtype).itemsize}")
            return plain.view(dtype_of(dtype)).reshape(shape).copy()
    except (TypeError, KeyError, ValueError):
        pass
    raise Garbage("answered with something else than an array")
