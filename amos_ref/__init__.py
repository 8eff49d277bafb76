"""amos_ref: the golden reference of the Amos optimizer.

Read it in :mod:`amos_ref.spec`, run it with :class:`Amos`, check a port of it with
:func:`amos_ref.conformance.check` or ``amos-ref check module:attr``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amos_ref import adamw, closed_form, conformance, errors, exact, interop, mpi, plots, problems, rules, spec
    from amos_ref.choosing import choose
    from amos_ref.errors import AmosError
    from amos_ref.minimizer import minimize
    from amos_ref.optimizers.amos import Amos
    from amos_ref.optimizers.closed_form import ClosedFormAmos
    from amos_ref.optimizers.state import AmosState, ClosedFormState
    from amos_ref.optimizers.trace import Trace
    from amos_ref.optimizers.updates import apply_updates
    from amos_ref.scipy_minimizer import scipy_method
    from amos_ref.storage.checkpoint import load, load_state, save, save_state

__version__ = "0.6.0"

__all__ = [
    "Amos",
    "AmosError",
    "AmosState",
    "ClosedFormAmos",
    "ClosedFormState",
    "Trace",
    "adamw",
    "apply_updates",
    "choose",
    "closed_form",
    "conformance",
    "errors",
    "exact",
    "interop",
    "load",
    "load_state",
    "minimize",
    "mpi",
    "plots",
    "problems",
    "rules",
    "save",
    "save_state",
    "scipy_method",
    "spec",
]

_HOME = {
    "Amos": "optimizers.amos",
    "AmosError": "errors",
    "AmosState": "optimizers.state",
    "ClosedFormAmos": "optimizers.closed_form",
    "ClosedFormState": "optimizers.state",
    "Trace": "optimizers.trace",
    "apply_updates": "optimizers.updates",
    "choose": "choosing",
    "load": "storage.checkpoint",
    "load_state": "storage.checkpoint",
    "minimize": "minimizer",
    "save": "storage.checkpoint",
    "save_state": "storage.checkpoint",
    "scipy_method": "scipy_minimizer",
}


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used: every run of pytest loads the plugin, and with it this file.
    if name not in __all__:
        raise AttributeError(f"module 'amos_ref' has no attribute {name!r}")
    home = importlib.import_module(f"amos_ref.{_HOME.get(name, name)}")
    return globals().setdefault(name, getattr(home, name) if name in _HOME else home)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
