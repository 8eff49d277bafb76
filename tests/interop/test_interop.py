"""Interop without the frameworks: what the states of others may look like, and the errors for the rest."""

import builtins
import collections
import dataclasses
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.messages import one_line

from amos_ref import Amos, AmosState, errors
from amos_ref.interop import from_optax, from_torch, to_optax, to_torch


class ScaleByAmosState(NamedTuple):
    count: Any
    v: Any
    b: Any


class EmaState(NamedTuple):
    count: Any
    ema: Any


class Wrapper(NamedTuple):
    other: Any
    inner_state: Any


class EmptyState(NamedTuple):
    pass


class MaskedNode(NamedTuple):
    pass


class MultiStepsState(NamedTuple):
    mini_step: Any
    inner_opt_state: Any
    acc_grads: Any


@dataclasses.dataclass(frozen=True)
class TrainState:
    step: int
    opt_state: Any


class FrozenDict(collections.abc.Mapping):
    """As flax has it."""

    def __init__(self, entries):
        self.entries = dict(entries)

    def __getitem__(self, key):
        return self.entries[key]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)


PARAMS = {"w": np.ones((2, 3)), "x": [np.ones(())]}
V = {"w": np.full((1, 3), 0.5), "x": [np.array(0.25)]}
B = {"w": np.full((1, 3), 2.0), "x": [np.array(4.0)]}
AMOS, EMA = ScaleByAmosState(np.array(7), V, B), EmaState(np.array(7), {"w": np.ones((2, 3)), "x": [np.array(3.0)]})
CHAIN = (EmptyState(), Wrapper(3, (AMOS, EMA)))


def raised(error, words, call, *args):
    with pytest.raises(error) as caught:
        call(*args)
    assert type(caught.value) is error
    one_line(caught.value, words)


def test_a_state_is_found_at_any_depth_and_copied():
    state = from_optax(CHAIN, PARAMS)
    assert state.count == 7
    assert (state.v["w"], state.b["x/0"], state.m["x/0"]) == (pytest.approx(V["w"]), 4.0, 3.0)
    state.v["w"][:] = 9
    assert (V["w"] == 0.5).all()
    assert from_optax(AMOS, PARAMS).m is None


def test_giving_back_changes_the_numbers_and_nothing_else():
    state = from_optax(CHAIN, PARAMS)
    new = AmosState(8, *({n: a + 1 for n, a in part.items()} for part in (state.v, state.b, state.m)))
    new.v["x/0"], new.b["x/0"], new.m["x/0"] = np.array(1.25), np.array(5.0), np.array(4.0)
    empty, (other, (amos, ema)) = to_optax(new, CHAIN)
    assert type(empty) is EmptyState
    assert other == 3
    assert (type(amos), type(ema)) == (ScaleByAmosState, EmaState)
    assert (amos.count, ema.count, amos.v["x"], ema.ema["x"]) == (8, 8, [1.25], [4.0])
    assert amos.count.dtype == AMOS.count.dtype
    assert (AMOS.v["w"] == 0.5).all()


def test_state_dtype_float64_widens():
    narrow = ScaleByAmosState(np.array(1), np.ones((), "f2"), np.ones((), "f2"))
    assert from_optax(narrow, np.ones(3, "f2")).v[""].dtype == np.float16
    state = from_optax((narrow, EmaState(1, np.ones(3, "f2"))), np.ones(3, "f2"), "float64")
    assert {a.dtype.name for part in (state.v, state.b, state.m) for a in part.values()} == {"float64"}
    raised(errors.HyperParameterError, ["state_dtype", "'f4'"], from_optax, narrow, np.ones(3), "f4")


S, T = errors.StateError, errors.TreeError
# Under optax.partition each transformation has the leaves of one label, and a MaskedNode for all others.
LEFT, RIGHT = {"w": None, "x": [MaskedNode()]}, {"w": MaskedNode(), "x": [None]}


