"""The port to torch, held to the judge on every path, and through what users do to an optimizer."""

import copy
import doctest
import functools
import pickle
import types

import numpy as np
import pytest

from amos_ref.conformance import check, table
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.ports.target import load_port

torch = pytest.importorskip("torch")
port = pytest.importorskip("amos_ref.ports.torch")

#: What makes no sense for torch, or is refused by name.
APART = ("fused", "differentiable", "gradients-sparse", "parameters-complex")
APART += ("jit", "donate", "masked", "inject_hyperparams", "multi-steps")  # of JAX


def judged(cls, name, **options):
    report = check(functools.partial(cls, **options) if options else cls, algorithm=name)
    return report, {(r.case, r.dtype): r for r in report.results}


@pytest.mark.parametrize(
    "path", [{}, {"foreach": False}, {"capturable": True}], ids=["foreach", "single", "capturable"]
)
@pytest.mark.parametrize("name", ["paper", "closed-form"])
def test_every_case_conforms_on_every_path(name, path):
    cls = port.Amos if name == "paper" else port.ClosedFormAmos
    report, found = judged(cls, name, **path)
    assert report.ok, str(report)
    lacking = {case for (case, _), r in found.items() if r.verdict == "not supported"}
    assert all(case.removeprefix("life-").startswith(APART) for case in lacking)
    assert {r.verdict for r in found.values()} == {"conforms", "not supported"}
    assert {dtype for _, dtype in found} == {"float64", "float32", "bfloat16", "float16"}


class DoublesEpsilon(port.Amos):
    """The mistake: twice the epsilon."""

    def _decide(self, group, leaves, g2, eta, counts):
        return super()._decide({**group, "epsilon": 2 * group["epsilon"]}, leaves, g2, eta, counts)


class RoundsState(port.Amos):
    """The mistake: torch's own load_state_dict, which rounds the state to the parameters' dtypes."""

    load_state_dict = torch.optim.Optimizer.load_state_dict

    def __setstate__(self, state):
        torch.optim.Optimizer.__setstate__(self, state)


def test_a_wrong_port_departs():
    cases = [case for case in table() if case.name in ("plain", "epsilon-reached") and case.dtype == "float64"]
    results, _ = run(load_port(DoublesEpsilon, {}), cases)
    assert {r.case: r.verdict for r in results} == {"plain": "conforms", "epsilon-reached": "departs"}


def test_docstrings():
    assert doctest.testmod(port, extraglobs={"torch": torch}).failed == 0


# a small network, with parameters of all kinds


def model(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    return net.to(dtype)


def fill(net, seed, skip=()):
    generator = torch.Generator().manual_seed(seed)
    for name, p in net.named_parameters():
        g = torch.randn(p.shape, generator=generator)
        p.grad = None if name in skip else g.to(p.dtype)


def steps(net, optimizer, seeds, skip=()):
    for seed in seeds:
        fill(net, seed, skip)
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


BY_NAME = {"0.weight": 0.25, "0.bias": 0.5, "1.weight": 1.0, "1.bias": 0.5, "3.weight": 0.375, "3.bias": 0.5}
SLOTS = {**dict.fromkeys(BY_NAME, "tensor"), "0.weight": (7, 1), "3.weight": "element"}
PAPER = dict(lr=0.25, eta=BY_NAME, slot_shape=SLOTS, beta=0.75, momentum=0.5, extra_l2=0.125, clip_value=1.0)
CLOSED = dict(alpha_0=0.25, half_life=3.0, sigma=BY_NAME, slot_shape=SLOTS, direction="adam", q=0.75)
BOTH = [(port.Amos, PAPER), (port.ClosedFormAmos, CLOSED)]
both = pytest.mark.parametrize(("cls", "options"), BOTH, ids=["paper", "closed-form"])


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_paths_have_the_same_results(cls, options, dtype):
    ends = []
    for path in ({}, {"foreach": False}, {"capturable": True}):
        net = model(dtype)
        ends.append(steps(net, cls(net.named_parameters(), **options, **path), range(5)))
    assert same(ends[0], ends[1])
    exact = torch.finfo(dtype).eps  # the powers of beta, on the device, may differ in their last bits
    for a, b in zip(ends[0], ends[2], strict=True):
        torch.testing.assert_close(a, b, rtol=8 * exact, atol=8 * exact)


@both
def test_large_arrays_that_are_cut_have_the_same_results_as_whole_ones(cls, options, monkeypatch):
    def stepped():
        torch.manual_seed(1)
        shapes = [(64, 33), (1, 40), (300,), (5, 4, 6), ()]
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        params[0] = torch.nn.Parameter(params[0].detach().T.contiguous().T)
        slots = [(64, 1), (1, 40), (), "element", ()]
        own = {k: x for k, x in options.items() if k not in ("slot_shape", "eta", "sigma")}
        optimizer = cls([{"params": [p], "slot_shape": slot} for p, slot in zip(params, slots, strict=True)], **own)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape)
            optimizer.step()
        return [p.detach() for p in params]

    whole = stepped()
    monkeypatch.setattr(port, "_CACHED", 50)
    for a, b in zip(whole, stepped(), strict=True):  # the sum of squares is in another order
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_mean_square_of_millions_is_right():
    g = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    leaf = types.SimpleNamespace(slot=(1,), wide=torch.float32)
    exact = g.double().square().mean()
    error = abs(port._root_mean_square(g, leaf).double() ** 2 / exact - 1)
    assert error < 1e-5  # the sum of squares at once: 2e-4
    naive = abs(torch.linalg.vector_norm(g).double() ** 2 / g.numel() / exact - 1)
    assert naive > 10 * error


