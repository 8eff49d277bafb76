"""A choice's entries as rules, among rules by name."""

import warnings

import numpy as np
import pytest
from helpers.messages import one_line

import amos_ref
from amos_ref import Amos, ClosedFormAmos
from amos_ref.errors import HyperParameterError, RuleError
from amos_ref.storage.options import decode_options, encode_options

PARAMS = {
    "fc.weight": np.full((5, 4), 0.5),
    "fc.bias": np.zeros(5),
    "fc.weight_scale": np.ones(5),
    "new.w": np.ones((2, 3)),
}
OLD = {name: a for name, a in PARAMS.items() if name.startswith("fc.")}
CHOICE = amos_ref.choose(OLD, overrides={"fc.weight_scale": 2.0})
ETA, SLOTS = {**CHOICE, "new.*": 0.25}, {**CHOICE, "new.*": (2, 1)}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_entries_mix_with_rules_for_other_leaves():
    state = Amos(0.1, eta=ETA, slot_shape=SLOTS).init(PARAMS)
    assert {name: v.shape for name, v in state.v.items()} == {
        "fc.weight": (5, 1),
        "fc.bias": (),
        "fc.weight_scale": (),
        "new.w": (2, 1),
    }
    sigma = ClosedFormAmos(half_life=10, sigma=ETA, slot_shape=SLOTS).init(PARAMS).sigma
    assert {name: float(x) for name, x in sigma.items()} == {
        "fc.weight": 0.5,
        "fc.bias": 0.5,
        "fc.weight_scale": 2.0,
        "new.w": 0.25,
    }


def test_it_steps_as_with_these_numbers():
    grads = {name: np.random.default_rng(3).normal(size=a.shape) for name, a in PARAMS.items()}
    numbers = {rf"{name}\Z": entry.eta for name, entry in CHOICE.items()} | {"new.*": 0.25}
    slots = {rf"{name}\Z": entry.slot_shape for name, entry in CHOICE.items()} | {"new.*": (2, 1)}
    got, want = Amos(0.1, eta=ETA, slot_shape=SLOTS), Amos(0.1, eta=numbers, slot_shape=slots)
    for (_, mine), (_, other) in zip(
        got.update(grads, got.init(PARAMS), PARAMS)[0].items(),
        want.update(grads, want.init(PARAMS), PARAMS)[0].items(),
        strict=True,
    ):
        assert (mine == other).all()


def test_a_rule_before_an_entry_wins_and_one_behind_it_does_not():
    assert amos_ref.rules.eta_of({"fc.*": 0.125, **CHOICE}, "fc.weight", (5, 4)) == 0.125
    assert amos_ref.rules.eta_of({**CHOICE, "fc.*": 0.125}, "fc.weight", (5, 4)) == 0.5


def test_one_entry_is_for_the_leaf_of_its_name_and_shape():
    entry = CHOICE["fc.weight"]
    assert amos_ref.rules.eta_of({"fc.weight": entry, ".*": 3.0}, "fc.weight_scale", (5,)) == 3.0
    with pytest.raises(RuleError) as error:
        amos_ref.rules.eta_of({".*": entry}, "fc.weight", (5, 4))
    one_line(error.value, ["an entry of a choice is for its own leaf only: give its eta and slot_shape"])
    with pytest.raises(RuleError, match="it was chosen for shape"):
        amos_ref.rules.eta_of({"fc.weight": entry}, "fc.weight", (4, 5))
    with pytest.raises(RuleError, match="lr_factor: a choice has eta and slot shapes only"):
        Amos(0.1, eta=ETA, lr_factor={**CHOICE}).init(PARAMS)


@pytest.mark.parametrize(("option", "field"), [("eta", "eta"), ("slot_shape", "slot_shape")])
def test_one_entry_is_no_rule_for_all_leaves(option, field):
    with pytest.raises(HyperParameterError) as error:
        Amos(0.1, **{option: CHOICE["fc.weight"]})
    one_line(error.value, [f"{option} is one entry of a choice; give the choice, or the entry's {field}"])


def test_an_entry_that_is_unknown_is_an_error_when_it_is_used():
    rules = {**amos_ref.choose({"strange": (2, 2, 2)}), "new.*": 0.25}
    with pytest.raises(RuleError) as error:
        Amos(0.1, eta=rules).init({"strange": np.ones((2, 2, 2))})
    one_line(error.value, ["overrides={'strange': 0.5}"])


def test_entries_serve_as_overrides():
    other = amos_ref.choose({"fc.weight": (5, 4)}, layout="flax", overrides={"fc.weight": (0.75, (1, 4))})
    choice = amos_ref.choose(OLD, overrides=dict(other))
    assert (choice["fc.weight"].eta, choice["fc.weight"].slot_shape) == (0.75, (1, 4))


def test_files_hold_them(tmp_path):
    assert decode_options(encode_options({"eta": ETA, "slot_shape": SLOTS}), {}) == {"eta": ETA, "slot_shape": SLOTS}
    opt = Amos(0.1, eta=ETA, slot_shape=SLOTS)
    amos_ref.save(tmp_path / "a", PARAMS, opt.init(PARAMS), opt)
    assert amos_ref.load(tmp_path / "a", PARAMS)[2].options["eta"] == ETA


def test_an_entry_that_matched_as_a_pattern_would_be_seen(monkeypatch):
    monkeypatch.setattr(amos_ref.rules, "LeafRule", type(None))
    with pytest.raises((AssertionError, RuleError)):
        test_entries_mix_with_rules_for_other_leaves()
