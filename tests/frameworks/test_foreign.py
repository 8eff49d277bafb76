"""Arrays of torch and JAX in the optimizers: stepped in place where that can be, by any sequence of steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from flax.core import freeze
from helpers import sequences
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref.errors import DtypeError, ReadOnlyError
from amos_ref.foreign import as_array


def fill(tensor, numbers):
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(numbers)))


@pytest.mark.parametrize("member", ["amos", "amos with momentum", "closed form, adam"])
def test_sequences_of_tensors(member):
    """A kept layout beside a fresh optimizer on the page, move after move."""
    life = sequences.Life(
        member,
        "cpu",
        sequences.FOUR,
        lambda a: torch.from_numpy(np.array(a)),
        lambda a: np.array(as_array(a, "")),
        fill,
    )
    sequences.burst(life, 7, 30, sequences.ANYWHERE)
    assert life.opt._last.peek() is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_module_in_place(dtype):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)).to(dtype)
    params: dict[str, Any] = dict(module.named_parameters())
    arrays: dict[str, Any] = {name: as_array(p, "").copy() for name, p in params.items()}
    options = dict(slot_shape={r".*0.weight": "(SHAPE[0], 1)", ".*": "tensor"}, frozen={r"1\.": True})
    opt, page = amos_ref.Amos(0.1, **options), amos_ref.Amos(0.1, backend="numpy", **options)
    state, other = opt.init(params), page.init(arrays)
    for _ in range(3):
        for p in params.values():
            p.grad = torch.randn_like(p)
        state = opt.step(params, {name: p.grad for name, p in params.items()}, state)
        other = page.step(arrays, {name: as_array(p.grad, "").copy() for name, p in params.items()}, other)
        for name, p in params.items():
            assert own.bits(as_array(p, "")) == own.bits(arrays[name])
    assert opt._last.peek() is not None
    turned = torch.arange(6.0).to(dtype).reshape(2, 3).t()
    assert as_array(turned, "").astype(float).tolist() == turned.tolist()
    assert as_array(torch.empty(0, 3, dtype=dtype), "").shape == (0, 3)


def test_jax_arrays_by_update():
    params = {"w": jnp.ones((2, 3)), "b": jnp.full(3, 0.5, jnp.bfloat16), "n": None}
    opt = amos_ref.Amos(0.1)
    plain = {name: None if a is None else np.array(a) for name, a in params.items()}
    for tree in (params, freeze(params)):
        updates, _ = opt.update(tree, opt.init(tree), tree)
        new = amos_ref.apply_updates(tree, updates)
        expected = amos_ref.apply_updates(plain, opt.update(plain, opt.init(plain), plain)[0])
        assert type(new) is type(tree)
        assert isinstance(new["w"], jax.Array)
        assert {name: own.bits(np.asarray(new[name])) for name in "wb"} == {n: own.bits(expected[n]) for n in "wb"}
    with pytest.raises(ReadOnlyError, match="parameter of leaf 'b' is read-only"):
        opt.step(params, params, opt.init(params))


def test_the_state_of_a_module_of_nnx():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    before = np.array(params["kernel"])
    opt = amos_ref.Amos(0.1)
    updates, state = opt.update(params, opt.init(params), params)
    assert list(state.v) == ["bias", "kernel"]
    nnx.update(model, amos_ref.apply_updates(params, updates))
    assert (np.array(params["kernel"]) == before).all() or model.kernel is params["kernel"]
    moved = before + updates["kernel"]
    assert np.array(model.kernel).tolist() == moved.astype("f4").tolist()


def test_what_has_no_numbers_here():
    opt = amos_ref.Amos(0.1)
    for wrong, words in (
        (torch.ones(3, device="meta"), "is on the meta device, which holds no numbers: load its weights first"),
        (torch.eye(3).to_sparse(), "is a sparse tensor (sparse_coo); give to_dense() of it"),
        (torch._neg_view(torch.ones(2)), "Use tensor.resolve_neg().numpy() instead"),
        (torch.nn.Linear(2, 2), "give dict(module.named_parameters()) of it"),
        (torch.ones(2, dtype=torch.int32), "has dtype int32"),
        (jnp.ones(2, jnp.int32), "has dtype int32"),
    ):
        with pytest.raises(DtypeError) as caught:
            opt.init({"a": wrong})
        one_line(caught.value, ["params leaf 'a'", words])
    with pytest.raises(DtypeError, match="params leaf 'a' is a JAX tracer"):
        jax.jit(lambda x: opt.init({"a": x}).v)(jnp.ones(2))
