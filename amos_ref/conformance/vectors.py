"""Stored vectors: inputs and the page's answers, to the bit, for any language to check itself against.

A file holds one dtype. An array is one string: the IEEE bits of its entries in C order, big-endian, in hexadecimal
digits, 16 an entry for float64, 8 for float32, 4 for float16 and bfloat16. No float parser is needed to read it,
and nothing is lost. Numbers (learning_rate, beta, ...) are float64 bits likewise.
"""

import importlib.resources
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref.arrays import dtype_of
from amos_ref.conformance.cases import Case, table
from amos_ref.errors import VectorError
from amos_ref.optimizer import Amos

FORMAT = "amos-ref-vectors-1"
DTYPES = ("float64", "float32", "float16", "bfloat16")
_BEYOND_HALF = ("tiny-gradients", "huge-gradients")  # magnitudes that float16 does not hold


def encode(a: Any) -> str:
    """Return the bits of an array (or of a number, as float64) in hexadecimal."""
    a = np.asarray(a)
    return np.ascontiguousarray(a).view(f"u{a.itemsize}").astype(f">u{a.itemsize}").tobytes().hex() if a.size else ""


def decode(text: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array that :func:`encode` wrote, or raise VectorError."""
    try:
        bits = np.frombuffer(bytes.fromhex(text), f">u{dtype.itemsize}")
        return bits.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape).copy()
    except ValueError as error:
        raise VectorError(f"{text[:20]!r}... is not the bits of {shape} {dtype}: {error}") from None


def _number(text: str) -> float:
    return float(decode(text, np.dtype(np.float64), ()))


def generate(dtype_name: str) -> dict[str, Any]:
    """Return the vectors of one dtype, computed by the page."""
    dtype = dtype_of(dtype_name)
    cases = [case for case in table() if case.dtype == "float64"]
    if dtype_name == "float16":
        cases = [case for case in cases if case.name not in _BEYOND_HALF]
    return {
        "format": FORMAT,
        "algorithm": "paper Amos",
        "dtype": dtype_name,
        "state_dtype": "float64",
        "encoding": "bits of each entry, C order, big-endian, hexadecimal",
        "flags": {case.name: case.about for case in cases},
        "cases": [_generate_case(case, dtype) for case in cases],
    }


def _generate_case(case: Case, dtype: np.dtype) -> dict[str, Any]:
    params = {name: a.astype(dtype) for name, a in case.params.items()}
    entry: dict[str, Any] = {
        "id": f"{case.name}/{dtype.name}",
        "flag": case.name,
        "options": {name: encode(x) for name, x in case.options.items() if name != "learning_rate"},
        "leaves": {
            name: {
                "shape": list(a.shape),
                "slot_shape": list(case.slots[name]),
                "eta": encode(case.eta[name]),
                "theta": encode(a),
            }
            for name, a in params.items()
        },
        "steps": [],
    }
    opt = _optimizer(entry, "numpy", case.learning_rates())
    state = opt.init(params)
    for xi, grads in zip(case.learning_rates(), case.grads, strict=True):
        given = {name: None if g is None else g.astype(dtype) for name, g in grads.items()}
        state = opt.step(params, given, state)
        step = {"learning_rate": encode(xi), "grad": {k: None if g is None else encode(g) for k, g in given.items()}}
        entry["steps"].append(step | _answers(params, state))
    return entry


def _answers(params: dict[str, np.ndarray], state: Any) -> dict[str, dict[str, str]]:
    parts = {"theta": params, "v": state.v, "b": state.b, "m": state.m}
    return {part: {k: encode(a) for k, a in arrays.items()} for part, arrays in parts.items() if arrays is not None}


def _optimizer(entry: dict[str, Any], backend: str, rates: list[float]) -> Amos:
    leaves = entry["leaves"]
    options: dict[str, Any] = {name: _number(text) for name, text in entry["options"].items()}
    return Amos(
        learning_rate=lambda t: rates[t - 1],
        eta=lambda name, shape: _number(leaves[name]["eta"]),
        slot_shape=lambda name, shape: tuple(leaves[name]["slot_shape"]),
        backend=backend,
        **options,
    )


def verify_case(entry: dict[str, Any], dtype: np.dtype, backend: str) -> str:
    """Run a stored case on a backend; return "" if every bit agrees, else where the first difference is."""
    params = {k: decode(leaf["theta"], dtype, tuple(leaf["shape"])) for k, leaf in entry["leaves"].items()}
    opt = _optimizer(entry, backend, [_number(step["learning_rate"]) for step in entry["steps"]])
    state = opt.init(params)
    for t, step in enumerate(entry["steps"], 1):
        grads = {k: None if g is None else decode(g, dtype, params[k].shape) for k, g in step["grad"].items()}
        state = opt.step(params, grads, state)
        for part, got in _answers(params, state).items():
            wrong = [name for name, text in got.items() if text != step[part][name]]
            if wrong:
                return f"{entry['id']}, step {t}: {part} of leaf {wrong[0]!r} has other bits"
    return ""


def text_of(dtype_name: str) -> str:
    """Return the content of the vector file of a dtype."""
    return json.dumps(generate(dtype_name), indent=1) + "\n"


def write(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write one file a dtype, yielding each path."""
    for name in DTYPES:
        path = folder / f"paper-{name}.json"
        path.write_text(text_of(name), encoding="utf-8")
        yield path


def load(dtype_name: str) -> dict[str, Any]:
    """Return the stored vectors of a dtype, or raise VectorError if the file is damaged."""
    path = importlib.resources.files("amos_ref.conformance") / "vectors" / f"paper-{dtype_name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VectorError(f"vectors of {dtype_name}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise VectorError(f"vectors of {dtype_name} are not of the format {FORMAT!r}")
    return found


def verify(dtype_name: str, backend: str, progress: Callable[[Any], Any] = iter) -> tuple[int, list[str]]:
    """Run all stored cases of a dtype on a backend: how many there are, and where bits differ."""
    found, dtype = load(dtype_name), dtype_of(dtype_name)
    texts = [verify_case(entry, dtype, backend) for entry in progress(found["cases"])]
    return len(texts), [text for text in texts if text]
