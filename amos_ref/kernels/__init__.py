"""The backends of a step. All give the page's answer, bit for bit.

A backend is a module with a class ``Work(leaves)``, whose ``run(leaves, rates)`` advances all leaves in place, or
writes nothing and raises or returns the number of the leaf whose gradient is not finite.
"""

import collections
import importlib
from types import ModuleType
from typing import Any

from amos_ref.errors import BackendError
from amos_ref.optimizers.leaf import refuse

#: Name -> module. "auto" is the compiled CPU kernels.
BACKENDS = {
    "numpy": "amos_ref.kernels.page",
    "cpu": "amos_ref.kernels.cpu.backend",
    "cuda": "amos_ref.kernels.cuda.backend",
    "auto": "amos_ref.kernels.cpu.backend",
}


def check_backend(name: str, *, cuda: bool = True) -> None:
    """Raise BackendError unless there is a backend of that name that can be used here; `cuda`: also that one."""
    if not isinstance(name, str) or name not in BACKENDS:
        raise BackendError(f"backend {name!r} does not exist; there are {', '.join(map(repr, BACKENDS))}")
    if name == "cuda" and not cuda:
        raise BackendError("backend 'cuda' has no kernels for this optimizer; there are 'numpy', 'cpu' and 'auto'")
    if name == "cuda":
        from amos_ref.kernels.cuda import driver as cuda_driver

        cuda_driver.check()


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

    def peek(self) -> Any:
        """Return the plan, which stays, or None."""
        return self._plans[-1] if self._plans else None

    def put(self, plan: Any) -> None:
        """Keep a plan."""
        self._plans.append(plan)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Kept, ()
