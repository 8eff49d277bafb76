"""A limit on how long a port may take, for objects: ports that run in this process.

It rests on SIGALRM: it interrupts Python code, and compiled code once that returns to Python; compiled code that
never returns cannot be stopped from within its own process. Only the main thread of a POSIX system can have it.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator

from amos_ref.errors import TargetError

AVAILABLE = hasattr(signal, "setitimer")
DEFAULT = 60.0  # seconds
LONGEST = 86400.0
AGAIN = 1.0  # seconds until the next alarm, for a port that catches the first


class Hangs(BaseException):
    """The time is up. No Exception, so that a port's own ``except Exception`` does not catch it."""

    verdict = "hangs"


def check_timeout(seconds: float | None, alarm: bool) -> float | None:
    """Return the limit; raise TargetError if it is out of range or, as an `alarm`, cannot be kept here."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST:
        raise TargetError(f"timeout is {seconds!r}; it must be above 0 and at most {LONGEST:g} seconds")
    if not alarm:
        return seconds
    if not AVAILABLE or threading.current_thread() is not threading.main_thread():
        raise TargetError(f"timeout is {seconds!r}; it can be kept only in the main thread, on a system with SIGALRM")
    return seconds


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise Hangs inside the block when the time is up; a timer that someone else has set is left alone."""
    if seconds is None or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def late(number: int, frame: object) -> None:
        raise Hangs(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
