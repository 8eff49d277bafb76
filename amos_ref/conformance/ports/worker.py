"""A Python port in a process of its own: run as a program, asked by supervised.py, line by line.

The lines come and go over copies of standard input and output that the port is not told of. Its own standard input is
empty, and its standard output is standard error, so that whatever it prints is caught there. What it prints, even to
our descriptors, is no answer: an answer begins with the mark of its question.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref.conformance.algorithms import Algorithm, algorithm_of
from amos_ref.conformance.ports.failures import failure_of, first_line, message, text_of
from amos_ref.conformance.ports.options import Note
from amos_ref.conformance.ports.port import Arrays, copy_shown
from amos_ref.conformance.ports.target import load_port
from amos_ref.conformance.ports.wire import read_arrays, read_line, write_line
from amos_ref.dtypes import FLOATS
from amos_ref.errors import MissingDependencyError, TargetError

# As they are before a port is imported.
read, write, exit_at_once, getpid = os.read, os.write, os._exit, os.getpid
set_timer = getattr(signal, "setitimer", None)


def main(last: list[Callable[[], None]]) -> None:
    """Answer until there are no more questions; say in one line why it cannot, as when its descriptors are closed.

    What is put into `last` is done at the exit, after all that a port leaves to be done there.
    """
    me = getpid()
    try:
        _serve()
    except BaseException as error:
        print(f"the port's process cannot go on: {first_line(error)}", file=sys.stderr)
        exit_at_once(1)
    last.append(lambda: _leave(me))


def _leave(me: int) -> None:
    """End without taking the modules apart, for which a framework needs up to a second while the check waits."""
    if getpid() == me:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        exit_at_once(0)


def _serve() -> None:
    inbox, outbox, me = *_take_channel(), getpid()
    worker = Worker()
    for line in _lines(inbox):
        question = read_line(line)
        if question["call"] == "bye":
            break
        try:
            answer = worker.answer(**question)
        except BaseException as error:
            answer = _describe_failure(error)
        if getpid() != me:  # a copy of this process that the port made and let go on
            exit_at_once(0)
        _send(outbox, f"\n{question['mark']} ".encode() + write_line(answer) + b"\n")
    worker.close()


def _take_channel() -> tuple[int, int]:
    """Return copies of standard input and output, and put others in their place."""
    inbox, outbox, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    return inbox, outbox


def _lines(fd: int) -> Iterator[bytes]:
    rest = b""
    while data := read(fd, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _send(fd: int, data: bytes) -> None:
    while data:
        data = data[write(fd, data) :]


def _describe_failure(error: BaseException) -> dict[str, str]:
    kind = next((cls for cls in (MissingDependencyError, TargetError) if issubclass(type(error), cls)), None)
    kind = kind or failure_of(error)
    if kind is None:
        return {"failed": "PortError", "text": first_line(error)}
    return {"failed": kind.__name__, "text": message(error)}


def stop_timer() -> None:
    """Stop the timer whose end a signal tells, where there is one."""
    if set_timer is not None:
        set_timer(signal.ITIMER_REAL, 0)


class Worker:
    """The port, and the gradients that it was given."""

    algorithm: Algorithm
    port: Any

    def answer(self, call: str, mark: str, **given: Any) -> dict[str, Any]:
        """Do what is asked and return the answer; a timer that the port leaves would ring in our own code."""
        try:
            with np.errstate(all="ignore"):  # the verdict says it
                return getattr(self, f"_{call}")(**given)
        finally:
            stop_timer()

    def _start(self) -> dict[str, Any]:
        return {}

    def _open(self, target: str, renamed: dict[str, str], algorithm: str, words: dict[str, Any]) -> dict[str, Any]:
        self.algorithm = algorithm_of(algorithm)
        self.port = load_port(target, renamed, self.algorithm, words)
        known = getattr(self.port, "words", {})
        options, dtypes = set(self.port.options), getattr(self.port, "dtypes", None)
        return {
            "name": text_of(self.port.name)[:200],
            "options": [name for name in self.algorithm.options if name in options],
            "words": {option: _listed(known[option]) for option in self.algorithm.words if option in known},
            "skips_none": bool(self.port.skips_none),
            "dtypes": None if dtypes is None else [name for name in FLOATS if name in dtypes],
            "can": [name for name in ("put", "put_count", "undergo") if hasattr(self.port, name)],
            "notes": [note for note in getattr(self.port, "notes", ()) if isinstance(note, Note)],
        }

    def _own_eta(self, params: Any) -> dict[str, Any]:
        own = self.port.own_eta(read_arrays(params))
        if own is None:
            return {"eta": None}
        if not isinstance(own, dict):
            raise TargetError(f"it tells its eta as {text_of(own)[:80]}; it must be a dict with an entry for each leaf")
        return {"eta": {text_of(k): text_of(x) if isinstance(x, str) else float(x) for k, x in own.items()}}

    def _init(self, params: Any, hyper: dict[str, Any]) -> dict[str, Any]:
        if "slot_shape" in hyper:
            hyper["slot_shape"] = {name: tuple(shape) for name, shape in hyper["slot_shape"].items()}
        given = read_arrays(params)
        self.leaves: list[str] = list(given)
        self.given: list[tuple[str, np.ndarray]] = []
        self.bits: list[Any] = []
        self.port.init(given, hyper)
        return {}

    def _step(self, grads: Any) -> dict[str, Any]:
        grads = read_arrays(grads)
        self.given += [(name, g) for name, g in grads.items() if g is not None]
        self.bits += [_bits(g) for _, g in self.given[len(self.bits) :]]
        shown = copy_shown(self.port.step(grads), self.port.state(), self.leaves)
        written = [i for i, (_, g) in enumerate(self.given) if _bits(g) != self.bits[i]]
        parts = {what: shown[what] for what in self.algorithm.quantities if what in shown}
        return {"shown": {what: self._of_leaves(arrays) for what, arrays in parts.items()}, "written": written}

    def _of_leaves(self, arrays: Arrays) -> Arrays:
        return {name: arrays[name] for name in self.leaves if name in arrays}

    def _put(self, values: dict[str, Any]) -> dict[str, Any]:
        self.port.put({what: read_arrays(arrays) for what, arrays in values.items()})
        return {}

    def _put_count(self, n: int) -> dict[str, Any]:
        self.port.put_count(n)
        return {}

    def _undergo(self, event: str) -> dict[str, Any]:
        self.port.undergo(event)
        return {}

    def close(self) -> None:
        """Let the port close what it has open."""
        if hasattr(getattr(self, "port", None), "close"):
            try:
                self.port.close()
            except Exception as error:
                print(f"the port's close() raised {first_line(error)}", file=sys.stderr)


def _listed(words: Any) -> list[str]:
    return [text_of(word) for word in ((words,) if isinstance(words, str) else words)]


def _bits(a: np.ndarray) -> tuple[Any, ...]:
    return a.shape, a.dtype.str, a.tobytes()
