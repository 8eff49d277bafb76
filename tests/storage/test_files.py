"""What goes wrong with files: killed processes, full disks, damage of every bit, files made to deceive.

After each the old file is whole, nothing is left beside it, and the error is named and in one line.
"""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc

import numpy as np
import pytest
from helpers.checkpoints import naive_file, sealed, state_bits
from helpers.messages import one_line

import amos_ref
from amos_ref import Amos, AmosState, errors
from amos_ref.storage import container

LIKE = {"w": np.zeros(2, "f4"), "x": np.zeros((2, 1))}
OLD = AmosState(1, {"w": np.array([0.5, 0.25], "f4"), "x": np.ones(1)}, {"w": np.ones(2, "f4"), "x": np.ones(1)}, None)
NEW = OLD._replace(count=2)


@pytest.fixture
def path(tmp_path):
    """A file that holds OLD, alone in its folder."""
    amos_ref.save_state(tmp_path / "state", OLD)
    return tmp_path / "state"


def refused(path, words, call=amos_ref.load_state, error=errors.StorageError):
    with pytest.raises(error) as caught:
        call(path)
    assert type(caught.value) is error
    one_line(caught.value, [repr(str(path)), *words])
    return str(caught.value)


def untouched(path):
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert state_bits(amos_ref.load_state(path)) == state_bits(OLD)


def save_new(path):
    amos_ref.save_state(path, NEW)


# writing fails


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
    refused(path, ["cannot write", os.strerror(code)], save_new)
    monkeypatch.undo()
    untouched(path)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), MemoryError(), SystemExit(1)])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_an_interrupt_leaves_the_old_file_and_is_passed_on(name, interrupt, path, monkeypatch):
    monkeypatch.setattr(os, name, FailingCall(getattr(os, name), 1, interrupt))
    with pytest.raises(type(interrupt)):
        save_new(path)
    monkeypatch.undo()
    untouched(path)


def test_a_folder_that_is_not_flushed_is_an_error_with_the_new_file_in_place(path, monkeypatch):
    monkeypatch.setattr(os, "fsync", FailingCall(os.fsync, 2, OSError(errno.EIO, os.strerror(errno.EIO))))
    refused(path, ["in place", "folder", os.strerror(errno.EIO)], save_new)
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
    refused(path, [os.strerror(errno.EIO)], save_new)


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


def test_places_where_no_file_can_be(path):
    folder = path.parent
    for place, words in (
        (folder / "none" / "state", ["No such file"]),
        (path / "state", ["Not a directory"]),
        (folder, ["no ordinary file"]),
        (pathlib.Path(os.devnull), ["no ordinary file"]),
        (folder / ("n" * 300), ["name too long"]),
    ):
        refused(place, ["cannot write", *words], save_new)
    if os.path.isdir("/proc/self"):
        refused(pathlib.Path("/proc/amos_ref_state"), ["cannot write"], save_new)
    for place, words in (
        (folder / "none", ["No such file"]),
        (path / "state", ["Not a directory"]),
        (folder, ["no ordinary file"]),
        (pathlib.Path(os.devnull), ["no ordinary file"]),
    ):
        refused(place, ["cannot read", *words])
    untouched(path)


@pytest.mark.parametrize("place", [3, None, "a\0b", "\ud800", 0.5])
def test_what_is_no_path_is_named(place):
    for call in (amos_ref.load_state, save_new):
        with pytest.raises(errors.StorageError) as caught:
            call(place)
        one_line(caught.value, [repr(place), "no path"])


