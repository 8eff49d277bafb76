"""What the judge asks of a port, and how a port's names for things are matched to ours.

An adapter makes a port from something else: torch.py and keras.py from an optimizer class, optax.py from a factory,
function.py from a plain function, command.py from a program in any language.
"""

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy import array, iscomplexobj  # by themselves: a port may change the module

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.failures import Garbage, PortFailure, Unsupported, first_line, text_of
from amos_ref.conformance.ports.names import NAMES
from amos_ref.conformance.ports.options import Call, Note, Signature, by_name, parameters_of
from amos_ref.errors import TargetError

Arrays = dict[str, np.ndarray]

LEAF_NAME = "_amos_ref_leaf"  # attribute of a parameter that tells its leaf, where the shape does not

#: Our options -> the names that ports of paper Amos give them.
ALIASES = NAMES[PAPER_AMOS.name].options


@runtime_checkable
class Port(Protocol):
    """A port under test. Arrays are NumPy arrays by leaf name, float64 or float32 unless `dtypes` says otherwise.

    Attributes
    ----------
    name : str
        How reports call it.
    options : set of str
        Which of the options of :class:`amos_ref.Amos` (or :class:`amos_ref.ClosedFormAmos`) it has, by our names. "eta"
        (or "sigma") is among them if it can be given, "slot_shape" if slots can; a port without slots has one slot per
        array.
    skips_none : bool
        Whether a gradient may be None.
    dtypes : collection of str, optional
        Those of "float64", "float32", "float16", "bfloat16" that it takes; without it the first two.
    words : mapping of str to collection of str, optional
        Option -> those of its words that the port knows, as ``{"decay": ["inverse-square"]}``; for an option that it
        has not, the word that it hard-codes. Without it, it knows all words of the options that it has, and hard-codes
        the defaults of the others.
    put : method, optional
        ``put({"theta": {leaf: array}, "v": ..., "b": ..., "m": ...})`` overwrites parameters and state between
        two steps. Values are float64 and have the shapes of the page's state. A port that has no such method is not
        run through the cases that start from a state.
    put_count : method, optional
        ``put_count(n)`` sets the count of steps, between two steps, to what it is after n. A counter that cannot
        hold n is set to what its type makes of it (see :func:`as_counted`).
    undergo : method, optional
        ``undergo(event)`` does to the port what happens to an optimizer between two steps, or before the first:
        "state_dict", "pickle", "maximize" (docs/life.md lists the events). It raises
        :class:`amos_ref.conformance.ports.failures.Unsupported` for what the port has no notion of. A port that has
        no such method is not run through the cases that have events.
    """

    name: str
    options: set[str]
    skips_none: bool

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Start anew. `hyper` holds the case's options, eta (or sigma) and slot_shape (by leaf name) among them.

        sigma is "init" where the port is to measure it.

        learning_rate is a float, or a list with one entry a step; so is any option that changes on the way. `groups`,
        in the cases with an event of that name, holds the options that a leaf has of its own. The arrays are the port's
        to keep and to step in place, as most optimizers do.
        """
        ...

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Take one step and return the parameters after it; the gradients must not be written to."""
        ...

    def state(self) -> dict[str, Arrays]:
        """Return what is known of the state, as ``{"v": {leaf: array}, "b": ..., "m": ...}``; {} if nothing.

        Those are the parts of paper Amos; the closed form has m and v, where Adam's direction is taken.
        """
        ...

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Return the eta that the port hard-codes, by leaf name; None if it hard-codes none."""
        ...


class Adapter:
    """What the ports that are made from a callable have in common.

    Parameters
    ----------
    target : callable
        The class, factory or function.
    name : str
        How reports call it.
    renamed : mapping of str to str
        ``ours -> theirs``, for parameters with other names.
    algorithm : Algorithm
        What it is to be.
    words : mapping of str to collection of str
        Option -> the words that it knows, where its signature does not say so.
    """

    way: str
    name: str
    renamed: Mapping[str, str]
    algorithm: Algorithm
    signature: Signature
    target: Any
    options: set[str]
    words: dict[str, tuple[str, ...] | Collection[str]]
    state_names: Mapping[str, tuple[str, ...]]
    rates: Any
    begun: tuple[dict[str, np.ndarray], dict[str, Any]]

    skips_none = True

    def __init__(
        self,
        target: Any,
        name: str,
        renamed: Mapping[str, str],
        algorithm: Algorithm = PAPER_AMOS,
        words: Mapping[str, Collection[str]] = {},
    ) -> None:
        self.name, self.renamed, self.algorithm = name, renamed, algorithm
        given = self.given_first(parameters_of(target))
        self.signature = Signature(target, renamed, given, self.of_framework(), algorithm)
        self.target = by_name(target, self.signature)
        self.options, self.words = self.signature.options, self.signature.words() | dict(words)
        self.state_names = NAMES[algorithm.name].state
        self.notes: list[Note] = self.signature.notes()

    def given_first(self, parameters: Iterable[str]) -> list[str]:
        """Return which parameters the adapter gives by itself, by position."""
        return []

    def of_framework(self) -> Mapping[str, Any]:
        """Return parameters that are no options of the algorithm, and their usual defaults; `...` is any."""
        return {}

    def prepare(self, hyper: dict[str, Any], params: Arrays) -> dict[str, Any]:
        """Return options for a constructor: the first learning rate that is not 0, and slots by leaf.

        It is the rate of the first step, so that a port that reads it once, at its construction, is told from one that
        is given another. The schedule is kept.
        """
        rates = hyper[self.algorithm.rate]
        self.rates = iter(rates) if isinstance(rates, list) else None
        slots = {"slot_shape": by_leaf(hyper["slot_shape"], params)} if "slot_shape" in hyper else {}
        first = next(filter(None, rates), 0.0) if isinstance(rates, list) else rates
        return hyper | slots | {self.algorithm.rate: first}

    def by_leaf(self, values: Any, params: Arrays) -> Any:
        """Return a function that finds a leaf's eta or sigma; the word itself, where a port is to measure it."""
        return values if isinstance(values, str) else by_leaf(values, params)

    leaves: dict[str, Any]

    def find(self, part: str, leaf: str) -> Any:
        """Return what holds a part of a leaf's state under a known name, or None."""
        raise NotImplementedError

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return what holds a part of the state as an array."""
        return np.asarray(value)

    def assign(self, value: Any, a: np.ndarray) -> None:
        """Overwrite what holds a parameter or a part of the state, in the dtype and shape that it has."""
        raise NotImplementedError

    def state(self) -> dict[str, Arrays]:
        """Return the state as far as the port keeps it under known names."""
        shown: dict[str, Arrays] = {}
        for part in self.state_names:
            for leaf in self.leaves:
                if (value := self.find(part, leaf)) is not None:
                    shown.setdefault(part, {})[leaf] = self.to_numpy(value)
        return shown

    def put(self, values: dict[str, Arrays]) -> None:
        """Overwrite parameters and state."""
        for part, arrays in values.items():
            for leaf, a in arrays.items():
                value = self.leaves[leaf] if part == "theta" else self.find(part, leaf)
                if value is None:
                    raise Unsupported(f"the port keeps no {part} of leaf {leaf!r} that could be set")
                self.assign(value, a)

    events: Mapping[str, Callable[[Any], None]] = {}  # what it can undergo, beside "two-at-once"
    ways: Collection[str] = ()  # those that are ways to use an optimizer, which a port need not be fit for
    changes = False  # whether an option beside the learning rate can change on the way
    way = ""  # one of these, since which it has taken no step
    other: Any = None  # another optimizer of the same kind, which steps too

    def undergo(self, event: str) -> None:
        """Undergo what docs/life.md describes, or raise Unsupported."""
        if event == "two-at-once":
            self.other = type(self)(self.target, self.name, self.renamed, self.algorithm, self.words)
            self.other.init(*self.begun)
        elif event in self.events:
            self.way = way = event if event in self.ways else ""
            with self.fit_for_use():
                self.events[event](self)
            self.way = way
        else:
            raise Unsupported("the port has no notion of it")

    def forget_events(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Begin without any of them; an option that changes on the way is not for a port that is told options once."""
        changing = [name for name, x in hyper.items() if isinstance(x, list) and name != self.algorithm.rate]
        if changing and not self.changes:
            raise Unsupported(f"the port is told {', '.join(changing)} once")
        self.way, self.other, self.begun = "", None, ({name: a.copy() for name, a in params.items()}, dict(hyper))

    @contextlib.contextmanager
    def fit_for_use(self) -> Iterator[None]:
        """Say of an error that the port cannot be used in a new way, which is no wrong number."""
        try:
            yield
        except (PortFailure, TargetError, KeyboardInterrupt):
            raise
        except Exception as error:
            if not self.way:
                raise
            raise Unsupported(f"the port cannot be used with {self.way}: {first_line(error)}") from error
        finally:
            self.way = ""

    def step_other(self, grads: Mapping[str, Any]) -> None:
        """Let the other optimizer, if there is one, take a step without gradients of its own."""
        if self.other is not None:
            self.other.step({name: None if g is None else np.zeros_like(g) for name, g in grads.items()})

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Return None: the port is given its eta, or --eta says it."""
        return None

    def ask_scale(self, leaves: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer that `make` returns, for the eta that the port hard-codes."""
        if "eta" in self.options:
            return None
        owner = innermost(self.target)
        if not isinstance(inspect.getattr_static(owner, "get_scale", None), staticmethod | classmethod):
            owner = make()
        ask = getattr(owner, "get_scale", None)
        return None if ask is None else {name: float(ask(leaf)) for name, leaf in leaves.items()}


