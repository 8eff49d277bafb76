"""The kernels and the roof on a GPU, with a made-up one: what is replayed are whole steps, and what is copied."""

import numpy as np
import pytest
from helpers import made_up_gpu
from helpers.benchmark import device_work

import amos_ref
from amos_ref.bench import cuda


def test_a_step_is_recorded_once_and_replayed(driver):
    replay = cuda.AmosReplay(device_work("1e6"))
    assert driver.log == ["step"]  # which lays out and compiles; the second is recorded
    replay.run()
    assert driver.log == ["step", "step"]
    ours = cuda.CUDA_KERNELS.prepare(device_work("1e6"))
    assert len(ours.copies) == 19
    driver.log.clear()
    assert ours.time_steps(20) == pytest.approx(1e6 * 16 / 1.8e12, rel=1e-9)
    assert driver.log == ["step"] * 21


class Scheduled(made_up_gpu.Opt):
    """Stands for amos_ref.ClosedFormAmos: a replay finds numbers only if they were put on the device."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        assert options["direction"] == "adam"
        self.known = 0

    def advance(self, state, *, stream, steps):
        assert self.known == 0
        self.known = steps
        return state + steps


def replays_follow_their_schedule(driver, monkeypatch):
    """Whether 2,500 replays of the closed form all have their numbers, and every thousand puts new ones there."""
    monkeypatch.setattr(amos_ref, "ClosedFormAmos", Scheduled)
    monkeypatch.setattr(Scheduled, "driver", driver)
    stepper = cuda.AmosReplay(device_work("1e6").as_closed_form("adam"))
    for _ in range(2500):
        stepper.launch()
        if stepper.amos.opt.known == 0:
            return False
        stepper.amos.opt.known -= 1
    return stepper.state == 1 + 3000


def test_replays_of_the_closed_form_are_advanced_in_time(driver, monkeypatch):
    assert replays_follow_their_schedule(driver, monkeypatch)
    monkeypatch.setattr(cuda.AmosReplay, "launch", lambda self: self.replay())
    assert not replays_follow_their_schedule(driver, monkeypatch)


def nothing(self):
    pass


def twice(self):
    self.replay()
    self.replay()


def takes_whole_steps(driver):
    """Whether a timing holds whole steps on 2e7 parameters, one a turn."""
    ours = cuda.CUDA_KERNELS.prepare(device_work("2e7"))
    driver.log.clear()
    seconds = ours.time_steps(3)
    return driver.log == ["step"] * 4 and seconds == pytest.approx(2e7 * 16 / 1.8e12, rel=1e-9)


@pytest.mark.parametrize("wrong", [nothing, twice])
def test_half_a_step_would_be_seen(driver, monkeypatch, wrong):
    assert takes_whole_steps(driver)
    monkeypatch.setattr(cuda.AmosReplay, "launch", wrong)
    assert not takes_whole_steps(driver)


@pytest.mark.parametrize(
    "changed", [dict(), dict(slot="element", state="float64", momentum=True), dict(dtype="float16")]
)
def test_the_roof_copies_half_of_the_bytes(driver, changed):
    work = device_work("100003", **changed)
    copy = cuda.DeviceCopy(work)
    assert driver.log == []
    copy.run()
    (copied,) = driver.log
    size = int(copied.split()[1])
    assert 0 <= 2 * size - work.bytes < 16
    assert size == copy.source.nbytes == copy.target.nbytes
    assert len(np.unique(copy.source.source)) > 0.5 * min(65537, size // 8)  # no zeros, which may move faster
