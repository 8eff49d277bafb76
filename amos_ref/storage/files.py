"""Reading and writing files: errors name the file, and a new file replaces the old one whole or not at all."""

import contextlib
import errno
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from amos_ref.errors import AmosError, OutOfMemoryError, StorageError
from amos_ref.outside import pass_on

LONGEST_TEXT = 100_000_000  # bytes of a file that is read at once, by others than the readers of states
LONGEST_ERROR = 10_000  # characters; names in a file can be a million times as long


@contextlib.contextmanager
def name_errors(doing: str, path: Any) -> Iterator[str]:
    """Yield the path as a str; every error of the block says what was done to which file.

    An error of this package keeps its class. An OSError becomes a StorageError, and so does nesting so deep that Python
    gives up; a MemoryError becomes an OutOfMemoryError.
    """
    try:
        path = os.fsdecode(path)
        if b"\0" in os.fsencode(path):
            raise ValueError("embedded null byte")
    except (TypeError, ValueError) as error:
        raise StorageError(f"{path!r:.200} is not a path: {error}") from None
    try:
        yield path
    except AmosError as error:
        raise type(error)(f"cannot {doing} {path!r}: {error!s:.{LONGEST_ERROR}}") from error
    except (OSError, RecursionError, MemoryError) as error:
        pass_on(error)
        kind, why = StorageError, getattr(error, "strerror", None) or error
        if isinstance(error, RecursionError):
            why = "something in it is nested too deeply"
        elif isinstance(error, MemoryError):
            kind, why = OutOfMemoryError, "there is not enough memory"
        raise kind(f"cannot {doing} {path!r}: {why}") from error


def regular(path: str) -> str:
    """Return the path of an ordinary file; raise StorageError if it is another (a pipe, a device might never end)."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise StorageError("it is not an ordinary file")
    return path


def read_file(path: Any) -> bytes:
    """Return the content of an ordinary file of at most LONGEST_TEXT bytes."""
    with name_errors("read", path) as path, open(regular(path), "rb") as file:
        data = file.read(LONGEST_TEXT + 1)
        if len(data) > LONGEST_TEXT:
            raise StorageError(f"it holds more than {LONGEST_TEXT} bytes")
        return data


def replace_file(path: str, fill: Callable[[int], None]) -> None:
    """Have `fill` write beside the target, flush to the disk, then put the new file in the old one's place at once.

    Whatever is raised in between, and wherever (a signal's exception too), the target is what it was or the new file
    whole, no descriptor stays open and no other file stays behind.

    Parameters
    ----------
    path : str
        A link stays a link: what it points to is replaced.
    fill : callable
        Called with the descriptor of the new file, for :func:`write`.
    """
    target = os.path.realpath(path)
    folder, old = os.path.dirname(target), _status(target)
    temporary = os.path.join(folder, f".amos-ref-{os.urandom(8).hex()}.tmp")
    opened: list[int] = []
    try:
        # Opened before the work, as it can fail. Some systems open no folders.
        flushable = _open(opened, folder, os.O_RDONLY | os.O_DIRECTORY) if hasattr(os, "O_DIRECTORY") else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = _open(opened, temporary, flags, 0o666 if old is None else 0o600)
        fill(file)
        os.fsync(file)
        if old is not None:
            os.chmod(temporary, _keep_owner(file, old))
        _close_last(opened)
        os.replace(temporary, target)
        if flushable is not None:
            _flush_folder(flushable)
            with contextlib.suppress(OSError):  # all is done
                _close_last(opened)
    except BaseException:
        while opened:
            with contextlib.suppress(OSError):
                _close_last(opened)
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write(file: int, data: bytes | memoryview) -> None:
    """Write all the data to a descriptor."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def write_file(path: Any, content: str | bytes) -> None:
    """Write a whole file; a text is encoded in UTF-8, halves of surrogate pairs as escapes."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with name_errors("write", path) as path:
        replace_file(path, lambda file: write(file, data))


def try_file(path: Any) -> None:
    """Raise StorageError if a file cannot be written; it stays as it is, or stays absent."""
    with name_errors("write", path) as path, contextlib.suppress(_Trial):
        replace_file(path, _give_up)


@contextlib.contextmanager
def reserve_file(path: Any) -> Iterator[BinaryIO]:
    """Yield a buffer that is written to a file after long work: that it cannot be written is an error before that work.

    An error of the work itself passes as it is, and the old file stays.
    """
    try_file(path)
    content = io.BytesIO()
    yield content
    write_file(path, content.getvalue())


class _Trial(Exception):
    """Ends the writing of a file that was only to be tried."""


def _give_up(file: int) -> None:
    raise _Trial


# No bytecode of Python runs between the system's call and the list that remembers the descriptor, so that an exception
# that a signal raises finds every open descriptor in the list.


def _open(opened: list[int], path: str, flags: int, mode: int = 0o777) -> int:
    opened.extend(map(os.open, [path], [flags], [mode]))
    return opened[-1]


def _close_last(opened: list[int]) -> None:
    list(map(os.close, map(list.pop, [opened])))


def _status(target: str) -> os.stat_result | None:
    """Return the status of the file that is to be replaced, None if there is no such file."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("it exists and is not an ordinary file")
    return status


def _keep_owner(file: int, old: os.stat_result) -> int:
    """Give the new file to the owner and group of the old one, or warn; return the permissions that it should have."""
    mode, new = stat.S_IMODE(old.st_mode), os.fstat(file)
    if (old.st_uid, old.st_gid) == (new.st_uid, new.st_gid):
        return mode
    for owner in (old.st_uid, -1):  # a user may give a file to no other user, but to another group of their own
        with contextlib.suppress(OSError):
            os.fchown(file, owner, old.st_gid)
            break
    new = os.fstat(file)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        warnings.warn(
            f"the file that is replaced belongs to user {old.st_uid} and group {old.st_gid}, which the system did not"
            f" let this process keep; the new one belongs to user {new.st_uid} and group {new.st_gid}",
            RuntimeWarning,
            stacklevel=2,
        )
        mode &= 0o777  # what acts as its owner must not act as another one
    if old.st_gid != new.st_gid:
        mode = mode & ~0o070 | (mode & 0o007) << 3  # members of this group were among the others
    return mode


def _flush_folder(folder: int) -> None:
    """Flush the folder, without which the new name could be lost in a power cut."""
    try:
        os.fsync(folder)
    except OSError as error:
        pass_on(error)
        # Some file systems flush no folders and say so; nothing is wrong then.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            why = error.strerror or error
            raise StorageError(f"the new file is in place, but its folder was not flushed to disk: {why}") from error
