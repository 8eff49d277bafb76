"""This package's CUDA kernels, and the roof of a GPU's memory: a copy on the device."""

from typing import Any

import numpy as np

from amos_ref.bench import contenders, gpu
from amos_ref.bench.rotation import OnDevice
from amos_ref.bench.workloads import Workload
from amos_ref.kernels.cuda import arrays as device_arrays
from amos_ref.kernels.cuda.arrays import device_array


class Kernels(OnDevice, contenders.Kernels):
    """This package's CUDA kernels: a step is recorded once and then replayed."""

    about = "amos_ref.Amos, backend 'cuda': advance, and a replay of a recorded step"
    backend = "cuda"
    traced = False

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.stream = gpu.stream()
        gpu.synchronize()  # the arrays were copied in another stream
        self.state = self.opt.step(self.params, self.grads, self.state, stream=self.stream)
        with gpu.recorded(self.stream) as self.graph:
            self.opt.step(self.params, self.grads, self.state, stream=self.stream, sync=False)

    def placed(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        bits = {"bfloat16": np.uint16}  # NumPy's bfloat16 is unknown to Numba
        return {
            name: device_arrays.copy_to_device(a.view(bits.get(a.dtype.name, a.dtype))) for name, a in arrays.items()
        }

    def launch(self) -> None:
        self.state = self.opt.advance(self.state, stream=self.stream)
        self.graph.launch()

    def wait(self) -> None:
        self.opt.synchronize(stream=self.stream)

    def values(self) -> dict[str, np.ndarray]:
        return {name: device_arrays.download(device_array(a, name)) for name, a in self.params.items()}


class Copy(OnDevice):
    """Copies half of a step's bytes, so that it reads and writes as many as the step does."""

    about = "a copy on the device that reads and writes as many bytes as an Amos step"

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        count, self.stream = -(-self.held(work) // 16), gpu.stream()
        # Random bits, as those of parameters are: a GPU may move zeros with less power, and so faster.
        block = np.random.default_rng(2022).integers(2**64, size=min(count, 65537), dtype=np.uint64)
        self.source, self.target = device_arrays.upload(np.resize(block, count)), device_arrays.allocate(count)
        gpu.synchronize()
        with gpu.recorded(self.stream) as self.graph:
            gpu.call("cuMemcpyDtoDAsync", self.target.address, self.source.address, 8 * count, self.stream)

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        return None

    @classmethod
    def held(cls, work: Workload) -> int:
        return work.bytes

    def launch(self) -> None:
        self.graph.launch()

    def values(self) -> dict[str, np.ndarray]:
        found = {"source": self.source, "target": self.target}
        return {name: device_arrays.download(a).view(np.uint64) for name, a in found.items()}
