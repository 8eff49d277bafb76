"""Other people's optimizers, as fast as their packages run them on a CPU."""

import contextlib
import importlib.metadata
import warnings
from typing import Any, ClassVar

import numpy as np

from amos_ref.bench.contenders import BETA, ETA, RATE, Contender
from amos_ref.bench.workloads import MOMENTUM, Workload, cores, drawn, slot_shape

TORCH = {"torch": "torch==2.13.0"}
JAX = {"jax": "jax", "optax": "optax"}
SPIN = 0.012  # seconds; torch's threads wait for more work by spinning, for about 10 ms where GNU's OpenMP runs them


class _AdamW(Contender):
    """AdamW moves more: g, and theta, m and v twice."""

    kept = 4

    @classmethod
    def bytes(cls, work: Workload) -> int:
        return 7 * work.parameters * work.itemsize

    @classmethod
    def held(cls, work: Workload) -> int:
        return cls.kept * work.parameters * work.itemsize


class _Torch(Contender):
    packages: ClassVar = TORCH
    bits: ClassVar = {"bfloat16": np.int16}  # NumPy's bfloat16 is unknown to torch
    options: ClassVar[dict[str, bool]] = {}

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        import torch

        if work.threads:
            torch.set_num_threads(work.threads)
        self.settles = SPIN if work.threads > 1 else 0.0
        params, grads = drawn(work)
        self.params = {name: self._tensor(a, torch).requires_grad_() for name, a in params.items()}
        for name, p in self.params.items():
            p.grad = self._tensor(grads[name], torch)
        self.optimizer = self.made(list(self.params.values()), torch)

    def made(self, params: list[Any], torch: Any) -> Any:
        raise NotImplementedError

    def _tensor(self, a: np.ndarray, torch: Any) -> Any:
        return torch.from_numpy(a.view(self.bits.get(a.dtype.name, a.dtype))).view(getattr(torch, a.dtype.name))

    def run(self) -> None:
        self.optimizer.step()

    def values(self) -> dict[str, np.ndarray]:
        import torch

        return {name: p.detach().to(torch.float64).cpu().numpy() for name, p in self.params.items()}


class _TorchAdamW(_Torch, _AdamW):
    def made(self, params: list[Any], torch: Any) -> Any:
        return torch.optim.AdamW(params, lr=RATE, **self.options)


class TorchFused(_TorchAdamW):
    about = "torch.optim.AdamW(fused=True)"
    options: ClassVar = {"fused": True}


class TorchForeach(_TorchAdamW):
    about = "torch.optim.AdamW(foreach=True)"
    options: ClassVar = {"foreach": True}
    extra = 2


class PytorchOptimizer(_Torch):
    about = "pytorch_optimizer.Amos"
    packages: ClassVar = {**TORCH, "pytorch_optimizer": "pytorch_optimizer==4.1.0"}
    extra = 4

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        return super().unable(work, most_compiled) or ("has tensor slots only" if work.slot != "tensor" else None)

    def made(self, params: list[Any], torch: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports
            import pytorch_optimizer

        momentum = MOMENTUM if self.work.momentum else 0.0
        return pytorch_optimizer.Amos(params, lr=RATE, beta=BETA, momentum=momentum, **self.options)


class _Jax(Contender):
    packages: ClassVar = JAX
    extra = 2

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        import jax
        import optax

        self.jax, transform = jax, self.made()

        def step(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transform.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        # Donated buffers are overwritten, as a step in place overwrites them.
        self.step, self.init = jax.jit(step, donate_argnums=(0, 1)), transform.init
        self.fill()

    def fill(self) -> None:
        """Make the arrays."""
        jnp = self.jax.numpy
        with self._precision():
            self.params, self.grads = self.jax.tree.map(jnp.asarray, drawn(self.work))
            # By way of NumPy, which has no weak types: those would be compiled once, and what is returned once more.
            self.state = self.jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), self.init(self.params))

    def made(self) -> Any:
        raise NotImplementedError

    def warm_up(self) -> None:
        # The authors' first step in half precision turns b into float32, for which the second is compiled anew.
        self.run()
        self.run()

    def _precision(self) -> Any:
        return self.jax.enable_x64(True) if self.work.dtype == "float64" else contextlib.nullcontext()

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        if work.threads not in (0, cores()):
            return f"the threads of XLA cannot be limited to {work.threads} within a process"
        if len(work.shapes) > most_compiled:
            return f"XLA compiles {len(work.shapes)} arrays for too long for this run"
        return super().unable(work, most_compiled)

    def launch(self) -> None:
        """Begin a step."""
        with self._precision():
            self.params, self.state = self.step(self.params, self.state, self.grads)

    def wait(self) -> None:
        """Wait until the last step is done."""
        self.jax.block_until_ready(self.params)

    def run(self) -> None:
        self.launch()
        self.wait()

    def values(self) -> dict[str, np.ndarray]:
        return {name: np.array(a, np.float64) for name, a in self.params.items()}


class OptaxAdamW(_Jax, _AdamW):
    about = "optax.adamw under jax.jit, buffers donated"

    def made(self) -> Any:
        import optax

        return optax.adamw(RATE)


class Jestimator(_Jax):
    about = "the authors' amos under jax.jit, buffers donated"
    packages: ClassVar = {**JAX, "flax": "flax", "jestimator": "--no-deps jestimator==0.3.3"}

    def made(self) -> Any:
        # Its package does not import on today's JAX; its amos.py alone does.
        from amos_ref.conformance.ports.target import find_target

        files = importlib.metadata.files("jestimator") or []
        path = next(file for file in files if str(file) == "jestimator/amos.py").locate()
        momentum = MOMENTUM if self.work.momentum else None
        slots = {"shape_fn": lambda name, shape: slot_shape(self.work.slot, shape)}
        return find_target(f"{path}:amos")(RATE, lambda name, shape: ETA, beta=BETA, momentum=momentum, **slots)
