"""A port in any language: a command that is driven over its standard input and output (docs/protocol.md)."""

import functools
import math
import os
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.algorithms import Algorithm, algorithm_of
from amos_ref.conformance.ports.child import Child
from amos_ref.conformance.ports.failures import Crash, Ended, Hang, PortFailure, escape
from amos_ref.conformance.ports.port import Arrays
from amos_ref.conformance.ports.protocol import Form, greeting, line, parse, read_done, read_hello, read_step
from amos_ref.conformance.vectors.read import encode
from amos_ref.errors import NoAnswerError, TargetError


class CommandPort:
    """A command as a port. It is started at once, and again for the case after a failure.

    Parameters
    ----------
    command : str or sequence of str
        A str is split as a shell would split it, and run without one.
    timeout : float
        Seconds, > 0, that the command has for each answer.
    transcript : path, optional
        A file for all that is said: ``>`` to the command, ``<`` by it, ``!`` on its standard error, ``#`` by the check.
    algorithm : {"paper", "closed-form"}
        What it is asked to be.

    Raises
    ------
    TargetError
        If the command cannot be started, or its answer to hello is not of the protocol.
    NoAnswerError
        If there is no answer to hello.

    Examples
    --------
    >>> import amos_ref
    >>> amos_ref.conformance.CommandPort("no_such_command --fast")
    Traceback (most recent call last):
        ...
    amos_ref.errors.TargetError: no_such_command cannot be started: No such file or directory
    """

    algorithm: Algorithm
    command: list[str]
    options: set[str]
    dtypes: set[str]
    put: Callable[..., None]
    put_count: Callable[..., None]
    rates: Any
    t: int
    shown: Any

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 10.0,
        transcript: Any = None,
        algorithm: str = "paper",
    ) -> None:
        self.algorithm = algorithm_of(algorithm)
        self.command = _split(command) if isinstance(command, str) else [os.fspath(part) for part in command]
        if not self.command:
            raise TargetError("the command to check is empty")
        if not 0 < timeout < math.inf:
            raise TargetError(f"the timeout of a command is {timeout!r}; it must be a finite number of seconds > 0")
        self.timeout = timeout
        self.child: Child | None = None
        self.forms: dict[str, Form] = {}
        self.transcript = transcript
        if transcript is not None:
            self._write("w", "")
        try:
            hello = self._start()
        except PortFailure as failure:
            if isinstance(failure, Hang | Crash):
                raise NoAnswerError(f"{self.command[0]} {failure}") from None
            raise TargetError(f"{self.command[0]}: {failure}") from None
        self.name: str = hello["name"]
        self.options, self.dtypes = set(hello["options"]), set(hello["dtypes"])
        self.skips_none: bool = hello["null_gradients"]
        self.shows_state: bool = hello["state"]
        self.words: dict[str, list[str]] = hello.get("words", {})
        if hello["put"]:
            self.put = self._put
        if hello.get("count"):
            self.put_count = self._put_count

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Send the leaves and the options that the command has."""
        if self.child is None:
            self._start()
        slots = hyper.get("slot_shape", {})
        parts = self.algorithm.parts
        self.forms = {name: Form(a.dtype, a.shape, tuple(slots.get(name, ())), parts) for name, a in params.items()}
        scale, stepwise = self.algorithm.scale, self.algorithm.stepwise
        self.rates, self.t = hyper[self.algorithm.rate], 0
        own = hyper[scale]
        leaves = {
            name: {
                "dtype": form.dtype.name,
                "shape": form.shape,
                "slot_shape": form.slot_shape,
                scale: own if isinstance(own, str) else encode(float(own[name])),
                "theta": encode(params[name]),
            }
            for name, form in self.forms.items()
        }
        given = self.options - {*stepwise, scale, "slot_shape"}
        options = {name: x if isinstance(x, str) else encode(float(x)) for name, x in hyper.items() if name in given}
        rates = {name: encode(np.asarray(hyper[name], dtype=np.float64)) for name in stepwise}
        self._ask("init", functools.partial(read_done, "init"), **rates, options=options, leaves=leaves)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Send the gradients and the learning rate of this step; keep the state that is shown."""
        rate = self.rates[self.t] if isinstance(self.rates, list) else self.rates
        self.t += 1
        rates = {name: encode(float(rate)) for name in self.algorithm.stepwise}
        bits = {name: None if g is None else encode(g) for name, g in grads.items()}
        read = functools.partial(read_step, forms=self.forms, state=self.shows_state, algorithm=self.algorithm)
        self.shown = self._ask("step", read, **rates, grads=bits)
        return self.shown.pop("theta")

    def state(self) -> dict[str, Arrays]:
        """Return the state after the last step, as far as the command shows it."""
        return self.shown

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """A command is given its eta or sigma, or the check is told it."""
        return None

    def _put(self, values: dict[str, Arrays]) -> None:
        """Overwrite theta, in the leaf's dtype, and parts of the state, in float64."""
        bits = {
            part: {
                k: encode(a.astype(self.forms[k].dtype if part == "theta" else np.float64)) for k, a in leaves.items()
            }
            for part, leaves in values.items()
        }
        self._ask("put", functools.partial(read_done, "put"), values=bits)

    def _put_count(self, n: int) -> None:
        """Set the count of steps."""
        self._ask("count", functools.partial(read_done, "count"), steps=encode(float(n)))

    def close(self) -> None:
        """Let the command end; what is left of it after a second is killed."""
        if self.child is not None:
            self.child.end(line("bye"))
            self.child = None

    def _start(self) -> dict[str, Any]:
        try:
            self.child = Child(self.command, self._note)
        except (OSError, ValueError) as error:
            name = self.command[0]
            hint = f"; for the file in this folder: ./{name}" if os.sep not in name and os.path.exists(name) else ""
            reason = getattr(error, "strerror", None) or error
            raise TargetError(f"{name} cannot be started: {reason}{hint}") from None
        read = functools.partial(read_hello, algorithm=self.algorithm)
        return self._ask("hello", read, **greeting(self.algorithm))

    def _ask(self, call: str, read: Callable[[dict[str, Any]], Any], **rest: Any) -> Any:
        """Send a call and return what `read` makes of its answer; after any failure the child is ended."""
        if self.child is None:
            raise Ended(f"cannot answer {call}: it ended during an earlier call")
        limit = 2**16 + sum(2**10 + 64 * math.prod(form.shape) for form in self.forms.values())
        try:
            return read(parse(call, self.child.ask(line(call, **rest), self.timeout, limit)))
        except BaseException as error:
            self.child.end()
            self.child = None
            if isinstance(error, PortFailure):
                self._note("#", str(error).encode())
            raise

    def _note(self, mark: str, text: bytes) -> None:
        if self.transcript is not None:
            lines = text.decode("utf-8", "backslashreplace").splitlines()
            self._write("a", "".join(f"{mark} {escape(part)}\n" for part in lines))

    def _write(self, mode: str, text: str) -> None:
        try:
            with open(self.transcript, mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise TargetError(f"the transcript cannot be written: {error}") from None


def _split(command: str, windows: bool = os.name == "nt") -> list[str]:
    """Split a command into words as a shell would; on Windows a backslash is part of a path, and only " quotes."""
    words = shlex.shlex(command, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters = True, ""
    if windows:
        words.escape, words.quotes = "", '"'
    try:
        return list(words)
    except ValueError as error:
        raise TargetError(f"the command {command!r} cannot be split into words: {error}") from None
