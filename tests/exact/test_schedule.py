"""The oracle's schedules against plain iteration in decimals, and the page against the oracle."""

from decimal import Decimal, localcontext

import flint
import numpy as np
import pytest
from flint import fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from amos_ref import exact
from amos_ref.errors import HyperParameterError
from amos_ref.exact import schedule

WAYS = [("inverse-time", None), ("inverse-square", None), ("recurrence", "falling"), ("recurrence", "constant")]
ways = st.sampled_from(WAYS)
horizons = st.one_of(
    st.floats(1e-2, 1e6).map(lambda x: dict(half_life=x)), st.floats(1e-6, 0.95).map(lambda x: dict(p_0=x))
)
counts = st.one_of(st.integers(0, 300), st.integers(0, 10**12))


def decimals(t, way, alpha_0, half_life=None, p_0=None):
    """S_t to 50 digits: the closed forms written with logarithms, the recurrences iterated."""
    decay, _ = way
    with localcontext() as context:
        context.prec = 60
        two = Decimal(2)
        falling = "inverse-time" in way or "falling" in way
        if p_0 is not None:
            rate = Decimal(alpha_0) * Decimal(p_0) * (2 if falling else 1)
        else:
            rate = (1 if falling else two.sqrt() - 1) / Decimal(half_life or 0)
        if decay != "recurrence":
            return (1 + rate * t).ln() / (2 if falling else 1)
        s, p = Decimal(0), rate / (2 if falling else 1)  # alpha_0 p_0
        for _ in range(t):
            s += p * (-s).exp() * ((-s).exp() if falling else 1)
        return s


@settings(max_examples=30)
@given(alpha_0=st.floats(1e-4, 0.6), horizon=horizons, way=ways, t=st.integers(0, 300))
def test_fifty_digits_agree(alpha_0, horizon, way, t):
    """300 steps: some are iterated in balls as well, and from y = 256 on Abel's equation is solved."""
    want = decimals(t, way, alpha_0, **horizon)
    found = exact.closed_form.enclose_schedule(t, alpha_0=alpha_0, decay=way[0], p_t=way[1], **horizon)
    with flint.ctx.workprec(256), localcontext() as context:
        context.prec = 60
        for name, real in (("S", want), ("shrink", (-2 * want).exp())):
            other = flint.arb(fmpq(*map(int, real.as_integer_ratio())))
            assert abs(found[name][()] - other) <= other * flint.arb(10) ** -50, name


def iterated(y, t):
    with flint.ctx.workprec(600):
        y = flint.arb(y)
        for _ in range(t):
            y = y * (1 / y).exp()
        return y


@pytest.mark.parametrize("bits", [64, 128, 512])
@pytest.mark.parametrize(("y", "t"), [(2, 20_000), (1000, 5_000), (fmpq(1, 3), 700)])
def test_what_is_not_iterated_holds_what_is(bits, y, t):
    want = iterated(y, t)
    with flint.ctx.workprec(bits):
        found = schedule.grow(flint.arb(y), t)
        assert found.overlaps(want)
        assert found.rad() < want.abs_upper() * flint.arb(2) ** (20 - bits)


def test_a_wrong_coefficient_is_seen(monkeypatch):
    right = schedule._abel

    def wrong(bits):
        coefficients, least, gap = right(bits)
        return (*coefficients[:7], coefficients[7] * fmpq(1001, 1000), *coefficients[8:]), least, gap

    monkeypatch.setattr(schedule, "_abel", wrong)
    want = iterated(1000, 5_000)
    with flint.ctx.workprec(256):
        assert not schedule.grow(flint.arb(1000), 5_000).overlaps(want)


def test_half_of_the_half_life_is_a_rational():
    """(1 + x)^2 lies in Q(sqrt 2) and is rational at t = 0 and T, where it must not be a ball around 2."""
    found = exact.closed_form.enclose_schedule([0, 7, 8], alpha_0=0.1, half_life=7, decay="inverse-square", q=3.0)
    assert [isinstance(x, fmpq) for x in found["shrink"]] == [True, True, False]
    assert found["shrink"][1] == fmpq(1, 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(half_life=3.0, p_0=0.5), "exactly one of them"),
        (dict(), "half_life is None and p_0 is None"),
        (dict(p_0=0.5, p_t="constant"), "p_t is 'constant' with decay 'inverse-time'"),
        (dict(decay="recurrence", p_0=0.5, p_t=lambda t, s: 0.5), "must be a word"),
        (dict(p_0=0.5, q=0.001), r"q is 0\.001; it must be more than"),
        (dict(p_0=-0.5), "p_0 is -0.5"),
    ],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(HyperParameterError, match=text):
        exact.closed_form.schedule(3, **dict(alpha_0=0.1) | options)


@pytest.mark.parametrize("t", [-1, 0.5, True, None, "3"])
def test_steps_that_are_none_are_named(t):
    with pytest.raises(HyperParameterError, match=r"t is .*; it must be an integer >= 0"):
        exact.closed_form.schedule([3, t], alpha_0=0.1, p_0=0.5)
    assert exact.closed_form.schedule(np.arange(6).reshape(2, 3), alpha_0=0.1, p_0=0.5)["S"].shape == (2, 3)
