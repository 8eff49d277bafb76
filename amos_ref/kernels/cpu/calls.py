"""Kernels called by their addresses, in compiled code and the same in Python.

Numba makes a kernel that another one calls by its name a part of the caller, for every combination of dtypes, and
optimises all of it again. What is called by its address is compiled once.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

_plain: dict[int, Callable[..., Any]] = {}  # kernels that run as Python, by what stands for their addresses


@functools.cache
def address_of(run: Callable[..., Any], kinds: tuple[Any, ...], result: Any) -> int:
    """Return where the kernel lies that is compiled for arguments of these types; it stays there.

    `result` is the type of what it returns, or else AssertionError is raised.
    """
    if not isinstance(run, Dispatcher):
        _plain[id(run)] = run
        return id(run)
    run.compile(kinds)
    compiled = run.overloads[kinds]
    if compiled.signature.return_type != result:
        raise AssertionError(f"{run} returns {compiled.signature.return_type}, but is called for {result}")
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def kinds_of(*args: Any) -> tuple[Any, ...]:
    """Return the types by which Numba knows arguments."""
    return tuple(map(numba.typeof, args))


@functools.cache
def key_of(kinds: tuple[Any, ...]) -> int:
    """Return a number that stands for these types, the same in every process."""
    text = ", ".join(str(types.unliteral(kind)) for kind in kinds)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


# For compiled code. Overloads would take the arguments as a tuple, and count references to all that is in it.


@intrinsic
def _key(typingctx, *args) -> Any:
    return types.int64(types.StarArgTuple(args)), lambda *_: ir.IntType(64)(key_of(args))


def _caller(result: Any) -> Any:
    @intrinsic
    def call(typingctx, address, *args) -> Any:
        kinds = tuple(map(types.unliteral, args))

        def generate(context, builder, signature, values):
            function = context.call_conv.get_function_type(result, kinds).as_pointer()
            callee, given = builder.inttoptr(values[0], function), cgutils.unpack_tuple(builder, values[1])
            status, found = context.call_conv.call_function(builder, callee, result, kinds, given)
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return found

        return result(types.int64, types.StarArgTuple(kinds)), generate

    return call


def _call_plain(address: int, *args: Any) -> Any:
    return _plain[int(address)](*args)


#: What kernels that are no parts of the caller are called by: ``call(address, *args)``, or `ask` for one that returns
#: an integer. It must have been compiled for arguments of just these types; ``key(*args)`` tells types apart.
call: Callable[..., None] = _caller(types.none)
ask: Callable[..., int] = _caller(types.int64)
key: Callable[..., int] = _key

if getattr(config, "DISABLE_JIT", False):
    call, ask, key = _call_plain, _call_plain, lambda *args: key_of(kinds_of(*args))
