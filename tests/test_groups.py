"""Rules for single leaves: a factor of the learning rate, extra weight decay, and leaves that do not move."""

import copy
import re
import warnings
from typing import Any

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref import rules
from amos_ref.errors import DtypeError, HyperParameterError, RuleError, StateError, TreeError
from amos_ref.groups import RuleWarning
from amos_ref.kernels import layout, load_backend
from amos_ref.optimizers.amos import Rates
from amos_ref.optimizers.state import LeavesWarning

SHAPES = {"a": (3, 4), "b/c": (), "b/d": (130,), "b/e": (5, 2), "f": (2, 3, 2), "g": (3, 4)}
SLOTS = {"a": (3, 1), "b/c": (), "b/d": "element", "b/e": (1, 2), "f": (1, 3, 1), "g": "tensor"}
FACTORS, DECAYS = {"a": 0.25, "b/c": 3.0, "g": 0.7}, {"a": 0.3, "b/d": "1/SHAPE[0]", "g": 0.1}
FROZEN = {"b/e": True, "g": False}

PAPER = dict(eta=0.3, slot_shape=SLOTS, beta=0.75, c_coef=0.3)
CLOSED = dict(half_life=3, q=1.5, slot_shape=SLOTS, sigma=0.6)
#: What is made with these options, and how one leaf alone is stepped the same way: by its own learning rate and decay.
KINDS = {
    "Amos": (lambda **o: amos_ref.Amos(0.2, **PAPER, extra_l2=DECAYS, **o), "learning_rate", 0.2),
    "Amos that averages": (
        lambda **o: amos_ref.Amos(0.2, **PAPER, momentum=0.6, clip_value=1.5, extra_l2=DECAYS, **o),
        *("learning_rate", 0.2),
    ),
    "closed form": (lambda **o: amos_ref.ClosedFormAmos(0.2, **CLOSED, **o), "alpha_0", 0.2),
    "closed form, adam": (lambda **o: amos_ref.ClosedFormAmos(0.2, direction="adam", **CLOSED, **o), "alpha_0", 0.2),
}
kinds = pytest.mark.parametrize("kind", KINDS)
backends = pytest.mark.parametrize("backend", ["numpy", "cpu"])


def tree_of(seed, nothing="z") -> Any:
    rng = np.random.default_rng(seed)
    drawn = {name: np.asarray(rng.standard_normal(shape)).astype("f4") for name, shape in SHAPES.items()}
    nested = {"b": {name[2:]: a for name, a in drawn.items() if name[1:2] == "/"}}
    return nested | {name: a for name, a in drawn.items() if "/" not in name} | {nothing: None}


def life(opt, steps=4):
    """Parameters and state after some steps, some without a gradient, and with one that is NaN where it is frozen."""
    params = tree_of(0)
    state = opt.init(params)
    for t in range(steps):
        grads = tree_of(t + 1)
        grads["b"]["e"][...] = np.nan
        if t == 2:
            grads["b"]["d"] = None
        state = opt.step(params, grads, state)
    return params, state


def bits(params, state):
    parts = [part for part in state[1:] if part is not None]
    arrays = [*amos_ref.tree.present(params).values(), *(a for part in parts for a in part.values())]
    return [own.bits(np.asarray(a)) for a in arrays]


@kinds
def test_all_backends_give_the_same_bits(kind):
    make, *_ = KINDS[kind]
    page, kernels = (make(lr_factor=FACTORS, frozen=FROZEN, backend=backend) for backend in ("numpy", "cpu"))
    assert bits(*life(page)) == bits(*life(kernels))
    assert kernels._last.peek() is not None  # a frozen leaf, and one that is None, do not cost the layout


@kinds
def test_update_and_step_agree(kind):
    make, *_ = KINDS[kind]
    opt, params, grads = make(lr_factor=FACTORS, frozen=FROZEN), tree_of(0), tree_of(1)
    updates, after = opt.update(grads, opt.init(params), params)
    new = amos_ref.apply_updates(params, updates)
    assert updates["z"] is None
    assert new["z"] is None
    state = opt.step(params, grads, opt.init(params))
    assert bits(new, after) == bits(params, state)


