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
from llvmlite import ir
from numba import types as numba_types

from amos_ref import spec
from amos_ref.kernels import scalar
from amos_ref.kernels.cuda.memory import SIMULATED, device, intrinsic

multiply: Any
add: Any
root: Any
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


def clip_at_once(g: float, chi: float) -> float:
    """:func:`amos_ref.kernels.scalar.clip` by one choice after the other.

    A choice within a choice is compiled to a branch, at which the instructions of other elements wait. Without it they
    overlap, and need more registers.
    """
    above = -chi if g < -chi else g
    return chi if above > chi else above


def magnitude(g: float, chi: float) -> float:
    """Its absolute value, which has the same square."""
    size = abs(g)
    return chi if size > chi else size


def add_square(acc: float, x: float) -> float:
    return acc + x * x


change: Any = compile_rounded(spec.change)
average: Any = compile_rounded(spec.average)
clip: Any = compile_plain(scalar.clip)
add_square = compile_rounded(add_square)
clip_at_once, magnitude = compile_plain(clip_at_once), compile_plain(magnitude)


def reads(dtype: str) -> Any:
    """Return what makes a float64 of an element, by the dtype that its bits have in kernels."""
    if dtype == "uint16" and not SIMULATED:
        return device(lambda bits: _from_half(bits))
    return compile_plain({"uint16": scalar.from_half, "int16": scalar.from_bfloat}.get(dtype, scalar.from_plain))


def writes(dtype: str) -> Any:
    """Return what rounds a float64 to an element."""
    if dtype == "uint16":
        return compile_plain(scalar.to_half) if SIMULATED else device(lambda x: _to_half(x))
    if dtype == "int16":
        by_hand = compile_plain(scalar.to_bfloat)
        return by_hand if SIMULATED else device(lambda x: _to_bfloat(x) if _architecture() >= 900 else by_hand(x))
    return compile_plain(_to_single if dtype == "float32" else scalar.from_plain)


def _to_single(x):
    return np.float32(x)


# What the GPU has instructions for: they round once, to nearest, ties to even. A NaN's sign and payload are open.
if not SIMULATED:

    @intrinsic
    def _from_half(typingctx, bits):
        def generate(context, builder, signature, args):
            return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.DoubleType())

        return numba_types.float64(numba_types.uint16), generate

    @intrinsic
    def _to_half(typingctx, x):
        def generate(context, builder, signature, args):
            return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

        return numba_types.uint16(numba_types.float64), generate

    @intrinsic
    def _to_bfloat(typingctx, x):
        def generate(context, builder, signature, args):
            kind = ir.FunctionType(ir.IntType(16), [ir.DoubleType()])
            return builder.asm(kind, "cvt.rn.bf16.f64 $0, $1;", "=h,d", args, side_effect=False)

        return numba_types.int16(numba_types.float64), generate

    @intrinsic
    def _architecture(typingctx):
        """100 times the compute capability, a constant: what depends on it is left out of the code of others."""

        def generate(context, builder, signature, args):
            module, place = builder.module, ir.IntType(8).as_pointer()
            text: Any = ir.Constant(ir.ArrayType(ir.IntType(8), 12), bytearray(b"__CUDA_ARCH\0"))
            name: Any = ir.GlobalVariable(module, text.type, module.get_unique_name("name"), addrspace=4)
            name.global_constant, name.linkage, name.initializer = True, "internal", text
            kind = ir.FunctionType(ir.IntType(32), [place])
            reflect = module.globals.get("__nvvm_reflect") or ir.Function(module, kind, "__nvvm_reflect")
            return builder.call(reflect, [builder.bitcast(builder.addrspacecast(name, text.type.as_pointer()), place)])

        return numba_types.int32(), generate
