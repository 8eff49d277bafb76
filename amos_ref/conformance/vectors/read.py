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
from amos_ref.conformance.vectors.bits import Json, decode, encode, number
from amos_ref.conformance.vectors.stored import STATE, StoredCase, stored_case
from amos_ref.dtypes import dtype_of
from amos_ref.errors import AmosError, VectorError

__all__ = [
    "COMMAND_NAMES",
    "KINDS_OF_ERROR",
    "STATE",
    "VECTORS_FORMAT",
    "VECTOR_ALGORITHMS",
    "VECTOR_DTYPES",
    "Json",
    "StoredCase",
    "cases",
    "decode",
    "encode",
    "load",
    "load_json",
    "number",
    "stored_case",
    "verify",
    "verify_case",
]  # fmt: skip

VECTORS_FORMAT = "amos-ref-vectors-3"
VECTOR_DTYPES = ("float64", "float32", "float16", "bfloat16")

#: How the files of an algorithm begin -> its name in them.
VECTOR_ALGORITHMS = {"paper": "paper Amos", "closed": "closed-form Amos"}
#: The same, as a user chooses them.
COMMAND_NAMES = {"paper": "paper", "closed": "closed-form"}

#: What a case can be refused for, in any language -> our errors that say so.
KINDS_OF_ERROR: dict[str, tuple[type[AmosError], ...]] = {
    "non-finite": (errors.NonFiniteError,),  # NaN or infinity among the arrays, or a square that overflows
    "range": (errors.HyperParameterError, errors.RuleError, errors.ScheduleError),  # a number out of its range
    "shape": (errors.ShapeError, errors.RuleError),  # a slot shape that does not broadcast to the leaf's
}


def verify_case(entry: Json, dtype: np.dtype, backend: str) -> str:
    """Run a stored case on a backend; return "" if every bit agrees, else where the first difference is."""
    with _name_damage("a case"):
        case = stored_case(entry, dtype)
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
    begun = case.begin(opt, now["theta"])
    if where := case.verify_plan(opt) or _scales(case, begun):
        return f"{case.id}: {where} has other bits"
    for t, step, _, grads in case.steps():
        if step:
            before = case.state(step, "pre")
            if "injected-state" in case.entry["flags"]:
                now = before
            elif where := _difference(case, now, before):
                return f"{case.id}, before step {t}: {where} has other bits"
        after = opt.step(now["theta"], grads, case.state_at(t, now, begun))
        now = {what: now["theta"] if what == "theta" else getattr(after, what) for what in now}
        if step and (where := _difference(case, now, case.state(step, "post"))):
            return f"{case.id}, step {t}: {where} has other bits"
    return ""


def _scales(case: StoredCase, begun: Any) -> str:
    """Return whose sigma, measured from the initial entries, has other bits than it has in the file."""
    found = getattr(begun, "sigma", {})
    return next((f"sigma of leaf {name!r}" for name, a in found.items() if float(a) != case.scale_of(name)), "")


def _difference(case: StoredCase, got: dict[str, Any], stored: dict[str, Any]) -> str:
    for quantity in case.parts:
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
        begun = case.begin(opt, now["theta"])
        grads = case.grads({name: leaf["g"] for name, leaf in step["leaves"].items()})
        opt.step(now["theta"], grads, case.state_at(case.first, now, begun))
        return f"{case.id} is computed; it must be refused: {kind}"
    except KINDS_OF_ERROR[kind]:
        where = _difference(case, now, case.state(step, "post"))
        return f"{case.id} is refused, but {where} was changed" if where else ""
    except AmosError as error:
        return f"{case.id} is refused with {type(error).__name__}, which is not of the kind {kind}: {error}"


def load(dtype_name: str, algorithm: str = "paper") -> Json:
    """Return the stored vectors of a dtype, paper Amos's or the "closed" form's; VectorError if the file is damaged."""
    return load_json(f"{algorithm}-{dtype_name}.json", f"vectors of {dtype_name}", VECTORS_FORMAT)


def load_json(file: str, what: str, form: str) -> Json:
    """Return the content of a stored file, or raise VectorError if it is damaged or of another format."""
    path = importlib.resources.files("amos_ref.conformance.vectors") / "data" / file
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VectorError(f"{what}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != form:
        raise VectorError(f"{what} are not of the format {form!r}")
    return found


def cases(document: Json) -> Iterator[tuple[Json, np.dtype]]:
    """Yield each case of a document with the dtype of its group."""
    with _name_damage("the document"):
        found = [(entry, group["dtype"]) for group in document["groups"] for entry in group["cases"]]
        for _, name in found:
            if name not in VECTOR_DTYPES:
                raise VectorError(f"there are no vectors of dtype {name!r:.80}")
    yield from ((entry, dtype_of(name)) for entry, name in found)


def verify(
    dtype_name: str, backend: str, progress: Callable[[Any], Any] = iter, algorithm: str = "paper"
) -> tuple[int, list[str]]:
    """Run all stored cases of a dtype on a backend: how many there are, and where bits differ."""
    found = list(cases(load(dtype_name, algorithm)))
    texts = [verify_case(entry, dtype, backend) for entry, dtype in progress(found)]
    return len(texts), [text for text in texts if text]
