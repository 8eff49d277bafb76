"""States between the port to torch, the optimizers of the package and files: the next step agrees."""

import numpy as np
import pytest

import amos_ref
from amos_ref import interop
from amos_ref.errors import AmosError, StateError

torch = pytest.importorskip("torch")
port = pytest.importorskip("amos_ref.ports.torch")

SHAPES = {"w": (4, 3), "b": (3,), "e": (5, 2), "s": ()}
SLOTS = {"w": (4, 1), "b": (), "e": (5, 2), "s": ()}
SCALE = {"w": 0.25, "b": 0.5, "e": 0.125, "s": 2.0}
PAPER = dict(eta=SCALE, beta=0.75, extra_l2=0.125, c_coef=2.0, d_coef=0.5)
CLOSED = dict(alpha_0=0.25, half_life=3.0, q=0.75)
KINDS = {
    "paper": (port.Amos, amos_ref.Amos, PAPER),
    "momentum": (port.Amos, amos_ref.Amos, PAPER | {"momentum": 0.75}),
    "measured": (port.ClosedFormAmos, amos_ref.ClosedFormAmos, CLOSED),
    "adam": (port.ClosedFormAmos, amos_ref.ClosedFormAmos, CLOSED | {"sigma": SCALE, "direction": "adam"}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def draw(seed):
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape) for name, shape in SHAPES.items()}


def make(kind, dtype=torch.float64, **more):
    cls, core, options = KINDS[kind]
    leaves = {name: torch.nn.Parameter(torch.tensor(a).to(dtype)) for name, a in draw(0).items()}
    rate = {"lr": 0.25} if cls is port.Amos else {}
    optimizer = cls(list(leaves.items()), slot_shape=SLOTS, **rate, **options, **more)
    rules = {k: (lambda name, shape, x=x: x[name]) if isinstance(x, dict) else x for k, x in options.items()}
    rate = {"learning_rate": 0.25} if cls is port.Amos else {}
    return leaves, optimizer, core(slot_shape=lambda name, shape: SLOTS[name], **rate, **rules)


def fill(leaves, seed, skip=()):
    for name, g in draw(seed).items():
        leaves[name].grad = None if name in skip else torch.tensor(g).to(leaves[name].dtype)


def arrays(leaves):
    return {name: leaf.detach().numpy().copy() for name, leaf in leaves.items()}


@kinds
@pytest.mark.parametrize("capturable", [False, True])
def test_the_next_steps_agree_both_ways(kind, capturable, tmp_path):
    leaves, optimizer, opt = make(kind, capturable=capturable)
    for seed in (1, 2, 3):
        fill(leaves, seed)
        optimizer.step()
    params, state = arrays(leaves), interop.from_torch(optimizer.state_dict(), leaves)
    assert int(state.count) == 3
    amos_ref.save_state(tmp_path / "state.npz", state)
    state = amos_ref.load_state(tmp_path / "state.npz")
    for seed in (4, 5):  # in the core, and in torch at the same time
        fill(leaves, seed)
        optimizer.step()
        state = opt.step(params, draw(seed), state)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(leaf.detach().numpy(), params[name], rtol=1e-12, atol=1e-13)
    other, again, _ = make(kind, capturable=capturable)
    with torch.no_grad():
        for name, leaf in other.items():
            leaf.copy_(torch.tensor(params[name]))
    again.load_state_dict(interop.to_torch(state, other, like=again.state_dict()))
    for both in ((leaves, optimizer), (other, again)):
        fill(both[0], 6)
        both[1].step()
    for name, leaf in leaves.items():
        np.testing.assert_allclose(leaf.detach().numpy(), other[name].detach().numpy(), rtol=1e-12, atol=1e-13)


@kinds
def test_there_and_back_is_the_same_to_the_bit(kind):
    leaves, optimizer, opt = make(kind)
    state = opt.init(arrays(leaves))
    state = opt.step(arrays(leaves), draw(1), state)
    theirs = interop.to_torch(state, leaves, like=optimizer.state_dict())
    optimizer.load_state_dict(theirs)
    back = interop.from_torch(optimizer.state_dict(), leaves)
    assert int(back.count) == 1
    for part in state._fields[1:]:
        ours, found = getattr(state, part), getattr(back, part)
        assert (ours is None) == (found is None)
        for name in ours or ():
            assert found[name].shape == ours[name].shape
            assert np.array_equal(found[name], ours[name]), (part, name)


def test_a_parameter_that_never_had_a_gradient_has_a_state_of_0():
    for kind in ("momentum", "adam"):
        leaves, optimizer, _ = make(kind)
        fill(leaves, 1, skip=("w", "e"))
        optimizer.step()
        with pytest.raises(StateError, match="has no state of leaf 'w', which never had a gradient; give like=params"):
            interop.from_torch(optimizer.state_dict(), leaves)
        state = interop.from_torch(optimizer.state_dict(), leaves, like=arrays(leaves))
        assert state.v["w"].shape == (SLOTS["w"] if kind == "momentum" else SHAPES["w"])
        assert not state.v["e"].any()
        assert not state.m["w"].any()


def test_half_precision_is_widened_exactly():
    leaves, optimizer, _ = make("momentum", torch.bfloat16)
    fill(leaves, 1)
    optimizer.step()
    state = interop.from_torch(optimizer.state_dict(), leaves, state_dtype="float64")
    for name, leaf in leaves.items():
        assert np.array_equal(state.m[name], optimizer.state[leaf]["m"].double().numpy())


def test_what_does_not_fit_is_refused():
    leaves, optimizer, opt = make("momentum")
    state = opt.init(arrays(leaves))
    _, plain, _ = make("paper")
    with pytest.raises(StateError, match="the state has momentum m but like has none"):
        interop.to_torch(state, leaves, like=plain.state_dict())
    other = port.Amos(list(leaves.items()), momentum=0.75)
    with pytest.raises(StateError, match=r"leaf 'w' has slots of shape \(4, 1\); like has \(\)"):
        interop.to_torch(state, leaves, like=other.state_dict())
    _, closed, _ = make("adam")
    with pytest.raises(StateError, match="the state is of type AmosState but like is of the closed form"):
        interop.to_torch(state, leaves, like=closed.state_dict())
    fill(leaves, 1)
    optimizer.step()
    optimizer.add_param_group(
        {"params": [("x", torch.nn.Parameter(torch.ones(2)))], "eta": 0.5, "slot_shape": "tensor"}
    )
    optimizer.param_groups[-1]["step"] = 7
    with pytest.raises(AmosError, match=r"the param_groups differ in steps taken: \[1, 7\]"):
        interop.from_torch(optimizer.state_dict(), [*leaves, "x"], like=arrays(leaves) | {"x": np.ones(2)})


def test_the_opposite_sign_of_the_momentum_would_be_seen():
    leaves, optimizer, _ = make("momentum")
    fill(leaves, 1)
    optimizer.step()
    right = interop.from_torch(optimizer.state_dict(), leaves)
    theirs = optimizer.state_dict()
    for own in theirs["state"].values():
        own["m"] = -own["m"]
    wrong = interop.from_torch(theirs, leaves)
    assert not np.array_equal(right.m["w"], wrong.m["w"])
    np.testing.assert_allclose(right.m["w"], leaves["w"].detach().numpy() - draw(0)["w"], atol=1e-15)
