"""The benchmark's peers: what is timed is each package's own step, with the arrays and options of the page."""

import contextlib
import inspect
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import strategies as own
from helpers.made_up_gpu import STREAM, replace_driver

import amos_ref
from amos_ref.bench import contenders, gpu, jax_peers, torch_peers, workloads
from amos_ref.bench.cpu import AmosStepper
from amos_ref.cli import main

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
pytest.importorskip("flax")

# JAX and torch warn of their own affairs while they are imported and used.
pytestmark = pytest.mark.filterwarnings("default")

STEPS = 3


def work_of(**changed):
    return replace(workloads.parse_size("1e3"), threads=workloads.count_cores(), **changed)


def take_steps(name, work, backend="cpu", steps=STEPS):
    """Return the only array after some steps of a contender, in float64."""
    contender = contenders.find_contender(name, backend)
    assert contender.find_missing() is None
    assert contender.find_limit(work, 100) is None
    stepper = contender.build(work)
    for _ in range(steps):
        stepper.run()
    return read(stepper)


def read(stepper):
    """Return the only array of a contender of torch or JAX, in float64."""
    p = stepper.params["leaf0000"]
    return p.detach().double().cpu().numpy() if isinstance(p, torch.Tensor) else np.array(p, np.float64)


def step_page(work, eta=0.5):
    params, grads = workloads.draw_arrays(work)
    slot = workloads.slot_shape(work.slot, work.shapes[0])
    momentum = 0.9 if work.momentum else None
    opt = amos_ref.Amos(1e-3, eta, lambda *_: slot, beta=0.999, momentum=momentum, state_dtype="param", backend="numpy")
    state = opt.init(params)
    for _ in range(STEPS):
        state = opt.step(params, grads, state)
    return params["leaf0000"].astype(np.float64)


def as_tensor(a):
    return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype.itemsize == 2 else torch.from_numpy(a)


def step_torch(work, optimizer):
    """Take the steps by the package itself."""
    params, grads = workloads.draw_arrays(work)
    p = as_tensor(params["leaf0000"]).requires_grad_()
    opt = optimizer([p])
    for _ in range(STEPS):
        p.grad = as_tensor(grads["leaf0000"])
        opt.step()
    return p.detach().double().numpy()


