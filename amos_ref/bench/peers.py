"""Other people's optimizers, as fast as their packages run them on a CPU."""

import contextlib
import functools
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from amos_ref.bench.contenders import BETA, ETA, RATE, Contender, refuse_other_state
from amos_ref.bench.timing import Stepper
from amos_ref.bench.workloads import MOMENTUM, Workload, count_cores, draw_arrays, slot_shape

_TORCH = {"torch": "torch==2.13.0"}
_JAX = {"jax": "jax", "optax": "optax"}
SPIN = 0.012  # seconds; torch's threads wait for more work by spinning, for about 10 ms where GNU's OpenMP runs them


def count_arrays(count: int) -> Callable[[Workload], int]:
    """Return a function that tells the bytes of so many arrays of the parameters' size."""
    return lambda work: count * work.parameters * work.itemsize


# AdamW holds g, theta, m and v; a step reads g, and reads and writes the others.
_ADAMW: dict[str, Any] = {"moved": count_arrays(7), "held": count_arrays(4)}


# torch

MakeOptimizer = Callable[..., Any]  # called with torch's parameters, the workload and options


class TorchStepper(Stepper):
    """An optimizer that `make` makes, with options, of tensors that `place` puts on their device."""

    def __init__(
        self,
        work: Workload,
        make: MakeOptimizer,
        place: Callable[[Any], Any] = lambda tensor: tensor,
        **options: bool,
    ) -> None:
        import torch

        if work.threads:
            torch.set_num_threads(work.threads)
        params, grads = draw_arrays(work)
        self.params = {name: place(_as_tensor(a)).requires_grad_() for name, a in params.items()}
        for name, p in self.params.items():
            p.grad = place(_as_tensor(grads[name]))
        self.optimizer = make(list(self.params.values()), work, **options)

    def launch(self) -> None:
        self.optimizer.step()

    def read_values(self) -> dict[str, np.ndarray]:
        import torch

        return {name: p.detach().to(torch.float64).cpu().numpy() for name, p in self.params.items()}


def _as_tensor(a: np.ndarray) -> Any:
    import torch

    bits = {"bfloat16": np.int16}  # torch does not know NumPy's bfloat16
    return torch.from_numpy(a.view(bits.get(a.dtype.name, a.dtype))).view(getattr(torch, a.dtype.name))


def make_adamw(params: list[Any], work: Workload, **options: bool) -> Any:
    """Return torch's AdamW."""
    import torch

    return torch.optim.AdamW(params, lr=RATE, **options)


def make_amos(params: list[Any], work: Workload, **options: bool) -> Any:
    """Return pytorch_optimizer's Amos."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import pytorch_optimizer

    momentum = MOMENTUM if work.momentum else 0.0
    return pytorch_optimizer.Amos(params, lr=RATE, beta=BETA, momentum=momentum, **options)


def _refuse_slots(work: Workload, most_compiled: int) -> str | None:
    return "has tensor slots only" if work.slot != "tensor" else None


TORCH_FUSED = Contender(
    "torch.optim.AdamW(fused=True)",
    lambda work: TorchStepper(work, make_adamw, fused=True),
    packages=_TORCH,
    limits=(refuse_other_state,),
    pause=SPIN,
    **_ADAMW,
)
TORCH_FOREACH = Contender(
    "torch.optim.AdamW(foreach=True)",
    lambda work: TorchStepper(work, make_adamw, foreach=True),
    packages=_TORCH,
    limits=(refuse_other_state,),
    extra=2,
    pause=SPIN,
    **_ADAMW,
)
PYTORCH_OPTIMIZER = Contender(
    "pytorch_optimizer.Amos",
    lambda work: TorchStepper(work, make_amos),
    packages={**_TORCH, "pytorch_optimizer": "pytorch_optimizer==4.1.0"},
    limits=(refuse_other_state, _refuse_slots),
    extra=4,
    pause=SPIN,
)


# JAX


class Program(NamedTuple):
    """An optimizer of JAX, compiled."""

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]


@functools.lru_cache(1)  # so that the copies of a contender share one program
def _compile(make: Callable[[Workload], Any], work: Workload) -> Program:
    import jax
    import optax

    transform = make(work)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    # Donated buffers are overwritten, as a step in place overwrites them.
    return Program(transform.init, jax.jit(step, donate_argnums=(0, 1)))


class JaxStepper(Stepper):
    """An optimizer of optax's form under jax.jit; `make` makes it from a workload."""

    def __init__(self, work: Workload, make: Callable[[Workload], Any]) -> None:
        import jax

        self.jax, self.program, jnp = jax, _compile(make, work), jax.numpy
        self._precision = functools.partial(jax.enable_x64, True) if work.dtype == "float64" else contextlib.nullcontext
        with self._precision():
            self.params, self.grads = jax.tree.map(jnp.asarray, draw_arrays(work))
            # By way of NumPy, which has no weak types: those would be compiled once, and what is returned once more.
            self.state = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), self.program.init(self.params))

    def launch(self) -> None:
        with self._precision():
            self.params, self.state = self.program.step(self.params, self.state, self.grads)

    def wait(self) -> None:
        self.jax.block_until_ready(self.params)

    def read_values(self) -> dict[str, np.ndarray]:
        return {name: np.array(a, np.float64) for name, a in self.params.items()}


def _make_optax(work: Workload) -> Any:
    import optax

    return optax.adamw(RATE)


def _make_jestimator(work: Workload) -> Any:
    # Its package does not import on today's JAX; its amos.py alone does.
    from amos_ref.conformance.ports.target import find_target

    files = importlib.metadata.files("jestimator") or []
    path = next(file for file in files if str(file) == "jestimator/amos.py").locate()
    momentum = MOMENTUM if work.momentum else None
    slots = {"shape_fn": lambda name, shape: slot_shape(work.slot, shape)}
    return find_target(f"{path}:amos")(RATE, lambda name, shape: ETA, beta=BETA, momentum=momentum, **slots)


def _refuse_threads(work: Workload, most_compiled: int) -> str | None:
    if work.threads not in (0, count_cores()):
        return f"the threads of XLA cannot be limited to {work.threads} within a process"
    return None


def _refuse_many_arrays(work: Workload, most_compiled: int) -> str | None:
    if len(work.shapes) > most_compiled:
        return f"XLA compiles {len(work.shapes)} arrays for too long for this run"
    return None


# The authors' first step in half precision turns b into float32, for which the second is compiled anew.
_JAX_COMMON: dict[str, Any] = {
    "limits": (_refuse_threads, _refuse_many_arrays, refuse_other_state),
    "extra": 2,
    "warm_up": 2,
}

JESTIMATOR = Contender(
    "the authors' amos under jax.jit, buffers donated",
    lambda work: JaxStepper(work, _make_jestimator),
    packages={**_JAX, "flax": "flax", "jestimator": "--no-deps jestimator==0.3.3"},
    **_JAX_COMMON,
)
OPTAX = Contender(
    "optax.adamw under jax.jit, buffers donated",
    lambda work: JaxStepper(work, _make_optax),
    packages=_JAX,
    **_JAX_COMMON,
    **_ADAMW,
)
