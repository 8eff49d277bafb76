"""States of the authors' code inside the containers of optax and flax, taken over and given back to the bit."""

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line

from amos_ref import errors
from amos_ref.interop import from_optax, from_torch, to_optax

# JAX and torch warn of their own affairs while they are imported and used.
pytestmark = pytest.mark.filterwarnings("default")

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
flax = pytest.importorskip("flax")

LABELS = {"dense": {"kernel": "amos", "bias": "other"}, "gain": ["amos"]}
MASK = jax.tree.map(lambda label: label == "amos", LABELS)
PARAMS = jax.tree.map(lambda label: np.full((2, 3), 0.5), LABELS)
PART = {"dense": {"kernel": PARAMS["dense"]["kernel"]}, "gain": PARAMS["gain"]}


@pytest.fixture
def amos(authors):
    return lambda momentum=0.5: authors.amos(
        0.125, lambda name, shape: 0.5, shape_fn=lambda name, shape: (1, 3), beta=0.875, momentum=momentum
    )


def train(transform, params, steps=2):
    """Return a state after steps in which each leaf has other gradients."""
    params = jax.tree.map(jax.numpy.asarray, params)
    state = transform.init(params)
    rng = np.random.default_rng(5)
    for _ in range(steps):
        grads = jax.tree.map(lambda a: jax.numpy.asarray(rng.standard_normal(a.shape), a.dtype), params)
        _, state = transform.update(grads, state, params)
    return state


def check_both_ways(opt_state, params, plain):
    """The state is the one of the plain transformation, and is given back as it was."""
    state, names = from_optax(opt_state, params), set(from_optax(opt_state, params).v)
    want = from_optax(plain, PARAMS)
    for part in ("v", "b", "m"):
        ours, theirs = getattr(state, part), getattr(want, part)
        assert {n: a.tobytes() for n, a in ours.items()} == {n: a.tobytes() for n, a in theirs.items() if n in names}
    back = to_optax(state, opt_state)
    assert jax.tree.structure(back) == jax.tree.structure(opt_state)
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(opt_state), strict=True):
        assert (type(ours), own.bits(ours)) == (type(theirs), own.bits(theirs))
    return state


def test_partition_and_masked(amos):
    plain = train(amos(), PARAMS)
    both = train(optax.partition({"amos": amos(), "other": amos()}, LABELS), PARAMS)
    assert len(check_both_ways(both, PARAMS, plain).v) == 3
    other = optax.chain(optax.adam(0.1), optax.ema(0.9))
    for transform in (optax.partition({"amos": amos(), "other": other}, LABELS), optax.masked(amos(), MASK)):
        opt_state = train(transform, PARAMS)
        assert list(check_both_ways(opt_state, PART, plain).v) == ["dense/kernel", "gain/0"]
        with pytest.raises(errors.StateError) as caught:
            from_optax(opt_state, PARAMS)
        one_line(caught.value, ["MaskedNode for leaf 'dense/bias'"])
    # The average of another label is not Amos's momentum.
    opt_state = train(optax.partition({"amos": amos(None), "other": other}, LABELS), PARAMS)
    assert from_optax(opt_state, PART).m is None


def test_wrappers_of_optax(amos):
    # What is compiled as a whole may differ in the last bit, so the state inside is what is compared.
    opt_state = train(optax.apply_if_finite(amos(), 3), PARAMS)
    check_both_ways(opt_state, PARAMS, opt_state.inner_state)
    opt_state = train(optax.inject_hyperparams(lambda rate: amos())(rate=0.125), PARAMS)
    check_both_ways(opt_state, PARAMS, opt_state.inner_state)
    opt_state = train(optax.MultiSteps(amos(), 1), PARAMS)
    check_both_ways(opt_state, PARAMS, opt_state.inner_opt_state)
    with pytest.raises(errors.StateError) as caught:
        from_optax(train(optax.MultiSteps(amos(), 2), PARAMS, 3), PARAMS)
    one_line(caught.value, ["MultiStepsState at opt_state", "not whole"])
    with pytest.raises(errors.StateError) as caught:
        from_optax(train(optax.adam(0.1), PARAMS), PARAMS)
    one_line(caught.value, ["0 parts", "ScaleByAdamState at opt_state[0]"])


def test_containers_of_flax(amos):
    from flax.training.train_state import TrainState

    plain, frozen = train(amos(), PARAMS), flax.core.freeze(PARAMS)
    check_both_ways(train(amos(), frozen), frozen, plain)
    check_both_ways(train(amos(), frozen), PARAMS, plain)
    whole = TrainState(step=2, apply_fn=None, params=PARAMS, tx=amos(), opt_state=plain)
    check_both_ways(whole, PARAMS, plain)
    check_both_ways(flax.serialization.to_state_dict(plain), flax.serialization.to_state_dict(PARAMS), plain)
    check_both_ways(jax.tree.map(np.asarray, plain), jax.eval_shape(lambda p: p, PARAMS), plain)


@pytest.mark.parametrize("masked", [False, True])
def test_parameters_that_are_none(masked):
    """optax takes them for empty trees; the states of neither side have such a leaf."""
    from amos_ref.ports.optax import amos as port

    params = {"a": np.ones((2, 3), np.float32), "none": None, "z": {"none": None, "b": np.full(2, 0.5, np.float32)}}
    transform = port(0.1, 0.5, momentum=0.9)
    transform = (
        optax.masked(transform, {"a": True, "none": None, "z": {"none": None, "b": True}}) if masked else transform
    )
    opt_state = train(transform, params)
    state = from_optax(opt_state, params)
    assert list(state.v) == ["a", "z/b"]
    back = to_optax(state, jax.tree.map(np.zeros_like, opt_state))
    assert jax.tree.structure(back) == jax.tree.structure(opt_state)
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(opt_state), strict=True))
    with pytest.raises(errors.TreeError, match="extra 'z/b'"):
        from_optax(opt_state, {**params, "z": {"none": None, "b": None}})


def test_torch_tells_its_names():
    torch = pytest.importorskip("torch")
    optimizers = pytest.importorskip("pytorch_optimizer")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    opt = optimizers.Amos(model.named_parameters(), lr=0.1, momentum=0.5)
    model(torch.ones(4, 2)).sum().backward()
    opt.step()
    names = [name for name, _ in model.named_parameters()]
    want = from_torch(opt.state_dict(), names)
    for given in (names[::-1], model.named_parameters(), dict(model.named_parameters())):
        found = from_torch(opt.state_dict(), given)
        for part in ("v", "b", "m"):
            for name in names:
                assert getattr(found, part)[name].tobytes() == getattr(want, part)[name].tobytes()
    for given, words in (
        (model.parameters(), "names[0] is of type Parameter"),
        ([*names[1:], "x"], "missing '0.weight'"),
    ):
        with pytest.raises(errors.TreeError) as caught:
            from_torch(opt.state_dict(), given)
        one_line(caught.value, [words])
