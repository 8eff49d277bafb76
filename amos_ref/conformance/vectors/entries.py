"""What the files of both algorithms have in common: how a case and its tolerances are written down."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging import envelope
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.tolerance import Moment, trajectory_of_page
from amos_ref.conformance.vectors.bits import Json, encode
from amos_ref.conformance.vectors.cases import VectorCase
from amos_ref.dtypes import dtype_of


def case_entry(vector: VectorCase, flags: list[str], options: Json, leaves: Json, steps: Iterable[Json]) -> Json:
    """Return a case as the file has it; `leaves` holds what each leaf has beside its shapes."""
    case = vector.case
    entry: Json = {
        "id": f"{case.name}/{case.dtype}",
        "about": case.about,
        "flags": flags,
        "options": {name: x if isinstance(x, str) else encode(x) for name, x in options.items() if x is not None},
        "leaves": {
            name: {"shape": list(a.shape), "slot_shape": list(case.slots[name])} | leaves[name]
            for name, a in case.params.items()
        },
    }
    if vector.cycle:
        entry["cycle"] = [
            {name: bits_of(g, case.dtype) for name, g in given.items()} for given in case.grads[: vector.cycle]
        ]
    return entry | ({"error": vector.error} if vector.error else {}) | {"steps": list(steps)}


def refused(vector: VectorCase, state: Json) -> Json:
    """Return the leaves of a step that is refused: nothing is computed, nothing of theta and the state is changed."""
    case, leaves = vector.case, {}
    for name, a in case.params.items():
        before = {"theta": bits_of(a, case.dtype)} | state[name]
        g = bits_of(case.grads[0][name], case.dtype)
        leaves[name] = {"pre": before, "g": g, "real": None, "post": before, "tolerance": None}
    return leaves


def taken(before: Json, g: Any, real: Json | None, after: Json, tolerance: Json | None) -> Json:
    """Return a leaf of a step that was taken."""
    return {
        "pre": encode_all(before),
        "g": None if g is None else encode(g),
        "real": real,
        "post": encode_all(after),
        "tolerance": tolerance,
    }


def bits_of(a: Any, dtype: str) -> str | None:
    return None if a is None else encode(a.astype(dtype_of(dtype)))


def encode_all(arrays: dict[str, Any]) -> dict[str, str]:
    """Return the bits of every array."""
    return {what: encode(a) for what, a in arrays.items()}


def tolerances(case: Case) -> Sequence[dict[str, Moment]] | None:
    """Return how far a right port may be from the page's unrounded run after each step; None if there is no bound.

    Nothing bounds a port in whose dtype the squares of all of a leaf's gradients vanish: its r is anything. And none of
    the evaluations that are measured computes in float16, which makes much of a beta that it does not hold.
    """
    if case.dtype in envelope.ENVELOPE_DTYPES and any(_squares_vanish(grads, case.dtype) for grads in case.grads):
        return None
    betas = [x for name, x in case.options.items() if name in ("beta", "beta1", "beta2")]
    if case.dtype == "float16" and any(float(np.float16(beta)) != beta for beta in betas):
        return None
    try:
        return trajectory_of_page(case, case.eta)
    except Unbounded:
        return None


def _squares_vanish(grads: dict[str, np.ndarray | None], dtype: str) -> bool:
    largest = [float(np.max(abs(g), initial=0.0)) for g in grads.values() if g is not None]
    return any(x > 0 and not float(np.asarray(x * x).astype(dtype_of(dtype))) for x in largest)


def tolerance_of(after: dict[str, np.ndarray], moment: Moment | None) -> dict[str, str]:
    """Return the distance allowed from what is stored: that from the unrounded run, and on from there to the stored.

    A leaf that was never stepped is where it was.
    """
    if moment is None:
        return encode_all({what: np.zeros(a.shape) for what, a in after.items()})
    gaps = {what: abs(getattr(moment.step, what) - a.astype(np.float64)) for what, a in after.items()}
    return encode_all({what: _round_up(moment.allowed[what] + gap) for what, gap in gaps.items()})


def _round_up(x: np.ndarray) -> np.ndarray:
    """Round up to 8 bits, so that no library's last bit shows in the files."""
    spacing = np.frexp(x)[1] - 8
    return np.ldexp(np.ceil(np.ldexp(x, -spacing)), spacing)
