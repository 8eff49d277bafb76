"""A torch.optim.Optimizer class as a port."""

import importlib
import inspect
from typing import Any

import numpy as np

from amos_ref.conformance.ports.failures import Unsupported
from amos_ref.conformance.ports.port import ALIASES, COUNT_NAMES, STATE_NAMES, Adapter, Arrays, by_leaf
from amos_ref.dtypes import FLOATS, dtype_of
from amos_ref.errors import TargetError


def _import_torch() -> Any:
    return importlib.import_module("torch")  # as Any: a type checker takes this file, which has its name, for torch


class TorchPort(Adapter):
    """Drives a torch.optim.Optimizer class, or a functools.partial of one: sets p.grad, steps, reads its state."""

    dtypes = FLOATS

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
        self.optimizer = self.target(groups, **self.signature.keywords(hyper))
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
            for group in self.optimizer.param_groups:
                group[self._group_key("learning_rate", group)] = rate
        self.optimizer.step()
        return {name: _numpy(leaf) for name, leaf in self.leaves.items()}

    def find(self, part: str, leaf: str) -> Any:
        """Return the tensor of optimizer.state that holds this part of a leaf's state, or None."""
        own = self.optimizer.state.get(self.leaves[leaf], {})
        return next((own[n] for n in STATE_NAMES[part] if hasattr(own.get(n), "detach")), None)

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a tensor's numbers."""
        return _numpy(value)

    def assign(self, value: Any, a: np.ndarray) -> None:
        """Overwrite a tensor in place."""
        if value.numel() != a.size:
            raise Unsupported(f"the port keeps a tensor of shape {tuple(value.shape)}, which {a.shape} cannot replace")
        value.data.copy_(_tensor(a.copy()).reshape(value.shape))

    def put_count(self, n: int) -> None:
        """Set every count that the state of a parameter, a group or the optimizer itself has under a usual name."""
        optimizer = self.optimizer
        held = [*optimizer.state.values(), *optimizer.param_groups, vars(optimizer)]
        places = [(own, key) for own in held for key in COUNT_NAMES if _counts(own.get(key))]
        for own, key in places:
            if hasattr(own[key], "detach"):
                own[key].data.copy_(_tensor(np.array(n)).to(own[key].dtype))
            else:
                own[key] = type(own[key])(n)
        if not places:
            raise Unsupported("the port keeps no count that could be set")

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer, for the eta that the port hard-codes."""
        torch = _import_torch()

        owner = getattr(self.target, "func", self.target)
        if not hasattr(owner, "get_scale") or "eta" in self.options:
            return None
        leaves = {name: torch.nn.Parameter(_tensor(a.copy())) for name, a in params.items()}
        if not isinstance(inspect.getattr_static(owner, "get_scale"), staticmethod | classmethod):
            owner = self.target(list(leaves.values()), **self.signature.keywords({"learning_rate": 0.25}))
        return {name: float(owner.get_scale(leaf)) for name, leaf in leaves.items()}


def _counts(value: Any) -> bool:
    """Whether this is a single number."""
    return type(value) in (int, float) or (hasattr(value, "detach") and value.numel() == 1)


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
