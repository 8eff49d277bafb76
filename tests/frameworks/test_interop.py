"""States taken over from the real packages and given back to them: the next step is the same up to rounding.

How far apart two right steps from one start may be is the bound of amos_ref.conformance.judging.bound, derived there.
"""

import numpy as np
import pytest
from helpers import strategies as own

import amos_ref
from amos_ref import Amos, AmosState, tree
from amos_ref.conformance.judging.bound import Bound
from amos_ref.interop import from_optax, from_torch, to_optax, to_torch
from amos_ref.optimizers.amos import compute_stages
from amos_ref.optimizers.leaf import Leaf

# JAX and torch warn of their own affairs while they are imported and used.
pytestmark = pytest.mark.filterwarnings("default")

# Dyadic numbers, which float32 holds as well.
ETA, RATE, BETA, MOMENTUM = 0.5, 0.125, 0.875, 0.75
DTYPES = ["float64", "float32"]


def arrays_of(state):
    return {part: getattr(state, part) for part in ("v", "b", "m") if getattr(state, part) is not None}


def bits(state):
    return state.count, {part: {n: own.bits(a) for n, a in arrays.items()} for part, arrays in arrays_of(state).items()}


def wide(params):
    return {name: np.array(a, np.float64) for name, a in params.items()}


def grads_at(t, params, skipped=()):
    """Numbers of size 1 or so, the same for the same step."""
    rng = np.random.default_rng([21, t])
    drawn = {name: rng.standard_normal(a.shape).astype(a.dtype) for name, a in params.items()}
    return {name: None if name in skipped else np.asarray(g) for name, g in drawn.items()}


def assert_same_step(opt, before, state, grads, after, state_after, dtype):
    """The page's step from the very numbers that the port started from is within the bound of the port's."""
    assert state_after.count == state.count + 1
    rates = opt.trace(wide(grads), state, before).rates
    page = arrays_of(state_after)
    for name, theta in before.items():
        m = None if state.m is None else state.m[name]
        leaf = Leaf(name, theta, wide(grads)[name], state.v[name], state.b[name], m, ETA)
        ours = compute_stages(leaf, rates)
        step = own.step_of(leaf, rates, state.count + 1, ours)
        bound = Bound(step, dtype)
        bound.advance(step)
        allowed = bound.allowed()
        theirs = {"theta": after[name], **{part: arrays[name] for part, arrays in page.items()}}
        for what, got in theirs.items():
            assert (np.abs(got - ours[what]) <= allowed[what]).all(), (name, what)
            # The bound is tight: a thousandth of the number would be seen.
            assert (allowed[what] < 1e-3 * np.abs(ours[what])).any(), (name, what)


# the authors' code under optax

NESTED = {"dense": {"kernel": (3, 4), "bias": (4,)}, "gain": [(), (2, 2)]}
SLOTS = {"dense/kernel": (1, 4), "dense/bias": (4,), "gain/0": (), "gain/1": (2, 1)}


class Jestimator:
    """The authors' code on a nested tree, with the page's options beside it."""

    def __init__(self, authors, dtype, momentum, clip_value):
        import jax.numpy as jnp

        rng = np.random.default_rng(20)
        self.params = {
            "dense": {k: jnp.asarray(rng.standard_normal(s), dtype) for k, s in NESTED["dense"].items()},
            "gain": [jnp.asarray(rng.standard_normal(s), dtype) for s in NESTED["gain"]],
        }
        shared = dict(beta=BETA, momentum=momentum, clip_value=clip_value, extra_l2=2.0**-6)
        self.transform = authors.amos(
            RATE, lambda name, shape: ETA, shape_fn=lambda name, shape: SLOTS["/".join(name)], **shared
        )
        self.page = Amos(RATE, ETA, lambda name, shape: SLOTS[name], backend="numpy", **shared)
        self.state = self.transform.init(self.params)

    def flat(self):
        return {name: np.asarray(a) for name, a in tree.flatten(self.params).items()}

    def step(self, grads):
        import jax.numpy as jnp
        import optax

        given = tree.unflatten({name: jnp.asarray(g) for name, g in grads.items()}, self.params)
        updates, self.state = self.transform.update(given, self.state, self.params)
        self.params = optax.apply_updates(self.params, updates)

    def check_next_step(self, dtype):
        before, state = wide(self.flat()), from_optax(self.state, self.params, "float64")
        grads = grads_at(state.count + 1, self.flat())
        self.step(grads)
        after = from_optax(self.state, self.params, "float64")
        assert_same_step(self.page, before, state, grads, wide(self.flat()), after, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("momentum", "clip_value"), [(None, None), (MOMENTUM, None), (None, 1.5), (MOMENTUM, 1.5)])
