"""The page against exact arithmetic, convention by convention, and broken pages that the same checks catch."""

import ast
import inspect
import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from helpers import naive
from helpers import strategies as own
from hypothesis import given, note
from hypothesis import strategies as st

from amos_ref import spec

UNIT = Fraction(1, 2**53)
EPSILON = 2.0**-125
HYPER = dict(
    xi=0.3, eta=0.6, beta=0.75, momentum=None, clip_value=None, extra_l2=0.125, c_coef=0.3, d_coef=0.2, epsilon=EPSILON
)


class Case(NamedTuple):
    """One step from an injected state; arrays are float64."""

    theta: np.ndarray
    g: np.ndarray
    v: np.ndarray
    b: np.ndarray
    m: np.ndarray | None
    t: int
    hyper: dict

    def page(self):
        q = spec.one_minus_power(self.hyper["beta"], self.t)
        with np.errstate(all="ignore"):
            return spec.step(self.theta, self.g, self.v, self.b, self.m, q=q, **self.hyper)

    def exact(self):
        inputs = (None if a is None else _fractions(a) for a in (self.theta, self.g, self.v, self.b, self.m))
        hyper = {name: None if x is None else Fraction(x) for name, x in self.hyper.items()}
        return naive.step(*inputs, self.g.shape, self.v.shape, self.t, **hyper)


def _fractions(a):
    return {i: Fraction(float(a[i])) for i in np.ndindex(a.shape)}


def make_case(seed, shape, slot_shape, *, t=1, **changes):
    """A case of random arrays; `changes` are hyper-parameters, or numbers to fill whole arrays with."""
    rng = np.random.default_rng(seed)
    v, b = own.state_arrays(rng, slot_shape, "float64")
    theta, g, m = (own.numbers(rng, shape, "float64", middle=k, spread=2) for k in (0, 1, -2))
    hyper = {**HYPER, **{name: x for name, x in changes.items() if name in HYPER}}
    case = Case(theta, g, v, b, None if hyper["momentum"] is None else m, t, hyper)
    return case._replace(**{k: np.full_like(getattr(case, k), x) for k, x in changes.items() if k not in HYPER})


def roundings(case):
    """How many unit roundings u = 2^-53 any intermediate can be off by, relative to its terms' magnitudes.

    n numbers in a slot, L bits in t. A sum of n positive numbers in any order has n - 1 roundings on its
    longest path, a product or quotient adds its factors' roundings and 1, a sum of positive terms keeps the
    larger count and adds 1, a square root halves and adds 1. So:

    q       4L        (one_minus_power, below)           g2     1 + (n - 1) + 1 = n + 1
    v       n + 1 + 1 (for 1 - beta) + 2 = n + 4         r      n + 5 + 4L
    c       sqrt(xi), two products, +1: 4 -> 3; 1/: 4    xi*xi  1
    gamma   4 + 1 + 1 + (r*g2: 2n + 7 + 4L) + 1 = 2n + 14 + 4L
    d       sqrt(xi*eta) 2, two products, + 1, 1/: 6     alpha  under 2n + 14 + 4L
    rho     6 + (gamma + 1) + 1 = 2n + 22 + 4L           b      2n + 17 + 4L
    delta   of |alpha g| + |rho theta|: 2n + 24 + 4L     m      3 more; theta 1 more
    """
    n = case.g.size // max(case.v.size, 1)
    return 2 * n + 28 + 4 * case.t.bit_length()


def excess(case):
    """The page's worst error in units of its bound: at most 1 if the page is right."""
    page, exact = case.page(), case.exact()
    k = roundings(case) * UNIT
    bound = k / (1 - k)
    worst = Fraction(0)
    for name, values in exact.items():
        for i, ref in values.items():
            got = Fraction(float(np.asarray(page[name])[i]))
            size = _magnitude(case, exact, name, i)
            error = abs(got - ref)
            worst = max(worst, error / (bound * size) if size else Fraction(int(error != 0)))
    return worst


def _magnitude(case, exact, name, i):
    """What the bound is relative to: the value, or for sums of either sign the sum of their terms' sizes."""
    if name not in ("delta", "m", "theta"):
        return abs(exact[name][i])
    s = naive.slot_of(i, case.v.shape)
    theta = abs(Fraction(float(case.theta[i])))
    size = abs(exact["alpha"][s] * exact["g"][i]) + exact["rho"][s] * theta
    if case.m is not None and name != "delta":
        size += abs(Fraction(float(case.m[i])))
    return size + theta if name == "theta" else size


