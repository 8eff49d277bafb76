"""What becomes of single changes that no catalogue has, and of several at once that it has.

Single changes, mutants, are drawn from the grammar of factors at random, and sets of two to five from the catalogue.

``python -m tools.judge_mutants FILE --dtype float64 --up-to 2000`` judges the first 2,000 that are drawn and appends a
line for each to FILE. What FILE has already is not judged again, so that it may be stopped and started at any time, and
run beside one for float32. With ``--several`` sets are judged in place of mutants. ``python -m tools.judge_mutants
FILE`` prints the table of what FILE has.
"""

import argparse
import collections
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.diagnosis.catalogue import in_order
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.judging.judge import run
from tools.judge_quality import MUTANTS, SEED, Judge, draw_mutants, formulas_wrong_in, same

MOST = 5  # deviations of a set
COLUMNS = "| dtype | drawn | caught | named, of those | named wrong | without a name | seconds |"


def drawn() -> list[tuple[str, ...]]:
    """Return the mutants in the order in which they are drawn."""
    return [(name,) for name in draw_mutants(np.random.default_rng(SEED))]


def drawn_sets(dtype: str, count: int) -> list[tuple[str, ...]]:
    """Return sets of two to five deviations of the catalogue that act in the formulas."""
    rng, names = np.random.default_rng(SEED), formulas_wrong_in(dtype)
    sets = (rng.choice(names, rng.integers(2, MOST + 1), replace=False).tolist() for _ in range(count))
    return [in_order(names) for names in sets]


def judge_names(judge: Judge, names: tuple[str, ...]) -> dict[str, Any]:
    """Check a port with deviations; return what came of it, with the seconds of processor time that its name took."""
    port = judge.port(*names)
    seen = run(port, judge.cases)[1]
    begun = time.process_time()
    found = diagnose(port, seen)
    seconds = time.process_time() - begun
    candidates = [] if found is None else found.candidates
    word = judge.word_of(candidates, names) if found else "the page" if same(names, ()) else "missed"
    told = {"named": candidates} if word == "another" else {}
    return dict(dtype=judge.dtype, name=" + ".join(names), word=word, seconds=round(seconds, 2), **told)


def judge_all(file: pathlib.Path, dtype: str, up_to: int, several: bool = False) -> None:
    """Judge mutants or sets that the file does not have, and append a line for each."""
    known = {row["name"] for row in read(file) if row["dtype"] == dtype}
    judge = Judge(dtype)
    for names in drawn_sets(dtype, up_to) if several else drawn()[:up_to]:
        if " + ".join(names) not in known:
            append(file, judge_names(judge, names))


def append(file: pathlib.Path, row: dict[str, Any]) -> None:
    """Append a line to a file."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")


def read(file: pathlib.Path) -> list[dict[str, Any]]:
    """Return what a file has."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures by dtype as a table in Markdown, with what was missed or named wrong below it."""
    lines, notes = [COLUMNS, "|---" * COLUMNS.count(" |") + "|"], []
    kinds = [(row["dtype"], row["name"].count(" + ")) for row in rows]
    for dtype, more in sorted(set(kinds), key=lambda kind: (kind[0] != "float64", *kind)):
        of = [row for row, kind in zip(rows, kinds, strict=True) if kind == (dtype, more)]
        words = collections.Counter(row["word"] for row in of)
        wrong = len(of) - words["the page"]  # the others do what the page does
        caught = wrong - words["missed"]
        times = sorted(row["seconds"] for row in of if row["word"] in ("the same", "another", "nothing"))
        cells = [f"{dtype}, {more + 1} at once" if more else dtype, wrong, f"{caught} ({100 * caught / wrong:.1f} %)"]
        cells += [f"{words['the same']} ({100 * words['the same'] / caught:.1f} %)", words["another"], words["nothing"]]
        cells.append(f"{statistics.median(times):.1f}; {times[int(0.95 * len(times))]:.1f}; {times[-1]:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
        notes += [f"{row['word']} in {dtype}: {row['name']} {row.get('named', '')}" for row in of
                  if row["word"] in ("another", "missed")]  # fmt: skip
    return "\n".join([*lines, *notes])


def main(arguments: Sequence[str]) -> None:
    """Judge, or print what is known."""
    parser = argparse.ArgumentParser(prog="python -m tools.judge_mutants", description=__doc__)
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--dtype", choices=("float64", "float32"))
    parser.add_argument("--up-to", type=int, default=MUTANTS)
    parser.add_argument("--several", action="store_true", help="sets of deviations of the catalogue")
    given = parser.parse_args(arguments)
    if given.dtype:
        judge_all(given.file, given.dtype, given.up_to, given.several)
    else:
        print(table(read(given.file)))


if __name__ == "__main__":
    main(sys.argv[1:])