# state


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_loaded_state_goes_on_to_the_bit(cls, options, dtype, tmp_path):
    net = model(dtype)
    optimizer = cls(net.named_parameters(), **options)
    steps(net, optimizer, range(3))
    torch.save([net.state_dict(), optimizer.state_dict()], tmp_path / "saved.pt")
    end = steps(net, optimizer, range(3, 6))
    other = model(dtype, seed=5)
    again = cls(other.named_parameters(), **options | {"momentum": None} if cls is port.Amos else options)
    weights, state = torch.load(tmp_path / "saved.pt")  # weights_only: it is plain data
    other.load_state_dict(weights)
    again.load_state_dict(state)
    assert all(x.dtype == torch.float32 for own in again.state.values() for x in own.values())
    assert same(end, steps(other, again, range(3, 6)))


def test_a_state_rounded_to_half_precision_would_be_seen():
    def loaded(cls):
        net = model(torch.bfloat16)
        optimizer = cls(net.named_parameters(), **PAPER)
        steps(net, optimizer, range(3))
        optimizer.load_state_dict(optimizer.state_dict())
        return next(iter(optimizer.state.values()))["v"]

    assert loaded(port.Amos).dtype == torch.float32
    assert loaded(RoundsState).dtype == torch.bfloat16


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    def halve(name, shape):
        return np.sqrt(1 / np.float32(shape[0]))

    net = model()
    options = dict(lr=1 / np.sqrt(100), beta=np.float32(0.75), clip_value=np.int64(2), momentum=np.float64(0.5))
    optimizer = port.Amos(
        net.named_parameters(), eta=halve, slot_shape=lambda _, shape: tuple(np.array(shape)), **options
    )
    steps(net, optimizer, range(2))
    numbers = [x for x in optimizer.param_groups[0].values() if not isinstance(x, list)]
    numbers += optimizer.param_groups[0]["eta"] + [n for slot in optimizer.param_groups[0]["slot_shape"] for n in slot]
    assert {type(x) for x in numbers} <= {int, float, bool, str, type(None)}
    torch.save(optimizer.state_dict(), tmp_path / "saved.pt")
    port.Amos(model().named_parameters()).load_state_dict(torch.load(tmp_path / "saved.pt"))
    torch.save({"lr": np.float64(0.1)}, tmp_path / "wrong.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "wrong.pt")


@both
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), None])
def test_a_group_joins_a_copy_and_a_loaded_one(cls, options, how):
    net = model()
    own = {k: x for k, x in options.items() if k not in ("slot_shape", "eta", "sigma")}
    optimizer = cls(net[0].parameters(), **own)
    fresh = cls(net[0].parameters(), **own)
    steps(net, optimizer, range(2))
    if how is None:
        fresh.load_state_dict(optimizer.state_dict())
    else:
        net, fresh = how((net, optimizer))
    fresh.add_param_group({"params": net[3].parameters()})
    assert fresh.defaults.keys() == optimizer.defaults.keys()
    assert fresh.param_groups[1].keys() == optimizer.param_groups[0].keys()
    assert fresh.param_groups[1]["step"] == fresh.param_groups[0]["step"] == 2
    steps(net, fresh, range(2, 4))


