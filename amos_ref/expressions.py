"""Expressions in SHAPE, the shape of a leaf, evaluated without eval: no expression can run code or take much memory."""

import ast
import math
import operator
import threading
from typing import Any

from amos_ref.errors import ExpressionError
from amos_ref.outside import pass_on

Shape = tuple[int, ...]

MOST_CHARACTERS = 500
LARGEST_INTEGER = 2**63  # of all that are computed on the way
_PARSING = threading.Lock()  # CPython 3.11 counts the depth of all threads' trees as one, and raises SystemError
MOST_ENTRIES = 64  # entries of a tuple; NumPy arrays have no more dimensions

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = {
    "sqrt": math.sqrt,
    "prod": math.prod,
    "min": min,
    "max": max,
    "log": math.log,
    "exp": math.exp,
    "len": len,
}


def evaluate(expression: str, shape: Shape) -> Any:
    """Evaluate an expression in SHAPE: arithmetic, indexing, slices, tuples and a few functions.

    Parameters
    ----------
    expression : str
        May use ``+ - * / // % **``, numbers, ``SHAPE``, ``SHAPE[i]``, ``SHAPE[i:j]``, tuples, and sqrt, prod, min,
        max, log, exp, len.
    shape : tuple of int
        What SHAPE stands for.

    Returns
    -------
    int, float or tuple of int

    Raises
    ------
    ExpressionError
        If the expression holds anything else, if it has no value (``1/0``), or if a number or tuple that is computed
        on the way is too large.

    Examples
    --------
    >>> from amos_ref.rules import evaluate
    >>> evaluate("sqrt(2 / SHAPE[-1])", (30, 8))
    0.5
    >>> evaluate("(1, SHAPE[1])", (30, 8))
    (1, 8)
    """
    if len(expression) > MOST_CHARACTERS:
        raise ExpressionError(f"expression of {len(expression)} characters; at most {MOST_CHARACTERS} are allowed")
    try:
        with _PARSING:
            tree = ast.parse(expression.strip(), mode="eval").body
        return _value(tree, shape)
    except ExpressionError as error:
        raise ExpressionError(f"expression {expression!r}: {error}") from None
    except (SyntaxError, ValueError, TypeError, ArithmeticError, IndexError, RecursionError, MemoryError) as error:
        pass_on(error)
        raise ExpressionError(f"expression {expression!r} has no value for SHAPE {shape}: {error}") from None


def _value(node: ast.expr | None, shape: Shape) -> Any:
    match node:
        case None:
            return None
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id="SHAPE"):
            return tuple(shape)
        case ast.Tuple(elts=items):
            return _bounded(tuple(_number(_value(item, shape)) for item in items))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_number(_value(operand, shape))))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _binary(type(op), _value(left, shape), _value(right, shape))
        case ast.Subscript(value=whole, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            return _tuple(_value(whole, shape))[slice(_value(lower, shape), _value(upper, shape), _value(step, shape))]
        case ast.Subscript(value=whole, slice=index):
            return _tuple(_value(whole, shape))[_value(index, shape)]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*(_value(arg, shape) for arg in args)))
    raise ExpressionError(f"{ast.unparse(node)!r:.60} is not allowed; allowed are numbers, SHAPE, {_ALLOWED}")


_ALLOWED = f"+ - * / // % **, indexing, tuples and {', '.join(_FUNCTIONS)}"


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    if op is ast.Add and isinstance(left, tuple) and isinstance(right, tuple):
        return _bounded(left + right)
    if op is ast.Mult and isinstance(left, tuple) and isinstance(right, int):
        if right * len(left) > MOST_ENTRIES:
            raise ExpressionError(f"a tuple of {right * len(left)} entries is too long")
        return left * right
    left, right = _number(left), _number(right)
    both_int = isinstance(left, int) and isinstance(right, int)
    if op is ast.Pow and both_int and right * (left.bit_length() - 1) > 63:
        raise ExpressionError(f"{left}**{right} is too large")
    return _bounded(_OPERATORS[op](left, right))


def _number(value: Any) -> int | float:
    if isinstance(value, int | float):
        return value
    raise ExpressionError(f"{value!r} is not a number")


def _tuple(value: Any) -> Shape:
    if isinstance(value, tuple):
        return value
    raise ExpressionError(f"{value!r} cannot be indexed")


def _bounded(value: Any) -> Any:
    if isinstance(value, complex):
        raise ExpressionError(f"{value!r} is not real")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ExpressionError("an integer beyond 2**63 is too large")
    if isinstance(value, tuple) and len(value) > MOST_ENTRIES:
        raise ExpressionError(f"a tuple of {len(value)} entries is too long")
    return value