@kinds
@backends
def test_a_leaf_moves_as_if_it_were_alone_with_its_own_numbers(kind, backend):
    make, option, value = KINDS[kind]
    opt = make(lr_factor=FACTORS, frozen=FROZEN, backend=backend)
    params, state = life(opt)
    decays = {"a": 0.3, "b/d": 1 / 130, "g": 0.1}
    for leaf in ("a", "b/c", "b/d", "f", "g"):
        options = dict(opt.options) | {option: value * FACTORS.get(leaf, 1.0), "lr_factor": 1.0}
        if "extra_l2" in options:
            options["extra_l2"] = decays.get(leaf, 0.0)
        alone, other = life(type(opt)(**options))
        assert own.bits(amos_ref.tree.present(params)[leaf]) == own.bits(amos_ref.tree.present(alone)[leaf])
        for one, two in zip(state[1:], other[1:], strict=True):
            assert one is None or own.bits(np.asarray(one[leaf])) == own.bits(np.asarray(two[leaf]))


@kinds
@backends
def test_a_frozen_leaf_is_skipped_wholly(kind, backend):
    make, *_ = KINDS[kind]
    params, state = life(make(frozen=FROZEN, backend=backend))
    fresh = make().init(tree_of(0))
    assert own.bits(params["b"]["e"]) == own.bits(tree_of(0)["b"]["e"])
    for part, start in zip(state[1:], fresh[1:], strict=True):
        if part is not None:
            assert own.bits(np.asarray(part["b/e"])) == own.bits(np.asarray(start["b/e"]))
    params["b"]["e"].flags.writeable = False
    opt = make(frozen=FROZEN, backend=backend)
    grads = tree_of(9) | {"b": tree_of(9)["b"] | {"e": "no array"}}
    assert opt.step(params, grads, state).count == state.count + 1
    assert "b/e" not in opt.trace(tree_of(9), opt.init(params), params)


def test_a_layout_that_forgets_what_is_frozen_is_caught(monkeypatch):
    """Were a frozen leaf stepped by the kept layout, its NaN would be refused."""
    right = layout.KeptLayout.__init__

    def careless(kept, backend, work, params, grads, state, stepping):
        right(kept, backend, work, params, grads, state, [name for name in SHAPES if name != "b/d"])

    monkeypatch.setattr(layout.KeptLayout, "__init__", careless)
    make, *_ = KINDS["Amos"]
    with pytest.raises((ValueError, IndexError)):
        life(make(frozen=FROZEN, backend="cpu"))


def test_a_factor_left_out_of_one_backend_is_caught(monkeypatch):
    def without(rates, leaf):
        return {**rates._asdict(), "eta": leaf.eta, "extra_l2": leaf.own[1]}

    monkeypatch.setattr(Rates, "of", without)
    make, *_ = KINDS["Amos"]
    page, kernels = (make(lr_factor=FACTORS, frozen=FROZEN, backend=backend) for backend in ("numpy", "cpu"))
    assert bits(*life(page)) != bits(*life(kernels))


OWN: list[tuple[dict[str, Any], bool]] = [
    (dict(), False),
    (dict(lr_factor={"a": 1.0}, extra_l2={"b": 0.0}), False),
    (dict(extra_l2=0.3, frozen={"a": True}), False),
    (dict(lr_factor={"a": 0.5}, frozen={"a": True}), False),
    (dict(lr_factor={"b": 0.5}, frozen={"a": True}), True),
    (dict(extra_l2={"b": 0.3}), True),
    (dict(lr_factor=0.5), True),
]


@pytest.mark.parametrize(("options", "reads"), OWN)
def test_kernels_read_own_numbers_only_where_a_leaf_that_steps_has_some(options, reads, monkeypatch):
    """On a GPU they cost registers."""
    opt, params, given = amos_ref.Amos(0.2, backend="cpu", **options), {"a": np.ones(2), "b": np.ones(2)}, []
    backend = load_backend("cpu")
    right = backend.prepare
    monkeypatch.setattr(backend, "prepare", lambda leaves, method: given.append(method) or right(leaves, method))
    opt.step(params, {"a": np.ones(2), "b": np.ones(2)}, opt.init(params))
    assert given == [amos_ref.Amos.own_method if reads else amos_ref.Amos.method]


def test_a_factor_of_nothing_moves_a_leaf_by_extra_decay_alone():
    opt = amos_ref.Amos(0.2, lr_factor={"a": 0.0}, extra_l2={"a": 0.25})
    params, grads = {"a": np.array([2.0, -4.0]), "b": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}
    opt.step(params, grads, opt.init(params))
    assert params["a"].tolist() == [1.5, -3.0]


