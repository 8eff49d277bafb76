"""Stored vectors, all or some of them, as one JSON document, lines of text, or a zip, NumPy or safetensors archive."""

import importlib.resources
import io
import json
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from amos_ref.conformance.vectors.bits import Json, number
from amos_ref.conformance.vectors.cases import NOTES
from amos_ref.conformance.vectors.closed_cases import CLOSED_NOTES
from amos_ref.conformance.vectors.lines import as_lines
from amos_ref.conformance.vectors.read import COMMAND_NAMES, VECTOR_ALGORITHMS, VECTOR_DTYPES, cases, load
from amos_ref.conformance.vectors.stored import OPTION_WORDS, StoredCase, stored_case
from amos_ref.conformance.vectors.write import as_text
from amos_ref.errors import VectorError
from amos_ref.storage import container
from amos_ref.storage.files import name_errors, reserve_file, write_file

EXPORT_FORMATS = ("json", "lines", "zip", "npz", "safetensors")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


_NOTES = {VECTOR_ALGORITHMS["paper"]: NOTES, VECTOR_ALGORITHMS["closed"]: CLOSED_NOTES}


def select(case: str | None = None, flag: str | None = None, algorithm: str | None = None) -> Json:
    """Return stored vectors of all dtypes as one document: those of a case's id, or with a flag, or all.

    Parameters
    ----------
    case, flag : str, optional
    algorithm : {"paper", "closed-form"}, optional
        Whose vectors; by default those of both.

    Raises
    ------
    VectorError
        If there is no such case or flag.
    """
    chosen = [key for key, name in COMMAND_NAMES.items() if algorithm in (None, name)]
    documents = [load(name, key) for key in chosen for name in VECTOR_DTYPES]
    notes = {name: note for document in documents for name, note in document["notes"].items()}
    if flag is not None and flag not in notes:
        raise VectorError(f"there is no flag {flag!r}; there are {', '.join(notes)}")
    groups = []
    for group in (group for document in documents for group in document["groups"]):
        kept = [e for e in group["cases"] if case in (None, e["id"]) and (flag is None or flag in e["flags"])]
        groups += [group | {"cases": kept}] if kept else []
    if not groups:
        raise VectorError(
            f"there is no case {case!r}{f' with flag {flag!r}' if flag else ''}; an id is like 'plain/float32'"
        )
    headers = {document["algorithm"]: document["header"] for document in documents}
    return _with_groups(documents[0] | {"notes": notes}, groups, headers)


def _with_groups(document: Json, groups: list[Json], headers: dict[str, list[str]]) -> Json:
    """Return a document with other groups, the headers of their algorithms, and the notes that explain their flags."""
    used = {name for group in groups for entry in group["cases"] for name in entry["flags"]}
    whose = list(dict.fromkeys(map(algorithm_of, groups)))
    explained = [name for algorithm in whose for name in _NOTES[algorithm] if name in used]
    notes = {name: document["notes"][name] for name in explained}
    header = headers[whose[0]] if len(whose) == 1 else [f"{name}: {line}" for name in whose for line in headers[name]]
    return document | {"algorithm": " and ".join(whose), "header": header, "notes": notes, "groups": groups}


def algorithm_of(group: Json) -> str:
    """Return whose cases a group holds."""
    return group.get("algorithm", VECTOR_ALGORITHMS["paper"])


