"""Reading and writing files: errors name the file, and a new file replaces the old one whole or not at all."""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from amos_ref.errors import AmosError, StorageError


@contextlib.contextmanager
def name_errors(doing: str, path: Any) -> Iterator[str]:
    """Yield the path as a str; every error of the block says what was done to which file.

    An error of this package keeps its class; an OSError becomes a StorageError.
    """
    try:
        path = os.fsdecode(path)
        os.path.realpath(path)
    except (TypeError, ValueError) as error:
        raise StorageError(f"{path!r:.200} is no path: {error}") from None
    try:
        yield path
    except AmosError as error:
        raise type(error)(f"cannot {doing} {path!r}: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot {doing} {path!r}: {error.strerror or error}") from error


@contextlib.contextmanager
def open_regular(path: str) -> Iterator[io.BufferedReader]:
    """Open an ordinary file to read; anything else (a pipe, a device) might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise StorageError("it is not an ordinary file")
    with open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def replace_file(path: str) -> Iterator[BinaryIO]:
    """Write beside the target, flush to the disk, then put the new file in the old one's place at once.

    If the block fails, the target is what it was.
    """
    # A link stays a link: what it points to is replaced.
    target = os.path.realpath(path)
    mode = _permissions(target)
    temporary = os.path.join(os.path.dirname(target), f".amos-ref-{os.urandom(8).hex()}.tmp")
    with _open_folder(os.path.dirname(target)) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.open(temporary, flags, 0o666 if mode is None else mode)
        try:
            with open(file, "wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _flush_folder(folder)


@contextlib.contextmanager
def reserve_file(path: Any) -> Iterator[BinaryIO]:
    """Open a file to be written after long work: that it cannot be written is an error before that work.

    An error of the work itself passes as it is, and the old file stays.
    """
    with contextlib.ExitStack() as stack:
        with name_errors("write", path) as path:
            file = stack.enter_context(replace_file(path))
        yield file
        with name_errors("write", path):
            stack.close()


def write_file(path: Any, content: str | bytes) -> None:
    """Write a whole file; a text is encoded in UTF-8."""
    with name_errors("write", path) as path, replace_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _permissions(target: str) -> int | None:
    """Return the permissions of the file that is to be replaced, None if there is no such file."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("it exists and is not an ordinary file")
    return stat.S_IMODE(status.st_mode)


@contextlib.contextmanager
def _open_folder(folder: str) -> Iterator[int | None]:
    """Open a folder to flush it later; yield None where the system cannot open folders."""
    if not hasattr(os, "O_DIRECTORY"):
        yield None
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield opened
    finally:
        os.close(opened)


def _flush_folder(folder: int | None) -> None:
    """Flush the folder, without which the new name could be lost in a power cut."""
    try:
        if folder is not None:
            os.fsync(folder)
    except OSError as error:
        # Some file systems flush no folders and say so; nothing is wrong then.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            why = error.strerror or error
            raise StorageError(f"the new file is in place, but its folder was not flushed to disk: {why}") from error
