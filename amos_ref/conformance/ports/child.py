"""A child process that answers each line with one line: in time, never too much, and never outliving its port.

Its pipes are read by threads, so this works wherever Python has subprocess. On Linux a guard (guard.py) stands between:
it ends all that the child has started, in whichever session, also when this process is killed.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from amos_ref.conformance.ports.failures import Ended, Garbage, Hang, Killed, quote

LOOK = 0.5  # seconds of one wait: a signal that comes just before it would be handled only after it
LAST = 1.0  # seconds for a child to end by itself
PATIENT = 60.0  # seconds for a guard to end all that there is
KEPT = 4096  # bytes of standard error, for its last line
UNHEARD = 1 << 16  # bytes of standard error that wait to be noted; what is more is dropped
LEAST_MEMORY = 4 << 30  # bytes for a process of the child, where the machine has not twice as much


class Child:
    """A running command.

    Parameters
    ----------
    argv : sequence of str
        Run directly, not through a shell.
    note : callable
        Called with ">" and a line sent, "<" and what was answered, "!" and what came on standard error.
    memory : int, optional
        How many bytes of data each of its processes may have, where there is a guard; 0 is no limit. (Programs with
        a memory of shadows, as of AddressSanitizer, take terabytes that they never touch.)

    Raises
    ------
    OSError
        If the command cannot be started.
    """

    process: subprocess.Popen[Any]
    note: Callable[[str, bytes], None]
    heard: "_Heard"
    unsent: queue.SimpleQueue[bytes | None]

    def __init__(self, argv: Sequence[str], note: Callable[[str, bytes], None], memory: int = 0) -> None:
        self.process, control = _start(argv, memory)
        self.note, self.heard, self.unsent = note, _Heard(), queue.SimpleQueue()
        # Also when the port is dropped or the program ends; without a reference to self, or it would never be dropped.
        self._kill = weakref.finalize(self, _kill, self.process, control, self.unsent)
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        for work in (
            (_write, stdin, self.unsent.get),
            (_read, stdout, self.heard.hear),
            (_read, stderr, self.heard.overhear),
        ):
            threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    @property
    def errors(self) -> bytes:
        """The end of what came on standard error."""
        return self.heard.errors

    def ask(self, line: bytes, timeout: float | None, limit: int, mark: bytes = b"") -> bytes:
        """Send a line and return the answer, both without their ends.

        Parameters
        ----------
        line : bytes
        timeout : float or None
            Seconds.
        limit : int
            The most bytes that the answer may have.
        mark : bytes, optional
            What the answer begins with, and what is not returned of it. Lines without it are no answers: they are
            noted as if they had come on standard error. Without a mark, every line is an answer.

        Raises
        ------
        Hang, Ended, Killed, Garbage
            No answer in time; an end instead of one; more than `limit` bytes or more than one line.
        """
        heard = self.heard
        if not mark and (early := heard.take()):
            raise Garbage(f"said {quote(early.rstrip())} without being asked")
        self.note(">", line)
        heard.limit = limit + len(mark)
        self.unsent.put(line + b"\n")
        answer = self._wait_for_answer(timeout, mark)
        if mark:
            return answer
        said = heard.take()
        self.note("<", said.rstrip(b"\n"))
        if len(answer) > limit:
            raise Garbage(f"answered with more than {limit} bytes, beginning {quote(answer)}")
        if rest := said[len(answer) + 1 :]:
            raise Garbage(f"said {quote(rest.rstrip())} after its answer; an answer is one line")
        return answer

    def _wait_for_answer(self, timeout: float | None, mark: bytes) -> bytes:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            answer, ended = self.heard.wait(left, mark)
            self._note_errors()
            if answer is not None:
                return answer
            if ended:
                raise self._describe_end()
            if left is not None and left <= 0:
                raise Hang(self._describe_silence(timeout, mark))

    def _note_errors(self) -> None:
        if lines := self.heard.take_errors():
            self.note("!", lines)

    def _describe_silence(self, timeout: float | None, mark: bytes) -> str:
        said = self._take_rest()
        begun = f"; it began a line, {quote(said)}, and did not end it" if said and not mark else ""
        hint = "" if mark else " (is its output flushed after every line?)"
        return f"gave no answer within {timeout:g} s{begun or hint}"

    def _describe_end(self) -> Ended | Killed:
        """Say how the child ended, with the last line of its standard error."""
        self._drain(time.monotonic() + LAST)
        kind = Ended
        try:
            status = self.process.wait(LAST)
        except subprocess.TimeoutExpired:
            how = "closed its standard output"
        else:
            kind = Ended if status >= 0 else Killed
            how = f"ended with exit status {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        said = self._take_rest()
        begun = f" in the middle of a line, {quote(said)}" if said else ""
        lines = self.errors.split(b"\n")
        last = next((line for line in reversed(lines) if line.strip()), b"")
        return kind(f"{how}{begun}" + (f"; last on its standard error: {quote(last, 200)}" if last else ""))

    def _take_rest(self) -> bytes:
        if said := self.heard.take():
            self.note("<", said.rstrip(b"\n"))
        return said

    def _drain(self, deadline: float) -> None:
        """Wait until both outputs are closed or the time is up."""
        while not self.heard.closed and (left := deadline - time.monotonic()) > 0:
            self.heard.wait_for_news(left)
            self._note_errors()
        self._note_errors()

    def end(self, farewell: bytes | None = None) -> None:
        """Say farewell, if there is one, and give the child a moment to end; then kill all that is left of it."""
        try:
            if farewell is not None and self._kill.alive:
                self.note(">", farewell)
                self.unsent.put(farewell + b"\n")
                self.unsent.put(None)
                self._drain(time.monotonic() + LAST)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(LAST)
        finally:
            self._kill()


class _Heard:
    """What the threads have read; it is bounded, however much there is to read."""

    news: threading.Condition
    said: bytearray
    limit: int
    errors: bytes
    unnoted: bytearray
    silent: bool
    errors_closed: bool

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.said, self.limit = bytearray(), KEPT
        self.errors, self.unnoted = b"", bytearray()
        self.silent = self.errors_closed = False

    @property
    def closed(self) -> bool:
        return self.silent and self.errors_closed

    def hear(self, data: bytes) -> None:
        """Take what came on standard output; b"" is its end. More than one byte too much need not be kept."""
        with self.news:
            self.said += data[: max(self.limit + 2 - len(self.said), 0)]
            self.silent |= not data
            self.news.notify_all()

    def overhear(self, data: bytes) -> None:
        """Take what came on standard error; b"" is its end. Nobody is woken for less: there may be very much of it."""
        with self.news:
            self._keep_error(data)
            if not data:
                self.errors_closed = True
                self.news.notify_all()

    def _keep_error(self, data: bytes) -> None:
        self.errors = (self.errors + data)[-KEPT:]
        self.unnoted += data[: max(UNHEARD - len(self.unnoted), 0)]

    def wait_for_news(self, timeout: float) -> None:
        with self.news:
            if not self.closed:
                self.news.wait(timeout)

    def wait(self, timeout: float | None, mark: bytes) -> tuple[bytes | None, bool]:
        """Wait for news, for a moment; return an answer, or None, and whether none can come."""
        with self.news:
            found = self._find(mark)
            if found is None and not self.silent and (timeout is None or timeout > 0):
                self.news.wait(LOOK if timeout is None else min(timeout, LOOK))
                found = self._find(mark)
            return found, self.silent

    def _find(self, mark: bytes) -> bytes | None:
        """Return the answer, whole or so far as it is too long; it stays in `said` unless there is a mark."""
        if not mark:
            line, newline, _ = self.said.partition(b"\n")
            return bytes(line) if newline or len(line) > self.limit else None
        while b"\n" in self.said:
            line, _, self.said = self.said.partition(b"\n")
            if line.startswith(mark):
                return bytes(line[len(mark) :])
            self._keep_error(bytes(line) + b"\n" if line else b"")
        if len(self.said) > self.limit:
            raise Garbage(f"answered with more than {self.limit - len(mark)} bytes")
        return None

    def take(self) -> bytes:
        """Return what was said and forget it."""
        with self.news:
            said, self.said = bytes(self.said), bytearray()
            return said

    def take_errors(self) -> bytes:
        """Return the whole lines of standard error that nobody has seen, or all of it when it is closed or long."""
        with self.news:
            whole, _, rest = self.unnoted.rpartition(b"\n")
            if self.errors_closed or len(rest) > KEPT:
                whole, rest = self.unnoted, bytearray()
            self.unnoted = rest
            return bytes(whole)


def _start(argv: Sequence[str], memory: int) -> tuple[subprocess.Popen[Any], int | None]:
    """Start a command and return its process, and the descriptor whose closing ends it, if there is a guard."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"bufsize": 0}
    if not _has_guard():
        return subprocess.Popen(argv, start_new_session=os.name == "posix", **pipes), None
    (control, holds), (status, tells) = os.pipe(), os.pipe()
    guard = [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "guard.py")]
    try:
        whole = [*guard, str(control), str(tells), str(memory), *argv]
        process = subprocess.Popen(whole, start_new_session=True, pass_fds=(control, tells), **pipes)
    except BaseException:
        os.close(holds)
        os.close(status)
        raise
    finally:
        os.close(control)
        os.close(tells)
    with open(status, "rb") as file:
        number = file.read()
    process.args = argv
    if number:
        _kill(process, holds, None)
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()  # type: ignore[union-attr]
        raise OSError(int(number), os.strerror(int(number)))
    return process, holds


