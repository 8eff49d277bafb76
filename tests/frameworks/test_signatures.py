"""Optimizers of torch as people write them: however they take their parameters and options, they are driven."""

import functools
import importlib

import pytest

from amos_ref.conformance import check
from amos_ref.conformance.ports.target import as_port
from amos_ref.errors import TargetError

torch = pytest.importorskip("torch")
Amos = importlib.import_module("helpers.stepped_torch").Amos

# torch warns of its own affairs while it is imported and used.
pytestmark = pytest.mark.filterwarnings("default")

CASES = ["plain", "schedule", "none-gradient", "0-d", "aged"]


class ByPosition(Amos):
    def __init__(self, params, lr, /, eta=0.5, beta=0.999):
        super().__init__(params, lr, eta, beta)


class Betas(Amos):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eta=0.5, weight_decay=0.01, foreach=None):
        super().__init__(params, lr, eta, betas[1])
        assert betas[0] == 0.9


class PairInGroups(Amos):
    """Its groups hold the tuple itself: momentum and beta."""

    def __init__(self, params, lr=1e-3, betas=(0.0, 0.999), eta=0.5):
        torch.optim.Optimizer.__init__(self, params, {"lr": lr, "eta": eta, "betas": betas, "t": 0})

    def step(self, closure=None):
        for group in self.param_groups:
            group["momentum"], group["beta"] = self.pair(group)
        return super().step(closure)

    def pair(self, group):
        momentum, beta = group["betas"]
        return momentum, beta


class PairOfTheFirst(PairInGroups):
    def pair(self, group):
        return self.param_groups[0]["betas"]


class Swapped(Amos):
    def __init__(self, lr=1e-3, params=(), eta=0.5, beta=0.999):
        super().__init__(params, lr, eta, beta)


class ByName(Amos):
    def __init__(self, *, params, lr, eta, beta):
        super().__init__(params, lr, eta, beta)


class Named(Amos):
    def __init__(self, named_parameters, lr, eta_fn, beta=0.999):
        super().__init__(named_parameters, lr, eta_fn, beta)

    def eta_of(self, p, group):
        return group["eta"](p)


class Closure(Amos):
    def step(self, closure):
        return super().step(closure) + 0.0


class Keywords(Amos):
    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)


class Copied:
    """It has what a copy of torch's base class has, and is not derived from it."""

    def __init__(self, params, lr=1e-3, beta=0.999):
        self.inner = Amos(params, lr, 0.5, beta)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    @staticmethod
    def get_scale(p):
        return 0.5 * p.shape[0] / p.shape[0]

    def add_param_group(self, group):
        self.inner.add_param_group(group)

    def step(self):
        self.inner.step()


def make(params, lr=1e-3, eta=0.5, beta=0.999):
    return Amos(params, lr, eta, beta)


@pytest.mark.parametrize(
    ("target", "renamed"),
    [
        (Amos, {}),
        (ByPosition, {}),
        (Betas, {"beta": "betas[1]"}),
        (Swapped, {}),
        (ByName, {}),
        (Named, {}),
        (Closure, {}),
        (Keywords, {"learning_rate": "lr", "eta": "kwargs.eta", "beta": "kwargs.beta"}),
        (make, {}),
        (lambda params, lr, eta, beta: Amos(params, lr, eta, beta), {}),
        (functools.partial(Amos, beta=0.5), {}),
    ],
)
def test_it_is_driven_and_conforms(target, renamed):
    report = check(target, renamed=renamed, dtypes="float64", cases=CASES)
    assert [r.verdict for r in report.results] == ["conforms"] * len(CASES), str(report)


def test_a_copy_of_the_base_class_is_torchs_and_one_leaf_that_raises_is_one_case():
    report = check(Copied, dtypes="float64", cases=CASES)
    found = {r.case: r for r in report.results}
    assert found.pop("0-d").detail.startswith("asked for its eta of leaf 'x', of shape (): IndexError: ")
    assert {r.verdict for r in found.values()} == {"conforms"}


