"""What becomes of real ports in real frameworks with a single wrong formula.

The sources of the package's ports to NumPy, torch and optax are changed at one place in their formulas: another
operator, a factor or term that is missing, a number twice or half as large. Nobody chooses the places: they are drawn
with a fixed seed. Each port is then checked as a user's is, with all cases of a dtype, those of its life among them.

``python -m tools.judge_ports FILE --framework torch --dtype float64 --up-to 40`` judges the first 40 that are drawn and
appends a line for each to FILE; what FILE has already is not judged again. With ``--after 40`` the first 40 are left
out: those after them were not looked at while the judge was made. With ``--algorithm closed-form`` the sources are
those of the closed form. ``python -m tools.judge_ports FILE`` prints the table of what FILE has.
"""

import argparse
import ast
import copy
import pathlib
import statistics
import sys
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance import check
from amos_ref.conformance.algorithms import algorithm_of
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.diagnosis.further import Subject
from amos_ref.conformance.diagnosis.own_form import LEFT_OUT
from amos_ref.conformance.ports.target import as_port
from tools.judge_mutants import append, read
from tools.judge_quality import HELD_OUT, SEED

ROOT = pathlib.Path(__file__).parent.parent
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
PORT_COLUMNS = "| algorithm | port | dtype | changed | caught | named | named wrong | without a name | seconds |"


class Source(NamedTuple):
    """A port: its file, what is checked in it, and the functions in which its formulas are."""

    path: str
    attribute: str
    functions: tuple[str, ...]


CHANGED_PORTS = {
    "paper": {
        "numpy": Source("examples/ports/amos_numpy.py", "step", ("step",)),
        "torch": Source("amos_ref/ports/torch.py", "Amos", ("Amos._decide", "_Family._direction", "_Family._apply")),
        "optax": Source("amos_ref/ports/optax.py", "amos", ("amos.update.step", "_one_minus_power")),
    },
    "closed-form": {
        "numpy": Source("examples/ports/closed_form_numpy.py", "step", ("step", "measure", "shrink_of", "direct")),
        "torch": Source(
            "amos_ref/ports/torch.py",
            "ClosedFormAmos",
            (
                *("ClosedFormAmos._decide", "ClosedFormAmos._direction", "ClosedFormAmos._shrink"),
                *("_Family._apply", "_root_mean_square"),
            ),
        ),
        "optax": Source(
            "amos_ref/ports/optax.py",
            "closed_form_amos",
            (
                *("closed_form_amos", "closed_form_amos.update", "closed_form_amos.update.step"),
                *("_mean_square", "_one_minus_power", "_recurrence", "_Leaf.start_sigma"),
            ),
        ),
    },
}


class Change(NamedTuple):
    """A source with one change, and the statement that it changes, before and after."""

    text: str
    source: str


def changes(source: str, functions: Sequence[str]) -> list[Change]:
    """Return every single change of the arithmetic in some functions of a module, without those within them."""
    tree, found = ast.parse(source), []
    for name in functions:
        for statement in (node for node in _find(tree, name).body if not isinstance(node, ast.FunctionDef)):
            for i, node in enumerate(ast.walk(statement)):
                for put in _others(node):
                    changed = copy.deepcopy(statement)
                    _replace(changed, i, put)
                    text = f"{_one_line(statement)}  ->  {_one_line(changed)}"
                    found.append(Change(text, _with(source, statement, changed)))
    return found


def _find(tree: Any, name: str) -> Any:
    for part in name.split("."):
        nodes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
        tree = next(node for node in nodes if node.name == part and node is not tree)
    return tree


