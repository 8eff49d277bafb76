"""Schedules of the closed form as vectors of their own: S_t, exp(-2 S_t), alpha and rho at steps up to 10^12."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref import exact
from amos_ref.closed_form import Schedule
from amos_ref.conformance.vectors.bits import Json, encode, number

SCHEDULES_FORMAT = "amos-ref-schedules-1"
PLAN = ("alpha_0", "half_life", "p_0", "decay", "p_t", "q")  # the options of a schedule
QUANTITIES = ("S", "shrink", "alpha", "rho")
TIMES = (0, 1, 2, 3, 7, 50, 100, 1000, 65_537, 10**6, 10**9, 10**12)
HEADER = [
    "Numbers are the bits of a float64 in hexadecimal, most significant digit first; t is a whole number.",
    "S is S_t, shrink exp(-2 S_t), alpha alpha_0 shrink (the step size where |eps_0| = |u_t|), rho alpha_0^2 / (2q)"
    " shrink: correctly rounded by an oracle that is independent of the page (amos_ref/closed_form.py).",
    "inverse-time: shrink = 1 / (1 + 2 alpha_0 p_0 t). inverse-square: shrink = 1 / (1 + alpha_0 p_0 t)^2.",
    "recurrence: S_0 = 0, S_{t+1} = S_t + alpha_0 p_t exp(-S_t), p_t = p_0 (constant) or p_0 exp(-S_t) (falling).",
    "A half_life T stands for alpha_0 p_0 = 1 / (2T), or, for inverse-square and a constant p_t, (sqrt(2) - 1) / T.",
    "allowed is by how many units in the last place of the stored number a right implementation in float64 may be off,"
    " if its + - * / sqrt are rounded to nearest, and its exp and log1p are right to the last place.",
]


def allowed_ulps(decay: str, s: float) -> dict[str, int]:
    """Return by how many ulps a right implementation in float64 may be off where S_t is s (docs/bits.md says why)."""
    of_s = 90 if decay == "recurrence" else 8
    shrink = 16 + math.ceil(2 * of_s * s)
    return {"S": of_s, "shrink": shrink, "alpha": shrink + 1, "rho": shrink + 3}


_PLAN_WORDS = {
    "inverse-time": {"decay": "inverse-time"},
    "inverse-square": {"decay": "inverse-square"},
    "recurrence-falling": {"decay": "recurrence", "p_t": "falling"},
    "recurrence-constant": {"decay": "recurrence", "p_t": "constant"},
}
_PLAN_NUMBERS = {
    "slow": {"alpha_0": 1e-3, "half_life": 1e4, "q": 1.5},
    "fast": {"alpha_0": 0.5, "half_life": 3.0, "q": 0.75},
    "cosine": {"alpha_0": 0.125, "p_0": 0.3, "q": 2.5},
}


def plans() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options of the schedules that are stored."""
    for decay, words in _PLAN_WORDS.items():
        for name, numbers in _PLAN_NUMBERS.items():
            yield f"{decay}-{name}", numbers | words


def text_of_schedules() -> str:
    """Return the content of schedules.json, or raise MissingDependencyError without python-flint."""
    rows = []
    for name, options in plans():
        real = exact.closed_form.schedule(TIMES, **options)
        points = [
            {"t": t}
            | {what: encode(real[what][i]) for what in QUANTITIES}
            | {"allowed": allowed_ulps(options["decay"], float(real["S"][i]))}
            for i, t in enumerate(TIMES)
        ]
        stored = {key: x if isinstance(x, str) else encode(x) for key, x in options.items()}
        rows.append({"id": name, "options": stored, "points": points})
    head = {"format": SCHEDULES_FORMAT, "schema": "schedules.schema.json", "header": HEADER, "schedules": []}
    lines = ",\n".join("  " + json.dumps(row, separators=(",", ":")) for row in rows)
    return json.dumps(head, indent=1).removesuffix("[]\n}") + "[\n" + lines + "\n ]\n}\n"


def verify_schedules(document: Json) -> tuple[int, list[str]]:
    """Return how many numbers the schedules of this installation were compared with, and which are too far off."""
    count, wrong = 0, []
    for entry in document["schedules"]:
        options: Json = {key: x if key in ("decay", "p_t") else number(x) for key, x in entry["options"].items()}
        plan = Schedule(**options)
        for point in entry["points"]:
            t = point["t"]
            got = dict(S=plan.s(t), shrink=plan.shrink(t), alpha=plan.alpha(t), rho=plan.rho(t))
            for what, x in got.items():
                want, count = number(point[what]), count + 1
                if not abs(float(x) - want) <= point["allowed"][what] * np.spacing(want):
                    wrong.append(f"{entry['id']}: {what} at t = {t} is {float(x)!r}, should be {want!r}")
    return count, wrong
