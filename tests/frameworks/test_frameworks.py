"""Ports of torch and optax are given a state and low precision, and give them back to the bit."""

import importlib
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.ports.failures import Unsupported
from amos_ref.conformance.ports.target import as_port
from examples.ports.amos_numpy import step

torch = pytest.importorskip("torch")
optax = pytest.importorskip("optax")
jnp = pytest.importorskip("jax.numpy")

# JAX and torch warn of their own affairs while they are imported and used.
pytestmark = pytest.mark.filterwarnings("default")

CASES = {case.name: case for case in table() if case.dtype == "float64"}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def optax_factory():
    class State(NamedTuple):
        count: int
        v: dict
        b: dict

    def amos(learning_rate, eta_fn, beta=0.999):
        def init(params):
            zeros = {name: jnp.zeros((), p.dtype) for name, p in params.items()}
            return State(0, zeros, zeros)

        def update(grads, state, params):
            updates, v, b = {}, {}, {}
            for name, p in params.items():
                theta, g = (np.asarray(a, dtype=np.float64) for a in (p, grads[name]))
                own = {k: np.asarray(getattr(state, k)[name], dtype=np.float64) for k in ("v", "b")}
                new, own = step(theta, g, own, state.count + 1, learning_rate, eta_fn(name), (), beta)
                updates[name] = jnp.asarray(new - theta, p.dtype)
                v[name], b[name] = jnp.asarray(own["v"], p.dtype), jnp.asarray(own["b"], p.dtype)
            return updates, State(state.count + 1, v, b)

        return optax.chain(optax.identity(), optax.GradientTransformation(init, update))

    return amos


@pytest.fixture(params=["torch", "optax"])
def port(request):
    """A right port in each framework, one slot an array, its state in the parameters' dtype."""
    return as_port(
        importlib.import_module("helpers.stepped_torch").Amos if request.param == "torch" else optax_factory()
    )


def started(port, dtype):
    case = CASES["plain"]
    port.init({k: a.astype(dtype) for k, a in case.params.items()}, case.options | {"eta": case.eta})
    return [{k: g.astype(dtype) for k, g in grads.items()} for grads in case.grads]


def test_the_next_step_starts_from_what_is_put(port):
    """Injected far from where it stands: the page, started there, and the port agree."""
    grads = started(port, np.float64)
    port.step(grads[0])
    slots = {"kernel": np.array(16.0), "bias": np.array(4.0)}
    theta = {k: a + 1 for k, a in CASES["plain"].params.items()}
    port.put({"theta": theta, "v": slots, "b": slots})
    got, shown = port.step(grads[1]), port.state()
    for name, eta in CASES["plain"].eta.items():
        state = {"v": slots[name], "b": slots[name]}
        want, after = step(theta[name], grads[1][name], state, 2, 0.25, eta, (), 0.75)
        np.testing.assert_allclose(got[name], want, rtol=0, atol=4e-16 * np.abs(want).max())
        for part in ("v", "b"):
            np.testing.assert_array_equal(shown[part][name], after[part])


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)])
def test_low_precision_goes_in_and_out_to_the_bit(port, dtype):
    grads = started(port, dtype)
    port.put({"theta": CASES["plain"].params})
    still = {k: np.zeros_like(g) for k, g in grads[0].items()}
    for name, a in port.step(still).items():  # a zero gradient moves nothing
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, CASES["plain"].params[name].astype(dtype))
    moved = port.step(grads[0])
    assert all(a.dtype == dtype for a in moved.values())
    assert any((moved[k] != still_there).any() for k, still_there in CASES["plain"].params.items())


def test_a_state_that_is_not_there_cannot_be_set(port):
    started(port, np.float64)
    with pytest.raises(Unsupported, match=r"keeps no m .*that could be set"):
        port.put({"m": dict(CASES["plain"].params)})