TORCH = {
    "torch-fused": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
    "torch-foreach": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
    "pytorch_optimizer": lambda params: pytorch_optimizer.Amos(params, lr=1e-3, beta=0.999),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_what_torch_does_is_the_packages_own_step(name, dtype):
    work = work_of(dtype=dtype)
    got = take_steps(name, work)
    assert own.bits(got) == own.bits(step_torch(work, TORCH[name]))
    assert not np.array_equal(got, workloads.draw_arrays(work)[0]["leaf0000"].astype(np.float64))


def step_adamw(work):
    """Take the steps by AdamW as its paper writes it, with the defaults of optax."""
    params, grads = workloads.draw_arrays(work)
    theta, g = params["leaf0000"].astype(np.float64), grads["leaf0000"].astype(np.float64)
    m, v = np.zeros_like(g), np.zeros_like(g)
    for t in range(1, STEPS + 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 1e-4 * theta
        theta = theta - 1e-3 * step
    return theta


AMOS = [dict(), dict(momentum=True), dict(slot="row"), dict(slot="column"), dict(slot="element")]


@pytest.mark.parametrize("changed", AMOS)
def test_jestimator_takes_the_steps_of_the_page(changed):
    pytest.importorskip("importlib.metadata").version("jestimator")
    work = work_of(dtype="float64", **changed)
    got, want = take_steps("jestimator", work), step_page(work)
    moved = np.abs(want - workloads.draw_arrays(work)[0]["leaf0000"]).max()
    assert_same(got, want, moved)
    assert (
        np.abs(got - step_page(replace(work, slot="element" if work.slot == "tensor" else "tensor"))).max()
        > 0.01 * moved
    )


def test_pytorch_optimizer_takes_the_steps_of_the_page_with_its_own_eta():
    work = work_of(dtype="float64", momentum=True)
    want = step_page(work, eta=np.sqrt(2 / work.shapes[0][1]))
    moved = np.abs(want - workloads.draw_arrays(work)[0]["leaf0000"]).max()
    # It divides by v + 1e-18, and v is never less than after the first step.
    smallest_v = 1e-3 * np.square(workloads.draw_arrays(work)[1]["leaf0000"]).mean()
    assert_same(take_steps("pytorch_optimizer", work), want, moved, 1e-18 / smallest_v)


@pytest.mark.parametrize("changed", AMOS)
def test_the_port_to_torch_takes_the_steps_of_the_page(changed):
    work = work_of(dtype="float64", **changed)
    got, want = take_steps("torch-port", work), step_page(work)
    moved = np.abs(want - workloads.draw_arrays(work)[0]["leaf0000"]).max()
    assert_same(got, want, moved)
    other = replace(work, slot="element" if work.slot == "tensor" else "tensor")
    assert np.abs(got - step_page(other)).max() > 0.01 * moved


@pytest.mark.parametrize("direction", ["gradient", "sign", "adam"])
def test_the_port_of_the_closed_form_takes_the_steps_of_the_page(direction):
    work = work_of(dtype="float64", slot="row").as_closed_form(direction)
    stepper = AmosStepper(work, "numpy")
    for _ in range(STEPS):
        stepper.run()
    want = stepper.params["leaf0000"]
    moved = np.abs(want - workloads.draw_arrays(work)[0]["leaf0000"]).max()
    assert_same(take_steps("torch-port", work), want, moved)


def test_optax_takes_the_steps_of_adamw():
    work = work_of(dtype="float64")
    want = step_adamw(work)
    assert_same(take_steps("optax", work), want, np.abs(want - workloads.draw_arrays(work)[0]["leaf0000"]).max())


def assert_same(got, want, moved, known=0.0):
    """Each step rounds theta once or twice, and what is added to it relatively by less than the factor here.

    That is 60 roundings, 1000 more for a sum of 1000 squares, and two of beta and beta^t, which 1 - beta^t of 1e-3
    makes a thousand times as large; `known` is a relative departure that is known.
    """
    u = 2.0**-53
    allowed = STEPS * (2 * u * np.abs(want) + ((60 + 1000 + 2 / 1e-3) * u + known) * moved)
    assert (np.abs(got - want) <= allowed).all()


def test_float32_stays_float32_in_jax():
    for name in ("jestimator", "optax"):
        stepper = contenders.find_contender(name, "cpu").build(work_of())
        stepper.run()
        assert {a.dtype.name for a in jax.tree.leaves((stepper.params, stepper.grads))} == {"float32"}
        state = {a.dtype.name for a in jax.tree.leaves(stepper.state) if a.ndim}
        assert state <= {"float32"}


def test_nothing_is_compiled_once_it_is_warm():
    for name in ("jestimator", "optax"):
        for changed in (dict(momentum=True), dict(dtype="float64"), dict(dtype="bfloat16", slot="element")):
            contender = contenders.find_contender(name, "cpu")
            stepper = contender.build(work_of(**changed))
            for _ in range(contender.warm_up):
                stepper.run()
            programs = stepper.step._cache_size()
            stepper.run()
            stepper.run()
            assert stepper.step._cache_size() == programs, (name, changed)


def test_what_a_peer_cannot_do_has_a_reason():
    assert "tensor slots only" in contenders.find_contender("pytorch_optimizer", "cpu").find_limit(
        work_of(slot="row"), 9
    )
    for name in ("jestimator", "optax"):
        contender = contenders.find_contender(name, "cpu")
        assert "cannot be limited" in contender.find_limit(replace(work_of(), threads=workloads.count_cores() + 1), 9)
        assert "for too long" in contender.find_limit(
            replace(workloads.parse_tree("10x3"), threads=workloads.count_cores()), 9
        )
    for name in ("torch-fused", "optax", "jestimator"):
        assert "in the parameters' dtype" in contenders.find_contender(name, "cpu").find_limit(
            work_of(state="float64"), 9
        )


def test_all_of_them_are_in_one_run(capsys):
    assert main(["bench", "--sizes", "1e3", "--seconds", "0.01", "--rounds", "3", "--json"]) == 0
    (work,) = json.loads(capsys.readouterr().out)["workloads"]
    assert [r["contender"] for r in work["results"]] == ["amos_ref", "roof", *contenders.list_peers("cpu")]
    assert work["skipped"] == []
    moved = {r["contender"]: r["bytes"] for r in work["results"]}
    assert moved["torch-fused"] == moved["optax"] == 28_000
    assert moved["jestimator"] == work["bytes"] == 16_016


# as if on a GPU: the arrays stay here, and a graph is the calls of step


class Graph:
    def replay(self):
        for step in self.steps:
            step()


@contextlib.contextmanager
def recording(graph, **options):
    inspect.signature(TORCH_GRAPH).bind(graph, **options)
    assert options["stream"].cuda_stream == STREAM
    step, graph.steps = torch.optim.AdamW.step, []
    torch.optim.AdamW.step = lambda self: graph.steps.append(lambda: step(self))
    try:
        yield
    finally:
        torch.optim.AdamW.step = step


TORCH_GRAPH = torch.cuda.graph


@pytest.fixture
def torch_on_gpu(monkeypatch):
    replace_driver(monkeypatch)
    monkeypatch.setattr(gpu, "read_l2_bytes", lambda: 40_000)
    monkeypatch.setattr(torch_peers, "_stream", lambda: SimpleNamespace(cuda_stream=STREAM))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    for module in (torch_peers, jax_peers):
        monkeypatch.setattr(module, "_sees_gpu", lambda: True)
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda **_: ["cpu"])


@pytest.mark.usefixtures("torch_on_gpu")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["torch-fused", "torch-foreach", "torch-eager", "pytorch_optimizer"])
def test_what_torch_replays_is_the_packages_own_step(name, dtype):
    work = replace(work_of(dtype=dtype), threads=0)
    # The first step of what is replayed makes its state, and is followed by one that is recorded and not run.
    got = take_steps(name, work, "cuda", STEPS - (name in ("torch-fused", "torch-foreach")))
    want = step_torch(work, TORCH[name.replace("eager", "fused")])
    if name == "torch-foreach":  # whose arithmetic with the count of steps on the device is another
        # Numbers below 2 may end one unit of bfloat16's last place apart, which rounds a sum of 8 bits one way or the
        # other; in float32 each of the steps rounds three times, to half a unit of 2^-23: below 8 units in all.
        np.testing.assert_allclose(got, want, rtol=0, atol=2.0**-7 if dtype == "bfloat16" else 1e-6)
    else:
        assert own.bits(got) == own.bits(want)
    assert not np.array_equal(got, workloads.draw_arrays(work)[0]["leaf0000"].astype(np.float64))