def innermost(target: Any) -> Any:
    """Return the class or function in partials, and in what calls it with its arguments in their places."""
    while isinstance(target, functools.partial | Call):
        target = target.func
    return target


#: What ports call their count of steps.
COUNT_NAMES = ("count", "step", "steps", "t", "step_count", "num_steps", "iteration", "iterations")


def as_counted(n: int, dtype: Any) -> np.ndarray:
    """Return a count as a counter of a dtype holds it: an integer wraps, a float rounds."""
    with np.errstate(all="ignore"):
        return np.asarray(n).astype(dtype)


def by_leaf(values: Mapping[str, Any], params: Arrays) -> Callable[..., Any]:
    """Return a function that finds a leaf's value, whether a port calls it with a name, a shape or an array.

    It can be pickled, as the optimizer that keeps it may be.
    """
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name, a in params.items():
        shapes.setdefault(tuple(a.shape), []).append(name)
    return functools.partial(_find_by_leaf, dict(values), shapes)


def _find_by_leaf(values: Mapping[str, Any], shapes: Mapping[tuple[int, ...], list[str]], *args: Any) -> Any:
    for arg in args:
        words = re.split(r"\W+", arg) if isinstance(arg, str) else [getattr(arg, LEAF_NAME, None)]
        for part in arg if isinstance(arg, tuple) else words:
            # a name, a key of JAX's paths, or a word of such a path in text
            name = getattr(part, "key", getattr(part, "name", part))
            if isinstance(name, str) and name in values:
                return values[name]
    for arg in args:
        shape = getattr(arg, "shape", arg if isinstance(arg, tuple | list) else None)
        names = None if shape is None else shapes.get(tuple(shape))
        if names and all(values[name] == values[names[0]] for name in names):
            return values[names[0]]
        if names:
            raise Unsupported(f"the port asks by shape, which leaves {' and '.join(names)} have both")
    raise LookupError(f"asked for a leaf by {args!r:.80}, in which there is neither a name nor a shape")


def copy_shown(theta: Any, state: Any, leaves: Iterable[str]) -> dict[str, Arrays]:
    """Return float64 copies of theta and the state after a step, since a port may go on writing to what it has shown.

    Garbage is raised where they are no arrays of real numbers by leaf.
    """
    if not isinstance(state, Mapping):
        raise Garbage(f"state returned {type(state).__name__}; it must be a dict")
    shown = {"theta": theta, **state}
    for what, arrays in shown.items():
        if not isinstance(arrays, Mapping):
            raise Garbage(f"{text_of(what)} is {type(arrays).__name__}; it must be a dict of arrays by leaf")
    if set(theta) != set(leaves):
        raise Garbage(f"step returned leaves {sorted(map(text_of, theta))} for {sorted(leaves)}")
    return {what: {name: _as_real(a, what, name) for name, a in arrays.items()} for what, arrays in shown.items()}


def _as_real(a: Any, what: str, name: str) -> np.ndarray:
    try:
        if not iscomplexobj(a):
            return array(a, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Garbage(f"{what} of leaf {name!r} is not an array of real numbers: {first_line(error)}") from error
    raise Garbage(f"{what} of leaf {name!r} is complex")
