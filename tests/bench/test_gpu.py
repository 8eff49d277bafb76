"""What is asked of a GPU's driver, with a made-up one: its errors, recording, and what the device is."""

from types import SimpleNamespace

import pytest
from helpers.benchmark import device_work
from helpers.made_up_gpu import STREAM

from amos_ref import errors
from amos_ref.bench import cuda, gpu


def test_an_error_of_the_driver_is_named(driver, monkeypatch):
    monkeypatch.setattr(driver, "cuGraphLaunch", lambda *_: (SimpleNamespace(name="CUDA_ERROR_X"),))
    with pytest.raises(errors.BackendError, match="as cuGraphLaunch failed: CUDA_ERROR_X"):
        cuda.DeviceCopy(device_work()).run()


def test_a_recording_that_fails_is_ended(driver):
    with pytest.raises(ZeroDivisionError):
        gpu.record(STREAM, lambda: 1 / 0)
    assert driver.recording is None
