"""A torch.optim.Optimizer class as a port."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.port import STATE_NAMES, Arrays, Signature, by_leaf


class TorchPort:
    """Drives an optimizer class through p.grad and step(), and reads optimizer.state.

    Parameters
    ----------
    cls : type
        A torch.optim.Optimizer subclass.
    name : str
    renamed : mapping
        ``ours -> theirs`` for parameters with other names.
    """

    skips_none = True

    def __init__(self, cls: type, name: str, renamed: Mapping[str, str]) -> None:
        self.cls, self.name = cls, name
        self.signature = Signature(cls, renamed)
        self.options = self.signature.options

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make parameters and the optimizer; an eta that is a number goes with its parameter's group."""
        import torch  # pyright: ignore[reportMissingImports]

        self.leaves = {name: torch.nn.Parameter(torch.tensor(a)) for name, a in params.items()}
        rates = hyper["learning_rate"]
        self.rates = iter(rates) if isinstance(rates, list) else None
        hyper = hyper | {"learning_rate": max(rates) if isinstance(rates, list) else rates}
        groups: Any = list(self.leaves.values())
        if "slot_shape" in hyper:
            hyper["slot_shape"] = by_leaf(hyper["slot_shape"], params)
        if "eta" in hyper and "eta" in self.options:
            theirs = self.signature.theirs["eta"]
            etas = hyper["eta"]
            hyper["eta"] = by_leaf(etas, params) if theirs.endswith("fn") else next(iter(etas.values()))
            if not theirs.endswith("fn") and len(set(etas.values())) > 1:
                groups = [{"params": [leaf], theirs: etas[name]} for name, leaf in self.leaves.items()]
        self.optimizer = self.cls(groups, **self.signature.keywords(hyper))

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Set every p.grad (a fresh tensor, or None) and the learning rate, then step."""
        import torch  # pyright: ignore[reportMissingImports]

        for name, leaf in self.leaves.items():
            g = grads[name]
            leaf.grad = None if g is None else torch.tensor(g)
        if self.rates is not None:
            rate = next(self.rates)
            for group in self.optimizer.param_groups:
                group[self.signature.theirs["learning_rate"]] = rate
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
        """Ask the class's get_scale for the eta that it hard-codes."""
        import torch  # pyright: ignore[reportMissingImports]

        get_scale = getattr(self.cls, "get_scale", None)
        if get_scale is None or "eta" in self.options:
            return None
        return {name: float(get_scale(torch.tensor(a))) for name, a in params.items()}


def _numpy(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float64)
