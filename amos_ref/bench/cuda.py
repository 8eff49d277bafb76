"""On a GPU: this package's CUDA kernels, and the roof of its memory, which is a copy on the device."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.bench import gpu
from amos_ref.bench.contenders import Contender
from amos_ref.bench.cpu import AmosStepper
from amos_ref.bench.timing import Stepper, StreamClock
from amos_ref.bench.workloads import Workload
from amos_ref.kernels.cuda import arrays as device_arrays
from amos_ref.kernels.cuda import driver

REPLAYS = 1000  # whose numbers are computed together


class AmosStep(Stepper):
    """A step of this package's kernels, called each time and not waited for."""

    amos: AmosStepper
    stream: int
    state: Any
    taken: int

    def __init__(self, work: Workload) -> None:
        self.amos, self.stream = AmosStepper(work, "cuda", _copy_to_device), gpu.find_stream()
        driver.synchronize()  # the arrays were copied in another stream
        self.state = self.amos.state
        self.state, self.taken = self.step(), 1

    def step(self, **launch: bool) -> Any:
        return self.amos.opt.step(self.amos.params, self.amos.grads, self.state, stream=self.stream, **launch)

    def launch(self) -> None:
        self.state = self.step(sync=False)

    def wait(self) -> None:
        self.amos.opt.synchronize(stream=self.stream)


class AmosReplay(AmosStep):
    """A step of this package's kernels, recorded once; each step is a replay, which counts by itself.

    The closed form's schedule is put on the device for many replays at a time.
    """

    replay: Callable[[], None]
    state: Any
    taken: int

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.replay = gpu.record(self.stream, lambda: self.step(sync=False))
        self.scheduled = 0 if work.algorithm == "closed-form" else math.inf  # replays for which there are numbers

    def launch(self) -> None:
        if self.scheduled == 0:
            self.state = self.amos.opt.advance(self.state, stream=self.stream, steps=REPLAYS)
            self.scheduled = REPLAYS
        self.replay()
        self.scheduled -= 1
        self.taken += 1


class AmosBound(AmosStep):
    """A step of this package's kernels that is bound to its arrays."""

    bound: Any

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.bound = self.amos.opt.bind(self.amos.params, self.amos.grads, self.state, stream=self.stream, sync=False)

    def launch(self) -> None:
        self.bound()

    def wait(self) -> None:
        self.bound.synchronize()


def _copy_to_device(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    bits = {"bfloat16": np.uint16}  # Numba does not know NumPy's bfloat16
    return {name: device_arrays.copy_to_device(a.view(bits.get(a.dtype.name, a.dtype))) for name, a in arrays.items()}


class DeviceCopy(Stepper):
    """Copies half of a step's bytes, so that it reads and writes as many bytes as the step does."""

    stream: int
    source: Any
    target: Any
    replay: Callable[[], None]

    def __init__(self, work: Workload) -> None:
        count, self.stream = -(-work.bytes // 16), gpu.find_stream()
        # Random bits, as those of parameters are: a GPU may move zeros with less power, and so faster.
        block = np.random.default_rng(2022).integers(2**64, size=min(count, 65537), dtype=np.uint64)
        self.source, self.target = device_arrays.upload(np.resize(block, count)), device_arrays.allocate(count)
        driver.synchronize()
        copy = ("cuMemcpyDtoDAsync", self.target.address, self.source.address, 8 * count, self.stream)
        self.replay = gpu.record(self.stream, lambda: gpu.call(*copy))

    def launch(self) -> None:
        self.replay()


CUDA_KERNELS = Contender(
    "a step of this package, the CUDA kernels, recorded and replayed", AmosReplay, clock=StreamClock()
)
GPU_PAPER = Contender(
    "paper Amos with the same slots, recorded and replayed",
    lambda work: AmosReplay(work.as_paper()),
    clock=StreamClock(),
    count_moved_bytes=lambda work: work.as_paper().bytes,
    count_array_bytes=lambda work: work.as_paper().array_bytes,
)
COPY = Contender(
    "a copy on the device that reads and writes as many bytes as an Amos step",
    DeviceCopy,
    clock=StreamClock(),
    count_array_bytes=lambda work: work.bytes,  # of source and target
)