def _has_guard() -> bool:
    return sys.platform == "linux" and bool(sys.executable)


def memory_limit() -> int:
    """Return how many bytes of data a process of a port may have: half of what the machine has, or 4 GiB."""
    if not _has_guard():
        return 0
    return max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, LEAST_MEMORY)


def _write(pipe: Any, take: Callable[[], bytes | None]) -> None:
    """Write what is to be sent; a child that no longer listens is sent nothing."""
    with contextlib.suppress(OSError, ValueError):
        while (data := take()) is not None:
            while data:
                data = data[pipe.write(data) :]
    with contextlib.suppress(OSError):
        pipe.close()


def _read(pipe: Any, give: Callable[[bytes], None]) -> None:
    """Hand over what comes until the end, b""."""
    data = b" "
    while data:
        try:
            data = pipe.read(1 << 16)
        except (OSError, ValueError):
            data = b""
        give(data)
    pipe.close()


def _kill(process: subprocess.Popen, control: int | None, unsent: queue.SimpleQueue | None) -> None:
    """End a process and what it has started, and wait for it."""
    if unsent is not None:
        unsent.put(None)
    if control is not None:
        os.close(control)
        deadline = time.monotonic() + PATIENT
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGCONT)  # again and again: what it is to end may stop it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    if control is None or process.poll() is None:
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
