"""Files of state, written without the package."""

import hashlib
import json

from helpers import strategies as own


def parts_of(state):
    return (("v", state.v), ("b", state.b), ("m", state.m))


def state_bits(state):
    parts = {part: arrays and {name: own.bits(a) for name, a in arrays.items()} for part, arrays in parts_of(state)}
    return state.count, parts


def naive_file(texts, arrays, **changes):
    """The bytes of a file, put together without the package: the format as docs/storage.md has it."""
    codes = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    entries, data = {"__metadata__": {**texts, "sha256": "0" * 64}}, b""
    for name, a in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        offsets = [len(data), len(data) + a.nbytes]
        entries[name] = {"dtype": codes[a.dtype.name], "shape": list(a.shape), "data_offsets": offsets}
        data += a.tobytes()
    text = json.dumps({**entries, **changes}, ensure_ascii=False, separators=(",", ":")).encode()
    return sealed(text, data)


def sealed(text, data):
    """Length, header and data with the right hash where the header has 64 zeros for it."""
    text += b" " * (-len(text) % 8)
    whole = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(whole).hexdigest().encode()
    return whole.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest, 1)