def test_the_authors_state_goes_on_here(dtype, momentum, clip_value, authors):
    port = Jestimator(authors, dtype, momentum, clip_value)
    for t in range(1, 6):
        port.step(grads_at(t, port.flat()))
    for _ in range(3):
        port.check_next_step(dtype)
    # With v and b exchanged the same comparison fails.
    real = from_optax(port.state, port.params, "float64")
    before, grads = wide(port.flat()), grads_at(9, port.flat())
    port.step(grads)
    after = from_optax(port.state, port.params, "float64")
    with pytest.raises(AssertionError):
        assert_same_step(port.page, before, real._replace(v=real.b, b=real.v), grads, wide(port.flat()), after, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [None, MOMENTUM])
def test_a_state_from_here_goes_on_in_the_authors_code(dtype, momentum, authors):
    port = Jestimator(authors, dtype, momentum, 1.5)
    params = port.flat()
    here = Amos(**{**port.page.options, "state_dtype": "param"})
    state = here.init(params)
    params = {name: a.copy() for name, a in params.items()}
    for t in range(1, 8):
        state = here.step(params, grads_at(t, params), state)
    import jax
    import jax.numpy as jnp

    port.params = tree.unflatten({name: jnp.asarray(a) for name, a in params.items()}, port.params)
    fresh = port.state
    port.state = to_optax(state, like=fresh)
    assert jax.tree.structure(port.state) == jax.tree.structure(fresh)
    kinds = [(type(a), a.dtype, a.shape) for a in jax.tree.leaves(fresh)]
    assert [(type(a), a.dtype, a.shape) for a in jax.tree.leaves(port.state)] == kinds
    assert bits(from_optax(port.state, port.params)) == bits(state)
    assert all(a.flags.writeable for part in arrays_of(from_optax(port.state, params)).values() for a in part.values())
    for _ in range(3):
        port.check_next_step(dtype)


def test_a_float64_state_is_rounded_once_to_what_jax_keeps(authors):
    port = Jestimator(authors, "bfloat16", MOMENTUM, None)
    params = port.flat()
    state = amos_ref.Amos(momentum=MOMENTUM, slot_shape=lambda name, shape: SLOTS[name]).init(params)
    # Halfway between two bfloat16 numbers but for a last bit that float32 does not hold: two roundings go wrong.
    state = AmosState(3, *({n: np.full_like(a, 1 + 2**-8 + 2**-40) for n, a in arrays.items()} for arrays in state[1:]))
    found = from_optax(to_optax(state, like=port.state), port.params)
    for arrays in arrays_of(found).values():
        for a in arrays.values():
            assert a.dtype.name == "bfloat16"
            assert (a.astype(float) == 1 + 2**-7).all()


# pytorch_optimizer

# Shapes for which it sets eta to 0.5.
TORCH_SHAPES = {"layer.weight": (3, 8), "layer.bias": (3,), "gain": (), "conv.weight": (2, 4, 3)}
NAMES = list(TORCH_SHAPES)


