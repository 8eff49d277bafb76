"""Threads for kernels: each takes a share of the tasks. Compiled code holds no Python lock, so they run at once."""

import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numba

from amos_ref.kernels.table import Tasks

SMALL = 2**20  # elements below which waking another thread (some 70 us a launch) costs more than it saves

_pool: ThreadPoolExecutor | None = None


def _forget() -> None:
    """After a fork the child has none of the parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)


def launch(kernel: Callable[..., Any], tasks: Tasks, *args: Any) -> list[Any]:
    """Run ``kernel(first, last, tasks.starts, *args)`` over all tasks, in shares for the threads Numba may use.

    Parameters
    ----------
    kernel : callable
        Does the tasks first <= task < last.
    tasks : Tasks
        Little work stays in the calling thread.

    Returns
    -------
    list
        What each share returned.
    """
    global _pool
    count = int(tasks.starts[-1])
    threads = min(count, numba.get_num_threads()) if tasks.work[-1] >= SMALL else 1
    if threads <= 1:
        return [kernel(0, count, tasks.starts, *args)] if count else []
    if _pool is None:
        _pool = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, thread_name_prefix="amos_ref")  # type: ignore
    shares = tasks.shares(threads)
    # Each share in a copy of the caller's context, which holds NumPy's way with overflow (for kernels run as Python).
    futures = [
        _pool.submit(contextvars.copy_context().run, kernel, *share, tasks.starts, *args) for share in shares[1:]
    ]
    try:
        return [kernel(*shares[0], tasks.starts, *args), *(future.result() for future in futures)]
    finally:
        wait(futures)  # also when Ctrl-C arrives: nothing may go on writing behind the caller's back