def export(document: Json, form: str, path: pathlib.Path) -> None:
    """Write a document to a file.

    Parameters
    ----------
    document : dict
        Of :func:`select`.
    form : {"json", "lines", "zip", "npz", "safetensors"}
        The same format as the stored files; text, a line for each thing that a runner does (lines.py); a zip archive
        of such files, one for each algorithm and dtype, with their schema, a README and, beside the closed form's, the
        schedules (its bytes are always the same); or arrays named "id/t/leaf/part.quantity" (see docs/vectors.md),
        bfloat16 as uint16 in a NumPy archive, which knows no bfloat16.
    path : path
        A file that is there is replaced.
    """
    if form == "json":
        write_file(path, as_text(document))
        return
    if form == "lines":
        write_file(path, as_lines(document))
        return
    if form == "zip":
        write_file(path, as_zip(document))
        return
    arrays = {name: a for entry, dtype in cases(document) for name, a in named_arrays(stored_case(entry, dtype))}
    about = {key: document[key] for key in ("format", "algorithm", "header", "notes")}
    about["cases"] = {entry["id"]: _texts(entry) for entry, _ in cases(document)}
    texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in about.items()}
    if form == "safetensors":
        with name_errors("write", path) as name:
            container.write(name, arrays, texts)
        return
    plain: Json = {name: a.view(np.uint16) if a.dtype.name == "bfloat16" else a for name, a in arrays.items()}
    plain |= {key: np.array(text) for key, text in texts.items()}
    with reserve_file(path) as file:
        np.savez_compressed(file, **plain)


def as_zip(document: Json) -> bytes:
    """Return a zip archive of a document, uncompressed: the same bytes everywhere, and the lines can be read in it."""
    data = importlib.resources.files("amos_ref.conformance.vectors") / "data"
    closed = any(algorithm_of(group) == VECTOR_ALGORITHMS["closed"] for group in document["groups"])
    names = ["schema.json", *(["schedules.json", "schedules.schema.json"] if closed else [])]
    members = {"README.md": _readme(document)} | {name: (data / name).read_text(encoding="utf-8") for name in names}
    prefixes = {name: key for key, name in VECTOR_ALGORITHMS.items()}
    headers = {name: load("float64", key)["header"] for key, name in VECTOR_ALGORITHMS.items()}
    for group in document["groups"]:
        file = f"{prefixes[algorithm_of(group)]}-{group['dtype']}.json"
        members[file] = as_text(_with_groups(document, [group], headers))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(members.items()):
            member = zipfile.ZipInfo(name, EARLIEST)
            member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is written
            archive.writestr(member, text)
    return content.getvalue()


def _readme(document: Json) -> str:
    """Return what a reader of the archive needs: the format, the formulas, and what the flags mean."""
    lines = [f"# Test vectors of {document['algorithm']} ({document['format']})", ""]
    lines += [f"- {line}" for line in document["header"]] + ["", "| flag | kind | what | if it is wrong |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {name} | {n['kind']} | {n['description']} | {n['effect']} |" for name, n in document["notes"].items()]
    return "\n".join([*lines, "", "schema.json describes the files. A file has one case a line.", ""])


def _texts(entry: Json) -> Json:
    words = {name: x for name, x in entry["options"].items() if name in OPTION_WORDS}
    return {key: entry[key] for key in ("about", "flags", "error") if key in entry} | (
        {"options": words} if words else {}
    )


def named_arrays(case: StoredCase) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array and number of a case under a name of its own; what is null is left out."""
    for name, x in case.numbers().items():
        if not isinstance(x, str):
            yield f"{case.id}/options/{name}", np.array(x)
    for name in case.entry["leaves"]:
        yield f"{case.id}/{case.scale}/{name}", np.array(case.scale_of(name))
    for k, given in enumerate(case.entry.get("cycle", ())):
        for name, text in given.items():
            yield f"{case.id}/cycle/{k}/{name}", case.array(text, name, "g")
    for step in case.entry["steps"]:
        at = f"{case.id}/{step['t']}"
        yield f"{at}/{case.shared}", np.array(case.rate(step))
        for quantity, text in (step.get("real") or {}).items():
            yield f"{at}/real.{quantity}", np.array(number(text))
        for name, leaf in step["leaves"].items():
            if leaf["g"] is not None:
                yield f"{at}/{name}/g", case.array(leaf["g"], name, "g")
            for part in ("pre", "real", "post", "tolerance"):
                for quantity, text in (leaf[part] or {}).items():
                    yield f"{at}/{name}/{part}.{quantity}", case.array(text, name, quantity, part)
