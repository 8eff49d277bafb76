"""The closed form's oracle against fractions with long roots, and what it refuses."""

from fractions import Fraction

import flint
import numpy as np
import pytest
from flint import fmpq
from helpers import naive
from helpers.strategies import numbers, seeds, shapes, slots
from hypothesis import given
from hypothesis import strategies as st

from amos_ref import closed_form as page
from amos_ref import errors, exact, spec
from amos_ref.exact import closed_form
from amos_ref.optimizers import directions
from tools import closed_exactness, exactness

PLAN = dict(alpha_0=0.3, half_life=7.0, q=2.5)
ADAM = dict(beta1=0.8, beta2=0.95, adam_epsilon=2.0**-6)


def fractions(a):
    return {i: Fraction(float(x)) for i, x in np.ndenumerate(np.asarray(a))}


def check(found, other):
    """Enclosed numbers hold the others, which have 60 digits."""
    for name, reals in other.items():
        for index, x in reals.items():
            with flint.ctx.workprec(300):
                real = fmpq(x.numerator, x.denominator)
                assert abs(real - found[name][index]) < fmpq(1, 10**45) * (1 + abs(real)), f"{name}{list(index)}"


@given(
    shapes(4, 3).flatmap(lambda s: st.tuples(st.just(s), slots(s))),
    st.integers(0, 40),
    seeds,
    st.sampled_from(["gradient", "sign", "adam"]),
    st.sampled_from([dict(half_life=7.3), dict(p_0=0.4), dict(p_0=0.4, decay="inverse-square")]),
    st.sampled_from([2.0**-125, 0.25]),
)
def test_fractions_with_long_roots_agree(shape_slot, t, seed, direction, plan, epsilon):
    (shape, slot), rng = shape_slot, np.random.default_rng(seed)
    theta, g, m, v = (numbers(rng, shape, "float64", middle=0, signed=k < 3) for k in range(4))
    options = dict(sigma=0.7, alpha_0=0.3, q=2.5, epsilon=epsilon) | plan
    moments = dict(m=m, v=v) if direction == "adam" else {}
    found = closed_form.enclose(theta, g, **moments, t=t, slot_shape=slot, direction=direction, **options, **ADAM)
    rational = {name: x if isinstance(x, str) else Fraction(x) for name, x in options.items()}
    u = {i: {"sign": (x > 0) - (x < 0)}.get(direction, x) for i, x in fractions(g).items()}
    u, other = {i: Fraction(x) for i, x in u.items()}, {}
    if direction == "adam":
        betas = {name: Fraction(x) for name, x in ADAM.items()}
        other["m"], other["v"], u = naive.adam(fractions(g), fractions(m), fractions(v), t + 1, **betas)
    check(found, other | {"u": u} | naive.closed_step(fractions(theta), u, shape, slot, t, **rational))


def test_a_trajectory_rounds_nothing_on_its_way_and_counts_on_over_a_gap():
    theta, grads = np.array([3.0, -4.0]), [np.array([0.6, -0.8]), None, np.array([0.5, 0.5])]
    found = closed_form.trajectory(theta, grads, np.zeros(2), np.zeros(2), direction="adam", **PLAN, **ADAM)
    assert found[1] is None
    now = dict(theta=fractions(theta), m=fractions(np.zeros(2)), v=fractions(np.zeros(2)))
    betas = {name: Fraction(x) for name, x in ADAM.items()}
    plan = {name: Fraction(x) for name, x in PLAN.items()} | dict(sigma=naive.root(Fraction(25, 2)))
    for t, (g, after) in enumerate(zip(grads, found, strict=True)):
        if g is not None:
            m, v, u = naive.adam(fractions(g), now["m"], now["v"], t + 1, **betas)
            step = naive.closed_step(now["theta"], u, (2,), (), t, **plan, epsilon=Fraction(1, 2**125))
            now = dict(theta=step["theta"], m=m, v=v)
            for name, reals in now.items():
                assert all(after[name][i] == float(x) for i, x in reals.items()), (t, name)


def test_a_trajectory_rounds_what_is_stored():
    theta, grads = np.float32([0.3, -0.7]), [np.float32([0.6, -0.8]), np.float32([0.5, 0.1])]
    options = dict(sigma=0.5, direction="adam", **PLAN, **ADAM)
    zeros, before = np.zeros(2), dict(theta=theta, m=np.zeros(2), v=np.zeros(2))
    found = closed_form.trajectory(theta, grads, zeros, zeros, stored=("float32", "float64"), **options)
    for t, (g, after) in enumerate(zip(grads, found, strict=True)):
        wide = closed_form.step(**before, g=g, t=t, **options)
        assert all(np.array_equal(after[name], wide[name]) for name in wide)
        narrow = closed_form.step(**before, g=g, t=t, dtype="float32", **options)["theta"]
        before = dict(theta=narrow, m=wide["m"], v=wide["v"])
    unrounded = closed_form.trajectory(theta, grads, zeros, zeros, **options)
    assert not np.array_equal(found[1]["theta"], unrounded[1]["theta"])


