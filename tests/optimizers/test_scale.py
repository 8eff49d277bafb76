"""eta="init" of paper Amos, and the warning for whoever gives no eta."""

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
from helpers.messages import one_line

import amos_ref
from amos_ref import Amos, closed_form
from amos_ref.errors import HyperParameterError, RuleError, StateError, StorageError
from amos_ref.optimizers import scale
from amos_ref.optimizers.scale import DefaultEta
from amos_ref.optimizers.state import AmosState, EtaWarning, ScaledAmosState, SigmaWarning
from amos_ref.rules import PAPER_FLAX, Preset

PARAMS = {
    "a": np.array([[3.0, -4.0], [0.0, 0.0]]),
    "zeros": np.zeros(3),
    "ones": np.ones((2, 2)),
    "b": np.array([2.0, 4.0]),
}


def fresh():
    return copy.deepcopy(PARAMS)


def grads_at(t):
    rng = np.random.default_rng(t)
    return {name: rng.normal(size=a.shape) for name, a in PARAMS.items()}


def after(opt, params, state, steps=range(4)):
    for t in steps:
        state = opt.step(params, grads_at(t), state)
    return params, state


def test_eta_is_the_size_of_the_entries_and_half_for_zeros_and_ones():
    state = Amos(0.1, eta="init").init(PARAMS)
    assert type(state) is ScaledAmosState
    assert {name: float(x) for name, x in state.eta.items()} == {"a": 2.5, "zeros": 0.5, "ones": 0.5, "b": 10**0.5}
    assert all(x.shape == () and x.dtype == np.float64 for x in state.eta.values())


def test_it_steps_as_with_these_numbers_though_entries_move():
    etas = {"a": 2.5, "zeros": 0.5, "ones": 0.5, "b": float(np.sqrt(10.0))}
    options = dict(learning_rate=0.1, slot_shape={"a": (2, 1), ".*": "tensor"}, extra_l2=0.01, momentum=0.5)
    for backend in ("numpy", "cpu"):
        want, got = Amos(eta=etas, backend=backend, **options), Amos(eta="init", backend=backend, **options)
        params, state = after(want, fresh(), want.init(PARAMS))
        others, other = after(got, fresh(), got.init(PARAMS))
        assert all((params[name] == others[name]).all() for name in params)
        assert all((state.b[name] == other.b[name]).all() and (state.m[name] == other.m[name]).all() for name in params)


def test_another_measure_would_be_seen(monkeypatch):
    monkeypatch.setattr(closed_form, "initial_sigma", lambda theta: float(np.std(theta)) or 0.5)
    with pytest.raises(AssertionError):
        test_eta_is_the_size_of_the_entries_and_half_for_zeros_and_ones()


@pytest.mark.parametrize("rule", [{"a": "init", ".*": 0.25}, Preset({"a": "init", ".*": "1 / 4"}, {".*": "tensor"})])
def test_a_mapping_may_have_it_for_some(rule):
    state = Amos(0.1, eta=rule).init(PARAMS)
    assert {name: float(x) for name, x in state.eta.items()} == {"a": 2.5, "zeros": 0.25, "ones": 0.25, "b": 0.25}


@pytest.mark.parametrize(("size", "found"), [(1e-300, "0.0"), (1e300, "inf")])
def test_a_size_whose_square_is_out_of_range_is_named(size, found):
    words = f"eta of leaf 'a', the root mean square of its entries, is {found}; it must be a finite number > 0"
    with pytest.raises(RuleError) as error:
        Amos(0.1, eta="init").init({"a": np.full(4, -size)})
    one_line(error.value, [words])
    with pytest.raises(RuleError) as error:
        amos_ref.ClosedFormAmos(half_life=9).init({"a": np.full(4, -size)})
    one_line(error.value, [words.replace("eta", "sigma")])


def test_default_eta_warns_of_the_largest_entries_too():
    with pytest.warns(EtaWarning, match=re.escape("'a' (inf)")):
        Amos(0.1).init({"a": np.full((4, 4), 1e300)})


def test_a_mapping_is_looked_through_once_and_not_for_every_leaf(monkeypatch):
    looked = []
    monkeypatch.setattr("amos_ref.optimizers.amos.measures", lambda rule: looked.append(rule) or scale.measures(rule))
    opt = Amos(0.1, eta={"a": "init", ".*": 0.25})
    state = opt.init(PARAMS)
    opt.update(grads_at(0), state, PARAMS)
    assert len(looked) == 1
    assert type(opt.set_params(eta=0.25).init(PARAMS)) is AmosState


def test_a_callable_cannot_say_it():
    with pytest.raises(RuleError, match="eta of leaf 'a' is 'init'"):
        Amos(0.1, eta=lambda name, shape: "init").init(PARAMS)


