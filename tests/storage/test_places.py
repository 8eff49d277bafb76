"""Where files can and cannot be: folders, links, devices, other users' files, and no memory."""

import errno
import os
import pathlib
import stat
import sys
import tempfile

import pytest
from helpers.checkpoints import OLD, SAVE_AND_PRINT, check_refusal, check_untouched, in_child, save_new
from helpers.messages import one_line

import amos_ref
from amos_ref import errors
from amos_ref.conformance import expect
from amos_ref.storage import files


def test_places_where_no_file_can_be(path):
    folder = path.parent
    for place, words in (
        (folder / "none" / "state", ["No such file"]),
        (path / "state", ["Not a directory"]),
        (folder, ["not an ordinary file"]),
        (pathlib.Path(os.devnull), ["not an ordinary file"]),
        (folder / ("n" * 300), ["name too long"]),
    ):
        check_refusal(place, ["cannot write", *words], save_new)
    if os.path.isdir("/proc/self"):
        check_refusal(pathlib.Path("/proc/amos_ref_state"), ["cannot write"], save_new)
    for place, words in (
        (folder / "none", ["No such file"]),
        (path / "state", ["Not a directory"]),
        (folder, ["not an ordinary file"]),
        (pathlib.Path(os.devnull), ["not an ordinary file"]),
    ):
        check_refusal(place, ["cannot read", *words])
    check_untouched(path)


@pytest.mark.parametrize("place", [3, None, "a\0b", "\ud800", 0.5])
def test_what_is_not_a_path_is_named(place):
    for call in (amos_ref.load_state, save_new):
        with pytest.raises(errors.StorageError) as caught:
            call(place)
        one_line(caught.value, [repr(place), "is not a path"])


def test_a_file_that_is_read_at_once_has_a_longest_length(path, monkeypatch):
    size = path.stat().st_size
    monkeypatch.setattr(files, "LONGEST_TEXT", size)
    assert files.read_file(path) == path.read_bytes()
    monkeypatch.setattr(files, "LONGEST_TEXT", size - 1)
    check_refusal(path, ["cannot read", f"more than {size - 1} bytes"], files.read_file)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes with names")
    os.mkfifo(tmp_path / "pipe")
    for read in (amos_ref.load_state, files.read_file, expect.read):
        kind = errors.ExpectationError if read is expect.read else errors.StorageError
        check_refusal(tmp_path / "pipe", ["cannot read", "not an ordinary file"], read, kind)
    check_refusal(tmp_path / "pipe", ["not an ordinary file"], save_new)


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for call in (save_new, amos_ref.load_state, lambda path: files.write_file(path, "x")):
        check_refusal("state", [os.strerror(errno.ENOENT)], call)
    save_new(tmp_path / "state")
    assert amos_ref.load_state(tmp_path / "state").count == 2


def test_links_lead_to_the_file_that_is_written(path):
    folder = path.parent
    (folder / "dangling").symlink_to("new")
    save_new(folder / "dangling")
    assert (folder / "dangling").is_symlink()
    assert amos_ref.load_state(folder / "new").count == 2
    (folder / "lost").symlink_to("none/new")
    (folder / "loop").symlink_to("loop")
    check_refusal(folder / "lost", ["No such file"], save_new)
    for call in (save_new, amos_ref.load_state):
        check_refusal(folder / "loop", [os.strerror(errno.ELOOP)], call)
    os.link(path, folder / "hard")
    save_new(path)
    # The other name keeps the old content.
    assert [amos_ref.load_state(folder / name).count for name in (path.name, "hard")] == [2, 1]


superuser = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="needs the superuser")


@superuser
def test_the_owner_and_the_permissions_of_the_old_file_are_kept(path):
    os.chown(path, 65534, 65533)
    path.chmod(0o4640)
    save_new(path)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65533, 0o4640)


@superuser
@pytest.mark.parametrize(("group", "mode"), [(65533, 0o660), (0, 0o600)])
def test_an_owner_that_cannot_be_kept_is_a_warning_and_opens_the_file_to_nobody_else(group, mode):
    code = """
import warnings
os.setgroups([65533]), os.setgid(65532), os.setuid(65534)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    amos_ref.save_state(sys.argv[1], STATE)
status = os.stat(sys.argv[1])
print(len(caught), oct(status.st_mode & 0o7777), status.st_uid, status.st_gid, caught[0].message)
try:
    warnings.simplefilter("error")
    amos_ref.save_state(sys.argv[2], STATE)
except RuntimeWarning:
    print(amos_ref.load_state(sys.argv[2]).count)
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        places = [pathlib.Path(folder) / name for name in "ab"]
        for place in places:
            amos_ref.save_state(place, OLD)
            os.chown(place, 0, group)
            place.chmod(0o660 if place.name == "a" else 0o664)
        told, count = in_child(code, *places).splitlines()
        assert sorted(os.listdir(folder)) == ["a", "b"]
    kept = group if group == 65533 else 65532
    assert told.startswith(f"1 {oct(mode)} 65534 {kept} the file that is replaced belongs to user 0 and group {group}")
    assert count == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
def test_memory_that_ends_is_a_named_error(path):
    code = """
import resource
a = {"w": np.ones(2_000_000)}
STATE = AmosState(3, a, a, None)
amos_ref.save_state(sys.argv[2], STATE)
def here():
    return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
for room in (0, 100_000, 500_000, 2_000_000, 10_000_000, 20_000_000, 30_000_000):
    resource.setrlimit(resource.RLIMIT_AS, (here() + room, -1))
    for call in (lambda: amos_ref.save_state(sys.argv[1], STATE), lambda: amos_ref.load_state(sys.argv[2])):
        try:
            call()
        except errors.OutOfMemoryError as error:
            print(error)
"""
    big = path.parent.parent / "big"
    told = in_child(code, path, big).splitlines()
    for doing, place in (("write", path), ("read", big)):
        assert any(line.startswith(f"cannot {doing} {str(place)!r}: there is n") for line in told)
    assert os.listdir(path.parent) == [path.name]
    assert amos_ref.load_state(path).count in (1, 3)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions")
def test_a_folder_that_may_not_be_written_to_keeps_its_file():
    # The superuser may write anywhere, so the child becomes somebody else.
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "state"
        amos_ref.save_state(path, OLD)
        path.chmod(0o644)
        os.chmod(folder, 0o555)
        message = in_child("if os.geteuid() == 0: os.setuid(65534)" + SAVE_AND_PRINT, path)
        os.chmod(folder, 0o755)
        assert message == f"cannot write {str(path)!r}: {os.strerror(errno.EACCES)}"
        check_untouched(path)
