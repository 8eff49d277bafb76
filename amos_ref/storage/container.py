"""The file format of states: named arrays and texts in one file, which the safetensors library reads too.

A file is the length of its header (8 bytes, little-endian), the header (JSON in UTF-8, spaces behind it up to a
multiple of 8 bytes) and the arrays, one behind the other, little-endian, in C order, wider dtypes first so that each
is aligned. The header gives every array's dtype, shape and place, and texts by name under ``__metadata__``.

One of the texts is ``sha256``, the hash of the whole file with zeros in place of its own 64 digits. So it covers the
length, every byte of the header and all the data, and no bit of the file can change unnoticed.
"""

import collections
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from amos_ref.dtypes import FLOATS, dtype_of
from amos_ref.errors import OutOfMemoryError, StorageError
from amos_ref.storage import files
from amos_ref.storage.files import replace_file

LONGEST_HEADER = 100_000_000  # bytes; the safetensors library refuses a longer one
MOST_DIMENSIONS = 64  # of a NumPy array
BYTES_AT_ONCE = 2**20  # read or written at a time; a multiple of 8

_SAFETENSORS_CODES: dict[str, str] = dict(zip(FLOATS, ("F16", "BF16", "F32", "F64"), strict=True))
_DTYPE_NAMES = {code: name for name, code in _SAFETENSORS_CODES.items()}
_MARK, _BLANK = b'"sha256":"', b"0" * 64


class Entry(NamedTuple):
    """Where one array is: bytes `start` to `stop` of the data."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(NamedTuple):
    """What stands before the data; all of it is checked except the hash, which needs the data."""

    metadata: dict[str, str]
    entries: list[Entry]  # in the order of the data, without gaps
    blanked: bytes  # length and header as they are hashed
    digest: str  # what the hash must be


# writing


class Windows(Protocol):
    """An array that is not here as a whole: it is described like one, and comes in windows, one behind the other."""

    dtype: np.dtype
    shape: tuple[int, ...]
    itemsize: int
    nbytes: int

    def view(self) -> Any:
        """Return something of this kind that keeps its shape."""
        ...

    def windows(self) -> Iterator[np.ndarray]:
        """Yield the array, flat, in windows of any size."""
        ...


def write(path: str, arrays: Mapping[str, np.ndarray | Windows], metadata: dict[str, str]) -> None:
    """Write a file of this format; if that fails, the old file stays as it was.

    What is written is what was hashed, even if somebody writes to the arrays meanwhile.
    """
    # Views, so that no array can be given another shape after the header has told its size.
    arrays = {name: a.view() for name, a in in_file_order(arrays)}
    header = _build_header(arrays, metadata)
    replace_file(path, lambda file: _write_arrays(file, header, arrays))


def in_file_order(arrays: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return arrays by name in the order in which a file has them: wider ones first."""
    return sorted(arrays.items(), key=lambda item: -item[1].itemsize)


def _write_arrays(file: int, header: bytes, arrays: dict[str, Any]) -> None:
    sha = hashlib.sha256(header)
    files.write(file, header)
    for piece in _copy_pieces(arrays):
        sha.update(piece)
        files.write(file, piece)
    os.lseek(file, header.index(_MARK) + len(_MARK), os.SEEK_SET)
    files.write(file, sha.hexdigest().encode())


def _copy_pieces(arrays: dict[str, Any]) -> Iterator[memoryview]:
    """Yield copies of the arrays' bytes, one array after the other, in one buffer that is filled again and again."""
    buffer, used = np.empty(BYTES_AT_ONCE, np.uint8), 0
    for a in arrays.values():
        for flat in _flat_windows(a):
            at = 0
            while at < len(flat):
                # Wider arrays come first, so that a whole number of items always fits.
                room = buffer[used:].view(f"<u{a.itemsize}")[: len(flat) - at]
                room[:] = flat[at : at + room.size]
                at, used = at + room.size, used + room.nbytes
                if used == buffer.size:
                    yield buffer.data
                    used = 0
    yield buffer[:used].data


def _flat_windows(a: Any) -> Iterator[Any]:
    """Yield the bits of an array, flat."""
    if not isinstance(a, np.ndarray):
        yield from (window.view(f"u{a.itemsize}") for window in a.windows())
        return
    bits = a.view(f"u{a.itemsize}")
    yield bits.reshape(-1) if a.flags.c_contiguous else bits.flat  # a slice of the latter is a copy


def _build_header(arrays: Mapping[str, Any], metadata: dict[str, str]) -> bytes:
    """Return the length and the header, with zeros for the digits of the hash."""
    entries: dict[str, Any] = {"__metadata__": metadata | {"sha256": _BLANK.decode()}}
    start = 0
    for name, a in arrays.items():
        stop = start + a.nbytes
        entries[name] = {"dtype": _SAFETENSORS_CODES[a.dtype.name], "shape": a.shape, "data_offsets": (start, stop)}
        start = stop
    # Quotes inside names and texts are escaped, so that the mark before the hash occurs once.
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    try:
        header = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StorageError(f"a name holds {text[error.start]!r}, half of a character that UTF-8 cannot hold") from None
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise StorageError(f"the names would take {len(header)} bytes; at most {LONGEST_HEADER} can be read again")
    return len(header).to_bytes(8, "little") + header


