"""The stored schedules: what the tool writes, to the byte; the page is within their bounds, and wrong ones are not."""

import copy
import json

import jsonschema
import numpy as np
import pytest
from helpers.stored_vectors import FOLDER

from amos_ref import closed_form
from amos_ref.closed_form import Schedule
from amos_ref.conformance.vectors import read, schedules

DOCUMENT = read.load_json("schedules.json", "schedules", schedules.SCHEDULES_FORMAT)


def test_the_file_is_what_the_tool_writes():
    assert schedules.text_of_schedules() == (FOLDER / "schedules.json").read_text(encoding="utf-8")


def test_the_file_follows_its_schema():
    schema = json.loads((FOLDER / DOCUMENT["schema"]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(DOCUMENT)
    wrong = copy.deepcopy(DOCUMENT)
    wrong["schedules"][0]["points"][0]["S"] = "0"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(wrong)


def test_every_decay_is_there_at_every_step():
    assert {entry["id"] for entry in DOCUMENT["schedules"]} == {name for name, _ in schedules.plans()}
    assert all([point["t"] for point in entry["points"]] == list(schedules.TIMES) for entry in DOCUMENT["schedules"])
    assert max(schedules.TIMES) == 10**12
    assert len({json.dumps(entry["options"]) for entry in DOCUMENT["schedules"]}) == 12


def test_the_page_is_within_the_bounds():
    assert schedules.verify_schedules(DOCUMENT) == (12 * len(schedules.TIMES) * 4, [])


def test_sums_in_plain_float64_are_within_the_bounds_as_long_as_they_are_short():
    """A right implementation that iterates: 100 steps of S_{t+1} = S_t + alpha_0 p_t exp(-S_t)."""
    compared = 0
    for entry in DOCUMENT["schedules"]:
        o = {key: x if key in ("decay", "p_t") else read.number(x) for key, x in entry["options"].items()}
        if o["decay"] != "recurrence":
            continue
        falling, points = o["p_t"] == "falling", {point["t"]: point for point in entry["points"]}
        p_0 = o["p_0"] if "p_0" in o else (0.5 if falling else 2**0.5 - 1) / o["half_life"] / o["alpha_0"]
        s = 0.0
        for t in range(101):
            if t in points:
                for what, x in (("S", s), ("shrink", np.exp(-2 * s))):
                    want = read.number(points[t][what])
                    assert abs(x - want) <= points[t]["allowed"][what] * np.spacing(want), (entry["id"], t, what)
                    compared += 1
            s += o["alpha_0"] * (p_0 * np.exp(-s) if falling else p_0) * np.exp(-s)
    assert compared == 6 * 7 * 2


WRONG = [
    ("from t = 1", "S", lambda self, t, right=Schedule.s: right(self, np.asarray(t) + 1)),
    ("exp(-S)", "shrink", lambda self, t, right=Schedule.shrink: np.sqrt(right(self, t))),
    ("float32", "shrink", lambda self, t, right=Schedule.shrink: np.float32(right(self, t))),
    ("without 1/2", "rho", lambda self, t, right=Schedule.rho: 2 * right(self, t)),
]


@pytest.mark.parametrize(("name", "what", "wrong"), WRONG, ids=[w[0] for w in WRONG])
def test_a_wrong_schedule_is_seen(name, what, wrong, monkeypatch):
    monkeypatch.setattr(Schedule, what.lower(), wrong)
    found = schedules.verify_schedules(DOCUMENT)[1]
    assert any(f": {what} at t = {10**12} is " in text or f": {what} at t = 3 is " in text for text in found)


def test_a_recurrence_that_is_its_differential_equation_is_seen(monkeypatch):
    monkeypatch.setattr(closed_form, "recurrence", lambda t, k: np.log1p(k * t))
    assert {text.split("-")[0] for text in schedules.verify_schedules(DOCUMENT)[1]} == {"recurrence"}
