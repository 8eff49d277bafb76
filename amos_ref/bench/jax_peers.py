"""Optimizers under jax.jit, as fast as their packages run them on a CPU or a GPU."""

import contextlib
import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from amos_ref.bench.contenders import ADAMW, BETA, ETA, HALF_LIFE, RATE, Contender, find_no_gpu, limit_state
from amos_ref.bench.timing import HostClock, Stepper
from amos_ref.bench.workloads import MOMENTUM, Workload, count_cores, draw_arrays, slot_shape

_JAX = {"jax": "jax", "optax": "optax"}


@functools.lru_cache(1)  # so that the copies of a contender share one program
def _compile(make: Callable[[Workload], Any], work: Workload) -> tuple[Callable[..., Any], Any]:
    """Return the function that makes the state, and the compiled step."""
    import jax
    import optax

    transform = make(work)

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    # Donated buffers are overwritten, as a step in place overwrites them.
    return transform.init, jax.jit(step, donate_argnums=(0, 1))


class JaxStepper(Stepper):
    """An optimizer of optax's form, which `make` makes for a workload."""

    jax: Any
    step: Callable[..., Any]
    params: Any
    grads: Any
    state: Any

    def __init__(self, work: Workload, make: Callable[[Workload], Any]) -> None:
        import jax

        self.jax, jnp = jax, jax.numpy
        init, self.step = _compile(make, work)
        self._precision = functools.partial(jax.enable_x64, True) if work.dtype == "float64" else contextlib.nullcontext
        with self._precision():
            self.params, self.grads = jax.tree.map(jnp.asarray, draw_arrays(work))
            # By way of NumPy, which has no weak types: those would be compiled once, and what is returned once more.
            self.state = jax.tree.map(lambda a: jnp.asarray(np.asarray(a)), init(self.params))

    def launch(self) -> None:
        with self._precision():
            self.params, self.state = self.step(self.params, self.state, self.grads)

    def wait(self) -> None:
        self.jax.block_until_ready(self.params)


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


def _make_port(work: Workload) -> Any:
    from amos_ref.ports.optax import amos, closed_form_amos

    slots: dict[str, Any] = {"slot_shape": lambda name, shape: slot_shape(work.slot, shape)}
    if work.direction is not None:
        return closed_form_amos(RATE, half_life=HALF_LIFE, sigma=ETA, direction=work.direction, **slots)
    return amos(RATE, ETA, beta=BETA, momentum=MOMENTUM if work.momentum else None, **slots)


def _limit_jax(work: Workload, most_compiled: int) -> str | None:
    if work.threads not in (0, count_cores()):
        return f"the threads of XLA cannot be limited to {work.threads} within a process"
    if len(work.shapes) > most_compiled:
        return f"XLA compiles {len(work.shapes)} arrays for too long for this run"
    return limit_state(work, most_compiled)


def _limit_port(work: Workload, most_compiled: int) -> str | None:
    full = work.direction == "adam" or work.momentum or work.slot == "element"  # whether the state has full arrays
    state = "float64" if work.direction is not None else work.dtype  # in which their bytes are counted
    if full and state != {"float64": "float64"}.get(work.dtype, "float32"):
        return "keeps its state in float32, or in float64 for float64 parameters"
    return _limit_jax(work, most_compiled)


def _sees_gpu() -> bool:
    import jax

    return jax.default_backend() == "gpu"


JESTIMATOR = Contender(
    "the authors' amos under jax.jit, buffers donated",
    lambda work: JaxStepper(work, _make_jestimator),
    packages={**_JAX, "flax": "flax", "jestimator": "--no-deps jestimator==0.3.3"},
    find_limit=_limit_jax,
    extra_arrays=2,
    warm_up=2,  # the authors' first step in half precision turns b into float32, for which the second is compiled anew
)
OPTAX = replace(
    JESTIMATOR,
    about="optax.adamw under jax.jit, buffers donated",
    build=lambda work: JaxStepper(work, _make_optax),
    packages=_JAX,
    **ADAMW,
)
OPTAX_PORT = replace(
    JESTIMATOR,
    about="amos_ref.ports.optax under jax.jit, buffers donated",
    build=lambda work: JaxStepper(work, _make_port),
    packages=_JAX,
    find_limit=_limit_port,
    warm_up=1,
)
# JAX shows no stream, so the host's clock has to tell the time.
GPU_JESTIMATOR, GPU_OPTAX, GPU_OPTAX_PORT = (
    replace(
        contender,
        about=f"{contender.about}; the host's clock over several steps",
        clock=HostClock(),
        find_no_gpu=lambda: find_no_gpu("jax", _sees_gpu),
    )
    for contender in (JESTIMATOR, OPTAX, OPTAX_PORT)
)