@both
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_go_on_to_the_bit(cls, options, how):
    net = model()
    optimizer = cls(net.named_parameters(), **options)
    steps(net, optimizer, range(2))
    other, again = how((net, optimizer))
    assert same(steps(net, optimizer, range(2, 4)), steps(other, again, range(2, 4)))


@both
def test_groups_in_another_order_are_matched_by_their_names(cls, options):
    def grouped(net, order):
        named = dict(net.named_parameters())
        return [{"params": [(name, named[name]) for name in names]} for names in order]

    order = [["0.weight", "0.bias", "3.bias"], ["1.weight", "1.bias", "3.weight"]]
    net, other = model(), model()
    optimizer = cls(grouped(net, order), **options)
    steps(net, optimizer, range(2))
    other.load_state_dict(net.state_dict())
    again = cls(grouped(other, [names[::-1] for names in order[::-1]]), **options)
    again.load_state_dict(optimizer.state_dict())
    assert same(steps(net, optimizer, range(2, 4)), steps(other, again, range(2, 4)))
    third = cls(grouped(other, [["0.weight"], ["0.bias", "3.bias", "1.weight", "1.bias", "3.weight"]]), **options)
    before = copy.deepcopy(third.state_dict())
    with pytest.raises(ValueError, match=r"no group of the state_dict has just \['0.weight'\]"):
        third.load_state_dict(optimizer.state_dict())
    assert third.state_dict() == before


def test_without_names_an_order_that_does_not_fit_is_refused():
    net = model()
    optimizer = port.Amos(net.parameters(), momentum=0.5)
    steps(net, optimizer, range(2))
    again = port.Amos(list(net.parameters())[::-1], momentum=0.5)
    with pytest.raises(ValueError, match="the shape of m of parameter 0 of its group in the state_dict is"):
        again.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="is of another optimizer: it has no eta, slot_shape"):
        again.load_state_dict(torch.optim.AdamW(net.parameters()).state_dict())


@both
def test_skipped_frozen_and_tied_parameters(cls, options):
    net = model()
    net[3].weight.requires_grad_(False)
    net[1].bias = net[0].bias  # tied: it is stepped once
    own = {k: x for k, x in options.items() if k not in ("slot_shape", "eta", "sigma")}
    optimizer = cls(net.parameters(), **own)
    kept = net[3].weight.detach().clone()
    steps(net, optimizer, range(3), skip=["3.weight"])
    assert torch.equal(net[3].weight, kept)
    assert optimizer.param_groups[0]["step"] == 3
    before = net[0].weight.detach().clone()
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert torch.equal(net[0].weight, before)
    assert optimizer.param_groups[0]["step"] == 4


def test_a_group_that_joins_goes_on_with_the_count():
    net = model()
    optimizer = port.Amos(net[0].parameters())
    steps(net, optimizer, range(3))
    optimizer.add_param_group({"params": net[3].parameters(), "eta": 0.25, "lr": 0.5})
    assert [group["step"] for group in optimizer.param_groups] == [3, 3]
    groups = list(optimizer.param_groups)
    with pytest.raises(ValueError, match="eta of parameter 0 of its group is -1"):
        optimizer.add_param_group({"params": net[1].parameters(), "eta": -1.0})
    assert optimizer.param_groups == groups


def test_sigma_is_measured_once():
    net = model()
    optimizer = port.ClosedFormAmos(net.parameters(), half_life=10)
    measured = optimizer.param_groups[0]["sigma"]
    for sigma, p in zip(measured, net.parameters(), strict=True):
        wide = p.detach().double()
        special = bool((wide == 0).all() or (wide == 1).all())
        assert sigma == (0.5 if special else pytest.approx(float(wide.square().mean().sqrt()), rel=1e-15))
    steps(net, optimizer, range(3))
    assert optimizer.state_dict()["param_groups"][0]["sigma"] == measured


def test_rules_get_names_and_shapes():
    asked = []
    net = model()

    def rule(name, shape):
        asked.append((name, shape))
        return 0.25

    optimizer = port.Amos(net.named_parameters(), eta=rule)
    assert asked == [(name, tuple(p.shape)) for name, p in net.named_parameters()]
    assert optimizer.param_groups[0]["eta"] == [0.25] * 6
    asked.clear()
    port.Amos(net.parameters(), eta=rule)
    assert asked[0] == (None, (7, 5))


