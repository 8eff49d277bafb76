"""Write the stored vectors: the page's bits, and beside them the real numbers from the oracle."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from amos_ref import exact
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.paper import OPTIONS
from amos_ref.conformance.judging.tolerance import Moment, trajectory_of_page
from amos_ref.conformance.ports.options import DEFAULTS
from amos_ref.conformance.vectors.cases import NOTES, STEP, VectorCase, flags, vector_cases
from amos_ref.conformance.vectors.read import STATE, VECTOR_DTYPES, VECTORS_FORMAT, Json, encode
from amos_ref.dtypes import dtype_of
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.state import AmosState
from amos_ref.storage.files import write_file

#: What the oracle is asked for, beside the state after the step.
REAL = ("g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "delta", "b", "m")
HEADER = [
    "An array is the IEEE bits of its entries, C order, big-endian, in hexadecimal. theta and g have the group's dtype,"
    " all else is float64. theta, g, delta, m have the leaf's shape; g2, v, r, c, gamma, d, alpha, rho, b the slot's.",
    "pre and post are the state before and after step t, computed by the page (amos_ref/spec.py) in float64 and rounded"
    " once to be stored: a right implementation in float64, in the page's order of summation, has these bits.",
    "real holds the step's intermediates over the real numbers, from pre and g, correctly rounded to float64 by an"
    " oracle that is independent of the page. The page's own intermediates may differ in the last bits.",
    "tolerance is how far theta, v, b, m may be from post in a right implementation that computes and stores in the"
    " group's dtype and has run the case from its start; null where no bound is known.",
    "options without momentum: there is no m, and theta moves by delta; without clip_value: g is taken as it is.",
    "g null: the leaf has no gradient and is skipped, while t goes on. error: a right implementation refuses the case,"
    " for a NaN or infinity (non-finite), a number out of its range (range) or a slot_shape that does not fit (shape).",
    "A step: " + "; ".join(f"{name} = {how}" + f" ({note})" * bool(note) for name, (how, note) in STEP.items()) + ".",
]


def write(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write one file a dtype, yielding each path."""
    for name in VECTOR_DTYPES:
        path = folder / f"paper-{name}.json"
        write_file(path, text_of(name))
        yield path


def text_of(dtype_name: str) -> str:
    """Return the content of the vector file of a dtype."""
    return as_text(generate(dtype_name))


def as_text(document: Json) -> str:
    """Return a document as JSON with one case a line."""
    head = json.dumps(document | {"groups": []}, indent=1).removesuffix("[]\n}")
    return head + "[\n" + ",\n".join(map(_group_text, document["groups"])) + "\n ]\n}\n"


def _group_text(group: Json) -> str:
    lines = ",\n".join("   " + json.dumps(case, separators=(",", ":")) for case in group["cases"])
    return json.dumps(group | {"cases": []}).replace('"cases": []', f'"cases": [\n{lines}\n  ]')


def generate(dtype_name: str) -> Json:
    """Return the vectors of one dtype, or raise MissingDependencyError without python-flint."""
    made = [_case(vector) for vector in vector_cases(dtype_name)]
    used = {flag for case in made for flag in case["flags"]}
    notes = {f: n for f, n in NOTES.items() if f in used}
    return {
        "format": VECTORS_FORMAT,
        "schema": "schema.json",
        "algorithm": "paper Amos",
        "header": HEADER,
        "notes": {f: {"kind": n.kind, "description": n.description, "effect": n.effect} for f, n in notes.items()},
        "groups": [{"dtype": dtype_name, "state_dtype": "float64", "cases": made}],
    }


def _case(vector: VectorCase) -> Json:
    case = vector.case
    entry: Json = {
        "id": f"{case.name}/{case.dtype}",
        "about": case.about,
        "flags": flags(vector),
        "options": {name: encode(x) for name, x in _numbers(case).items() if x is not None},
        "leaves": {
            name: {"shape": list(a.shape), "slot_shape": list(case.slots[name]), "eta": encode(case.eta[name])}
            for name, a in case.params.items()
        },
    }
    if vector.cycle:
        entry["cycle"] = [
            {name: _bits(g, case.dtype) for name, g in given.items()} for given in case.grads[: vector.cycle]
        ]
    if vector.error:
        return entry | {"error": vector.error, "steps": [_refusal(case)]}
    return entry | {"steps": list(_steps(vector))}


def _bits(a: Any, dtype: str) -> str | None:
    return None if a is None else encode(a.astype(dtype_of(dtype)))


def _refusal(case: Case) -> Json:
    """The one step of a case that is refused: nothing is computed, nothing is changed."""
    leaves = {}
    for name, a in case.params.items():
        zeros = encode(np.zeros(case.slots[name]))
        state = {"theta": _bits(a, case.dtype), "v": zeros, "b": zeros}
        state |= {"m": encode(np.zeros(a.shape))} if case.options.get("momentum") else {}
        g = _bits(case.grads[0][name], case.dtype)
        leaves[name] = {"pre": state, "g": g, "real": None, "post": state, "tolerance": None}
    return {"t": 1, "learning_rate": encode(case.learning_rates()[0]), "leaves": leaves}


