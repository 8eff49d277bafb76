"""The messages between the check and a command: one line of JSON each, numbers as bits (docs/protocol.md)."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.failures import Garbage, PortError, quote
from amos_ref.conformance.ports.names import NAMES
from amos_ref.conformance.ports.port import Arrays
from amos_ref.conformance.vectors.read import decode
from amos_ref.dtypes import FLOATS
from amos_ref.errors import escape

#: What paper Amos's ports are asked with, and what those of every other algorithm are. A port of the second version
#: may answer with that to the first.
FIRST_PROTOCOL, PROTOCOL = "amos-ref-port-1", "amos-ref-port-2"

_DONE = '{"ok":true}'
_FORMS = {
    "hello": '{"protocol":...,"name":...,"options":...}',
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
_MAY_SAY = {"count": bool, "words": dict}


class Form(NamedTuple):
    """What the arrays of a leaf look like."""

    dtype: np.dtype
    shape: tuple[int, ...]
    slot_shape: tuple[int, ...]
    parts: Mapping[str, str]

    def of(self, part: str) -> tuple[int, ...]:
        """Return the shape of theta or of a part of the state."""
        return self.slot_shape if self.parts.get(part) == "slot" else self.shape


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


def greeting(algorithm: Algorithm) -> dict[str, str]:
    """Return what hello says: of paper Amos, what the first version said."""
    if algorithm is PAPER_AMOS:
        return {"protocol": FIRST_PROTOCOL}
    return {"protocol": PROTOCOL, "algorithm": algorithm.name}


def read_hello(found: dict[str, Any], algorithm: Algorithm = PAPER_AMOS) -> dict[str, Any]:
    """Check an answer to hello."""
    asked = greeting(algorithm)["protocol"]
    if found.get("protocol", asked) not in (asked, PROTOCOL):
        alone = f", which has {PAPER_AMOS.title} alone" if found["protocol"] == FIRST_PROTOCOL else ""
        raise Garbage(f"speaks the protocol {quote(str(found['protocol']))}{alone}; this is {asked}")
    _check_keys("hello", found, set(_HELLO), {*_HELLO, "count", *(["words"] if algorithm.words else [])})
    for key, kind in (_HELLO | _MAY_SAY).items():
        if key in found and type(found[key]) is not kind:
            raise Garbage(f"its answer to hello has {key} {quote(json.dumps(found[key]))}; expected a {kind.__name__}")
    if not found["name"].isprintable() or not 0 < len(found["name"]) <= 100:
        raise Garbage(f"its name is {quote(found['name'])}; expected 1 to 100 printable characters")
    words = found.get("words", {})
    if not all(option in algorithm.words and isinstance(known, list) for option, known in words.items()):
        raise Garbage(f"its words are {quote(json.dumps(words))}; expected lists for {', '.join(algorithm.words)}")
    lists = [(f"words of {option}", known, algorithm.words[option]) for option, known in words.items()]
    lists += [("options", found["options"], tuple(NAMES[algorithm.name].options)), ("dtypes", found["dtypes"], FLOATS)]
    for key, entries, known in lists:
        for entry in entries:
            if entry not in known:
                raise Garbage(f"its {key} hold {quote(json.dumps(entry))}; expected some of {', '.join(known)}")
    if algorithm.rate not in found["options"]:
        raise Garbage(f"its options do not hold {algorithm.rate}, without which there is nothing to check")
    return found


def read_done(call: str, found: dict[str, Any]) -> None:
    """Check an answer to init, put or count."""
    if found != {"ok": True}:
        raise Garbage(f"answered {call} with {quote(json.dumps(found))}; expected {_DONE}")


def read_step(
    found: dict[str, Any], forms: Mapping[str, Form], state: bool, algorithm: Algorithm = PAPER_AMOS
) -> dict[str, Arrays]:
    """Return theta, and the state as far as it is shown, from an answer to step."""
    needed = {"theta", *(part for part in algorithm.parts if state and part not in algorithm.at_times)}
    _check_keys("step", found, needed, needed | set(algorithm.parts) if state else needed)
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
