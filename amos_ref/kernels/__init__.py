"""The backends of a step. All give the page's answer, bit for bit.

A backend is a module with a class ``Work(leaves)``, whose ``run(leaves, rates)`` advances all leaves in place, or
writes nothing and raises or returns the number of the leaf whose gradient is not finite.
"""

import collections
import importlib
from types import ModuleType
from typing import Any

from amos_ref.errors import BackendError
from amos_ref.leaf import refuse

#: Name -> module. "auto" is the compiled CPU kernels.
BACKENDS = {"numpy": "amos_ref.kernels.page", "cpu": "amos_ref.kernels.cpu", "auto": "amos_ref.kernels.cpu"}


def check_backend(name: str) -> None:
    """Raise BackendError unless there is a backend of that name."""
    if not isinstance(name, str) or name not in BACKENDS:
        why = "has no kernels in this version" if isinstance(name, str) and name == "cuda" else "does not exist"
        raise BackendError(f"backend {name!r} {why}; there are {', '.join(map(repr, BACKENDS))}")


def load_backend(name: str) -> ModuleType:
    """Import the backend (for "cpu" this imports Numba, and the first step compiles or loads the kernels)."""
    return importlib.import_module(BACKENDS[name])


def step(backend: str, leaves: list[Any], rates: Any) -> None:
    """Advance all leaves in place, or raise NonFiniteError with nothing written."""
    bad = load_backend(backend).Work(leaves).run(leaves, rates)
    if bad >= 0:
        refuse(leaves[bad], rates)


class Kept:
    """What the last step leaves ready for the next (kernels/plan.py). It is neither copied nor pickled."""

    def __init__(self) -> None:
        self._plans: collections.deque[Any] = collections.deque(maxlen=1)

    def take(self) -> Any:
        """Return the plan, which no other thread gets meanwhile, or None."""
        try:
            return self._plans.pop()
        except IndexError:
            return None

    def put(self, plan: Any) -> None:
        """Keep a plan."""
        self._plans.append(plan)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Kept, ()
