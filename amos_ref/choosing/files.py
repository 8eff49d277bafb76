"""Names and shapes from files, without reading the numbers: safetensors, npz, and JSON."""

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from amos_ref.errors import StorageError
from amos_ref.storage.files import name_errors, regular

MOST_HEADER = 100_000_000  # bytes of JSON before the arrays of a safetensors file; safetensors has the same bound
STATE_FORMAT = "amos-ref-state"


class FileLeaf:
    """An array in a file: its shape and the name of its dtype."""

    shape: Any
    dtype: str

    def __init__(self, shape: Any, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype


def read_file(path: str | os.PathLike[str]) -> Any:
    """Return the tree of what a file holds: leaves with a shape, or shapes.

    Parameters
    ----------
    path : str or path
        A safetensors file, or the index of several; an npz file; or JSON with ``{name: shape}``, nested, perhaps under
        "parameters".

    Raises
    ------
    StorageError
        If it cannot be read or is none of these.
    """
    with name_errors("read", path) as path, open(regular(path), "rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            return _read_npz(file)
        if start.lstrip()[:1] in (b"{", b"["):
            return _read_json(file, pathlib.Path(path).parent)
        return _read_safetensors(file)


def _read_npz(file: BinaryIO) -> dict[str, FileLeaf]:
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    raise StorageError(f"it holds {name!r:.60}, which is no array; only npz files of arrays are read")
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(member)
                found[name.removesuffix(".npy")] = FileLeaf(shape, str(dtype))
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise StorageError(f"it is no npz file that can be read: {error}") from None
    return found


def _read_json(file: BinaryIO, folder: pathlib.Path) -> Any:
    try:
        found = json.loads(file.read().decode())
    except (ValueError, RecursionError) as error:
        raise StorageError(f"it is no JSON that can be read: {error}") from None
    files = found.get("weight_map") if isinstance(found, dict) else None
    if isinstance(files, dict):
        return _read_index(files, folder)
    return found["parameters"] if isinstance(found, dict) and isinstance(found.get("parameters"), dict) else found


def _read_index(files: Mapping[str, Any], folder: pathlib.Path) -> dict[str, FileLeaf]:
    """Return the leaves of all files that an index of safetensors files names."""
    found = {}
    for name in sorted({str(name) for name in files.values()}):
        if pathlib.PurePath(name).name != name:
            raise StorageError(f"it names the file {name!r:.60}; only files beside it are read")
        with open(regular(str(folder / name)), "rb") as part:
            found |= _read_safetensors(part)
    return found


def _read_safetensors(file: BinaryIO) -> dict[str, FileLeaf]:
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= MOST_HEADER:
        raise StorageError("it is none of safetensors, npz and JSON; of a torch file write the shapes as JSON")
    try:
        header = json.loads(file.read(size).decode())
        texts = header.pop("__metadata__", None) or {}
        found = {name: FileLeaf(entry["shape"], _dtype(entry["dtype"])) for name, entry in header.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise StorageError(f"its header is not that of a safetensors file: {type(error).__name__}: {error}") from None
    if texts.get("format") == STATE_FORMAT:  # as amos_ref.save writes it: the parameters are those of "theta"
        return {n.removeprefix("theta/"): leaf for n, leaf in found.items() if n.startswith("theta/")}
    return found


def _dtype(name: Any) -> str:
    return "float" if str(name).startswith(("F", "BF")) else str(name)