def test_a_closure_is_called_once_and_its_loss_returned():
    net, calls = model(), []

    def closure():
        calls.append(torch.is_grad_enabled())
        net.zero_grad()
        loss = net(torch.ones(2, 5)).square().mean()
        loss.backward()
        return loss

    assert port.Amos(net.parameters()).step(closure).requires_grad
    assert calls == [True]


def test_schedulers_warm_up_from_0():
    net = model()
    optimizer = port.Amos(net.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(t / 4, 1.0))
    before = net[0].weight.detach().clone()
    fill(net, 0)
    optimizer.step()
    assert torch.equal(net[0].weight, before)
    assert float(optimizer.state[net[0].weight]["v"]) > 0
    scheduler.step()
    optimizer.step()
    assert not torch.equal(net[0].weight, before)


def test_a_schedule_that_falls_below_0_is_refused_before_anything_moves():
    net = model()
    optimizer = port.Amos(net.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / 2)
    for seed in range(3):
        fill(net, seed)
        optimizer.step()
        scheduler.step()
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"lr is -0.25; it must be a number in \[0, inf\)"):
        optimizer.step()
    assert same(before, net.parameters())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@both
def test_a_compiled_step(cls, options, backend):
    options = options | {"capturable": True}
    net, other = model(), model()
    optimizer, again = cls(net.named_parameters(), **options), cls(other.named_parameters(), **options)
    compiled = torch.compile(again.step, backend=backend, fullgraph=True)
    for seed in range(4):
        fill(net, seed)
        fill(other, seed)
        optimizer.step()
        compiled()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# bad input


def one(shape=(3, 4), **kind):
    return torch.nn.Parameter(torch.ones(shape, **kind))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, r"lr is -1.0; it must be a number in \[0, inf\)"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": torch.ones(2)}, "lr is tensor"),
        ({"lr": torch.tensor(-0.1)}, r"lr is tensor\(-0.1000\); it must be a number in \[0, inf\)"),
        ({"lr": torch.tensor(float("nan"))}, r"lr is tensor\(nan\)"),
        ({"lr": torch.tensor(1j)}, r"lr is tensor\(0.\+1.j\)"),
        ({"eta": np.float32(0.0)}, r"eta of parameter 0 of its group is .*0.0"),
        ({"beta": 1}, r"beta is 1; it must be a number in \[0, 1\)"),
        ({"momentum": True}, "momentum is True"),
        ({"eta": 0.0}, r"eta of parameter 0 of its group is 0.0; it must be a number in \(0, inf\)"),
        ({"eta": "init"}, "eta of parameter 0 of its group is 'init'"),
        ({"eta": {"w": 1.0}}, r"eta is a mapping by name; give the names: model.named_parameters\(\)"),
        ({"slot_shape": "rows"}, "slot_shape of parameter 0 of its group is 'rows'; it must be 'tensor', 'element' or"),
        ({"slot_shape": (4, 1)}, r"slot_shape of parameter 0 of its group is \(4, 1\).* broadcast to \(3, 4\)"),
        ({"slot_shape": 3}, "slot_shape of parameter 0 of its group is 3"),
        ({"foreach": 2}, r"foreach is 2; it must be one of \(None, False, True\)"),
        ({"epsilon": None}, "epsilon is None"),
        ({"state_dtype": torch.float32}, "state_dtype is torch.float32; it must be one of"),
    ],
)
def test_options_that_are_wrong(options, words):
    with pytest.raises(ValueError, match=words) as error:
        port.Amos([one()], **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "half_life is None and p_0 is None; exactly one"),
        ({"half_life": 3.0, "p_0": 0.5}, "exactly one"),
        ({"half_life": 3.0, "p_t": "constant"}, "p_t is 'constant' with decay 'inverse-time'"),
        ({"half_life": 3.0, "alpha_0": 0.5, "q": 0.125}, r"q is 0.125; it must be above alpha_0\^2/2"),
        ({"half_life": 3.0, "direction": "lion"}, "direction is 'lion'; it must be one of"),
        ({"half_life": 3.0, "alpha_0": torch.tensor(0.5)}, "alpha_0 is tensor"),
    ],
)
def test_options_of_the_closed_form_that_are_wrong(options, words):
    with pytest.raises(ValueError, match=words):
        port.ClosedFormAmos([one()], **options)


