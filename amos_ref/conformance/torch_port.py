"""A torch.optim.Optimizer class as a port."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.port import ALIASES, STATE_NAMES, Arrays, Signature, by_leaf
from amos_ref.errors import TargetError


class TorchPort:
    """Drives an optimizer class through p.grad and step(), and reads optimizer.state.

    Parameters
    ----------
    cls : type or functools.partial of one
        A torch.optim.Optimizer subclass.
    name : str
    renamed : mapping
        ``ours -> theirs`` for parameters with other names.
    """

    skips_none = True

    def __init__(self, cls: Any, name: str, renamed: Mapping[str, str]) -> None:
        self.cls, self.name = cls, name
        self.signature = Signature(cls, renamed)
        self.options = self.signature.options

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make parameters and the optimizer, one group for all, or one a leaf where each has an eta of its own."""
        import torch  # pyright: ignore[reportMissingImports]

        self.leaves = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in params.items()}
        rates, etas = hyper["learning_rate"], hyper["eta"]
        self.rates = iter(rates) if isinstance(rates, list) else None
        hyper = hyper | {"learning_rate": max(rates) if isinstance(rates, list) else rates}
        if "slot_shape" in hyper:
            hyper["slot_shape"] = by_leaf(hyper["slot_shape"], params)
        theirs = self.signature.theirs.get("eta", "")
        called = theirs.endswith("fn") or theirs.startswith("get")
        hyper["eta"] = by_leaf(etas, params) if called else next(iter(etas.values()))
        apart = theirs and not called and len(set(etas.values())) > 1
        groups = [{"params": [leaf]} for leaf in self.leaves.values()] if apart else list(self.leaves.values())
        self.optimizer = self.cls(groups, **self.signature.keywords(hyper))
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
        import torch  # pyright: ignore[reportMissingImports]

        for name, leaf in self.leaves.items():
            g = grads[name]
            leaf.grad = None if g is None else torch.from_numpy(g)
        if self.rates is not None:
            rate = next(self.rates)
            for group in self.optimizer.param_groups:
                group[self._group_key("learning_rate", group)] = rate
        self.optimizer.step()
        return {name: _numpy(leaf) for name, leaf in self.leaves.items()}

    def state(self) -> dict[str, Arrays]:
        """Return v, b and m as far as optimizer.state holds them under a known name."""
        found: dict[str, Arrays] = {}
        for ours, names in STATE_NAMES.items():
            for leaf_name, leaf in self.leaves.items():
                own = self.optimizer.state.get(leaf, {})
                theirs = next((n for n in names if hasattr(own.get(n), "detach")), None)
                if theirs is not None:
                    found.setdefault(ours, {})[leaf_name] = _numpy(own[theirs])
        return found

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer, for the eta that the port hard-codes."""
        import torch  # pyright: ignore[reportMissingImports]

        owner = getattr(self.cls, "func", self.cls)
        if not hasattr(owner, "get_scale") or "eta" in self.options:
            return None
        leaves = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in params.items()}
        if not isinstance(inspect.getattr_static(owner, "get_scale"), staticmethod | classmethod):
            owner = self.cls(list(leaves.values()), **self.signature.keywords({"learning_rate": 0.25}))
        return {name: float(owner.get_scale(leaf)) for name, leaf in leaves.items()}


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy()
