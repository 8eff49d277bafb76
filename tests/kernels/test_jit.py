"""Compiled code: kept on disk under the digest of all its sources, and missed no more than once when it cannot be."""

import contextvars
import errno
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
from amos_ref.kernels import jit
from amos_ref.kernels.cpu import threads
from amos_ref.kernels.table import BATCHES, LITTLE, Tasks

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def one_more(x):
    return x + 1.0


@pytest.fixture
def warn_afresh():
    jit._warn_uncached.cache_clear()
    yield
    jit._warn_uncached.cache_clear()


@compiled_only
def test_the_cache_is_keyed_by_the_digest_of_every_compiled_source(monkeypatch):
    cache = jit._Cache(one_more)
    codegen = numba.njit(fastmath=False)(one_more).targetctx.codegen()
    before = cache._index_key(None, codegen)
    assert jit.source_digest() in before
    monkeypatch.setattr(jit, "source_digest", lambda: "another page")
    assert cache._index_key(None, codegen) != before


def test_the_digest_covers_the_page_and_all_that_is_compiled():
    root = jit._PACKAGE
    covered = {path for pattern in jit._COMPILED for path in root.glob(pattern)}
    compiled = {root / "spec.py", root / "closed_form.py", *(root / "optimizers").glob("*.py")}
    compiled |= {path for path in (root / "kernels").rglob("*.py") if path.parent.name != "cuda"}
    assert covered == compiled


@compiled_only
@pytest.mark.parametrize("method", ["save_overload", "load_overload"])
def test_a_disk_that_fails_is_one_warning_and_the_right_answer(method, monkeypatch, warn_afresh, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # nothing is kept there yet

    def fails(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(jit.FunctionCache, method, fails)
    with pytest.warns(RuntimeWarning, match="not kept on disk.*Read-only file system") as seen:
        assert jit.kernel(one_more)(1.0) == 2.0
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jit.kernel(one_more)(2.0) == 3.0


@compiled_only
def test_no_place_for_a_cache_is_one_warning_and_the_right_answer(monkeypatch, warn_afresh):
    def nowhere(*args):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(jit, "_Cache", nowhere)
    with pytest.warns(RuntimeWarning, match="no locator available"):
        assert jit.kernel(one_more)(1.0) == 2.0


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
with threads.limited(1):
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
