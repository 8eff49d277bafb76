"""This package on the host: its compiled kernels, and the pages in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

import amos_ref
from amos_ref.bench.contenders import BETA, ETA, HALF_LIFE, RATE, Contender
from amos_ref.bench.timing import Stepper
from amos_ref.bench.workloads import MOMENTUM, Shape, Workload, draw_arrays, slot_shape

MOST_OF_PAGE = 1_000_000  # parameters
LATER = 1_000  # steps before those that are timed: there, as in most of a run, 1 - 0.9^n is 1 at four of five steps
MOST_BOUND = 100_000  # from there on what a bound step saves is no part of its time


def make_optimizer(work: Workload, backend: str) -> Any:
    """Return paper Amos, or the closed form where the workload names a direction."""

    def slot(name: str, shape: Shape) -> Shape:
        return slot_shape(work.slot, shape)

    if work.direction is not None:
        options: dict[str, Any] = dict(slot_shape=slot, direction=work.direction, backend=backend)
        return amos_ref.ClosedFormAmos(RATE, half_life=HALF_LIFE, sigma=ETA, **options)
    momentum = MOMENTUM if work.momentum else None
    return amos_ref.Amos(RATE, ETA, slot, beta=BETA, momentum=momentum, state_dtype=work.state, backend=backend)


class AmosStepper(Stepper):
    """The workload's algorithm with a backend, after `count` steps.

    `place` puts arrays by name where the backend steps them.
    """

    params: Any
    grads: Any
    opt: Any
    state: Any

    def __init__(
        self, work: Workload, backend: str, place: Callable[[dict[str, np.ndarray]], Any] = dict, count: int = 0
    ) -> None:
        self.params, self.grads = map(place, draw_arrays(work))
        self.opt = make_optimizer(work, backend)
        state = self.opt.init(self.params)
        self.state = state._replace(count=count) if count else state

    def launch(self) -> None:
        self.state = self.opt.step(self.params, self.grads, self.state)


class BoundStepper(AmosStepper):
    """The same, bound to its arrays (:meth:`amos_ref.Amos.bind`)."""

    def __init__(self, work: Workload, backend: str, count: int = 0) -> None:
        super().__init__(work, backend, count=count)
        self.bound = self.opt.bind(self.params, self.grads, self.state)

    def launch(self) -> None:
        self.bound()


def _find_bound_limit(work: Workload, most_compiled: int) -> str | None:
    if work.parameters > MOST_BOUND:
        return f"takes the time of a step that is not bound; measured up to {MOST_BOUND} parameters"
    return None


def _find_limit(work: Workload, most_compiled: int) -> str | None:
    if work.parameters > MOST_OF_PAGE:
        return f"written to be read; measured up to {MOST_OF_PAGE} parameters"
    return None


CPU_KERNELS = Contender(
    "a step of this package, the CPU kernels", lambda work: AmosStepper(work, "cpu", count=LATER), traced=True
)
BOUND = Contender(
    "a step of this package that is bound to its arrays, the CPU kernels",
    lambda work: BoundStepper(work, "cpu", LATER),
    find_limit=_find_bound_limit,
    traced=True,
)
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
