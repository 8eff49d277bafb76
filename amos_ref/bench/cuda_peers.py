"""Other people's optimizers, as fast as their packages run them on a GPU."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from amos_ref.bench import peers
from amos_ref.bench.timing import HostClock, Stepper, StreamClock
from amos_ref.bench.workloads import Workload
from amos_ref.conformance.ports.port import first_line
from amos_ref.kernels.cuda import driver

# torch


@functools.cache
def _stream() -> Any:
    """Return a stream of torch's, and make it the current one: the default stream cannot be recorded."""
    import torch

    stream = torch.cuda.Stream()
    torch.cuda.set_stream(stream)
    return stream


class TorchOnDevice(Stepper):
    """Steps that torch launches in its stream: calls of an optimizer's step, or replays of a recorded one."""

    def __init__(self, work: Workload, make: peers.MakeOptimizer, *, replayed: bool, **options: bool) -> None:
        self.stream = _stream().cuda_stream
        self.called = peers.TorchStepper(work, make, lambda tensor: tensor.cuda(), **options)
        self.launch_once = _record(self.called.launch) if replayed else self.called.launch

    def launch(self) -> None:
        self.launch_once()

    def wait(self) -> None:
        driver.synchronize(self.stream)

    def read_values(self) -> dict[str, np.ndarray]:
        return self.called.read_values()


def _record(step: Callable[[], None]) -> Callable[[], None]:
    """Record a step of an optimizer that counts its steps on the device; return what replays it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a capturable optimizer is stepped without being captured
        step()  # which makes the state
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_stream(), capture_error_mode="thread_local"):
        step()
    return graph.replay


# which GPU they find


def _torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _jax_sees_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


def _find_no_gpu(package: str, sees_gpu: Callable[[], bool]) -> str | None:
    """Return that a package, as it is installed, finds no GPU; None if it finds one."""
    try:
        return None if sees_gpu() else f"not installed for a GPU: this {package} finds none"
    except Exception as error:  # of somebody else's code, while it is imported
        return f"not installed as it should be: {first_line(error)}"


_TORCH: dict[str, Any] = {"clock": StreamClock(), "find_no_gpu": lambda: _find_no_gpu("torch", _torch_sees_gpu)}
# JAX shows no stream, so the host waits for the step before the timed ones and for the last of them.
_JAX: dict[str, Any] = {"clock": HostClock(), "find_no_gpu": lambda: _find_no_gpu("jax", _jax_sees_gpu)}

TORCH_FUSED = replace(
    peers.TORCH_FUSED,
    about="torch.optim.AdamW(fused=True, capturable=True), a replay of a recorded step",
    build=lambda work: TorchOnDevice(work, peers.make_adamw, replayed=True, fused=True, capturable=True),
    **_TORCH,
)
TORCH_FOREACH = replace(
    peers.TORCH_FOREACH,
    about="torch.optim.AdamW(foreach=True, capturable=True), a replay of a recorded step",
    build=lambda work: TorchOnDevice(work, peers.make_adamw, replayed=True, foreach=True, capturable=True),
    held=peers.count_arrays(5),  # a graph keeps the memory of what its step makes, here a root of v
    extra=1,
    **_TORCH,
)
TORCH_EAGER = replace(
    peers.TORCH_FUSED,
    about="torch.optim.AdamW(fused=True), its step called each time",
    build=lambda work: TorchOnDevice(work, peers.make_adamw, replayed=False, fused=True),
    **_TORCH,
)
PYTORCH_OPTIMIZER = replace(
    peers.PYTORCH_OPTIMIZER,
    # It takes 1 - beta^t from the host, so a replay would repeat the numbers of one step.
    about="pytorch_optimizer.Amos(foreach=True), its step called each time: a replay would repeat one step's numbers",
    build=lambda work: TorchOnDevice(work, peers.make_amos, replayed=False, foreach=True),
    **_TORCH,
)
JESTIMATOR = replace(
    peers.JESTIMATOR,
    about="the authors' amos under jax.jit, buffers donated; the host's clock over several steps",
    **_JAX,
)
OPTAX = replace(
    peers.OPTAX, about="optax.adamw under jax.jit, buffers donated; the host's clock over several steps", **_JAX
)
