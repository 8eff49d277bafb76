"""How kernels are compiled: strict IEEE arithmetic (no fastmath; 1/0 is inf as in NumPy), cached on disk."""

import functools
import hashlib
import inspect
import os
import pathlib
import pickle
import stat
import warnings
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher
from numba.extending import overload, register_jitable

from amos_ref.outside import pass_on

_PACKAGE = pathlib.Path(__file__).parent.parent
#: What ends up in compiled kernels: the pages, the *decide* of each member, and the kernels themselves.
_COMPILED = ("spec.py", "closed_form.py", "optimizers/*.py", "kernels/*.py", "kernels/cpu/*.py")


@functools.cache
def source_digest() -> str:
    """Return a digest of every file whose text may end up in a compiled kernel."""
    paths = [path for pattern in _COMPILED for path in sorted(_PACKAGE.glob(pattern))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


@functools.cache
def _told() -> list[str]:
    """Return a list that is one for the whole process: why kernels are not kept on disk, once somebody was told."""
    return []


def _warn_uncached(reason: str) -> None:
    if not _told():
        _told().append(reason)
        warnings.warn(
            f"compiled kernels are not kept on disk, so each process compiles them anew: {reason}",
            RuntimeWarning,
            stacklevel=3,
        )


def _refuse_others(path: str, status: os.stat_result) -> None:
    """Raise PermissionError if another user could have written what is loaded and run as this one."""
    if os.name == "posix":
        if status.st_mode & stat.S_IWOTH:
            raise PermissionError(f"{path!r} may be written by everybody, and what it holds would be run (chmod o-w)")
        if status.st_uid not in (0, os.geteuid(), os.stat(__file__).st_uid):
            raise PermissionError(f"{path!r} belongs to user {status.st_uid}, and what it holds would be run")


def _check_folder(folder: str) -> None:
    """Refuse a folder of compiled kernels that others may write to, or put another one in the place of."""
    folder = os.path.realpath(folder)
    _refuse_others(folder, os.stat(folder))
    for parent in pathlib.Path(folder).parents:
        mode = os.stat(parent).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            _refuse_others(str(parent), os.stat(parent))


class _Files(IndexDataCacheFile):
    """Numba's files of one kernel, with a hash before what is unpickled; a damaged file is one that is not there."""

    def save(self, key, data):
        super().save(key, (key, data))

    def load(self, key):
        # Two processes that save at once may give two kernels the same name, so each file says which one it holds.
        match super().load(key):
            case (found, data) if found == key:
                return data
        return None

    def _dump(self, obj):
        data = super()._dump(obj)
        return hashlib.sha256(data).digest() + data

    def _load_index(self):
        version = pickle.dumps(self._version, protocol=-1)
        data = self._read(self._index_path)
        if not data.startswith(version):
            return {}
        match self._undump(data[len(version) :]):
            case (self._source_stamp, dict(overloads)):
                return overloads
        return {}

    def _load_data(self, name):
        return self._undump(self._read(self._data_path(name)))

    def _undump(self, data):
        try:
            return pickle.loads(data[32:]) if hashlib.sha256(data[32:]).digest() == data[:32] else None
        except Exception as error:  # whatever unpickling raises
            pass_on(error)
            return None

    def _read(self, path):
        """Return the content of a file, nothing if it cannot be read or others may write to it: it is replaced then."""
        try:
            status = os.stat(path)
            _refuse_others(path, status)
            return pathlib.Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
        except OSError as error:
            pass_on(error)
            return b""


class _Cache(FunctionCache):
    def __init__(self, fn):
        super().__init__(fn)
        _check_folder(self.cache_path)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, stamp)

    # Numba looks only at the file that holds the kernel; these kernels compile the page's functions too.
    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), source_digest())

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever is wrong with it: the kernel is compiled, and replaces what was there
            pass_on(error)
            if isinstance(error, OSError):
                _warn_uncached(str(error))
        return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception as error:
            pass_on(error)
            _warn_uncached(f"{type(error).__name__}: {error}")


#: Nobody calls compiled code as a function of C, and a way to do so would take a sixth of the time of compilation.
_NOT_FROM_C: Any = {"no_cfunc_wrapper": True}


@functools.cache
def inline(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled code call a plain Python function, and all plain functions that it calls; Python still can."""
    for name in fn.__code__.co_names:
        called = fn.__globals__.get(name)
        if inspect.isfunction(called) and called.__module__.startswith("amos_ref.") and called is not fn:
            inline(called)
    return register_jitable(fastmath=False, error_model="numpy", **_NOT_FROM_C)(fn)


def merge(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a loop a part of every kernel that calls it; Python still can call it.

    LLVM leaves some calls as they are. With a call for every 128 elements, a sum of arrays in memory could take twice
    as long.
    """
    return register_jitable(fastmath=False, error_model="numpy", forceinline=True, **_NOT_FROM_C)(fn)


def specialise(fn: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate what chooses, by the types of its arguments, how compiled code does what `fn` does in Python."""
    return overload(
        fn,
        jit_options={"fastmath": False, "error_model": "numpy", **_NOT_FROM_C},  # pyright: ignore[reportArgumentType]
    )


def kernel(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel that leaves Python's lock alone, its machine code kept on disk where the disk allows it."""
    dispatcher = numba.njit(fastmath=False, error_model="numpy", nogil=True, **_NOT_FROM_C)(fn)
    if isinstance(dispatcher, Dispatcher):  # a plain function under NUMBA_DISABLE_JIT
        try:
            dispatcher._cache = _Cache(fn)  # type: ignore[attr-defined]
        except (RuntimeError, OSError) as error:
            _warn_uncached(str(error))
    return dispatcher