def _others(node: ast.AST) -> Iterator[Any]:
    """Yield what may stand in the place of an expression."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in SWAPPED:
            yield ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right)
        yield node.left
        if isinstance(node.op, ast.Add | ast.Mult):
            yield node.right
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value:
        yield ast.Constant(2 * node.value)
        yield ast.Constant(node.value / 2)


def _replace(tree: Any, number: int, put: Any) -> None:
    """Put another expression in the place of the node that `ast.walk` finds as this number."""
    wanted = next(node for i, node in enumerate(ast.walk(tree)) if i == number)
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if value is wanted:
                setattr(node, field, put)
            elif isinstance(value, list) and any(item is wanted for item in value):
                setattr(node, field, [put if item is wanted else item for item in value])


def _one_line(node: Any) -> str:
    return " ".join(ast.unparse(node).split())


def _with(source: str, old: Any, new: Any) -> str:
    """Return the source with another statement in the place of an old one."""
    lines = source.splitlines()
    put = [" " * old.col_offset + line for line in ast.unparse(ast.fix_missing_locations(new)).splitlines()]
    return "\n".join([*lines[: old.lineno - 1], *put, *lines[old.end_lineno :]])


def drawn(framework: str, algorithm: str = "paper") -> list[Change]:
    """Return the changes of a port in the order in which they are drawn."""
    source = CHANGED_PORTS[algorithm][framework]
    every = changes((ROOT / source.path).read_text(encoding="utf-8"), source.functions)
    return [every[i] for i in np.random.default_rng(SEED).permutation(len(every))]


def load(framework: str, change: Change, algorithm: str = "paper") -> Any:
    """Return the changed port, as a user would hand it over."""
    source, module = CHANGED_PORTS[algorithm][framework], types.ModuleType("changed_port")
    sys.modules[module.__name__] = module
    exec(compile(change.source, source.path, "exec"), module.__dict__)
    return getattr(module, source.attribute)


def judge(framework: str, dtype: str, change: Change, algorithm: str = "paper") -> dict[str, Any]:
    """Check a changed port; return what came of it, with the seconds of processor time that the check took."""
    target = load(framework, change, algorithm)
    begun = time.process_time()
    report = check(target, dtypes=dtype, algorithm=algorithm)
    seconds = round(time.process_time() - begun, 2)
    found = report.diagnosis.candidates if report.diagnosis else []
    subject = Subject(as_port(target, algorithm=algorithm_of(algorithm)), None, None)
    observed = (subject.observe_further(algorithm, HELD_OUT + i, dtype) for i in range(20))
    # Where its state was left out, since it is of another form, the name is one of what theta does.
    alone = bool(report.diagnosis) and LEFT_OUT in report.diagnosis.text
    unseen = Evidence([one for one in observed if one], ("theta",) if alone else None)
    raised = sum(r.verdict == "raises" for r in report.results)
    if 2 * raised > len(report.results) or (raised and not any(r.verdict == "departs" for r in report.results)):
        word = "raises"
    elif report.ok:
        word = "missed" if list(unseen.failing(())) else "the page"
    elif not found:
        word = "nothing"
    else:
        word = "the same" if all(holds(unseen, tuple(names)) for names in found) else "another"
    return dict(
        algorithm=algorithm, framework=framework, dtype=dtype, name=change.text, word=word, seconds=seconds,
        named=found, text=report.diagnosis.text if report.diagnosis else "",
    )  # fmt: skip


def holds(unseen: Evidence, names: tuple[str, ...]) -> bool:
    """Whether a name says what a port does, on inputs that the search did not see.

    Where most of what departs is NaN, as of 0/0, more than half of it decides nothing. Then it is enough that a name
    holds wherever something is decided, and that some of that departs.
    """
    if unseen.fits(names):
        return True
    decided = any(unseen.outcome((), i) is not None and unseen.decides(names, i) for i in range(len(unseen.seen)))
    return decided and not list(unseen.failing(names))


def judge_all(
    file: pathlib.Path, framework: str, dtype: str, up_to: int, after: int = 0, algorithm: str = "paper"
) -> None:
    """Judge changes that the file does not have, and append a line for each."""
    known = {row["name"] for row in read(file) if _kind(row) == (algorithm, framework, dtype)}
    for change in drawn(framework, algorithm)[after:up_to]:
        if change.text not in known:
            append(file, judge(framework, dtype, change, algorithm))


def _kind(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["algorithm"], row["framework"], row["dtype"]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures by port and dtype as a table in Markdown, with what was missed or named wrong below it."""
    lines, notes = [PORT_COLUMNS, "|---" * (PORT_COLUMNS.count("|") - 1) + "|"], []
    for kind in dict.fromkeys(map(_kind, rows)):
        of = [row for row in rows if _kind(row) == kind]
        count = {word: sum(row["word"] == word for row in of) for word in ("the same", "another", "nothing", "missed")}
        wrong = sum(count.values())  # others raise, or do what the page does
        caught, times = wrong - count["missed"], sorted(row["seconds"] for row in of if row["word"] in count)
        cells = [*kind, wrong, caught, count["the same"], count["another"], count["nothing"]]
        lines.append(f"| {' | '.join(map(str, cells))} | {statistics.median(times):.1f}; {times[-1]:.1f} |")
        notes += [f"{row['word']} in {kind[-1]}: {row['name']} {row['named']}" for row in of
                  if row["word"] in ("another", "missed", "nothing")]  # fmt: skip
    return "\n".join([*lines, "", *notes])


def main(arguments: Sequence[str]) -> None:
    """Judge, or print what is known."""
    parser = argparse.ArgumentParser(prog="python -m tools.judge_ports", description=__doc__)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--algorithm", choices=CHANGED_PORTS, default="paper")
    parser.add_argument("--framework", choices=CHANGED_PORTS["paper"])
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--up-to", type=int, default=40)
    parser.add_argument("--after", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.framework:
        judge_all(given.file, given.framework, given.dtype, given.up_to, given.after, given.algorithm)
    else:
        print(table(read(given.file)))


if __name__ == "__main__":
    main(sys.argv[1:])
