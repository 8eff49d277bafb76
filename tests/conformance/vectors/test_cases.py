"""The cases that are stored: their files are small, their ids unique, their flags explained."""

import re

from helpers import ROOT
from helpers.stored_vectors import CASES, FOLDER, STORED

from amos_ref.conformance.vectors import cases as vector_cases
from amos_ref.conformance.vectors import read as vectors

FLAGS = (
    "plain eta slots extra_l2 momentum clip schedule warmup epsilon zero-gradient subnormal huge zero-dim "
    "size-one-axis none-gradient low-precision long injected-state nan inf empty reject"
).split()


def test_ids_are_unique_and_flags_explained():
    ids = [entry["id"] for entry, _ in CASES]
    assert len(set(ids)) == len(ids)
    for document in STORED.values():
        used = {flag for entry, _ in vectors.cases(document) for flag in entry["flags"]}
        assert used == set(document["notes"])
    assert {flag for entry, _ in CASES for flag in entry["flags"]} == set(vector_cases.NOTES) >= set(FLAGS)


def test_the_files_are_small():
    assert sum(len((FOLDER / f"paper-{name}.json").read_bytes()) for name in vectors.VECTOR_DTYPES) < 2_000_000


def test_the_document_says_what_the_flags_mean():
    text = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    notes = {flag: (note.kind, note.description, note.effect) for flag, note in vector_cases.NOTES.items()}
    rows = re.findall(r"^\| (\S+) \| (basic|option|edge|refusal) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert {flag: tuple(rest) for flag, *rest in rows} == notes