@pytest.mark.usefixtures("torch_on_gpu")
@pytest.mark.parametrize("name", ["jestimator", "optax"])
def test_copies_in_jax_are_stepped_by_one_program(name):
    work = replace(work_of(), threads=0)
    rotation = contenders.find_contender(name, "cuda").prepare(work)
    copies = len(rotation.copies)
    assert copies == {"jestimator": 15, "optax": 8}[name]

    def count_programs():
        return {id(each.step): each.step._cache_size() for each in rotation.copies}

    programs = count_programs()
    assert len(programs) == 1
    assert 0 < rotation.time_steps(1) < 1
    assert rotation.count_steps(1) == 6
    counts = [2] * copies  # of the warm-up
    for k in range(6):
        counts[k % copies] += 1
    one = contenders.find_contender(name, "cpu").build(work_of())
    after = []
    for _ in range(max(counts)):
        one.run()
        after.append(own.bits(read(one)))
    assert [own.bits(read(each)) for each in rotation.copies] == [after[n - 1] for n in counts]
    assert count_programs() == programs


def test_what_finds_no_gpu_is_not_timed_instead(monkeypatch):
    for name in contenders.list_peers("cuda"):
        if not torch.cuda.is_available() and jax.default_backend() != "gpu":
            assert contenders.find_contender(name, "cuda").find_missing().startswith("not installed for a GPU: this ")
    monkeypatch.setattr(torch_peers, "_sees_gpu", lambda: 1 / 0)
    found = contenders.find_contender("torch-fused", "cuda").find_missing()
    assert found == "not installed as it should be: ZeroDivisionError: division by zero"
