"""Threads for kernels: whoever is free takes the next tasks. Compiled code holds no Python lock, so all run at once."""

import contextlib
import contextvars
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numba
import numpy as np
from numba.core import config
from numba.np.ufunc import parallel

from amos_ref.float_mode import is_ieee
from amos_ref.kernels.cpu.memory import word
from amos_ref.kernels.jit import kernel
from amos_ref.kernels.table import BATCHES, Tasks, address

SPINS = 500_000  # looks at whether helpers are done, some 300 us: to sleep and wake takes 70
MOST_THREADS = max(os.cpu_count() or 1, 64)  # asked once: the system takes 12 us to count its processors
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


Head = tuple[Any, ...]  # the first arguments of a kernel, which say what batch of tasks it does


class Launch:
    """One kernel under way: each thread takes a batch of its tasks, and then another one.

    A helper that comes too late finds none left, and nobody has waited for it.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    heads: Iterator[Head]
    busy: np.ndarray

    def __init__(self, run: Callable[..., Any], heads: Sequence[Head], args: tuple[Any, ...], threads: int) -> None:
        self.run, self.args = run, args
        self.heads = iter(heads)  # which gives each entry to one thread
        self.busy = np.zeros(threads - 1, np.int64)  # whether a helper may be at work
        self.found: list[Any] = []
        self.errors: list[BaseException] = []

    def help(self, k: int) -> None:
        """Work as helper k."""
        self.busy[k] = 1
        if is_ieee():  # as the caller's thread is; otherwise the bits would depend on who does what
            self.work()
        self.busy[k] = 0

    def work(self) -> None:
        """Take batches until there are no more; after an error nobody takes another."""
        try:
            for head in self.heads:
                self.found.append(self.run(*head, *self.args))
        except BaseException as error:
            self.errors.append(error)
            list(self.heads)

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
    return min(getattr(config, "NUMBA_NUM_THREADS", 1), MOST_THREADS)


@contextlib.contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """Let every launch use so many threads meanwhile."""
    _limits.append(threads)
    try:
        yield
    finally:
        _limits.pop()


class Marks:
    """Which batches of a launch are done: a kernel that writes marks each as its last act, in compiled code.

    So whatever breaks a launch off, launched again it does what is left.
    """

    done: np.ndarray
    at: int

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self._make(1 if tasks.little else most() * BATCHES)
        self._under_way: list[Head] | None = None

    def _make(self, batches: int) -> None:
        self.done = np.zeros(batches, np.int64)
        self.at = address(self.done)
        self._heads: dict[int, list[Head]] = {}

    def clear(self) -> None:
        """Begin a new launch."""
        self._under_way = None
        self.done.fill(0)

    def left(self, threads: int) -> list[Head]:
        """Return the batches that are not done, each with where it is marked; for so many threads, if none is yet."""
        if self._under_way is not None:
            return [head for head, done in zip(self._under_way, self.done, strict=False) if not done]
        if threads not in self._heads:
            batches = _batches(self.tasks, threads)
            if len(batches) > self.done.size:
                self._make(len(batches))
            self._heads[threads] = [(*b, self.tasks.starts, self.at + 8 * k) for k, b in enumerate(batches)]
        self._under_way = self._heads[threads]
        return self._under_way


def _batches(tasks: Tasks, threads: int) -> Sequence[tuple[int, int]]:
    if threads > 1:
        return tasks.batches(threads)
    return [(0, tasks.count)] if tasks.count else []


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
    if tasks.little or (threads := count()) == 1:
        return [run(0, tasks.count, tasks.starts, *args)] if tasks.count else []
    return _share([(*batch, tasks.starts) for batch in _batches(tasks, threads)], threads, run, args)


def launch_marked(run: Callable[..., Any], marks: Marks, *args: Any) -> None:
    """Call ``run(first, last, starts, mark, *args)`` likewise, for all batches that are not marked as done."""
    threads = 1 if marks.tasks.little else count()
    _share(marks.left(threads), threads, run, args)


def _share(heads: Sequence[Head], threads: int, run: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
    if threads == 1:
        return [run(*head, *args) for head in heads]
    threads = 1 + _hire(threads - 1)
    launched = Launch(run, heads, args, threads)
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
    while is_ieee():  # otherwise another thread is hired for the next launch
        context, launched, k = launches.get()
        context.run(launched.help, k)
        del context, launched  # which hold arrays
    with _hiring:
        helpers.remove(threading.current_thread())
