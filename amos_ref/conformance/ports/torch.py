"""A torch.optim.Optimizer class as a port."""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from amos_ref.conformance.ports.failures import Unsupported
from amos_ref.conformance.ports.port import ALIASES, STATE_NAMES, Adapter, Arrays, by_leaf
from amos_ref.dtypes import FLOATS, dtype_of
from amos_ref.errors import TargetError

#: What the parameter is called that takes the parameters; an optimizer may have it elsewhere than first.
PARAMS = ("params", "parameters", "param_groups", "model_params", "model_parameters", "named_parameters")

#: Which way a step is computed: what every optimizer of torch has.
SWITCHES = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}


def _import_torch() -> Any:
    return importlib.import_module("torch")  # as Any: a type checker takes this file, which has its name, for torch


class TorchPort(Adapter):
    """Drives a torch.optim.Optimizer class, or a functools.partial of one: sets p.grad, steps, reads its state."""

    dtypes = FLOATS

    def given_first(self, parameters: Iterable[str]) -> list[str]:
        """Return the parameter that takes the parameters: the first of a usual name, or else the first of all."""
        names = list(parameters)
        return [name for name in names if name in PARAMS][:1] or names[:1]

    def of_framework(self) -> Mapping[str, Any]:
        """Return the options that say in which way a step is computed."""
        return SWITCHES

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make parameters and the optimizer, one group for all, or one a leaf where each has an eta of its own."""
        torch = _import_torch()

        self.leaves = {name: torch.nn.Parameter(_tensor(a.copy())) for name, a in params.items()}
        hyper, etas = self.prepare(hyper, params), hyper["eta"]
        theirs = self.signature.theirs.get("eta", "")
        called = theirs.endswith("fn") or theirs.startswith("get")
        hyper["eta"] = by_leaf(etas, params) if called else next(iter(etas.values()))
        apart = theirs and not called and len(set(etas.values())) > 1
        groups = [{"params": [leaf]} for leaf in self.leaves.values()] if apart else list(self.leaves.values())
        if self.signature.given[:1] == ("named_parameters",):
            groups = list(self.leaves.items())
        self.optimizer = self.target(groups, **self.signature.keywords(hyper))
        if not callable(getattr(self.optimizer, "step", None)):
            raise TargetError(f"{self.name} returned {type(self.optimizer).__name__}, which has no step")
        self.closure = (lambda: _tensor(np.zeros(()))) if _needs_closure(self.optimizer.step) else None
        if apart:
            for group, eta in zip(self.optimizer.param_groups, etas.values(), strict=True):
                group[self._group_key("eta", group)] = eta

    def _group_key(self, ours: str, group: dict[str, Any]) -> str:
        """Return the key of our option in a parameter group, which need not be the constructor's name for it."""
        found = next((key for key in (self.signature.theirs[ours], *ALIASES[ours]) if key in group), None)
        if found is None:
            raise TargetError(
                f"{self.name}: no parameter group has an entry for {ours}, so it cannot be set for a step"
            )
        return found

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Set every p.grad (the array itself, so that writing to it shows) and the learning rate, then step."""
        for name, leaf in self.leaves.items():
            g = grads[name]
            leaf.grad = None if g is None else _tensor(g)
        if self.rates is not None:
            rate = next(self.rates)
            for group in getattr(self.optimizer, "param_groups", None) or _no_groups():
                group[self._group_key("learning_rate", group)] = rate
        self.optimizer.step(*([self.closure] if self.closure else []))
        return {name: _numpy(leaf) for name, leaf in self.leaves.items()}

    def find(self, part: str, leaf: str) -> Any:
        """Return the tensor of optimizer.state that holds this part of a leaf's state, or None."""
        own = getattr(self.optimizer, "state", {}).get(self.leaves[leaf], {})
        return next((own[n] for n in STATE_NAMES[part] if hasattr(own.get(n), "detach")), None)

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a tensor's numbers."""
        return _numpy(value)

    def assign(self, value: Any, a: np.ndarray) -> None:
        """Overwrite a tensor in place."""
        if value.numel() != a.size:
            raise Unsupported(f"the port keeps a tensor of shape {tuple(value.shape)}, which {a.shape} cannot replace")
        value.data.copy_(_tensor(a.copy()).reshape(value.shape))

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer, for the eta that the port hard-codes."""
        torch = _import_torch()

        leaves = {name: torch.nn.Parameter(_tensor(a.copy())) for name, a in params.items()}
        options = self.signature.keywords({"learning_rate": 0.25})
        return self.ask_scale(leaves, lambda: self.target(list(leaves.values()), **options))


def _needs_closure(step: Any) -> bool:
    """Whether a method step must be given a closure."""
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _no_groups() -> NoReturn:
    raise Unsupported("the port has no param_groups, in which its learning rate could be set for a step")


def _tensor(a: np.ndarray) -> Any:
    """Return a tensor on the array's own memory; torch knows bfloat16, but not NumPy's."""
    torch = _import_torch()

    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def _numpy(tensor: Any) -> np.ndarray:
    torch = _import_torch()

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(dtype_of("bfloat16"))
    return tensor.numpy()
