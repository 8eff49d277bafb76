"""Which kind of port a Python object is: told from what it can do, since a framework may be vendored or renamed."""

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.function import FIRST, NumpyPort, is_step
from amos_ref.conformance.ports.names import NAMES
from amos_ref.conformance.ports.options import parameters_of, signature_text
from amos_ref.conformance.ports.port import Adapter, innermost
from amos_ref.conformance.ports.torch import PARAMS
from amos_ref.errors import TargetError

KERAS = ("build", "apply", "update_step")
PORT = ("init", "step", "state", "own_eta")
_GRADIENTS = (*FIRST[1], "gradient", "gradients", "dw", "dtheta", "dx")


def adapter_of(
    found: Any, label: str, renamed: dict[str, str], algorithm: Algorithm = PAPER_AMOS
) -> Callable[..., Any]:
    """Return the adapter that drives a class or function, or raise TargetError that says what it is instead."""
    inner = innermost(found)
    if isinstance(inner, type):
        return _of_class(inner, label)
    what = _what_is_built(inner)
    if what:
        raise TargetError(f"{label} is {what}")
    if not callable(inner):
        raise TargetError(
            f"{label} is of type {type(inner).__name__}, neither an optimizer class of torch or Keras, "
            "nor a function step(theta, g, state, ...), nor an optax-style factory, nor a Port"
        )
    return _of_function(found, label, renamed, algorithm)


def _of_class(cls: type, label: str) -> Callable[..., Adapter]:
    if all(callable(getattr(cls, name, None)) for name in KERAS):
        from amos_ref.conformance.ports.keras import KerasPort

        return KerasPort
    if callable(getattr(cls, "step", None)) and _is_torch(cls):
        from amos_ref.conformance.ports.torch import TorchPort

        return TorchPort
    if callable(getattr(cls, "init", None)) and callable(getattr(cls, "update", None)):
        return _optax_port()
    public = sorted(name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name, None)))
    kind = "a module (it has forward), not an optimizer" if hasattr(cls, "forward") else "a class that is no optimizer"
    lacks = [name for name in PORT if name not in public]
    almost = f"; as a Port it lacks {', '.join(lacks)}" if 0 < len(lacks) < 3 else ""
    has = ", ".join(public[:8]) or "no methods"
    raise TargetError(
        f"{label} is {kind}: instances must have step and param_groups as in torch, or {', '.join(KERAS)} as in Keras, "
        f"or init and update as in optax, or the members of a Port{almost}; it has {has}"
    )


def _is_torch(cls: type) -> bool:
    """Whether a class with a method step is made as torch's optimizers are: from parameters, which it has in groups."""
    if any(hasattr(cls, name) for name in ("add_param_group", "param_groups", "zero_grad")):
        return not hasattr(cls, "forward")
    try:
        first = next(iter(inspect.signature(cls).parameters), "")
    except (TypeError, ValueError):
        return False
    return "torch" in sys.modules and first in PARAMS


def _what_is_built(found: Any) -> str:
    """Return what an object is whose class would be the target; "" for any other."""
    cls = type(found).__name__
    if isinstance(found, types.ModuleType):
        names = [name for name in vars(found) if "amos" in name.lower() and callable(getattr(found, name))]
        return f"a module; name what is in it, as in {found.__name__}:{names[0] if names else 'Amos'}"
    if hasattr(found, "forward"):
        return f"a model of class {cls}, not an optimizer"
    if (hasattr(found, "param_groups") and hasattr(found, "step")) or all(hasattr(found, name) for name in KERAS):
        return (
            f"an optimizer that is built already; the check builds one for each case: give its class, {cls}, "
            f"or functools.partial({cls}, ...)"
        )
    if hasattr(found, "init") and hasattr(found, "update"):
        return f"what a factory returns ({cls}); the check makes one for each case: give the factory itself"
    return ""


def _of_function(found: Any, label: str, renamed: dict[str, str], algorithm: Algorithm) -> Callable[..., Adapter]:
    if is_step(found):
        return NumpyPort
    names = list(parameters_of(found))
    if "torch" in sys.modules and (set(names[:1]) & set(PARAMS)) and not set(names[1:2]) & set(_GRADIENTS):
        from amos_ref.conformance.ports.torch import TorchPort

        return TorchPort
    usual_rates = NAMES[algorithm.name].options[algorithm.rate]
    rate = algorithm.rate in renamed or set(names) & set(usual_rates)
    if not rate or set(names[:3]) & set(_GRADIENTS):
        usual = "; ".join(" or ".join(names) for names in FIRST)
        lacks = "" if rate else f" and has no parameter for {algorithm.rate_in_words}"
        raise TargetError(
            f"{label} takes ({signature_text(found)}){lacks}: a step takes theta, g, state first, by such names "
            f"({usual}); a factory takes {algorithm.rate_in_words} ({', '.join(usual_rates)}; --map "
            f"{algorithm.rate}=NAME) and no gradient"
        )
    return _optax_port()


def _optax_port() -> Callable[..., Adapter]:
    from amos_ref.conformance.ports.optax import OptaxPort

    return OptaxPort
