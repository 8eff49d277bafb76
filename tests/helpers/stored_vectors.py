"""The stored vectors, as the tests read them."""

import copy
import importlib.resources
import json

from amos_ref.conformance.vectors import read

FOLDER = importlib.resources.files("amos_ref.conformance.vectors") / "data"
SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
STORED = {name: read.load(name) for name in read.VECTOR_DTYPES}  # paper Amos's
CLOSED = {name: read.load(name, "closed") for name in read.VECTOR_DTYPES}
CASES = [(entry, dtype) for document in STORED.values() for entry, dtype in read.cases(document)]
CLOSED_CASES = [(entry, dtype) for document in CLOSED.values() for entry, dtype in read.cases(document)]
COMPUTED = [(entry, dtype) for entry, dtype in CASES if "error" not in entry]
CLOSED_COMPUTED = [(entry, dtype) for entry, dtype in CLOSED_CASES if "error" not in entry]


def find(case_id):
    """Return a copy of a case, which may be damaged, and its dtype."""
    return copy.deepcopy(next((entry, dtype) for entry, dtype in CASES + CLOSED_CASES if entry["id"] == case_id))
