"""The vectors of paper Amos: the page's bits, and beside them the real numbers from the oracle."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref import exact
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.paper import OPTIONS
from amos_ref.conformance.ports.options import DEFAULTS
from amos_ref.conformance.vectors.bits import Json, encode
from amos_ref.conformance.vectors.cases import STEP, VectorCase, flags
from amos_ref.conformance.vectors.entries import case_entry, encode_all, refused, taken, tolerance_of, tolerances
from amos_ref.conformance.vectors.stored import STATE
from amos_ref.dtypes import dtype_of
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.state import AmosState

#: What the oracle is asked for, beside the state after the step.
PAPER_REAL = ("g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "delta", "b", "m")
PAPER_HEADER = [
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


def entry(vector: VectorCase) -> Json:
    """Return a case as the file has it."""
    case = vector.case
    leaves = {name: {"eta": encode(case.eta[name])} for name in case.params}
    steps = [_refusal(vector)] if vector.error else _steps(vector)
    return case_entry(vector, flags(vector), _numbers(case), leaves, steps)


def _refusal(vector: VectorCase) -> Json:
    case, state = vector.case, {}
    for name, a in case.params.items():
        zeros = encode(np.zeros(case.slots[name]))
        m = {"m": encode(np.zeros(a.shape))} if case.options.get("momentum") else {}
        state[name] = {"v": zeros, "b": zeros} | m
    return {"t": 1, "learning_rate": encode(case.learning_rates()[0]), "leaves": refused(vector, state)}


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
                real = None if g is None else _real(case, name, before[name], g, t, xi)
                allowed = None if moments is None else tolerance_of(after[name], moments[t - 1].get(name))
                leaves[name] = taken(before[name], g, real, after[name], allowed)
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


def _real(case: Case, name: str, before: dict[str, Any], g: np.ndarray, t: int, xi: float) -> dict[str, str]:
    after = exact.step(**before, g=g, t=t, xi=xi, eta=case.eta[name], **_numbers(case))
    return encode_all({what: after[what] for what in PAPER_REAL if after[what] is not None})
