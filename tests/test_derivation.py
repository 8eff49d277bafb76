"""Every "~" of the derivation: its two sides where they should be near, and where they are not.

A float operation errs by EPS/2 of its result at most, exp, log and log1p by EPS (the libraries promise an ulp).
"""

import math

import numpy as np
import pytest
from helpers import strategies as own
from hypothesis import given
from hypothesis import strategies as st

from amos_ref import closed_form
from amos_ref.closed_form import Schedule, recurrence_gap

EPS = 2.0**-52
alphas = st.floats(1e-6, 0.5)
RNG = np.random.default_rng(8)
EPS_T, U, THETA = RNG.normal(size=(3, 50))


def apart(left, right):
    """How far two sides are apart, of the larger."""
    return abs(left - right) / max(abs(left), abs(right))


@given(seed=own.seeds, alpha=alphas, rho=st.floats(1e-9, 0.5))
def test_error_after_one_step_to_second_order(seed, alpha, rho):
    """Both sides differ by 2 alpha rho u.theta + rho^2 |theta|^2: orders 3 and 4 in alpha, as rho is of order 2."""
    eps, u, theta = np.random.default_rng(seed).normal(size=(3, 50))
    left = closed_form.error_after(eps, alpha, u, rho, theta)
    right = closed_form.error_after_approx(eps, alpha, u, rho, theta)
    dropped = 2 * alpha * rho * np.sum(u * theta) + rho**2 * np.sum(theta**2)
    # Sums of 50 terms, of at most 9 roundings each, in any order.
    size = np.sum((abs(eps) + alpha * abs(u) + rho * abs(theta)) ** 2)
    assert abs(left - right - dropped) <= 2 * 60 * EPS * size


def test_error_after_one_step_near_and_far():
    sides = [
        [
            side(EPS_T, alpha, U, alpha**2 / 2, THETA)
            for side in (closed_form.error_after, closed_form.error_after_approx)
        ]
        for alpha in (1e-3, 1.9)
    ]
    norms = [np.linalg.norm(a) for a in (EPS_T, U, THETA)]
    # |dropped| <= alpha^3 |u| |theta| + alpha^4 |theta|^2 / 4 with alpha = 1e-3
    assert abs(np.subtract(*sides[0])) <= 1e-9 * norms[1] * norms[2] + 1e-12 * norms[2] ** 2 + 1e-12
    assert apart(*sides[1]) > 0.2


def test_q_near_and_far():
    """theta.eps ~ q |eps|^2 with q = 1."""
    assert closed_form.q_of(EPS_T, EPS_T) == 1.0  # theta* = 0
    assert closed_form.q_of(EPS_T + 10 * EPS_T, EPS_T) == pytest.approx(11, rel=1e-12)  # far beyond theta*
    assert closed_form.q_of(EPS_T - 3 * EPS_T, EPS_T) < 0  # weights that must grow: no q > 0 will do


def cosines(curvature, steps=50):
    """cos(u, eps) along a descent of a quadratic with these curvatures, by its gradient."""
    eps = np.ones(len(curvature))
    found = []
    for _ in range(steps):
        u = curvature * eps
        found.append(closed_form.p_of(u, eps))
        eps = eps - 0.9 / max(curvature) * u
    return np.array(found)


def test_constant_p_near_and_far():
    assert np.all(abs(cosines(np.full(3, 2.0)) - 1) <= 8 * EPS)
    steep = cosines(np.array([1.0, 30.0, 1000.0]))
    assert steep.max() / steep.min() > 1.5


def test_balance_of_step_and_decay():
    """alpha^2 |u|^2 = 2 rho theta.eps, with q |eps|^2 for theta.eps: near where theta* = 0, far where it is not."""
    alpha = closed_form.balanced_step(0.01, 1.0, EPS_T, U)
    left = alpha**2 * np.sum(U * U)
    assert left == pytest.approx(2 * 0.01 * np.sum(EPS_T * EPS_T), rel=64 * EPS)
    theta = EPS_T + 5 * THETA
    assert apart(left, 2 * 0.01 * np.sum(theta * EPS_T)) > 0.2


