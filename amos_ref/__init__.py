"""amos_ref: the golden reference of the Amos optimizer.

Read it in :mod:`amos_ref.spec`, run it with :class:`Amos`, check a port of it with
:func:`amos_ref.conformance.check` or ``amos-ref check module:attr``.
"""

import importlib
from typing import TYPE_CHECKING

from amos_ref import errors, rules, spec
from amos_ref.errors import AmosError
from amos_ref.optimizer import Amos, apply_updates
from amos_ref.state import AmosState
from amos_ref.trace import Trace

if TYPE_CHECKING:
    from amos_ref import conformance, exact, interop
    from amos_ref.storage import load, load_state, save, save_state

__version__ = "0.1.0"

__all__ = [
    "Amos",
    "AmosError",
    "AmosState",
    "Trace",
    "apply_updates",
    "conformance",
    "errors",
    "exact",
    "interop",
    "load",
    "load_state",
    "rules",
    "save",
    "save_state",
    "spec",
]


def __getattr__(name: str):
    if name in ("conformance", "exact", "interop"):
        return importlib.import_module(f"amos_ref.{name}")
    if name in ("load", "load_state", "save", "save_state"):
        return getattr(importlib.import_module("amos_ref.storage"), name)
    raise AttributeError(f"module 'amos_ref' has no attribute {name!r}")
