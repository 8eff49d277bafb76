"""From what a user names or hands over to a port that can be driven."""

import contextlib
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.command import CommandPort
from amos_ref.conformance.ports.failures import first_line, text_of
from amos_ref.conformance.ports.names import NAMES
from amos_ref.conformance.ports.port import Port, innermost
from amos_ref.conformance.ports.recognise import adapter_of
from amos_ref.conformance.ports.supervised import TargetPort
from amos_ref.errors import MissingDependencyError, TargetError

_FRAMEWORKS = {
    "torch": "torch==2.13.0",
    "jax": "jax",
    "optax": "optax",
    "flax": "flax",
    "keras": "keras",
    "tensorflow": "tensorflow (or, for Keras, set KERAS_BACKEND=torch or jax)",
}


def find_target(target: str) -> Any:
    """Import ``module:attr`` or ``path/to/file.py:attr``.

    Raises
    ------
    TargetError
        If the text is of another form, or the module or the attribute does not exist or fails to import.
    MissingDependencyError
        If the module needs a framework that is not installed.
    """
    module_name, colon, path = target.rpartition(":")
    if not colon or not module_name or not path:
        raise TargetError(f"target {target!r} is not of the form module:attr or file.py:attr")
    found = _import_file(module_name) if module_name.endswith(".py") else _import_module(module_name)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(f"{module_name} has no attribute {path!r}") from None
    return found


def _import_module(name: str) -> Any:
    here = str(pathlib.Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with _name_failures(name):
        return importlib.import_module(name)


def _import_file(name: str) -> Any:
    path = pathlib.Path(name)
    if not path.is_file():
        raise TargetError(f"there is no file {name!r}")
    spec = importlib.util.spec_from_file_location(f"amos_ref_target_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{name!r} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file can import its neighbours
    with _name_failures(name):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _name_failures(name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _import_failure(name, error) from error


def _import_failure(name: str, error: BaseException) -> Exception:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    root = (missing or "").partition(".")[0]
    if root in _FRAMEWORKS:
        return MissingDependencyError(f"{name} needs {root}, which is not installed: pip install {_FRAMEWORKS[root]}")
    if missing is not None and missing in (name, name.partition(".")[0]):
        return TargetError(f"there is no module {missing!r} on the path")
    return TargetError(f"{name} failed to import: {first_line(error)}")


def as_port(
    target: Any,
    renamed: Mapping[str, str] | None = None,
    timeout: float | None = None,
    algorithm: Algorithm = PAPER_AMOS,
    words: Mapping[str, Collection[str]] = {},
) -> Port:
    """Return a port for a Port, an optimizer class of torch or Keras, a step, or an optax-style factory.

    A text that names one of them is run in a process of its own, in which `timeout` holds; an object, in this one.
    """
    if isinstance(target, str):
        return TargetPort(target, renamed, timeout, algorithm, words)
    return load_port(target, renamed or {}, algorithm, words)


def as_other(target: Any, port: Port, renamed: Mapping[str, str], timeout: float | None, other: Algorithm) -> Any:
    """Return a new port of what was driven as `port`, for another algorithm; None if it cannot be that."""
    if isinstance(port, CommandPort):
        return CommandPort(port.command, timeout=port.timeout, algorithm=other.name)
    if port is target:  # a Port, which has the options of one algorithm
        return target if other.rate in port.options else None
    known = {ours: theirs for ours, theirs in renamed.items() if ours in NAMES[other.name].options}
    return as_port(target, known, timeout, other)


def load_port(
    target: Any,
    renamed: Mapping[str, str],
    algorithm: Algorithm = PAPER_AMOS,
    words: Mapping[str, Collection[str]] = {},
) -> Port:
    """Return a port that runs in this process, also for a text."""
    label = target if isinstance(target, str) else None
    found = find_target(target) if isinstance(target, str) else target
    if isinstance(found, type) and isinstance(found_port := _instantiate(found), Port):
        found = found_port
    if isinstance(found, Port) and not isinstance(found, type):
        return _as_it_is(found, algorithm, words)
    label = label or _name_of(found)
    return adapter_of(found, label, dict(renamed), algorithm)(found, label, renamed, algorithm, words)


def _as_it_is(port: Port, algorithm: Algorithm, words: Mapping[str, Collection[str]]) -> Port:
    """Return a Port, or raise TargetError if it was made for another algorithm, or is told words."""
    if words:
        raise TargetError(f"{text_of(port.name)} is a Port, which says by itself what words it knows")
    own = getattr(port, "algorithm", algorithm)
    if isinstance(own, Algorithm) and own is not algorithm:
        raise TargetError(f"{text_of(port.name)} was made as {own.title}, and is to be checked as {algorithm.title}")
    return port


def _name_of(found: Any) -> str:
    inner = innermost(found)
    name = getattr(inner, "__qualname__", None)
    return f"{inner.__module__}:{name}" if name else f"this {type(inner).__name__}"


def _instantiate(cls: type) -> Any:
    """Return an instance of a Port class, which needs no arguments; None for any other class."""
    if not all(hasattr(cls, name) for name in ("init", "step", "state", "own_eta", "options")):
        return None
    try:
        return cls()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise TargetError(f"{cls.__qualname__}() failed: {first_line(error)}") from error