@pytest.mark.parametrize(
    ("theta", "sigma"),
    [
        (np.zeros((2, 3)), 0.5),
        (np.ones(3), 0.5),
        (np.zeros((0, 3)), 0.5),
        (np.array(1.0), 0.5),
        (np.array(-3.0), 3.0),
        (np.full(3, 0.1), 0.1),
        (np.array([0.0, 1.0]), 0.7071067811865476),
        (np.full(3, -1.0), 1.0),
    ],
)
def test_sigma_of_the_initial_entries(theta, sigma):
    assert closed_form.initial_sigma(theta) == sigma


def test_clipping_comes_before_the_direction():
    options = dict(t=3, sigma=0.5, clip_value=2.0, **PLAN)
    clipped = closed_form.step([0.5, 1.0], [np.inf, -1.0], **options)
    assert clipped["g"].tolist() == clipped["u"].tolist() == [2.0, -1.0]
    adam = dict(m=[0.0, 0.0], v=[0.0, 0.0], direction="adam", **ADAM)
    assert closed_form.step([0.5, 1.0], [3.0, -1.0], **adam, **options)["v"][0] == (1 - Fraction(0.95)) * 4


def test_adam_at_a_count_whose_powers_are_balls():
    after = closed_form.step(0.5, 1.25, 0.5, 0.25, t=10**9, direction="adam", sigma=0.5, **PLAN, **ADAM)
    m, v = Fraction(0.8) / 2 + (1 - Fraction(0.8)) * Fraction(5, 4), (1 - Fraction(0.95)) * Fraction(25, 16)
    assert after["u"] == float(m / (naive.root(v + Fraction(0.95) / 4) + Fraction(1, 64)))


# the page, and wrong pages


def survey(count):
    return exactness.survey(count, of=closed_exactness)


def test_the_page_is_within_its_bounds_and_its_stored_numbers_are_right():
    computed, kept = survey(120)
    assert set(computed) == {"shrink", "m", "v", "u", "u2", "alpha", "rho", "delta", "theta"}
    for name, found in computed.items():
        assert found.ratio <= 1, name
    assert {name for name, _ in kept} == {"theta"}
    assert sum(found.count for found in kept.values()) > 2000
    for found in kept.values():
        assert found.right >= found.count * 0.9999
        assert found.error < 1


def test_schedules_are_within_their_bounds():
    found = closed_exactness.survey_schedules(200)
    assert len(found) == 16
    assert max(one.ratio for one in found.values()) <= 1


WRONG = [
    (page, "weight_decay", lambda alpha_0, q, shrink: alpha_0 * alpha_0 / q * shrink, "rho"),
    (page, "scale_ratio", lambda sigma, u2, epsilon: sigma / np.sqrt(u2 + epsilon), "alpha"),
    (page, "step_size", lambda alpha_0, ratio, shrink: alpha_0 * ratio * np.sqrt(shrink), "alpha"),
    (page, "shrink_inverse_time", lambda x: np.float32(1.0 / (1.0 + x)), "shrink"),
    (page, "shrink_inverse_square", lambda x: 1.0 / (1.0 + x * x), "shrink"),
    (spec, "mean_square", lambda u, slot, right=spec.mean_square: (1 + 2.0**-40) * right(u, slot), "u2"),
    (directions, "one_minus_power", lambda beta, n: 1.0 - beta**n, "u"),
]


@pytest.mark.parametrize(("module", "stage", "wrong", "seen"), WRONG, ids=[w[1] for w in WRONG])
def test_a_wrong_page_is_seen(module, stage, wrong, seen, monkeypatch):
    monkeypatch.setattr(module, stage, wrong)
    computed, _ = survey(60 if stage == "one_minus_power" else 25)
    assert computed[seen].ratio > 1
    assert computed["v"].ratio <= 1


def test_a_coefficient_of_the_recurrence_is_seen(monkeypatch):
    monkeypatch.setattr(page, "ABEL", (*page.ABEL[:-2], -1 / 6, 0.0))
    found = closed_exactness.survey_schedules(100)
    assert found["recurrence", "shrink"].ratio > 1
    assert found["inverse-time", "shrink"].ratio <= 1


# bad input


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (dict(g=np.ones(2)), errors.ShapeError, "u has shape"),
        (dict(slot_shape=(2,)), errors.ShapeError, "slot's shape"),
        (dict(theta=np.array([1, np.nan, 1])), errors.NonFiniteError, r"theta\[1\] is nan"),
        (dict(dtype="float8"), errors.DtypeError, "float8"),
        (dict(t=-1), errors.HyperParameterError, "t is -1"),
        (dict(alpha_0=1.0), errors.HyperParameterError, "alpha_0 is 1.0"),
        (dict(sigma=0.0), errors.RuleError, "sigma"),
        (dict(direction="adam"), errors.HyperParameterError, "m and v belong to 'adam'"),
        (dict(m=np.ones(3), v=np.ones(3)), errors.HyperParameterError, "direction is 'gradient'"),
        (dict(direction=lambda name, g, t: g), errors.HyperParameterError, "no function is taken"),
        (dict(beta2=1.0), errors.HyperParameterError, "beta2 is 1.0"),
    ],
)
def test_bad_input_is_named(change, error, text):
    good = dict(theta=np.ones(3), g=np.ones(3), t=1, sigma=0.5, **PLAN)
    with pytest.raises(error, match=text):
        exact.closed_form.step(**good | change)