# reading


def read_header(file: io.BufferedReader) -> Header:
    """Read and check what stands before the data; nothing larger than the file is allocated."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise StorageError(f"it holds {size} bytes, too few for the length of a header")
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if length > size - 8:
        raise StorageError(f"its header claims {length} bytes and the file holds {size - 8} more")
    if length > LONGEST_HEADER:
        raise StorageError(f"its header claims {length} bytes; at most {LONGEST_HEADER} are read")
    text = file.read(length)
    fields = parse_json(text)
    if not isinstance(fields, dict) or not text.startswith(b"{"):
        raise StorageError("its header is not a JSON object")
    metadata = fields.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise StorageError("its header holds no texts under '__metadata__'")
    entries = _sort_entries([_parse_entry(name, value) for name, value in fields.items()], size - 8 - length)
    at = text.find(_MARK) + len(_MARK)
    return Header(metadata, entries, start + text[:at] + _BLANK + text[at + 64 :], metadata.get("sha256", ""))


def parse_json(text: bytes | str) -> Any:
    """Return the value of a JSON text; refuse a name that occurs twice, NaN and Infinity."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"its header cannot be read as JSON: {error}") from None


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        ((name, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise StorageError(f"its header names {name!r:.80} twice")
    return named


def _refuse_constant(constant: str) -> Any:
    raise StorageError(f"its header holds the number {constant}")


def _parse_entry(name: str, value: Any) -> Entry:
    """Return one entry of the header; raise StorageError if it is not valid."""
    where = f"array {name!r}"
    match value:
        case {"dtype": str(code), "shape": [*shape], "data_offsets": [start, stop]} if len(value) == 3:
            pass
        case _:
            raise StorageError(f"{where} is not described by dtype, shape and data_offsets but by {value!r:.80}")
    if code not in _DTYPE_NAMES:
        raise StorageError(f"{where} has dtype {code!r}; it must be one of {', '.join(_DTYPE_NAMES)}")
    dtype = dtype_of(_DTYPE_NAMES[code])
    if len(shape) > MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, stop)):
        raise StorageError(f"{where} has shape {shape!r:.80} and data_offsets {start!r:.30}, {stop!r:.30}")
    if stop - start != (needed := math.prod(shape) * dtype.itemsize):
        raise StorageError(f"{where} has {stop - start} bytes; shape {shape!r:.80} of {dtype} takes {needed}")
    return Entry(name, dtype, tuple(shape), start, stop)


def _sort_entries(entries: list[Entry], size: int) -> list[Entry]:
    """Return the entries in the order of the data; raise StorageError if they overlap or leave gaps."""
    at = 0
    entries = sorted(entries, key=lambda entry: (entry.start, entry.stop))
    for entry in entries:
        if entry.start != at:
            raise StorageError(f"array {entry.name!r} starts at byte {entry.start} of the data and must start at {at}")
        at = entry.stop
    if at != size:
        raise StorageError(f"its arrays take {at} bytes and {size} bytes follow the header")
    return entries


def verify(file: io.BufferedReader, header: Header) -> None:
    """Read all data without keeping it; raise StorageError if the hash is not that of the header."""
    read_arrays(file, header, set())


def read_arrays(file: io.BufferedReader, header: Header, wanted: set[str]) -> dict[str, np.ndarray]:
    """Return the wanted arrays, writeable; raise StorageError if the hash is not that of the header.

    The bytes that are returned are the ones that were hashed, even if somebody writes to the file meanwhile.
    """
    sha = hashlib.sha256(header.blanked)
    file.seek(len(header.blanked))
    arrays = {}
    for entry in header.entries:
        little = _allocate(entry, entry.name in wanted)
        _fill(file, sha, entry, little.reshape(-1).view(np.uint8).data)
        if entry.name in wanted:
            native = little.astype(f"=u{entry.dtype.itemsize}", copy=False)
            arrays[entry.name] = native.view(entry.dtype)
    if sha.hexdigest() != header.digest:
        raise StorageError(f"it is damaged: the SHA-256 of its bytes is {sha.hexdigest()}, not {header.digest!r:.80}")
    return arrays


def _allocate(entry: Entry, whole: bool) -> np.ndarray:
    """Return an array for the whole entry, or for one piece of it after the other."""
    count = (entry.stop - entry.start) // entry.dtype.itemsize
    try:
        shape = entry.shape if whole else min(count, BYTES_AT_ONCE // entry.dtype.itemsize)
        return np.empty(shape, f"<u{entry.dtype.itemsize}")
    except (ValueError, MemoryError) as error:
        kind = OutOfMemoryError if isinstance(error, MemoryError) else StorageError
        raise kind(f"there is no room for array {entry.name!r:.80} of shape {entry.shape}: {error}") from None


def _fill(file: io.BufferedReader, sha: Any, entry: Entry, room: memoryview) -> None:
    """Read the array's bytes into the room and hash them; when the room is full, start again at its beginning."""
    size, at = entry.stop - entry.start, 0
    while at < size:
        here = at % room.nbytes
        piece = room[here : here + min(BYTES_AT_ONCE, size - at)]
        if file.readinto(piece) != piece.nbytes:
            raise StorageError(f"it ends inside array {entry.name!r}")
        sha.update(piece)
        at += piece.nbytes
