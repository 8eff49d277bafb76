"""Stored vectors, all or some of them, as one JSON document, zip archive, NumPy archive or safetensors file."""

import importlib.resources
import io
import json
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np

from amos_ref.conformance.vectors.cases import NOTES
from amos_ref.conformance.vectors.read import VECTOR_DTYPES, Json, StoredCase, cases, load, number
from amos_ref.conformance.vectors.write import as_text
from amos_ref.errors import VectorError
from amos_ref.storage import container
from amos_ref.storage.files import name_errors, reserve_file, write_file

EXPORT_FORMATS = ("json", "zip", "npz", "safetensors")
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold


def select(case: str | None = None, flag: str | None = None) -> Json:
    """Return the stored vectors of all dtypes as one document: those of a case's id, or with a flag, or all.

    Raises
    ------
    VectorError
        If there is no such case or flag.
    """
    documents = [load(name) for name in VECTOR_DTYPES]
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
    return _with_groups(documents[0] | {"notes": notes}, groups)


def _with_groups(document: Json, groups: list[Json]) -> Json:
    """Return a document with other groups, and the notes that explain their flags."""
    used = {name for group in groups for entry in group["cases"] for name in entry["flags"]}
    notes = {name: document["notes"][name] for name in NOTES if name in used}
    return document | {"notes": notes, "groups": groups}


def export(document: Json, form: str, path: pathlib.Path) -> None:
    """Write a document to a file.

    Parameters
    ----------
    document : dict
        Of :func:`select`.
    form : {"json", "zip", "npz", "safetensors"}
        The same format as the stored files; a zip archive of such files, one a dtype, with their schema and a README,
        whose bytes are always the same; or arrays named "id/t/leaf/part.quantity" (see docs/vectors.md), bfloat16
        as uint16 in a NumPy archive, which knows no bfloat16.
    path : path
        A file that is there is replaced.
    """
    if form == "json":
        write_file(path, as_text(document))
        return
    if form == "zip":
        write_file(path, as_zip(document))
        return
    arrays = {name: a for entry, dtype in cases(document) for name, a in named_arrays(StoredCase(entry, dtype))}
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
    schema = importlib.resources.files("amos_ref.conformance.vectors") / "data" / "schema.json"
    members = {"README.md": _readme(document), "schema.json": schema.read_text(encoding="utf-8")}
    for group in document["groups"]:
        members[f"paper-{group['dtype']}.json"] = as_text(_with_groups(document, [group]))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(members.items()):
            member = zipfile.ZipInfo(name, EARLIEST)
            member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is written
            archive.writestr(member, text)
    return content.getvalue()


def _readme(document: Json) -> str:
    """Return what a reader of the archive needs: the format, the formulas, and what the flags mean."""
    lines = [f"# Test vectors of paper Amos ({document['format']})", ""]
    lines += [f"- {line}" for line in document["header"]] + ["", "| flag | kind | what | if it is wrong |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {name} | {n['kind']} | {n['description']} | {n['effect']} |" for name, n in document["notes"].items()]
    return "\n".join([*lines, "", "schema.json describes the files. A file has one case a line.", ""])


def _texts(entry: Json) -> Json:
    return {key: entry[key] for key in ("about", "flags", "error") if key in entry}


def named_arrays(case: StoredCase) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array and number of a case under a name of its own; what is null is left out."""
    for name, text in case.entry["options"].items():
        yield f"{case.id}/options/{name}", np.array(number(text))
    for name, leaf in case.entry["leaves"].items():
        yield f"{case.id}/eta/{name}", np.array(number(leaf["eta"]))
    for k, given in enumerate(case.entry.get("cycle", ())):
        for name, text in given.items():
            yield f"{case.id}/cycle/{k}/{name}", case.array(text, name, "g")
    for step in case.entry["steps"]:
        at = f"{case.id}/{step['t']}"
        yield f"{at}/learning_rate", np.array(number(step["learning_rate"]))
        for name, leaf in step["leaves"].items():
            if leaf["g"] is not None:
                yield f"{at}/{name}/g", case.array(leaf["g"], name, "g")
            for part in ("pre", "real", "post", "tolerance"):
                for quantity, text in (leaf[part] or {}).items():
                    yield f"{at}/{name}/{part}.{quantity}", case.array(text, name, quantity, part)
