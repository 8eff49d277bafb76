"""What a port that was to be the closed form does instead."""

from collections.abc import Callable, Sequence
from typing import Any

from amos_ref.conformance.diagnosis.diagnose import Diagnosis
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.ports.port import Port


def diagnose(
    port: Port,
    seen: Sequence[Observation],
    eta: Any = None,
    timeout: float | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> Diagnosis | None:
    """Return None: as yet no name is known for it."""
    return None
