"""Optimizers under torch, as fast as their packages run them on a CPU or a GPU."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from amos_ref.bench.contenders import (
    ADAMW,
    BETA,
    ETA,
    HALF_LIFE,
    RATE,
    Contender,
    count_arrays,
    find_no_gpu,
    limit_state,
)
from amos_ref.bench.timing import Stepper, StreamClock
from amos_ref.bench.workloads import MOMENTUM, Workload, draw_arrays, slot_shape

_TORCH = {"torch": "torch==2.13.0"}
SPIN = 0.012  # seconds; torch's threads wait for more work by spinning, for about 10 ms where GNU's OpenMP runs them

MakeOptimizer = Callable[..., Any]  # called with torch's parameters, the workload and options


class TorchStepper(Stepper):
    """An optimizer of tensors, which `make` makes with options; each step is called."""

    stream: Any
    params: dict[str, Any]
    optimizer: Any
    step: Callable[..., Any]

    def __init__(self, work: Workload, make: MakeOptimizer, on_gpu: bool = False, **options: bool) -> None:
        import torch

        if work.threads:
            torch.set_num_threads(work.threads)
        if on_gpu:
            self.stream = _stream().cuda_stream
        params, grads = draw_arrays(work)
        self.params = {name: _as_tensor(a, on_gpu).requires_grad_() for name, a in params.items()}
        for name, p in self.params.items():
            p.grad = _as_tensor(grads[name], on_gpu)
        self.optimizer = make(list(self.params.values()), work, **options)  # whose state a replay needs too
        self.step = self.optimizer.step

    def launch(self) -> None:
        self.step()


def _replay(work: Workload, make: MakeOptimizer, **options: bool) -> TorchStepper:
    """Return a stepper on a GPU whose step is recorded once and then replayed; its optimizer counts on the device."""
    import torch

    stepper = TorchStepper(work, make, on_gpu=True, capturable=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a capturable optimizer is stepped without being captured
        stepper.optimizer.step()  # which makes the state
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_stream(), capture_error_mode="thread_local"):
        stepper.optimizer.step()
    stepper.step = graph.replay
    return stepper


@functools.cache
def _stream() -> Any:
    """Return a stream of torch's, and make it the current one: the default stream cannot be recorded."""
    import torch

    stream = torch.cuda.Stream()
    torch.cuda.set_stream(stream)
    return stream


def _as_tensor(a: np.ndarray, on_gpu: bool) -> Any:
    import torch

    bits = {"bfloat16": np.int16}  # torch does not know NumPy's bfloat16
    tensor = torch.from_numpy(a.view(bits.get(a.dtype.name, a.dtype))).view(getattr(torch, a.dtype.name))
    return tensor.cuda() if on_gpu else tensor


def _make_adamw(params: list[Any], work: Workload, **options: bool) -> Any:
    import torch

    return torch.optim.AdamW(params, lr=RATE, **options)


def _make_amos(params: list[Any], work: Workload, **options: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import pytorch_optimizer

    momentum = MOMENTUM if work.momentum else 0.0
    return pytorch_optimizer.Amos(params, lr=RATE, beta=BETA, momentum=momentum, **options)


def _make_port(params: list[Any], work: Workload, **options: Any) -> Any:
    """Return the port of this package, of the workload's algorithm."""
    from amos_ref.ports.torch import Amos, ClosedFormAmos

    options |= {"slot_shape": lambda name, shape: slot_shape(work.slot, shape), "state_dtype": work.state}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a state in half precision underflows
        if work.direction is not None:
            return ClosedFormAmos(params, RATE, half_life=HALF_LIFE, sigma=ETA, direction=work.direction, **options)
        return Amos(params, RATE, ETA, beta=BETA, momentum=MOMENTUM if work.momentum else None, **options)


def _limit_amos(work: Workload, most_compiled: int) -> str | None:
    return limit_state(work, most_compiled) or ("has tensor slots only" if work.slot != "tensor" else None)


def _sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


FUSED = Contender(
    "torch.optim.AdamW(fused=True)",
    lambda work: TorchStepper(work, _make_adamw, fused=True),
    packages=_TORCH,
    find_limit=limit_state,
    pause=SPIN,
    **ADAMW,
)
FOREACH = replace(
    FUSED,
    about="torch.optim.AdamW(foreach=True)",
    build=lambda work: TorchStepper(work, _make_adamw, foreach=True),
    extra_arrays=2,
)
AMOS = Contender(
    "pytorch_optimizer.Amos",
    lambda work: TorchStepper(work, _make_amos),
    packages={**_TORCH, "pytorch_optimizer": "pytorch_optimizer==4.1.0"},
    find_limit=_limit_amos,
    pause=SPIN,
    extra_arrays=4,
)

TORCH_PORT = Contender(
    "this package's port to torch, amos_ref.ports.torch",
    lambda work: TorchStepper(work, _make_port),
    packages=_TORCH,
    pause=SPIN,
)

_ON_GPU: dict[str, Any] = {"clock": StreamClock(), "find_no_gpu": lambda: find_no_gpu("torch", _sees_gpu)}
GPU_FUSED = replace(
    FUSED,
    about="torch.optim.AdamW(fused=True, capturable=True), a replay of a recorded step",
    build=lambda work: _replay(work, _make_adamw, fused=True),
    **_ON_GPU,
)
GPU_FOREACH = replace(
    FOREACH,
    about="torch.optim.AdamW(foreach=True, capturable=True), a replay of a recorded step",
    build=lambda work: _replay(work, _make_adamw, foreach=True),
    count_array_bytes=count_arrays(5),  # a graph keeps the memory of what its step makes, here a root of v
    extra_arrays=1,
    **_ON_GPU,
)
GPU_EAGER = replace(
    FUSED,
    about="torch.optim.AdamW(fused=True), its step called each time",
    build=lambda work: TorchStepper(work, _make_adamw, on_gpu=True, fused=True),
    **_ON_GPU,
)
GPU_AMOS = replace(
    AMOS,
    # It takes 1 - beta^t from the host, so a replay would repeat the numbers of one step.
    about="pytorch_optimizer.Amos(foreach=True), its step called each time: a replay would repeat one step's numbers",
    build=lambda work: TorchStepper(work, _make_amos, on_gpu=True, foreach=True),
    **_ON_GPU,
)
