"""The contract between an optimizer and what computes its steps.

A step flows ``gradient -> direct -> reduce -> decide -> apply`` over leaves. The optimizer hands in the leaves, the
numbers of the step, its *decide* and what makes its directions (a :class:`Method`); a :class:`Backend` supplies the
rest, and gives the page's answer bit for bit. No backend imports an optimizer, and no optimizer names a backend.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from amos_ref.errors import BackendError
from amos_ref.foreign import as_array, as_array_tree

#: Name -> module. "auto" is the compiled CPU kernels.
BACKENDS = {
    "numpy": "amos_ref.kernels.page",
    "cpu": "amos_ref.kernels.cpu.backend",
    "cuda": "amos_ref.kernels.cuda.backend",
    "auto": "amos_ref.kernels.cpu.backend",
}


class Leaf(Protocol):
    """One parameter array with all that its step reads and writes: a NamedTuple, whose ``_replace`` backends use."""

    name: str
    theta: Any  # the parameter
    g: Any  # its gradient, or a direction that the caller made of it, of theta's shape
    moments: tuple[Any, ...]  # what *direct* reads and writes: float64 arrays of theta's shape
    momentum: Any  # the averaged change, of theta's shape; None without momentum
    slot: tuple[int, ...]  # the slot's shape, which broadcasts to theta's
    state: tuple[Any, ...]  # what *decide* reads and writes: arrays of the slot's shape and of one dtype
    scale: Any  # eta or sigma: a number, or an array of one float64 beside theta that is read anew at each step
    own: tuple[float, ...]  # more numbers of the leaf, which no step changes

    def arrays(self) -> dict[str, Any]:
        """Return every array of the leaf by its field's name."""
        ...

    def written(self) -> dict[str, Any]:
        """Return the arrays that a step overwrites, by the names under which `Method.page` gives their new values."""
        ...


class Direction(Protocol):
    """The numbers by which a step makes directions of gradients: a NamedTuple of floats, whose class says how."""

    #: ``direct(g, *moments, *numbers) -> (u, *new moments)``: float64 in and out, for one element or for arrays; u is 0
    #: where all of these are. A plain function like *decide*. Whether g^2 is finite backends look for themselves, as u
    #: may not show it.
    direct: ClassVar[Callable[..., tuple[Any, ...]]]
    #: How many arrays of a leaf's `moments` it takes: 2 or none, as compiled kernels have it.
    moments: ClassVar[int]
    _fields: ClassVar[tuple[str, ...]]
    # A class may have ``is_bounded(g, *moments, *numbers) -> bool`` too, which costs less than `direct`: whether it is
    # certain that neither u^2 nor g^2 overflows.


class Rates(Protocol):
    """The numbers of one step that all leaves share.

    From step to step only the first two of `numbers` and the last two of `aims` change without cost.
    """

    numbers: tuple[float, ...]  # what *decide* takes behind the leaf's own numbers
    aims: Any  # the Direction; None where leaves move along `g` itself
    chi: float  # where gradients are clipped; infinity leaves them as they are
    mu: float  # the decay of momentum; 0.0 without momentum


class At(NamedTuple):
    """Where in a run a step is, so that replays of a recorded one can find the numbers of the next."""

    count: int  # the steps before it
    #: The first number of the step is 1 - beta^(count + 1); None where it is something else.
    beta: float | None = None
    #: Whether the second number is the same at every step.
    steady: bool = False


BEGINNING = At(0)


class Method(NamedTuple):
    """What a member of the family hands to a backend."""

    #: ``decide(mean, *state, scale, *own, *numbers) -> (alpha, rho, *new state)``: float64 in and out, for one slot. A
    #: plain function of + - * / sqrt, max and comparisons, which backends compile together with all that it calls.
    decide: Callable[..., tuple[float, ...]]
    #: How many arrays of a leaf's `state` *decide* takes: 2 or none, as compiled kernels have it.
    states: int
    #: ``page(leaf, rates)``: every intermediate of a leaf's step by the page, in NumPy. It raises NonFiniteError for a
    #: gradient that is not finite. Of a part of an array it is given ``mean(u, slot)`` too, the mean square.
    page: Callable[..., Mapping[str, Any]]
    #: ``aim(leaf, rates) -> (g, u, ...)``: the clipped gradient, and what the mean square is taken of. It raises as
    #: `page` does.
    aim: Callable[[Any, Any], tuple[Any, ...]]
    #: The class of what `Rates.aims` is at every step, a :class:`Direction`; None where that is None.
    direction: Any = None
    #: How many numbers a leaf has as its `own`: at most 2, as compiled kernels have it.
    own: int = 0
    #: `decide` of a slot of one entry, which may take a faster way to the same bits: ``(u, *state, ...)``, with u where
    #: `decide` has its square. None where there is no faster way.
    decide_one: Callable[..., tuple[float, ...]] | None = None

    @property
    def numbers(self) -> int:
        """How many numbers *decide* takes behind the leaf's own."""
        return self.decide.__code__.co_argcount - self.states - 2 - self.own


