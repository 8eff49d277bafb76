"""The explorer's numbers, computed by amos_ref from the same settings."""

import functools
import json
import pathlib
import shutil
import subprocess

import numpy as np
import pytest

import amos_ref
from amos_ref import closed_form, spec
from amos_ref.adamw import AdamW

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explorer"
STEPS = 1000


def run_node(script, *arguments, page=PAGE):
    """What a script prints as JSON, that takes the folder of the page and more as process.argv."""
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    command = ["node", "--input-type=module", "-e", script, page.as_uri(), *map(json.dumps, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def offsets(noise, seed):
    """What is added to each gradient: Park and Miller's generator in whole numbers."""
    state = seed * 1000003 % 2147483647
    while True:
        pair = []
        for _ in range(2):
            state = state * 16807 % 2147483647
            pair.append(noise * (2 * (state / 2147483647) - 1))
        yield pair


def quadratic(hessian, minimum, **rest):
    (h11, h12), (_, h22) = hessian

    def fun(x, y):
        x, y = x - minimum[0], y - minimum[1]
        return (h11 * x * x + 2 * h12 * x * y + h22 * y * y) / 2, (h11 * x + h12 * y, h12 * x + h22 * y)

    return dict(fun=fun, minima=[minimum], start=(-1.5, 1.5)) | rest


def rosenbrock(x, y):
    e = y - x * x
    return 100 * e * e + (1 - x) * (1 - x), (-400 * x * e - 2 * (1 - x), 200 * e)


def saddle(x, y):
    well = x * x - 1
    return well * well / 4 + y * y / 2, (x * well, y)


PROBLEMS = {
    "valley": quadratic([[1, 0], [0, 10]], (1, 0.5)),
    "tilted": quadratic([[19, -24], [-24, 33]], (1, 0.5)),
    "bowl": quadratic([[1, 0], [0, 1]], (0, 0)),
    "rosenbrock": dict(fun=rosenbrock, minima=[(1, 1)], start=(-0.5, 1.5)),
    "saddle": dict(fun=saddle, minima=[(-1, 0), (1, 0)], start=(0, 1.2)),
    "rare": quadratic([[1, 0], [0, 1]], (1, 1), start=(-1, -1), every=10),
}


def path(opt, settings, steps, names):
    """Where `opt` is after t = 0, 1, ... steps, and what its next step does; `names` of its trace, for each slot."""
    problem = PROBLEMS[settings["problem"]]
    params = np.array(settings["start"] or problem["start"], dtype=float)
    state, found = opt.init(params), []
    for t, (n1, n2) in zip(range(steps), offsets(settings["noise"], settings["seed"]), strict=False):
        loss, (x, y) = problem["fun"](*params.tolist())
        grads = np.array([x + n1, y + n2 if t % problem.get("every", 1) == 0 else 0.0])
        trace = opt.trace(grads, state, params)[""]
        apart = (params - np.array(problem["minima"], dtype=float)).tolist()
        at = {"theta": params.tolist(), "loss": loss, "error": min(np.sqrt(a * a + b * b) for a, b in apart)}
        at["slots"] = {name: np.ravel(trace[name]).tolist() for name in names}
        u = trace.get("u", grads)
        x, y = (np.ravel(trace["alpha"]) * u).tolist()
        at["length"] = np.sqrt((x * x + y * y) / 2)
        if hasattr(state, "b"):
            at["slots"]["b"] = np.ravel(state.b[""]).tolist()
        found.append(at)
        state = opt.step(params, grads, state)
    return found


def paper_path(settings, steps=STEPS + 1):
    own = {name: settings[name] for name in ("eta", "beta")}
    shape = {"one": "tensor", "each": "element"}[settings["slots"]]
    momentum = settings["momentum"] or None
    opt = amos_ref.Amos(settings["xi"], slot_shape=shape, momentum=momentum, backend="numpy", **own)
    return path(opt, settings, steps, ("alpha", "rho", "c", "d", "gamma", "v", "r"))


def closed_path(settings, steps=STEPS + 1):
    own = {name: settings[name] for name in ("alpha_0", "half_life", "decay", "q", "direction", "sigma")}
    shape = {"one": "tensor", "each": "element"}[settings["slots"]]
    opt = amos_ref.ClosedFormAmos(slot_shape=shape, backend="numpy", **own)
    found = path(opt, settings, steps, ("alpha", "rho"))
    for t, at in enumerate(found):
        shrink = float(opt.schedule.shrink(t))
        at["slots"]["shrink"] = [shrink]
        at["predicted"] = found[0]["error"] * np.sqrt(shrink)
    return found


def planned(settings, t):
    """AdamW's learning rate in step t = 0, 1, ..., over its first one."""
    return max(1 - t / settings["end"], 0) if settings["schedule"] == "linear" else 1


def adamw_path(settings, steps=STEPS + 1):
    own = {name: settings[name] for name in ("weight_decay", "beta1", "beta2")}
    opt = AdamW(lambda t: settings["lr"] * planned(settings, t - 1), backend="numpy", **own)
    return path(opt, settings, steps, ("alpha", "rho", "u", "m", "v"))


PATHS = {"paper": paper_path, "closed": closed_path, "adamw": adamw_path}


def recent(found, t):
    """Root mean square of the distance over the last 100 steps up to t."""
    return np.sqrt(np.mean([at["error"] ** 2 for at in found[max(t - 99, 0) : t + 1]]))


def schedules(settings, times):
    own = {"alpha_0": settings["alpha_0"], "half_life": settings["half_life"]}
    found = {"planned": [planned(settings, t) for t in times]}
    for decay, p_t in (("inverse-time", "falling"), ("inverse-square", "constant")):
        found[decay] = closed_form.Schedule(decay=decay, **own).shrink(times)
        found[f"{decay} recurrence"] = closed_form.Schedule(decay="recurrence", p_t=p_t, **own).shrink(times)
    found["c"], found["d"] = factors(settings["xi"], settings["eta"], tuple(times))
    return found


@functools.cache
def factors(xi, eta, times):
    """Return c and d of paper Amos before step t + 1, under gradients of size 1."""
    v, b, found = 0.0, 0.0, []
    for _ in range(max(times) + 1):
        v, _, c, _, d, _, _, b = spec.decide(1.0, v, b, 1.0, xi, eta, 0.0, 0.0, 0.25, 0.25, 2.0**-125)
        found.append((c, d))
    return np.array(found)[list(times)].T
