"""The derivation's schedules, and both sides of each of its "~", where they are near and where they are not.

A float operation errs by EPS/2 of its result at most, exp, log and log1p by EPS (the libraries promise an ulp).
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from math import factorial

import numpy as np
import pytest
import scipy.integrate
from helpers import strategies as own
from hypothesis import given, settings
from hypothesis import strategies as st

from amos_ref import closed_form
from amos_ref.closed_form import MOST_STEPS, Schedule, recurrence, recurrence_gap
from amos_ref.errors import HyperParameterError, ScheduleError

EPS = 2.0**-52
alphas = st.floats(1e-6, 0.5)
rates = st.floats(1e-9, 8.0)
counts = st.one_of(st.integers(0, 100), st.integers(0, 10**12)).map(float)
half_lives = st.floats(1e-3, 1e12)
qs = st.floats(0.2, 5.0)
decays = st.sampled_from(["inverse-time", "inverse-square", "recurrence"])


# the recurrence


def iterated(k, count):
    """R_0 ... R_count to 40 digits."""
    with localcontext() as context:
        context.prec = 40
        found = [Decimal(0)]
        for _ in range(count):
            found.append(found[-1] + Decimal(k) * (-found[-1]).exp())
        return np.array([float(r) for r in found])


@settings(max_examples=40)
@given(k=rates)
def test_recurrence_without_iteration_is_the_recurrence(k):
    """Before y = 64 at most 64 steps, of two roundings and an exp each; the map contracts errors from step 1 on,
    where k exp(-R) <= 1/e. Behind, ten operations and less than one EPS of cutting."""
    want = iterated(k, 200)
    got = recurrence(np.arange(201.0), k)
    assert np.all(abs(got - want) <= (64 * 2 + 10) * EPS * want)


def test_recurrence_at_a_million_steps():
    # In longdouble the million roundings of the iteration stay below 1e6 2^-64 = 6e-14 of R.
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no longer float here")
    r, k = np.longdouble(0), np.longdouble(1e-3)
    for _ in range(10**6):
        r += k * np.exp(-r)
    assert recurrence(1e6, 1e-3) == pytest.approx(float(r), rel=6e-14 + 10 * EPS, abs=0)


def abel_coefficients(n):
    """c_0 of log(y) and c_1 ... c_n of A(y) = y + c_0 log(y) + sum c_j y^-j, from A(y exp(1/y)) = A(y) + 1.

    Order m of z = 1/y: 1/(m+1)! + sum_{j<m} c_j (-j)^(m-j) / (m-j)! = 0, and c_0 = -1/2 from order 1.
    """
    c = [Fraction(-1, 2)]
    for m in range(2, n + 2):
        known = sum(c[j] * Fraction((-j) ** (m - j), factorial(m - j)) for j in range(1, m - 1))
        c.append((Fraction(1, factorial(m + 1)) + known) / (m - 1))
    return c


def test_coefficients_and_error_bound_of_abels_equation():
    c = abel_coefficients(8)
    assert [float(x) for x in c[:0:-1]] + [0.0] == list(closed_form.ABEL)
    largest = math.e - 1.5 + sum(abs(float(c[j])) * math.expm1(j) for j in range(1, 9))
    assert largest < 28
    # sum over i of (64 + i)^-10 <= 64^-10 + 64^-9 / 9; A' > 0.99 there.
    assert largest * (64.0**-10 + 64.0**-9 / 9) / 0.99 < 2e-16


def test_a_wrong_coefficient_is_seen(monkeypatch):
    monkeypatch.setattr(closed_form, "ABEL", (*closed_form.ABEL[:-2], -1 / 6, 0.0))
    want = iterated(0.25, 200)
    assert np.any(abs(recurrence(np.arange(201.0), 0.25) - want) > 138 * EPS * want)


@given(k=st.floats(1e-9, 1.0), t=counts)
def test_recurrence_runs_ahead_of_its_ode_by_no_more_than_the_gap(k, t):
    found, ode = float(recurrence(t, k)), math.log1p(k * t)
    # 138 EPS as above, and log1p of a rounded k t.
    assert -140 * EPS * found <= found - ode <= recurrence_gap(t, k) + 140 * EPS * found


def test_the_gap_is_no_more_than_needed():
    # The bound's parts are e^k and a sum against its integral, so that it is nearly reached where k is small.
    for k, t in ((1e-2, 1e3), (1e-3, 1e6), (1e-4, 1e5)):
        assert recurrence(t, k) - math.log1p(k * t) > 0.9 * recurrence_gap(t, k)


def solved(k, power, t):
    """S of dS/dt = k exp(-power S), by a library, to about 1e-10."""
    slope = lambda _, s: k * np.exp(-power * s)  # noqa: E731
    return scipy.integrate.solve_ivp(slope, (0, t[-1]), [0.0], t_eval=t, rtol=1e-11, atol=1e-13).y[0]


def check_ode(schedule, power):
    t, k = np.linspace(0, 5000, 11), 0.02 * 0.3
    assert np.allclose(schedule.shrink(t), np.exp(-2 * solved(k, power, t)), rtol=1e-8, atol=0)
    assert np.allclose(schedule.s(t), solved(k, power, t), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("decay", "power"), [("inverse-square", 1), ("inverse-time", 2)])
def test_closed_forms_solve_their_odes(decay, power, monkeypatch):
    check_ode(Schedule(0.02, p_0=0.3, decay=decay), power)
    with pytest.raises(AssertionError):
        check_ode(Schedule(0.02, p_0=0.3, decay=decay), 3 - power)
    # exp(-S) in the place of exp(-2S)
    right = Schedule.shrink
    monkeypatch.setattr(Schedule, "shrink", lambda self, t: np.sqrt(right(self, t)))
    with pytest.raises(AssertionError):
        check_ode(Schedule(0.02, p_0=0.3, decay=decay), power)


@pytest.mark.parametrize(("p_t", "power", "times"), [("constant", 1, 1), ("falling", 2, 2)])
def test_recurrence_stays_within_the_gap_of_the_solved_ode(p_t, power, times):
    t = np.arange(0.0, 5001, 500)
    found = Schedule(0.2, p_0=0.3, decay="recurrence", p_t=p_t).s(t)
    ode = solved(0.06, power, t)
    gap = recurrence_gap(t, times * 0.06) / times
    assert np.all(found >= ode - 1e-9)
    assert np.all(found <= ode + gap + 1e-9)
    assert found[1] - ode[1] > 1e-3


@pytest.mark.parametrize("p_t", ["falling", "constant"])
def test_a_callable_p_t_gives_the_same_sums(p_t):
    law = {"falling": lambda t, s: 0.4 * math.exp(-s), "constant": lambda t, s: 0.4}[p_t]
    t = np.array([[0, 1, 2], [700, 50, 3]])
    want = Schedule(0.05, p_0=0.4, decay="recurrence", p_t=p_t).s(t)
    got = Schedule(0.05, decay="recurrence", p_t=law).s(t)
    assert got.shape == (2, 3)
    # 700 steps of the iteration, three roundings and two exp each.
    assert np.allclose(got, want, rtol=700 * 4 * EPS, atol=0)


def test_a_callable_p_t_is_asked_once_a_step_in_order():
    asked = []
    schedule = Schedule(0.5, decay="recurrence", p_t=lambda t, s: asked.append((t, s)) or 0.5)
    assert schedule.s(2) == 0.25 + 0.25 * math.exp(-0.25)
    schedule.s([3, 1, 0])
    assert asked == [(0, 0.0), (1, 0.25), (2, schedule.s(2))]
    assert schedule.s([]).shape == (0,)


# the schedules


@given(alpha_0=alphas, half_life=half_lives, q=qs)
def test_half_life_is_exact(alpha_0, half_life, q):
    o = dict(alpha_0=alpha_0, half_life=half_life, q=q)
    for decay in ("inverse-time", "inverse-square"):
        assert closed_form.error(half_life, **o, decay=decay) == 0.5
        assert closed_form.alpha(half_life, **o, decay=decay) == alpha_0 / 2
        assert closed_form.rho(half_life, **o, decay=decay) == closed_form.rho(0, **o) / 2


@given(alpha_0=alphas, half_life=half_lives, t=counts)
def test_half_life_sets_p_0(alpha_0, half_life, t):
    for decay, p_0 in (
        ("inverse-time", 1 / (2 * half_life * alpha_0)),
        ("inverse-square", (math.sqrt(2) - 1) / half_life / alpha_0),
    ):
        got = closed_form.error(t, alpha_0=alpha_0, p_0=p_0, decay=decay)
        want = closed_form.error(t, alpha_0=alpha_0, half_life=half_life, decay=decay)
        # Six roundings in x on either side, which 1 / (1 + x)^2 doubles, and five behind.
        assert got == pytest.approx(want, rel=18 * EPS, abs=0)


@given(alpha_0=alphas, half_life=half_lives, q=qs, t=counts, decay=decays)
def test_alpha_squared_is_of_the_order_of_rho(alpha_0, half_life, q, t, decay):
    """alpha_t^2 |u_t|^2 = 2 rho_t q |eps_t|^2 at every t, |eps_t|^2 as predicted; five roundings a side."""
    o = dict(alpha_0=alpha_0, half_life=half_life, q=q, decay=decay)
    left = closed_form.alpha(t, **o) ** 2
    assert left == pytest.approx(2 * closed_form.rho(t, **o) * q * closed_form.error(t, **o), rel=10 * EPS, abs=0)


def test_exp_of_minus_s_in_alpha_breaks_the_order():
    o = dict(alpha_0=0.1, half_life=100.0, q=2.0)
    wrong = (0.1 * math.exp(-Schedule(**o).s(50))) ** 2
    assert apart(wrong, 4 * closed_form.rho(50, **o) * closed_form.error(50, **o)) > 0.3


@given(alpha_0=alphas, half_life=half_lives, t=counts, decay=decays)
def test_shrink_is_exp_of_minus_2_s(alpha_0, half_life, t, decay):
    schedule = Schedule(alpha_0, half_life, decay=decay)
    s = schedule.s(t)
    # exp(-2S) takes S's error, 140 EPS of S at most, as a relative one.
    assert schedule.shrink(t) == pytest.approx(math.exp(-2 * s), rel=(140 * 2 * s + 12) * EPS, abs=0)


@pytest.mark.parametrize("decay", ["inverse-time", "inverse-square", "recurrence"])
def test_schedules_are_stable_up_to_a_trillion_steps_and_beyond(decay):
    t = np.array([0, 1, 10, *(10**k for k in range(2, 13)), 10**12 + 1, 2**1000], dtype=object)
    schedule = Schedule(1e-3, p_0=0.25, decay=decay)
    for found in (schedule.shrink(t), schedule.alpha(t, 2.0), schedule.rho(t)):
        assert found.dtype == np.float64
        assert found.shape == t.shape
        assert np.all(np.isfinite(found) & (np.diff(found, append=0) <= 0))
    assert schedule.s(0) == 0.0
    assert np.all(np.diff(schedule.s(t)[:-2]) > 0)
    # 1 / (1 + 2 alpha_0 p_0 t), 1 / (1 + alpha_0 p_0 t)^2, and the recurrence within its gap of the first.
    want = {"inverse-square": 1 / (1 + 2.5e8) ** 2}.get(decay, 1 / (1 + 5e8))
    gap = recurrence_gap(1e12, 5e-4) if decay == "recurrence" else 0
    assert schedule.shrink(10**12) == pytest.approx(want, rel=gap + 1e-13, abs=0)


@given(alpha_0=alphas, half_life=half_lives, data=st.data(), decay=decays)
def test_vectorised_is_one_by_one(alpha_0, half_life, data, decay):
    shape = data.draw(own.shapes(max_side=3, max_dims=3))
    t = np.random.default_rng(data.draw(own.seeds)).integers(0, 10**6, shape)
    o = dict(alpha_0=alpha_0, half_life=half_life, decay=decay)
    for schedule in (closed_form.s, closed_form.rho, closed_form.error):
        found = np.asarray(schedule(t, **o))
        assert found.shape == shape
        for i in np.ndindex(shape):
            # A library's vector code may round exp and log1p otherwise than its scalar code.
            assert found[i] == pytest.approx(schedule(int(t[i]), **o), rel=64 * EPS, abs=0)


BAD = {
    "alpha_0 0": (dict(alpha_0=0, p_0=1), ["alpha_0", "0"]),
    "alpha_0 1": (dict(alpha_0=1, p_0=1), ["alpha_0", "1", "(0, 1)"]),
    "alpha_0 nan": (dict(alpha_0=math.nan, p_0=1), ["alpha_0", "nan"]),
    "alpha_0 text": (dict(alpha_0="0.1", p_0=1), ["alpha_0", "'0.1'"]),
    "neither": (dict(), ["half_life", "p_0", "exactly one"]),
    "both": (dict(half_life=3, p_0=0.5), ["half_life is 3", "p_0 is 0.5", "exactly one"]),
    "half_life 0": (dict(half_life=0), ["half_life is 0"]),
    "half_life inf": (dict(half_life=math.inf), ["half_life is inf"]),
    "half_life tiny": (dict(half_life=1e-320), ["half_life 1e-320"]),
    "p_0 negative": (dict(p_0=-0.5), ["p_0 is -0.5"]),
    "p_0 tiny": (dict(alpha_0=1e-300, p_0=1e-300), ["p_0 1e-300"]),
    "decay": (dict(p_0=1, decay="exponential"), ["decay", "'exponential'", "'inverse-time'"]),
    "decay none": (dict(p_0=1, decay=None), ["decay", "None"]),
    "q": (dict(p_0=1, q=0), ["q is 0"]),
    "q small": (dict(alpha_0=0.5, p_0=1, q=0.125), ["q is 0.125", "alpha_0^2/2"]),
    "p_t": (dict(p_0=1, decay="recurrence", p_t="rising"), ["p_t", "'rising'"]),
    "p_t number": (dict(p_0=1, decay="recurrence", p_t=0.5), ["p_t", "0.5"]),
    "p_t elsewhere": (dict(p_0=1, p_t="falling"), ["p_t", "inverse-time", "recurrence"]),
    "p_t and p_0": (dict(p_0=1, decay="recurrence", p_t=lambda t, s: 1), ["p_0 is 1", "neither"]),
}


@pytest.mark.parametrize(("options", "words"), BAD.values(), ids=BAD)
def test_options_out_of_range_are_named(options, words):
    with pytest.raises(HyperParameterError) as error:
        Schedule(**options)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("t", [-1, [0, -1], math.nan, math.inf, "3", None, [1, "x"], 1j, True, 10**400, [[1], [2, 3]]])
def test_steps_that_are_none_are_named(t):
    with pytest.raises(HyperParameterError, match=r"t is .*; it must be finite numbers >= 0"):
        closed_form.s(t, p_0=1)


def test_recurrences_take_whole_steps_and_callables_not_too_many():
    assert closed_form.s(0.5, p_0=1) > 0
    with pytest.raises(HyperParameterError, match=r"t is 0\.5; it must be whole numbers"):
        closed_form.s(0.5, p_0=1, decay="recurrence")
    with pytest.raises(HyperParameterError, match=f"t is {MOST_STEPS + 1}; .* at most {MOST_STEPS}"):
        closed_form.s(MOST_STEPS + 1, decay="recurrence", p_t=lambda t, s: 0.5)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, np.ones(2)])
def test_what_p_t_must_not_give_is_named(value):
    with pytest.raises(ScheduleError, match=r"p_t\(0, 0\.0\) is "):
        closed_form.s(1, decay="recurrence", p_t=lambda t, s: value)
    with pytest.raises(ScheduleError, match=r"p_t\(0, 0\.0\) raised ZeroDivisionError"):
        closed_form.s(1, decay="recurrence", p_t=lambda t, s: 1 / 0)


# the derivation: every "~", its two sides where they should be near, and where they are not

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