DESIGNED = {
    "tensor slot": make_case(1, (3, 4), ()),
    "row slots": make_case(2, (3, 4), (3, 1), t=7, beta=0.999),
    "column slots": make_case(3, (3, 4), (4,), t=2),
    "mixed slots": make_case(4, (2, 3, 2), (2, 1, 2), t=5),
    "element slots": make_case(5, (2, 3), (2, 3), t=3),
    "0-d": make_case(6, (), (), t=4),
    "v near epsilon": make_case(7, (2, 3), (2, 1), v=0.0, g=0.4, epsilon=2.0**-4),
    "v below epsilon": make_case(8, (2, 3), (), v=0.0, g=0.01, epsilon=2.0**-4),
    "large b": make_case(9, (2, 3), (), b=16.0, xi=0.5),
    "clipped": make_case(10, (5,), (), clip_value=0.5),
    "momentum": make_case(11, (2, 3), (1, 3), momentum=0.9, t=6),
    "momentum, clipped": make_case(12, (2, 3), (3,), momentum=0.3, clip_value=1.5, b=3.0),
    "theta 0": make_case(13, (4,), (), theta=0.0),
    "g 0": make_case(14, (4,), (), g=0.0, t=9),
    "xi 0": make_case(15, (4,), (), xi=0.0),
}


@pytest.mark.parametrize("case", DESIGNED.values(), ids=DESIGNED)
def test_page_is_exact_to_its_bound(case):
    assert excess(case) <= 1


@given(st.data())
def test_page_is_exact_to_its_bound_anywhere(data):
    shape = data.draw(own.shapes(max_side=3, max_dims=3), label="shape")
    slot_shape = data.draw(own.slots(shape), label="slot")
    t = data.draw(st.integers(1, 20), label="t")
    case = make_case(data.draw(own.seeds, label="seed"), shape, slot_shape, t=t, **data.draw(own.hyper_parameters()))
    note(f"hyper {case.hyper}")
    assert excess(case) <= 1


# Wrong pages, each a published or a likely mistake; the check above must see every one.


