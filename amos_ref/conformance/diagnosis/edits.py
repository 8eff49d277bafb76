"""Single edits of an algorithm's formulas: what a slip of the hand makes of them.

``v-as-beta*old_v-(1-beta)*g2`` says that v is computed so; the page has another operator there. The formulas are given
as text. At one place of one of them another operator stands, an operand is left out, a root is another root, or a
number is twice or half as large. A formula may be given in several forms which are equal as numbers go: a slip in one
of them is none in another. It may hold in some cases only, or be something else than what a stage is: `uses` says so.
"""

import ast
import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.diagnosis.deviation import Deviation
from amos_ref.conformance.judging.paper import Override

SWAPPED: dict[type, Any] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


Use = Callable[[Callable[[Any], Any], Any, Callable[[Any], Any]], Any]


class Formula(NamedTuple):
    """What a stage computes, in one or several forms.

    Attributes
    ----------
    part, effect : str
        As a deviation has them: where on the way of a step, and what a slip does to training.
    forms : sequence of str
        Expressions in what a step has, such as ``g2`` and ``old_v``.
    words : str
        What it computes, if the name of the formula does not say it.
    uses : mapping of str to callable
        Stage -> ``use(value, step, page)``, which returns the stage's result; ``value(step)`` is the formula's and
        ``page(step)`` the page's. Without it the formula's value is that of the stage of its name.
    """

    part: str
    effect: str
    forms: Sequence[str]
    words: str = ""
    uses: Mapping[str, Use] = {}


def edits(
    formulas: Mapping[str, Formula], known: Mapping[str, Callable[[Any], Any]], functions: Mapping[str, Callable]
) -> dict[str, Deviation]:
    """Return every single edit of the formulas of stages, by its name.

    Parameters
    ----------
    formulas : mapping of str to Formula
        By stage, or by another name if they have `uses`.
    known : mapping of str to callable
        Names in the formulas that stand for something of a step which has no name there.
    functions : mapping of str to callable
        The functions that the formulas call, given the step and their argument.
    """
    found: dict[str, Deviation] = {}
    for stage, formula in formulas.items():
        own = {_name(stage, ast.parse(form, mode="eval").body) for form in formula.forms}
        for form in formula.forms:
            tree = ast.parse(form, mode="eval").body
            for edited in _edited(tree):
                name = _name(stage, edited)
                if name not in own and name not in found:
                    does = f"computes {formula.words or stage} as {_written(edited)}; the page as {_written(tree)}"
                    value = _computing(edited, known, functions)
                    uses = formula.uses or {stage: _plainly}
                    overrides = {name: _used(use, value) for name, use in uses.items()}
                    found[name] = Deviation(name, formula.part, does, formula.effect, overrides)
    return found


def _edited(tree: Any) -> Iterator[Any]:
    """Yield the expression with one place of it changed, for every place and change."""
    for i, node in enumerate(ast.walk(tree)):
        for put in _others(node):
            if i == 0:
                yield put
            else:
                edited = copy.deepcopy(tree)
                _Putting(list(ast.walk(edited))[i], put).visit(edited)
                yield edited


class _Putting(ast.NodeTransformer):
    """Puts another expression in the place of one."""

    def __init__(self, wanted: Any, put: Any) -> None:
        self.wanted, self.put = wanted, put

    def visit(self, node: Any) -> Any:
        return self.put if node is self.wanted else self.generic_visit(node)


def _others(node: Any) -> Iterator[Any]:
    """Yield what may stand in the place of an expression."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in SWAPPED:
            yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
        yield node.left
        if isinstance(node.op, ast.Add | ast.Mult):
            yield node.right
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(2 * node.value)
        yield ast.Constant(node.value / 2 if node.value % 2 else node.value // 2)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != "mean":
        yield node.args[0]
        if node.func.id == "sqrt":
            yield ast.BinOp(node.args[0], ast.Pow(), ast.Constant(0.25))


def _written(tree: Any) -> str:
    return ast.unparse(tree).replace(" ** ", "^")


def _name(stage: str, tree: Any) -> str:
    return f"{stage}-as-{_written(tree).replace(' ', '')}"


def _computing(
    tree: Any, known: Mapping[str, Callable[[Any], Any]], functions: Mapping[str, Callable[[Any, Any], Any]]
) -> Callable[[Any], Any]:
    """Return what computes an expression of a step."""

    def value(node: Any, s: Any) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            x = known[node.id](s) if node.id in known else getattr(s, node.id)
            return np.float64(x) if isinstance(x, float | int) else x  # so that a division by 0 is one of arrays
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand, s)
        if isinstance(node, ast.Call):
            return functions[node.func.id](s, value(node.args[0], s))  # type: ignore[attr-defined]
        return OPERATORS[type(node.op)](value(node.left, s), value(node.right, s))

    return lambda s: value(tree, s)


def _plainly(value: Callable[[Any], Any], s: Any, page: Callable[[Any], Any]) -> Any:
    return value(s)


def _used(use: Use, value: Callable[[Any], Any]) -> Override:
    """Return the override of a stage that uses an expression, in the shape that the page's stage has."""

    def override(s: Any, page: Callable[[Any], Any]) -> Any:
        usual = page(s)
        if usual is None:  # no momentum, or no moments
            return None
        found = use(value, s, page)
        return found if np.shape(found) == np.shape(usual) else found + np.zeros(np.shape(usual))

    return override
