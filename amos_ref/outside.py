"""What is outside: exceptions that a signal's handler raised in the code that they pass through; the caller's line."""

import sys
from types import FrameType


def pass_on(error: Exception) -> None:
    """Raise the exception as it is if it came from outside; otherwise it is the fault of the code that was called.

    Python hands a signal's handler the frame that it interrupts, its caller; so it does with a trace function.
    """
    step = error.__traceback__
    while step is not None:
        if _interrupts(step.tb_frame):
            raise error
        step = step.tb_next


def _interrupts(frame: FrameType) -> bool:
    code, given = frame.f_code, frame.f_locals
    taken = code.co_argcount + code.co_kwonlyargcount
    values = [given.get(name) for name in code.co_varnames[: taken + 1]]  # the one behind may be *args
    several = values.pop() if len(values) > taken else None
    values += several if isinstance(several, tuple) else ()
    return frame.f_back is not None and any(value is frame.f_back for value in values)


def level_of_caller() -> int:
    """Return the `stacklevel` with which a warning of who asks names the first line outside the package."""
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