def part(kind, where, count=7):
    """AMOS or EMA for the leaves of one label."""
    fields = [
        ({"w": f["w"], "x": [MaskedNode()]} if where is LEFT else {"w": MaskedNode(), "x": f["x"]}) for f in kind[1:]
    ]
    return kind._replace(count=np.array(count), **dict(zip(kind._fields[1:], fields, strict=True)))


def partition(left, right):
    return Wrapper(3, {"left": Wrapper(3, left), "right": Wrapper(3, right)})


CONTAINERS = {
    "dataclass": TrainState(5, CHAIN),
    "list": [EmptyState(), [AMOS, EMA]],
    "mappings": FrozenDict({"0": {}, "1": AMOS._asdict(), "2": EMA._asdict()}),
    "read-only mapping": types.MappingProxyType({"a": CHAIN}),
    "default": collections.defaultdict(list, a=CHAIN),
    "mapping of arrays": (
        AMOS._replace(v=FrozenDict(V), b=FrozenDict({"w": B["w"], "x": {"0": B["x"][0]}})), EMA,
    ),
    "two parts": partition((part(AMOS, LEFT), part(EMA, LEFT)), (part(AMOS, RIGHT), part(EMA, RIGHT))),
    "whole steps": MultiStepsState(np.array(0), CHAIN, {"w": np.ones((2, 3)), "x": [np.ones(())]}),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTAINERS)
def test_a_state_is_found_in_any_container_and_given_back_in_it(case):
    opt_state = CONTAINERS[case]
    assert repr(from_optax(opt_state, PARAMS)) == repr(from_optax(CHAIN, PARAMS))
    frozen = FrozenDict({"w": PARAMS["w"], "x": FrozenDict({0: PARAMS["x"][0]})})
    assert repr(from_optax(opt_state, frozen)) == repr(from_optax(CHAIN, PARAMS))
    state = from_optax(CHAIN, PARAMS)
    new = AmosState(8, *({n: np.asarray(a + 1) for n, a in arrays.items()} for arrays in state[1:]))
    given = to_optax(new, opt_state)
    assert type(given) is type(opt_state)
    assert repr(from_optax(given, PARAMS)) == repr(new)
    assert repr(from_optax(opt_state, PARAMS)) == repr(state)


def test_leaves_of_other_transformations_are_left_out():
    # Beside Amos for "w" alone stands something with an average of its own.
    opt_state = partition((part(AMOS, LEFT),), (part(EMA, RIGHT),))
    state = from_optax(opt_state, {"w": PARAMS["w"]})
    assert (list(state.v), state.m) == (["w"], None)
    assert repr(from_optax(to_optax(state, opt_state), {"w": PARAMS["w"]})) == repr(state)
    raised(S, ["MaskedNode for leaf 'x/0'", "give params without"], from_optax, opt_state, PARAMS)


def test_without_looking_into_mappings_these_states_would_not_be_found(monkeypatch):
    monkeypatch.setattr(
        "amos_ref.tree.children_of", lambda node: dict(enumerate(node)) if type(node) is tuple else None
    )
    with pytest.raises(S, match="0 parts"):
        test_a_state_is_found_in_any_container_and_given_back_in_it("two parts")


def nested(levels):
    return (nested(levels - 1),) if levels else AMOS


OPTAX = {
    "none": ((EmptyState(), EMA), S, ["0 parts", "count, v and b"]),
    "no tuple": ({"v": 1}, S, ["0 parts"]),
    "two": ((AMOS, AMOS), S, ["2 parts", "both opt_state[0] and opt_state[1] have leaf 'w'"]),
    "two averages": ((AMOS, EMA, EMA), S, ["2 parts", "ema"]),
    "leaf missing": (AMOS._replace(v={"w": V["w"]}), T, ["opt_state.v", "missing 'x/0'"]),
    "leaf extra": (AMOS._replace(b=B | {"z": np.ones(1)}), T, ["opt_state.b", "extra 'z'"]),
    "slot too long": (AMOS._replace(v=V | {"w": np.ones(2)}, b=B | {"w": np.ones(2)}), S, ["'w'", "(2,)", "(2, 3)"]),
    "b of another shape": (AMOS._replace(b=B | {"w": np.ones((1, 1))}), S, ["state.b of leaf 'w'", "(1, 1)"]),
    "ema too short": ((AMOS, EMA._replace(ema=EMA.ema | {"w": np.ones(3)})), S, ["state.m of leaf 'w'", "(3,)"]),
    "integers": (AMOS._replace(v=V | {"w": np.ones((1, 3), int)}), S, ["state.v of leaf 'w'", "int64"]),
    "count -1": (AMOS._replace(count=np.array(-1)), S, ["count", "-1"]),
    "count 1.5": (AMOS._replace(count=1.5), S, ["count", "1.5"]),
    "counts": (AMOS._replace(count=np.ones(2, int)), S, ["count"]),
    "count True": (AMOS._replace(count=True), S, ["count", "True"]),
}


