"""What a check found, as a table, a dictionary or a yes or no."""

import io
from collections import Counter
from typing import Any

from amos_ref.conformance.diagnose import Diagnosis
from amos_ref.conformance.judge import Result


class Report:
    """The results of a check.

    Attributes
    ----------
    target : str
        What was checked.
    results : list of Result
    ok : bool
        Whether something was checked and nothing departs or raises.
    """

    def __init__(self, target: str, results: list[Result], diagnosis: Diagnosis | None = None) -> None:
        self.target, self.results, self.diagnosis = target, results, diagnosis

    @property
    def ok(self) -> bool:
        """True if at least one case conforms and none departs or raises."""
        counts = self.counts()
        return counts["conforms"] > 0 and not counts["departs"] and not counts["raises"]

    def counts(self) -> Counter[str]:
        """Return how many cases had each verdict."""
        return Counter(result.verdict for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, ready for JSON (an infinite ratio becomes the string "inf")."""
        rows = [result._asdict() for result in self.results]
        for row in rows:
            if row["ratio"] == float("inf"):
                row["ratio"] = "inf"
        return {"target": self.target, "ok": self.ok, "counts": dict(self.counts()), "results": rows}

    def summary(self) -> str:
        """Return one line that says it all."""
        counts = self.counts()
        parts = [f"{counts[v]} {v}" for v in ("conforms", "departs", "raises", "not supported") if counts[v]]
        return f"{self.target}: {', '.join(parts) or 'nothing checked'}"

    def print(self, file: Any = None) -> None:
        """Print the table: with lines and colours on a terminal, plain elsewhere or under NO_COLOR."""
        from rich.console import Console

        console = Console(file=file)
        if console.is_terminal and not console.no_color and not console.is_dumb_terminal:
            console.print(self._table(plain=False))
            for r in self.results:
                if r.verdict in ("departs", "raises"):
                    console.print(f"{r.case} {r.dtype}: {_details(r)}", highlight=False, markup=False)
            console.print(self.summary(), style="bold green" if self.ok else "bold red", highlight=False, markup=False)
        else:
            print(self, file=file)

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=10_000, color_system=None).print(self._table(plain=True))
        return "\n".join(line.rstrip() for line in [*text.getvalue().rstrip().splitlines(), self.summary()])

    def _table(self, *, plain: bool) -> Any:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False)
        for column in ("case", "dtype", "verdict", "first departs at", "details"):
            table.add_column(column, overflow="fold", no_wrap=column in ("case", "dtype", "verdict"))
        styles = {"conforms": "green", "departs": "red", "raises": "red", "not supported": "dim"}
        for r in self.results:
            where = ", ".join(part for part in (f"step {r.step}" if r.step else "", r.stage) if part)
            details = _details(r) if plain or r.verdict not in ("departs", "raises") else "see below"
            table.add_row(r.case, r.dtype, Text(r.verdict, styles[r.verdict]), where, Text(details))
        return table


def _details(r: Result) -> str:
    if r.verdict == "departs" and r.stage:
        return f"{r.stage} of leaf {r.leaf!r} {r.detail} (shown by: {r.about})"
    if r.verdict == "conforms" and r.ratio is not None:
        return f"at most {r.ratio:.2g} of the bound" + (f"; {r.detail}" if r.detail else "")
    return r.detail
