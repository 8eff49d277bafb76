"""Stored vectors: inputs, the page's answers to the bit and the real numbers between, for any language to check itself.

A file holds a header, notes that explain the flags, and groups of cases of one dtype (docs/vectors.md explains it all).
An array is one string: the IEEE bits of its entries in C order, big-endian, in hexadecimal digits, 16 an entry for
float64, 8 for float32, 4 for float16 and bfloat16. No float parser is needed to read it, and nothing is lost. Numbers
(learning_rate, beta, ...) are float64 bits likewise. write.py writes the files.
"""

import contextlib
import importlib.resources
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref import errors
from amos_ref.dtypes import dtype_of
from amos_ref.errors import AmosError, VectorError
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.state import AmosState

VECTORS_FORMAT = "amos-ref-vectors-3"
VECTOR_DTYPES = ("float64", "float32", "float16", "bfloat16")
STATE = ("theta", "v", "b", "m")

#: What a case can be refused for, in any language -> our errors that say so.
KINDS_OF_ERROR: dict[str, tuple[type[AmosError], ...]] = {
    "non-finite": (errors.NonFiniteError,),  # NaN or infinity among the arrays, or a square that overflows
    "range": (errors.HyperParameterError, errors.RuleError, errors.ScheduleError),  # a number out of its range
    "shape": (errors.ShapeError, errors.RuleError),  # a slot shape that does not broadcast to the leaf's
}

Json = dict[str, Any]


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


def number(text: str) -> float:
    """Return the float64 number with these bits."""
    return float(decode(text, np.dtype(np.float64), ()))


