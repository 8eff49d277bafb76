"""Signals wait until a step is whole."""

import sys
import threading

# The functions under the module signal, which make an enum of every handler: 6 us a step.
from _signal import getsignal, signal
from signal import valid_signals
from types import FrameType, TracebackType
from typing import Any

from amos_ref.kernels import insist

#: All signals; those that the system lets nobody handle have no handler of Python's either.
_SIGNALS = sorted(map(int, valid_signals()))


class _Handlers:
    """Which handlers of Python's there were last; to find them among 62 signals takes longer than to compare them."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self.own: list[tuple[int, Any]] = []

    def find(self) -> list[tuple[int, Any]]:
        """Return the signals that have a Python function as their handler, each with it."""
        now = list(map(getsignal, _SIGNALS))
        if now != self.all:
            own = [(number, handler) for number, handler in zip(_SIGNALS, now, strict=True) if callable(handler)]
            self.all, self.own = now, own
        return self.own


_handlers = _Handlers()


class InterruptGuard:
    """Hold back every signal that has a handler in Python inside the block, and act on them at the end.

    Python runs its handlers in the main thread alone, so elsewhere this does nothing. Handlers of C, a wake-up file
    descriptor (signal.set_wakeup_fd, as asyncio has it) and signals without a handler are left as they are. Where an
    asynchronous exception breaks off the beginning or the end of the block, the next signal puts the handlers back.
    """

    def __init__(self) -> None:
        self.inside: FrameType | None = None  # whose block it is
        self.held: list[tuple[int, Any]] = []
        self.came: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        self.inside = sys._getframe(1)
        self.held = _handlers.find()
        try:
            for number, _ in self.held:
                signal(number, self._note)
        except ValueError:  # a sub-interpreter, where no handler runs
            self.held = []
        except BaseException:  # a handler that was not yet held back
            self.__exit__()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        outer = frame
        while outer is not None and outer is not self.inside:
            outer = outer.f_back
        self.came.append((number, frame))
        if outer is None:
            self.__exit__()

    def _put_back(self) -> None:
        for number, handler in self.held:
            signal(number, handler)

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        late = insist(self._put_back)  # a handler that is back may raise while others are not
        came, self.came, self.inside = self.came, [], None
        if came:
            self._act(came)
        if late is not None:
            raise late

    def _act(self, came: list[tuple[int, FrameType | None]]) -> None:
        """Call the handlers, each though one before it raises."""
        (number, frame), *others = came
        try:
            dict(self.held)[number](number, frame)
        finally:
            if others:
                self._act(others)
