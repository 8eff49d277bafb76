"""A child process that answers each line with one line: in time, never too much, and never outliving its port."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence

from amos_ref.conformance.ports.failures import Crash, Garbage, Hang, quote

LAST = 1.0  # seconds for a child to end by itself
KEPT = 4096  # bytes of standard error, for its last line


class Child:
    """A running command, in a process group of its own.

    Parameters
    ----------
    argv : sequence of str
        Run directly, not through a shell.
    note : callable
        Called with ">" and a line sent, "<" and what was answered, "!" and what came on standard error.

    Raises
    ------
    OSError
        If the command cannot be started.
    """

    def __init__(self, argv: Sequence[str], note: Callable[[str, bytes], None]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True)
        # Also when the port is dropped or the program ends; without a reference to self, or it would never be dropped.
        self._kill = weakref.finalize(self, _kill, self.process)
        self.note = note
        self.said, self.errors, self.unnoted = bytearray(), b"", b""
        self.ready = selectors.DefaultSelector()
        for pipe in (self.process.stdout, self.process.stderr):
            os.set_blocking(pipe.fileno(), False)  # type: ignore[union-attr]
            self.ready.register(pipe, selectors.EVENT_READ)  # type: ignore[arg-type]
        os.set_blocking(self.process.stdin.fileno(), False)  # type: ignore[union-attr]

    def ask(self, line: bytes, timeout: float, limit: int) -> bytes:
        """Send a line and return the answer, both without their ends.

        Raises
        ------
        Hang, Crash, Garbage
            No answer within `timeout` seconds; an end instead of one; more than `limit` bytes or more than one line.
        """
        self._move(b"", 0)
        if self.said:
            raise Garbage(f"said {quote(self.said.rstrip())} without being asked")
        self.note(">", line)
        unsent, deadline = line + b"\n", time.monotonic() + timeout
        try:
            while b"\n" not in self.said and self._speaks() and len(self.said) <= limit:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Hang(self._describe_silence(timeout))
                unsent = self._move(unsent, left)
        finally:
            if self.said:
                self.note("<", bytes(self.said.rstrip(b"\n")))
        return self._take_answer(limit)

    def _take_answer(self, limit: int) -> bytes:
        answer, newline, rest = self.said.partition(b"\n")
        if len(answer) > limit:
            raise Garbage(f"answered with more than {limit} bytes, beginning {quote(answer)}")
        if not newline:
            raise Crash(self._describe_end())
        if rest:
            raise Garbage(f"said {quote(rest.rstrip())} after its answer; an answer is one line")
        self.said.clear()
        return bytes(answer)

    def _speaks(self) -> bool:
        return self.process.stdout in self.ready.get_map()

    def _move(self, unsent: bytes, wait: float) -> bytes:
        """Wait until a pipe is ready, read and write as much as the pipes allow, and return what is still unsent.

        All pipes are served at once, so that a child that is busy writing to one cannot block on another.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if unsent:
            self.ready.register(stdin, selectors.EVENT_WRITE)  # type: ignore[arg-type]
        try:
            events = self.ready.select(wait)
        finally:
            if unsent:
                self.ready.unregister(stdin)  # type: ignore[arg-type]
        for key, _ in events:
            if key.fileobj is stdin:
                unsent = _write(key.fd, unsent)
                continue
            data = os.read(key.fd, 1 << 16)
            if key.fileobj is stdout:
                self.said += data
            else:
                self._overhear(data)
            if not data:
                self.ready.unregister(key.fileobj)
        return unsent

    def _overhear(self, data: bytes) -> None:
        """Keep the end of standard error, and note its lines when they are whole, or it is closed (no data)."""
        self.errors = (self.errors + data)[-KEPT:]
        whole, newline, rest = (self.unnoted + data).rpartition(b"\n")
        if newline or not data:
            self.note("!", whole if newline else rest)
        self.unnoted = rest[-KEPT:] if data else b""

    def _describe_silence(self, timeout: float) -> str:
        begun = f"; it began a line, {quote(self.said)}, and did not end it" if self.said else ""
        return f"gave no answer within {timeout:g} s{begun or ' (is its output flushed after every line?)'}"

    def _describe_end(self) -> str:
        """Say how the child ended, with the last line of its standard error."""
        self._drain(time.monotonic() + LAST)
        try:
            status = self.process.wait(LAST)
        except subprocess.TimeoutExpired:
            how = "closed its standard output"
        else:
            how = f"ended with exit status {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        begun = f" in the middle of a line, {quote(self.said)}" if self.said else ""
        lines = self.errors.split(b"\n")
        last = next((line for line in reversed(lines) if line.strip()), b"")
        return f"{how}{begun}" + (f"; last on its standard error: {quote(last, 200)}" if last else "")

    def _drain(self, deadline: float) -> None:
        """Read until all is closed or the time is up."""
        while self.ready.get_map() and (left := deadline - time.monotonic()) > 0:
            self._move(b"", left)

    def end(self, farewell: bytes | None = None) -> None:
        """Say farewell, if there is one, and give the child a moment to end; then kill all that is left of it."""
        try:
            if farewell is not None and self._kill.alive:
                self.note(">", farewell)
                _write(self.process.stdin.fileno(), farewell + b"\n")  # type: ignore[union-attr]
                self.process.stdin.close()  # type: ignore[union-attr]
                self._drain(time.monotonic() + LAST)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(LAST)
        finally:
            self.ready.close()
            self._kill()


def _write(fd: int, data: bytes) -> bytes:
    """Write as much as the pipe takes and return the rest; nothing is left for a child that no longer listens."""
    try:
        return data[os.write(fd, data) :]
    except BlockingIOError:
        return data
    except OSError:
        return b""


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()  # type: ignore[union-attr]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
