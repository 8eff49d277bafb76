"""The vectors of the closed form: the page's bits, and beside them the real numbers from the oracle."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref import closed_form, exact
from amos_ref.conformance.cases import Case
from amos_ref.conformance.vectors.bits import Json, encode
from amos_ref.conformance.vectors.cases import VectorCase
from amos_ref.conformance.vectors.closed_cases import CLOSED_STEP, closed_flags
from amos_ref.conformance.vectors.entries import case_entry, encode_all, refused, taken, tolerance_of, tolerances
from amos_ref.conformance.vectors.schedules import PLAN
from amos_ref.conformance.vectors.stored import ClosedFormCase
from amos_ref.dtypes import dtype_of

#: What the oracle is asked for; g only where it is clipped, m and v only with Adam's direction.
CLOSED_REAL = ("g", "u", "u2", "alpha", "rho", "delta", "m", "v", "theta")
#: Options that a case has even where it does not set them.
ALWAYS: Json = {"decay": "inverse-time", "direction": "gradient", "epsilon": 2.0**-125}
CLOSED_HEADER = [
    "An array is the IEEE bits of its entries, C order, big-endian, in hexadecimal. theta and g have the group's dtype,"
    " all else is float64. theta, g, u, delta, m, v have the leaf's shape; u2, alpha, rho the slot's.",
    "pre and post are theta, and with direction adam m and v, before and after step t, computed by the page"
    " (amos_ref/closed_form.py) in float64 and rounded once to be stored: a right implementation in float64, in the"
    " page's order of summation, has these bits.",
    "shrink is the exp(-2 S_t) that post was computed with: the page's bits, or, for a recurrence, whose exp and log"
    " differ between machines, the real number, correctly rounded. t counts from 0.",
    "real holds S_t, exp(-2 S_t) and the step's intermediates over the real numbers, from pre, g and sigma, correctly"
    " rounded to float64 by an oracle that is independent of the page. g is there where it is clipped.",
    "tolerance is how far theta, m, v may be from post in a right implementation that computes and stores in the"
    " group's dtype and has run the case from its start; null where no bound is known.",
    "sigma of a leaf is what its steps take. With the option sigma = init it is measured from the first pre, and"
    " measured is that number over the real numbers, correctly rounded.",
    "g null: the leaf has no gradient and is skipped, while t goes on. error: a right implementation refuses the case,"
    " for a NaN or infinity (non-finite), a number out of its range (range) or a slot_shape that does not fit (shape).",
    "A step: " + "; ".join(f"{name} = {how}" + f" ({note})" * bool(note) for name, (how, note) in CLOSED_STEP.items()),
]


def entry(vector: VectorCase) -> Json:
    """Return a case as the file has it."""
    case = vector.case
    options = ALWAYS | case.options
    head = case_entry(vector, closed_flags(vector), options, {name: _leaf(case, name) for name in case.params}, [])
    return head | {"steps": [_refusal(vector)] if vector.error else list(_steps(vector, head))}


def _leaf(case: Case, name: str) -> Json:
    if case.options.get("sigma") != "init":
        return {"sigma": encode(case.eta[name])}
    theta = _narrow(case.params[name], case)
    finite = bool(np.isfinite(case.params[name]).all())
    with np.errstate(all="ignore"):
        sigma = closed_form.initial_sigma(theta.astype(np.float64))
    return {"sigma": encode(sigma)} | ({"measured": encode(exact.closed_form.initial_sigma(theta))} if finite else {})


def _narrow(a: Any, case: Case) -> np.ndarray:
    return a.astype(dtype_of(case.dtype))


def _refusal(vector: VectorCase) -> Json:
    case = vector.case
    adam = case.options.get("direction") == "adam"
    state = {name: {"m": encode(0.0 * a), "v": encode(0.0 * a)} if adam else {} for name, a in case.params.items()}
    return {"t": 0, "shrink": encode(1.0), "real": None, "leaves": refused(vector, state)}


def _steps(vector: VectorCase, head: Json) -> Iterator[Json]:
    """Step the page through a case; yield the steps that are stored."""
    case, moments = vector.case, tolerances(vector.case)
    times = vector.steps if not vector.cycle else range(len(case.grads))
    stored = [{"t": t, "shrink": encode(x)} for t, x in _shrinks(case, times).items()]
    reader = ClosedFormCase(head | {"steps": stored}, dtype_of(case.dtype))
    opt, params = reader.optimizer("numpy"), {name: _narrow(a, case) for name, a in case.params.items()}
    now = begun = reader.begin(opt, params)
    for k, (t, given) in enumerate(zip(times, case.grads, strict=True)):
        grads = {name: None if g is None else _narrow(g, case) for name, g in given.items()}
        before = _copy_state(params, now)
        now = opt.step(params, grads, reader.state_at(t, now._asdict(), begun))
        if t in vector.steps:
            leaves, after, plan = {}, _copy_state(params, now), exact.closed_form.schedule(t, **_plan(case))
            for name, g in grads.items():
                real = (
                    None if g is None else _real(case, before[name], g, t, float(begun.sigma[name]), case.slots[name])
                )
                allowed = None if moments is None else tolerance_of(after[name], moments[k].get(name))
                leaves[name] = taken(before[name], g, real, after[name], allowed)
            yield stored[k] | {"real": encode_all({what: plan[what] for what in ("S", "shrink")}), "leaves": leaves}


def _shrinks(case: Case, times: Any) -> dict[int, float]:
    """Return exp(-2 S_t) as the page computes it, or where that is the platform's exp, the real number."""
    real = case.options.get("decay") == "recurrence"
    found = exact.closed_form.schedule(list(times), **_plan(case))["shrink"] if real else ()
    plan = closed_form.Schedule(**_plan(case))
    return {t: float(found[k] if real else plan.shrink(t)) for k, t in enumerate(times)}


def _plan(case: Case) -> Json:
    return {name: x for name, x in case.options.items() if name in PLAN}


def _copy_state(params: dict[str, np.ndarray], state: Any) -> dict[str, dict[str, np.ndarray]]:
    """Copy theta and, with Adam's direction, m and v of every leaf."""
    parts = {"theta": params, "m": state.m, "v": state.v}
    return {name: {what: a[name].copy() for what, a in parts.items() if a is not None} for name in params}


def _real(case: Case, before: Json, g: np.ndarray, t: int, sigma: float, slot: tuple[int, ...]) -> Json:
    options = {name: x for name, x in case.options.items() if name != "sigma"}
    after = exact.closed_form.step(**before, g=g, t=t, sigma=sigma, slot_shape=slot, **options)
    clipped = case.options.get("clip_value") is not None
    return encode_all(
        {what: after[what] for what in CLOSED_REAL if after[what] is not None and (what != "g" or clipped)}
    )
