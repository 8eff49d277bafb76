"""The closed form's states under optax and torch, without the frameworks: round trips to the bit, and errors."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line
from helpers.optimizers import parts_of

from amos_ref import Amos, ClosedFormAmos, ClosedFormState, errors
from amos_ref.interop import from_optax, from_torch, optax_states, to_optax, to_torch, torch_states

S, T = errors.StateError, errors.TreeError
PARAMS = {"w": np.array([[3.0, -4.0, 1.0], [0.1, 0.2, 0.3]]), "x": [np.array(2.0)]}
NAMES = ["w", "x/0"]


class ScaleByClosedFormState(NamedTuple):
    count: Any
    sigma: Any
    m: Any
    v: Any


class ScaleByAmosState(NamedTuple):
    count: Any
    v: Any
    b: Any


class MaskedNode(NamedTuple):
    pass


class Wrapper(NamedTuple):
    other: Any
    inner_state: Any


def trained(direction="adam", steps=3):
    """A state whose numbers have all their digits."""
    opt, params = ClosedFormAmos(0.1, half_life=5, direction=direction), {"w": PARAMS["w"].copy(), "x": [np.array(2.0)]}
    state = opt.init(params)
    for t in range(steps):
        state = opt.step(params, {"w": params["w"] / 3 + t, "x": [None if t == 1 else np.array(0.7)]}, state)
    return state


def bits(state):
    named = {part: getattr(state, part) for part in parts_of(state)}
    return (
        type(state),
        state.count,
        {part: {n: own.bits(a) for n, a in arrays.items()} for part, arrays in named.items()},
    )


def raised(error, words, call, *args):
    with pytest.raises(error) as caught:
        call(*args)
    assert type(caught.value) is error
    one_line(caught.value, words)


# optax


def empty(direction="adam", kind=np.float64):
    """What a transformation keeps at its start."""
    zeros = {"w": np.zeros((2, 3), kind), "x": [np.zeros((), kind)]} if direction == "adam" else None
    sigma = {"w": np.ones((), kind), "x": [np.ones((), kind)]}
    return ScaleByClosedFormState(np.array(0, "i4"), sigma, zeros, zeros)


@pytest.mark.parametrize("direction", ["adam", "gradient"])
def test_an_optax_state_comes_and_goes_to_the_bit(direction):
    state = trained(direction)
    for like in (empty(direction), (Wrapper(1, (empty(direction),)), ()), {"inner": empty(direction)._asdict()}):
        theirs = to_optax(state, like)
        assert type(theirs) is type(like)
        assert bits(from_optax(theirs, PARAMS)) == bits(state)
    assert to_optax(state, empty(direction)).count.dtype == np.int32
    assert float(empty(direction).sigma["w"]) == 1  # like is as it was


def test_a_float32_state_is_rounded_once_and_widened_exactly():
    state, like = trained(), empty(kind=np.float32)
    theirs = to_optax(state, like)
    assert theirs.sigma["w"].dtype == theirs.m["w"].dtype == np.float32
    back = from_optax(theirs, PARAMS)
    for part in ("sigma", "m", "v"):
        for name, a in getattr(back, part).items():
            assert own.bits(a) == own.bits(getattr(state, part)[name].astype(np.float32).astype(np.float64))
    assert bits(from_optax(theirs, PARAMS, "float64")) == bits(back)


def labelled(leaf, skipped):
    """The part of one label under optax.partition."""
    part, masked = empty(), MaskedNode()

    def only(tree):
        return {"w": tree["w"] if leaf == "w" else masked, "x": [tree["x"][0] if leaf == "x/0" else masked]}

    return part._replace(sigma=only(part.sigma), m=only(part.m), v=only(part.v), count=np.array(skipped))


def test_two_labels_become_one_state_and_masked_leaves_none():
    both = {"a": labelled("w", 0), "b": (labelled("x/0", 0),)}
    state = trained()
    assert bits(from_optax(to_optax(state, both), PARAMS)) == bits(state)
    assert list(from_optax(labelled("w", 4), {"w": PARAMS["w"]}).sigma) == ["w"]
    raised(S, ["MaskedNode for leaf 'x/0'"], from_optax, labelled("w", 4), PARAMS)
    raised(
        S, ["differ in their counts", "ClosedFormState has one"], from_optax, both | {"b": labelled("x/0", 2)}, PARAMS
    )


AMOS = ScaleByAmosState(np.array(7), {"w": np.ones(()), "x": [np.ones(())]}, {"w": np.ones(()), "x": [np.ones(())]})
OPTAX = {
    "nothing": (({"sigma": 1},), S, ["0 parts", "count, v and b", "count, sigma, m and v"]),
    "both algorithms": (
        (empty(), AMOS),
        S,
        ["one of type AmosState at opt_state[1] and one of type ClosedFormState at opt_state[0]"],
    ),
    "two": ((empty(), empty()), S, ["2 parts that are a state with count, sigma, m and v", "leaf 'w'"]),
    "half of the moments": (empty()._replace(v=None), S, ["differ in having moments", "m True and v False"]),
    "a leaf less": (empty()._replace(m={"w": np.zeros((2, 3))}), T, ["opt_state.m", "missing 'x/0'"]),
    "sigma for each entry": (
        empty()._replace(sigma={"w": np.ones((2, 3)), "x": [np.ones(())]}),
        S,
        ["state.sigma of leaf 'w' has shape (2, 3)"],
    ),
    "moments of another shape": (
        empty()._replace(v={"w": np.ones((3, 2)), "x": [np.ones(())]}),
        S,
        ["state.v of leaf 'w' has shape (3, 2)"],
    ),
    "integers": (
        empty()._replace(sigma={"w": np.array(1), "x": [np.ones(())]}),
        S,
        ["state.sigma of leaf 'w'", "int64"],
    ),
    "count": (empty()._replace(count=1.5), S, ["count is 1.5"]),
}


@pytest.mark.parametrize("case", OPTAX)
def test_an_optax_state_that_does_not_fit_is_named(case):
    opt_state, error, words = OPTAX[case]
    raised(error, words, from_optax, opt_state, PARAMS)


def test_an_optax_state_of_the_other_kind_or_without_moments_is_named():
    amos = Amos(0.1).init(PARAMS)
    raised(S, ["of type AmosState", "like holds one of type ClosedFormState"], to_optax, amos, empty())
    raised(S, ["of type ClosedFormState", "like holds one of type AmosState"], to_optax, trained(), AMOS)
    raised(S, ["has moments m and v but like has none"], to_optax, trained(), empty("gradient"))
    raised(S, ["has no moments m and v but like has them"], to_optax, trained("sign"), empty())
    raised(T, ["leaves of state.sigma", "extra 'x/0'"], to_optax, trained(), labelled("w", 0))


# torch


class Tensor:
    """As much of a tensor as is read."""

    def __init__(self, a):
        self.a, self.dtype, self.shape = a, f"torch.{a.dtype.name}", a.shape

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        return self.a


@pytest.fixture
def tensors(monkeypatch):
    monkeypatch.setattr(torch_states, "_to_tensor", lambda a, like: Tensor(np.array(a)))


def state_dict(direction="adam", keys=(0, 1), **changes):
    def entry(shape):
        moments = {"exp_avg": Tensor(np.ones(shape)), "exp_avg_sq": Tensor(np.full(shape, 2.0))}
        return {"step": 4, "sigma": 0.3, **(moments if direction == "adam" else {})}

    group = dict(alpha_0=0.1, half_life=5.0, direction=direction, params=list(keys))
    return {"state": {keys[0]: entry((2, 3)), keys[1]: entry(())}, "param_groups": [group], **changes}


def groups(first, second):
    base = dict(alpha_0=0.1, half_life=5.0, direction="adam")
    return [{**base, "params": [0], **first}, {**base, "params": [1], **second}]


@pytest.mark.usefixtures("tensors")
@pytest.mark.parametrize("direction", ["adam", "gradient", "sign"])
def test_a_torch_state_comes_and_goes_to_the_bit(direction):
    state, like = trained(direction), state_dict(direction)
    theirs = to_torch(state, NAMES, like)
    assert bits(from_torch(theirs, NAMES)) == bits(from_torch(theirs, NAMES, PARAMS, "float64")) == bits(state)
    assert theirs["param_groups"] == like["param_groups"]
    assert like["state"][0]["step"] == 4
    first = theirs["state"][0]
    assert (type(first["step"]), type(first["sigma"])) == (int, float)
    wanted = ["step", "sigma", "exp_avg", "exp_avg_sq"] if direction == "adam" else ["step", "sigma"]
    assert list(first) == wanted
    # Arrays in place of numbers are taken as well, and of narrow dtypes.
    for entry in theirs["state"].values():
        entry |= {"step": np.array(entry["step"]), "sigma": Tensor(np.array(entry["sigma"]))}
    assert bits(from_torch(theirs, NAMES)) == bits(state)


@pytest.mark.usefixtures("tensors")
def test_moments_that_are_mixed_up_would_be_seen(monkeypatch):
    monkeypatch.setattr(torch_states, "_MOMENTS", (("m", "exp_avg_sq"), ("v", "exp_avg")))
    assert list(to_torch(trained(), NAMES, state_dict())["state"][0]) == ["step", "sigma", "exp_avg_sq", "exp_avg"]
    monkeypatch.setattr(optax_states, "_find_sources", lambda kind, amos, emas: {"sigma": (amos, "sigma")})
    with pytest.raises(S, match="has moments m and v"):
        to_optax(trained(), empty())


one = state_dict()["state"][0]
TORCH = {
    "no sigma": (state_dict(state={0: {"step": 4}, 1: one}), S, ["no sigma of leaf 'w'; it has step"]),
    "no step": (state_dict(state={0: {"sigma": 0.5}, 1: one}), S, ["step of leaf 'w' is None"]),
    "half a step": (state_dict(state={0: one | {"step": 1.5}, 1: one}), S, ["step of leaf 'w' is 1.5"]),
    "no state of x": (state_dict(state={0: one}), S, ["no state of leaf 'x/0'", "sigma of its first entries"]),
    "no state at all": (state_dict(state={}), S, ["no state of leaf 'w'"]),
    "steps": (state_dict(state={0: one, 1: one | {"step": 5}}), S, ["steps taken: 4 of leaf 'w', 5 of leaf 'x/0'"]),
    "no moments": (
        state_dict("gradient", param_groups=groups({}, {})),
        S,
        ["no exp_avg of leaf 'w'; it has step, sigma"],
    ),
    "moments of nobody": (
        state_dict(param_groups=groups({"direction": "sign"}, {"direction": "sign"})),
        S,
        ["exp_avg of parameter 0", "no group has direction 'adam'"],
    ),
    "two directions": (state_dict(param_groups=groups({}, {"direction": "sign"})), S, ["differ in direction"]),
    "the paper's": (
        state_dict(state={0: {"exp_avg_sq": Tensor(np.ones(())), "decay": Tensor(np.ones(()))}, 1: one}),
        S,
        ["step of leaf 'w' is None"],
    ),
    "sigma for each entry": (
        state_dict(state={0: one | {"sigma": Tensor(np.ones((2, 3)))}, 1: state_dict()["state"][1]}),
        S,
        ["state.sigma of leaf 'w' has shape (2, 3)"],
    ),
    "sigma as a text": (state_dict(state={0: one | {"sigma": "0.5"}, 1: one}), S, ["sigma of leaf 'w' is str"]),
    "moments of another shape": (
        state_dict(state={0: one | {"exp_avg_sq": Tensor(np.ones(3))}, 1: state_dict()["state"][1]}),
        S,
        ["state.v of leaf 'w' has shape (3,)"],
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_a_torch_state_that_does_not_fit_is_named(case):
    given, error, words = TORCH[case]
    raised(error, words, from_torch, given, NAMES, PARAMS)


@pytest.mark.usefixtures("tensors")
def test_torch_of_the_other_kind_or_without_moments_is_named():
    paper = {"state": {}, "param_groups": [{"momentum": 0.0, "params": [0, 1]}]}
    raised(S, ["of type ClosedFormState but like is not of the closed form"], to_torch, trained(), NAMES, paper)
    raised(
        S, ["of type AmosState but like is of the closed form"], to_torch, Amos(0.1).init(PARAMS), NAMES, state_dict()
    )
    raised(S, ["has moments m and v but like has none"], to_torch, trained(), NAMES, state_dict("gradient"))
    raised(S, ["has no moments m and v but like has them"], to_torch, trained("sign"), NAMES, state_dict())
    raised(T, ["leaves of state", "missing 'y'", "extra 'x/0'"], to_torch, trained(), ["w", "y"], state_dict())
    raised(S, ["stepped in place"], to_torch, used(), NAMES, state_dict())


def used():
    opt, params = ClosedFormAmos(0.1, half_life=5), {"w": np.ones((2, 3)), "x": [np.array(2.0)]}
    state = opt.init(params)
    opt.step(params, {"w": np.ones((2, 3)), "x": [None]}, state)
    return state


@pytest.mark.usefixtures("tensors")
def test_it_goes_on_where_it_was():
    """A step from what came back is the step from what went, bit by bit, with q, a rule and slots that count."""
    opt = ClosedFormAmos(
        0.1, half_life=5, direction="adam", q=0.7, sigma={"w": 0.3, ".*": "init"}, slot_shape="element"
    )
    state = opt.init(PARAMS)
    grads = {"w": PARAMS["w"] / 7 + 1, "x": [np.array(0.3)]}
    _, state = opt.update(grads, state, PARAMS)
    for back in (from_torch(to_torch(state, NAMES, state_dict()), NAMES), from_optax(to_optax(state, empty()), PARAMS)):
        assert isinstance(back, ClosedFormState)
        one, other = (opt.update(grads, s, PARAMS)[0] for s in (state, back))
        assert own.bits(one["w"]) == own.bits(other["w"])
        assert own.bits(one["x"][0]) == own.bits(other["x"][0])
