"""Write the stored vectors: the page's bits, and beside them the real numbers from the oracle."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from amos_ref.conformance.vectors import closed_form, paper
from amos_ref.conformance.vectors.bits import Json
from amos_ref.conformance.vectors.cases import NOTES, Note, VectorCase, vector_cases
from amos_ref.conformance.vectors.closed_cases import CLOSED_NOTES, closed_cases
from amos_ref.conformance.vectors.read import VECTOR_ALGORITHMS, VECTOR_DTYPES, VECTORS_FORMAT
from amos_ref.conformance.vectors.schedules import text_of_schedules
from amos_ref.storage.files import write_file


class Writer(NamedTuple):
    """What the vectors of an algorithm are made of."""

    cases: Callable[[str], list[VectorCase]]  # of a dtype
    entry: Callable[[VectorCase], Json]
    header: list[str]
    notes: dict[str, Note]
    group: Json  # what a group says beside its dtypes


#: How the files of an algorithm begin -> who writes them.
WRITERS = {
    "paper": Writer(vector_cases, paper.entry, paper.PAPER_HEADER, NOTES, {}),
    "closed": Writer(
        closed_cases,
        closed_form.entry,
        closed_form.CLOSED_HEADER,
        CLOSED_NOTES,
        {"algorithm": VECTOR_ALGORITHMS["closed"]},
    ),
}


def write(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write one file for each algorithm and dtype, and the schedules, yielding each path."""
    for algorithm in WRITERS:
        for name in VECTOR_DTYPES:
            path = folder / f"{algorithm}-{name}.json"
            write_file(path, text_of(name, algorithm))
            yield path
    path = folder / "schedules.json"
    write_file(path, text_of_schedules())
    yield path


def text_of(dtype_name: str, algorithm: str = "paper") -> str:
    """Return the content of an algorithm's vector file of a dtype."""
    return as_text(generate(dtype_name, algorithm))


def as_text(document: Json) -> str:
    """Return a document as JSON with one case a line."""
    head = json.dumps(document | {"groups": []}, indent=1).removesuffix("[]\n}")
    return head + "[\n" + ",\n".join(map(_group_text, document["groups"])) + "\n ]\n}\n"


def _group_text(group: Json) -> str:
    lines = ",\n".join("   " + json.dumps(case, separators=(",", ":")) for case in group["cases"])
    return json.dumps(group | {"cases": []}).replace('"cases": []', f'"cases": [\n{lines}\n  ]')


def generate(dtype_name: str, algorithm: str = "paper") -> Json:
    """Return the vectors of one dtype, or raise MissingDependencyError without python-flint."""
    writer = WRITERS[algorithm]
    made = [writer.entry(vector) for vector in writer.cases(dtype_name)]
    used = {flag for case in made for flag in case["flags"]}
    notes = {f: n for f, n in writer.notes.items() if f in used}
    group: Json = {"dtype": dtype_name, "state_dtype": "float64"} | writer.group
    return {
        "format": VECTORS_FORMAT,
        "schema": "schema.json",
        "algorithm": VECTOR_ALGORITHMS[algorithm],
        "header": writer.header,
        "notes": {f: {"kind": n.kind, "description": n.description, "effect": n.effect} for f, n in notes.items()},
        "groups": [group | {"cases": made}],
    }
