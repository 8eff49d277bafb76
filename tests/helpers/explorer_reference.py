"""The explorer's numbers, computed by amos_ref from the same settings."""

import numpy as np

import amos_ref
from amos_ref import closed_form, spec


def offsets(noise):
    """What is added to each gradient: Park and Miller's generator in whole numbers."""
    state = 1
    while True:
        pair = []
        for _ in range(2):
            state = state * 16807 % 2147483647
            pair.append(noise * (2 * (state / 2147483647) - 1) if noise else 0.0)
        yield pair


def path(opt, problem, start, steps, intermediates):
    """Where `opt` is after t = 0, 1, ... steps, what is asked for of its next step, and b before it."""
    (h11, h12, h22), minimum = problem["h"], problem["minimum"]
    params = np.array(start)
    state, found = opt.init(params), []
    for _, (n1, n2) in zip(range(steps), offsets(problem.get("noise", 0)), strict=False):
        x, y = (params - minimum).tolist()
        grads = np.array([h11 * x + h12 * y + n1, h12 * x + h22 * y + n2])
        trace = opt.trace(grads, state, params)
        at = {"theta": params.tolist(), "error": np.sqrt(x * x + y * y)}
        at |= {name: float(trace[""][name]) for name in intermediates}
        at["length"] = at["alpha"] * float(np.sqrt((grads**2).sum() / 2))
        if hasattr(state, "b"):
            at["b"] = float(state.b[""])
        found.append(at)
        state = opt.step(params, grads, state)
    return found


def paper_path(settings, problem, start, steps):
    opt = amos_ref.Amos(
        settings["xi"],
        eta=settings["eta"],
        beta=settings["beta"],
        momentum=settings["momentum"] or None,
        backend="numpy",
    )
    return path(opt, problem, start, steps, ("alpha", "rho", "c", "d"))


def closed_path(settings, problem, start, steps):
    own = {name: settings[name] for name in ("alpha_0", "half_life", "decay", "q")}
    opt = amos_ref.ClosedFormAmos(sigma=settings["sigma"], backend="numpy", **own)
    found = path(opt, problem, start, steps, ("alpha", "rho"))
    for t, at in enumerate(found):
        at["shrink"] = float(opt.schedule.shrink(t))
        at["predicted"] = found[0]["error"] * np.sqrt(at["shrink"])
    return found


def schedules(settings, times):
    own = {"alpha_0": settings["alpha_0"], "half_life": settings["half_life"]}
    found = {}
    for decay, p_t in (("inverse-time", "falling"), ("inverse-square", "constant")):
        found[decay] = closed_form.Schedule(decay=decay, **own).shrink(times)
        found[f"{decay} recurrence"] = closed_form.Schedule(decay="recurrence", p_t=p_t, **own).shrink(times)
    found["c"], found["d"] = factors(settings, times)
    return found


def factors(settings, times):
    """Return c and d of paper Amos before step t + 1, under gradients of size 1."""
    beta, v, b, found = settings["beta"], 0.0, 0.0, []
    for t in range(1, max(times) + 2):
        q = spec.one_minus_power(beta, t)
        rest = (settings["eta"], beta, 0.0, 0.25, 0.25, 2.0**-125)
        v, _, c, _, d, _, _, b = spec.decide(1.0, v, b, q, settings["xi"], *rest)
        found.append((c, d))
    return np.array(found)[times].T