@pytest.mark.parametrize("rule", [lambda name, shape: 0.5 if name == "a" else 1.0, {"a": 0.5}, {re.compile("a$"): 0.5}])
def test_forms_of_rules(rule: Any):
    params, grads = {"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2), "b": np.ones(2)}
    for option, value in (("lr_factor", rule), ("extra_l2", rule)):
        options: dict[str, Any] = {option: value}
        spelt: dict[str, Any] = {option: {"a": 0.5, "b": 1.0 if option == "lr_factor" or callable(rule) else 0.0}}
        opt, other = amos_ref.Amos(0.2, **options), amos_ref.Amos(0.2, **spelt)
        (one, _), (two, _) = (o.update(grads, o.init(params), params) for o in (opt, other))
        assert {name: own.bits(a) for name, a in one.items()} == {name: own.bits(a) for name, a in two.items()}


WRONG: dict[str, tuple[Any, ...]] = {
    "lr_factor": (-1.0, float("nan"), float("inf"), None, "0.5", True, [1.0]),
    "extra_l2": (-1.0, float("nan"), float("inf"), None, "0.5", True, [1.0]),
    "frozen": (None, 1, "a", 0.0, ["a"]),
}


@pytest.mark.parametrize("option", WRONG)
def test_wrong_values_are_refused(option):
    params = {"a": np.ones(2)}

    def make(rule: Any) -> Any:
        options: dict[str, Any] = {option: rule}
        return amos_ref.Amos(**options)

    for wrong in WRONG[option]:
        with pytest.raises(HyperParameterError) as caught:
            make(wrong)
        one_line(caught.value, [option])
        if wrong not in ("0.5", None):
            opt = make({"a": wrong})
            with pytest.raises(RuleError) as caught:
                opt.init(params)
            one_line(caught.value, [option, "'a'"])
    opt = make(lambda name, shape: {}[name])
    with pytest.raises(RuleError, match=rf"{option}: the callable failed for leaf 'a': KeyError"):
        opt.init(params)


def test_a_factor_beyond_the_closed_forms_range_is_refused():
    with pytest.raises(RuleError, match=r"lr_factor of leaf 'a' is 5\.0; times alpha_0=0\.2 it must be below 1"):
        amos_ref.ClosedFormAmos(0.2, half_life=3, lr_factor={"a": 5.0}).init({"a": np.ones(2)})


def test_rules_that_can_have_no_effect_are_told():
    told: dict[str, Any] = {
        "eta": {"w": 1.0, "w2": 2.0},
        "slot_shape": {"dense": "tensor", "dense/kernel$": "element"},
        "lr_factor": {"w": 1.0, "wide": 0.5},
    }
    for option, rule in told.items():
        options: dict[str, Any] = {option: rule}
        first, later = rule
        with pytest.warns(RuleWarning, match=rf"^{option}: the rule '{later[:5]}.* is never reached, as '{first}'"):
            amos_ref.Amos(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        amos_ref.Amos(eta={"w2": 2.0, "w": 1.0})
        amos_ref.Amos(eta=rules.full_match({"w": 1.0, "w2": 2.0}))
        amos_ref.Amos(eta={"w": 1.0, "w?x": 2.0, "w|x": 1.0})
        amos_ref.Amos(eta=rules.PAPER_FLAX, slot_shape=rules.PAPER_TORCH)
        called: Any = rules.Preset(lambda name, shape: 0.25, lambda name, shape: shape)  # type: ignore[arg-type]
        opt = amos_ref.Amos(eta=called, slot_shape=called)
    assert opt.init({"w": np.ones(2)}).v["w"].shape == (2,)
    with pytest.warns(RuleWarning, match="frozen: the rule 'encodr' matches no leaf; the leaves are 'encoder'"):
        amos_ref.Amos(frozen={"encodr": True}).init({"encoder": np.ones(2)})


def test_whole_names():
    params, grads = {"w": np.ones(2), "w2": np.ones(2)}, {"w": np.ones(2), "w2": np.ones(2)}
    opt = amos_ref.Amos(eta=rules.full_match({"w": 0.5, "w2|v": 2.0}))
    trace = opt.trace(grads, opt.init(params), params)
    assert trace["w2"]["alpha"] == 4 * trace["w"]["alpha"]
    with pytest.raises(RuleError, match="no rule matches leaf 'w3'"):
        opt.init({"w3": np.ones(2)})


def test_groups_are_saved_and_shown(tmp_path):
    opt = amos_ref.Amos(0.2, lr_factor=FACTORS, extra_l2=DECAYS, frozen=FROZEN)
    params = tree_of(0)
    state = opt.init(params)
    amos_ref.save(tmp_path / "file", params, state, opt)
    back = amos_ref.load(tmp_path / "file", params)
    assert back.params["z"] is None
    assert repr(back.opt) == repr(opt)
    assert f"lr_factor={FACTORS}, frozen={FROZEN}" in repr(opt)
    text = str(opt.trace(tree_of(1), state, params))
    assert "leaf 'a': shape (3, 4), slot (), eta=0.5, lr_factor=0.25, extra_l2=0.3\n" in text
    assert "leaf 'f': shape (2, 3, 2), slot (), eta=0.5\n" in text
    assert "extra_l2" not in text.partition("\n")[0]


def test_trees_with_none():
    opt = amos_ref.Amos(0.2)
    params = {"a": np.ones(2), "n": None}
    assert list(opt.init(params).v) == ["a"]
    with pytest.raises(TreeError, match="grads do not match params: extra 'n'"):
        opt.update({"a": np.ones(2), "n": np.ones(2)}, opt.init(params), params)
    with pytest.raises(DtypeError, match="params leaf ''"):
        opt.init(None)


@pytest.mark.filterwarnings("ignore::amos_ref.groups.RuleWarning")  # of 'a', which is not there
@pytest.mark.parametrize("kind", ["Amos", "closed form, adam"])
def test_a_state_for_other_leaves(kind, tmp_path):
    make, *_ = KINDS[kind]
    opt = make(frozen=FROZEN)
    params, state = life(opt)
    wider = copy.deepcopy(params)
    wider["new"] = np.full((3,), 0.7, np.float32)
    del wider["a"]
    rule = {**SLOTS, "new": "tensor"}
    other = type(opt)(**{**opt.options, "slot_shape": rule})
    amos_ref.save(tmp_path / "all", params, state, other)
    start = other.init(wider)
    with pytest.raises(StateError, match="missing leaf 'new'; extra leaf 'a'"):
        amos_ref.load_state(tmp_path / "all", like=wider)
    with pytest.warns(
        LeavesWarning, match="missing leaf 'new'; extra leaf 'a'; a missing leaf starts anew, but at the file"
    ):
        found = amos_ref.load_state(tmp_path / "all", like=wider, strict=False, start=start)
    with pytest.warns(LeavesWarning):
        checkpoint = amos_ref.load(tmp_path / "all", wider, strict=False)
    assert checkpoint.params["new"] is not wider["new"]
    assert own.bits(checkpoint.params["new"]) == own.bits(wider["new"])
    for loaded in (found, checkpoint.state):
        assert loaded.count == state.count
        for part in state._fields[1:]:
            if getattr(state, part) is not None:
                arrays = getattr(loaded, part)
                assert list(arrays) == list(amos_ref.tree.present(wider))
                for name, a in arrays.items():
                    origin = getattr(start if name == "new" else state, part)[name]
                    assert a is not origin
                    assert own.bits(np.asarray(a)) == own.bits(np.asarray(origin))
        other.step(copy.deepcopy(wider), copy.deepcopy(wider), loaded)
    knows = type(opt)(**{**opt.options, "slot_shape": SLOTS})
    amos_ref.save(tmp_path / "knows", params, state, knows)
    words = r"'new'.*\(these are the rules in the file, and new ones can be given: load\(path, like, strict=False"
    with pytest.raises(RuleError, match=words), pytest.warns(LeavesWarning):
        amos_ref.load(tmp_path / "knows", wider, strict=False)
    with pytest.warns(LeavesWarning):
        assert "new" in amos_ref.load(tmp_path / "knows", wider, strict=False, slot_shape=rule).state[1]
    for wrong in (None, state, 3):
        with pytest.raises(StateError), pytest.warns(LeavesWarning):
            amos_ref.load_state(tmp_path / "all", like=wider, strict=False, start=wrong)
