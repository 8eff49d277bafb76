"""How exact is the page? ``python tools/exactness.py 20000`` compares so many random steps with the oracle."""

import pathlib
import sys
from typing import NamedTuple

import numpy as np

from amos_ref import exact, spec

sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))  # pytest does the same, a plain run does not
from helpers.strategies import DTYPES, EXPONENTS, numbers

U = 2.0**-53
SHAPES = (((), ()), ((9,), ()), ((9,), (9,)), ((6, 5), ()), ((6, 5), (6, 1)), ((4, 6, 3), (1, 6, 1)), ((131,), ()))
SCALARS = ("g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "b")


class Step(NamedTuple):
    """The input of one step; theta and g have `dtype`, v, b and m have `state_dtype`."""

    arrays: dict
    t: int
    hyper: dict
    dtype: str
    state_dtype: str


class ComputedError(NamedTuple):
    """Of numbers computed in float64: the greatest error in ulps and in bounds, and how many are off by over 4 ulps."""

    error: float
    ratio: float
    far: int
    count: int


class StoredError(NamedTuple):
    """Of stored numbers: how many there are, how many are correctly rounded, and the greatest error in ulps."""

    count: int
    right: int
    error: float


def draw(rng):
    """Draw a step of any dtype, scale, slot and hyper-parameters; b reaches 2^40, t 2^33, 1 - beta 2^-20."""
    dtype = str(rng.choice(list(DTYPES)))
    state_dtype = str(rng.choice(["float64", dtype]))
    shape, slot = SHAPES[rng.integers(len(SHAPES))]
    low, high = EXPONENTS[dtype]
    scale = int(np.clip(rng.choice([0, rng.integers(low, high + 1)]), low + 8, high - 8))
    has_m = rng.random() < 0.5
    arrays = dict(
        theta=numbers(rng, shape, dtype, spread=6),
        g=numbers(rng, shape, dtype, middle=scale, spread=6),
        v=numbers(rng, slot, state_dtype, middle=2 * scale if rng.random() < 0.7 else 0, spread=4, signed=False),
        b=numbers(rng, slot, state_dtype, middle=rng.integers(-20, 41), spread=4, signed=False),
        m=numbers(rng, shape, state_dtype, middle=rng.integers(-12, 2), spread=6) if has_m else None,
    )
    hyper = dict(
        xi=2.0 ** -rng.uniform(0.05, 12),
        eta=2.0 ** rng.uniform(-6, 3),
        beta=1 - 2.0 ** -rng.uniform(0.2, 20),
        momentum=1 - 2.0 ** -rng.uniform(0.2, 6) if has_m else None,
        clip_value=float(np.ldexp(rng.uniform(1, 2), scale)) if rng.random() < 0.3 else None,
        extra_l2=float(rng.choice([0.0, 2.0 ** -rng.uniform(1, 12)])),
        c_coef=rng.uniform(0.05, 2),
        d_coef=rng.uniform(0.05, 2),
        epsilon=float(rng.choice([2.0**-125, 2.0**-4, 1e-8])),
    )
    return Step(arrays, int(2 ** rng.uniform(0, 33)), hyper, dtype, state_dtype)


def run_page(given):
    """Return the answer of the page in float64."""
    wide = {name: None if a is None else a.astype(np.float64) for name, a in given.arrays.items()}
    with np.errstate(all="ignore"):
        return spec.step(**wide, q=spec.one_minus_power(given.hyper["beta"], given.t), **given.hyper)


def count_roundings(given):
    """Return how many roundings, at most, add up to the relative error of each scalar (see docs/bits.md)."""
    n, k = given.arrays["theta"].size // max(given.arrays["v"].size, 1), {}
    k["g2"] = 1 + min(n - 1, 64 + 7) + 1
    k["v"] = k["g2"] + 3
    k["r"] = (4 * given.t.bit_length() - 3) + k["v"] + 1
    k["c"] = (3 + 1) / 2 + 2
    k["gamma"] = (k["c"] + 2) + (k["r"] + k["g2"] + 1) + 1
    k["d"] = (1 / 2 + 3 + 1) + 1
    k["alpha"] = k["d"] + 1 + (k["r"] / 2 + 1) + 1 + 1
    k["rho"] = k["d"] + (k["gamma"] + 1) + 1
    k["b"] = k["gamma"] + 3
    return k


def bound_errors(given, got):
    """Return the magnitude in whose ulps each error counts, and the largest error that is allowed.

    delta, m and theta are sums that may cancel, so they are measured by their largest term.
    """
    k, mu = count_roundings(given), given.hyper["momentum"]
    theta, m = (abs(given.arrays[name].astype(np.float64)) if name == "theta" or mu else 0.0 for name in ("theta", "m"))
    pull, decay = abs(got["alpha"] * got["g"]), got["rho"] * theta
    size = {name: got[name] for name in SCALARS} | {"delta": np.maximum(pull, decay)}
    most = {name: k[name] * got[name] for name in SCALARS}
    most["delta"] = (k["alpha"] + 2) * pull + (k["rho"] + 2) * decay
    last = "delta"
    if mu:
        last, size["m"] = "m", np.maximum(mu * m, (1 - mu) * size["delta"])
        most["m"] = 2 * mu * m + (1 - mu) * (most["delta"] + 3 * abs(got["delta"]))
    size["theta"] = np.maximum(theta, size[last])
    most["theta"] = most[last] + abs(got["theta"])
    # Second-order terms are below a millionth; a number below the normal ones may lose a subnormal unit each time.
    return size, {name: 1.000001 * U * x + 16 * 2.0**-1074 for name, x in most.items()}


def measure_computed(given, got):
    """Return ``{quantity: (errors in ulps, errors / bounds)}`` of the page's float64 numbers."""
    real, (size, most) = exact.enclose(**given.arrays, t=given.t, **given.hyper), bound_errors(given, got)
    out = {}
    for name, at in size.items():
        error = exact.ulp_error(got[name], real[name], "float64", at=at)
        out[name] = error, error * np.spacing(np.maximum(at, 2.0**-1022)) / most[name]
    return out


def measure_stored(given, got):
    """Return ``{(quantity, dtype): StoredError}`` for what the step writes in a dtype narrower than float64."""
    real, out = exact.enclose(**given.arrays, t=given.t, **given.hyper), {}
    for name in ("theta", "v", "b", "m"):
        dtype = given.dtype if name == "theta" else given.state_dtype
        if got[name] is not None and dtype != "float64":
            with np.errstate(all="ignore"):
                kept = np.asarray(spec.round_to(np.asarray(got[name]), DTYPES[dtype]))
            right = exact.step(**given.arrays, t=given.t, dtype=dtype, **given.hyper)[name]
            error = exact.ulp_error(kept, real[name], dtype)
            out[name, dtype] = StoredError(kept.size, int(np.sum(kept == right)), error.max(initial=0.0))
    return out


def survey(steps, seed=2210_11693, of=None):
    """Return both measures over random steps: ``{quantity: ComputedError}``, ``{(quantity, dtype): StoredError}``.

    `of` is the module that draws and measures: this one, or that of the closed form.
    """
    rng, computed, kept, of = np.random.default_rng(seed), {}, {}, of or sys.modules[__name__]
    for _ in range(steps):
        given = of.draw(rng)
        got = of.run_page(given)
        for name, (error, ratio) in of.measure_computed(given, got).items():
            old = computed.get(name, ComputedError(0.0, 0.0, 0, 0))
            far = old.far + int(np.sum(error > 4))
            computed[name] = ComputedError(
                max(old.error, error.max()), max(old.ratio, ratio.max()), far, old.count + error.size
            )
        for key, new in of.measure_stored(given, got).items():
            old = kept.get(key, StoredError(0, 0, 0.0))
            kept[key] = StoredError(old.count + new.count, old.right + new.right, max(old.error, new.error))
    return computed, kept


def print_survey(computed, kept):
    """Print what :func:`survey` returned, as tables."""
    print("| quantity | greatest error, ulp | greatest error / bound | beyond 4 ulp |\n|---|---|---|---|")
    for name, found in computed.items():
        print(f"| {name} | {found.error:.2f} | {found.ratio:.2f} | {found.far:,} of {found.count:,} |")
    print("\n| stored | numbers | correctly rounded | greatest error, ulp |\n|---|---|---|---|")
    for (name, dtype), found in sorted(kept.items()):
        print(f"| {name} in {dtype} | {found.count:,} | {100 * found.right / found.count:.4f} % | {found.error:.4f} |")


if __name__ == "__main__":
    print_survey(*survey(int(sys.argv[1])))
