"""What the tests of tests/gpu share: trees on both sides, streams, and recordings."""

import contextlib
import gc

import numpy as np
from numba import cuda

import amos_ref
from amos_ref.kernels.cuda.arrays import device_array, download

PAPER = dict(eta=0.6, beta=0.75, extra_l2=0.05, momentum=0.9)
CLOSED = dict(half_life=3, q=1.5, sigma={"b": 0.6, ".*": "init"}, clip_value=1.5)
#: The family, in the ways in which a recorded step finds its numbers and a kernel its directions.
MEMBERS = {
    "constant": lambda **options: amos_ref.Amos(0.3, **PAPER | options),
    "schedule": lambda **options: amos_ref.Amos(lambda t: 0.3 / t, **PAPER | options),
    **{
        direction: lambda direction=direction, **options: amos_ref.ClosedFormAmos(
            0.2, direction=direction, **CLOSED | options
        )
        for direction in ("gradient", "sign", "adam")
    },
}


def pair(member, **options):
    """The same optimizer for the host and for the device."""
    return [MEMBERS[member](**options, backend=backend) for backend in ("cpu", "cuda")]


def same_state(state, there):
    """Whether both states, of these arrays and of others, have the same bits."""
    assert state.count == there.count
    for ours, theirs in zip(state[1:], there[1:], strict=True):
        same(ours or {}, theirs)


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
