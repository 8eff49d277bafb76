"""What the tests of tests/gpu share: trees on both sides, streams, and recordings."""

import contextlib
import gc

import numpy as np
from numba import cuda

from amos_ref.kernels.cuda.arrays import device_array, download


def tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"w": (65, 300), "b": (300,), "e": (50, 64)}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def same(params, there):
    for name, a in params.items():
        assert download(device_array(there[name], name)).tobytes() == a.tobytes(), name


def call(name, *args):
    """Call a function of the driver."""
    from cuda.bindings import driver

    error, *found = getattr(driver, name)(*args)
    assert error == driver.CUresult.CUDA_SUCCESS, error
    return found[0] if found else None


def new_stream(flags=1):
    """The handle of a stream that waits for no other; with flags 0, of one that the default stream waits for."""
    with cuda.gpus[0]:
        return int(call("cuStreamCreate", flags))


@contextlib.contextmanager
def recording(stream, graphs):
    """Record what is launched in a stream; the graph comes to the end of a list, and must be valid."""
    from cuda.bindings import driver

    gc.collect()
    call("cuStreamBeginCapture", stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL)
    try:
        with cuda.defer_cleanup():  # memory that is freed meanwhile spoils a recording
            yield
    finally:
        graphs.append(call("cuGraphInstantiate", call("cuStreamEndCapture", stream), 0))
