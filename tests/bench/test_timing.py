"""How steps are timed, on the clock of a made-up GPU: copies take turns, and a timing holds what it says."""

import numpy as np
import pytest
from helpers.made_up_gpu import L2, STREAM

from amos_ref.bench import timing
from amos_ref.kernels.cuda import driver as cuda_driver

# how many copies


@pytest.mark.parametrize(
    ("size", "l2", "count"),
    [
        (8_000, L2, timing.MOST_COPIES),
        (8 * 10**6, L2, 19),
        (3 * L2 - 1, L2, 2),
        (3 * L2, L2, 1),
        (10**10, L2, 1),
        (8_000, 0, 1),
    ],
)
def test_copies_fill_the_cache_three_times(size, l2, count):
    assert timing.count_copies(size, l2) == count
    assert count * size >= 3 * l2 or count == timing.MOST_COPIES
    assert (count - 1) * size < 3 * l2 or count == 1


# turns


class Stepper(timing.Stepper):
    """Takes a time of the device and a time of the host for each step; writes down which copy took it."""

    stream = STREAM

    def __init__(self, driver, number, seconds, host):
        self.driver, self.number, self.seconds, self.host = driver, number, seconds, host

    def launch(self):
        self.driver.work(self.number, self.seconds, self.host)


def rotate(driver, cls=timing.Rotation, seconds=1e-3, clock=None):
    return cls([Stepper(driver, k, seconds, host=10e-6) for k in range(4)], clock or timing.StreamClock())


def count_others(driver, cls=timing.Rotation):
    """Return how many other copies step between two steps of one, at least, in several timings."""
    rotation = rotate(driver, cls)
    for calls in (1, 3, 1, 5, 2, 20):
        rotation.time_steps(calls)
    places = [[i for i, number in enumerate(driver.log) if number == k] for k in range(4)]
    assert sum(map(len, places)) == 6 + 32  # one before each timing
    return min((int(np.diff(p).min()) - 1 for p in places if len(p) > 1), default=0)


class OnlyOne(timing.Rotation):
    def launch(self):
        self.copies[0].launch()
        return self.copies[0]


class Returning(timing.Rotation):
    """Begins with the first copy in every timing."""

    def time_steps(self, calls):
        return timing.Rotation(self.copies, self.clock).time_steps(calls)


def test_all_others_step_between_two_steps_of_a_copy(driver):
    assert count_others(driver) == 3


@pytest.mark.parametrize("wrong", [OnlyOne, Returning])
def test_copies_that_do_not_take_turns_would_be_seen(driver, wrong):
    assert count_others(driver, wrong) < 3


# time


class AroundTheFirstLaunch(timing.Rotation):
    def time_steps(self, calls):
        last = self.launch()
        start = self.clock.now(last)
        seconds = self.clock.since(start, last)
        for _ in range(calls):
            self.launch()
        return seconds / calls


class WithoutOneBefore(timing.Rotation):
    def time_steps(self, calls):
        cuda_driver.synchronize()
        start = self.clock.now(self.copies[0])
        for _ in range(calls):
            last = self.launch()
        return self.clock.since(start, last) / calls


class NotDivided(timing.Rotation):
    def time_steps(self, calls):
        return super().time_steps(calls) * calls


def is_right(driver, cls=timing.Rotation):
    """Whether the time of a step is the device's, and the host's where it takes longer to begin a step."""
    slow = rotate(driver, cls)
    brief = rotate(driver, cls, seconds=3e-6)
    expected = [(slow, 1e-3), (brief, 10e-6)]
    return all(c.time_steps(n) == pytest.approx(seconds, rel=1e-9) for c, seconds in expected for n in (1, 2, 20))


def test_a_timing_is_the_devices_and_the_hosts_where_that_is_longer(driver):
    assert is_right(driver)


@pytest.mark.parametrize("wrong", [AroundTheFirstLaunch, WithoutOneBefore, NotDivided])
def test_wrong_timings_would_be_seen(driver, wrong):
    assert not is_right(driver, wrong)


def test_the_steps_of_a_timing_are_counted(driver):
    class FiveSteps(timing.StreamClock):
        fewest = 5

    rotation = rotate(driver, clock=FiveSteps())
    for calls in (1, 5, 7):
        driver.log.clear()
        rotation.time_steps(calls)
        assert len(driver.log) == rotation.count_steps(calls) == max(calls, 5) + 1


def test_the_hosts_clock_waits_before_it_looks(driver, monkeypatch):
    monkeypatch.setattr(timing.time, "perf_counter", lambda: driver.host)
    rotation = rotate(driver, clock=timing.HostClock())
    # The host begins the steps while the device is busy with the first of them.
    assert rotation.time_steps(1) == pytest.approx(1e-3 + 10e-6 / 5, rel=1e-9)
    assert len(driver.log) == rotation.count_steps(1) == 6
