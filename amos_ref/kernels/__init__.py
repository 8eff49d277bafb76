"""The backends of a step. All give the page's answer, bit for bit.

A backend is a module with ``step(leaves, rates)``, which advances all leaves in place or raises before it
has written anything.
"""

import importlib
from types import ModuleType

from amos_ref.errors import BackendError

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