def decide_with(*, c_new=False, d_new=False):
    def decide(g2, v, b, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
        v = spec.second_moment(v, g2, beta)
        r = spec.reciprocal(v, q, epsilon)
        old_c = spec.decay_factor_c(b, xi, c_coef)
        new_b = spec.grown(b, spec.growth(old_c, xi, r, g2))
        c = spec.decay_factor_c(new_b if c_new else b, xi, c_coef)
        gamma = spec.growth(c, xi, r, g2)
        d = spec.decay_factor_d(new_b if d_new else b, xi, eta, d_coef)
        rho = spec.weight_decay(d, gamma, extra_l2)
        return v, r, c, gamma, d, spec.step_size(d, xi, eta, r), rho, spec.grown(b, gamma)

    return decide


_step, _mean_square, _one_minus_power = spec.step, spec.mean_square, spec.one_minus_power


def step_clipping_last(theta, g, v, b, m, *, clip_value, **rates):
    after = _step(theta, g, v, b, m, clip_value=None, **rates)
    chi = np.inf if clip_value is None else clip_value
    delta = spec.change(after["alpha"], spec.clip(g, chi), after["rho"], theta)
    return {**after, "delta": delta, "theta": theta + delta} if m is None else after


def step_without_decay_in_momentum(theta, g, v, b, m, **rates):
    after = _step(theta, g, v, b, m, **rates)
    if m is None:
        return after
    m = spec.average(m, -(after["alpha"] * after["g"]), rates["momentum"])
    return {**after, "m": m, "theta": theta + m - after["rho"] * theta}


def clip_by_norm(g, chi):
    norm = np.sqrt(np.sum(g * g))
    return g * (chi / norm) if norm > chi else g


BROKEN = {
    "new b in c": ("decide", decide_with(c_new=True)),
    "new b in d": ("decide", decide_with(d_new=True)),
    "new b in both": ("decide", decide_with(c_new=True, d_new=True)),
    "v + epsilon": ("reciprocal", lambda v, q, epsilon: q / (v + epsilon)),
    "no epsilon": ("reciprocal", lambda v, q, epsilon: q / v if np.all(v) else q / np.maximum(v, epsilon)),
    "no bias correction": ("one_minus_power", lambda beta, t: 1.0),
    "t from 0": ("one_minus_power", lambda beta, t: _one_minus_power(beta, t - 1) if t > 1 else 1.0),
    "t one late": ("one_minus_power", lambda beta, t: _one_minus_power(beta, t + 1)),
    "sum for mean": ("mean_square", lambda g, slot: _mean_square(g, slot) * (g.size / math.prod(slot))),
    "n - 1 for n": ("mean_square", lambda g, slot: _mean_square(g, slot) * g.size / max(g.size - math.prod(slot), 1)),
    "one slot whatever it says": ("mean_square", lambda g, slot: np.full(slot, np.mean(g * g))),
    "extra_l2 of the wrong sign": ("weight_decay", lambda d, gamma, extra_l2: d * (gamma / 2 - extra_l2)),
    "half of extra_l2": ("weight_decay", lambda d, gamma, extra_l2: d * (gamma + extra_l2) / 2),
    "extra_l2 outside d": ("weight_decay", lambda d, gamma, extra_l2: d * gamma / 2 + extra_l2),
    "gamma not halved": ("weight_decay", lambda d, gamma, extra_l2: d * (gamma + extra_l2)),
    "xi for sqrt(xi) in c": ("decay_factor_c", lambda b, xi, c_coef: 1 / np.sqrt(1 + c_coef * xi * b)),
    "no root in c": ("decay_factor_c", lambda b, xi, c_coef: 1 / (1 + c_coef * np.sqrt(xi) * b)),
    "no eta in d": ("decay_factor_d", lambda b, xi, eta, d_coef: 1 / (1 + d_coef * np.sqrt(xi) * b)),
    "root in d": ("decay_factor_d", lambda b, xi, eta, d_coef: 1 / np.sqrt(1 + d_coef * np.sqrt(xi * eta) * b)),
    "xi for xi^2": ("growth", lambda c, xi, r, g2: c * xi * r * g2),
    "no c in gamma": ("growth", lambda c, xi, r, g2: xi * xi * r * g2),
    "eta in gamma": ("growth", lambda c, xi, r, g2: c * xi * xi * r * g2 * 0.6),
    "r for sqrt(r)": ("step_size", lambda d, xi, eta, r: d * xi * eta * r),
    "no eta": ("step_size", lambda d, xi, eta, r: d * xi * np.sqrt(r)),
    "b + gamma": ("grown", lambda b, gamma: b + gamma),
    "beta swapped": ("second_moment", lambda v, g2, beta: (1 - beta) * v + beta * g2),
    "decay of the wrong sign": ("change", lambda alpha, g, rho, theta: -(alpha * g - rho * theta)),
    "momentum debiased": ("average", lambda m, delta, mu: (mu * m + (1 - mu) * delta) / (1 - mu)),
    "momentum not averaged": ("average", lambda m, delta, mu: mu * m + delta),
    "decay outside momentum": ("step", step_without_decay_in_momentum),
    "clip last": ("step", step_clipping_last),
    "clip by norm": ("clip", clip_by_norm),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pages_are_caught(monkeypatch, name):
    monkeypatch.setattr(spec, *BROKEN[name])
    # A thousand times the bound: the check does not live off the last bits.
    assert max(excess(case) for case in DESIGNED.values()) > 1000


# single conventions


def test_first_step_moves_by_xi_eta():
    # v_hat = g^2 at t = 1, so that the size of the gradient cancels; t from 0 would divide 0 by 0.
    for g in (3e-5, -0.7, 4e10):
        after = make_case(1, (), (), theta=0.0, g=g, v=0.0, b=0.0).page()
        assert after["delta"] == pytest.approx(-np.sign(g) * 0.3 * 0.6, rel=1e-15, abs=0)
        assert after["gamma"] == pytest.approx(0.09, rel=1e-15, abs=0)


def test_clip_is_elementwise_and_lets_nan_through():
    g = np.array([-np.inf, -2.0, -0.0, 1.0, 5.0, np.inf, np.nan])
    assert own.bits(spec.clip(g, 1.5)) == own.bits(np.array([-1.5, -1.5, -0.0, 1.0, 1.5, 1.5, np.nan]))
    assert own.bits(spec.clip(g, np.inf)) == own.bits(g)


def test_xi_0_moves_only_v():
    case = make_case(3, (4, 3), (1, 3), xi=0.0, extra_l2=0.0, momentum=0.5)
    after = case._replace(m=np.zeros((4, 3))).page()
    assert np.array_equal(after["theta"], case.theta)
    assert np.array_equal(after["b"], case.b)
    assert not np.array_equal(after["v"], case.v)


def test_zero_gradient_leaves_extra_l2_alone():
    case = make_case(4, (4,), (), g=0.0, v=0.0, b=8.0)
    after = case.page()
    assert after["v"] == after["gamma"] == after["g2"] == 0.0
    assert np.array_equal(after["theta"], case.theta - float(after["d"]) * 0.125 * case.theta)


EMPTY = [((0,), ()), ((0,), (0,)), ((0, 3), (1, 3)), ((3, 0), (3, 1)), ((3, 0), ()), ((2, 0, 3), (1, 1, 3))]


@pytest.mark.parametrize(("shape", "slot"), EMPTY)
def test_empty_slots_have_mean_0(shape, slot):
    after = make_case(5, shape, slot, momentum=0.5, v=1.0).page()
    assert np.array_equal(after["g2"], np.zeros(slot))
    assert np.array_equal(after["v"], np.full(slot, 0.75))
    assert [after[name].shape for name in ("theta", "delta", "m")] == [shape] * 3


def relative_error_of_q(beta, t):
    """In units of its bound: L doublings and at most L additions, 2 roundings each, none of which an error outgrows.

    q(2 - q) turns a relative error e of q into e(1 - q/(2 - q)) <= e; (1 - beta) + beta q has positive terms.
    """
    ref, got = naive.one_minus_power(beta, t), Fraction(spec.one_minus_power(beta, t))
    return abs(got - ref) / (ref * (4 * t.bit_length() * UNIT)) / (1 + Fraction(1, 2**40))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999, 1 - 1e-7, 1 - 1e-12, 1 - 2.0**-53])
