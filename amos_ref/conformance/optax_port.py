"""An optax-style factory, returning (init, update), as a port."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.port import STATE_NAMES, Arrays, Signature, by_leaf
from amos_ref.errors import MissingDependencyError, TargetError


class OptaxPort:
    """Drives ``factory(**hyper)``, whose result has init(params) and update(grads, state, params).

    JAX is switched to 64-bit types, without which float64 parameters do not exist in it.
    """

    skips_none = False  # optax has no gradient of None: its trees of params and grads are the same

    def __init__(self, factory: Any, name: str, renamed: Mapping[str, str]) -> None:
        self.factory, self.name = factory, name
        self.signature = Signature(factory, renamed)
        self.options = self.signature.options

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make the transformation; a schedule becomes a callable, eta and slot_shape functions of (name, shape)."""
        try:
            import jax  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependencyError(f"{self.name} needs jax, which is not installed: pip install jax") from None
        jax.config.update("jax_enable_x64", True)
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        self.params = {name: jnp.asarray(a) for name, a in params.items()}
        hyper = dict(hyper)
        rates = hyper["learning_rate"]
        if isinstance(rates, list):
            values = jnp.asarray(rates, dtype=next(iter(self.params.values())).dtype)
            hyper["learning_rate"] = lambda count: values[jnp.clip(count - 1, 0, len(rates) - 1)]
        for option in ("eta", "slot_shape"):
            if option in hyper:
                hyper[option] = by_leaf(hyper[option], params)
        self.transform = self.factory(**self.signature.keywords(hyper))
        if not (hasattr(self.transform, "init") and hasattr(self.transform, "update")):
            raise TargetError(f"{self.name} returned {type(self.transform).__name__}, which has no init and update")
        self.opt_state = self.transform.init(self.params)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Update, then add the updates in the parameter's dtype."""
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        given = {name: jnp.asarray(g) for name, g in grads.items()}
        updates, self.opt_state = self.transform.update(given, self.opt_state, self.params)
        self.params = {name: (p + updates[name]).astype(p.dtype) for name, p in self.params.items()}
        return {name: np.asarray(p, dtype=np.float64) for name, p in self.params.items()}

    def state(self) -> dict[str, Arrays]:
        """Return v, b and m as far as the (chained) state has fields of a known name."""
        found: dict[str, Arrays] = {}
        self._collect(self.opt_state, found)
        return found

    def _collect(self, node: Any, found: dict[str, Arrays]) -> None:
        fields = node._asdict() if hasattr(node, "_asdict") else {}
        for ours, names in STATE_NAMES.items():
            for theirs in names:
                value = fields.get(theirs)
                if isinstance(value, dict) and set(value) == set(self.params):
                    found.setdefault(ours, {k: np.asarray(a, dtype=np.float64) for k, a in value.items()})
        for child in fields.values() if fields else node if isinstance(node, tuple) else ():
            if isinstance(child, tuple):
                self._collect(child, found)

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """An optax-style factory is given its eta."""
        return None
