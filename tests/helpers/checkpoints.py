"""States to save, how they are compared, and files of state that are written without the package."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

import amos_ref
from amos_ref import AmosState, errors
from helpers import strategies as own
from helpers.messages import one_line

OLD = AmosState(1, {"w": np.array([0.5, 0.25], "f4"), "x": np.ones(1)}, {"w": np.ones(2, "f4"), "x": np.ones(1)}, None)
NEW = OLD._replace(count=2)


def check_refusal(path, words, call=amos_ref.load_state, error=errors.StorageError):
    """Check that the call raises exactly this error, in one line with the path and the words."""
    with pytest.raises(error) as caught:
        call(path)
    assert type(caught.value) is error
    one_line(caught.value, [repr(str(path)), *words])


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


def save_new(path):
    amos_ref.save_state(path, NEW)


def check_untouched(path):
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert state_bits(amos_ref.load_state(path)) == state_bits(OLD)


def in_child(code, *arguments):
    """Run code in a child that has STATE of count 2; return what it printed."""
    start = "import os, sys, numpy as np, amos_ref\nfrom amos_ref import AmosState, errors\n"
    start += (
        "ones = {str(i): np.ones(500) for i in range(8)}\nSTATE = AmosState(2, ones, ones, None)\namos_ref.save_state\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return found.stdout.strip()


# A child that saves its STATE.
SAVE_AND_PRINT = """
try:
    amos_ref.save_state(sys.argv[1], STATE)
except errors.StorageError as error:
    print(error)
"""
