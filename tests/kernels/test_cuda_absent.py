"""What there is of CUDA where no kernel can run: named errors, one line of ``amos-ref info``, arrays that are known."""

import importlib.util
import json

import numpy as np
import pytest

import amos_ref
from amos_ref.checks import lies_on_gpu
from amos_ref.cli import main
from amos_ref.errors import BackendError, DtypeError, MissingDependencyError
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import device_array

NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None


class Shown:
    """An array on a GPU, as ``__cuda_array_interface__`` shows it; there is nothing at its address."""

    def __init__(self, shape, typestr, address=0x1000, **more):
        data = dict(shape=shape, typestr=typestr, data=(address, False), version=3)
        self.__cuda_array_interface__ = data | more


class Tensor:
    """An array as DLPack shows it; on a GPU if `device` is 2."""

    def __init__(self, a, device):
        self.a, self.device = a, device

    def __dlpack__(self, stream=None):
        return self.a.__dlpack__()

    def __dlpack_device__(self):
        return self.device, 0


class HalfTensor(Tensor):
    """As torch has it: no interface for bfloat16, and a TypeError where it is asked for."""

    @property
    def __cuda_array_interface__(self):
        raise TypeError("bfloat16 has no typestr")


@pytest.mark.skipif(NUMBA_CUDA, reason="numba-cuda is installed")
def test_without_numba_cuda_the_error_says_what_to_install():
    with pytest.raises(MissingDependencyError, match=r"pip install 'amos_ref\[cuda\]'"):
        amos_ref.Amos(backend="cuda")


