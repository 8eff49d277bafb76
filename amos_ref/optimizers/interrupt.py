"""Ctrl-C waits until a step is whole."""

import threading

# The functions under the module signal, which make an enum of every handler: 6 us a step.
from _signal import SIGINT, getsignal, signal
from types import FrameType, TracebackType
from typing import Any


class InterruptGuard:
    """Hold back SIGINT inside the block, and act on it at the end.

    A KeyboardInterrupt that is raised then carries `state` as its attribute ``amos_state``, since the caller will
    not get it from the step that has happened. Only the main thread ever sees SIGINT; elsewhere this does nothing.

    Parameters
    ----------
    state : AmosState, optional
        The state that holds once the block has come to its end.
    """

    def __init__(self, state: Any = None) -> None:
        self.state = state
        self.came: tuple[int, FrameType | None] | None = None
        self.handler: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.handler = getsignal(SIGINT)
            if callable(self.handler):
                signal(SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = number, frame

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if callable(self.handler):
            signal(SIGINT, self.handler)
        if self.came is not None:
            try:
                self.handler(*self.came)
            except KeyboardInterrupt as interrupt:
                if error is None and self.state is not None:
                    interrupt.amos_state = self.state  # pyright: ignore[reportAttributeAccessIssue]
                raise