def in_child(code, *arguments):
    """Run code in a child that has STATE of count 2; return what it printed."""
    start = "import os, sys, numpy as np, amos_ref\nfrom amos_ref import AmosState, errors\n"
    start += (
        "ones = {str(i): np.ones(500) for i in range(8)}\nSTATE = AmosState(2, ones, ones, None)\namos_ref.save_state\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", start + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return found.stdout.strip()


SAVE_AND_PRINT = """
try:
    amos_ref.save_state(sys.argv[1], STATE)
except errors.StorageError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit", [0, 100, 9000, 40000])
def test_a_full_disk_leaves_the_old_file(limit, path):
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))" + SAVE_AND_PRINT
    message = in_child(code, path)
    assert message == f"cannot write {str(path)!r}: {os.strerror(errno.EFBIG)}"
    untouched(path)


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
        untouched(path)


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


# damage


@pytest.fixture(params=["state", "everything"])
def whole(request, tmp_path):
    """(path, a call that loads it): a small file of either kind."""
    path = tmp_path / "state"
    if request.param == "state":
        amos_ref.save_state(path, OLD)
        return path, lambda place: amos_ref.load_state(place, like=LIKE)
    params = {"w": np.ones((0, 1), "f2")}
    opt = Amos(momentum=0.5)
    amos_ref.save(path, params, opt.init(params), opt)
    return path, lambda place: amos_ref.load(place, params)


def test_a_file_cut_anywhere_or_with_more_behind_is_refused(whole):
    path, load = whole
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, ["cannot read"], load)
    for more in (b"\0", b" ", data):
        path.write_bytes(data + more)
        refused(path, ["bytes follow the header"], load)
    path.write_bytes(data)
    load(path)


def test_every_flipped_bit_is_noticed(whole):
    path, load = whole
    data = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            for bit in range(8):
                file.seek(place)
                file.write(bytes([byte ^ 1 << bit]))
                refused(path, ["cannot read"], load)
            file.seek(place)
            file.write(bytes([byte]))
    load(path)


def test_without_the_hash_flipped_bits_would_pass(path, monkeypatch):
    """The test above can fail: with a hash that always agrees, damage to the numbers comes through."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(path, ["damaged", "SHA-256"])
    text = data[8 : 8 + int.from_bytes(data[:8], "little")]
    stated = text[text.index(b'"sha256":"') + 10 :][:64].decode()

    class Agrees:
        def __init__(self, data=b""):
            pass

        update = __init__

        def hexdigest(self):
            return stated

    monkeypatch.setattr(container.hashlib, "sha256", Agrees)
    assert state_bits(amos_ref.load_state(path)) != state_bits(OLD)


@pytest.mark.parametrize(("change", "words"), [("write", ["damaged"]), ("truncate", ["ends inside array"])])
def test_a_file_that_changes_while_it_is_read_is_refused(change, words, path, monkeypatch):
    verify = container.verify

    def verify_then_change(file, header):
        verify(file, header)
        with open(path, "r+b") as other:
            other.seek(-1, os.SEEK_END)
            other.write(b"\x7f") if change == "write" else other.truncate()

    monkeypatch.setattr(container, "verify", verify_then_change)
    refused(path, words)


# files made to deceive: their hash is right

TEXTS = {"format": "amos-ref-state", "version": "1", "package": "x", "count": "1", "momentum": "no", "leaves": '["w"]'}
ARRAYS = {"v/w": np.ones(2), "b/w": np.ones(2)}
OPT = {"optimizer": "Amos", "options": "{}"}
V = {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}


def described(**changes):
    return naive_file(TEXTS, ARRAYS, **{"v/w": {**V, **changes}})


def texts(arrays=ARRAYS, **changes):
    return naive_file({**TEXTS, **changes}, arrays)


def header(text, data=b""):
    return sealed(text.encode() if isinstance(text, str) else text, data)


MADE = {
    "other format": (texts(format="pt"), ["format", "'pt'", "'amos-ref-state'"]),
    "no format": (naive_file({}, ARRAYS), ["format", "None"]),
    "newer version": (texts(version="2"), ["version is '2'", "reads version '1'"]),
    "count -1": (texts(count="-1"), ["count", "'-1'"]),
    "count 1.0": (texts(count="1.0"), ["count", "'1.0'"]),
    "count in other digits": (texts(count="\u0661"), ["count"]),
    "count of 601 digits": (texts(count="1" * 601), ["count"]),
    "no count": (naive_file({k: t for k, t in TEXTS.items() if k != "count"}, ARRAYS), ["count", "None"]),
    "momentum maybe": (texts(momentum="maybe"), ["momentum", "'maybe'"]),
    "momentum without m": (texts(momentum="yes"), ["arrays", "'m/w'"]),
    "leaves no JSON": (texts(leaves="[w]"), ["JSON"]),
    "leaves a text": (texts(leaves='"w"'), ["leaves", "'w'"]),
    "leaves numbers": (texts(leaves="[1]"), ["leaves", "[1]"]),
    "leaves twice": (texts(leaves='["w", "w"]'), ["twice"]),
    "leaf without arrays": (texts(leaves='["w", "z"]'), ["'b/z', 'v/z'"]),
    "array without leaf": (texts({**ARRAYS, "theta/w": np.ones(2)}), ["'theta/w'"]),
    "array of no part": (texts({**ARRAYS, "w": np.ones(2)}), ["'w'"]),
    "texts that are numbers": (texts(count=1), ["texts", "__metadata__"]),
    "texts in a list": (naive_file(TEXTS, ARRAYS, __metadata__=[]), ["texts"]),
    "no texts": (header('{"v/w":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}', b"8" * 8), ["texts"]),
    "no JSON": (header(b"\x80\x04}q\x00."), ["JSON"]),
    "bytes that are no UTF-8": (header(b'{"\xff":1}'), ["JSON"]),
    "empty header": (header(""), ["JSON"]),
    "a list": (header("[]"), ["JSON object"]),
    "a space first": (header(" {}"), ["JSON object"]),
    "a name twice": (header('{"__metadata__":{},"__metadata__":{}}'), ["'__metadata__' twice"]),
    "NaN": (header('{"__metadata__":NaN}'), ["NaN"]),
    "Infinity": (header('{"__metadata__":-Infinity}'), ["-Infinity"]),
    "deep": (header('{"__metadata__":' + "[" * 100_000), ["JSON"]),
    "an endless number": (header('{"__metadata__":' + "9" * 5000 + "}"), ["JSON"]),
    "a surrogate": (texts(leaves='["\\ud800"]'), ["arrays"]),
    "dtype unknown": (described(dtype="I64"), ["'v/w'", "'I64'", "F64"]),
    "dtype a number": (described(dtype=8), ["'v/w'", "dtype"]),
    "dtype narrower": (described(dtype="F32"), ["'v/w' has 16 bytes", "float32 takes 8"]),
    "shape longer": (described(shape=[3]), ["'v/w' has 16 bytes", "[3]", "takes 24"]),
    "shape negative": (described(shape=[-1, -2]), ["'v/w'", "[-1, -2]"]),
    "shape of truths": (described(shape=[True, 2]), ["'v/w'", "True"]),
    "shape of fractions": (described(shape=[2.0]), ["'v/w'", "[2.0]"]),
    "shape of texts": (described(shape=["2"]), ["'v/w'"]),
    "shape no list": (described(shape=2), ["'v/w'"]),
    "shape too large": (described(shape=[2**63, 0]), ["'v/w'"]),
    "shape of 65 axes": (described(shape=[1] * 64 + [2]), ["'v/w'"]),
    "offsets backwards": (described(data_offsets=[16, 0]), ["'v/w' has -16 bytes"]),
    "offsets negative": (described(data_offsets=[-16, 0]), ["'v/w'", "-16"]),
    "offsets one": (described(data_offsets=[16]), ["'v/w'"]),
    "offsets shared": (described(data_offsets=[16, 32]), ["'v/w' starts at byte 16", "must start at 0"]),
    "offsets with a gap": (described(data_offsets=[32, 48]), ["'b/w' starts at byte 16", "must start at 0"]),
    "offsets beyond": (naive_file(TEXTS, {"v/w": np.ones(2)}, **{"b/w": {**V, "data_offsets": [16, 32]}}), ["take 32"]),
    "offsets too few": (
        naive_file(TEXTS, ARRAYS, **{"b/w": {**V, "shape": [], "data_offsets": [16, 24]}}),
        ["take 24 bytes", "32 bytes follow"],
    ),
    "more in an entry": (described(more=1), ["'v/w'", "dtype, shape and data_offsets"]),
    "an entry that is a number": (naive_file(TEXTS, ARRAYS, **{"v/w": 3}), ["'v/w'", "3"]),
    "no hash": (texts().replace(b'"sha256"', b'"sha257"'), ["SHA-256"]),
    "too large for NumPy": (
        naive_file({**TEXTS, "leaves": '["w"]'}, {"v/w": np.ones(0), "b/w": np.ones(0)}, **{
            "v/w": {"dtype": "F64", "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}
        }),
        ["no room", "'v/w'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MADE)
def test_a_file_that_says_what_cannot_be_is_refused(case, tmp_path):
    data, words = MADE[case]
    (tmp_path / "made").write_bytes(data)
    refused(tmp_path / "made", words)


OPTIONS = {
    "optimizer unknown": ({"optimizer": "Adam"}, ["optimizer", "'Adam'"], errors.StorageError),
    "options a list": ({"options": "[]"}, ["options", "[]"], errors.StorageError),
    "options no JSON": ({"options": "{"}, ["JSON"], errors.StorageError),
    "option unknown": ({"options": '{"lr": 0.1}'}, ["lr"], errors.HyperParameterError),
    "option out of range": ({"options": '{"beta": 2.0}'}, ["beta", "2.0"], errors.HyperParameterError),
    "option of no kind": ({"options": '{"eta": {"code": "x"}}'}, ["{'code': 'x'}"], errors.StorageError),
    "rules of three": ({"options": '{"eta": {"rules": [["a", 1, 2]]}}'}, ["rules"], errors.StorageError),
    "rules named by numbers": ({"options": '{"eta": {"rules": [[1, 2]]}}'}, ["rules"], errors.StorageError),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be_are_refused(case, tmp_path):
    changes, words, error = OPTIONS[case]
    data = naive_file({**TEXTS, **OPT, **changes}, {**ARRAYS, "theta/w": np.ones(2)})
    (tmp_path / "made").write_bytes(data)
    refused(tmp_path / "made", words, lambda path: amos_ref.load(path, {"w": np.ones(2)}), error)


def test_the_file_that_the_made_ones_change_is_a_good_one(tmp_path):
    (tmp_path / "made").write_bytes(described())
    assert amos_ref.load_state(tmp_path / "made").count == 1
    (tmp_path / "made").write_bytes(naive_file({**TEXTS, **OPT}, {**ARRAYS, "theta/w": np.ones(2)}))
    assert amos_ref.load(tmp_path / "made", {"w": np.ones(2)}).opt.options == Amos().options


@pytest.mark.parametrize("claim", [10 * 10**9, 2**63, 2**64 - 1])
@pytest.mark.parametrize("what", ["header", "array"])
def test_a_claim_of_gigabytes_allocates_nothing(what, claim, tmp_path):
    path = tmp_path / "huge"
    stop = 16 + claim // 8 * 8
    if what == "header":
        path.write_bytes(claim.to_bytes(8, "little") + described()[8:])
    else:
        entry = {"dtype": "F64", "shape": [claim // 8], "data_offsets": [16, stop]}
        path.write_bytes(naive_file(TEXTS, ARRAYS, **{"b/w": entry}))
    amos_ref.load_state  # noqa: B018 (imports the module, which shall not count)
    tracemalloc.start()
    try:
        refused(path, [str(claim if what == "header" else stop)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_header_longer_than_other_readers_take_is_refused_both_ways(path, monkeypatch):
    monkeypatch.setattr(container, "LONGEST_HEADER", 100)
    refused(path, ["claims", "at most 100"])
    refused(path, ["would take", "at most 100"], save_new)
    monkeypatch.undo()
    untouched(path)


def test_unwanted_arrays_are_read_in_pieces(tmp_path, monkeypatch):
    """A state is loaded beside parameters that are longer than a piece, which take no room."""
    monkeypatch.setattr(container, "PIECE", 1000 * 8)
    params = {"w": np.arange(10_500.0)}
    opt = Amos(momentum=0.5)
    state = opt.init(params)._replace(count=5, m={"w": np.arange(10_500.0) / 3})
    amos_ref.save(tmp_path / "all", params, state, opt)
    assert state_bits(amos_ref.load_state(tmp_path / "all", params)) == state_bits(state)
    tracemalloc.start()
    try:
        amos_ref.load_state(tmp_path / "all", params)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # m takes 84,000 bytes; with theta it would be twice that.
    assert peak < 150_000


def test_bfloat16_without_ml_dtypes_is_a_named_error(tmp_path, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = {"w": np.ones(2, ml_dtypes.bfloat16)}
    amos_ref.save_state(tmp_path / "state", AmosState(1, a, a, None))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    refused(tmp_path / "state", ["pip install 'amos_ref[bf16]'"], error=errors.MissingDependencyError)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes with names")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", ["no ordinary file"])
    refused(tmp_path / "pipe", ["no ordinary file"], save_new)
