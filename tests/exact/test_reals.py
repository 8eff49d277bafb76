"""Real numbers round to the nearest float, and distances from them are counted in its units."""

from fractions import Fraction

import numpy as np
import pytest
from flint import fmpq
from helpers.strategies import DTYPES, dtype_names
from hypothesis import given
from hypothesis import strategies as st

from amos_ref import exact

HYPER = dict(eta=0.7, beta=0.99, clip_value=1.5, c_coef=0.25, d_coef=0.5, epsilon=2.0**-125)

# rounding


def value(pattern, dtype):
    """The number with these bits; infinity stands where the next number would be."""
    x = np.array(pattern, f"u{dtype.itemsize}").view(dtype)
    return Fraction(float(x)) if np.isfinite(x) else 2 * Fraction(2) ** (exact.FLOAT_FORMATS[dtype.name][2])


def check_nearest(x, got, dtype):
    """By the definition: no neighbour is nearer; where one is as near, the last bit is 0."""
    unsigned = f"u{dtype.itemsize}"
    pattern, last = (int(np.array(y).astype(dtype).view(unsigned)) for y in (abs(got), np.inf))
    error = abs(value(pattern, dtype) - abs(x))
    for neighbour in {max(pattern - 1, 0), min(pattern + 1, last)} - {pattern}:
        other = abs(value(neighbour, dtype) - abs(x))
        assert error < other or (error == other and pattern % 2 == 0)
    assert got == 0 or (got > 0) == (x > 0)


@given(st.integers(-(2**80), 2**80), st.integers(1, 2**80), st.integers(-1200, 1000), dtype_names)
def test_a_rational_rounds_to_the_nearest_float(above, below, exponent, name):
    x = Fraction(above, below) * Fraction(2) ** exponent
    check_nearest(x, exact.nearest(fmpq(x.numerator, x.denominator), name), DTYPES[name])


@given(st.data(), dtype_names, st.sampled_from([-1, 0, 1]))
def test_midpoints_go_to_even_and_a_little_beside_them_does_not(data, name, side):
    dtype = DTYPES[name]
    last = int(np.array(np.inf, dtype).view(f"u{dtype.itemsize}")) - 1
    pattern = data.draw(st.integers(0, last) | st.sampled_from([0, 1, last, last - 1]))
    x = (value(pattern, dtype) + value(pattern + 1, dtype)) / 2 + side * Fraction(1, 2**2000)
    got = exact.nearest(fmpq(x.numerator, x.denominator), name)
    up = side > 0 or (side == 0 and pattern % 2 == 1)
    assert got == (np.inf if pattern + up > last else float(value(pattern + up, dtype)))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_results_that_are_halfway_between_floats_are_decided(name):
    """With xi = 0, delta = -(5/32) theta: two bits more than theta has, and one in four of them a tie."""
    size = 2.0 ** exact.FLOAT_FORMATS[name][0]
    theta = (size / 2 + np.arange(16)) / size
    hyper = HYPER | dict(xi=0.0, momentum=None, extra_l2=0.15625)
    before = theta, np.zeros(16), np.array(0.5), np.array(0.0)
    reals = [Fraction(5, 32) * -Fraction(x) for x in theta]
    assert sum((x * 8 * int(size)).denominator == 2 for x in reals) == 4
    for x, got in zip(reals, exact.step(*before, t=1, dtype=name, **hyper)["delta"], strict=True):
        check_nearest(x, float(got), DTYPES[name])


# distances


def test_ulp_errors():
    third = np.array([fmpq(1, 3)], object)
    assert exact.ulp_error([1 / 3], third, "float64")[0] == pytest.approx(1 / 3, rel=1e-15)  # 0.0101...01|0101...
    assert exact.ulp_error([1.0], [1.0 - 2.0**-53], "float64") == 1.0  # the unit is that of the real number
    assert exact.ulp_error([1.0], [1.0 - 2.0**-53], "float64", at=[1.0]) == 0.5
    assert exact.ulp_error([0.0], [2.0**-149], "float32") == 1.0  # a subnormal unit
    got = [np.inf, np.inf, np.nan, -np.inf]
    assert exact.ulp_error(got, [65520.0, 65519.0, 1.0, 65520.0], "float16").tolist() == [0.0, np.inf, np.inf, np.inf]