@given(x=st.floats(0, 2))
def test_exponential_for_one_factor(x):
    """0 <= exp(-x) - (1 - x) <= x^2 / 2 with x = 2 p sqrt(2 rho q)."""
    rho = (x / 2) ** 2 / 2
    left, right = closed_form.remaining(1.0, rho, 1.0), closed_form.remaining_approx(1.0, rho, 1.0)
    assert -8 * EPS <= right - left <= x * x / 2 + 8 * EPS
    if x > 1:
        assert right - left > 0.36


def test_a_product_of_factors_near_and_far():
    """|eps_t|^2 ~ |eps_0|^2 exp(-2 S_t) takes t such factors: their logarithms are apart by sum x_i^2/2 and more."""
    for alpha_0, near in ((1e-3, True), (0.45, False)):
        s = Schedule(alpha_0, p_0=1.0, decay="recurrence", p_t="constant").s(np.arange(101))
        x = 2 * alpha_0 * np.exp(-s[:-1])
        rho = closed_form.weight_decay(alpha_0, 1.0, np.exp(-2 * s[:-1]))
        left = np.prod(closed_form.remaining(1.0, rho, 1.0))
        if near:
            # log(1 - x) = -x - x^2/2 - ..., x <= 2e-3, within x^2/2 (1 + x) of -x
            assert abs(np.log(left) + 2 * s[-1]) <= np.sum(x**2 / 2 * (1 + x)) + 1e-12
            assert apart(left, np.exp(-2 * s[-1])) < 2e-4
        else:
            assert apart(left, np.exp(-2 * s[-1])) > 0.5


def test_sums_start_at_0_not_at_1():
    """The document's sums begin with i = 1; its recursion from S_0 = 0 gives those that begin with i = 0."""
    schedule = Schedule(0.3, p_0=0.5, decay="recurrence")
    t = np.arange(20)
    terms = 0.5 * np.exp(-schedule.s(t)) * np.sqrt(2 * schedule.rho(t) * schedule.q)
    assert schedule.s(20) == pytest.approx(terms.sum(), rel=400 * EPS)
    assert apart(schedule.s(20), terms[1:].sum()) > 0.1


def test_lambda_near_and_far():
    """lambda = alpha_0 / |eps_0| takes |u_0| = |eps_0|."""
    size = np.linalg.norm(EPS_T)
    assert closed_form.lambda_of(1e-3, EPS_T, -EPS_T) == pytest.approx(1e-3 / size, rel=64 * EPS)
    assert apart(closed_form.lambda_of(1e-3, EPS_T, 100 * EPS_T), 1e-3 / size) == pytest.approx(0.99, rel=1e-12)


def test_alpha_from_the_error_near_and_far():
    """lambda |eps_t|^2 / |u_t| ~ lambda |eps_0|^2 / |u_t| exp(-2 S_t) holds as far as the predicted error does."""
    s = float(Schedule(1e-3, p_0=1.0, decay="inverse-square").s(500))
    shrunk = EPS_T * math.exp(-s)  # as predicted
    lam, size = closed_form.lambda_of(1e-3, EPS_T, EPS_T), np.linalg.norm(U)
    right = closed_form.step_size(1e-3, np.linalg.norm(EPS_T) / size, math.exp(-2 * s))
    assert lam * np.sum(shrunk**2) / size == pytest.approx(right, rel=200 * EPS)
    assert apart(lam * np.sum((2 * shrunk) ** 2) / size, right) == pytest.approx(0.75, rel=1e-12)


def test_sqrt_of_2_rho_q_is_the_relative_step():
    """sqrt(2 rho_t q) ~ alpha_0 exp(-S_t): an identity once rho_t is taken from the prediction."""
    schedule = Schedule(1e-2, half_life=300, q=0.7)
    t = np.arange(0, 3000, 100)
    assert np.allclose(np.sqrt(2 * schedule.rho(t) * 0.7), 1e-2 * np.exp(-schedule.s(t)), rtol=64 * EPS, atol=0)
    # A decay from another q than the one in the root is no such thing.
    assert apart(math.sqrt(2 * schedule.rho(0) * 1.4), 1e-2) > 0.2