class StoredCase:
    """A stored case with its arrays: what is common to checking and exporting it.

    Parameters
    ----------
    entry : dict
        The case, as the file has it.
    dtype : dtype
        Of its group: theta and gradients.
    """

    def __init__(self, entry: Json, dtype: np.dtype) -> None:
        self.entry, self.id, self.dtype = entry, entry["id"], dtype
        self.shapes = {name: tuple(leaf["shape"]) for name, leaf in entry["leaves"].items()}
        self.slots = {name: tuple(leaf["slot_shape"]) for name, leaf in entry["leaves"].items()}

    def array(self, text: str, name: str, quantity: str, part: str = "") -> np.ndarray:
        """Return a quantity of the leaf `name`; `part` is where it stands: pre, real, post or tolerance."""
        narrow = quantity in ("theta", "g") and part != "tolerance"
        shape = self.shapes[name] if quantity in ("theta", "g", "delta", "m") else self.slots[name]
        return decode(text, self.dtype if narrow else np.dtype(np.float64), shape)

    def state(self, step: Json, part: str) -> dict[str, dict[str, np.ndarray]]:
        """Return ``{"theta": {leaf: array}, "v": ..., "b": ...}`` and m, if the case has it, before or after a step."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, leaf in step["leaves"].items():
            for quantity, text in leaf[part].items():
                found.setdefault(quantity, {})[name] = self.array(text, name, quantity)
        return found

    def grads(self, texts: dict[str, str | None]) -> dict[str, np.ndarray | None]:
        """Return gradients from their bits."""
        return {name: None if text is None else self.array(text, name, "g") for name, text in texts.items()}

    def steps(self) -> Iterator[tuple[int, Json, float, dict[str, np.ndarray | None]]]:
        """Yield (t, what is stored of it or {}, learning rate, gradients) for all steps, stored or not."""
        stored = {step["t"]: step for step in self.entry["steps"]}
        cycle, rate = self.entry.get("cycle", ()), self.entry["steps"][0]["learning_rate"]
        for t in range(1, max(stored) + 1):
            step = stored.get(t, {})
            given = {k: leaf["g"] for k, leaf in step["leaves"].items()} if step else cycle[(t - 1) % len(cycle)]
            yield t, step, number(step.get("learning_rate", rate)), self.grads(given)

    def optimizer(self, backend: str) -> Amos:
        """Return the optimizer of the case, its learning rates as a schedule."""
        leaves, rates = self.entry["leaves"], {t: rate for t, _, rate, _ in self.steps()}
        options: Json = {name: number(text) for name, text in self.entry["options"].items()}
        return Amos(
            learning_rate=lambda t: rates[t],
            eta=lambda name, shape: number(leaves[name]["eta"]),
            slot_shape=lambda name, shape: self.slots[name],
            backend=backend,
            **options,
        )


def verify_case(entry: Json, dtype: np.dtype, backend: str) -> str:
    """Run a stored case on a backend; return "" if every bit agrees, else where the first difference is."""
    with _name_damage("a case"):
        case = StoredCase(entry, dtype)
        return _verify_refusal(case, backend) if "error" in entry else _verify_steps(case, backend)


@contextlib.contextmanager
def _name_damage(what: str) -> Iterator[None]:
    """Turn what an entry that is not of the format does to the code that reads it into a VectorError."""
    try:
        yield
    except AmosError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise VectorError(f"{what} is not of the format: {type(error).__name__}: {error}") from error


def _verify_steps(case: StoredCase, backend: str) -> str:
    opt = case.optimizer(backend)
    now = case.state(case.entry["steps"][0], "pre")
    opt.init(now["theta"])
    for t, step, _, grads in case.steps():
        if step:
            before = case.state(step, "pre")
            if "injected-state" in case.entry["flags"]:
                now = before
            elif where := _difference(now, before):
                return f"{case.id}, before step {t}: {where} has other bits"
        opt.step(now["theta"], grads, AmosState(t - 1, now["v"], now["b"], now.get("m")))
        if step and (where := _difference(now, case.state(step, "post"))):
            return f"{case.id}, step {t}: {where} has other bits"
    return ""


def _difference(got: dict[str, Any], stored: dict[str, Any]) -> str:
    for quantity in STATE:
        for name, a in stored.get(quantity, {}).items():
            if encode(got[quantity][name]) != encode(a):
                return f"{quantity} of leaf {name!r}"
    return "" if set(got) == set(stored) else "m"


def _verify_refusal(case: StoredCase, backend: str) -> str:
    (step,) = case.entry["steps"]
    now, kind = case.state(step, "pre"), case.entry["error"]
    if not isinstance(kind, str) or kind not in KINDS_OF_ERROR:
        raise VectorError(f"there is no kind of error {kind!r:.80}")
    try:
        opt = case.optimizer(backend)
        opt.init(now["theta"])
        grads = case.grads({name: leaf["g"] for name, leaf in step["leaves"].items()})
        opt.step(now["theta"], grads, AmosState(0, now["v"], now["b"], now.get("m")))
        return f"{case.id} is computed; it must be refused: {kind}"
    except KINDS_OF_ERROR[kind]:
        where = _difference(now, case.state(step, "post"))
        return f"{case.id} is refused, but {where} was changed" if where else ""
    except AmosError as error:
        return f"{case.id} is refused with {type(error).__name__}, which is not of the kind {kind}: {error}"


def load(dtype_name: str) -> Json:
    """Return the stored vectors of a dtype, or raise VectorError if the file is damaged."""
    path = importlib.resources.files("amos_ref.conformance.vectors") / "data" / f"paper-{dtype_name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VectorError(f"vectors of {dtype_name}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != VECTORS_FORMAT:
        raise VectorError(f"vectors of {dtype_name} are not of the format {VECTORS_FORMAT!r}")
    return found


def cases(document: Json) -> Iterator[tuple[Json, np.dtype]]:
    """Yield each case of a document with the dtype of its group."""
    with _name_damage("the document"):
        found = [(entry, group["dtype"]) for group in document["groups"] for entry in group["cases"]]
        for _, name in found:
            if name not in VECTOR_DTYPES:
                raise VectorError(f"there are no vectors of dtype {name!r:.80}")
    yield from ((entry, dtype_of(name)) for entry, name in found)


def verify(dtype_name: str, backend: str, progress: Callable[[Any], Any] = iter) -> tuple[int, list[str]]:
    """Run all stored cases of a dtype on a backend: how many there are, and where bits differ."""
    texts = [verify_case(entry, dtype, backend) for entry, dtype in progress(list(cases(load(dtype_name))))]
    return len(texts), [text for text in texts if text]
