"""Where the CUDA tests run: in Numba's simulator (NUMBA_ENABLE_CUDASIM=1, a process of its own) or on a GPU.

Anywhere else they are not collected: nox -s cuda and nox -s gpu run them.
"""

import os
import sys

import numpy as np
import pytest

from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda import driver as cuda_driver

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if cuda_driver.usable() else ["test_*.py"]
sys.setswitchinterval(1e-5)  # the simulator's threads wait for each other


def shared_array(self, shape, dtype):
    """Return the one shared array that the threads of a simulated block get from a line of a kernel.

    The simulator looks whether there is one and else makes it: two threads that look at once get two.
    """
    line = sys._getframe(1)
    return self._allocations.setdefault((line.f_code.co_filename, line.f_lineno), poisoned(shape, dtype))


def poisoned(shape, dtype):
    """Memory in which nothing was written yet: NaN, or the largest integer."""
    kind = np.dtype(dtype)
    return np.full(shape, np.nan if kind.kind == "f" else np.iinfo(kind).max, kind)


allocate = arrays.allocate


def allocate_poisoned(count):
    """What `arrays.allocate` gives, full of NaN."""
    room = allocate(count)
    arrays.refill(room, np.full(room.shape, np.nan), 0)
    cuda_driver.synchronize(0)
    return room


if "AMOS_REF_SCRATCH_AS_IT_IS" not in os.environ:  # as compute-sanitizer wants it, which sees what was never written
    arrays.allocate = allocate_poisoned

if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDALocal, FakeCUDAShared

    FakeCUDAShared.array = shared_array
    FakeCUDALocal.array = lambda self, shape, dtype: poisoned(shape, dtype)


@pytest.fixture(params=[(64, 1), (128, 3)] if SIMULATED else [(64, 1), (128, 7), (256, 1056)], ids=str)
def grid(request, monkeypatch):
    """Threads of a block, and the most blocks of a launch."""
    set_grid(monkeypatch, *request.param)
    return request.param


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few threads, where each is one of Python's."""
    if SIMULATED:
        set_grid(monkeypatch, 64, 2)


def set_grid(monkeypatch, block, blocks):
    from amos_ref.kernels.cuda import backend as cuda

    monkeypatch.setattr(cuda, "BLOCK", block)
    monkeypatch.setattr(cuda_driver, "most_blocks", lambda: blocks)
