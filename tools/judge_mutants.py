"""What becomes of single changes that no catalogue has: mutants, drawn from the grammar of factors at random.

``python -m tools.judge_mutants FILE --dtype float64 --up-to 2000`` judges the first 2,000 that are drawn and appends a
line for each to FILE. What FILE has already is not judged again, so that it may be stopped and started at any time, and
run beside one for float32. ``python -m tools.judge_mutants FILE`` prints the table of what FILE has.
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

from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.judging.judge import run
from tools.judge_quality import MUTANTS, SEED, Judge, draw_mutants, same

COLUMNS = "| dtype | mutants | caught | named, of those | named wrong | without a name | seconds |"


def drawn() -> list[str]:
    """Return the mutants in the order in which they are drawn."""
    return draw_mutants(np.random.default_rng(SEED))


def judge_mutant(judge: Judge, name: str) -> dict[str, Any]:
    """Check a port with one mutant; return what came of it, with the seconds of processor time that its name took."""
    port = judge.port(name)
    seen = run(port, judge.cases)[1]
    begun = time.process_time()
    found = diagnose(port, seen)
    seconds = time.process_time() - begun
    candidates = [] if found is None else found.candidates
    word = judge.word_of(candidates, (name,)) if found else "the page" if same((name,), ()) else "missed"
    told = {"named": candidates} if word == "another" else {}
    return dict(dtype=judge.dtype, name=name, word=word, seconds=round(seconds, 2), **told)


def judge_all(file: pathlib.Path, dtype: str, up_to: int) -> None:
    """Judge mutants that the file does not have, and append a line for each."""
    known = {row["name"] for row in read(file) if row["dtype"] == dtype}
    judge = Judge(dtype)
    for name in drawn()[:up_to]:
        if name not in known:
            row = judge_mutant(judge, name)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")


def read(file: pathlib.Path) -> list[dict[str, Any]]:
    """Return what a file has."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures by dtype as a table in Markdown, with what was missed or named wrong below it."""
    lines, notes = [COLUMNS, "|---" * COLUMNS.count(" |") + "|"], []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        of = [row for row in rows if row["dtype"] == dtype]
        words = collections.Counter(row["word"] for row in of)
        wrong = len(of) - words["the page"]  # the others do what the page does
        caught = wrong - words["missed"]
        times = sorted(row["seconds"] for row in of if row["word"] in ("the same", "another", "nothing"))
        cells = [dtype, wrong, f"{caught} ({100 * caught / wrong:.1f} %)"]
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
    given = parser.parse_args(arguments)
    if given.dtype:
        judge_all(given.file, given.dtype, given.up_to)
    else:
        print(table(read(given.file)))


if __name__ == "__main__":
    main(sys.argv[1:])
