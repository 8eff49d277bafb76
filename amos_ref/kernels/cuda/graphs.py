"""Recorded steps: those that a step records for itself, and what the graphs of others read for as long as they live."""

import ctypes
import functools
import weakref
from collections.abc import Callable
from typing import Any

from amos_ref.kernels.cuda import driver

NON_BLOCKING = 1  # a stream that waits for no other
_read: "list[tuple[Callable[[], bool], Any]]" = []  # whether a graph and all that came of it are gone; what it reads


def record(launch: Callable[[int], None]) -> Callable[[int], None]:
    """Record what a function launches in a stream, on the current device; return what runs it in any stream."""
    from cuda.bindings import driver as cu

    stream = int(driver.call(driver.FAILED, "cuStreamCreate", NON_BLOCKING))
    try:
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED  # no call of another thread disturbs it
        driver.call(driver.FAILED, "cuStreamBeginCapture", stream, mode)
        try:
            launch(stream)
        finally:
            graph = driver.call(driver.FAILED, "cuStreamEndCapture", stream)
        executable = driver.call(driver.FAILED, "cuGraphInstantiate", graph, 0)
        driver.call(driver.FAILED, "cuGraphDestroy", graph)
    finally:
        driver.call(driver.FAILED, "cuStreamDestroy", stream)
    replay = functools.partial(driver.call, driver.FAILED, "cuGraphLaunch", executable)
    weakref.finalize(replay, cu.cuGraphExecDestroy, executable).atexit = False
    return replay


def keep(owner: Any, stream: int) -> None:
    """Keep an object for as long as the graph lives that is recorded in a stream, or what was made of that graph."""
    _read.append((_ending(stream), owner))


def is_kept(owner: Any) -> bool:
    """Whether a graph that was recorded may still read what an object holds; forget what no graph reads."""
    _read[:] = [(gone, kept) for gone, kept in _read if not gone()]
    return any(kept is owner for _, kept in _read)


def _ending(stream: int) -> Callable[[], bool]:
    """Return what tells whether the graph that is recorded in a stream is gone, and what was instantiated of it.

    The driver then posts a semaphore, a plain function of C: its own threads must not run Python, nor call it.
    """
    semaphore = None if driver.simulated() else _semaphore()
    if semaphore is None:
        return lambda: False  # nothing tells: it is kept until the process ends
    from cuda.bindings import driver as cu

    memory, post = semaphore
    found = driver.call(driver.FAILED, "cuStreamGetCaptureInfo", stream)  # versions have it at different places
    graph = next(x for x in found if isinstance(x, cu.CUgraph))
    function = cu.CUhostFn(ctypes.cast(post, ctypes.c_void_p).value)
    owned = driver.call(driver.FAILED, "cuUserObjectCreate", ctypes.addressof(memory), function, 1, 1)
    flag = cu.CUuserObjectRetain_flags.CU_GRAPH_USER_OBJECT_MOVE
    driver.call(driver.FAILED, "cuGraphRetainUserObject", graph, owned, 1, flag)
    return functools.partial(_is_posted, memory)


@functools.cache
def _library() -> Any:
    return ctypes.CDLL(None)


def _semaphore() -> tuple[Any, Any] | None:
    """Return the memory of a semaphore of C's at 0, and the function that posts it; None where there is none."""
    try:
        library = _library()
        memory, post = ctypes.create_string_buffer(64), library.sem_post
        return None if library.sem_init(memory, 0, 0) else (memory, post)
    except (AttributeError, OSError, TypeError):  # Windows
        return None


def _is_posted(memory: Any) -> bool:
    value = ctypes.c_int(0)
    _library().sem_getvalue(memory, ctypes.byref(value))
    return value.value > 0
