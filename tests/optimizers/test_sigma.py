"""sigma="init" of arrays that start as one constant: what is warned of, and what is not."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref import ClosedFormAmos
from amos_ref.optimizers.state import SigmaWarning

PARAMS = {
    "layer_scale": np.full(4, 1e-6, np.float32),
    "half": np.full((2, 3), -0.25, np.float16),
    "table": np.full((3, 1), 2.0, own.BFLOAT16),
    "zeros": np.zeros(3),
    "minus zeros": np.full(3, -0.0),
    "ones": np.ones((2, 2)),
    "halves": np.full(2, 0.5),  # whose sigma is 0.5
    "number": np.array(3.0),
    "one": np.full((1, 1), 3.0),
    "none": np.empty((0, 2)),
    "signs": np.array([2.0, -2.0]),
    "almost": np.array([1e-6, 1e-6, 2e-6]),
}
NAMED = ["half", "layer_scale", "table"]  # in the order of a tree


def warned(opt, params=PARAMS):
    """The leaves that init warns of, and the state that it returns."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = opt.init(params)
    assert {one.category for one in caught} <= {SigmaWarning}
    assert {one.filename for one in caught} <= {__file__}  # the caller's line
    return [str(one.message).split("'")[1] for one in caught], found


def test_each_constant_is_named_once_with_its_values():
    opt = ClosedFormAmos(half_life=9)
    names, found = warned(opt)
    assert names == NAMED
    assert [float(found.sigma[name]) for name in NAMED] == [0.25, float(np.float32(1e-6)), 2.0]
    for again in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert warned(again)[0] == []
    assert warned(ClosedFormAmos(half_life=9))[0] == NAMED
    with pytest.raises(SigmaWarning) as caught:
        ClosedFormAmos(half_life=9).init({"half": PARAMS["half"]})
    one_line(caught.value, ["sigma of leaf 'half' is 0.25", "all its entries start at -0.25", "sigma=0.5", "a rule"])


def test_what_was_said_is_not_warned_of():
    assert warned(ClosedFormAmos(half_life=9, sigma=0.5))[0] == []
    assert warned(ClosedFormAmos(half_life=9, sigma={"layer.*": 0.5, ".*": "init"}))[0] == ["half", "table"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda names, option, name, sigma, theta: None,
        lambda names, option, name, sigma, theta: warnings.warn(f"'{name}'", SigmaWarning, stacklevel=5),
    ],
)
def test_silence_and_noise_would_be_seen(monkeypatch, wrong):
    monkeypatch.setattr("amos_ref.optimizers.scale._warn_of_constant", wrong)
    with pytest.raises(AssertionError):
        test_each_constant_is_named_once_with_its_values()


def test_a_number_and_a_half_are_no_constants():
    for name in ("number", "one", "halves", "none", "signs"):
        assert warned(ClosedFormAmos(half_life=9), {name: PARAMS[name]})[0] == []


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan, np.inf])
def test_a_sigma_that_no_init_makes_is_refused_where_a_state_comes_in(value, tmp_path):
    params = {"w": np.array([3.0, -4.0]), "b": np.array(0.5)}
    opt = ClosedFormAmos(0.1, half_life=5, validate=True)
    state = opt.init(params)
    wrong = state._replace(sigma={"w": state.sigma["w"], "b": np.array(value)})
    said = rf"state.sigma of leaf 'b' is {value}; it must be finite and > 0"
    with pytest.raises(amos_ref.errors.StateError, match=said):
        amos_ref.save_state(tmp_path / "state.npz", wrong)
    with pytest.raises(amos_ref.errors.StateError, match=said):
        amos_ref.interop.from_optax(wrong, params)
    with pytest.raises(amos_ref.errors.StateError, match=said):
        opt.step(params, params, wrong)
    assert params["w"].tolist() == [3.0, -4.0]
