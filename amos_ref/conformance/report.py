"""What a check found, as a table, JSON, JUnit XML, Markdown, or a yes or no."""

import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

import amos_ref
from amos_ref.conformance.algorithms import Algorithm
from amos_ref.conformance.diagnosis.diagnose import Diagnosis
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.judging.verdicts import UNANSWERED, VERDICTS
from amos_ref.conformance.ports.failures import text_of
from amos_ref.conformance.ports.options import Note, describe
from amos_ref.errors import escape
from amos_ref.terminal import Printed, is_terminal

REPORT_FORMAT = "amos-ref-report-1"


class Report(Printed):
    """The results of a check.

    Attributes
    ----------
    target : str
        What was checked.
    results : list of Result
    suite : {"full", "quick"}
    tolerance : str or None
        The method that made the bounds; None where bits were compared.
    diagnosis : Diagnosis or None
        What the port does instead, if it departs.
    observations : sequence of Observation
        What the port did with each case, by which a list of expected departures is written.
    seconds : float
        How long the check took, diagnosis included.
    notes : list of Note
        What the port's signature says that no case may show: defaults other than the page's, options not understood.
    out_of : int or None
        How many cases there are, where not all of them were asked for or run.
    interrupted : str or None
        When the check was interrupted, in words.
    algorithm : Algorithm or None
        What the port was to be: its `name` is "paper" or "closed-form". None where the installation was checked.
    ok : bool
        Whether something was checked to the end and every failing case was expected.
    """

    target: str
    results: list[Result]
    suite: str
    tolerance: str | None
    diagnosis: Diagnosis | None
    notes: list[Note]
    out_of: int | None
    interrupted: str | None

    def __init__(
        self,
        target: str,
        results: list[Result],
        suite: str = "full",
        tolerance: str | None = None,
        diagnosis: Diagnosis | None = None,
        observations: Sequence[Observation] = (),
        seconds: float | None = None,
        notes: Iterable[Note] = (),
        out_of: int | None = None,
        interrupted: str | None = None,
        algorithm: Algorithm | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.target, self.results = escape(text_of(target)), results
        self.suite, self.tolerance, self.diagnosis = suite, tolerance, diagnosis
        self.observations = observations
        self.seconds = sum(r.seconds or 0.0 for r in results) if seconds is None else seconds
        self.notes, self.out_of, self.interrupted = list(notes), out_of, interrupted

    @property
    def ok(self) -> bool:
        """True if the port was run on at least one case, no case fails unexpectedly, and nothing interrupted it."""
        return self.interrupted is None and self._count_run() > 0 and not any(r.failed for r in self.results)

    def _count_run(self) -> int:
        return sum(r.verdict != "not supported" for r in self.results)

    def counts(self) -> Counter[str]:
        """Return how many cases had each verdict; expected ones are counted as ``"departs as expected"``."""
        order = [label for verdict in VERDICTS for label in (verdict, f"{verdict} as expected")]
        return Counter(dict(sorted(Counter(r.label for r in self.results).items(), key=lambda c: order.index(c[0]))))

    def summary(self) -> str:
        """Return one line that says it all."""
        counts = ", ".join(f"{n} {label}" for label, n in self.counts().items()) or "nothing checked"
        how = [] if self.out_of is None else [f"{self._count_run()} of {self.out_of} cases were run"]
        how += [f"interrupted {self.interrupted}"] if self.interrupted else []
        return ": ".join([self._subject(), *([", ".join(how)] if how else []), counts])

    def _subject(self) -> str:
        """Return what was checked, and as which algorithm if that is not paper Amos."""
        return self.target + (self.algorithm.mention if self.algorithm else "")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, as report.schema.json describes them.

        An infinite ratio becomes the string "inf". But for `seconds`, it is the same whenever the same is checked.
        """
        rows = [r._asdict() | ({"ratio": "inf"} if r.ratio == float("inf") else {}) for r in self.results]
        for row in rows:
            del row["seconds"]
        head = {"format": REPORT_FORMAT, "amos_ref": amos_ref.__version__, "target": self.target}
        head |= {"algorithm": self.algorithm and self.algorithm.name}
        head |= {"suite": self.suite, "tolerance": self.tolerance, "ok": self.ok, "counts": dict(self.counts())}
        head |= {"seconds": round(self.seconds, 3)}
        head |= {
            "out_of": self.out_of,
            "interrupted": self.interrupted,
            "notes": [note._asdict() for note in self.notes],
        }
        return head | {"diagnosis": self.diagnosis and self.diagnosis.to_dict(), "results": rows}

    def to_junit(self) -> str:
        """Return JUnit XML of surefire's kind, a test case for each case; the suite's time includes the diagnosis."""
        suite = ElementTree.Element("testsuite", name=f"amos-ref {self._subject()}", time=f"{self.seconds:.3f}")
        kinds: Counter[str] = Counter()
        for r in self.results:
            about = {"classname": "amos-ref", "name": f"{r.case}/{r.dtype}", "time": f"{r.seconds or 0.0:.6f}"}
            test = ElementTree.SubElement(suite, "testcase", about)
            if r.failed:
                kind = "error" if r.verdict in UNANSWERED else "failure"
                ElementTree.SubElement(test, kind, type=r.verdict, message=line(r))
            elif r.verdict != "conforms":
                kind = "skipped"
                ElementTree.SubElement(test, kind, message=line(r))
            else:
                continue
            kinds[kind] += 1
        if self.interrupted:
            test = ElementTree.SubElement(suite, "testcase", classname="amos-ref", name="the whole check", time="0")
            ElementTree.SubElement(test, "error", type="interrupted", message=self.summary())
            kinds["error"] += 1
        suite.attrib |= {"tests": str(len(suite)), "failures": str(kinds["failure"])}
        suite.attrib |= {"errors": str(kinds["error"]), "skipped": str(kinds["skipped"])}
        if self._diagnosis():
            ElementTree.SubElement(suite, "system-out").text = "\n".join(self._diagnosis())
        ElementTree.indent(suite)
        head = '<?xml version="1.0" encoding="utf-8"?>\n'
        return head + ElementTree.tostring(suite, encoding="unicode") + "\n"

    def to_markdown(self) -> str:
        """Return what a pull request's comment can hold: the failing cases in a table, the rest folded away."""
        shown = [r for r in self.results if r.verdict not in ("conforms", "not supported")]
        rest = [r for r in self.results if r not in shown]
        how = "was interrupted" if self.interrupted else "conforms" if self.ok else "does not conform"
        parts = [f"**amos-ref: {how}** ({_code(self.summary())})"]
        parts += [f"- {_code(text)}" for text in self._diagnosis()]
        parts += [_markdown_table(shown)] if shown else []
        if rest:
            parts.append(f"<details><summary>{len(rest)} more</summary>\n\n{_markdown_table(rest)}\n\n</details>")
        return "\n\n".join(parts) + "\n"

    def print(self, file: Any = None) -> None:
        """Print the table: with lines and colours on a terminal, plain elsewhere or under NO_COLOR."""
        from rich.console import Console

        if is_terminal(sys.stdout if file is None else file):
            console = Console(file=file, force_jupyter=False)
            console.print(self._table(plain=False))
            for r in self.results:
                if _long(r):
                    console.print(f"{r.case} {r.dtype}: {_details(r)}", highlight=False, markup=False)
            for text in self._diagnosis():
                console.print(text, highlight=False, markup=False)
            style = "bold green" if self.ok else "bold red"
            console.print(f"{self.summary()} ({self.seconds:.1f} s)", style=style, highlight=False, markup=False)
        else:
            print(self, file=file)

    def __repr__(self) -> str:
        return f"<Report of {self.summary()}>"

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=10_000, color_system=None, force_jupyter=False).print(self._table(plain=True))
        lines = [*text.getvalue().rstrip().splitlines(), *self._diagnosis(), self.summary()]
        return "\n".join(line.rstrip() for line in lines)

    def _diagnosis(self) -> list[str]:
        lines = self.diagnosis.text.splitlines() if self.diagnosis else []
        if self.interrupted and not lines:
            lines = [f"interrupted {self.interrupted}: what the port does instead was not found out."]
        return [escape(line) for line in [*lines, *describe(self.notes)]]

    def _table(self, *, plain: bool) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
        for column in ("case", "dtype", "verdict", "first departs at", "details"):
            table.add_column(column, overflow="fold", no_wrap=column in ("case", "dtype", "verdict"))
        for r in self.results:
            style = "red" if r.failed else "yellow" if r.expected else "green" if r.verdict == "conforms" else "dim"
            details = "see below" if _long(r) and not plain else _details(r)
            table.add_row(r.case, r.dtype, Text(r.label, style), _where(r), Text(details))
        return table


def line(r: Result) -> str:
    """Return one line on one case, without its name."""
    return f"{r.label}{f' at {_where(r)}' if _where(r) else ''}: {_details(r)}"


def _where(r: Result) -> str:
    return ", ".join(part for part in (f"step {r.step}" if r.step else "", r.stage) if part)


def _long(r: Result) -> bool:
    return r.verdict not in ("conforms", "not supported")


def _details(r: Result) -> str:
    if r.verdict == "conforms" and r.ratio is not None:
        return f"at most {r.ratio:.2g} of the bound"
    found = f"{r.stage} of leaf {r.leaf!r} {r.detail} (shown by: {r.about})" if r.stage else r.detail
    return found if r.expected is None else f"{r.expected} [{found}]"


def _markdown_table(results: Iterable[Result]) -> str:
    rows = [("case", "dtype", "verdict", "first departs at", "details"), ("---",) * 5]
    rows += [(r.case, r.dtype, r.label, _where(r), _code(_details(r))) for r in results]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _code(text: str) -> str:
    """Return a code span, in which nothing but a table's bar has a meaning."""
    if not text:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}".replace("|", r"\|")