@pytest.mark.skipif(cuda_driver.usable(), reason="CUDA can be used")
def test_info_says_in_one_line_why_cuda_cannot_be_used(capsys):
    assert main(["info", "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["backends"]["cuda"]
    assert line.startswith(("backend 'cuda' needs numba-cuda", "backend 'cuda' cannot be used here: "))
    assert "\n" not in line


def test_a_driver_older_than_the_toolkit_is_named(monkeypatch):
    monkeypatch.setattr(cuda_driver, "_driver_version", lambda: 12080)
    monkeypatch.setattr(cuda_driver, "_toolkit_version", lambda: 13000)
    assert cuda_driver.older_driver() == (
        "the driver is for CUDA 12.8 and the toolkit that compiles is 13.0; update the driver, or install an older "
        "toolkit"
    )
    monkeypatch.setattr(cuda_driver, "_driver_version", lambda: 13000)
    assert cuda_driver.older_driver() is None


def test_versions_that_compile_no_kernel_together_are_named_in_one_line(monkeypatch):
    def fail():
        raise AttributeError("module 'numpy' has no attribute 'row_stack'\n(in ufuncs.py)")

    monkeypatch.setattr(cuda_driver, "_run_kernel", fail)
    monkeypatch.setattr(cuda_driver.metadata, "version", {"numba-cuda": "0.30.4", "numpy": "2.5.2"}.get)
    assert cuda_driver.why_no_kernel() == (
        "numba-cuda 0.30.4 and numpy 2.5.2 compile no kernel together (AttributeError: module 'numpy' has no attribute "
        "'row_stack' (in ufuncs.py)); install versions that do, such as numpy<2.5"
    )
    monkeypatch.setattr(cuda_driver, "_run_kernel", lambda: None)
    assert cuda_driver.why_no_kernel() is None


@pytest.mark.skipif(cuda_driver.simulated(), reason="the simulator compiles nothing")
def test_a_device_is_usable_only_after_a_kernel_ran_on_it(monkeypatch):
    monkeypatch.setattr("numba.cuda.gpus", [0])
    monkeypatch.setattr(cuda_driver, "older_driver", lambda: None)
    for said in ("no kernel", None):
        monkeypatch.setattr(cuda_driver, "why_no_kernel", lambda said=said: said)
        assert cuda_driver._reason() == said


def test_a_seen_array_has_shape_dtype_and_address():
    found = device_array(Shown((2, 3), "<f4"), "w")
    assert (found.shape, found.dtype, found.address, found.nbytes) == ((2, 3), np.float32, 0x1000, 24)
    assert device_array(Shown((2, 3), "<f4", strides=(12, 4)), "w").bounds == (0x1000, 0x1018)
    assert device_array(Shown((1, 3), "<f4", strides=(400, 4)), "w").size == 3  # one row: its stride is never used
    assert device_array(Shown((4,), "<u2"), "w").dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("array", "error", "match"),
    [
        (Shown((2, 3), "<f4", strides=(4, 8)), BackendError, r"w has strides \(1, 2\)"),
        (Shown((2, 3), "<f4", strides=(12, -4)), BackendError, r"w has strides \(3, -1\)"),
        (Shown((2, 3), "<f4", address=0x1002), BackendError, "w begins at 0x1002, which is no address of float32"),
        (Shown((2, 3), "<i8"), DtypeError, "w cannot be read.*its dtype is int64"),
        (Shown((2, 3), ">f8"), DtypeError, "its dtype is >f8"),
        (Shown((2, 3), "<c8"), DtypeError, "its dtype is complex64"),
        (Tensor(np.zeros(3, np.int32), 2), DtypeError, r"DLPack calls its dtype \(0, 32\)"),
        (Tensor(np.zeros((4, 4))[:, 1], 2), BackendError, r"w has strides \(4,\)"),
        (Tensor(np.zeros(3), 1), BackendError, "w is not on a GPU but Tensor"),
        (np.zeros(3), BackendError, "w is not on a GPU but a NumPy array.*cupy.asarray"),
        (None, BackendError, "w is not on a GPU but NoneType"),
    ],
)
def test_what_is_no_array_of_floats_in_c_order_on_a_gpu_is_refused(array, error, match):
    with pytest.raises(error, match=match):
        device_array(array, "w")


def test_dlpack_is_read_without_a_copy():
    a = np.linspace(-1, 2, 6).reshape(2, 3)
    found = device_array(Tensor(a[1:], 2), "w")
    assert (found.shape, found.dtype, found.address) == ((1, 3), a.dtype, a.ctypes.data + 24)
    assert device_array(HalfTensor(a, 2), "w").address == a.ctypes.data


def test_arrays_on_a_gpu_are_known():
    assert [lies_on_gpu(a) for a in (Shown((3,), "<f4"), Tensor(np.zeros(3), 2), Tensor(np.zeros(3), 13))] == [True] * 3
    assert not any(map(lies_on_gpu, (np.zeros(3), np.float64(1), Tensor(np.zeros(3), 1), 1.0, None)))


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_other_backends_refuse_arrays_on_a_gpu(backend):
    with pytest.raises(BackendError, match="params leaf 'w' is on a GPU, where only backend 'cuda' steps it"):
        amos_ref.Amos(0.1, 0.5, backend=backend).init({"w": Shown((3,), "<f4")})


def test_stream_and_sync_are_for_cuda():
    params = np.ones(3)
    opt = amos_ref.Amos(0.1, 0.5)
    state = opt.init(params)
    for launch, what in ((dict(stream=7), "stream is 7"), (dict(sync=False), "sync is False")):
        with pytest.raises(BackendError, match=f"{what}, which is for backend 'cuda'; this one steps NumPy's arrays"):
            opt.step(params, np.ones(3), state, **launch)
    with pytest.raises(BackendError, match="advance needs a step of backend 'cuda'"):
        opt.advance(state)
    opt.synchronize()
    assert np.array_equal(params, np.ones(3))


def test_the_closed_form_asks_for_a_gpu_too():
    with pytest.raises((BackendError, MissingDependencyError), match="backend 'cuda' "):
        amos_ref.ClosedFormAmos(half_life=10, backend="cuda")
