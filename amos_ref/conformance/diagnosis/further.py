"""Further inputs: what a port does where the search for a name did not look."""

import functools
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import Case, draw, round_case
from amos_ref.conformance.judging.drive import Failure, Observation, observe, unsupported
from amos_ref.conformance.ports.port import Port

UNSEEN = 1000  # the seed of the first input that confirms a name; smaller ones tell candidates apart
LARGEST_HALF = float(np.finfo(np.float16).max)
TRIED_FOR_EACH = 4  # inputs that are tried for each one that is wanted: a port may refuse some


class Subject(NamedTuple):
    """The port, and how it is run on further inputs."""

    port: Port
    eta: Any
    timeout: float | None

    def observe(self, case: Any) -> Observation | None:
        """Return what the port does with a case; None if it cannot be run through it."""
        if unsupported(self.port, case):
            return None
        try:
            return observe(self.port, case, self.eta, self.timeout)
        except Failure:
            return None

    def observe_further(self, algorithm: str, seed: int, dtype: str) -> Observation | None:
        """Return what the port does with the input that is drawn with this seed, in this dtype."""
        case = _further(algorithm, seed, frozenset(self.port.options), dtype)
        return self.observe(case) if _holds_squares(case) else None


@functools.lru_cache(maxsize=256)
def _further(algorithm: str, seed: int, options: frozenset[str], dtype: str) -> Case:
    """Return the same object for every port, so that the page's answer is known."""
    return round_case(ALGORITHMS[algorithm].load("cases").random_case(seed, options), dtype)


def _holds_squares(case: Case) -> bool:
    """Whether a right port has no infinity in float16: it may sum the squares of a gradient before it divides."""
    if case.dtype != "float16":
        return True
    sums = (float(np.add.reduce(np.square(g), None)) for given in case.grads for g in given.values() if g is not None)
    return max(sums, default=0.0) <= LARGEST_HALF


@functools.cache
def _near(size: float, dtype: str) -> Case:
    """Return a case of paper Amos without epsilon; its gradients grow from an eighth of a size to its eightfold."""
    least = 2.0 ** round(np.log2(size / 8))
    case = draw(f"near-{size:.0e}", "gradients near epsilon", steps=7, scale=lambda t: least * 2.0 ** (t - 1))
    return round_case(case, dtype)


class Confirming:
    """The inputs on which a name must hold; the port is run on as many as were ever asked for."""

    def __init__(self, subject: Subject) -> None:
        self._subject, self._tried = subject, 0
        self._seen: list[Observation] = []
        self._near: dict[float, list[Observation]] = {}

    def near(self, value: float, algorithm: str, dtype: str) -> list[Observation]:
        """Return what the port does where v, and where its root, is around a value that epsilon may have by default."""
        if value not in self._near:
            cases = [_near(size, dtype) for size in (value**0.5, value)] if algorithm == "paper" else []
            self._near[value] = [one for case in cases if (one := self._subject.observe(case)) is not None]
        return self._near[value]

    def first(self, count: int, algorithm: str, dtype: str) -> list[Observation]:
        """Return the first ones, as many, or fewer if the port could not be run on enough of them."""
        while len(self._seen) < count and self._tried < TRIED_FOR_EACH * count:
            one = self._subject.observe_further(algorithm, UNSEEN + self._tried, dtype)
            self._tried += 1
            self._seen += [] if one is None else [one]
        return self._seen[:count]
