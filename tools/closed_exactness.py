"""How exact is the closed form's page? ``python tools/closed_exactness.py 20000`` takes so many random steps."""

import pathlib
import sys
from typing import NamedTuple

import numpy as np

from amos_ref import closed_form, exact, spec
from amos_ref.conformance.vectors.schedules import PLAN, allowed_ulps
from amos_ref.optimizers.directions import Adam, adam

sys.path.append(str(pathlib.Path(__file__).parent.parent))  # pytest does the same, a plain run does not
sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))
from helpers.strategies import DTYPES, EXPONENTS, numbers

from tools import exactness
from tools.exactness import SHAPES, ComputedError, StoredError, U

DECAYS = (("inverse-time", None), ("inverse-square", None), ("recurrence", "falling"), ("recurrence", "constant"))


class ClosedStep(NamedTuple):
    """The input of one step; theta and g have `dtype`, m and v are float64, and None but for Adam's direction."""

    arrays: dict
    slot: tuple
    options: dict  # t, sigma and all that amos_ref.exact.closed_form.step takes
    dtype: str


def draw_plan(rng):
    """Draw the options of a schedule."""
    decay, p_t = DECAYS[rng.integers(len(DECAYS))]
    alpha_0 = 2.0 ** -rng.uniform(0.05, 14)
    horizon = {"half_life": 2.0 ** rng.uniform(-2, 30)} if rng.random() < 0.5 else {"p_0": 2.0 ** -rng.uniform(0, 12)}
    return dict(alpha_0=alpha_0, decay=decay, p_t=p_t, q=2.0 ** rng.uniform(-0.9, 4), **horizon)


def draw(rng):
    """Draw a step of any dtype, scale, slot, direction and schedule; t reaches 2^40."""
    dtype = str(rng.choice(list(DTYPES)))
    shape, slot = SHAPES[rng.integers(len(SHAPES))]
    low, high = EXPONENTS[dtype]
    scale = int(np.clip(rng.choice([0, rng.integers(low, high + 1)]), low + 8, high - 8))
    direction = str(rng.choice(["gradient", "sign", "adam"]))
    arrays = dict(theta=numbers(rng, shape, dtype, spread=6), g=numbers(rng, shape, dtype, middle=scale, spread=6))
    options = dict(draw_plan(rng), t=int(2 ** rng.uniform(0, 40)) - 1, sigma=2.0 ** rng.uniform(-6, 3))
    options |= dict(direction=direction, epsilon=float(rng.choice([2.0**-125, 2.0**-4])))
    if direction == "adam":
        arrays["m"] = numbers(rng, shape, "float64", middle=scale, spread=4)
        arrays["v"] = numbers(rng, shape, "float64", middle=2 * scale, spread=4, signed=False)
        betas = {name: 1 - 2.0 ** -rng.uniform(0.2, 12) for name in ("beta1", "beta2")}
        options |= betas | dict(adam_epsilon=2.0 ** -rng.uniform(2, 40))
    return ClosedStep(arrays, slot, options, dtype)


def run_page(given):
    """Return the answer of the page in float64."""
    o, wide = given.options, {name: a.astype(np.float64) for name, a in given.arrays.items()}
    shrink = closed_form.Schedule(**plan_of(o)).shrink(o["t"])
    u, moments = spec.clip(wide["g"], np.inf if o.get("clip_value") is None else o["clip_value"]), {}
    with np.errstate(all="ignore"):
        if o["direction"] == "sign":
            u = np.asarray(np.sign(u))
        elif o["direction"] == "adam":
            direction = Adam.after(o["t"] + 1, *(o[name] for name in ("beta1", "beta2", "adam_epsilon")))
            u, moments["m"], moments["v"] = map(np.asarray, adam(u, wide["m"], wide["v"], *direction))
        rest = (o["sigma"], given.slot, shrink, o["alpha_0"], o["q"], o["epsilon"])
        return closed_form.step(wide["theta"], u, *rest) | moments | {"shrink": np.asarray(shrink)}