def test_updates_copies_and_pickles_keep_it():
    opt = Amos(0.1, eta="init")
    state = opt.init(PARAMS)
    updates, new = opt.update(grads_at(0), state, PARAMS)
    assert new.eta == state.eta
    opt, new = pickle.loads(pickle.dumps((opt, new)))
    assert {name: float(x) for name, x in new.eta.items()} == {name: float(x) for name, x in state.eta.items()}
    opt.step(amos_ref.apply_updates(fresh(), updates), grads_at(1), new)


def test_states_with_and_without_it_are_told_apart():
    with pytest.raises(StateError, match="is not of type ScaledAmosState but AmosState"):
        Amos(0.1, eta="init").update(grads_at(0), Amos(0.1, eta=0.25).init(PARAMS), PARAMS)
    with pytest.raises(StateError, match="is not of type AmosState but ScaledAmosState"):
        Amos(0.1, eta=0.25).update(grads_at(0), Amos(0.1, eta="init").init(PARAMS), PARAMS)
    assert AmosState._fields == ("count", "v", "b", "m")


def test_a_state_with_an_eta_that_no_init_makes_is_refused(tmp_path):
    opt = Amos(0.1, eta="init")
    state = opt.init(PARAMS)._replace(eta={name: np.array(-1.0) for name in PARAMS})
    with pytest.raises(StateError, match=r"state.eta of leaf 'a' is -1.0; it must be finite and > 0"):
        amos_ref.save_state(tmp_path / "a", state)


def test_a_file_with_it_is_not_read_for_an_eta_that_is_given(tmp_path):
    opt = Amos(0.1, eta="init", state_dtype="param")
    params = {"a": np.full((2, 2), 0.3, np.float16) * [[1, 2], [3, 4]]}
    params = {"a": params["a"].astype(np.float16)}
    amos_ref.save(tmp_path / "a", params, opt.init(params), opt)
    loaded = amos_ref.load(tmp_path / "a", params)
    assert loaded.state.eta["a"].dtype == np.float64
    assert loaded.opt.options == opt.options
    assert amos_ref.load_state(tmp_path / "a", params, "param").eta["a"] == loaded.state.eta["a"]
    with pytest.raises(HyperParameterError, match="eta='init' has the one"):
        amos_ref.load(tmp_path / "a", params, eta=0.5)
    assert issubclass(StorageError, OSError)


def test_a_constant_is_warned_of():
    with pytest.warns(SigmaWarning, match=r"eta of leaf 'a' is 0.25, .* first steps are xi times that.*give eta=0.5"):
        Amos(0.1, eta="init").init({"a": np.full(4, 0.25)})


# no eta


def warnings_of(opt, params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt.init(params)
    return [(str(x.message), x.category, x.filename) for x in caught]


def kernel(size, shape=(64, 10)):
    return np.random.default_rng(0).normal(scale=size, size=shape)


def test_leaves_far_from_the_default_are_named_once_with_their_size():
    params = {"hidden": kernel(0.12), "wide": kernel(3.0), "near": kernel(0.4), "bias": kernel(9.0, (64,))}
    ((message, category, file),) = warnings_of(Amos(0.1), params)
    assert category is EtaWarning
    assert file == __file__
    assert message.startswith(
        "eta was not given, and is 0.5 for all leaves, but the entries of 'hidden' (0.12), 'wide' (3"
    )
    assert "amos_ref.choose(params)" in message
    assert "near" not in message
    assert "bias" not in message
    ((message, _, _),) = warnings_of(Amos(), {str(i): kernel(0.01) for i in range(9)})
    assert message.count("(0.01)") == 4
    assert "and 5 more are of another size" in message


@pytest.mark.parametrize("eta", [0.5, "init", PAPER_FLAX, {".*": 0.5}])
def test_an_eta_that_is_given_is_not_warned_of(eta):
    assert warnings_of(Amos(0.1, eta=eta), {"Dense_0": {"kernel": kernel(0.125)}}) == []


def test_what_says_nothing_of_its_size_is_not_warned_of():
    params = {
        "zeros": np.zeros((64, 10)),
        "few": np.full((3, 5), 0.01),
        "empty": np.zeros((0, 4)),
        "number": np.array(9.0),
    }
    assert warnings_of(Amos(0.1), params) == []
    assert warnings_of(amos_ref.ClosedFormAmos(half_life=9), {"hidden": kernel(0.125)}) == []


def test_another_threshold_would_be_seen(monkeypatch):
    monkeypatch.setattr(scale, "FARTHEST", 5.0)
    with pytest.raises(AssertionError):
        test_leaves_far_from_the_default_are_named_once_with_their_size()


def test_the_default_is_a_half_and_is_saved_as_one(tmp_path):
    opt = Amos()
    assert repr(opt).startswith("Amos(learning_rate=0.001, eta=0.5, ")
    assert isinstance(opt.options["eta"], DefaultEta)
    params = {"a": kernel(0.4)}
    amos_ref.save(tmp_path / "a", params, opt.init(params), opt)
    assert type(amos_ref.load(tmp_path / "a", params).opt.options["eta"]) is float