def test_names_that_are_wrong():
    named = [("w", one()), ("b", one((4,)))]
    with pytest.raises(ValueError, match=r"eta has no entry for \['b'\]"):
        port.Amos(named, eta={"w": 0.5})
    with pytest.raises(ValueError, match=r"eta has entries for \['x'\]; the parameters are \['w', 'b'\]"):
        port.Amos(named, eta={"w": 0.5, "b": 0.5, "x": 0.5})
    with pytest.raises(ValueError, match=r"a group has unknown options \['weight_decay'\]; there are lr, eta"):
        port.Amos([{"params": [one()], "weight_decay": 0.1}])
    with pytest.raises(TypeError, match="weight_decay"):
        port.Amos([one()], weight_decay=0.1)
    with pytest.raises(ValueError, match="slot_shape of parameter 'b' is"):
        port.Amos(named, slot_shape=lambda name, shape: (shape[0], 1))


def test_arrays_that_are_wrong():
    with pytest.raises(TypeError, match=r"parameter 0 of its group has dtype torch\.complex64"):
        port.Amos([one(dtype=torch.complex64)])
    with pytest.raises(TypeError, match=r"has dtype torch\.float8_e4m3fn; it must be real, of 16 bits"):
        port.Amos([torch.zeros(3).to(torch.float8_e4m3fn)])
    with pytest.raises(ValueError, match="a group has parameters on cpu and meta; make a group for each device"):
        port.Amos([one(), one(device="meta")])
    with pytest.raises(ValueError, match="lr is a tensor on meta; the parameters of its group are on cpu"):
        port.Amos([one()], lr=torch.tensor(0.5, device="meta"))
    flat = one((12,))
    flat._fsdp_flattened = True  # as FSDP marks its parameters
    with pytest.raises(TypeError, match="is a part of an array"):
        port.Amos([flat])
    dense, sparse = one((4, 3)), torch.nn.Parameter(torch.ones(4, 3))
    dense.grad, sparse.grad = torch.ones(4, 3), torch.ones(4, 3).to_sparse()
    optimizer = port.Amos([dense, sparse])
    with pytest.raises(TypeError, match="the gradient of parameter 1 of its group is sparse; use a dense one"):
        optimizer.step()
    assert torch.equal(dense, torch.ones(4, 3))
    assert optimizer.param_groups[0]["step"] == 0


def test_state_dtypes():
    for word, dtype in (("wide", torch.float32), ("param", torch.float16), ("float64", torch.float64)):
        p = one(dtype=torch.float16)
        p.grad = torch.ones_like(p)
        if word == "param":
            with pytest.warns(UserWarning, match="v underflows"):
                optimizer = port.Amos([p], momentum=0.5, state_dtype=word)
        else:
            optimizer = port.Amos([p], momentum=0.5, state_dtype=word)
        optimizer.step()
        assert {x.dtype for x in optimizer.state[p].values()} == {dtype}


def test_b_stands_still_in_float32_where_gamma_is_tiny_and_grows_in_float64():
    ends = {}
    for word in ("wide", "float64"):
        p = one()
        optimizer = port.Amos([p], lr=1e-4, state_dtype=word)
        p.grad = torch.ones_like(p)
        optimizer.step()
        b = optimizer.state[p]["b"]
        b.fill_(0.5)
        for _ in range(100):
            optimizer.step()
        ends[word] = float(b)
    assert ends["wide"] == 0.5
    np.testing.assert_allclose(ends["float64"] - 0.5, 100 * 1.5 * 1e-8, rtol=1e-2)


def test_what_choose_returns_is_taken():
    import amos_ref

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    named = dict(model.named_parameters())
    choice = amos_ref.choose(named)
    core = amos_ref.Amos(learning_rate=0.1, eta=choice, slot_shape=choice)
    ours = port.Amos(model.named_parameters(), lr=0.1, eta=choice, slot_shape=choice)
    theta = {name: p.detach().double().numpy().copy() for name, p in named.items()}
    model(torch.ones(3, 6)).square().sum().backward()
    core.step(theta, {name: p.grad.double().numpy() for name, p in named.items()}, core.init(theta))
    ours.step()
    for name, p in named.items():  # one step in float32: its rounding, and that of a mean of at most 24 squares
        np.testing.assert_allclose(p.detach().numpy(), theta[name], rtol=32 * 2**-24, atol=32 * 2**-24)
    other = torch.nn.Sequential(torch.nn.Linear(6, 4))
    with pytest.raises(ValueError, match="entries for"):
        port.Amos(other.named_parameters(), lr=0.1, eta=choice)
