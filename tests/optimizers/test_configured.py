"""Options are read-only; the learning rate can be set."""

import copy
import pickle

import numpy as np
import pytest
from helpers.messages import one_line
from helpers.optimizers import cases, make, members
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import errors
from amos_ref.adamw import AdamW
from amos_ref.optimizers import configured
from amos_ref.rules import Preset

SETTABLE = ["Amos", "Amos that averages and clips", "AdamW"]


def run(opt, steps=(1, 2)):
    params = tree_of(0)
    state = opt.init(params)
    for seed in steps:
        state = opt.step(params, tree_of(seed), state)
    return all_bits((params, state))


CHANGES = {
    "set": lambda opt, key: setattr(opt, key, 5.0),
    "item": lambda opt, key: opt.options.__setitem__(key, 5.0),
    "delete": lambda opt, key: opt.options.__delitem__(key),
    "update": lambda opt, key: opt.options.update({key: 5.0}),
    "or": lambda opt, key: opt.options.__ior__({key: 5.0}),
    "pop": lambda opt, key: opt.options.pop(key),
    "popitem": lambda opt, key: opt.options.popitem(),
    "clear": lambda opt, key: opt.options.clear(),
    "setdefault": lambda opt, key: opt.options.setdefault(key, 5.0),
    "all": lambda opt, key: setattr(opt, "options", {}),
}


@members
def test_no_option_can_be_changed(name):
    opt, wanted = make(name), run(make(name))
    for key in opt.options:
        for change in CHANGES.values():
            with pytest.raises(errors.HyperParameterError) as caught:
                change(opt, key)
            one_line(caught.value, ["read-only", "another"] if key != "learning_rate" else ["read-only"])
        assert getattr(opt, key) is opt.options[key]
    assert run(opt) == wanted


def test_an_attribute_that_is_no_option_does_not_exist():
    with pytest.raises(AttributeError, match="Amos has no attribute 'lr'"):
        _ = amos_ref.Amos().lr


RULES = {
    "mapping": lambda: {".*": 0.5},
    "list": lambda: [1],
    "lists in a mapping": lambda: {".*": [1]},
    "preset": lambda: Preset({".*": 0.5}, {".*": "tensor"}),
    "number": lambda: np.array(0.5),
}


@pytest.mark.parametrize("form", RULES)
def test_rules_are_copied(form):
    rule = RULES[form]()
    option = "slot_shape" if "list" in form else "eta"
    opt = amos_ref.Amos(0.1, **{option: rule})
    theta, wanted = np.ones(2), amos_ref.Amos(0.1, **{option: RULES[form]()})
    first = wanted.update(theta, wanted.init(theta), theta)
    changed = rule.eta if form == "preset" else rule[".*"] if "in a" in form else rule
    changed[... if form == "number" else ".*" if isinstance(changed, dict) else 0] = 7.0
    assert all_bits(opt.update(theta, opt.init(theta), theta)) == all_bits(first)
    kept = opt.options[option]
    for rules in kept if isinstance(kept, Preset) else [kept] if isinstance(kept, dict) else []:
        with pytest.raises(errors.HyperParameterError, match="read-only"):
            rules[".*"] = 7.0


def test_rules_that_were_not_copied_would_be_half_honoured(monkeypatch):
    monkeypatch.setattr(configured, "freeze", lambda value: value)
    rules = {".*": 0.5}
    opt, theta = amos_ref.Amos(0.1, eta=rules), np.ones(2)
    first = opt.update(theta, opt.init(theta), theta)[0]
    rules[".*"] = 7.0
    other = np.ones(3)
    assert (opt.update(theta, opt.init(theta), theta)[0] == first).all()
    assert (opt.update(other, opt.init(other), other)[0] != first[0]).all()


@members
def test_copies_have_the_same_options(name):
    opt = make(name)
    for copied in (copy.copy(opt), copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert copied.options == opt.options
        assert repr(copied) == repr(opt)
        assert run(copied) == run(make(name))
        with pytest.raises(errors.HyperParameterError):
            copied.options.clear()


@pytest.mark.parametrize("name", SETTABLE)
def test_the_learning_rate_can_be_set_between_steps(name):
    for later in (0.25, lambda t: 1 / (t + 1), np.float32(0.25), 0):
        wanted = run(make(name, learning_rate=lambda t, later=later: 0.5 if t < 3 else rate(later, t)), range(4))
        opt, params = make(name, learning_rate=0.5), tree_of(0)
        state = opt.init(params)
        for seed in range(4):
            if seed == 2:
                opt.set_learning_rate(later)
                assert opt.learning_rate == opt.options["learning_rate"] == later
            state = opt.step(params, tree_of(seed), state)
        assert all_bits((params, state)) == wanted
        other = pickle.loads(pickle.dumps(opt)) if not callable(later) else copy.deepcopy(opt)
        assert other.learning_rate == opt.learning_rate


def rate(learning_rate, t):
    return learning_rate(t) if callable(learning_rate) else float(learning_rate)


@cases
def test_a_learning_rate_that_is_set_reaches_a_kept_layout(name, backend):
    if name not in SETTABLE:
        pytest.skip("it has no learning rate")
    options = {"extra_l2": 0.0} if name != "AdamW" else {}
    opt, params = make(name, backend, learning_rate=0.5, **options), tree_of(0)
    state = opt.init(params)
    for seed in range(3):
        state = opt.step(params, tree_of(seed), state)
    opt.set_learning_rate(0.0)
    before = all_bits(params)
    opt.step(params, tree_of(9), state)
    assert (all_bits(params) == before) == ("averages" not in name)  # the averaged changes go on for a while


@pytest.mark.parametrize("name", SETTABLE)
def test_wrong_learning_rates_are_refused_and_change_nothing(name):
    opt = make(name, learning_rate=0.5)
    for wrong in (-1.0, np.nan, np.inf, "0.1", None, True, [0.1]):
        with pytest.raises(errors.HyperParameterError, match=r"learning_rate is .*; it must be finite and >= 0"):
            opt.set_learning_rate(wrong)
    assert opt.learning_rate == 0.5


def test_the_closed_form_has_no_learning_rate_to_set():
    opt = amos_ref.ClosedFormAmos(half_life=10)
    with pytest.raises(errors.HyperParameterError, match="ClosedFormAmos has no learning_rate, but alpha_0, half_life"):
        opt.set_learning_rate(0.1)


def test_the_closed_forms_schedule_cannot_be_changed():
    opt = amos_ref.ClosedFormAmos(half_life=10)
    with pytest.raises(errors.HyperParameterError, match="alpha_0 of a Schedule is read-only"):
        opt.schedule.alpha_0 = 0.5
    with pytest.raises(AttributeError):
        opt.schedule = None


def test_subclasses_may_have_attributes_of_their_own():
    class Mine(AdamW):
        def __init__(self):
            super().__init__(0.1)
            self.named = "mine"

    assert (Mine().named, Mine().learning_rate) == ("mine", 0.1)
