"""AdamW, to compare with: its numbers are those of sums, not of a recursion; tests/optimizers has what all share."""

import numpy as np
import pytest
from helpers.trees import all_bits

import amos_ref
from amos_ref import errors
from amos_ref.adamw import AdamW
from amos_ref.optimizers.state import AdamWState


def start():
    return {"a": np.array([3.0, -4.0]), "b": np.array(1.5)}


def test_adamw_by_its_sums():
    beta1, beta2, floor, lr, decay = 0.7, 0.8, 0.125, 0.1, 0.05
    opt = AdamW(lr, beta1=beta1, beta2=beta2, adam_epsilon=floor, weight_decay=decay)
    params, gradients = np.array([1.0, -2.0, 0.5]), np.random.default_rng(1).normal(size=(5, 3))
    state = opt.init(params)
    for n in range(1, 6):
        weights = [(1 - b) * b ** np.arange(n - 1, -1, -1.0) / (1 - b**n) for b in (beta1, beta2)]
        u = weights[0] @ gradients[:n] / (np.sqrt(weights[1] @ gradients[:n] ** 2) + floor)
        want = params - lr * u - lr * decay * params
        state = opt.step(params, gradients[n - 1], state)
        assert np.allclose(params, want, rtol=1e-13, atol=0)
    assert state.count == 5


def test_adamw_refuses_and_changes_nothing():
    opt, params = AdamW(), start()
    state = opt.init(params)
    before = all_bits((params, state))
    grads = {**start(), "a": np.array([1.0, np.nan])}
    with pytest.raises(errors.NonFiniteError, match=r"gradient of leaf 'a'\[1\] is nan"):
        opt.step(params, grads, state)
    with pytest.raises(errors.StateError, match="AdamWState"):
        opt.step(params, start(), amos_ref.Amos().init(params))
    with pytest.raises(errors.StateError, match=r"state\.m lacks leaf 'a'"):
        opt.step(params, start(), AdamWState(0, {}, {}))
    with pytest.raises(errors.StateError, match=r"state\.v of leaf 'a' has shape \(3,\)"):
        opt.step(params, start(), state._replace(v={**state.v, "a": np.zeros(3)}))
    with pytest.raises(errors.OverlapError, match="gradient of leaf 'a' shares memory with parameter of leaf 'a'"):
        opt.step(params, {**start(), "a": params["a"]}, state)
    with pytest.raises(errors.HyperParameterError, match="weight_decay is -1"):
        AdamW(weight_decay=-1)
    assert all_bits((params, state)) == before
    with pytest.raises(errors.BackendError, match="'cuda' has no kernels for this optimizer"):
        AdamW(backend="cuda")
    options = "beta1=0.9, beta2=0.999, adam_epsilon=1e-08, weight_decay=0.01, backend='auto'"
    assert repr(AdamW(0.5)) == f"AdamW(learning_rate=0.5, {options})"


def test_weight_decay_is_apart_from_the_gradient():
    """With a gradient of 0 the parameters shrink by learning_rate weight_decay, whatever m and v are."""
    opt, params = AdamW(0.5, weight_decay=0.25), np.array([8.0, -16.0])
    state = opt.step(params, np.zeros(2), opt.init(params))
    assert params.tolist() == [7.0, -14.0]
    assert not np.any(state.m[""])
    assert not np.any(state.v[""])


def test_schedules_count_from_1():
    called, params = [], start()
    opt = AdamW(lambda t: called.append(t) or 0.2, weight_decay=0.0)
    fixed = AdamW(0.2, weight_decay=0.0)
    state = opt.init(params)
    for _ in range(3):
        (updates, after), (wanted, _) = (o.update(start(), state, params) for o in (opt, fixed))
        assert all_bits(updates) == all_bits(wanted)
        state = after
    assert called == [1, 2, 3]
