"""A port made of a reading and an evaluation: what the judge is measured with."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from amos_ref.conformance.algorithms import algorithm_of
from amos_ref.conformance.diagnosis.catalogue import deviation
from amos_ref.conformance.judging.evaluation import draw
from amos_ref.conformance.judging.reading import Step
from amos_ref.conformance.ports.port import Arrays

LONGEST = 64  # steps of a run with one learning rate


class SimulatedPort:
    """The page with some deviations, evaluated otherwise than the page.

    Parameters
    ----------
    deviations : names of deviations
    seed : int
        Of the evaluation; see :func:`amos_ref.conformance.judging.evaluation.draw`.
    shows : collection of str
        Which parts of its state the port lets one see; all of them without it.
    dtypes : collection of str
    algorithm : {"paper", "closed-form"}
    """

    skips_none = True

    def __init__(
        self,
        *deviations: str,
        seed: int = 1,
        shows: tuple[str, ...] | None = None,
        dtypes: tuple[str, ...] = ("float64", "float32", "float16", "bfloat16"),
        algorithm: str = "paper",
    ) -> None:
        self.name = f"page with {' and '.join(deviations) or 'nothing changed'}"
        self.algorithm = algorithm_of(algorithm)
        self.options = set(self.algorithm.options)
        self.overrides = [deviation(name, algorithm).overrides for name in deviations]
        self.seed, self.dtypes = seed, dtypes
        self.shows = tuple(self.algorithm.parts) if shows is None else shows

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Start a run that is fed step by step."""
        dtype = next(iter(params.values())).dtype.name
        rate, scale = self.algorithm.rate, self.algorithm.scale
        rates, measured = hyper[rate], hyper[scale] == self.algorithm.measured
        self.case = SimpleNamespace(
            params={name: a.astype(np.float64) for name, a in params.items()},
            grads=self._fed(),
            options={name: x for name, x in hyper.items() if name not in ("slot_shape", "" if measured else scale)},
            algorithm=self.algorithm.name,
            slots=hyper["slot_shape"],
            learning_rates=lambda: rates if isinstance(rates, list) else [rates] * LONGEST,
            inject=None,
            events={},
            count=None,
            groups=hyper.get("groups", {}),
        )
        self.t = 0
        self.reading = draw(dtype, self.seed, self.algorithm.name).reading(self.overrides)
        self.steps = self.reading.run(self.case, {} if measured else hyper[scale])  # type: ignore[arg-type]
        self.now: dict[str, Step] = {}

    def _fed(self) -> Iterator[dict[str, np.ndarray | None]]:
        while True:
            yield self.given

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Take one step."""
        self.given = {name: None if g is None else g.astype(np.float64) for name, g in grads.items()}
        self.now = next(self.steps)
        self.t += 1
        return {name: self._stored("theta", name) if name in self.now else a for name, a in self.case.params.items()}

    def put(self, values: dict[str, Arrays]) -> None:
        """Overwrite parameters and state."""
        self.case.inject = values

    def put_count(self, n: int) -> None:
        """Set the count of steps."""
        self.case.count = n

    def undergo(self, event: str) -> None:
        """Undergo whatever there is: nothing comes of it but what a deviation makes of it."""
        self.case.events[self.t] = event

    def state(self) -> dict[str, Arrays]:
        """Return the state, as far as it is shown."""
        held = {what: {name: self._stored(what, name) for name in self.now} for what in self.shows}
        return {what: arrays for what, arrays in held.items() if all(a is not None for a in arrays.values())}

    def _stored(self, what: str, name: str) -> Any:
        a = self.reading.store(what, getattr(self.now[name], what))
        return None if a is None else np.asarray(a)

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """It is given its eta."""
        return None
