"""An optax-style factory, returning (init, update), as a port."""

import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.ports.failures import Unsupported
from amos_ref.conformance.ports.optax_life import OPTAX_EVENTS, WAYS
from amos_ref.conformance.ports.options import is_number
from amos_ref.conformance.ports.port import COUNT_NAMES, Adapter, Arrays, as_counted
from amos_ref.dtypes import FLOATS
from amos_ref.errors import MissingDependencyError, TargetError


class OptaxPort(Adapter):
    """Drives ``factory(**hyper)``, whose result has init(params) and update(grads, state, params).

    JAX is switched to 64-bit types, without which float64 parameters do not exist in it.
    """

    params: dict[str, Any]
    hyper: dict[str, Any]
    rates: Any
    t: int
    by_step: bool
    make: Callable[..., Any]
    compile: Callable[..., Any]
    around: Callable[..., Any]
    opt_state: Any
    transform: Any
    advance: Callable[..., Any]

    dtypes = FLOATS
    events: ClassVar[Mapping[str, Any]] = OPTAX_EVENTS
    ways: ClassVar[Mapping[str, Any]] = WAYS
    skips_none = False  # optax has no gradient of None: its trees of params and grads are the same

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make the transformation; a schedule becomes a callable, what is of a leaf a function of (name, shape)."""
        try:
            import jax  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependencyError(f"{self.name} needs jax, which is not installed: pip install jax") from None
        jax.config.update("jax_enable_x64", True)
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        self.params = {name: jnp.asarray(a) for name, a in params.items()}
        self.hyper = dict(hyper)
        for option in self.signature.of_leaf:
            if option in hyper:
                self.hyper[option] = self.by_leaf(hyper[option], params)
        self.etas: Any = hyper.get(self.algorithm.scale, {})
        rates = hyper[self.algorithm.rate]
        self.rates = rates if isinstance(rates, list) else None
        self.forget_events(params, hyper)
        self.t, self.by_step = 0, False  # by_step: no schedule is taken, so each step gets a transformation
        first: Any = rates
        if self.rates:
            values = jnp.asarray(rates, dtype=next(iter(self.params.values())).dtype)
            first = lambda count: values[jnp.clip(count - 1, 0, len(rates) - 1)]  # noqa: E731
        self.first = first
        self.make, self.compile, self.around = self._make, _as_it_is, _as_it_is  # what an event may replace
        self.start()

    def start(self) -> None:
        """Make the transformation and its state."""
        try:
            self.use(self.make(self.first))
            self.opt_state = self.transform.init(self.params)
        except Exception:
            if not self.rates:
                raise
            self.by_step = True
            self.use(self.make(self.rates[0]))
            self.opt_state = self.transform.init(self.params)

    def use(self, transform: Any) -> None:
        """Take the next steps with a transformation: update, then add the updates in the parameter's dtype."""

        def advance(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
            updates, state = transform.update(grads, state, params)
            return {name: (p + updates[name]).astype(p.dtype) for name, p in params.items()}, state

        self.transform, self.advance = transform, self.around(self.compile(advance))

    def _make(self, rate: Any, **other: Any) -> Any:
        scale = self.algorithm.scale
        if scale not in self.options or not is_number(self.signature.default(scale)):
            return self._make_one(rate, **other)
        return ByLeaf({k: self._make_one(rate, **{scale: eta} | other) for k, eta in self.etas.items()})

    def _make_one(self, rate: Any, **other: Any) -> Any:
        hyper = self.hyper | {self.algorithm.rate: rate} | other
        transform = self.target(**self.signature.keywords(hyper))
        if isinstance(transform, tuple) and not hasattr(transform, "init") and len(transform) == 2:
            transform = types.SimpleNamespace(init=transform[0], update=transform[1])
        if not (hasattr(transform, "init") and hasattr(transform, "update")):
            raise TargetError(f"{self.name} returned {type(transform).__name__}, which has no init and update")
        return transform

    def _advance(self, grads: Any) -> tuple[Any, Any]:
        """Step; a factory that takes no schedule gets each step's rate in a transformation of its own."""
        self.t += 1
        if not self.by_step:
            try:
                return self.advance(grads, self.opt_state, self.params)
            except Exception:
                if not self.rates or self.t > 1:
                    raise
                self.by_step = True
        self.use(self.make(self.rates[self.t - 1]))  # pyright: ignore[reportOptionalSubscript]
        return self.advance(grads, self.opt_state, self.params)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Take a step."""
        import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

        self.step_other(grads)
        with self.fit_for_use():
            self.params, self.opt_state = self._advance({name: jnp.asarray(g) for name, g in grads.items()})
        return {name: np.asarray(p) for name, p in self.params.items()}

    def state(self) -> dict[str, Arrays]:
        """Return the state as far as the (chained) state has fields of a known name."""
        found: dict[str, Arrays] = {}
        self._collect(self.opt_state, found)
        return found

    def _collect(self, node: Any, found: dict[str, Arrays]) -> None:
        if isinstance(node, dict):  # of states, by label
            node = tuple(node.values())
        if not isinstance(node, tuple):
            return
        for field, part in self._parts(node).items():
            arrays = {k: a for k, a in getattr(node, field).items() if not isinstance(a, tuple)}  # optax.MaskedNode
            found[part] = {k: np.asarray(a, dtype=np.float64) for k, a in arrays.items()} | found.get(part, {})
        for child in node:
            self._collect(child, found)

    def _parts(self, node: Any) -> dict[str, str]:
        """Return which fields of a state hold a part of every leaf's, under a known name."""
        fields = node._asdict() if hasattr(node, "_asdict") else {}
        found = {}
        for part, names in self.state_names.items():
            for name in names:
                if part not in found.values() and set(self.params) == _keys(fields.get(name)):
                    found[name] = part
        return found

    def put(self, values: dict[str, Arrays]) -> None:
        """Overwrite parameters and, in a new state tree, what is shown of the state."""
        left = {part: arrays for part, arrays in values.items() if part != "theta"}
        self.opt_state = self._replace_state(self.opt_state, left)
        if left:
            raise Unsupported(f"the port keeps no {', '.join(left)} that could be set")
        self.params |= _overwrite(self.params, values.get("theta", {}))

    def put_count(self, n: int) -> None:
        """Set every single number of the state whose name is one for a count."""
        import jax  # pyright: ignore[reportMissingImports]

        def set_to(path: Any, leaf: Any) -> Any:
            if np.shape(leaf) != () or _name(path) not in COUNT_NAMES:
                return leaf
            found.append(path)
            return n if isinstance(leaf, int) else jax.numpy.asarray(as_counted(n, leaf.dtype))

        found: list[Any] = []
        self.opt_state = jax.tree_util.tree_map_with_path(set_to, self.opt_state)
        if not found:
            raise Unsupported("the port keeps no count that could be set")

    def _replace_state(self, node: Any, left: dict[str, Arrays]) -> Any:
        """Return a state with these values, which are taken out of `left` as they find their place."""
        if not isinstance(node, tuple):
            return node
        parts = self._parts(node)
        if not hasattr(node, "_replace"):
            return tuple(self._replace_state(child, left) for child in node)
        fields = {}
        for field, value in node._asdict().items():  # type: ignore[attr-defined]
            mine = parts.get(field) in left
            fields[field] = _overwrite(value, left.pop(parts[field])) if mine else self._replace_state(value, left)
        return node._replace(**fields)  # type: ignore[attr-defined]


def _name(path: Any) -> Any:
    """Return the last field or key of a path in a tree, as far as it has a name."""
    last = path[-1] if path else None
    return getattr(last, "name", getattr(last, "key", None))


class ByLeaf:
    """A transformation for each leaf, where eta is one number of each."""

    def __init__(self, transforms: dict[str, Any]) -> None:
        self.transforms = transforms

    def init(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the states by leaf."""
        return {name: t.init({name: params[name]}) for name, t in self.transforms.items()}

    def update(self, grads: dict[str, Any], state: dict[str, Any], params: dict[str, Any]) -> tuple[Any, Any]:
        """Return the updates and the states."""
        updates, states = {}, {}
        for name, t in self.transforms.items():
            updated, states[name] = t.update({name: grads[name]}, state[name], {name: params[name]})
            updates |= updated
        return updates, states


def _as_it_is(x: Any) -> Any:
    return x


def _keys(value: Any) -> set[str] | None:
    return set(value) if isinstance(value, dict) else None


def _overwrite(old: dict[str, Any], new: Arrays) -> dict[str, Any]:
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

    return old | {name: jnp.asarray(a, dtype=old[name].dtype).reshape(old[name].shape) for name, a in new.items()}
