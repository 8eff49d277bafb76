"""The contract of kernels/__init__.py: backends have its methods, members hand in what it asks for, and no more."""

import ast
import pathlib

import numpy as np
import pytest
from helpers.messages import one_line
from helpers.optimizers import MEMBERS, make, members
from helpers.trees import tree_of

import amos_ref
from amos_ref import kernels
from amos_ref.adamw import AdamW
from amos_ref.errors import BackendError

HERE = ("numpy", "cpu", "auto")
PACKAGE = pathlib.Path(amos_ref.__file__).parent


def methods(protocol):
    return [name for name, value in vars(protocol).items() if callable(value) and not name.startswith("_")]


@pytest.mark.parametrize("name", HERE)
def test_a_backend_has_every_method(name):
    backend = kernels.load_backend(name)
    assert len(methods(kernels.Backend)) >= 10
    for method in methods(kernels.Backend):
        assert callable(getattr(backend, method)), method
    work = backend.prepare([], amos_ref.Amos.method)
    assert isinstance(work.keeps, bool)
    assert isinstance(work.advanced, bool)
    for method in methods(kernels.Work):
        assert callable(getattr(work, method)), method


def test_auto_is_the_compiled_kernels():
    assert kernels.load_backend("auto") is kernels.load_backend("cpu")


@members
def test_a_member_hands_in_what_its_method_takes(name, monkeypatch):
    opt, params, given = make(name), tree_of(0), []
    method = opt.method
    recording = method._replace(
        page=lambda leaf, rates, mean=None: given.append((leaf, rates)) or method.page(leaf, rates)
    )
    monkeypatch.setattr(type(opt), "method", recording)
    opt.update(tree_of(1), opt.init(params), params)
    assert len(given) == len(amos_ref.tree.flatten(params))
    for leaf, rates in given:
        assert len(rates.numbers) == method.numbers
        assert all(isinstance(number, float) for number in (*rates.numbers, rates.chi, rates.mu))
        assert len(leaf.state) == method.states
        assert all(a.shape == leaf.slot for a in leaf.state)
        assert leaf.g.shape == leaf.theta.shape
        assert np.broadcast_shapes(leaf.slot, leaf.theta.shape) == leaf.theta.shape
        assert set(leaf.written()) <= set(leaf.arrays())
        assert set(leaf.written()) <= set(method.page(leaf, rates))
        assert leaf._replace(theta=leaf.theta).theta is leaf.theta
        found = method.decide(1.0, *np.zeros(method.states), float(leaf.scale), *leaf.own[: method.own], *rates.numbers)
        assert len(found) == 2 + method.states


def test_backends_that_do_not_exist_or_have_no_kernels():
    for name in ("tpu", "", None, 3, ["cpu"]):
        with pytest.raises(BackendError) as caught:
            kernels.check_backend(name)
        one_line(caught.value, [repr(name), *map(repr, kernels.BACKENDS)])
    with pytest.raises(BackendError, match="'cpu' has no kernels for this optimizer; there are 'numpy' and 'auto'"):
        kernels.check_backend("cpu", ("numpy", "auto"))
    for kind, _ in MEMBERS.values():
        assert set(kind.backends) <= set(kernels.BACKENDS)
    assert AdamW.backends == HERE


def imported(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_backend_imports_an_optimizer_and_no_optimizer_a_backend():
    for path in (PACKAGE / "kernels").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith("amos_ref.optimizers")], path
    below = ("amos_ref.kernels.cpu", "amos_ref.kernels.cuda", "amos_ref.kernels.page")
    for path in (PACKAGE / "optimizers").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(below)], path
    # The file that reads imports finds them.
    assert "amos_ref.kernels.layout.KeptLayout" in imported(PACKAGE / "optimizers" / "base.py")
