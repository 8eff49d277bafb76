"""Of every way out: can it be 0? Each way has its status, and each mutant of the code that decides it is caught."""

import ast
import copy
import errno
import inspect
import io
import os
import signal
import sys
import tempfile
import textwrap

import pytest

from amos_ref import cli, conformance
from amos_ref.cli import check, status
from amos_ref.conformance import selfcheck
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.outcome import Interrupted
from amos_ref.conformance.report import Report
from amos_ref.errors import MissingDependencyError, NoAnswerError, TargetError, VectorError


def result(verdict, expected=None):
    return Result("plain", "float64", "", verdict, expected=expected)


pytestmark = pytest.mark.usefixtures("hang_ups")

RIGHT, WRONG = Report("port", [result("conforms")]), Report("port", [result("conforms"), result("departs")])
ENDED = Report("port", [result("conforms"), result("ended")])
BOTH = Report("port", [result("departs"), result("killed")])
EXPECTED = Report("port", [result("ended", "known")])
SO_FAR = Report("port", [result("conforms")], interrupted="during the cases")
NOTHING = Report("port", [result("not supported")])


class Output(io.StringIO):
    """A standard output that fails when what was printed leaves its buffer."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        count = super().write(text)
        if self.tell() > 1000:
            self.flush()
        return count

    def flush(self):
        if self.number and self.tell():
            raise OSError(self.number, os.strerror(self.number))


def raising(error):
    def check(*args, **kwargs):
        raise error

    return check


def signalled(number):
    def check(*args, **kwargs):
        os.kill(os.getpid(), number)
        print("and went on")
        return RIGHT

    return check


def losing_its_folder(report):
    def check(*args, **kwargs):
        os.rmdir("folder")
        return report

    return check


#: What the check comes to (a report, or a function), the error of standard output, the words, the status.
WAYS = {
    "conforms": (RIGHT, 0, "check x:y", 0),
    "departs": (WRONG, 0, "check x:y", 1),
    "departs, in JSON": (WRONG, 0, "check x:y --json", 1),
    "departs, nobody reads": (WRONG, errno.EPIPE, "check x:y", 1),
    "departs, in JSON, nobody reads": (WRONG, errno.EPIPE, "check x:y --json", 1),
    "departs, the disk is full": (WRONG, errno.ENOSPC, "check x:y", 4),
    "conforms, nobody reads": (RIGHT, errno.EPIPE, "check x:y", 141),
    "conforms, the disk is full": (RIGHT, errno.ENOSPC, "check x:y", 4),
    "conforms, standard output is closed": (RIGHT, None, "check x:y", 4),
    "ended": (ENDED, 0, "check x:y", 4),
    "departs and was killed": (BOTH, 0, "check x:y", 1),
    "ended, as expected": (EXPECTED, 0, "check x:y", 0),
    "nothing was run": (NOTHING, 0, "check x:y", 1),
    "a report of nothing": (Report("port", []), 0, "check x:y", 1),
    "ended at import": (raising(NoAnswerError("ended")), 0, "check x:y", 4),
    "no such target": (raising(TargetError("no such")), 0, "check x:y", 2),
    "no framework": (raising(MissingDependencyError("no torch")), 0, "check x:y", 3),
    "Ctrl-C": (raising(KeyboardInterrupt()), 0, "check x:y", 130),
    "Ctrl-C, with a report so far": (raising(Interrupted("", SO_FAR)), 0, "check x:y", 130),
    "Ctrl-C, nobody reads the report so far": (raising(Interrupted("", SO_FAR)), errno.EPIPE, "check x:y", 130),
    "SystemExit(0)": (raising(SystemExit(0)), 0, "check x:y", 4),
    "GeneratorExit": (raising(GeneratorExit()), 0, "check x:y", 4),
    "a mistake of ours": (raising(ZeroDivisionError()), 0, "check x:y", 4),
    "SIGTERM": (signalled(signal.SIGTERM), 0, "check x:y", 143),
    "SIGHUP": (signalled(signal.SIGHUP), 0, "check x:y", 129),
    "conforms, a report is lost": (losing_its_folder(RIGHT), 0, "check x:y --markdown folder/report.md", 4),
    "departs, a report is lost": (losing_its_folder(WRONG), 0, "check x:y --markdown folder/report.md", 1),
    "another command, nobody reads": (RIGHT, errno.EPIPE, "schedule", 141),
    "another command, nobody reads its end": (RIGHT, errno.EPIPE, "info", 141),
    "another command, the disk is full": (RIGHT, errno.ENOSPC, "info", 4),
    "another command, the disk is full before its end": (RIGHT, errno.ENOSPC, "schedule", 4),
    "another command, its output is a file that is gone": (RIGHT, errno.ESTALE, "info", 4),
    "an error of the system": (raising(FileNotFoundError(errno.ENOENT, "no folder")), 0, "check x:y", 2),
    "wrong usage": (RIGHT, 0, "check --no-such-option", 2),
}


def status_of_way(name, monkeypatch):
    """Go a way out and return the exit status that a shell would see."""
    found, number, words, _ = WAYS[name]
    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        os.mkdir("folder")
        patch.setattr(conformance, "check", found if callable(found) else lambda *args, **kwargs: found)
        patch.setattr(sys, "stdout", None if number is None else Output(number))
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            found = cli.main(words.split())
            said = sys.stdout.getvalue() if sys.stdout else ""
            told = number or found > 1 or "port" in said
            return found if told and "went on" not in said else f"{found}, but it said {said!r}"
        except SystemExit as stop:
            return stop.code or 0
        except BaseException:  # a traceback
            return 1


@pytest.mark.parametrize("name", WAYS)
def test_a_way_out_has_its_status(name, monkeypatch):
    assert status_of_way(name, monkeypatch) == WAYS[name][-1]


def mutants_of(function):
    """Yield copies of a function, each with one mistake: a return of 0, a handler, a raise or a flush left out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        for field, value, what in changes(node):
            before = getattr(node, field)
            setattr(node, field, value)
            yield f"{function.__name__}: {what}", ast.fix_missing_locations(copy.deepcopy(tree))
            setattr(node, field, before)


