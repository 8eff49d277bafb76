"""Ports are told from what they can do, and what is no port is told what it is."""

import json
import sys
import types

import pytest

from amos_ref.conformance import check
from amos_ref.conformance.ports import recognise
from amos_ref.conformance.ports.function import NumpyPort
from amos_ref.conformance.ports.keras import KerasPort
from amos_ref.conformance.ports.optax import OptaxPort
from amos_ref.conformance.ports.recognise import adapter_of
from amos_ref.conformance.ports.torch import TorchPort
from amos_ref.errors import TargetError
from examples.ports.amos_numpy import step


class Vendored:
    """An optimizer whose base class is a copy of torch's."""

    def __init__(self, params, lr=1e-3):
        self.param_groups = [{"params": params, "lr": lr}]

    def add_param_group(self, group): ...
    def step(self): ...


class Plain:
    """An optimizer that is derived from nothing."""

    def __init__(self, params, lr=1e-3): ...
    def step(self): ...


class KerasLike:
    def __init__(self, learning_rate): ...
    def build(self, variables): ...
    def apply(self, grads, variables): ...
    def update_step(self, gradient, variable, learning_rate): ...


class OptaxLike:
    def __init__(self, learning_rate): ...
    def init(self, params): ...
    def update(self, grads, state, params): ...


class Almost:
    def init(self, params, hyper): ...
    def step(self, grads): ...
    def state(self): ...


class Model:
    def forward(self, x): ...
    def zero_grad(self): ...
    def step(self): ...


class Scheduler:
    def __init__(self, optimizer, lr): ...
    def step(self): ...


def make(params, lr): ...


def other_step(w, dw, cfg): ...


def step_with_rate(w, gradient, cfg, lr): ...


@pytest.mark.parametrize(
    ("found", "adapter"),
    [
        (Vendored, TorchPort),
        (Plain, TorchPort),
        (make, TorchPort),
        (lambda params, lr: None, TorchPort),
        (KerasLike, KerasPort),
        (OptaxLike, OptaxPort),
        (lambda lr, eta_fn: None, OptaxPort),
        (lambda w, grad, state, lr: None, NumpyPort),
    ],
)
def test_ports_are_told_from_what_they_can_do(found, adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert adapter_of(found, "x:y", {}) is adapter


@pytest.mark.parametrize("found", [Plain, make])
def test_without_torch_nothing_is_taken_for_its_optimizer(found, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if found is make:
        assert adapter_of(found, "x:y", {}) is OptaxPort
        return
    with pytest.raises(TargetError, match="a class that is no optimizer"):
        adapter_of(found, "x:y", {})


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            Almost,
            "x:y is a class that is no optimizer: instances must have step and param_groups as in torch, or build",
        ),
        (Almost, "or the members of a Port; as a Port it lacks own_eta; it has init, state, step"),
        (Model, "x:y is a module (it has forward), not an optimizer"),
        (Model(), "x:y is a model of class Model, not an optimizer"),
        (Scheduler, "a class that is no optimizer"),
        (Vendored([]), "give its class, Vendored, or functools.partial(Vendored, ...)"),
        (KerasLike(0.1), "an optimizer that is built already"),
        (OptaxLike(0.1), "what a factory returns (OptaxLike); the check makes one for each case: give the factory"),
        (json, "a module; name what is in it, as in json:Amos"),
        (
            other_step,
            "takes (w, dw, cfg) and has no parameter for the learning rate: a step takes theta, g, state first",
        ),
        (step_with_rate, "takes (w, gradient, cfg, lr): a step takes theta, g, state first, by such names"),
        (lambda: None, "takes () and has no parameter for the learning rate"),
        (print, "takes (*args, sep=' '"),
        ([], "of type list, neither an optimizer class of torch or Keras"),
        (int, "a class that is no optimizer"),
    ],
)
def test_what_is_no_port_is_told_what_it_is(found, text):
    with pytest.raises(TargetError) as caught:
        adapter_of(found, "x:y", {})
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_version_that_asks_for_the_class_does_not_know_a_copy(monkeypatch):
    monkeypatch.setattr(recognise, "_is_torch", lambda cls: False)
    with pytest.raises(TargetError, match="no optimizer"):
        adapter_of(Vendored, "x:y", {})


def test_get_scale_is_asked_of_a_class_that_is_like_keras():
    class Amos(KerasLike):
        @staticmethod
        def get_scale(variable):
            return 0.5

    port = KerasPort.__new__(KerasPort)
    port.options, port.target = {"learning_rate"}, Amos
    assert port.ask_scale({"x": None}, lambda: None) == {"x": 0.5}
    del Amos.get_scale
    assert port.ask_scale({"x": None}, lambda: Amos(0.1)) is None


def test_a_step_under_usual_names_is_driven():
    def amos(w, gradient, opt_state, t, lr, eta, beta):
        return step(w, gradient, opt_state, t, lr, eta, (), beta)

    assert check(amos, dtypes="float64", cases="plain").ok