class Work(Protocol):
    """The leaves of a step, laid out for a backend. It may hold addresses: the caller keeps the arrays alive.

    Attributes
    ----------
    keeps : bool
        Whether the same work can serve a later step with the same arrays.
    advanced : bool
        Whether the last `run` advanced the arrays; False where it was only recorded, to be replayed later.
    begun : bool
        Whether the last `run` has, or may have, written anything. If it raises then, the arrays may hold half a step.
    late : BaseException or None
        What was raised from outside while the last `run` wrote, which it did to the end.
    at_once : bool
        Whether `run` reads and writes in one call of compiled code, which neither a signal nor an exception from
        outside can break off. They come before it or behind it.
    done : bool
        Whether that call has happened since `start`.
    vanished : sequence of int
        The leaves whose v, the first array of their state, the last `run` left at 0 where the mean square of the
        gradient is not; told for float16 alone.
    """

    keeps: bool
    advanced: bool
    begun: bool
    late: BaseException | None
    at_once: bool
    done: bool
    vanished: Sequence[int]

    def start(self) -> None:
        """Forget what the last `run` did."""
        ...

    def run(self, rates: Any, *, at: At = BEGINNING, stream: Any = None, sync: bool = True) -> int:
        """Advance all leaves in place and return -1; or write nothing and return the number of the first leaf whose
        gradient is not finite.
        """
        ...

    def take(self, gradients: Sequence[Any], addresses: Any) -> None:
        """Take other gradients (or directions) of the same shapes and dtypes, in the order of the leaves.

        `addresses` is what the layout's watch said of them, or None where it did not look at these arrays.
        """
        ...


class PlainWork:
    """What works have in common of which nothing is told but what `run` returns."""

    advanced: bool = True
    begun: bool = False
    late: BaseException | None = None
    at_once: bool = False
    done: bool = False
    vanished: Sequence[int] = ()

    def start(self) -> None:
        self.begun = False


def insist(write: Callable[[], None], times: int = 8) -> BaseException | None:
    """Call what can be called again until it is not disturbed; return the last exception that came from outside.

    An asynchronous exception, or memory that runs out for a moment, does not leave half of it done. Memory that was
    there after all is no error.

    Raises
    ------
    BaseException
        What the last of so many calls raised.
    """
    late = None
    while True:
        try:
            write()
            return late
        except BaseException as error:
            times -= 1
            if times <= 0:
                raise
            late = late if isinstance(error, MemoryError) else error


class Sharing(Protocol):
    """The way to the other parts of leaves that are parts of larger arrays (see kernels/shared.py).

    In every step `agree`, `gather` and `settle` are called once each, in this order, before anything is written.
    """

    def piece(self, name: str) -> Any:
        """Return the Piece that a leaf is; None for an array that is here whole."""
        ...

    def agree(self, bad: str | None, names: Sequence[str], rates: Any) -> None:
        """Say that everything is ready here to step these leaves with these numbers.

        `bad` is the first leaf, of those that share no sums, whose gradient is not finite. Raise what any part raised
        instead, or if parts differ in what they are about to do.
        """
        ...

    def gather(self, sums: Any, route: Any) -> None:
        """Send sums, and fill ``route.received`` with those of all parts."""
        ...

    def settle(self, bad: str | None) -> None:
        """Say of which leaf the shared sums are not finite, and raise if any leaf has a gradient that is not."""
        ...


class Watch(Protocol):
    """What some arrays were like, to be compared with what they are like now."""

    def compare(self, arrays: Sequence[Any]) -> Any:
        """Return the addresses of those arrays that may lie elsewhere; None if anything else is not as it was."""
        ...