class Torch:
    """pytorch_optimizer's Amos, with the page's options beside it; eps is 0 since it adds it to v."""

    def __init__(self, dtype, momentum, foreach=None, groups=1):
        torch = pytest.importorskip("torch")
        amos = pytest.importorskip("pytorch_optimizer").Amos
        rng = np.random.default_rng(22)
        values = [torch.tensor(rng.standard_normal(s), dtype=getattr(torch, dtype)) for s in TORCH_SHAPES.values()]
        self.leaves = [torch.nn.Parameter(a) for a in values]
        parts = [self.leaves] if groups == 1 else [self.leaves[:2], self.leaves[2:]]
        shared = dict(beta=BETA, momentum=momentum or 0.0)
        self.opt = amos([{"params": p} for p in parts], lr=RATE, eps=0.0, foreach=foreach, **shared)
        self.page = Amos(RATE, ETA, beta=BETA, momentum=momentum, backend="numpy")

    def flat(self):
        return {name: leaf.detach().numpy().copy() for name, leaf in zip(NAMES, self.leaves, strict=True)}

    def step(self, grads):
        import torch

        for name, leaf in zip(NAMES, self.leaves, strict=True):
            leaf.grad = None if grads[name] is None else torch.tensor(grads[name])
        self.opt.step()

    def taken(self):
        return from_torch(self.opt.state_dict(), NAMES, self.flat(), "float64")

    def check_next_step(self, dtype):
        before, state = wide(self.flat()), self.taken()
        grads = grads_at(state.count + 1, self.flat())
        self.step(grads)
        assert_same_step(self.page, before, state, grads, wide(self.flat()), self.taken(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [None, MOMENTUM])
@pytest.mark.parametrize(("foreach", "groups"), [(False, 1), (True, 1), (None, 2)])
def test_torch_state_goes_on_here(dtype, momentum, foreach, groups):
    port = Torch(dtype, momentum, foreach, groups)
    for t in range(1, 6):
        # The last parameter gets its first gradient late, and others miss one.
        port.step(grads_at(t, port.flat(), ["conv.weight"] if t < 4 else ["gain"]))
    for _ in range(3):
        port.check_next_step(dtype)
    if momentum:
        # With the sign that the port keeps, the same comparison fails.
        before, real, grads = wide(port.flat()), port.taken(), grads_at(9, port.flat())
        wrong = real._replace(m={name: np.asarray(-a) for name, a in real.m.items()})
        port.step(grads)
        with pytest.raises(AssertionError):
            assert_same_step(port.page, before, wrong, grads, wide(port.flat()), port.taken(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [None, MOMENTUM])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_state_from_here_goes_on_in_torch(dtype, momentum, stepped):
    port = Torch(dtype, momentum)
    if stepped:
        port.step(grads_at(1, port.flat()))
    params = port.flat()
    here = Amos(**{**port.page.options, "state_dtype": "param"})
    state = here.init(params)
    for t in range(1, 8):
        state = here.step(params, grads_at(t, params), state)
    import torch

    with torch.no_grad():
        for leaf, a in zip(port.leaves, params.values(), strict=True):
            leaf.copy_(torch.tensor(a))
    port.opt.load_state_dict(to_torch(state, NAMES, port.opt.state_dict()))
    assert port.opt.param_groups[0]["lr"] == RATE
    assert bits(from_torch(port.opt.state_dict(), NAMES)) == bits(state)
    for _ in range(3):
        port.check_next_step(dtype)


def test_torch_bfloat16_comes_and_goes_to_the_bit():
    torch = pytest.importorskip("torch")
    port = Torch("bfloat16", MOMENTUM)
    for leaf in port.leaves:
        leaf.grad = torch.ones_like(leaf)
    port.opt.step()
    state = from_torch(port.opt.state_dict(), NAMES)
    assert {a.dtype.name for arrays in arrays_of(state).values() for a in arrays.values()} == {"bfloat16"}
    given = to_torch(state, NAMES, port.opt.state_dict())
    for key, old in port.opt.state_dict()["state"].items():
        for name, tensor in old.items():
            assert given["state"][key][name].dtype == torch.bfloat16
            assert torch.equal(given["state"][key][name], tensor)
    half = AmosState(1, *({n: np.full(a.shape, 1 + 2**-8 + 2**-40) for n, a in arrays.items()} for arrays in state[1:]))
    given = to_torch(half, NAMES, port.opt.state_dict())
    assert {float(t) for own in given["state"].values() for key, x in own.items() for t in x.reshape(-1).abs()} == {
        1 + 2**-7
    }


def test_a_torch_parameter_without_a_gradient_needs_like():
    port = Torch("float32", MOMENTUM)
    port.step(grads_at(1, port.flat(), ["gain"]))
    with pytest.raises(amos_ref.errors.StateError, match=r"'gain'.*never had a gradient; give like=params"):
        from_torch(port.opt.state_dict(), NAMES)
    state = from_torch(port.opt.state_dict(), NAMES, port.flat())
    assert (state.v["gain"], state.b["gain"], state.m["gain"]) == (0, 0, 0)
    assert state.m["gain"].dtype == np.float32
