"""Launches: every task is done once, whoever is free, and nothing goes on behind the caller's back."""

import contextvars
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import amos_ref
from amos_ref.kernels.cpu import threads
from amos_ref.kernels.table import BATCHES, LITTLE, Tasks

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def big_step():
    params = np.linspace(-1.0, 1.0, 2 * LITTLE)
    opt = amos_ref.Amos(0.25, 0.5, beta=0.75, extra_l2=0.125, backend="cpu")
    state = opt.init(params)
    opt.step(params, np.cos(params), state)
    return params.tobytes()


_COUNTING = """
import numba, numpy as np, amos_ref
from numba.np.ufunc import parallel
from amos_ref.kernels import table
from amos_ref.kernels.cpu import threads
params = np.ones(2 * table.LITTLE)
opt = amos_ref.Amos()
opt.step(params, params.copy(), opt.init(params))
print(threads.count(), len(threads.helpers), parallel._is_initialized)
numba.set_num_threads(2)
print(threads.count())
with threads.limit_threads(1):
    print(threads.count())
"""


@compiled_only
def test_a_step_starts_none_of_numbas_threads_and_obeys_its_number():
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-c", _COUNTING], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "2", "False", "2", "1"]


def test_a_forked_child_makes_threads_of_its_own():
    if numba.config.DISABLE_JIT:
        pytest.skip("too slow as plain Python")
    want = big_step()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
        child = os.fork()
    if child == 0:
        os.write(write, b"same" if big_step() == want else b"not!")
        os._exit(0)
    os.close(write)
    assert os.read(read, 4) == b"same"
    assert os.waitpid(child, 0)[1] == 0


TASKS = Tasks(np.array([0, 100]), np.array([0, LITTLE]))


several_threads = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread: no helpers")


@several_threads
def test_helpers_inherit_the_callers_way_with_overflow():
    everyone = threading.Barrier(threads.count())
    came = threading.local()

    def run(first, last, starts):
        if not hasattr(came, "before"):
            came.before = everyone.wait(60)
        return np.geterr()["over"]

    with np.errstate(over="ignore"):
        assert set(threads.launch(run, TASKS)) == {"ignore"}


@several_threads
def test_every_helper_stops_before_an_error_is_raised():
    begun, ended, raising = [], [], threading.Event()

    def run(first, last, starts):
        if threading.current_thread() is threading.main_thread():
            while not begun:
                time.sleep(1e-3)
            raising.set()
            raise KeyboardInterrupt
        begun.append(first)
        assert raising.wait(60)
        time.sleep(0.05)
        ended.append(first)

    with pytest.raises(KeyboardInterrupt):
        threads.launch(run, TASKS)
    assert sorted(begun) == sorted(ended)
    assert len(begun) < threads.count() * BATCHES - 1  # nobody took another batch
    time.sleep(0.1)
    assert len(begun) == len(ended)


@several_threads
def test_an_error_of_a_helper_is_raised():
    failed = threading.Event()

    def run(first, last, starts):
        if threading.current_thread() is not threading.main_thread():
            failed.set()
            raise MemoryError("of a helper")
        assert failed.wait(60)

    with pytest.raises(MemoryError, match="of a helper"):
        threads.launch(run, TASKS)


@several_threads
def test_a_helper_that_comes_late_is_not_waited_for():
    blocked = threading.Event()
    for _ in range(numba.config.NUMBA_NUM_THREADS):  # so that all helpers are busy
        threads.launches.put((contextvars.copy_context(), SimpleNamespace(help=lambda k: blocked.wait()), 0))
    try:
        assert sum(threads.launch(lambda first, last, starts: last - first, TASKS)) == TASKS.count
    finally:
        blocked.set()


@several_threads
def test_a_launch_leaves_nothing_with_its_helpers():
    a = np.zeros(3)
    held = weakref.ref(a)

    def run(first, last, starts, a):
        time.sleep(1e-3)

    threads.launch(run, TASKS, a)
    del a
    for _ in range(10_000):
        if held() is None:
            return
        time.sleep(1e-3)
    raise AssertionError("a helper still holds an array")
