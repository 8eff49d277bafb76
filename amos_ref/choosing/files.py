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
_SNIFFED = 64  # bytes at the start that say what a file is; JSON may begin with blanks
_NO_FORMAT = "it is not a safetensors, npz or JSON file; for a torch file, write the shapes as JSON"


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
        "parameters", in UTF-8, UTF-16 or UTF-32.

    Raises
    ------
    StorageError
        If it cannot be read or is none of these.
    """
    with name_errors("read", path) as path, open(regular(path), "rb") as file:
        start = file.read(_SNIFFED)
        file.seek(0)
        # First, as the size of a header may begin with the bytes of anything; taken for a size, the first 8 bytes of a
        # zip or of JSON are far more than MOST_HEADER.
        if _header_size(start):
            return _read_safetensors(file)
        if start.startswith(b"PK"):
            return _read_npz(file)
        text = start.decode(json.detect_encoding(start), "replace")
        if text.lstrip()[:1] in ("{", "["):
            return _read_json(file, pathlib.Path(path).parent)
        raise StorageError(_NO_FORMAT)


def _header_size(start: bytes) -> int:
    """Return how long the header of a safetensors file is, or 0 of what is none."""
    size = int.from_bytes(start[:8], "little")
    return size if len(start) >= 8 and 2 <= size <= MOST_HEADER else 0


def _read_npz(file: BinaryIO) -> dict[str, FileLeaf]:
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    raise StorageError(f"it holds {name!r:.60}, which is not an array; only arrays can be read")
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
        raise StorageError(f"it cannot be read as npz: {error}") from None
    return found


def _read_json(file: BinaryIO, folder: pathlib.Path) -> Any:
    try:
        found = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise StorageError(f"it cannot be read as JSON: {error}") from None
    files = found.get("weight_map") if isinstance(found, dict) else None
    if isinstance(files, dict):
        return _read_index(files, folder)
    return found["parameters"] if isinstance(found, dict) and isinstance(found.get("parameters"), dict) else found


def _read_index(files: Mapping[str, Any], folder: pathlib.Path) -> dict[str, FileLeaf]:
    """Return the leaves of all files that an index of safetensors files names."""
    found = {}
    for name in sorted(set(files.values()), key=str):
        if not isinstance(name, str) or pathlib.PurePath(name).name != name:
            raise StorageError(f"it names the file {name!r:.60}; only files beside it are read")
        with name_errors("read", folder / name) as path, open(regular(path), "rb") as part:
            found |= _read_safetensors(part)
    return found


def _read_safetensors(file: BinaryIO) -> dict[str, FileLeaf]:
    size = _header_size(file.read(8))
    if not size:
        raise StorageError(_NO_FORMAT)
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
