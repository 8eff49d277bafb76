"""The explorer's algorithms and problems in JavaScript, run by node, against amos_ref: no browser needed."""

import functools
import json
import shutil

import numpy as np
import pytest
from helpers.explorer_reference import PAGE, PATHS, PROBLEMS, recent, run_node, schedules

from amos_ref import problems

DIGITS = 1e-6  # what the page promises; only what takes another way to its number needs it
STEPS = 150  # of each path that are compared

SCRIPT = """
const [page, choices] = [process.argv[1], JSON.parse(process.argv[2])];
const { compute, recent, unstable } = await import(`${page}/model.mjs`);
const { DEFAULTS } = await import(`${page}/settings.mjs`);
const { PROBLEMS } = await import(`${page}/problems.mjs`);
console.log(JSON.stringify(choices.map((changes) => {
  const settings = { ...DEFAULTS, ...changes };
  const found = compute(settings);
  const lengths = ["paper", "closed", "adamw"].map((who) => found[who].length);
  const last = [0, 50, 250].map((t) => recent(found.paper, t));
  for (const who of ["paper", "closed", "adamw"]) found[who].length = 300;
  return { settings, ...found, last, lengths, from: unstable(PROBLEMS[settings.problem], found.paper) };
})));
"""

CHOICES = [
    {},
    {"noise": 4, "seed": 3, "xi": 0.2, "eta": 0.3, "beta": 0.5, "half_life": 1, "alpha_0": 0.1, "sigma": 4},
    {
        "eta": 2,
        "sigma": 0.7,
        "momentum": 0.9,
        "beta": 0.999,
        "q": 2.5,
        "decay": "inverse-square",
        "schedule": "linear",
        "end": 200,
    },
    {"noise": 0, "xi": 0.5, "eta": 10, "beta": 0, "alpha_0": 0.5, "q": 0.25, "sigma": 10, "half_life": 10000},
    {"problem": "bowl", "xi": 0.001, "eta": 0.1, "beta": 0.9999, "momentum": 0.5, "alpha_0": 0.001, "half_life": 3},
    {"problem": "rosenbrock", "noise": 0, "lr": 0.03, "beta1": 0.5, "beta2": 0.95, "direction": "adam"},
    {"problem": "saddle", "noise": 0.2, "start": [0.3, -1.1], "weight_decay": 0.5, "direction": "sign"},
    {"problem": "rare", "noise": 1, "slots": "each", "sigma": 0.3, "eta": 0.6, "weight_decay": 0, "momentum": 0.25},
    {"problem": "tilted", "noise": 0, "xi": 0.05, "eta": 1.5, "beta": 0.99, "slots": "each", "beta1": 0},
]


def computed(page=PAGE, choices=CHOICES):
    return run_node(SCRIPT, choices, page=page)


@pytest.fixture(scope="module")
def numbers():
    return computed()


@functools.cache
def reference(who, settings):
    return PATHS[who](json.loads(settings), STEPS)


def number(x):
    """NaN and infinity are null in JSON, and great numbers are written as whole ones."""
    return np.nan if x is None else float(x)


