"""The oracle against other routes to the real numbers, and the page, and wrong versions of it, against the oracle."""

import sys
from decimal import Decimal, localcontext
from fractions import Fraction

import flint
import numpy as np
import pytest
from flint import fmpq
from helpers import naive
from helpers.strategies import hyper_parameters, numbers, seeds, shapes, slots, state_arrays
from hypothesis import given
from hypothesis import strategies as st

from amos_ref import errors, exact, spec
from tools import exactness

HYPER = dict(
    xi=0.3, eta=0.7, beta=0.99, momentum=0.9, clip_value=1.5, extra_l2=0.01, c_coef=0.25, d_coef=0.5, epsilon=2.0**-125
)
PARTS = ("theta", "g", "v", "b", "m")


def arrays(rng, shape=(4, 3), slot=(1, 3), name="float64"):
    theta, g, m = (numbers(rng, shape, name, middle=0) for _ in range(3))
    return dict(zip(PARTS, (theta, g, *state_arrays(rng, slot, name), m), strict=True))


def fractions(a):
    return {i: Fraction(float(x)) for i, x in np.ndenumerate(np.asarray(a))}


# the step


@given(hyper_parameters(), shapes(4, 3).flatmap(lambda s: st.tuples(st.just(s), slots(s))), st.integers(1, 40), seeds)
def test_fractions_with_long_roots_agree(hyper, shape_slot, t, seed):
    given_arrays = arrays(np.random.default_rng(seed), *shape_slot)
    found = exact.enclose(**given_arrays, t=t, **hyper)
    rational = {name: Fraction(x) if x is not None else None for name, x in hyper.items()}
    other = naive.step(*map(fractions, given_arrays.values()), *shape_slot, t, **rational)
    for name, reals in found.items():
        for index, x in np.ndenumerate(reals):
            real = fmpq(other[name][index].numerator, other[name][index].denominator)
            with flint.ctx.workprec(300):
                assert abs(real - x) < fmpq(1, 10**45) * (1 + abs(real)), f"{name}{list(index)}"


def test_a_hundred_decimal_digits_agree():
    """One number, and t so large that beta^t is no rational any more but a ball."""
    with localcontext() as context:
        context.prec = 100
        h = {name: Decimal(x) for name, x in HYPER.items()}
        theta, g, v, b, m, t = (*map(Decimal, ("0.5", "1.25", "0.75", "3", "0.125")), 10**6)
        v = h["beta"] * v + (1 - h["beta"]) * g**2
        r = (1 - h["beta"] ** t) / v
        gamma = h["xi"] ** 2 * r * g**2 / (1 + h["c_coef"] * h["xi"].sqrt() * b).sqrt()
        scale = 1 + h["d_coef"] * (h["xi"] * h["eta"]).sqrt() * b
        delta = -(h["xi"] * h["eta"] * r.sqrt() * g + (gamma / 2 + h["extra_l2"]) * theta) / scale
        m = h["momentum"] * m + (1 - h["momentum"]) * delta
    after = exact.step(0.5, 1.25, 0.75, 3.0, 0.125, t=t, **HYPER)
    for name, x in dict(v=v, r=r, gamma=gamma, delta=delta, m=m, theta=theta + m).items():
        assert after[name] == float(x), name


def test_precision_is_raised_until_the_rounding_is_decided():
    """gamma = xi^2 (1 - beta^t), where xi^2 is halfway between two floats: 0.415 t bits show that it is less."""
    n = 2**27 - 1
    hyper = HYPER | dict(xi=n / 2.0**28, beta=0.75, momentum=None, clip_value=None)
    before = np.array(1.0), np.array(2.0**10), np.array(2.0**20), np.array(0.0)
    for t in (1000, 50_000):  # a rational, a ball of 32,768 bits
        assert exact.step(*before, t=t, **hyper)["gamma"] == (n * n - 1) / 2.0**56
    with pytest.raises(errors.UndecidedError, match=r"rounding gamma to float64 .* at 65536 bits"):
        exact.step(*before, t=200_000, **hyper)


GRADS = [np.full((4, 3), 0.3), np.arange(12.0).reshape(4, 3), None, np.eye(4, 3)]
RATES = [0.3, 0.2, 0.1, 0.05]