@pytest.mark.parametrize("t", [1, 2, 3, 10, 63, 64, 1000, 10**6, 2**31 - 1, 2**31, 2**31 + 1, 10**12])
def test_one_minus_power(beta, t):
    assert relative_error_of_q(beta, t) <= 1


@given(beta=st.floats(0, 1, exclude_max=True), t=st.integers(1, 2**40))
def test_one_minus_power_anywhere(beta, t):
    assert relative_error_of_q(beta, t) <= 1


def test_library_power_misses_the_bound(monkeypatch):
    monkeypatch.setattr(spec, "one_minus_power", lambda beta, t: 1 - beta**t)
    assert max(relative_error_of_q(beta, t) for beta in (0.9, 1 - 1e-12) for t in (3, 10**6)) > 1


# the order of summation

ORDERS = {
    (n,): ((), (1,)) for n in (1, 2, 127, 128, 129, 255, 8191, 8192, 8193, 3 * 8192 + 5, 129 * 8192 + 1)
} | {
    (63, 3): ((3,), (63, 1), ()), (64, 3): ((1, 3),), (65, 3): ((1, 3),),
    (64 * 64 + 1, 2): ((1, 2), ()),
    (2, 8193): ((2, 1),),
    (5, 4, 3): ((1, 4, 1), (5, 1, 3), (4, 3), (5, 4, 1)),
    (70, 3, 130): ((1, 3, 1), (70, 1, 130), (130,)),
    (3, 70, 2, 130): ((3, 1, 2, 1), (1, 70, 1, 130), (1, 1, 2, 1)),
    (1, 66, 1, 3): ((1, 1, 3), (1, 66, 1, 1)),
}  # fmt: skip


def follows_the_order(shape, slot):
    rng = np.random.default_rng(own.size(shape))
    # Of one magnitude, so that every addition rounds and another order shows.
    g = own.numbers(rng, shape, "float64", middle=0, spread=1, zeros=0)
    aligned = (1,) * (len(shape) - len(slot)) + slot
    # Neighbouring axes of one kind are one axis; the same elements in the same order.
    axes = [(k != n, n) for n, k in zip(shape, aligned, strict=True) if n != 1]
    groups = itertools.groupby(axes, key=lambda axis: axis[0])
    merged = [(reduced, math.prod(n for _, n in group)) for reduced, group in groups]
    flat = g.reshape([n for _, n in merged])
    sums = naive.sum_of_squares({i: float(flat[i]) for i in np.ndindex(flat.shape)}, merged)
    count = own.size(shape) // own.size(slot)
    return spec.mean_square(g, slot).reshape(-1).tolist() == [sums[i] / count for i in sorted(sums)]


