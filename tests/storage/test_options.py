"""Options on disk: they come back as they were, and callables must be given again."""

import fractions

import numpy as np
import pytest
from helpers.messages import one_line

import amos_ref
from amos_ref import Amos, errors, rules


def schedule(t):
    return 0.05 * min(t / 50, 1.0)


def rule(name, shape):
    return 0.25


PLAIN = [
    {},
    {"learning_rate": 0.1, "beta": 0.1 + 0.2, "epsilon": 5e-324, "c_coef": 1e308},
    {"learning_rate": 0, "eta": 3, "momentum": 0, "clip_value": np.float32(0.1), "extra_l2": np.float64(1e-7)},
    {"eta": {r".*\d+\"é": "sqrt(1/SHAPE[0])", "x": 0.1, "z": 2}, "slot_shape": {"x": (1, 3), ".*": "tensor"}},
    {"eta": rules.PAPER_FLAX, "slot_shape": rules.PAPER_FLAX},
    {"eta": rules.PAPER_TORCH, "slot_shape": "element"},
    {"slot_shape": (1, np.int64(3)), "state_dtype": "param", "backend": "numpy", "validate": True},
    {"slot_shape": [], "eta": "sqrt(2/SHAPE[0])", "momentum": None},
]


@pytest.mark.parametrize("options", PLAIN)
def test_options_come_back(options, tmp_path):
    opt = Amos(**options)
    params: dict = {}
    amos_ref.save(tmp_path / "all", params, opt.init(params), opt)
    found = amos_ref.load(tmp_path / "all", params).opt
    want = opt.options
    assert list(found.options) == list(want)
    if isinstance(want["slot_shape"], list | tuple) and not isinstance(want["slot_shape"], rules.Preset):
        want = want | {"slot_shape": tuple(want["slot_shape"])}
    assert found.options == want
    assert type(found) is Amos


def test_an_eta_that_is_a_fraction_comes_back_as_the_number_it_is_used_as(tmp_path):
    opt = Amos(eta=fractions.Fraction(1, 3))
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    assert amos_ref.load(tmp_path / "all", {}).opt.options["eta"] == float(fractions.Fraction(1, 3))


def test_callables_must_be_given_again(tmp_path):
    params = {"w": np.ones(2)}
    opt = Amos(schedule, eta={"w": rule}, slot_shape=lambda name, shape: (), beta=0.75)
    amos_ref.save(tmp_path / "all", params, opt.init(params), opt)
    with pytest.raises(errors.HyperParameterError) as caught:
        amos_ref.load(tmp_path / "all", params, learning_rate=schedule)
    one_line(caught.value, ["all'", "eta (dict)", "slot_shape (test_callables_must_be_given_again.<locals>.<lambda>)"])
    assert "learning_rate" not in str(caught.value)
    found = amos_ref.load(tmp_path / "all", params, learning_rate=0.5, eta=0.5, slot_shape="tensor", backend="numpy")
    assert found.opt.options == Amos(0.5, beta=0.75, backend="numpy").options
    for wrong, words in (({"lr": 0.1}, ["lr"]), ({"beta": 2}, ["beta", "2"])):
        with pytest.raises(errors.HyperParameterError) as caught:
            amos_ref.load(tmp_path / "all", params, learning_rate=0.5, eta=0.5, slot_shape="tensor", **wrong)
        one_line(caught.value, words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, {3: 0.5}, {"w": b"0.5"}])
def test_rules_that_are_no_plain_text_must_be_given_again(value, tmp_path):
    opt = Amos(eta={".*": value})
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    with pytest.raises(errors.HyperParameterError) as caught:
        amos_ref.load(tmp_path / "all", {})
    one_line(caught.value, ["eta (dict)"])