@pytest.mark.parametrize(("target", "verdict"), [(PairInGroups, "conforms"), (PairOfTheFirst, "departs")])
def test_a_group_has_its_own_entry_of_a_tuple(target, verdict):
    cases = ["life-groups-beta", "life-momentum-on", "life-groups"]
    report = check(target, renamed={"momentum": "betas[0]", "beta": "betas[1]"}, dtypes="float64", cases=cases)
    found = {r.case: r.verdict for r in report.results}
    assert found == dict.fromkeys(cases, "conforms") | {"life-groups-beta": verdict}, str(report)


def test_a_schedule_needs_param_groups():
    class Bare:
        def __init__(self, params, lr=1e-3, beta=0.999):
            self.inner = Amos(params, lr, 0.5, beta)

        def step(self):
            self.inner.step()

    report = check(Bare, dtypes="float64", cases=["plain", "schedule"], eta=0.5)
    assert [r.verdict for r in report.results] == ["conforms", "not supported"]
    assert "no param_groups, in which its learning rate could be set" in report.results[1].detail


def test_a_factory_of_something_else_is_told_what_it_returns():
    with pytest.raises(TargetError, match="returned int, which has no step"):
        check(lambda params, lr: 3, eta=0.5)


def test_the_switches_of_torch_are_no_news_while_they_are_off():
    class Switched(Amos):
        def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999, foreach=None, maximize=False, capturable=True):
            super().__init__(params, lr, eta, beta)

    assert [(note.option, note.port) for note in as_port(Switched).notes] == [("capturable", "True")]


def amos_of_optax(learning_rate, eta_fn, beta=0.999):
    """A right pair of init and update, for every tree of arrays."""
    jnp = pytest.importorskip("jax.numpy")

    def init(params):
        return {"t": 0, "v": {k: jnp.zeros((), p.dtype) for k, p in params.items()}, "b": dict.fromkeys(params, 0.0)}

    def update(grads, state, params):
        t, updates, v, b = state["t"] + 1, {}, {}, {}
        xi = learning_rate(t) if callable(learning_rate) else learning_rate
        for k, g in grads.items():
            eta, g2, old = eta_fn((k,)), jnp.mean(g * g), state["b"][k]
            v[k] = state["v"][k] * beta + (1 - beta) * g2
            r = (1 - beta**t) / jnp.maximum(v[k], 2.0**-125)
            gamma = xi**2 * r * g2 / jnp.sqrt(1 + 0.25 * jnp.sqrt(xi) * old)
            d = 1 / (1 + 0.25 * jnp.sqrt(xi * eta) * old)
            updates[k] = -d * (xi * eta * jnp.sqrt(r) * g + gamma / 2 * params[k])
            b[k] = old * (1 + gamma) + gamma
        return updates, {"t": t, "v": v, "b": b}

    return init, update


class ClassOfOptax:
    def __init__(self, learning_rate, eta_fn, /, b2=0.999):
        self.init, self.update = amos_of_optax(learning_rate, eta_fn, b2)

    def init(self, params): ...
    def update(self, grads, state, params=None): ...


def number_of_optax(lr, eta=0.5, beta=0.999):
    return amos_of_optax(lr, lambda name: eta, beta)


@pytest.mark.parametrize("target", [amos_of_optax, ClassOfOptax, number_of_optax])
def test_pairs_classes_and_an_eta_that_is_a_number_are_driven(target):
    report = check(target, dtypes="float64", cases=["plain", "schedule", "0-d"])
    assert [r.verdict for r in report.results] == ["conforms"] * 3, str(report)


def test_a_number_is_not_given_a_function(monkeypatch):
    from amos_ref.conformance.ports import optax

    pytest.importorskip("jax")
    monkeypatch.setattr(optax, "is_number", lambda value: False)  # the wrong version
    with pytest.raises(AssertionError):
        test_pairs_classes_and_an_eta_that_is_a_number_are_driven(number_of_optax)
