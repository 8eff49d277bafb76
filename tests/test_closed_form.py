"""The derivation's schedules and its recurrence.

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
    right = 4 * closed_form.rho(50, **o) * closed_form.error(50, **o)
    assert abs(wrong - right) / max(wrong, right) > 0.3


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
    "neither": (dict(), ["half_life", "p_0", "exactly one", "half_life=T", "step T", "a tenth of the steps"]),
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
