"""How steps are timed: one by one on the host, or in turns over copies of the arrays on a device."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amos_ref.bench import gpu
from amos_ref.kernels.cuda import driver

CACHES = 3  # the L2 caches that all copies together fill
MOST_COPIES = 32  # as many copies of 1,000 parameters still fit into the cache


class Stepper:
    """An optimizer with arrays of its own, which takes one step after the other."""

    stream = 0  # the handle of the CUDA stream in which it launches; 0 on the host
    streams: Mapping[int, float] = {}  # of the roof on the host: seconds by how many streams a thread has

    def launch(self) -> None:
        """Begin a step."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait until all steps are done; on the host a step is done when `launch` returns."""
        if self.stream:
            driver.synchronize(self.stream)

    def run(self) -> None:
        """Take one step and wait until it is done."""
        self.launch()
        self.wait()


# on the host


class OnHost:
    """Steps of one stepper, timed one by one with the host's clock."""

    run: Callable[[], None]
    streams: Mapping[int, float]

    def __init__(self, stepper: Stepper, pause: float = 0.0) -> None:
        self.run, self.streams = stepper.run, stepper.streams
        self.pause = pause  # seconds after a turn for which its threads still keep a core busy

    def time_one(self) -> float:
        """Return the seconds of one step."""
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def count_steps(self, calls: int) -> int:
        """Return how many steps `time_steps` takes."""
        return calls + 1

    def time_steps(self, calls: int) -> float:
        """Return the mean seconds of `calls` steps, after one step that fills the caches and wakes threads."""
        self.time_one()
        return sum(self.time_one() for _ in range(calls)) / calls


# on a device


class StreamClock:
    """The device's clock: events in the stream in which the steps are launched."""

    fewest = 1  # steps in one timing

    def now(self, stepper: Stepper) -> Any:
        """Return an event that marks the time at which all that was launched before is done."""
        event = gpu.call("cuEventCreate", 0)
        gpu.call("cuEventRecord", event, stepper.stream)
        return event

    def since(self, start: Any, stepper: Stepper) -> float:
        """Wait until all that was launched is done, and return the seconds that passed since `start`."""
        end = self.now(stepper)
        gpu.call("cuEventSynchronize", end)
        milliseconds = gpu.call("cuEventElapsedTime", start, end)
        for event in (start, end):
            gpu.call("cuEventDestroy", event)
        return milliseconds * 1e-3


class HostClock:
    """The host's clock, for steps on a device whose stream is not known: it waits before it looks."""

    fewest = 5

    def now(self, stepper: Stepper) -> float:
        stepper.wait()
        return time.perf_counter()

    def since(self, start: float, stepper: Stepper) -> float:
        return self.now(stepper) - start


Clock = StreamClock | HostClock


def count_copies(size: int, l2: int) -> int:
    """Return how many copies of `size` bytes fill an L2 cache of `l2` bytes CACHES times; at most MOST_COPIES."""
    return min(max(-(-CACHES * l2 // size), 1), MOST_COPIES)


class Rotation:
    """Copies of one stepper that take a step each in turn, so that each finds its arrays outside the L2 cache."""

    copies: Sequence[Stepper]
    clock: Clock
    pause: float = 0.0
    streams: Mapping[int, float] = {}

    def __init__(self, copies: Sequence[Stepper], clock: Clock) -> None:
        self.copies, self.clock = copies, clock
        self._turns = itertools.cycle(copies)

    def launch(self) -> Stepper:
        """Begin a step of the copy whose turn it is, and return that copy."""
        copy = next(self._turns)
        copy.launch()
        return copy

    def run(self) -> None:
        self.launch().wait()

    def count_steps(self, calls: int) -> int:
        return max(calls, self.clock.fewest) + 1

    def time_steps(self, calls: int) -> float:
        """Return the mean seconds of the steps, after one step that keeps the device busy while they are launched."""
        last = self.launch()
        start, calls = self.clock.now(last), self.count_steps(calls) - 1
        for _ in range(calls):
            last = self.launch()
        return self.clock.since(start, last) / calls


Timed = OnHost | Rotation
