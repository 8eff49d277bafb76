"""The closed form's layouts in the frameworks: what they keep, load and hand over is the state, to the bit."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import strategies as own

from amos_ref import ClosedFormAmos
from amos_ref.interop import from_optax, from_torch, to_optax, to_torch

pytestmark = pytest.mark.filterwarnings("default")  # JAX and torch warn of their own affairs

SHAPES = {"bias": (3,), "gain": (), "kernel": (2, 3)}
SIGMA = 0.3  # which float32 does not hold


def trained(direction, dtype):
    rng = np.random.default_rng(5)
    params = {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
    params["gain"] = np.array(0.7, dtype)
    opt = ClosedFormAmos(0.1, half_life=5, direction=direction, sigma={"bias": SIGMA, ".*": "init"})
    state = opt.init(params)
    for _ in range(3):
        grads = {name: np.asarray(rng.standard_normal(a.shape).astype(dtype)) for name, a in params.items()}
        state = opt.step(params, grads, state)
    return opt, params, state, grads


def bits(state, round_to=np.float64):
    parts = {"m": state.m, "v": state.v} if state.m is not None else {}
    moments = {p: {n: own.bits(a.astype(round_to)) for n, a in arrays.items()} for p, arrays in parts.items()}
    return state.count, {n: float(a) for n, a in state.sigma.items()}, moments


def port(params, direction):
    """A torch optimizer of this layout, as far as its state goes; a step would follow from it."""
    torch = pytest.importorskip("torch")

    class ClosedForm(torch.optim.Optimizer):
        def __init__(self, named):
            super().__init__(named, dict(alpha_0=0.1, half_life=5.0, direction=direction))
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p] = {"step": 0, "sigma": 0.5}
                    if direction == "adam":
                        self.state[p] |= {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}

    leaves = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in params.items()}
    return ClosedForm([{"params": [leaves["bias"]]}, {"params": [leaves["gain"], leaves["kernel"]]}])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("direction", ["adam", "gradient"])
def test_what_torch_loads_and_gives_back_is_the_state(direction, dtype):
    torch = pytest.importorskip("torch")
    opt, params, state, grads = trained(direction, dtype)
    optimizer = port(params, direction)
    optimizer.load_state_dict(to_torch(state, SHAPES, optimizer.state_dict()))
    entry = optimizer.state_dict()["state"][0]
    assert entry["sigma"] == SIGMA  # load_state_dict would give a tensor the parameter's dtype
    if direction == "adam":
        assert entry["exp_avg"].dtype == getattr(torch, dtype)
    back = from_torch(optimizer.state_dict(), SHAPES)
    assert bits(back, dtype) == bits(state, dtype)
    assert (bits(back) == bits(state)) == (dtype == "float64" or direction == "gradient")
    if dtype == "float64":
        one, other = (opt.update(grads, s, params)[0] for s in (state, back))
        assert {n: own.bits(a) for n, a in one.items()} == {n: own.bits(a) for n, a in other.items()}


class ScaleByClosedFormState(NamedTuple):
    count: Any
    sigma: Any
    m: Any
    v: Any


@pytest.mark.parametrize("direction", ["adam", "gradient"])
def test_what_optax_keeps_is_the_state_rounded_once(direction):
    jnp = pytest.importorskip("jax.numpy")
    optax = pytest.importorskip("optax")
    _, params, state, _ = trained(direction, "float32")

    def init(params):
        zeros = {n: jnp.zeros(a.shape) for n, a in params.items()} if direction == "adam" else None
        return ScaleByClosedFormState(jnp.zeros((), int), {n: jnp.ones(()) for n in params}, zeros, zeros)

    transform = optax.chain(
        optax.clip(1.0), optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    )
    like = transform.init({n: jnp.asarray(a) for n, a in params.items()})
    theirs = to_optax(state, like)
    back = from_optax(theirs, params)
    kind = np.dtype(theirs[1].sigma["bias"].dtype)
    assert back.count == state.count == 3
    assert bits(back)[1] == {n: float(a.astype(kind)) for n, a in state.sigma.items()}
    assert bits(back, kind)[2] == bits(state, kind)[2]
