"""What goes wrong while a file is written: killed processes, full disks, system calls that fail.

After each the old file is whole, nothing is left beside it, and the error is named and in one line.
"""

import ast
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.checkpoints import NEW, OLD, SAVE_AND_PRINT, check_refusal, check_untouched, in_child, save_new, state_bits
from helpers.messages import one_line

import amos_ref
from amos_ref import AmosState, errors
from amos_ref.storage import files


class FailingCall:
    """A system call that fails at its n-th use."""

    def __init__(self, original, n, error):
        self.original, self.left, self.error = original, n, error

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.original(*args, **kwargs)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize(("name", "n"), [("open", 1), ("open", 2), ("fsync", 1), ("chmod", 1), ("replace", 1)])
def test_a_failing_call_leaves_the_old_file(name, n, code, path, monkeypatch):
    monkeypatch.setattr(os, name, FailingCall(getattr(os, name), n, OSError(code, os.strerror(code))))
    check_refusal(path, ["cannot write", os.strerror(code)], save_new)
    monkeypatch.undo()
    check_untouched(path)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), MemoryError(), SystemExit(1)])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_file_and_is_passed_on(name, interrupt, path, monkeypatch):
    monkeypatch.setattr(os, name, FailingCall(getattr(os, name), 1, interrupt))
    with pytest.raises(type(interrupt)):
        save_new(path)
    monkeypatch.undo()
    check_untouched(path)


def test_a_folder_that_is_not_flushed_is_an_error_with_the_new_file_in_place(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", FailingCall(os.fsync, 2, OSError(errno.EIO, os.strerror(errno.EIO))))
    check_refusal(path, ["in place", "folder", os.strerror(errno.EIO)], save_new)
    monkeypatch.undo()
    assert state_bits(amos_ref.load_state(path)) == state_bits(NEW)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_flushes_no_folders_is_no_error(code, path, monkeypatch):
    monkeypatch.setattr(os, "fsync", FailingCall(os.fsync, 2, OSError(code, os.strerror(code))))
    save_new(path)
    assert amos_ref.load_state(path).count == 2


def test_a_system_that_opens_no_folders_saves_all_the_same(path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    save_new(path)
    assert amos_ref.load_state(path).count == 2


def test_data_and_folder_are_flushed_in_this_order_around_the_replacement(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(file):
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file")
        fsync(file)

    def noted_replace(old, new):
        # All that the new file will hold is in it before it gets its name.
        assert amos_ref.load_state(old).count == 2
        calls.append("replace")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_new(path)
    if os.path.isdir("/proc/self/fd"):
        assert calls == ["file", "replace", "folder"]


def test_a_file_that_no_longer_can_be_removed_does_not_hide_the_error(path, monkeypatch):
    monkeypatch.setattr(os, "replace", FailingCall(os.replace, 1, OSError(errno.EIO, os.strerror(errno.EIO))))
    monkeypatch.setattr(os, "unlink", FailingCall(os.unlink, 1, OSError(errno.EROFS, os.strerror(errno.EROFS))))
    check_refusal(path, [os.strerror(errno.EIO)], save_new)


def test_two_saves_at_once_do_not_meet(path, monkeypatch):
    replace = os.replace

    def save_in_between(old, new):
        monkeypatch.setattr(os, "replace", replace)
        amos_ref.save_state(path, OLD._replace(count=3))
        assert amos_ref.load_state(path).count == 3
        replace(old, new)

    monkeypatch.setattr(os, "replace", save_in_between)
    save_new(path)
    assert amos_ref.load_state(path).count == 2
    assert os.listdir(path.parent) == [path.name]


# full disks and killed processes


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [0, 100, 9000, 40000])
def test_a_full_disk_leaves_the_old_file(limit, path):
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))" + SAVE_AND_PRINT
    message = in_child(code, path)
    assert message == f"cannot write {str(path)!r}: {os.strerror(errno.EFBIG)}"
    check_untouched(path)


