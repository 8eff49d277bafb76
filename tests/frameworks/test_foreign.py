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
from amos_ref.errors import DtypeError, NonFiniteError, ReadOnlyError
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


def test_a_graph_of_other_numbers_is_not_gone_back_through():
    """Steps in place raise the counters of the tensors that they write, and of no others."""
    params = {
        "w": torch.ones(2, 3, requires_grad=True),
        "s": torch.tensor(2.0, requires_grad=True),
        "kept": torch.ones(2),
    }
    params |= {"turned": torch.ones(3, 2, requires_grad=True).t().detach().requires_grad_(), "none": torch.ones(0)}
    grads = {name: None if name == "kept" else torch.ones_like(p) for name, p in params.items()}
    for backend in ("numpy", "cpu"):
        opt = amos_ref.Amos(0.1, backend=backend)
        state = opt.init(params)
        for taken in range(3):  # checked, laid out, as the last one was
            before = {name: p._version for name, p in params.items()}
            loss = sum((p**2).sum() for p in params.values())
            loss.backward(retain_graph=True)
            state = opt.step(params, grads, state)
            counts = {name: p._version - before[name] for name, p in params.items()}
            assert counts == {name: int(name != "kept") for name in params}, taken
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()
    own = {name: torch.ones(3) for name in "ab"}
    with amos_ref.Amos(0.1).bind(own, {"a": torch.ones(3), "b": None}, amos_ref.Amos(0.1).init(own)) as bound:
        bound(), bound()
    assert [p._version for p in own.values()] == [2, 0]


def test_a_refused_step_raises_no_counter():
    params, opt = {"w": torch.ones(3)}, amos_ref.Amos(0.1)
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            opt.step(params, {"w": torch.tensor([1.0, 2.0, torch.nan])}, opt.init(params))
        assert params["w"]._version == 0


def test_tensors_of_inference_have_no_counter():
    with torch.inference_mode():
        params = {"w": torch.ones(3)}
    opt = amos_ref.Amos(0.1)
    opt.step(params, {"w": torch.ones(3)}, opt.init(params))
    assert float(params["w"][0]) < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_files_of_other_libraries_arrays(dtype, tmp_path):
    """A file does not know whose arrays it was saved from; what is loaded is of the kind of `like`."""
    params: dict[str, Any] = {
        "w": torch.arange(6.0, dtype=dtype).reshape(2, 3).requires_grad_(),
        "b": torch.ones(3, dtype=dtype),
    }
    plain = {name: as_array(p, "").copy() for name, p in params.items()}
    opt = amos_ref.Amos(0.1, eta={"w": 0.5, "b": 0.25})
    state = opt.step(plain, {name: a + 1 for name, a in plain.items()}, opt.init(plain))
    amos_ref.save(tmp_path / "numpy", plain, state, opt)
    tensors = {name: torch.zeros_like(p).requires_grad_(p.requires_grad) for name, p in params.items()}
    loaded = amos_ref.load(tmp_path / "numpy", tensors)
    assert {name: own.bits(as_array(p, "")) for name, p in loaded.params.items()} == {
        n: own.bits(a) for n, a in plain.items()
    }
    assert [(p.requires_grad, type(p)) for p in loaded.params.values()] == [(True, torch.Tensor), (False, torch.Tensor)]
    assert not any(p.any() for p in tensors.values())
    amos_ref.save(tmp_path / "torch", loaded.params, loaded.state, opt)
    assert (tmp_path / "torch").read_bytes() == (tmp_path / "numpy").read_bytes()
    ours = {name: jnp.zeros(a.shape, a.dtype) for name, a in plain.items()}
    again = amos_ref.load(tmp_path / "torch", ours).params
    assert all(isinstance(a, jax.Array) for a in again.values())
    assert {name: own.bits(np.asarray(a)) for name, a in again.items()} == {n: own.bits(a) for n, a in plain.items()}
    assert amos_ref.load_state(tmp_path / "torch", ours, "param").v["b"].dtype == plain["b"].dtype


def test_minimize_in_torch_and_jax():
    """`fun` gets arrays of the start's kind, and all three end with the same bits."""
    a = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    seen = []

    def of_torch(params):
        seen.append((type(params["w"]), params["w"].requires_grad, params["none"]))
        loss = (params["w"] ** 2).sum() / 2
        loss.backward()
        return loss.item(), {"w": params["w"].grad, "none": None}

    def of_jax(params):
        assert isinstance(params["w"], jax.Array)
        return (params["w"] ** 2).sum() / 2, params

    def of_numpy(params):
        return (params["w"] ** 2).sum() / 2, params

    start = torch.from_numpy(a.copy()).requires_grad_()
    ends = [
        amos_ref.minimize(of_torch, {"w": start, "none": None}, learning_rate=0.1, steps=5),
        amos_ref.minimize(of_jax, {"w": jnp.asarray(a), "none": None}, learning_rate=0.1, steps=5),
        amos_ref.minimize(of_numpy, {"w": a, "none": None}, learning_rate=0.1, steps=5),
    ]
    assert set(seen) == {(torch.Tensor, True, None)}
    assert start.detach().numpy().tolist() == a.tolist()
    assert [type(end.params["w"]) for end in ends] == [torch.Tensor, type(jnp.ones(1)), np.ndarray]
    assert len({own.bits(as_array(end.params["w"], "")) for end in ends}) == 1
    more = [amos_ref.minimize(f, state=end, steps=3) for f, end in zip((of_torch, of_jax, of_numpy), ends, strict=True)]
    assert len({own.bits(as_array(end.params["w"], "")) for end in more}) == 1