@pytest.mark.parametrize("case", OPTAX)
def test_an_optax_state_that_does_not_fit_is_refused(case):
    opt_state, error, words = OPTAX[case]
    raised(error, words, from_optax, opt_state, PARAMS)


def test_a_state_that_does_not_fit_the_optax_state_is_refused():
    state = from_optax(CHAIN, PARAMS)
    plain = state._replace(m=None)
    assert to_optax(plain, AMOS).count == 7
    raised(S, ["has momentum", "like has none"], to_optax, state, AMOS)
    raised(S, ["no momentum", "like has one"], to_optax, plain, CHAIN)
    raised(S, ["0 parts"], to_optax, state, EMA)
    raised(S, ["2 parts", "ema"], to_optax, state, (AMOS, EMA, EMA))
    raised(T, ["state.v", "missing 'x/0'"], to_optax, plain._replace(v={"w": V["w"]}), AMOS)
    other = plain._replace(b=plain.b | {"w": np.ones((2, 1))})
    raised(errors.ShapeError, ["state.b of leaf 'w'", "(2, 1)", "(1, 3)"], to_optax, other, AMOS)
    small = AMOS._replace(count=np.array(0, "i4"))
    raised(S, ["count", str(2**31), "int32", str(2**31 - 1)], to_optax, plain._replace(count=2**31), small)
    assert to_optax(plain._replace(count=2**31 - 1), small).count == 2**31 - 1


# torch


class Tensor:
    """As much of a tensor as is read."""

    def __init__(self, a):
        self.a, self.dtype = a, f"torch.{a.dtype}"

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.a


def state_dict(momentum=0.5, **changes):
    def leaf(shape):
        own = {"exp_avg_sq": Tensor(np.array(0.5)), "decay": Tensor(np.array(2.0))}
        return own | ({"exp_avg": Tensor(np.full(shape, 0.25))} if momentum else {})

    group = {"lr": 0.1, "momentum": momentum, "step": 7, "params": [0, 1]}
    return {"state": {0: leaf((2, 3)), 1: leaf(())}, "param_groups": [group], **changes}


def groups(first, second):
    base = {"lr": 0.1, "momentum": 0.5, "step": 7}
    return [{**base, "params": [0], **first}, {**base, "params": [1], **second}]


NAMES = ["w", "x"]


def test_a_torch_state_has_the_opposite_momentum():
    state = from_torch(state_dict(), iter(NAMES))
    assert (state.count, state.v["w"], state.b["x"], state.m["x"]) == (7, 0.5, 2.0, -0.25)
    assert (state.m["w"] == np.full((2, 3), -0.25)).all()
    assert from_torch(state_dict(0.0), NAMES).m is None
    # An optimizer that took no step has no count yet.
    fresh = {"state": {}, "param_groups": [{"momentum": 0.5, "params": [0, 1]}]}
    like = {"w": np.ones((2, 3), "f4"), "x": np.ones(())}
    found = from_torch(fresh, NAMES, like)
    want = Amos(momentum=0.5, state_dtype="param").init(like)
    assert repr(found) == repr(want)