# A process that has imported everything forks a child at each line that it reads. The child saves on and on.
SAVER = """
import os, sys, numpy as np, amos_ref
path = sys.argv[1]
amos_ref.save_state
for line in sys.stdin:
    count, child = int(line), os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        while True:
            count += 1
            a = {"w": np.full(3000, float(count))}
            amos_ref.save_state(path, amos_ref.AmosState(count, a, a, None))
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_the_file_is_the_old_or_the_new_one(path):
    rng = np.random.default_rng(200)
    a = {"w": np.zeros(3000)}
    amos_ref.save_state(path, AmosState(0, a, a, None))
    count = left = 0
    saver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SAVER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    with saver:
        assert saver.stdin is not None
        assert saver.stdout is not None
        for _ in range(200):
            print(count, file=saver.stdin, flush=True)
            child = int(saver.stdout.readline())
            time.sleep(rng.exponential(0.004))
            os.kill(child, signal.SIGKILL)
            assert saver.stdout.readline() == "dead\n"
            state = amos_ref.load_state(path, like=a)
            assert state.count >= count
            count = state.count
            assert all((part["w"] == count).all() for part in (state.v, state.b))
            # A killed process cannot tidy up; what it leaves has a name of its own.
            for entry in set(os.listdir(path.parent)) - {path.name}:
                assert entry.startswith(".amos-ref-")
                assert entry.endswith(".tmp")
                left += 1
                (path.parent / entry).unlink()
        saver.stdin.close()
    # The test has seen something: saves were finished, and saves were cut.
    assert count > 0
    assert left > 0


# the writer by itself


def test_a_file_that_is_written_to_after_work_is_refused_before_it(path):
    folder = path.parent / "none"
    with pytest.raises(errors.StorageError) as caught, files.reserve_file(folder / "x"):
        raise AssertionError("the work began")
    one_line(caught.value, ["cannot write", repr(str(folder / "x")), "No such file"])


def test_an_error_of_the_work_passes_as_it_is_and_leaves_the_old_file(path):
    def work():
        with files.reserve_file(path) as file:
            file.write(b"half")
            raise errors.ProblemError("no answer")

    with pytest.raises(errors.ProblemError, match=r"^no answer$"):
        work()
    check_untouched(path)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_error_after_the_work_names_the_file(name, path, monkeypatch):
    monkeypatch.setattr(os, name, FailingCall(getattr(os, name), 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(errors.StorageError) as caught, files.reserve_file(path) as file:
        file.write(b"new")
    one_line(caught.value, ["cannot write", repr(str(path)), os.strerror(errno.ENOSPC)])
    monkeypatch.undo()
    check_untouched(path)


@pytest.mark.parametrize("content", ["größe\n", b"\xff\r\n"])
def test_a_file_is_written_whole(content, path):
    files.write_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(path.parent) == [path.name]


# the only writer

ROOT = pathlib.Path(amos_ref.__file__).parent.parent
OTHERS = {
    "noxfile.py",  # two ports in a temporary folder, which the build session checks
    "amos_ref/conformance/ports/command.py",  # a transcript grows line by line, so that it survives a port that dies
}


def writes(tree):
    """Yield the lines of a source that write a file by themselves; the system's own (/dev/null, /proc) are none."""
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if isinstance(node.func, ast.Name) and name == "open":
            place = ast.unparse(node.args[0])
            modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
            reads = all(isinstance(mode, ast.Constant) and not set(str(mode.value)) & set("wax+") for mode in modes)
            if not reads and place != "os.devnull" and not place.startswith("'/proc/"):
                yield node.lineno
        elif name in ("write_text", "write_bytes"):
            yield node.lineno


def test_every_file_of_the_package_and_its_tools_is_written_by_one_function():
    paths = [*(ROOT / "amos_ref").rglob("*.py"), *(ROOT / "tools").glob("*.py"), ROOT / "noxfile.py"]
    found = {str(path.relative_to(ROOT)) for path in paths if any(writes(ast.parse(path.read_text("utf-8"))))}
    assert found == OTHERS


@pytest.mark.parametrize("text", ["open(p, 'w')", "open(p, mode)", "p.write_text(x)", "open(p, mode='r+b')"])
def test_another_writer_would_be_seen(text):
    assert list(writes(ast.parse(text))) == [1]
