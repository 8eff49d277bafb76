"""Targets are found by name or by path, and told apart by their kind; those that cannot be used are named errors."""

import pytest

from amos_ref.conformance.ports.function import NumpyPort, is_step
from amos_ref.conformance.ports.optax import OptaxPort
from amos_ref.conformance.ports.target import as_port, find_target
from amos_ref.errors import MissingDependencyError, TargetError
from examples.ports.amos_numpy import step


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nonsense", "not of the form module:attr"),
        (":attr", "not of the form"),
        ("json:", "not of the form"),
        ("no_such_module_xyz:attr", "there is no module 'no_such_module_xyz'"),
        ("json:no_such_attr", "json has no attribute 'no_such_attr'"),
        ("no/such/file.py:attr", "there is no file 'no/such/file.py'"),
        ("math:pi", "neither an optimizer class of torch or Keras, nor"),
        ("os:getcwd", "no parameter for the learning rate"),
    ],
)
def test_targets_that_cannot_be_used(target, text):
    with pytest.raises(TargetError, match=text):
        as_port(target)


def test_targets_that_fail_to_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "breaks_here.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "needs_torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    with pytest.raises(TargetError, match="breaks_here failed to import: ZeroDivisionError: division by zero"):
        find_target("breaks_here:x")
    with pytest.raises(TargetError, match="leaves failed to import: SystemExit: 0"):
        find_target("leaves:x")
    with pytest.raises(TargetError, match=r"breaks_here.py failed to import"):
        find_target("breaks_here.py:x")
    with pytest.raises(MissingDependencyError, match=r"needs torch, which is not installed: pip install torch==2.13.0"):
        find_target("needs_torch:x")


def test_a_port_class_is_found_by_name():
    assert as_port("helpers.toy_port:ToyPort").name == "toy"


def test_a_function_is_told_from_a_factory():
    def factory(learning_rate, eta_fn, params=None):
        raise AssertionError

    def other_names(param, grad, state, lr):
        raise AssertionError

    assert is_step(step)
    assert is_step(other_names)
    assert not is_step(factory)
    assert not is_step(dict)
    assert isinstance(as_port(step), NumpyPort)
    assert isinstance(as_port(factory), OptaxPort)
    assert as_port(step).options == {"learning_rate", "eta", "slot_shape", "beta", "momentum", "extra_l2"}
    assert as_port("examples.ports.amos_numpy:step").name == "examples.ports.amos_numpy:step"
    with pytest.raises(TargetError, match="no parameter for the learning rate"):
        as_port(lambda theta, g, state: None)


def test_what_is_no_port_is_told_what_would_be():
    with pytest.raises(TargetError, match="neither an optimizer class of torch or Keras, nor a function step"):
        as_port(3)
