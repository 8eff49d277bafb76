"""What comes from outside at any point of a save or load: interrupts, failing system calls, failing allocations.

After each the file is the old or the new one, whole, its folder holds no other, and no descriptor is left open.
"""

import contextlib
import errno
import gc
import os
import subprocess
import sys

import pytest
from helpers.checkpoints import NEW, OLD, state_bits
from helpers.messages import one_line

import amos_ref
from amos_ref import errors
from amos_ref.storage import checkpoint, container, files

WRITER, READER = {files.__file__}, {checkpoint.__file__, contextlib.__file__}

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs a list of open descriptors")


@pytest.fixture
def check(path):
    """A check of what must hold after everything, without the garbage collector's help."""

    def check_file():
        assert os.listdir(path.parent) == [path.name]
        assert state_bits(amos_ref.load_state(path)) in (state_bits(OLD), state_bits(NEW))
        assert os.listdir("/proc/self/fd") == before

    before = os.listdir("/proc/self/fd")
    gc.disable()
    yield check_file
    gc.enable()


# at any bytecode


class Interrupt:
    """Raise KeyboardInterrupt before the n-th bytecode that runs in these source files."""

    def __init__(self, n, sources):
        self.left, self.sources = n, sources

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in self.sources:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupt_everywhere(call, sources, check):
    """Call with an interrupt at the first, second, ... bytecode until it has no such bytecode; return how many."""
    n, left, tracer = -1, 0, sys.gettrace()  # the first run interrupts nothing: Python 3.12 has to see the code once
    while left <= 0:
        n += 1
        interrupt = Interrupt(n, sources)
        sys.settrace(interrupt)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        check()
        left = interrupt.left
    print(f"\n{n - 1} bytecodes")
    return n - 1


@pytest.fixture
def no_flush(monkeypatch):
    """Many saves are quick where the disk is not waited for."""
    monkeypatch.setattr(os, "fsync", id)


@pytest.mark.usefixtures("no_flush")
def test_an_interrupt_at_any_bytecode_of_a_save_leaves_nothing_behind(path, check):
    sources = WRITER | READER | {container.__file__}
    assert interrupt_everywhere(lambda: amos_ref.save_state(path, NEW), sources, check) > 1000


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_interrupt_at_any_bytecode_of_a_load_leaves_nothing_open(path, check):
    assert interrupt_everywhere(lambda: amos_ref.load_state(path), WRITER | READER, check) > 500


def open_slowly(opened, path, flags, mode=0o777):
    descriptor = os.open(path, flags, mode)
    opened.append(descriptor)
    return descriptor


def close_slowly(opened):
    os.close(opened.pop())


@pytest.mark.usefixtures("no_flush")
@pytest.mark.parametrize(("name", "slow"), [("_open", open_slowly), ("_close_last", close_slowly)])
def test_a_moment_between_a_call_and_its_note_is_found(name, slow, path, check, monkeypatch):
    monkeypatch.setattr(files, name, slow)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(AssertionError):
        interrupt_everywhere(lambda: amos_ref.save_state(path, NEW), WRITER | {__file__}, check)
    for descriptor in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(int(descriptor))


# at any system call

CALLS = ("stat", "open", "write", "lseek", "fsync", "chmod", "fstat", "close", "replace")


class Failing:
    """System calls of which the n-th of all fails; a close that fails closes nevertheless, as on Linux."""

    def __init__(self, n, error):
        self.left, self.error, self.calls = n, error, []

    def wrap(self, name, original):
        def call(*arguments, **options):
            self.left -= 1
            self.calls += [name] * (self.left >= 0)
            if self.left == 0:
                if name == "close":
                    original(*arguments)
                raise self.error
            return original(*arguments, **options)

        return call


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM])
def test_every_system_call_may_fail(code, path, check, monkeypatch):
    n, left = 0, 0
    while left <= 0:
        n += 1
        failing = Failing(n, OSError(code, os.strerror(code)))
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, failing.wrap(name, getattr(os, name)))
            caught = None
            try:
                amos_ref.save_state(path, NEW)
            except errors.StorageError as error:
                caught = error
        left = failing.left
        harmless = failing.calls[-3:] == ["replace", "fsync", "close"]  # of the folder, when all is done
        assert (caught is None) == (left > 0 or harmless)
        if caught is not None:
            one_line(caught, ["cannot write", repr(str(path)), os.strerror(code)])
        check()
    print(f"\n{n - 1} system calls")
    assert n > 10


def test_a_system_that_writes_little_at_a_time_writes_the_same_file(path, monkeypatch):
    amos_ref.save_state(path, NEW)
    whole, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    amos_ref.save_state(path, NEW)
    assert path.read_bytes() == whole


# at any allocation

# Flattening a tree is left out: optree ends the process where it gets no memory.
ALLOCATIONS = """
import os, sys, _testcapi, numpy as np, amos_ref
from amos_ref.storage import checkpoint
checkpoint.as_array_tree = lambda tree, what: tree
checkpoint.named_arrays = lambda tree, name="": dict(tree)
checkpoint.tree.present = lambda tree, name="": dict(tree)
checkpoint.tree.unflatten = lambda arrays, like: arrays
path, ones = sys.argv[1], {name: np.ones(5) for name in "ab"}
opt = amos_ref.Amos(eta={".*": 0.5})
old = amos_ref.AmosState(1, ones, ones, None)
calls = [lambda: amos_ref.save(path, ones, old._replace(count=2), opt), lambda: amos_ref.load(path, ones)]
amos_ref.save(path, ones, old, opt)
for call in calls:
    call()
    before = os.listdir("/proc/self/fd")
    n = failed = passed = 0
    while passed < 50:  # in a row: some things are allocated once only, some failures do no harm
        n += 1
        caught = None
        _testcapi.set_nomemory(n, n + 1)
        try:
            call()
        except Exception as error:
            caught = error
        finally:
            _testcapi.remove_mem_hooks()
        passed = 0 if caught else passed + 1
        failed += bool(caught)
        named = isinstance(caught, (amos_ref.errors.StorageError, MemoryError))
        assert caught is None or named or str(caught) == "can't allocate read lock", repr(caught)
        caught = None
        assert os.listdir("/proc/self/fd") == before
        assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
        assert amos_ref.load_state(path).count in (1, 2)
    print(failed)
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python itself ends where it has no room for a function")
def test_any_allocation_may_fail(tmp_path):
    pytest.importorskip("_testcapi")
    code = [sys.executable, "-W", "ignore", "-c", ALLOCATIONS, str(tmp_path / "state")]
    found = subprocess.run(code, capture_output=True, text=True, timeout=100)
    assert found.returncode == 0, found.stderr
    print(f"\n{found.stdout.split()} allocations")
    assert [int(n) > 500 for n in found.stdout.split()] == [True, True], found.stdout
