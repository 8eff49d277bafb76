"""The messages between the check and a command: one line of JSON each, numbers as bits (docs/protocol.md)."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.ports.failures import Garbage, PortError, quote
from amos_ref.conformance.ports.port import ALIASES, Arrays
from amos_ref.conformance.vectors.read import decode
from amos_ref.dtypes import FLOATS
from amos_ref.errors import escape

PROTOCOL = "amos-ref-port-1"

_DONE = '{"ok":true}'
_FORMS = {
    "hello": f'{{"protocol":"{PROTOCOL}","name":...,"options":...}}',
    "init": _DONE,
    "step": '{"theta":{...}}',
    "put": _DONE,
    "count": _DONE,
}
_HELLO = {
    "protocol": str,
    "name": str,
    "options": list,
    "dtypes": list,
    "null_gradients": bool,
    "state": bool,
    "put": bool,
}
_MAY_SAY = {"count": bool}


class Form(NamedTuple):
    """What the arrays of a leaf look like."""

    dtype: np.dtype
    shape: tuple[int, ...]
    slot_shape: tuple[int, ...]

    def of(self, part: str) -> tuple[int, ...]:
        """Return the shape of theta, v, b or m."""
        return self.slot_shape if part in ("v", "b") else self.shape


def line(call: str, **rest: Any) -> bytes:
    """Return a message as it is sent: no blanks, the keys in the order given."""
    return json.dumps({"call": call, **rest}, separators=(",", ":")).encode()


def parse(call: str, answer: bytes) -> dict[str, Any]:
    """Return the object that a line holds, or raise Garbage, or PortError if the port tells an error."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Garbage(f"answered {call} with {quote(answer) if answer else 'an empty line'}; expected {_FORMS[call]}")
    if set(found) == {"error"} and isinstance(found["error"], str):
        words = " ".join(found["error"].split())
        raise PortError(escape(words[:200]) + "..." * (len(words) > 200))
    return found


def _check_keys(call: str, found: Mapping[str, Any], needed: set[str], allowed: set[str]) -> None:
    for key in sorted(needed - set(found)):
        raise Garbage(f"its answer to {call} has no {key!r}; expected {_FORMS[call]}")
    for key in sorted(set(found) - allowed):
        raise Garbage(f"its answer to {call} has {quote(key)}, which is not of the protocol; expected {_FORMS[call]}")


def read_hello(found: dict[str, Any]) -> dict[str, Any]:
    """Check an answer to hello."""
    if found.get("protocol", PROTOCOL) != PROTOCOL:
        raise Garbage(f"speaks the protocol {quote(str(found['protocol']))}; this is {PROTOCOL}")
    _check_keys("hello", found, set(_HELLO), set(_HELLO | _MAY_SAY))
    for key, kind in (_HELLO | _MAY_SAY).items():
        if key in found and type(found[key]) is not kind:
            raise Garbage(f"its answer to hello has {key} {quote(json.dumps(found[key]))}; expected a {kind.__name__}")
    if not found["name"].isprintable() or not 0 < len(found["name"]) <= 100:
        raise Garbage(f"its name is {quote(found['name'])}; expected 1 to 100 printable characters")
    for key, known in (("options", tuple(ALIASES)), ("dtypes", FLOATS)):
        for entry in found[key]:
            if entry not in known:
                raise Garbage(f"its {key} hold {quote(json.dumps(entry))}; expected some of {', '.join(known)}")
    if "learning_rate" not in found["options"]:
        raise Garbage("its options do not hold learning_rate, without which there is nothing to check")
    return found


def read_done(call: str, found: dict[str, Any]) -> None:
    """Check an answer to init, put or count."""
    if found != {"ok": True}:
        raise Garbage(f"answered {call} with {quote(json.dumps(found))}; expected {_DONE}")


def read_step(found: dict[str, Any], forms: Mapping[str, Form], state: bool) -> dict[str, Arrays]:
    """Return theta, and v, b and m as far as they are shown, from an answer to step."""
    needed = {"theta", "v", "b"} if state else {"theta"}
    _check_keys("step", found, needed, needed | {"m"} if state else needed)
    for part, leaves in found.items():
        if not isinstance(leaves, dict):
            raise Garbage(f"its {part} is {quote(json.dumps(leaves))}; expected an object with an entry for each leaf")
        for name in forms:
            if name not in leaves:
                raise Garbage(f"its {part} has no leaf {name!r}")
        for name in leaves:
            if name not in forms:
                raise Garbage(f"its {part} has a leaf {quote(name)}, which was not in init")
    return {
        part: {k: _array(x, f"{part} of leaf {k!r}", forms[k], part) for k, x in found[part].items()} for part in found
    }


def _array(text: Any, where: str, form: Form, part: str) -> np.ndarray:
    """Return an array from its bits: of the leaf's dtype or, for the state, of float64 as well."""
    if not isinstance(text, str) or not re.fullmatch("[0-9a-fA-F]*", text):
        raise Garbage(f"its {where} is {quote(json.dumps(text))}; expected hexadecimal digits")
    shape = form.of(part)
    dtypes = [form.dtype] if part == "theta" else [form.dtype, np.dtype(np.float64)]
    for dtype in dtypes:
        if len(text) == 2 * dtype.itemsize * math.prod(shape):
            return decode(text, dtype, shape)
    digits = " or ".join(f"{2 * d.itemsize * math.prod(shape)} ({d.name})" for d in dict.fromkeys(dtypes))
    raise Garbage(f"its {where} has {len(text)} hexadecimal digits; shape {shape} takes {digits}")
