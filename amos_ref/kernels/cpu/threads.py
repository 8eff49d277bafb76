"""Threads for kernels: whoever is free takes the next tasks. Compiled code holds no Python lock, so all run at once."""

import contextlib
import contextvars
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
from numba.core import config
from numba.np.ufunc import parallel

from amos_ref.kernels.cpu.memory import word
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import Tasks, address

SPINS = 500_000  # looks at whether helpers are done, some 300 us: to sleep and wake takes 70
MOST_THREADS = 64  # where there are no more processors
PAUSE = 2e-5  # seconds between looks from then on, where helpers wait for a processor

launches: queue.SimpleQueue[Any] = queue.SimpleQueue()  # where helpers wait
helpers: list[threading.Thread] = []
_hiring = threading.Lock()
_limits: list[int] = []  # what `limit_threads` says; the last counts


def _forget() -> None:
    """After a fork the child has none of the parent's threads."""
    global launches, helpers, _hiring
    launches, helpers, _hiring = queue.SimpleQueue(), [], threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget)


@kernel
def idle(at, count, spins):
    """Whether, within so many looks, all of the integers at an address are 0."""
    for _ in range(spins):
        busy = 0
        for k in range(count):
            busy |= word(at + 8 * k)
        if busy == 0:
            return True
    return False


class Launch:
    """One kernel under way: each thread takes a batch of its tasks, and then another one.

    A helper that comes too late finds none left, and nobody has waited for it.
    """

    def __init__(self, run: Callable[..., Any], tasks: Tasks, args: tuple[Any, ...], threads: int) -> None:
        self.run, self.starts, self.args = run, tasks.starts, args
        self.batches = iter(tasks.batches(threads))  # which gives each entry to one thread
        self.busy = np.zeros(threads - 1, np.int64)  # whether a helper may be at work
        self.found: list[Any] = []
        self.errors: list[BaseException] = []

    def help(self, k: int) -> None:
        """Work as helper k."""
        self.busy[k] = 1
        self.work()
        self.busy[k] = 0

    def work(self) -> None:
        """Take batches until there are no more; after an error nobody takes another."""
        try:
            for first, last in self.batches:
                self.found.append(self.run(first, last, self.starts, *self.args))
        except BaseException as error:
            self.errors.append(error)
            list(self.batches)

    def wait(self) -> None:
        """Return when no helper is at work."""
        at, spins = address(self.busy), 1 if getattr(config, "DISABLE_JIT", False) else SPINS
        while not idle(at, self.busy.size, spins):
            time.sleep(PAUSE)


def count() -> int:
    """Return how many threads a launch may use: what numba.set_num_threads says, or else NUMBA_NUM_THREADS.

    Numba is asked only where its own threads run already, for asking starts them. They are OpenMP's, and a torch that
    is imported later shares them: its foreach AdamW then takes 3 ms for 10,000 parameters, and 0.05 ms otherwise.
    """
    if _limits:
        return _limits[-1]
    if getattr(parallel, "_is_initialized", True):
        return numba.get_num_threads()
    return most()


def most() -> int:
    """Return how many threads Numba may use at most, but never so many that the system would end the process."""
    return min(getattr(config, "NUMBA_NUM_THREADS", 1), max(os.cpu_count() or 1, MOST_THREADS))


@contextlib.contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Let every launch use so many threads meanwhile."""
    _limits.append(threads)
    try:
        yield
    finally:
        _limits.pop()


def launch(run: Callable[..., Any], tasks: Tasks, *args: Any) -> list[Any]:
    """Call ``run(first, last, tasks.starts, *args)`` for all batches of tasks, on as many threads as Numba may use.

    Parameters
    ----------
    run : callable
        Does the tasks first <= task < last.
    tasks : Tasks
        Little work stays in the calling thread.

    Returns
    -------
    list
        What each call returned, in no order.
    """
    threads = 1 if tasks.little else count()
    if threads == 1:
        return [run(0, tasks.count, tasks.starts, *args)] if tasks.count else []
    threads = 1 + _hire(threads - 1)
    launched = Launch(run, tasks, args, threads)
    for k in range(threads - 1):
        # In a copy of the caller's context, which holds NumPy's way with overflow (for kernels run as Python).
        launches.put((contextvars.copy_context(), launched, k))
    try:
        launched.work()
    finally:
        launched.wait()  # also when Ctrl-C arrives: nothing may go on writing behind the caller's back
    if launched.errors:
        raise launched.errors[0]
    return launched.found


def _hire(wanted: int) -> int:
    """Start helpers until there are so many, or until the system gives no more; return how many of them there are."""
    if len(helpers) < wanted:
        with _hiring:
            for k in range(len(helpers), wanted):
                helper = threading.Thread(target=_help, args=(launches,), name=f"amos_ref_{k}", daemon=True)
                try:
                    helper.start()
                except RuntimeError:  # no more threads or memory: a step that has begun goes on with those there are
                    break
                helpers.append(helper)
    return min(len(helpers), wanted)


def _help(launches: queue.SimpleQueue) -> None:
    while True:
        context, launched, k = launches.get()
        context.run(launched.help, k)
        del context, launched  # which hold arrays
