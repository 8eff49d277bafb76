"""A torch.optim.Optimizer class as a port."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.ports.failures import PortFailure, Unsupported, first_line
from amos_ref.conformance.ports.port import COUNT_NAMES, LEAF_NAME, Adapter, Arrays
from amos_ref.conformance.ports.torch_feed import Feed, import_torch, to_numpy, to_tensor
from amos_ref.conformance.ports.torch_life import EVENTS
from amos_ref.dtypes import FLOATS
from amos_ref.errors import TargetError

#: What the parameter is called that takes the parameters; an optimizer may have it elsewhere than first.
PARAMS = ("params", "parameters", "param_groups", "model_params", "model_parameters", "named_parameters")

#: Which way a step is computed: what every optimizer of torch has.
SWITCHES: dict[str, Any] = {
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
}


class TorchPort(Adapter):
    """Drives a torch.optim.Optimizer class, or a functools.partial of one: sets p.grad, steps, reads its state.

    Attributes
    ----------
    leaves : dict of str to Parameter
    outside : set of str
        Leaves that the optimizer does not have, or not yet.
    extra : dict of str
        What its constructor is given beside the case's options.
    feed : Feed
        How gradients and learning rates reach it.
    """

    groups: Any
    grouped: bool
    changing: dict[str, list[Any]]
    apart: bool
    feed: Feed
    optimizer: Any

    dtypes: ClassVar[tuple[str, ...]] = FLOATS
    changes = True

    def given_first(self, parameters: Iterable[str]) -> list[str]:
        """Return the parameter that takes the parameters: the first of a usual name, or else the first of all."""
        names = list(parameters)
        return [name for name in names if name in PARAMS][:1] or names[:1]

    def of_framework(self) -> Mapping[str, Any]:
        """Return the options that say in which way a step is computed."""
        return SWITCHES

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make parameters and the optimizer, one group for all, or one a leaf where each has options of its own."""
        torch = import_torch()

        self.forget_events(params, hyper)
        self.groups, self.grouped = hyper.pop("groups", {}), False  # True once a group has its options
        self.changing = {name: x for name, x in hyper.items() if isinstance(x, list) and name != self.algorithm.rate}
        hyper = self.prepare(hyper, params) | {name: x[0] for name, x in self.changing.items()}
        scale = self.algorithm.scale
        self.etas: Any = hyper.pop(scale)
        self.hyper = hyper
        theirs = self.signature.theirs.get(scale, "")
        self.called = theirs.endswith("fn") or theirs.startswith("get") or self.etas == self.algorithm.measured
        self.hyper[scale] = self.by_leaf(self.etas, params) if self.called else next(iter(self.etas.values()))
        self.apart = bool(theirs) and not self.called and len(set(self.etas.values())) > 1
        self.outside: set[str] = set()
        self.extra: dict[str, Any] = {}
        self.feed = Feed()
        self.build({name: torch.nn.Parameter(to_tensor(a.copy())) for name, a in params.items()})

    def build(self, leaves: dict[str, Any], **other: Any) -> None:
        """Make a new optimizer for these parameters, with `other` options than the case's."""
        self.leaves = leaves
        for name, leaf in leaves.items():
            setattr(leaf, LEAF_NAME, name)
        inside = [name for name in leaves if name not in self.outside]
        groups = self.groups if self.grouped else {}
        own = {name: dict(self.group_option(k, x) for k, x in groups.get(name, {}).items()) for name in inside}
        if self.apart:  # from the start: a port may make its state when it is constructed
            theirs = self.signature.theirs[self.algorithm.scale]
            own = {name: {theirs: self.etas[name]} | options for name, options in own.items()}
        apart = self.apart or any(own.values())
        groups = [{"params": [leaves[n]], **own[n]} for n in inside] if apart else [leaves[n] for n in inside]
        if self.signature.given[:1] == ("named_parameters",) and not apart:
            groups = [(name, leaves[name]) for name in inside]
        self.optimizer = self.target(groups, **self.signature.keywords(self.hyper | other), **self.extra)
        if not callable(getattr(self.optimizer, "step", None)):
            raise TargetError(f"{self.name} returned {type(self.optimizer).__name__}, which has no step")
        self.feed.blank = _needs_closure(self.optimizer.step)
        for group, name in zip(self.optimizer.param_groups, inside, strict=False) if self.apart else ():
            group[self._group_key(self.algorithm.scale, group)] = self.etas[name]

    def group_key(self, ours: str) -> str:
        """Return the key of our option in the parameter groups; Unsupported if they have none."""
        found = self._find_key(ours, (getattr(self.optimizer, "param_groups", None) or [{}])[0])
        if found is None:
            raise Unsupported(f"the port's parameter groups have no {ours}")
        return found

    def group_option(self, ours: str, value: Any) -> tuple[str, Any]:
        """Return the key of our option in the parameter groups, and what is to stand there: it may be in a tuple."""
        key, place = self.group_key(ours), self.signature.places.get(ours)
        if place is None or place.name != key:
            return key, value
        return key, place.put(self.optimizer.param_groups[0][key], value)

    def _group_key(self, ours: str, group: dict[str, Any]) -> str:
        """Return the key of our option in a parameter group, which need not be the constructor's name for it."""
        found = self._find_key(ours, group)
        if found is None:
            raise TargetError(
                f"{self.name}: no parameter group has an entry for {ours}, so it cannot be set for a step"
            )
        return found

    def _find_key(self, ours: str, group: dict[str, Any]) -> str | None:
        names = self.signature.theirs.get(ours, ""), *self.signature.names.options[ours]
        return next((key for key in names if key in group), None)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Set every p.grad (the array itself, so that writing to it shows) and the learning rate, then step."""
        self.step_other(grads)
        if self.rates is not None and not hasattr(self.optimizer, "param_groups"):
            raise Unsupported("the port has no param_groups, in which its learning rate could be set for a step")
        if self.rates is not None:
            self.feed.set_rate(self.optimizer, next(self.rates), lambda g: self._group_key(self.algorithm.rate, g))
        try:
            self.feed.step(self.optimizer, self.leaves, grads)
        except PortFailure:
            raise
        except Exception as error:
            if not self.feed.refuses(error):
                raise
            raise Unsupported(f"it is refused: {first_line(error)}") from error
        return {name: to_numpy(leaf) for name, leaf in self.leaves.items()}

    def undergo(self, event: str) -> None:
        """Do what an event says; see torch_life.py."""
        if event not in EVENTS:
            return super().undergo(event)
        self.feed.eventful = True
        try:
            EVENTS[event](self)
        except NotImplementedError as error:
            raise Unsupported(f"it is refused: {first_line(error)}") from error

    def find(self, part: str, leaf: str) -> Any:
        """Return the tensor of optimizer.state that holds this part of a leaf's state, or None."""
        own = getattr(self.optimizer, "state", {}).get(self.leaves[leaf], {})
        return next((own[n] for n in self.state_names[part] if hasattr(own.get(n), "detach")), None)

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a tensor's numbers."""
        return to_numpy(value)

    def assign(self, value: Any, a: np.ndarray) -> None:
        """Overwrite a tensor in place."""
        if value.numel() != a.size:
            raise Unsupported(f"the port keeps a tensor of shape {tuple(value.shape)}, which {a.shape} cannot replace")
        value.data.copy_(to_tensor(a.copy()).reshape(value.shape))

    def put_count(self, n: int) -> None:
        """Set every count that the state of a parameter, a group or the optimizer itself has under a usual name."""
        optimizer = self.optimizer
        held = [*getattr(optimizer, "state", {}).values(), *getattr(optimizer, "param_groups", ()), vars(optimizer)]
        places = [(own, key) for own in held for key in COUNT_NAMES if _counts(own.get(key))]
        for own, key in places:
            if hasattr(own[key], "detach"):
                own[key].data.copy_(to_tensor(np.array(n)).to(own[key].dtype))
            else:
                own[key] = type(own[key])(n)
        if not places:
            raise Unsupported("the port keeps no count that could be set")

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer, for the eta that the port hard-codes."""
        torch = import_torch()

        leaves = {name: torch.nn.Parameter(to_tensor(a.copy())) for name, a in params.items()}
        options = self.signature.keywords({self.algorithm.rate: 0.25})
        return self.ask_scale(leaves, lambda: self.target(list(leaves.values()), **options))


def _needs_closure(step: Any) -> bool:
    """Whether a method step must be given a closure."""
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _counts(value: Any) -> bool:
    """Whether this is a single number."""
    return type(value) in (int, float) or (hasattr(value, "detach") and value.numel() == 1)