def _steps(vector: VectorCase) -> Iterator[Json]:
    """Step the page through a case; yield the steps that are stored."""
    case, moments = vector.case, tolerances(vector.case)
    opt, dtype = _optimizer(case), dtype_of(case.dtype)
    params = {name: a.astype(dtype) for name, a in case.params.items()}
    state = opt.init(params)
    for t, (xi, given) in enumerate(zip(case.learning_rates(), case.grads, strict=True), 1):
        grads = {name: None if g is None else g.astype(dtype) for name, g in given.items()}
        before = _copy_state(params, state)
        state = opt.step(params, grads, state)
        if t in vector.steps:
            leaves, after = {}, _copy_state(params, state)
            for name, g in grads.items():
                leaves[name] = {
                    "pre": _encode_all(before[name]),
                    "g": None if g is None else encode(g),
                    "real": None if g is None else _real(case, name, before[name], g, t, xi),
                    "post": _encode_all(after[name]),
                    "tolerance": None if moments is None else _tolerance(after[name], moments[t - 1].get(name)),
                }
            yield {"t": t, "learning_rate": encode(xi), "leaves": leaves}
        if t == 1 and case.inject:
            _inject(case, params, state)


def _optimizer(case: Case) -> Amos:
    rates: Any = case.learning_rates()
    options: dict[str, Any] = {key: x for key, x in case.options.items() if key != "learning_rate"}
    return Amos(
        lambda t: rates[t - 1],
        eta=lambda name, shape: case.eta[name],
        slot_shape=lambda name, shape: case.slots[name],
        backend="numpy",
        **options,
    )


def _copy_state(params: dict[str, np.ndarray], state: AmosState) -> dict[str, dict[str, np.ndarray]]:
    """Copy theta, v, b and, if there is momentum, m of every leaf."""
    parts = dict(zip(STATE, (params, state.v, state.b, state.m), strict=True))
    return {name: {what: a[name].copy() for what, a in parts.items() if a is not None} for name in params}


def _inject(case: Case, params: dict[str, np.ndarray], state: AmosState) -> None:
    held: dict[str, Any] = dict(zip(STATE, (params, state.v, state.b, state.m), strict=True))
    for what, arrays in (case.inject or {}).items():
        for name, a in arrays.items():
            held[what][name][...] = a


def _numbers(case: Case) -> dict[str, Any]:
    """Return beta and all else that a step needs beside its rate and eta; momentum and clip_value may be None."""
    return {name: case.options.get(name, DEFAULTS[name]) for name in OPTIONS}


def _encode_all(arrays: dict[str, Any]) -> dict[str, str]:
    return {what: encode(a) for what, a in arrays.items()}


def _real(case: Case, name: str, before: dict[str, Any], g: np.ndarray, t: int, xi: float) -> dict[str, str]:
    after = exact.step(**before, g=g, t=t, xi=xi, eta=case.eta[name], **_numbers(case))
    return _encode_all({what: after[what] for what in REAL if after[what] is not None})


def tolerances(case: Case) -> Sequence[dict[str, Moment]] | None:
    """Return how far a right port may be from the page's unrounded run after each step; None if there is no bound.

    Nothing bounds a port in whose dtype the squares of all of a leaf's gradients vanish: its r is anything. And none of
    the evaluations that are measured computes in float16, which makes much of a beta that it does not hold.
    """
    if case.dtype in envelope.ENVELOPE_DTYPES and any(_squares_vanish(grads, case.dtype) for grads in case.grads):
        return None
    if case.dtype == "float16" and float(np.float16(case.options["beta"])) != case.options["beta"]:
        return None
    try:
        return trajectory_of_page(case, case.eta)
    except Unbounded:
        return None


def _squares_vanish(grads: dict[str, np.ndarray | None], dtype: str) -> bool:
    largest = [float(np.max(abs(g), initial=0.0)) for g in grads.values() if g is not None]
    return any(x > 0 and not float(np.asarray(x * x).astype(dtype_of(dtype))) for x in largest)


def _tolerance(after: dict[str, np.ndarray], moment: Moment | None) -> dict[str, str]:
    """Return the distance allowed from what is stored: that from the unrounded run, and on from there to the stored.

    A leaf that was never stepped is where it was.
    """
    if moment is None:
        return _encode_all({what: np.zeros(a.shape) for what, a in after.items()})
    gaps = {what: abs(getattr(moment.step, what) - a.astype(np.float64)) for what, a in after.items()}
    return _encode_all({what: _round_up(moment.allowed[what] + gap) for what, gap in gaps.items()})


def _round_up(x: np.ndarray) -> np.ndarray:
    """Round up to 8 bits, so that no library's last bit shows in the files."""
    spacing = np.frexp(x)[1] - 8
    return np.ldexp(np.ceil(np.ldexp(x, -spacing)), spacing)