def bound_errors(given, got):
    """Return the magnitude in whose ulps each error counts, and the largest error that is allowed (docs/bits.md).

    m, delta and theta are sums that may cancel, so they are measured by their largest term, and u by what it would be
    if m were its largest term.
    """
    o, theta = given.options, abs(given.arrays["theta"].astype(np.float64))
    chi = np.inf if o.get("clip_value") is None else o["clip_value"]
    n = got["u"].size // max(got["u2"].size, 1)
    k = allowed_ulps(o["decay"], float(closed_form.Schedule(**plan_of(o)).s(o["t"])))
    size, most, off = {"shrink": got["shrink"]}, {"shrink": k["shrink"] * got["shrink"]}, np.zeros(got["u"].shape)
    if o["direction"] == "adam":
        g, old = abs(spec.clip(given.arrays["g"].astype(np.float64), chi)), abs(given.arrays["m"])
        size["m"], size["v"] = np.maximum(o["beta1"] * old, (1 - o["beta1"]) * g), got["v"]
        most["m"], most["v"] = 2 * o["beta1"] * old + 4 * (1 - o["beta1"]) * g, 4 * got["v"]
        count = 4 * (o["t"] + 1).bit_length() - 3
        root = np.sqrt(got["v"] / spec.one_minus_power(o["beta2"], o["t"] + 1)) + o["adam_epsilon"]
        each = 1 / spec.one_minus_power(o["beta1"], o["t"] + 1) / root
        off = each * most["m"] + abs(got["u"]) * (count + 1 + (4 + count + 1) / 2 + 1 + 1 + 1)
        size["u"], most["u"] = np.maximum(abs(got["u"]), each * size["m"]), off
    spread = np.sqrt(spec.mean_square(off, given.slot) / np.maximum(got["u2"], o["epsilon"]))
    k_u2 = 2 * spread + min(n - 1, 71) + 2
    k_alpha, k_rho = k["shrink"] + k_u2 / 2 + 5, k["rho"]
    size |= {name: got[name] for name in ("u2", "alpha", "rho")}
    size["u2"] = np.maximum(got["u2"], o["epsilon"]) if o["direction"] == "adam" else got["u2"]
    most |= dict(u2=k_u2 * size["u2"], alpha=k_alpha * got["alpha"], rho=k_rho * got["rho"])
    pull, decay = abs(got["alpha"] * got["u"]), got["rho"] * theta
    size["delta"] = np.maximum(np.maximum(pull, decay), got["alpha"] * size.get("u", 0.0))
    most["delta"] = (k_alpha + 2) * pull + got["alpha"] * off + (k_rho + 2) * decay
    size["theta"] = np.maximum(theta, size["delta"])
    most["theta"] = most["delta"] + abs(got["theta"])
    # Second-order terms are below a millionth; a number below the normal ones may lose a subnormal unit each time.
    return size, {name: 1.000001 * U * x + 16 * 2.0**-1074 for name, x in most.items()}


def measure_computed(given, got):
    """Return ``{quantity: (errors in ulps, errors / bounds)}`` of the page's float64 numbers."""
    real, (size, most) = enclose(given), bound_errors(given, got)
    out = {}
    for name, at in size.items():
        error = exact.ulp_error(got[name], real[name], "float64", at=at)
        out[name] = error, error * np.spacing(np.maximum(at, 2.0**-1022)) / most[name]
    return out


def measure_stored(given, got):
    """Return ``{(quantity, dtype): StoredError}`` for theta in a dtype narrower than float64."""
    if given.dtype == "float64":
        return {}
    with np.errstate(all="ignore"):
        kept = np.asarray(spec.round_to(np.asarray(got["theta"]), DTYPES[given.dtype]))
    right = exact.closed_form.step(**given.arrays, slot_shape=given.slot, dtype=given.dtype, **given.options)["theta"]
    error = exact.ulp_error(kept, enclose(given)["theta"], given.dtype)
    return {("theta", given.dtype): StoredError(kept.size, int(np.sum(kept == right)), error.max(initial=0.0))}


def enclose(given):
    return exact.closed_form.enclose(**given.arrays, slot_shape=given.slot, **given.options)


def plan_of(options):
    """Return the options of the schedule among those of a step."""
    return {name: options.get(name) for name in PLAN}


def survey_schedules(count, seed=9344):
    """Return ``{(decay, quantity): ComputedError}`` of schedules at random steps up to 10^12."""
    rng, found = np.random.default_rng(seed), {}
    for _ in range(count):
        options, t = draw_plan(rng), int(10 ** rng.uniform(0, 12)) - 1
        real, page = exact.closed_form.enclose_schedule(t, **options), closed_form.Schedule(**options)
        allowed = allowed_ulps(options["decay"], float(page.s(t)))
        got = dict(S=page.s(t), shrink=page.shrink(t), alpha=page.alpha(t), rho=page.rho(t))
        for name, x in got.items():
            error = float(exact.ulp_error(x, real[name], "float64"))
            key = f"{options['decay']}{', constant' * (options['p_t'] == 'constant')}", name
            old = found.get(key, ComputedError(0.0, 0.0, 0, 0))
            ratio = max(old.ratio, error / allowed[name])
            found[key] = ComputedError(max(old.error, error), ratio, old.far + (error > 4), old.count + 1)
    return found


def main(steps):
    exactness.print_survey(*exactness.survey(steps, of=sys.modules[__name__]))
    print("\n| decay | number | greatest error, ulp | greatest error / bound | beyond 4 ulp |\n|---|---|---|---|---|")
    for (decay, name), found in sorted(survey_schedules(steps).items()):
        print(f"| {decay} | {name} | {found.error:.2f} | {found.ratio:.2f} | {found.far:,} of {found.count:,} |")


if __name__ == "__main__":
    main(int(sys.argv[1]))
