"""How kernels are compiled: strict IEEE arithmetic, cached on disk."""

import functools
import hashlib
import pathlib
import warnings

import numba
from numba.core import config
from numba.core.caching import FunctionCache

#: No reassociation, no contraction; division by zero gives inf or NaN, as in NumPy.
STRICT = {"fastmath": False, "error_model": "numpy"}

_PACKAGE = pathlib.Path(__file__).parent.parent
_COMPILED = ("spec.py", "kernels/jit.py", "kernels/scalar.py", "kernels/cpu.py")


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
    return numba.extending.register_jitable(**STRICT)(fn)


def kernel(fn):
    """Compile a kernel that leaves Python's lock alone, its machine code kept on disk where the disk allows it."""
    dispatcher = numba.njit(**STRICT, nogil=True)(fn)
    if not config.DISABLE_JIT:
        try:
            dispatcher._cache = _Cache(fn)
        except RuntimeError as error:
            _warn_uncached(str(error))
    return dispatcher
