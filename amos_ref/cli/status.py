"""The exit statuses of the command line, and the one place where output is known to have arrived."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

OK = 0  # done, or the port conforms, and the reader has been told so
DEPARTS = 1
USAGE = 2  # or bad input
MISSING = 3  # something that is needed is not installed
NO_ANSWER = 4  # the target ended, crashed or hung, the report could not be delivered, or the program has a mistake
INTERRUPTED = 130
PIPE = 141  # the reader of a good answer is gone; what a program that SIGPIPE ends has
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # of a standard output that takes no more


class Undelivered(Exception):
    """Standard output does not take what there is to say; `status` is what that comes to."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    @staticmethod
    def why(error: OSError) -> str:
        """Return the text about an error of standard output."""
        return f"the output could not be delivered: {error.strerror or error}"


@contextlib.contextmanager
def delivered(status: int) -> Iterator[None]:
    """Print inside the block what has this status; if it did not all arrive, raise Undelivered, never with 0."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise Undelivered(status or PIPE, "") from None
    except OSError as error:
        raise Undelivered(NO_ANSWER, Undelivered.why(error)) from None


class Terminated(KeyboardInterrupt):
    """A signal asks the program to end. It goes where Ctrl-C goes: children end, and temporary files are removed."""


@contextlib.contextmanager
def terminated_by_signals() -> Iterator[list[int]]:
    """Turn SIGTERM and SIGHUP into Terminated inside the block; yield a list that the first one is added to.

    One that is ignored, as SIGHUP is under nohup, stays so. Further ones do not disturb the end.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def end(number: int, frame: object) -> None:
        if not received:
            received.append(number)
            raise Terminated(f"ended by {signal.Signals(number).name}")

    with contextlib.suppress(ValueError):  # not the main thread, which alone has handlers
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def open_standard_streams() -> bool:
    """Return whether there is a standard output; what is closed of the three is taken by the null device.

    Otherwise the next file that is opened would be standard output, and be written what is meant for the user.
    """
    there = sys.stdout is not None
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    return there


def silence_standard_output() -> None:
    """Let standard output go nowhere: what is left in its buffer would fail again when Python ends."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
