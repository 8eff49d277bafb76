"""The page's stages for the GPU: the same source, every product and sum rounded by itself.

A GPU's compiler fuses a product and a sum into one instruction that rounds once, and Numba has no switch against it. So
each function is compiled from its source with ``a * b`` and ``a + b`` written as the instructions that nothing fuses.
"""

import ast
import functools
import inspect
import operator
import textwrap
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.kernels import scalar
from amos_ref.kernels.cuda.memory import SIMULATED, device

if SIMULATED:
    multiply, add, root = operator.mul, operator.add, np.sqrt
else:
    from numba.cuda import libdevice

    multiply, add, root = libdevice.dmul_rn, libdevice.dadd_rn, libdevice.dsqrt_rn

_NAMES = {"_multiply": multiply, "_add": add, "_root": root}


class _Rounded(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left, right = node.left, node.right
        match node.op:
            case ast.Mult():
                return _call("_multiply", left, right)
            case ast.Add():
                return _call("_add", left, right)
            case ast.Sub():
                return _call("_add", left, ast.UnaryOp(ast.USub(), right))
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Name("_root", ast.Load()) if ast.unparse(node) == "np.sqrt" else node


def _call(name: str, *args: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(args), [])


@functools.cache
def compile_rounded(fn: Callable[..., Any]) -> Any:
    """Compile a function of float64 numbers, and all it calls, for the GPU: each operation rounds by itself."""
    tree = _Rounded().visit(ast.parse(textwrap.dedent(inspect.getsource(fn))))
    space = {**_compile_calls(fn, compile_rounded), **_NAMES}
    exec(compile(ast.fix_missing_locations(tree), fn.__code__.co_filename, "exec"), space)
    return device(space[fn.__name__])


@functools.cache
def compile_plain(fn: Callable[..., Any]) -> Any:
    """Compile a function, and all it calls, for the GPU as it stands: one in which nothing can be fused."""
    return device(types.FunctionType(fn.__code__, _compile_calls(fn, compile_plain), fn.__name__))


def _compile_calls(fn: Callable[..., Any], compile_one: Callable[..., Any]) -> dict[str, Any]:
    space = dict(fn.__globals__)
    for name in fn.__code__.co_names:
        if inspect.isfunction(space.get(name)):
            space[name] = compile_one(space[name])
    return space


def add_square(acc, x):
    return acc + x * x


change, average = compile_rounded(spec.change), compile_rounded(spec.average)
add_square = compile_rounded(add_square)
clip = compile_plain(scalar.clip)


def reads(dtype: str) -> Any:
    """Return what makes a float64 of an element, by the dtype that its bits have in kernels."""
    return compile_plain({"uint16": scalar.from_half, "int16": scalar.from_bfloat}.get(dtype, scalar.from_plain))


def writes(dtype: str) -> Any:
    """Return what rounds a float64 to an element."""
    halves = {"uint16": scalar.to_half, "int16": scalar.to_bfloat}
    if dtype in halves:
        return compile_plain(halves[dtype])
    return compile_plain(_to_single if dtype == "float32" else scalar.from_plain)


def _to_single(x):
    return np.float32(x)