class Backend(Protocol):
    """Where steps are computed."""

    @property
    def as_array(self) -> Callable[[Any, str], Any] | None:
        """Return what makes of an array of another library what the watch of a layout sees; None if it sees any."""
        ...

    def as_arrays(self, tree: Any, what: str) -> Any:
        """Return a tree with its arrays as checks and kernels see them; raise BackendError for arrays elsewhere."""
        ...

    def as_state(self, state: Any) -> Any:
        """Return a state with its arrays as checks and kernels see them."""
        ...

    def placing(self, beside: Mapping[str, Any]) -> Callable[[Any], Any]:
        """Return what puts a new array of NumPy's in the memory where these arrays lie."""
        ...

    def check_host(self, method: str) -> None:
        """Raise BackendError unless the arrays lie in NumPy's memory, where `method` computes."""
        ...

    def check_launch(self, stream: Any, sync: bool) -> None:
        """Raise BackendError if a step cannot be launched in this stream, or without waiting for it."""
        ...

    def prepare(self, leaves: Sequence[Any], method: Method) -> Work:
        """Lay the leaves of a step out."""
        ...

    def prepare_parts(self, leaves: Sequence[Any], method: Method, sharing: Sharing) -> Work:
        """Lay the leaves of a step out, some of which are parts of larger arrays."""
        ...

    def watch(self, arrays: Sequence[Any], fixed: int) -> Watch | None:
        """Return a watch over arrays, of which those behind the first `fixed` may lie elsewhere later, but apart from
        them; None where they cannot be watched.
        """
        ...

    def release(self, work: Work | None, stream: Any) -> None:
        """Make ready for another layout: wait for launched steps of `work`.

        Raise BackendError where none can be made.
        """
        ...

    def advance(self, work: Work | None, rates: Sequence[Any], at: At, stream: Any) -> None:
        """Put the numbers of the next steps, from `at` on, where replays of a recorded one find them.

        Of a steady run those of one step do.
        """
        ...

    def synchronize(self, work: Work | None, stream: Any) -> None:
        """Wait for launched steps; raise NonFiniteError if a gradient of theirs was not finite."""
        ...


class HostBackend:
    """What backends have in common whose arrays are NumPy's, and whose steps are done when they return."""

    def as_array(self, a: Any, where: str) -> Any:
        return as_array(a, where)

    def as_arrays(self, tree: Any, what: str) -> Any:
        return as_array_tree(tree, what)

    def as_state(self, state: Any) -> Any:
        return state

    def placing(self, beside: Mapping[str, Any]) -> Callable[[Any], Any]:
        return lambda a: a

    def check_host(self, method: str) -> None:
        pass

    def check_launch(self, stream: Any, sync: bool) -> None:
        if stream is not None or sync is not True:
            what = f"stream is {stream!r:.60}" if stream is not None else f"sync is {sync!r:.60}"
            raise BackendError(f"{what}, which is for backend 'cuda'; this one steps NumPy's arrays, and waits")

    def release(self, work: Work | None, stream: Any) -> None:
        pass

    def advance(self, work: Work | None, rates: Sequence[Any], at: At, stream: Any) -> None:
        raise BackendError("advance needs a step of backend 'cuda' before it, recorded into a graph")

    def synchronize(self, work: Work | None, stream: Any) -> None:
        pass


def check_backend(name: Any, among: Sequence[str] = tuple(BACKENDS)) -> None:
    """Raise BackendError unless there is a backend of that name, `among` those for an optimizer, that works here."""
    if not isinstance(name, str) or name not in BACKENDS:
        raise BackendError(f"backend {name!r} does not exist; there are {', '.join(map(repr, BACKENDS))}")
    if name not in among:
        *others, last = map(repr, among)
        raise BackendError(
            f"backend {name!r} has no kernels for this optimizer; there are {', '.join(others)} and {last}"
        )
    if name == "cuda":
        from amos_ref.kernels.cuda import driver

        driver.check()


@functools.cache
def load_backend(name: str) -> Backend:
    """Import the backend (for "cpu" this imports Numba, and the first step compiles or loads the kernels)."""
    try:
        with _shorten_warnings():
            return importlib.import_module(BACKENDS[name]).BACKEND
    except (ImportError, ValueError) as error:  # as Numba's, where one of its variables is not valid
        given = ", ".join(f"{key}={value}" for key, value in os.environ.items() if key.startswith("NUMBA_"))
        raise BackendError(
            f"backend {name!r} cannot be used: {error} ({given or 'no NUMBA_ variable is set'})"
        ) from error


@contextlib.contextmanager
def _shorten_warnings() -> Iterator[None]:
    """Keep the first line of each warning: Numba's about a variable that is no number go on with a traceback."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", RuntimeWarning)
        yield
    for w in found:
        warnings.warn_explicit(str(w.message).partition("\n")[0], w.category, w.filename, w.lineno)
