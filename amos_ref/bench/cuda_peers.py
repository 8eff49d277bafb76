"""Other people's optimizers, as fast as their packages run them on a GPU."""

import copy
import functools
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from amos_ref.bench import peers
from amos_ref.bench.rotation import OnDevice
from amos_ref.bench.workloads import Workload
from amos_ref.conformance.ports.failures import first_line


def _without(package: str, sees_gpu: Callable[[], bool]) -> str | None:
    """Say that a package, as it is installed, finds no GPU."""
    try:
        return None if sees_gpu() else f"not installed for a GPU: this {package} finds none"
    except Exception as error:  # of somebody else's code, while it is imported
        return f"not installed as it should be: {first_line(error)}"


@functools.cache
def _stream() -> Any:
    """Return a stream of torch's, from here on the current one: the default one cannot be recorded."""
    import torch

    stream = torch.cuda.Stream()
    torch.cuda.set_stream(stream)
    return stream


class _Torch(OnDevice, peers._Torch):
    """Called each time, as most who use torch do."""

    def __init__(self, work: Workload) -> None:
        self.stream = _stream().cuda_stream
        super().__init__(work)

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or _without("torch", _torch_sees_gpu)

    def _tensor(self, a: np.ndarray, torch: Any) -> Any:
        return super()._tensor(a, torch).cuda()

    def launch(self) -> None:
        self.optimizer.step()


def _torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


class _Replayed(_Torch):
    """A step is recorded once and then replayed; it counts steps on the device."""

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a capturable optimizer is stepped without being captured
            self.optimizer.step()  # which makes the state
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=_stream(), capture_error_mode="thread_local"):
            self.optimizer.step()

    def launch(self) -> None:
        self.graph.replay()


class TorchFused(_Replayed, peers.TorchFused):
    about = "torch.optim.AdamW(fused=True, capturable=True), a replay of a recorded step"
    options: ClassVar = {"fused": True, "capturable": True}


class TorchForeach(_Replayed, peers.TorchForeach):
    about = "torch.optim.AdamW(foreach=True, capturable=True), a replay of a recorded step"
    options: ClassVar = {"foreach": True, "capturable": True}
    kept, extra = 5, 1  # a graph keeps the memory of what its step makes, here a root of v


class TorchEager(_Torch, peers.TorchFused):
    about = "torch.optim.AdamW(fused=True), its step called each time"


class PytorchOptimizer(_Torch, peers.PytorchOptimizer):
    # It takes 1 - beta^t from the host, so a replay would repeat the numbers of one step.
    about = "pytorch_optimizer.Amos(foreach=True), its step called each time: a replay would repeat one step's numbers"
    options: ClassVar = {"foreach": True}


class _Jax(peers._Jax, OnDevice):
    """Timed by the host, which waits for a step before and for the last: JAX shows no stream."""

    fewest = 5

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or _without("jax", _jax_sees_gpu)

    def again(self) -> Self:
        """Return one more copy, with the same compiled step."""
        other = copy.copy(self)
        other.fill()
        return other

    def now(self) -> float:
        self.wait()
        return time.perf_counter()

    def since(self, start: float) -> float:
        return self.now() - start


def _jax_sees_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


class Jestimator(_Jax, peers.Jestimator):
    about = "the authors' amos under jax.jit, buffers donated; the host's clock over several steps"


class OptaxAdamW(_Jax, peers.OptaxAdamW):
    about = "optax.adamw under jax.jit, buffers donated; the host's clock over several steps"
