"""What a case does is compared with what a list says of it, in the bounds of the case."""

import math

import numpy as np
import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import pins, table
from amos_ref.conformance.judging import judge
from amos_ref.errors import ExpectationError

CASES = {(case.name, case.dtype): case for case in table()}


def seen(wrong, name="plain", dtype="float64"):
    return judge.judge(ToyPort(wrong), CASES[name, dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_case_does_what_its_deviation_does_and_nothing_else(dtype):
    port = ToyPort("sum for mean")
    port.dtypes = {dtype}
    _, one = judge.judge(port, CASES["plain", dtype])
    assert pins.differs(one, ["sum-for-mean"]) == ""
    for others in ([], ["bias-absent"], ["sum-for-mean", "maximize"]):
        where = pins.differs(one, others)
        assert where.startswith("at step 1, ")
        assert " where the page with that has " in where


def test_the_first_number_is_the_one_that_departs_most_and_is_found_again():
    for wrong in ("sum for mean", "c with xi", "d without eta"):
        r, one = seen(wrong)
        place, value = pins.first_number(one, r)
        assert place[:3] == (r.step, r.stage, r.leaf)
        assert pins.misses(one, place, value) == ""
        for off in (1.001, 0.999, -1.0):
            assert pins.misses(one, place, off * value).startswith("it is ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_equals_itself_alone(value):
    """With a tolerance relative to infinity every number would do."""
    r, one = seen("sum for mean")
    place, number = pins.first_number(one, r)
    one.shown[place.step - 1][place.stage][place.leaf][place.index] = value
    assert pins.first_number(one, r)[0] == place
    assert pins.misses(one, place, value) == ""
    assert pins.misses(one, place, number) != ""
    assert pins.misses(one, place, -value if value == value else 0.0) != ""


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"step": 99}, "the port shows nothing there"),
        ({"stage": "m"}, "the port shows nothing there"),
        ({"leaf": "x"}, "the port shows nothing there"),
        ({"index": (10**30,)}, "it has the shape ()"),
        ({"stage": "theta", "index": (1,)}, "it has the shape (6, 5)"),
    ],
)
def test_a_place_that_is_not_there_is_no_match(change, text):
    r, one = seen("sum for mean")
    place, value = pins.first_number(one, r)
    assert pins.misses(one, place._replace(leaf="kernel")._replace(**change), value) == text


def test_a_leaf_that_was_not_stepped_yet_is_no_match():
    _, one = seen("sum for mean", "none-at-first")
    never = next(name for name, g in one.case.grads[0].items() if g is None)
    place = pins.Place(1, "theta", never, (0,) * one.case.params[never].ndim)
    assert pins.misses(one, place, 0.0) == "the port shows nothing there"


def test_a_port_that_computes_in_float32_may_round_otherwise_elsewhere():
    r, one = seen("")
    assert r.verdict == "conforms"
    theta = one.shown[0]["theta"]["kernel"]
    exact = theta.copy()
    theta[...] = np.float32(exact * (1 + 2.0**-22))
    r = judge.compare(one)
    assert r.verdict == "departs"
    place, value = pins.first_number(one, r)
    theta[...] = np.float32(exact * (1 - 2.0**-22))
    assert pins.misses(one, place, value) == ""
    theta[...] = exact * (1 + 2.0**-10)
    assert pins.misses(one, place, value) != ""


def test_names_are_those_of_deviations():
    pins.check_names(["clip-ignored", "extra_l2-sign"])
    with pytest.raises(ExpectationError, match="there is no deviation 'clip'"):
        pins.check_names(["clip-ignored", "clip"])
