"""The cases that are stored: their files are small, their ids unique, their flags explained."""

import re

from helpers import ROOT
from helpers.stored_vectors import CASES, CLOSED, CLOSED_CASES, FOLDER, STORED

from amos_ref.conformance.vectors import cases as vector_cases
from amos_ref.conformance.vectors import read as vectors
from amos_ref.conformance.vectors.closed_cases import CLOSED_NOTES

FLAGS = (
    "plain eta slots extra_l2 momentum clip schedule warmup epsilon zero-gradient subnormal huge zero-dim "
    "size-one-axis none-gradient low-precision long injected-state nan inf empty reject"
).split()


def test_ids_are_unique_and_flags_explained():
    ids = [entry["id"] for entry, _ in CASES + CLOSED_CASES]
    assert len(set(ids)) == len(ids)
    for document in (*STORED.values(), *CLOSED.values()):
        used = {flag for entry, _ in vectors.cases(document) for flag in entry["flags"]}
        assert used == set(document["notes"])
    assert {flag for entry, _ in CASES for flag in entry["flags"]} == set(vector_cases.NOTES) >= set(FLAGS)
    assert {flag for entry, _ in CLOSED_CASES for flag in entry["flags"]} == set(CLOSED_NOTES)
    # A flag of both algorithms means the same.
    assert all(note is vector_cases.NOTES.get(flag, note) for flag, note in CLOSED_NOTES.items())


def test_every_option_and_kind_of_leaf_has_a_case():
    """Decays with half_life and with p_0, directions, sigma of every kind of array, and a jump of the count."""
    options = [entry["options"] for entry, _ in CLOSED_CASES if "error" not in entry]
    plans = {(o["decay"], o.get("p_t"), "p_0" in o) for o in options}
    decays = [("inverse-time", None), ("inverse-square", None), ("recurrence", None), ("recurrence", "constant")]
    assert plans == {(*decay, cosine) for decay in decays for cosine in (False, True)}
    assert {o["direction"] for o in options} == {"gradient", "sign", "adam"}
    measured = [leaf for e, _ in CLOSED_CASES if e["options"].get("sigma") == "init" for leaf in e["leaves"].values()]
    assert {len(leaf["shape"]) for leaf in measured} >= {0, 1, 2}
    assert any(0 in leaf["shape"] for leaf in measured)
    assert {step["t"] for e, _ in CLOSED_CASES for step in e["steps"]} >= {0, 999, 10**6, 10**12}


def test_the_files_are_small():
    for algorithm, most in (("paper", 2_000_000), ("closed", 3_000_000)):
        names = [f"{algorithm}-{name}.json" for name in vectors.VECTOR_DTYPES]
        assert sum(len((FOLDER / name).read_bytes()) for name in names) < most


def test_the_document_says_what_the_flags_mean():
    text = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    every = vector_cases.NOTES | CLOSED_NOTES
    notes = {flag: (note.kind, note.description, note.effect) for flag, note in every.items()}
    rows = re.findall(r"^\| (\S+) \| (basic|option|edge|refusal) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert {flag: tuple(rest) for flag, *rest in rows} == notes