def departures(one):
    """Names of what is not what amos_ref has: equal bits where both sides take the same operations."""
    found = []
    for who in PATHS:
        for got, ref in zip(one[who], reference(who, json.dumps(one["settings"])), strict=False):
            found += [f"{who} {key}" for key in set(ref) - {"slots"} if got[key] != ref[key]]
            for key, values in ref["slots"].items():
                slots = [number(slot[key]) for slot in got["slots"]]
                if slots != values * (len(slots) // len(values)):
                    found.append(f"{who} {key}")
    for key, ref in schedules(one["settings"], one["schedules"]["t"]).items():
        if not np.allclose(one["schedules"][key], ref, rtol=DIGITS, atol=0):
            found.append(key)
    return set(found)


@pytest.mark.parametrize("i", range(len(CHOICES)))
def test_the_numbers_are_those_of_amos_ref(numbers, i):
    assert numbers[i]["lengths"] == [1001] * 3
    assert departures(numbers[i]) == set()


def test_the_recent_distance_is_that_of_the_last_hundred_steps(numbers):
    for one in numbers:
        assert one["last"] == pytest.approx([recent(one["paper"], t) for t in (0, 50, 250)], rel=DIGITS)


def test_the_cosine_is_the_one_that_the_half_life_stands_for(numbers):
    for one in numbers:
        s = one["settings"]
        least = {"inverse-time": 0.5, "inverse-square": np.sqrt(2) - 1}[s["decay"]]
        assert one["cosine"] * s["alpha_0"] * s["half_life"] == pytest.approx(least, rel=DIGITS)


FUNCTIONS = """
const { PROBLEMS } = await import(`${process.argv[1]}/problems.mjs`);
const points = JSON.parse(process.argv[2]);
console.log(JSON.stringify(Object.fromEntries(Object.entries(PROBLEMS).map(([name, p]) => [name, {
  ...p, losses: points.map(p.loss), gradients: points.map(p.gradient), lowest: p.minima.map(p.loss),
}]))));
"""
POINTS = np.random.default_rng(0).normal(size=(5, 2)).tolist()


@pytest.fixture(scope="module")
def functions():
    return run_node(FUNCTIONS, POINTS)


def test_gradients_are_the_slopes_of_the_losses_and_vanish_at_the_minima():
    h = 1e-6  # central differences err by h^2 f'''/6, f''' < 1e4 here, and by rounding of 1e-16 * f / h, f < 1e3
    for problem in PROBLEMS.values():
        for x, y in POINTS:
            fun = problem["fun"]
            slopes = [
                (fun(x + h, y)[0] - fun(x - h, y)[0]) / (2 * h),
                (fun(x, y + h)[0] - fun(x, y - h)[0]) / (2 * h),
            ]
            assert fun(x, y)[1] == pytest.approx(slopes, rel=1e-6, abs=1e-6)
        for minimum in problem["minima"]:
            loss, slope = problem["fun"](*minimum)
            assert (loss, *slope) == (0, 0, 0)


def test_the_functions_of_the_page_are_those(functions):
    assert set(functions) == set(PROBLEMS)
    for name, problem in PROBLEMS.items():
        ref = [problem["fun"](*point) for point in POINTS]
        assert functions[name]["losses"] == pytest.approx([loss for loss, _ in ref], rel=1e-14)
        assert functions[name]["gradients"] == [list(slope) for _, slope in ref]
        assert functions[name]["minima"] == [list(minimum) for minimum in problem["minima"]]


def test_rosenbrocks_valley_is_the_one_of_the_package():
    for point in POINTS:
        loss, slope = problems.rosenbrock().fun(np.array(point))
        found = PROBLEMS["rosenbrock"]["fun"](*point)
        assert (found[0], *found[1]) == pytest.approx((loss, *slope), rel=1e-12)


def test_the_steepest_curvature_is_the_greatest_eigenvalue(functions):
    for name, found in functions.items():
        if "steepest" in found:
            gradient = PROBLEMS[name]["fun"]
            (x, y), (a, b), (c, d) = (gradient(*p)[1] for p in ((0, 0), (1, 0), (0, 1)))
            curvatures = np.linalg.eigvalsh([[a - x, b - y], [c - x, d - y]]).round(9)
            assert found["steepest"] == curvatures.max()
            if "curvature" in found["title"]:
                low, high = curvatures.astype(int)
                assert found["title"].endswith(f"curvature {low} and {high}")


WRONG = [
    ("amos_step.mjs", "gamma / 2 + extra_l2", "gamma + extra_l2", 2, "paper rho"),
    ("amos_step.mjs", "Math.sqrt(xi * eta) * b", "Math.sqrt(xi) * b", 2, "d"),
    ("amos_step.mjs", "c_coef * Math.sqrt(xi)", "c_coef * xi", 2, "c"),
    ("amos_step.mjs", "m[i] = momentum * m[i] + (1 - momentum) *", "m[i] = momentum * m[i] +", 2, "paper theta"),
    ("amos_step.mjs", "q = 1 - beta + beta * q", "q = beta * q", 2, "paper alpha"),
    ("closed_form.mjs", "1 / (1 + t / half_life)", "1 / (1 + (t + 1) / half_life)", 2, "inverse-time"),
    ("closed_form.mjs", "(Math.sqrt(2) - 1);", "0.5;", 2, "inverse-square"),
    ("closed_form.mjs", "falling ? -r : -2 * r", "-r", 2, "inverse-square recurrence"),
    ("closed_form.mjs", "(2 * q)", "q", 2, "closed rho"),
    ("closed_form.mjs", "(x * x) / size", "x * x", 2, "closed alpha"),
    ("closed_form.mjs", "+ adam_epsilon", "+ 2 * adam_epsilon", 5, "adamw u"),
    ("adamw.mjs", "lr * weight_decay", "weight_decay", 6, "adamw rho"),
    ("adamw.mjs", "lr * x + rho", "lr * x - rho", 6, "adamw theta"),
    ("model.mjs", "oneMinusPower(beta, t + 1)", "oneMinusPower(beta, t + 2)", 2, "paper alpha"),
    ("model.mjs", "1 - t / end", "1 - (t + 1) / end", 2, "adamw alpha"),
    ("model.mjs", "slots.at(-1).alpha", "slots[0].alpha", 7, "paper length"),
    ("problems.mjs", "t % every === 0", "true", 7, "paper theta"),
    ("problems.mjs", "seed * 1000003", "1000003", 1, "closed theta"),
    ("problems.mjs", "Math.min(...minima", "Math.max(...minima", 6, "closed error"),
    ("problems.mjs", "-400 * x * e", "-200 * x * e", 5, "adamw theta"),
]


@pytest.mark.parametrize(("file", "right", "wrong", "choice", "seen"), WRONG, ids=[w[1] for w in WRONG])
def test_a_wrong_version_is_caught(tmp_path, file, right, wrong, choice, seen):
    page = shutil.copytree(PAGE, tmp_path / "explorer")
    text = (page / file).read_text(encoding="utf-8")
    assert text.count(right) == 1
    (page / file).write_text(text.replace(right, wrong), encoding="utf-8")
    assert seen in departures(computed(page, [CHOICES[choice]])[0])