def test_a_trajectory_rounds_nothing_on_its_way():
    before = arrays(np.random.default_rng(5))
    del before["g"]
    found = exact.trajectory(**before, grads=GRADS, **HYPER | dict(xi=RATES))
    assert found[2] is None
    hyper, now = {name: Fraction(x) for name, x in HYPER.items()}, {name: fractions(a) for name, a in before.items()}
    for t, (xi, g, after) in enumerate(zip(RATES, GRADS, found, strict=True), 1):
        if g is not None:
            state = (now["theta"], fractions(g), now["v"], now["b"], now["m"])
            now = naive.step(*state, (4, 3), (1, 3), t, **hyper | dict(xi=Fraction(xi)))
            assert all(after["theta"][i] == float(x) for i, x in now["theta"].items())


def test_a_trajectory_rounds_what_is_stored():
    before = arrays(np.random.default_rng(5))
    del before["g"]
    found = exact.trajectory(**before, grads=GRADS, stored=("float32", "float64"), **HYPER | dict(xi=RATES))
    for t, (xi, g, after) in enumerate(zip(RATES, GRADS, found, strict=True), 1):
        if g is not None:
            step = dict(**before, g=g, t=t, **HYPER | dict(xi=xi))
            wide = exact.step(**step)
            assert all(np.array_equal(after[name], wide[name]) for name in wide)
            before = {name: wide[name] for name in before} | {"theta": exact.step(**step, dtype="float32")["theta"]}


# the page, and wrong pages


def test_the_page_is_within_its_bounds_and_its_stored_numbers_are_right():
    computed, kept = exactness.survey(400)
    assert set(computed) == set(exactness.SCALARS) | {"delta", "m", "theta"}
    for name, (_, ratio, *_) in computed.items():
        assert ratio <= 1, name
    _, _, far, count = computed["theta"]
    assert far <= 1e-3 * count
    assert len(kept) == 12
    for found in kept.values():
        assert found.error < 1
        assert found.right >= found.count * 0.9999


def worst(monkeypatch, stage, wrong):
    monkeypatch.setattr(spec, stage, wrong)
    return exactness.survey(60)


def test_one_rounding_to_float32_too_many_is_seen(monkeypatch):
    right = spec.decay_factor_c
    computed, _ = worst(monkeypatch, "decay_factor_c", lambda *a: np.float64(np.float32(right(*a))))
    assert computed["c"][1] > 1
    assert computed["v"][1] <= 1


def test_a_bias_correction_that_cancels_is_seen(monkeypatch):
    computed, _ = worst(monkeypatch, "one_minus_power", lambda beta, t: 1.0 - beta**t)
    assert computed["r"][1] > 1


def test_a_growth_that_cancels_is_seen(monkeypatch):
    computed, _ = worst(monkeypatch, "grown", lambda b, gamma: (1.0 + b) * (1.0 + gamma) - 1.0)
    assert computed["b"][1] > 1


def test_a_wrong_formula_is_seen(monkeypatch):
    computed, kept = worst(monkeypatch, "weight_decay", lambda d, gamma, extra_l2: d * (gamma + extra_l2))
    assert computed["rho"][1] > 1
    assert min(found.right / found.count for found in kept.values()) < 0.9999


# bad input


def test_bad_input_is_named(monkeypatch):
    good = dict(theta=np.ones(3), g=np.ones(3), v=np.array(0.0), b=np.array(0.0), t=1, **HYPER | dict(momentum=None))
    for change, error, text in (
        (dict(g=np.ones(2)), errors.ShapeError, "g has shape"),
        (dict(v=np.ones(2), b=np.ones(2)), errors.ShapeError, "slot's shape"),
        (dict(theta=np.array([1, np.nan, 1])), errors.NonFiniteError, r"theta\[1\] is nan"),
        (dict(theta=["a"]), errors.DtypeError, "theta has dtype"),
        (dict(dtype="float8"), errors.DtypeError, "float8"),
        (dict(t=0), errors.HyperParameterError, "t is 0"),
        (dict(beta=1.0), errors.HyperParameterError, "beta is 1.0"),
        (dict(eta=0.0), errors.AmosError, "eta"),
    ):
        with pytest.raises(error, match=text):
            exact.step(**good | change)
    assert exact.step(**good | dict(g=np.array([np.inf, 0.0, -np.inf])))["g2"] == 1.5**2 * 2 / 3
    with pytest.raises(errors.HyperParameterError, match="xi has 2 entries for 1 steps"):
        exact.trajectory(1.0, [1.0], 0.0, 0.0, **HYPER | dict(xi=[0.1, 0.2], momentum=None))
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'amos_ref\[oracle\]'"):
        exact.step(**good)
