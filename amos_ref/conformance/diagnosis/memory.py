"""Whether a port keeps something from one run to the next: then no reading of a case explains what it does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.diagnosis.diagnose import Diagnosis
from amos_ref.conformance.judging.drive import Failure, Observation, observe
from amos_ref.conformance.judging.judge import compare
from amos_ref.conformance.ports.port import Port

NAME = "kept-from-run-to-run"


def find_memory(port: Port, seen: Sequence[Observation], eta: Any, timeout: float | None) -> Diagnosis | None:
    """Run the first case again, and once more, since leaves of the case before may be others; say so if answers change.

    Parameters
    ----------
    port : Port
    seen : sequence of Observation
        What it did with each case, in the order in which they were run.
    eta, timeout : optional
        As for :func:`amos_ref.conformance.judging.drive.observe`.
    """
    if not seen:
        return None
    first = seen[0].case
    try:
        _, now = (observe(port, first, eta, timeout) for _ in range(2))
    except Failure:
        return None
    conformed, conforms = (compare(one).verdict == "conforms" for one in (seen[0], now))
    if conformed == conforms and not _differ(seen[0], now):
        return None
    text = (
        f"{NAME}: the same case gives other answers in another run: case {first.name} in {first.dtype} was run first, "
        "and again after others. The port keeps something from run to run in its module or class, as a dict by shape "
        "or a count, or it draws random numbers. In training: a second model starts from the first one's state, or no "
        "run can be repeated. Other departures are named when that is mended."
    )
    return Diagnosis(text, [NAME], [[NAME]], None, [])


def _differ(one: Observation, other: Observation) -> bool:
    """Whether some array differs by more than a thousandth, which no rounding does in float64 or float32."""
    pairs = [
        (a, after.get(what, {}).get(name))
        for before, after in zip(one.shown, other.shown, strict=False)
        for what, arrays in before.items()
        for name, a in arrays.items()
    ]
    return not all(b is not None and a.shape == b.shape and _near(a, b) for a, b in pairs)


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    size = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return np.allclose(a, b, rtol=0.0, atol=1e-3 * size, equal_nan=True)
