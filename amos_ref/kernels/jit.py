"""How kernels are compiled: strict IEEE arithmetic (no fastmath; 1/0 is inf as in NumPy), cached on disk."""

import functools
import hashlib
import inspect
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.extending import overload, register_jitable

_PACKAGE = pathlib.Path(__file__).parent.parent
#: What ends up in compiled kernels: the pages, the *decide* of each member, and the kernels themselves.
_COMPILED = ("spec.py", "closed_form.py", "optimizers/*.py", "kernels/*.py", "kernels/cpu/*.py")


@functools.cache
def source_digest() -> str:
    """Return a digest of every file whose text may end up in a compiled kernel."""
    paths = [path for pattern in _COMPILED for path in sorted(_PACKAGE.glob(pattern))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


@functools.cache
def _warn_uncached(reason: str) -> None:
    warnings.warn(
        f"compiled kernels are not kept on disk, so each process compiles them anew: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )


class _Cache(FunctionCache):
    # Numba looks only at the file that holds the kernel; these kernels compile the page's functions too.
    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), source_digest())

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            _warn_uncached(str(error))
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn_uncached(str(error))


@functools.cache
def inline(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled code call a plain Python function, and all plain functions that it calls; Python still can."""
    for name in fn.__code__.co_names:
        called = fn.__globals__.get(name)
        if inspect.isfunction(called) and called.__module__.startswith("amos_ref.") and called is not fn:
            inline(called)
    return register_jitable(fastmath=False, error_model="numpy")(fn)


def specialise(fn):
    """Decorate what chooses, by the types of its arguments, how compiled code does what `fn` does in Python."""
    return overload(fn, jit_options={"fastmath": False, "error_model": "numpy"})


def kernel(fn):
    """Compile a kernel that leaves Python's lock alone, its machine code kept on disk where the disk allows it."""
    dispatcher = numba.njit(fastmath=False, error_model="numpy", nogil=True)(fn)
    if isinstance(dispatcher, Dispatcher):  # a plain function under NUMBA_DISABLE_JIT
        try:
            dispatcher._cache = _Cache(fn)  # type: ignore[attr-defined]
        except RuntimeError as error:
            _warn_uncached(str(error))
    return dispatcher
