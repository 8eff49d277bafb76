"""Whether a port that is not the one algorithm is another one that the judge knows: it is run as that."""

from collections.abc import Callable
from typing import Any

from amos_ref.conformance.algorithms import ALGORITHMS, Algorithm
from amos_ref.conformance.diagnosis.diagnose import Diagnosis
from amos_ref.conformance.judging.drive import UNDECLARED_DTYPES, unsupported
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.ports.port import Port
from amos_ref.errors import AmosError

Make = Callable[[Algorithm], Port | None]


def with_kin(found: Diagnosis | None, algorithm: Algorithm, make: Make, timeout: float | None) -> Diagnosis | None:
    """Return a diagnosis that says as which other algorithm the port conforms, if it does; else what was `found`.

    Parameters
    ----------
    found : Diagnosis or None
        What is known of the port; where it has names, nothing more is looked for.
    algorithm : Algorithm
        What it was checked as.
    make : callable
        Returns the port as another algorithm; None if it cannot be one.
    timeout : float, optional
        Seconds that its init and each of its steps may take.
    """
    if found is not None and (found.candidates or found.life):
        return found
    for other in ALGORITHMS.values():
        if other is algorithm:
            continue
        known = [found.text] if found is not None and f" but {other.title}" in found.text.splitlines()[0] else []
        conforming = _count_conforming(other, make, timeout)
        if conforming:
            cases = f"all {conforming} cases of the formulas that it can be run through"
            known.append(f"this is {other.title}: as that, it conforms in {cases}.")
        if known:
            known.append(f"check it as that: --algorithm {other.name}, or check(..., algorithm={other.name!r}).")
            return Diagnosis("\n".join(known), [], [], None, [])
    return found


def _count_conforming(other: Algorithm, make: Make, timeout: float | None) -> int:
    """Return in how many cases the port conforms as another algorithm; 0 unless it does in all."""
    port: Any = None
    try:
        port = make(other)
        if port is None:
            return 0
        dtypes = getattr(port, "dtypes", UNDECLARED_DTYPES)
        dtype = next((name for name in ("float64", "float32") if name in dtypes), "")
        cases = [case for case in other.table() if case.dtype == dtype and not case.special()]
        cases = [case for case in cases if not unsupported(port, case)]
        results, _ = run(port, cases, timeout=timeout)
        return len(results) if all(r.verdict == "conforms" for r in results) else 0
    except AmosError:  # it cannot be started as that, or hard-codes what only its author can tell
        return 0
    finally:
        close = getattr(port, "close", None)
        if close is not None:
            close()