def changes(node):
    if isinstance(node, ast.Return) and ast.unparse(node.value) not in ("OK", "0"):
        yield "value", ast.Constant(0), f"{ast.unparse(node)} -> return 0"
    if isinstance(node, ast.Try) and len(node.handlers) > 1:
        for i, handler in enumerate(node.handlers):
            yield "handlers", node.handlers[:i] + node.handlers[i + 1 :], f"without except {ast.unparse(handler.type)}"
    for field in ("body", "orelse"):
        lines = getattr(node, field, None)
        for i, line in enumerate(lines if isinstance(lines, list) else []):
            if isinstance(line, ast.Raise) or ast.unparse(line) == "sys.stdout.flush()":
                yield field, [*lines[:i], ast.Pass(), *lines[i + 1 :]], f"without {ast.unparse(line)}"


DECIDING = [(cli, "main"), (cli, "_run"), (cli, "_complain"), (check, "main"), (check, "status_of")]
DECIDING += [(status, "delivered"), (status, "terminated_by_signals"), (status, "open_standard_streams")]


def mutants():
    """Every mutant of every function that decides."""
    for module, name in DECIDING:
        original = getattr(module, name)
        for what, tree in mutants_of(inspect.unwrap(original)):
            yield pytest.param(module, name, tree, id=f"{module.__name__}.{what}")


def is_caught(monkeypatch):
    return any(status_of_way(name, monkeypatch) != WAYS[name][-1] for name in WAYS)


@pytest.mark.parametrize(("module", "name", "tree"), list(mutants()))
def test_a_mutant_of_what_decides_is_caught(module, name, tree, monkeypatch):
    made, original = {}, getattr(module, name)
    exec(compile(tree, "a mutant", "exec"), vars(module), made)
    for place in (status, check, cli):
        if getattr(place, name, None) is original:
            monkeypatch.setattr(place, name, made[name])
    assert is_caught(monkeypatch)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (status, "PIPE", 0),
        (cli, "NO_ANSWER", 0),
        (check, "NO_ANSWER", 0),
        (check, "DEPARTS", 0),
        (check, "SILENT", ()),
        (cli, "MISSING", 0),
        (cli, "USAGE", 0),
        (cli, "INTERRUPTED", 0),
        (Report, "ok", True),
        (Report, "ok", property(lambda self: not any(r.failed for r in self.results))),
        (Result, "failed", False),
        (Report, "print", lambda self: None),
    ],
)
def test_a_wrong_constant_or_property_is_caught(place, name, value, monkeypatch):
    monkeypatch.setattr(place, name, value)
    assert is_caught(monkeypatch)


def test_cases_that_were_left_out_are_no_pass(monkeypatch):
    from helpers.toy_port import ToyPort

    with pytest.raises(TargetError, match=r"\d+ of \d+ cases were not run: `progress` left them out"):
        conformance.check(ToyPort(), suite="quick", progress=lambda cases: cases[:2])


def test_checks_of_the_installation_that_were_left_out_are_no_pass():
    with pytest.raises(VectorError, match="24 of 25 checks were not run"):
        conformance.check(progress=lambda checks: checks[:1])


@pytest.mark.parametrize("algorithm", ["paper", "closed"])
def test_no_stored_vectors_are_no_pass(algorithm, monkeypatch):
    assert selfcheck._guarded(selfcheck._vectors, algorithm, "numpy", "float64").verdict == "conforms"
    monkeypatch.setattr(selfcheck.vectors, "cases", lambda document: iter(()))
    found = selfcheck._guarded(selfcheck._vectors, algorithm, "numpy", "float64")
    assert (found.verdict, found.detail) == ("departs", "there is no stored case to compare with")
