"""A plain function that takes one step of one NumPy array, as a port."""

import copy
import inspect
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.ports.failures import Garbage, Unsupported, first_line
from amos_ref.conformance.ports.port import COUNT_NAMES, Adapter, Arrays, as_counted

#: What the first three parameters of a step are called.
FIRST = (
    ("theta", "param", "params", "p", "w", "weight", "weights"),
    ("g", "grad", "grads", "gradient", "gradients"),
    ("state", "opt_state"),
)


def is_step(target: Any) -> bool:
    """Whether a callable's first parameters are theta, g and state, by these names or the usual others."""
    try:
        names = list(inspect.signature(target).parameters)[: len(FIRST)]
    except (TypeError, ValueError):
        return False
    return len(names) == len(FIRST) and all(name in known for name, known in zip(names, FIRST, strict=True))


def _pickle(port: Any) -> None:
    try:
        data = pickle.dumps((port.leaves, port.own))
    except Exception as error:
        raise Unsupported(f"the state cannot be pickled: {first_line(error)}") from error
    port.leaves, port.own = pickle.loads(data)


def _deepcopy(port: Any) -> None:
    port.leaves, port.own = copy.deepcopy((port.leaves, port.own))


def _transposed(port: Any) -> None:
    port.feed = np.asfortranarray


def _expanded(port: Any) -> None:
    port.feed = lambda g: np.broadcast_to(g[:1], g.shape)  # which cannot be written to


def _parameters_transposed(port: Any) -> None:
    port.leaves = {name: np.asfortranarray(a) for name, a in port.leaves.items()}


#: Event -> what is done to a NumpyPort; docs/life.md describes them.
FUNCTION_EVENTS: dict[str, Callable[[Any], None]] = {
    "groups": lambda port: None,  # options are given at every step, for each leaf
    "momentum-on": lambda port: None,
    "pickle": _pickle,
    "deepcopy": _deepcopy,
    "gradients-transposed": _transposed,
    "gradients-expanded": _expanded,
    "parameters-transposed": _parameters_transposed,
}


class NumpyPort(Adapter):
    """Drives ``step(theta, g, state, t, learning_rate, eta, ...) -> (theta, state)``.

    It is called for one array at a time. `state` is a dict, {} before an array's first step; what it holds under a
    usual name for v, b and m is shown. The other parameters, given by name, say which options it has; `t` (if it
    has it) is the number of the step, from 1, or from 0 for the closed form. An array without a gradient is left out
    while t goes on.
    """

    leaves: dict[str, Any]
    hyper: dict[str, Any]
    t: int
    taken: int
    feed: Callable[[Any], Any]

    events: ClassVar[Mapping[str, Any]] = FUNCTION_EVENTS
    changes = True

    def given_first(self, parameters: Iterable[str]) -> list[str]:
        """Return theta, g and state, whatever they are called."""
        return list(parameters)[: len(FIRST)]

    def of_framework(self) -> Mapping[str, Any]:
        """Return the number of the step, which is no option."""
        return {"t": ...}

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Keep copies of the parameters; every state is empty."""
        self.leaves = {name: a.copy() for name, a in params.items()}
        self.own: dict[str, dict[str, Any]] = {name: {} for name in params}
        self.hyper, self.t, self.taken = hyper, 0, 0  # t counts steps, and may be set to more than were taken
        self.feed = lambda g: g
        self.forget_events(params, hyper)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Call the function for every leaf that has a gradient."""
        self.step_other(grads)
        self.t += 1
        self.taken += 1
        now = {option: x[self.taken - 1] if isinstance(x, list) else x for option, x in self.hyper.items()}
        for name, g in grads.items():
            if g is None:
                continue
            common = now | self.hyper.get("groups", {}).get(name, {})
            for option in self.signature.of_leaf:
                if isinstance(common.get(option), dict):
                    common[option] = self.hyper[option][name]
            t = {"t": self.t - 1 + self.algorithm.first_step} if "t" in self.signature.parameters else {}
            given = self.signature.keywords(common) | t
            answer = self.target(self.leaves[name], self.feed(g), self.own[name], **given)
            if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
                raise Garbage(f"returned {type(answer).__name__}; expected a pair of theta and a dict, the state")
            self.leaves[name], self.own[name] = answer
        return self.leaves

    def find(self, part: str, leaf: str) -> Any:
        """Return what a leaf's state holds under a known name, or None."""
        key = self._key(part, leaf)
        return None if key is None else self.own[leaf][key]

    def put(self, values: dict[str, Arrays]) -> None:
        """Overwrite parameters and what is shown of the state, in the dtype and shape that they have."""
        for part, arrays in values.items():
            for name, a in arrays.items():
                held, key = (self.leaves, name) if part == "theta" else (self.own[name], self._key(part, name))
                if key is None:
                    raise Unsupported(f"the port keeps no {part} of leaf {name!r} that could be set")
                held[key] = a.astype(np.asarray(held[key]).dtype).reshape(np.shape(held[key]))

    def put_count(self, n: int) -> None:
        """Set the t that is given next, and each number in a leaf's state whose name is one for a count."""
        self.t, found = n, "t" in self.signature.parameters
        for own in self.own.values():
            for key in COUNT_NAMES:
                if np.shape(own.get(key, ())) == () and key in own and np.asarray(own[key]).dtype.kind in "iuf":
                    found = True
                    kind = type(own[key])
                    own[key] = n if kind is int else as_counted(n, np.asarray(own[key]).dtype)[()]
        if not found:
            raise Unsupported("the port takes no t and keeps no count that could be set")

    def _key(self, part: str, leaf: str) -> str | None:
        return next((theirs for theirs in self.state_names[part] if self.own[leaf].get(theirs) is not None), None)
