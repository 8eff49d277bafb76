"""How kernels are compiled: strict IEEE arithmetic (no fastmath; 1/0 is inf as in NumPy), cached on disk."""

import functools
import hashlib
import pathlib
import warnings

import numba
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from numba.extending import overload, register_jitable

_PACKAGE = pathlib.Path(__file__).parent.parent
_KERNELS = ("jit", "scalar", "table", "layout", "cpu/loops", "cpu/memory", "cpu/threads")
_COMPILED = ("spec.py", *(f"kernels/{name}.py" for name in _KERNELS))


@functools.cache
def source_digest() -> str:
    """Return a digest of every file whose text ends up in a compiled kernel."""
    return hashlib.sha256(b"\0".join((_PACKAGE / name).read_bytes() for name in _COMPILED)).hexdigest()


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


def inlined(fn):
    """Let compiled code call a plain Python function; Python itself can still call it."""
    return register_jitable(fastmath=False, error_model="numpy")(fn)


def specialised(fn):
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
