"""What a port under test is to the judge, and how one is found.

A port is anything with ``init`` and ``step``; adapters make one from a torch optimizer class or an optax-style
factory. Frameworks are imported only by the adapter that needs them.
"""

import importlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from amos_ref.errors import MissingDependencyError, TargetError

Arrays = dict[str, np.ndarray]

#: Our option -> the names that ports give it, the first found in a signature wins.
ALIASES: dict[str, tuple[str, ...]] = {
    "learning_rate": ("learning_rate", "lr", "xi", "step_size", "alpha"),
    "eta": ("eta", "eta_fn", "get_eta", "scale_fn", "scale", "eta_value"),
    "slot_shape": ("slot_shape", "shape_fn", "slot_shape_fn", "slot_fn"),
    "beta": ("beta", "beta2", "b2"),
    "momentum": ("momentum", "mu", "beta1", "b1"),
    "clip_value": ("clip_value", "clip", "grad_clip", "gradient_clip", "clip_grad", "chi"),
    "extra_l2": ("extra_l2", "extra_weight_decay", "l2"),
    "c_coef": ("c_coef", "c_coeff", "coef_c"),
    "d_coef": ("d_coef", "d_coeff", "coef_d"),
    "epsilon": ("epsilon", "eps"),
}

#: Our state -> the names that ports give it.
STATE_NAMES: dict[str, tuple[str, ...]] = {
    "v": ("v", "exp_avg_sq", "second_moment", "nu"),
    "b": ("b", "decay", "decays"),
    "m": ("m", "exp_avg", "ema", "momentum_buffer", "trace", "mu"),
}

_FRAMEWORKS = {"torch": "torch==2.13.0", "jax": "jax", "optax": "optax", "flax": "flax"}


@runtime_checkable
class Port(Protocol):
    """A port under test. Arrays are float64 or float32 NumPy arrays by leaf name.

    Attributes
    ----------
    name : str
        How reports call it.
    options : set of str
        Which of :class:`amos_ref.Amos`'s options it has, by our names. "eta" is among them if eta can be given,
        "slot_shape" if slots can; a port without slots has one slot per array.
    skips_none : bool
        Whether a gradient may be None.
    """

    name: str
    options: set[str]
    skips_none: bool

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Start anew. `hyper` holds the case's options, eta and slot_shape (by leaf name) among them.

        learning_rate is a float, or a list with one entry a step.
        """
        ...

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Take one step and return the parameters after it."""
        ...

    def state(self) -> dict[str, Arrays]:
        """Return what is known of the state, as ``{"v": {leaf: array}, "b": ..., "m": ...}``; {} if nothing."""
        ...

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Return the eta that the port sets by itself, by leaf name; None if it sets none."""
        ...


class Signature:
    """Which of our options a callable takes, and under which name.

    Parameters
    ----------
    target : callable
    renamed : mapping of str to str
        ``ours -> theirs``, before the known aliases.
    """

    def __init__(self, target: Callable[..., Any], renamed: Mapping[str, str]) -> None:
        try:
            parameters = inspect.signature(target).parameters
        except (TypeError, ValueError) as error:
            raise TargetError(f"the signature of {target!r} cannot be read: {error}") from None
        self.parameters = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        self.theirs: dict[str, str] = {}
        for ours, theirs in renamed.items():
            if ours not in ALIASES:
                raise TargetError(f"--map {ours}={theirs}: {ours!r} is none of {', '.join(ALIASES)}")
            if theirs not in self.parameters:
                raise TargetError(f"--map {ours}={theirs}: the port has no parameter {theirs!r}")
            self.theirs[ours] = theirs
        for ours, names in ALIASES.items():
            found = next((n for n in names if n in self.parameters and n not in self.theirs.values()), None)
            if ours not in self.theirs and found is not None:
                self.theirs[ours] = found
        if "learning_rate" not in self.theirs:
            raise TargetError(
                f"the port has no parameter for the learning rate (looked for {', '.join(ALIASES['learning_rate'])}); "
                "--map learning_rate=NAME names it"
            )

    @property
    def options(self) -> set[str]:
        """Our names of the options that the port has."""
        return set(self.theirs)

    def keywords(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Return the port's keyword arguments for these options; what a case leaves off is switched off."""
        given = {self.theirs[ours]: value for ours, value in hyper.items() if ours in self.theirs}
        for ours in ("momentum", "clip_value", "extra_l2"):
            theirs = self.theirs.get(ours)
            if theirs is not None and theirs not in given and self.parameters[theirs].default not in (None, 0, False):
                given[theirs] = 0.0
        return given


def by_leaf(values: Mapping[str, Any], params: Arrays) -> Callable[..., Any]:
    """Return a function that finds a leaf's value from whatever a port calls it with: a name, a shape, an array."""
    shapes = {tuple(a.shape): name for name, a in params.items()}

    def find(*args: Any) -> Any:
        for arg in args:
            name = "/".join(map(str, arg)) if isinstance(arg, tuple) and arg and isinstance(arg[0], str) else arg
            if isinstance(name, str) and name in values:
                return values[name]
        for arg in args:
            shape = tuple(getattr(arg, "shape", arg if isinstance(arg, tuple | list) else ()))
            if shape in shapes:
                return values[shapes[shape]]
        raise LookupError(f"asked for a leaf by {args!r:.80}, in which there is neither a name nor a shape")

    return find


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
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _import_failure(name, error) from error


def _import_file(name: str) -> Any:
    path = pathlib.Path(name)
    if not path.is_file():
        raise TargetError(f"there is no file {name!r}")
    spec = importlib.util.spec_from_file_location(f"amos_ref_target_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{name!r} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise _import_failure(name, error) from error
    return module


def _import_failure(name: str, error: Exception) -> Exception:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    root = (missing or "").partition(".")[0]
    if root in _FRAMEWORKS:
        return MissingDependencyError(f"{name} needs {root}, which is not installed: pip install {_FRAMEWORKS[root]}")
    if missing is not None and missing in (name, name.partition(".")[0]):
        return TargetError(f"there is no module {missing!r} on the path")
    text = str(error).strip().splitlines() or [""]
    return TargetError(f"{name} failed to import: {type(error).__name__}: {text[0]}")


def as_port(target: Any, renamed: Mapping[str, str] | None = None) -> Port:
    """Return a port for a Port, a torch optimizer class, an optax-style factory, or a target's text."""
    label = target if isinstance(target, str) else None
    found = find_target(target) if isinstance(target, str) else target
    if isinstance(found, Port) and not isinstance(found, type):
        return found
    if isinstance(found, type) and isinstance(found_port := _instantiated(found), Port):
        return found_port
    label = label or f"{getattr(found, '__module__', '?')}:{getattr(found, '__qualname__', repr(found))}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        from amos_ref.conformance.torch_port import TorchPort

        return TorchPort(found, label, renamed or {})
    if callable(found):
        from amos_ref.conformance.optax_port import OptaxPort

        return OptaxPort(found, label, renamed or {})
    raise TargetError(f"{label} is neither a torch.optim.Optimizer class nor an optax-style factory nor a Port")


def _instantiated(cls: type) -> Any:
    """Return an instance of a Port class, which needs no arguments; None for any other class."""
    if not all(hasattr(cls, name) for name in ("init", "step", "state", "own_eta", "options")):
        return None
    try:
        return cls()
    except Exception as error:
        raise TargetError(f"{cls.__qualname__}() failed: {type(error).__name__}: {error}") from error
