"""The explorer's algorithms in JavaScript, run by node, against amos_ref: no browser needed."""

import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from helpers.explorer_reference import closed_path, paper_path, schedules

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explorer"
DIGITS = 1e-6  # what the page promises; only what takes another way to its number needs it
STEPS = 300  # of each path that are compared

SCRIPT = """
const { compute, ...model } = await import(process.argv[1]);
const all = JSON.parse(process.argv[2]).map((changes) => {
  const settings = { ...model.DEFAULTS, ...changes };
  return { settings, ...compute(settings) };
});
console.log(JSON.stringify({ all, start: model.START, titles: model.PROBLEMS }));
"""

CHOICES = [
    {},
    {"problem": "noisy", "xi": 0.2, "eta": 0.3, "beta": 0.5, "half_life": 1, "alpha_0": 0.1, "sigma": 4},
    {"problem": "noisy", "momentum": 0.9, "beta": 0.999, "q": 2.5, "decay": "inverse-square"},
    {"problem": "valley", "xi": 0.5, "eta": 10, "beta": 0, "alpha_0": 0.5, "q": 0.25, "sigma": 10, "half_life": 10000},
    {"problem": "bowl", "xi": 0.001, "eta": 0.1, "beta": 0.9999, "momentum": 0.5, "alpha_0": 0.001, "half_life": 3},
]


def computed(page=PAGE, choices=CHOICES):
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    command = ["node", "--input-type=module", "-e", SCRIPT, (page / "model.mjs").as_uri(), json.dumps(choices)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


@pytest.fixture(scope="module")
def numbers():
    return computed()


def departures(one, start):
    """Names of what is not what amos_ref has: equal bits where both sides take the same operations."""
    found = []
    for name, reference in (("paper", paper_path), ("closed", closed_path)):
        ref = reference(one["settings"], one["problem"], start, STEPS)
        found += [
            f"{name} {key}" for key in ref[0] if any(a[key] != b[key] for a, b in zip(one[name], ref, strict=False))
        ]
    times = one["schedules"]["t"]
    for key, ref in schedules(one["settings"], times).items():
        if not np.allclose(one["schedules"][key], ref, rtol=DIGITS, atol=0):
            found.append(key)
    return found


@pytest.mark.parametrize("i", range(len(CHOICES)))
def test_the_numbers_are_those_of_amos_ref(numbers, i):
    one = numbers["all"][i]
    assert len(one["paper"]) == len(one["closed"]) == 1001
    assert departures(one, numbers["start"]) == []


def test_the_cosine_is_the_one_that_the_half_life_stands_for(numbers):
    for one in numbers["all"]:
        s = one["settings"]
        least = {"inverse-time": 0.5, "inverse-square": np.sqrt(2) - 1}[s["decay"]]
        assert one["cosine"] * s["alpha_0"] * s["half_life"] == pytest.approx(least, rel=DIGITS)


def test_titles_name_the_curvatures(numbers):
    curvatures = {}
    for name, problem in numbers["titles"].items():
        a, b, c = problem["h"]
        curvatures[name] = np.linalg.eigvalsh([[a, b], [b, c]]).round(9).tolist()
    assert curvatures == {"valley": [1, 10], "bowl": [1, 1], "tilted": [1, 51], "noisy": [1, 10]}


WRONG = [
    ("amos_step.mjs", "gamma / 2 + extra_l2", "gamma + extra_l2", "paper rho"),
    ("amos_step.mjs", "Math.sqrt(xi * eta) * b", "Math.sqrt(xi) * b", "d"),
    ("amos_step.mjs", "c_coef * Math.sqrt(xi)", "c_coef * xi", "c"),
    (
        "amos_step.mjs",
        "m[i] = momentum * m[i] + (1 - momentum) * delta",
        "m[i] = momentum * m[i] + delta",
        "paper theta",
    ),
    ("amos_step.mjs", "q = 1 - beta + beta * q", "q = beta * q", "paper alpha"),
    ("closed_form.mjs", "1 / (1 + t / half_life)", "1 / (1 + (t + 1) / half_life)", "inverse-time"),
    ("closed_form.mjs", "(Math.sqrt(2) - 1);", "0.5;", "inverse-square"),
    ("closed_form.mjs", "falling ? -r : -2 * r", "-r", "inverse-square recurrence"),
    ("closed_form.mjs", "(2 * q)", "q", "closed rho"),
    ("closed_form.mjs", "/ u.length", "", "closed alpha"),
    ("model.mjs", "oneMinusPower(beta, t + 1)", "oneMinusPower(beta, t + 2)", "paper alpha"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "seen"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_version_is_caught(tmp_path, file, right, wrong, seen):
    page = shutil.copytree(PAGE, tmp_path / "explorer")
    text = (page / file).read_text()
    assert text.count(right) == 1
    (page / file).write_text(text.replace(right, wrong))
    found = computed(page, CHOICES[2:3])
    assert seen in departures(found["all"][0], found["start"])