@pytest.mark.parametrize(("alpha_0", "near"), [(1e-3, True), (0.9, False)])
def test_difference_and_differential_equation_near_and_far(alpha_0, near):
    s = [Schedule(alpha_0, p_0=1.0, decay=d).s(1) for d in ("recurrence", "inverse-time")]
    # The gap is about k^2 for k = 2 alpha_0, and 2 S about k.
    assert apart(*s) < 2.1e-3 if near else apart(*s) > 0.4
    assert np.subtract(*s) <= recurrence_gap(1, 2 * alpha_0) / 2


def test_initial_error_near_and_far():
    """|theta_0|^2 ~ k sigma^2, |theta*|^2 ~ k sigma^2 and |theta_0 - theta*|^2 ~ k sigma^2."""
    k, sigma = 100_000, 0.3
    rng = np.random.default_rng(4)
    theta_0, other = rng.normal(scale=sigma, size=(2, k))
    predicted = closed_form.initial_error(k, sigma)
    # A sum of k squares has the relative standard deviation sqrt(2/k); five of them.
    noise = 5 * math.sqrt(2 / k)
    assert np.sum(theta_0**2) == pytest.approx(predicted, rel=noise)
    assert apart(theta_0[0] ** 2, closed_form.initial_error(1, sigma)) > 0.2  # one entry is no average
    # Trained weights as correlated with the first ones as 1/2: |theta_0|^2 + |theta*|^2 - 2 theta_0.theta* = k sigma^2.
    trained = 0.5 * theta_0 + math.sqrt(0.75) * other
    assert np.sum(trained**2) == pytest.approx(predicted, rel=2 * noise)
    assert np.sum((theta_0 - trained) ** 2) == pytest.approx(predicted, rel=2 * noise)
    # Unrelated ones: the factor 2 that the source drops.
    assert np.sum((theta_0 - other) ** 2) == pytest.approx(2 * predicted, rel=2 * noise)
    # Weights that grow threefold in training.
    assert apart(np.sum((3 * theta_0) ** 2), predicted) > 0.8


def test_sigma_of_zeros_and_ones_near_and_far():
    """Entries that start at 0, or at 1, and end at +-1/2 from there have |eps_0|^2 = k / 4; at 5 from there not."""
    away = np.array([0.5, -0.5, 0.5, -0.5, -0.5, 0.5])
    for start in (np.zeros(6), np.ones(6)):
        predicted = closed_form.initial_error(6, closed_form.initial_sigma(start))
        assert np.sum((start - (start + away)) ** 2) == predicted
        assert apart(np.sum((10 * away) ** 2), predicted) > 0.9
    assert np.std(np.ones(6)) == 0  # the standard deviation would freeze a rescale parameter


@pytest.mark.parametrize("theta", [[0.0, 0.0, -0.0], [1.0], [], [[1.0, 1.0]], 0.0, 1.0])
def test_sigma_of_arrays_that_are_all_0_or_all_1(theta):
    assert closed_form.initial_sigma(np.array(theta)) == 0.5


def test_sigma_of_other_arrays_is_their_root_mean_square():
    assert closed_form.initial_sigma(np.array([3.0, -4.0, 0.0, 0.0])) == 2.5
    assert closed_form.initial_sigma(np.array([1.0, 0.0])) == math.sqrt(0.5)
    assert closed_form.initial_sigma(np.full((2, 3), -1.0)) == 1.0


def test_falling_p_near_and_far():
    """p_t = p_0 exp(-S_t), with exp(-S_t) = |eps_t| / |eps_0|.

    Directions u = eps + noise at a right angle to eps, of constant size N >> |eps|, have the cosine
    |eps| / sqrt(|eps|^2 + N^2), within |eps|^2 / (2 N^2) of |eps| / N: it falls with the error. Without noise it is 1.
    """
    eps, noise = np.array([1.0, 0.0]), np.array([0.0, 100.0])
    for shrunk in (1.0, 0.5, 0.01):
        p = [closed_form.p_of(shrunk * eps + n, shrunk * eps) for n in (noise, 0 * noise)]
        assert apart(p[0], shrunk * 0.01) <= 0.5e-4 + 8 * EPS
        assert p[1] == pytest.approx(1.0, rel=8 * EPS)
    assert apart(p[1], 0.01) > 0.9