def named_dict(names=("w", "x")):
    """The state_dict of an optimizer that was given names."""
    group = {**state_dict()["param_groups"][0], "param_names": list(names)}
    sd = state_dict(param_groups=[group])
    sd["state"][1]["exp_avg_sq"] = Tensor(np.array(0.75))
    return sd


def by_name():
    """The state_dict of a distributed optimizer, whose keys are names."""
    sd = named_dict()
    return {
        "state": {"w": sd["state"][0], "x": sd["state"][1]},
        "param_groups": [{**state_dict()["param_groups"][0], "params": NAMES}],
    }


ORDERS = {
    "as they are": NAMES,
    "reversed": NAMES[::-1],
    "pairs": [("w", Tensor(np.ones(2))), ("x", Tensor(np.ones(2)))],
    "reversed pairs": [("x", None), ("w", None)],
    "a generator": (name for name in NAMES),
    "a dict": {"x": None, "w": None},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("given", [named_dict, by_name])
def test_names_in_the_state_dict_decide_which_leaf_is_which(order, given):
    names = [*ORDERS[order]] if order != "a generator" else (name for name in NAMES)
    state = from_torch(given(), names)
    assert (state.v["w"], state.v["x"], state.m["w"].shape) == (0.5, 0.75, (2, 3))
    again = from_torch(to_torch_without_torch(state, list(state.v)[::-1], given()), NAMES)
    assert repr(again) == repr(from_torch(given(), NAMES))


def to_torch_without_torch(state, names, like):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amos_ref.interop.torch_states._to_tensor", lambda a, like: Tensor(a))
        return to_torch(state, names, like)


def test_other_names_are_new_names_in_the_order_of_the_optimizer():
    for names in (["module.w", "module.x"], ["w", "y"]):
        state = from_torch(named_dict(), names)
        assert [state.v[name] for name in names] == [0.5, 0.75]


def test_names_by_their_order_alone_would_be_noticed(monkeypatch):
    by_order = lambda groups, names: dict(zip(names, groups[0]["params"], strict=True))  # noqa: E731
    monkeypatch.setattr("amos_ref.interop.torch_states._match_names", by_order)
    with pytest.raises((AssertionError, errors.AmosError)):
        test_names_in_the_state_dict_decide_which_leaf_is_which("reversed", named_dict)


def test_arrays_in_place_of_tensors_are_taken():
    sd = state_dict()
    sd["state"] = {key: {name: t.a for name, t in own.items()} for key, own in sd["state"].items()}
    sd["param_groups"][0]["step"] = np.array(7)
    assert repr(from_torch(sd, NAMES)) == repr(from_torch(state_dict(), NAMES))


TORCH = {
    "a checkpoint": ({"model": {}, "optimizer": {}}, NAMES, S, ["a dict of 'model', 'optimizer'", "state_dict"]),
    "no states": (state_dict(state=None), NAMES, S, ["are NoneType and list"]),
    "no list of groups": (state_dict(param_groups=3), NAMES, S, ["are dict and int"]),
    "no groups in it": (state_dict(param_groups=[3]), NAMES, S, ["param_groups are not dicts", "int"]),
    "lists as keys": (state_dict(param_groups=[{"params": [[1]]}]), NAMES, S, ["param_groups are not dicts", "list"]),
    "a text of keys": (
        state_dict(param_groups=[{"params": "01"}]),
        NAMES,
        S,
        ["param_groups are not dicts", "not a list"],
    ),
    "a number of names": (
        state_dict(param_groups=groups({"param_names": 1}, {})),
        NAMES,
        S,
        ["param_names is not a list"],
    ),
    "lists as names": (state_dict(param_groups=groups({"param_names": [[]]}, {})), NAMES, S, ["not dicts", "list"]),
    "a state that is a number": (state_dict(state={0: 1}), NAMES, S, ["parameter 0, which is of type int"]),
    "no names": (state_dict(), None, T, ["names is of type NoneType"]),
    "one name": (state_dict(), "wx", T, ["1 names", "2 parameters"]),
    "parameters": (state_dict(), [Tensor(np.ones(2)), Tensor(np.ones(2))], T, ["names[0] is of type Tensor"]),
    "moved names": (
        named_dict(),
        ["x", "y"],
        T,
        ["names[0] is 'x'; the state_dict has 'w' there", "missing 'w'", "'y'"],
    ),
    "tied": (named_dict(), ["w", "x", "head"], T, ["3 names", "2 parameters", "extra 'head'"]),
    "state of no parameter": (state_dict(state={"0": {}}), NAMES, S, ["state of parameter '0'"]),
    "groups without parameters": (state_dict(param_groups=[{"lr": 1}]), NAMES, S, ["state of parameter 0"]),
    "of Adam": (
        state_dict(state={0: {"step": 1}, 1: {"step": 1}}),
        NAMES,
        S,
        ["no exp_avg_sq of leaf 'w'; it has step"],
    ),
    "no tensor": (state_dict(0.0, state={0: {"exp_avg_sq": 3.0}}), NAMES, S, ["exp_avg_sq of leaf 'w' is float"]),
    "no state_dict": (3, NAMES, S, ["3", "state_dict"]),
    "no groups": ({"state": {}}, NAMES, S, ["param_groups"]),
    "a name too few": (state_dict(), ["w"], T, ["1 names", "2 parameters"]),
    "a name twice": (state_dict(), ["w", "w"], T, ["1 of them different"]),
    "steps differ": (state_dict(param_groups=groups({}, {"step": 8})), NAMES, S, ["steps", "[7, 8]"]),
    "momentum differs": (state_dict(param_groups=groups({}, {"momentum": 0.0})), NAMES, S, ["momentum", "False, True"]),
    "no average": (state_dict(0.0, param_groups=groups({}, {})), NAMES, S, ["no exp_avg", "'w'"]),
    "nothing of x": (state_dict(state={0: state_dict()["state"][0]}), NAMES, S, ["'x'", "like=params"]),
    "step -1": (state_dict(param_groups=groups({"step": -1}, {"step": -1})), NAMES, S, ["-1"]),
}


@pytest.mark.parametrize("case", TORCH)
def test_a_torch_state_that_does_not_fit_is_refused(case):
    given, names, error, words = TORCH[case]
    raised(error, words, from_torch, given, names)


def test_a_torch_state_is_compared_with_the_parameters():
    raised(T, ["like", "missing 'x'"], from_torch, state_dict(), NAMES, {"w": np.ones((2, 3))})
    like = {"w": np.ones((3, 2)), "x": np.ones(())}
    raised(S, ["state.m of leaf 'w'", "(2, 3)", "(3, 2)"], from_torch, state_dict(), NAMES, like)
    listed = {"w": np.ones((2, 3)), "x": 1.0}
    nothing = state_dict(state={0: state_dict()["state"][0]})
    raised(errors.DtypeError, ["like leaf 'x'", "float"], from_torch, nothing, NAMES, listed)


def test_a_state_that_does_not_fit_torch_is_refused(monkeypatch):
    state = from_torch(state_dict(), NAMES)
    raised(S, ["no momentum", "like has one"], to_torch, state._replace(m=None), NAMES, state_dict())
    raised(S, ["has momentum", "like has none"], to_torch, state, NAMES, state_dict(0.0))
    raised(T, ["leaves of state", "missing 'y'", "extra 'x'"], to_torch, state, ["w", "y"], state_dict())
    slots = state._replace(v=state.v | {"w": np.ones((1, 3))}, b=state.b | {"w": np.ones((1, 3))})
    raised(S, ["'w'", "(1, 3)", "one slot"], to_torch, slots, NAMES, state_dict())
    original = builtins.__import__

    def without(name, *args):
        if name in ("torch", "jax.numpy"):
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    raised(errors.MissingDependencyError, ["pip install torch"], to_torch, state, NAMES, state_dict())
    theirs = ScaleByAmosState(7, {name: np.zeros(()) for name in NAMES}, {name: np.zeros(()) for name in NAMES})
    raised(errors.MissingDependencyError, ["pip install jax"], to_optax, state._replace(m=None), theirs)
