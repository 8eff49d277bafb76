"""This package on the host: its compiled kernels, and the pages in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

import amos_ref
from amos_ref.bench.contenders import BETA, ETA, HALF_LIFE, RATE, Contender
from amos_ref.bench.timing import Stepper
from amos_ref.bench.workloads import MOMENTUM, Workload, draw_arrays, slot_shape

MOST_OF_PAGE = 1_000_000  # parameters


class AmosStepper(Stepper):
    """The workload's algorithm with a backend; `place` puts arrays by name where the backend steps them."""

    def __init__(self, work: Workload, backend: str, place: Callable[[dict[str, np.ndarray]], Any] = dict) -> None:
        self.params, self.grads = map(place, draw_arrays(work))
        self.opt = _make_optimizer(work, backend)
        self.state = self.opt.init(self.params)

    def launch(self) -> None:
        self.state = self.opt.step(self.params, self.grads, self.state)


def _make_optimizer(work: Workload, backend: str) -> Any:
    def slots(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return slot_shape(work.slot, shape)

    if work.algorithm == "closed-form":
        options: dict[str, Any] = dict(direction=work.direction, slot_shape=slots, backend=backend)
        return amos_ref.ClosedFormAmos(RATE, half_life=HALF_LIFE, sigma=ETA, **options)
    momentum = MOMENTUM if work.momentum else None
    return amos_ref.Amos(RATE, ETA, slots, beta=BETA, momentum=momentum, state_dtype=work.state, backend=backend)


def _find_limit(work: Workload, most_compiled: int) -> str | None:
    if work.parameters > MOST_OF_PAGE:
        return f"written to be read; measured up to {MOST_OF_PAGE} parameters"
    return None


CPU_KERNELS = Contender("a step of this package, the CPU kernels", lambda work: AmosStepper(work, "cpu"), traced=True)
PAGE = Contender(
    "the page in NumPy, one thread",
    lambda work: AmosStepper(work, "numpy"),
    find_limit=_find_limit,
    extra_arrays=20,
    traced=True,
)
CPU_PAPER = Contender(
    "paper Amos with the same slots, the CPU kernels",
    lambda work: AmosStepper(work.as_paper(), "cpu"),
    count_moved_bytes=lambda work: work.as_paper().bytes,
    count_array_bytes=lambda work: work.as_paper().array_bytes,
    traced=True,
)
