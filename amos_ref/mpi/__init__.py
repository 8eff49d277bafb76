"""Amos over the ranks of an MPI job, with the bits of one process for any number of ranks.

A :class:`Layout` says which rank has which part of every parameter; a :class:`Sharded` optimizer steps the parts.
It needs mpi4py (``pip install "amos_ref[mpi]" mpich``); a layout can be made and looked at without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amos_ref.mpi.layout import Layout
    from amos_ref.mpi.saving import load
    from amos_ref.mpi.sharded import Sharded

__all__ = ["Layout", "Sharded", "load"]

_MODULES = {"Layout": "layout", "Sharded": "sharded", "load": "saving"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'amos_ref.mpi' has no attribute {name!r}")
    return globals().setdefault(name, getattr(importlib.import_module(f"amos_ref.mpi.{_MODULES[name]}"), name))
