"""A Python port that is named by a text, in a process of its own (worker.py): it can answer, and do nothing else here.

The judge stays in this process. The port's process is asked to evaluate cases, in time and within its memory, and what
it prints is caught. It serves all cases of a check, and another one is started after it has ended or gave no answer.
"""

import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.child import Child, memory_limit
from amos_ref.conformance.ports.failures import FAILURES, Garbage, Hang, PortError, PortFailure
from amos_ref.conformance.ports.options import Note
from amos_ref.conformance.ports.port import Arrays
from amos_ref.conformance.ports.wire import read_arrays, read_line, write_line
from amos_ref.errors import MissingDependencyError, NoAnswerError, TargetError, escape

START = 60.0  # seconds until the process is ready to import a port
LONGEST_ANSWER = 1 << 24  # bytes
SHOWN, WIDEST = 200, 1000  # lines that a port may print, and characters of each
_PROGRAM = (
    "import sys, ast, atexit; sys.path[:] = ast.literal_eval(sys.argv.pop()); "
    "last = []; atexit.register(lambda: [do() for do in last]); "  # the first to be registered is the last to be called
    "from amos_ref.conformance.ports.worker import main; main(last)"
)


class TargetPort:
    """``module:attr`` or ``path/to/file.py:attr`` as a port. It is imported at once, and again after a failure.

    Parameters
    ----------
    target : str
    renamed : mapping of str to str, optional
        ``ours -> theirs``, for parameters with other names.
    timeout : float, optional
        Seconds that importing it, its init, and each of its steps may take; None is no limit.
    algorithm : Algorithm
    words : mapping of str to collection of str
        Option -> the words that it knows, where its signature does not say so.

    Raises
    ------
    TargetError, MissingDependencyError
        If it cannot be found, imported or driven.
    NoAnswerError
        If importing it ends its process, or does not end.
    """

    target: str
    renamed: dict[str, str]
    timeout: float | None
    algorithm: Algorithm
    told: dict[str, list[str]]
    unshown: int
    name: str
    options: set[str]
    skips_none: bool
    dtypes: set[str]
    words: dict[str, tuple[str, ...]]
    notes: list[Note]
    shown: dict[str, dict[str, Any]]

    def __init__(
        self,
        target: str,
        renamed: Mapping[str, str] | None = None,
        timeout: float | None = None,
        algorithm: Algorithm = PAPER_AMOS,
        words: Mapping[str, Collection[str]] = {},
    ) -> None:
        self.target, self.renamed, self.timeout = target, dict(renamed or {}), timeout
        self.algorithm, self.told = algorithm, {option: list(known) for option, known in words.items()}
        self.child: Child | None = None
        self.unshown = SHOWN
        found = self._open()
        self.name = escape(str(found["name"]))
        self.options, self.skips_none = set(found["options"]), bool(found["skips_none"])
        if found["dtypes"] is not None:
            self.dtypes = set(found["dtypes"])
        self.words = {escape(str(option)): tuple(map(str, known)) for option, known in found["words"].items()}
        self.notes = [_read_note(note) for note in found["notes"]]
        for name in found["can"]:
            setattr(self, name, getattr(self, f"_{name}"))

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Start anew."""
        self.given: list[np.ndarray] = []
        self._ask("init", params=params, hyper=hyper)

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Take one step; a gradient that the port writes to, now or later, is written to here as well."""
        self.given += [g for g in grads.values() if g is not None]
        found = self._ask("step", grads=grads)
        for i in found["written"]:
            self.given[i][...] = self.given[i] == 0  # which is another value than each was
        shown = found["shown"]
        self.shown = {what: read_arrays(shown[what]) for what in self.algorithm.quantities if what in shown}
        return self.shown.pop("theta")

    def state(self) -> dict[str, Arrays]:
        """Return the state after the last step, as far as the port shows it."""
        return self.shown

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Return the eta that the port tells, by leaf name."""
        return self._ask("own_eta", params=params)["eta"]

    def _put(self, values: dict[str, Arrays]) -> None:
        self._ask("put", values=values)

    def _put_count(self, n: int) -> None:
        self._ask("put_count", n=n)

    def _undergo(self, event: str) -> None:
        self._ask("undergo", event=event)

    def close(self) -> None:
        """Let the port's process end; what is left of it after a moment is killed."""
        if self.child is not None:
            self.child.end(write_line({"call": "bye"}))
            self.child = None

    def _open(self) -> dict[str, Any]:
        """Start the process and import the target."""
        if not sys.executable:
            raise TargetError(f"{self.target} needs a process of its own, and this Python does not say what starts it")
        path = repr([os.fspath(part) for part in sys.path])
        self.child = Child([sys.executable, "-P", "-c", _PROGRAM, path], self._note, memory_limit())
        try:
            self._question("start", START)
            said = {"algorithm": self.algorithm.name, "words": self.told}
            return self._question("open", self.timeout, target=self.target, renamed=self.renamed, **said)
        except Hang:
            limit = f"{self.timeout:g} s"
            raise NoAnswerError(f"{self.target} was not imported within {limit}: its import does not end") from None
        except PortError as error:
            raise TargetError(f"{self.target} cannot be driven: {error}") from None
        except PortFailure as error:
            how, last, said = str(error).partition("; last on its")
            raise NoAnswerError(f"{self.target} {how} while it was imported{last}{said}") from None
        except TargetError:
            self._drop()
            raise

    def _ask(self, call: str, **given: Any) -> dict[str, Any]:
        """Return an answer, or raise what the port raised; after its end, of a new process."""
        if self.child is None:
            try:
                self._open()
            except TargetError as error:
                raise PortError(f"could not be started again: {error}") from None
        return self._question(call, self.timeout, **given)

    def _question(self, call: str, timeout: float | None, **given: Any) -> dict[str, Any]:
        mark = os.urandom(16).hex()
        line = write_line({"call": call, "mark": mark, **given})
        try:
            answer = read_line(self.child.ask(line, timeout, LONGEST_ANSWER, f"{mark} ".encode()))  # type: ignore
        except BaseException:
            self._drop()
            raise
        if "failed" not in answer:
            return answer
        kinds = {cls.__name__: cls for cls in (TargetError, MissingDependencyError)} | FAILURES
        raise kinds.get(answer["failed"], Garbage)(escape(str(answer.get("text"))))

    def _drop(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.end()

    def _note(self, mark: str, text: bytes) -> None:
        """Show what the port prints on standard error, up to a limit and without what a terminal would obey."""
        if mark != "!" or sys.stderr is None:
            return
        lines = text.decode("utf-8", "replace").splitlines()
        for line in lines[: self.unshown]:
            print(escape(line if len(line) <= WIDEST else f"{line[:WIDEST]}..."), file=sys.stderr)
        if self.unshown and len(lines) >= self.unshown:
            print(f"({SHOWN} lines of {escape(self.target)} are shown, and no more)", file=sys.stderr)
        self.unshown = max(self.unshown - len(lines), 0)


def _read_note(found: list[Any]) -> Note:
    texts: list[Any] = [None if text is None else escape(str(text)[:200]) for text in found]
    return Note(*texts)
