"""Files that are damaged, or made to deceive: each is refused by a named error in one line."""

import os
import sys
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from helpers.checkpoints import NEW, OLD, check_refusal, naive_file, sealed, state_bits

import amos_ref
from amos_ref import Amos, AmosState, errors
from amos_ref.storage import container, files

LIKE = {"w": np.zeros(2, "f4"), "x": np.zeros((2, 1))}

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
        check_refusal(path, ["cannot read"], load)
    for more in (b"\0", b" ", data):
        path.write_bytes(data + more)
        check_refusal(path, ["bytes follow the header"], load)
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
                check_refusal(path, ["cannot read"], load)
            file.seek(place)
            file.write(bytes([byte]))
    load(path)


def test_without_the_hash_flipped_bits_would_pass(path, monkeypatch):
    """The test above can fail: with a hash that always agrees, damage to the numbers comes through."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    check_refusal(path, ["damaged", "SHA-256"])
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
    check_refusal(path, words)


# arrays that another thread writes to while they are saved


@pytest.fixture
def busy(monkeypatch):
    """A state that changes before and after everything that is written, as if a thread stepped it meanwhile."""
    a = np.arange(100.0).reshape(10, 10)
    arrays = {"w": a, "strided": a[::2, ::-1], "f2": np.zeros(9, "f2"), "again": np.broadcast_to(a[0], (3, 10))}
    write = files.write

    def step():
        a[:] += 1
        arrays["f2"] += 1

    def write_and_step(file, data):
        step()
        write(file, data)
        step()

    monkeypatch.setattr(files, "write", write_and_step)
    monkeypatch.setattr(container, "BYTES_AT_ONCE", 64)
    return AmosState(1, arrays, dict(arrays), None)


def test_a_save_while_the_arrays_are_written_to_gives_a_whole_file(busy, path):
    amos_ref.save_state(path, busy)
    found = amos_ref.load_state(path)
    assert {name: a.shape for name, a in found.v.items()} == {name: a.shape for name, a in busy.v.items()}
    assert not np.array_equal(found.v["w"], busy.v["w"])


def test_a_writer_that_hashes_the_arrays_themselves_is_caught(busy, path, monkeypatch):
    def view_pieces(arrays):
        return (np.ascontiguousarray(a).reshape(-1).view(np.uint8).data for a in arrays.values())

    monkeypatch.setattr(container, "_copy_pieces", view_pieces)
    amos_ref.save_state(path, busy)
    check_refusal(path, ["damaged"])


def test_an_array_that_gets_another_shape_while_it_is_saved_keeps_the_one_in_the_header(path, monkeypatch):
    build = container._build_header

    def build_and_reshape(arrays, metadata):
        header = build(arrays, metadata)
        a.shape = (6,)
        with pytest.raises(ValueError, match="resize"):
            a.resize(3)
        return header

    a = np.ones((2, 3))
    monkeypatch.setattr(container, "_build_header", build_and_reshape)
    amos_ref.save_state(path, AmosState(1, {"w": a}, {"w": a}, None))
    assert amos_ref.load_state(path).v["w"].shape == (2, 3)


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
    check_refusal(tmp_path / "made", words)


OPTIONS = {
    "optimizer unknown": ({"optimizer": "Adam"}, ["optimizer", "'Adam'"], errors.StorageError),
    "options a list": ({"options": "[]"}, ["options", "[]"], errors.StorageError),
    "options no JSON": ({"options": "{"}, ["JSON"], errors.StorageError),
    "option unknown": ({"options": '{"lr": 0.1}'}, ["lr"], errors.HyperParameterError),
    "option out of range": ({"options": '{"beta": 2.0}'}, ["beta", "2.0"], errors.HyperParameterError),
    "option of no kind": ({"options": '{"eta": {"code": "x"}}'}, ["{'code': 'x'}"], errors.StorageError),
    "rules of three": ({"options": '{"eta": {"rules": [["a", 1, 2]]}}'}, ["rules"], errors.StorageError),
    "rules too deep": (
        {"options": '{"eta":' + "[" * 900 + "]" * 900 + "}"},
        ["nested too deeply"],
        errors.StorageError,
    ),
    "a name of a million letters": ({"options": '{"' + "a" * 10**6 + '": 1}'}, ["aaa"], errors.HyperParameterError),
    "a number that floats cannot hold": ({"options": '{"beta": 1e999}'}, ["beta is inf"], errors.HyperParameterError),
    "rules named by numbers": ({"options": '{"eta": {"rules": [[1, 2]]}}'}, ["rules"], errors.StorageError),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be_are_refused(case, tmp_path):
    changes, words, error = OPTIONS[case]
    data = naive_file({**TEXTS, **OPT, **changes}, {**ARRAYS, "theta/w": np.ones(2)})
    (tmp_path / "made").write_bytes(data)
    check_refusal(tmp_path / "made", words, lambda path: amos_ref.load(path, {"w": np.ones(2)}), error)
    with pytest.raises(error) as caught:
        amos_ref.load(tmp_path / "made", {"w": np.ones(2)})
    assert len(str(caught.value)) < 11_000


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
        check_refusal(path, [str(claim if what == "header" else stop)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_header_longer_than_other_readers_take_is_refused_both_ways(path, monkeypatch):
    monkeypatch.setattr(container, "LONGEST_HEADER", 100)
    check_refusal(path, ["claims", "at most 100"])
    check_refusal(path, ["would take", "at most 100"], lambda place: amos_ref.save_state(place, NEW))
    monkeypatch.undo()
    assert os.listdir(path.parent) == [path.name]
    assert state_bits(amos_ref.load_state(path)) == state_bits(OLD)


def test_unwanted_arrays_are_read_in_pieces(tmp_path, monkeypatch):
    """A state is loaded beside parameters that are longer than a piece, which take no room."""
    monkeypatch.setattr(container, "BYTES_AT_ONCE", 1000 * 8)
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
    a = {"w": np.ones(2, ml_dtypes.bfloat16)}
    amos_ref.save_state(tmp_path / "state", AmosState(1, a, a, None))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    check_refusal(tmp_path / "state", ["pip install --force-reinstall ml_dtypes"], error=errors.MissingDependencyError)