@pytest.mark.parametrize(("shape", "slot"), [(shape, slot) for shape, slots in ORDERS.items() for slot in slots])
def test_sums_follow_the_defined_order(shape, slot):
    assert follows_the_order(shape, slot)


def sum_at_once(x, axis_runs):
    return x.reshape([n for _, n in axis_runs]).sum(tuple(k for k, (reduced, _) in enumerate(axis_runs) if reduced))


OTHER_ORDERS = {
    "numpy's pairwise sum": ("lanes", lambda x: x.sum(-1), (9, 300), (9, 1)),
    "one after the other": ("lanes", lambda x: spec.in_order(x, -1), (9, 300), (9, 1)),
    "no chunks": ("sum_lanes", lambda x: spec.lanes(x), (5, 8200), (5, 1)),
    "chunks in order": (
        "sum_lanes",
        lambda x: spec.in_order(spec.lanes(spec.split(x, 8192, -1)), -1),
        (5, 20000),
        (5, 1),
    ),
    "numpy's sum of rows": ("sum_rows", lambda x, axis: x.sum(axis), (130, 9), (9,)),
    "no groups of rows": ("sum_rows", lambda x, axis: spec.in_order(x, axis), (130, 9), (9,)),
    "all axes at once": ("fold", sum_at_once, (70, 3, 130), (1, 3, 1)),
}


@pytest.mark.parametrize(("stage", "broken", "shape", "slot"), OTHER_ORDERS.values(), ids=OTHER_ORDERS)
def test_other_orders_of_summation_are_caught(monkeypatch, stage, broken, shape, slot):
    monkeypatch.setattr(spec, stage, broken)
    assert not follows_the_order(shape, slot)


# rounding to half precision


def hard_numbers(name):
    """Every kind of number whose rounding can go wrong: ties and their neighbours, subnormals, the overflow."""
    rng = np.random.default_rng(11)
    patterns = np.arange(0x7C00 if name == "float16" else 0x7F80, dtype=np.uint16)[:-1]
    low = patterns.view(own.DTYPES[name]).astype(np.float64)
    high = (patterns + np.uint16(1)).view(own.DTYPES[name]).astype(np.float64)
    tie = low + (high - low) / 2
    inside = low + (high - low) * rng.random(low.size)
    # Nearer to a tie than float32 can see: rounding through float32 lands on the tie and goes to even.
    traps = [np.nextafter(tie, 0), np.nextafter(tie, np.inf), tie * (1 + 2.0**-40), tie * (1 - 2.0**-40)]
    top = float(high[-1]) + (high[-1] - low[-1]) * np.array([0.5 - 1e-9, 0.5, 0.6, 1.0, 1e30])
    tiny = float(high[0]) * np.array([0.0, 1e-300, 0.25, 0.5, 0.5 + 1e-9])
    x = np.concatenate([a[::9] for a in (low, tie, inside, *traps)] + [top, tiny, [5e-324, 1.7e308]])
    return np.concatenate([x, -x, [np.inf, -np.inf, np.nan]])


def rounds_once(name):
    x = hard_numbers(name)
    with np.errstate(all="ignore"):
        got = spec.round_to(x, own.DTYPES[name])
    ref = np.array([naive.rounded(float(value), name) for value in x])
    wide, real = got.astype(np.float64), ~np.isnan(x)
    return np.array_equal(wide, ref, equal_nan=True) and np.array_equal(np.signbit(wide[real]), np.signbit(ref[real]))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(name):
    assert spec.round_to(np.ones(2), own.DTYPES[name]).dtype == own.DTYPES[name]
    assert rounds_once(name)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_rounding_through_float32_is_caught(monkeypatch, name):
    monkeypatch.setattr(spec, "round_to", lambda x, dtype: x.astype(np.float32).astype(dtype))
    assert not rounds_once(name)


def test_page_is_one_page_of_numpy():
    source = inspect.getsource(spec)
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]
    assert len(source.splitlines()) <= 200
