"""Names and shapes from files."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from helpers.messages import one_line

import amos_ref
from amos_ref.choosing.files import read_file
from amos_ref.errors import AmosError, DtypeError, StorageError

SHAPES = {"fc1.weight": [8, 4], "fc1.bias": [8]}


def safetensors(path, entries, metadata=None):
    """Write a header by hand, and no arrays behind it: they are not read."""
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in entries.items()
    }
    text = json.dumps(({"__metadata__": metadata} if metadata else {}) | header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def shapes_of(path):
    return {name: entry.shape for name, entry in amos_ref.choose(read_file(path)).items()}


def test_safetensors(tmp_path):
    entries = {name: ("BF16", shape) for name, shape in SHAPES.items()} | {"ids": ("I64", [3])}
    path = safetensors(tmp_path / "a.safetensors", entries)
    assert shapes_of(path) == {"fc1.weight": (8, 4), "fc1.bias": (8,), "ids": (3,)}
    assert amos_ref.choose(read_file(path)).named("buffer") == ["ids"]


def test_an_index_of_several_safetensors(tmp_path):
    for i, (name, shape) in enumerate(SHAPES.items()):
        safetensors(tmp_path / f"part{i}", {name: ("F32", shape)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: f"part{i}" for i, name in enumerate(SHAPES)}}))
    assert shapes_of(index) == {"fc1.weight": (8, 4), "fc1.bias": (8,)}
    index.write_text(json.dumps({"weight_map": {"a": "../part0"}}))
    with pytest.raises(StorageError, match="only files beside it are read"):
        read_file(index)


def test_what_save_wrote_has_its_parameters(tmp_path):
    params = {"fc1.weight": np.ones((8, 4), ml_dtypes.bfloat16), "fc1.bias": np.zeros(8)}
    opt = amos_ref.Amos(0.1, eta=0.25)
    amos_ref.save(tmp_path / "a", params, opt.init(params), opt)
    assert shapes_of(tmp_path / "a") == {"fc1.weight": (8, 4), "fc1.bias": (8,)}


def test_npz(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{name: np.zeros(shape) for name, shape in SHAPES.items()}, n=np.array(3))
    choice = amos_ref.choose(read_file(tmp_path / "a.npz"))
    assert {name: entry.shape for name, entry in choice.items()} == {"fc1.weight": (8, 4), "fc1.bias": (8,), "n": ()}
    assert choice.named("buffer") == ["n"]


@pytest.mark.parametrize(
    "written", [SHAPES, {"layout": "torch", "parameters": SHAPES}, {"fc1": {"weight": [8, 4], "bias": [8]}}]
)
def test_json(tmp_path, written):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(written))
    assert list(shapes_of(path).values()) in ([(8, 4), (8,)], [(8,), (8, 4)])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("before", ["", "\n  "])
def test_json_as_editors_of_any_system_write_it(encoding, before, tmp_path):
    (tmp_path / "a.json").write_bytes((before + json.dumps(SHAPES)).encode(encoding))
    assert shapes_of(tmp_path / "a.json") == {"fc1.weight": (8, 4), "fc1.bias": (8,)}


@pytest.mark.parametrize("size", [0x7B, 0x15B, 0x4B50, 0x7B20, 0xEF78])
def test_a_header_whose_size_looks_like_the_start_of_another_format(size, tmp_path):
    path = tmp_path / "a.safetensors"
    text = json.dumps({"a": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 0]}}).ljust(size).encode()
    path.write_bytes(struct.pack("<Q", size) + text)  # the size begins with "{", "[", "PK", " {" or a byte of a BOM
    assert shapes_of(path) == {"a": (8, 4)}


def test_a_missing_part_of_an_index_is_named(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part0"}}), encoding="utf-8")
    with pytest.raises(StorageError) as error:
        read_file(index)
    one_line(error.value, ["model.safetensors.index.json", "part0", "No such file"])
    (tmp_path / "part0").write_bytes(b"no safetensors at all")
    with pytest.raises(StorageError) as error:
        read_file(index)
    one_line(error.value, ["part0", "not a safetensors, npz or JSON file"])
    index.write_text(json.dumps({"weight_map": {"a": 3}}), encoding="utf-8")
    with pytest.raises(StorageError, match="it names the file 3"):
        read_file(index)


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ("[10, 6.5]", "6.5"),
        ("[10, null]", "None"),
        ('["6", 10]', "'6'"),
        ("[10, true]", "True"),
        ("[1, NaN]", "nan"),
    ],
)
def test_a_shape_with_something_else_among_its_numbers_says_which(shape, wrong, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'{{"fc.weight": {shape}}}', encoding="utf-8")
    with pytest.raises(DtypeError) as error:
        amos_ref.choose(read_file(path))
    one_line(error.value, ["leaf 'fc.weight'", f"of which {wrong} is not an integer"])


BAD = {
    "empty": b"",
    "short": b"abc",
    "a torch file": b"\x80\x02}q\x00.",
    "too long a header": struct.pack("<Q", 2**62) + b"{}",
    "a header that is cut": struct.pack("<Q", 99) + b'{"a',
    "a header of lists": struct.pack("<Q", 8) + b"[1,2,3] ",
    "a leaf without a shape": struct.pack("<Q", 16) + b'{"a":{"x": 123}}',
    "a negative size": struct.pack("<Q", 33) + b'{"a":{"dtype":"F32","shape":[-1]}}'[:33],
    "JSON that is cut": b'{"a": [3, 4',
    "JSON of numbers": b'{"a": 3.5}',
    "JSON of nothing": b"{}",
    "deep JSON": b'{"a":' * 10**5,
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "a damaged zip": b"PK\x03\x04" + bytes(40),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_read_is_a_named_error(fault, tmp_path):
    (tmp_path / "a").write_bytes(BAD[fault])
    with pytest.raises(AmosError) as error:
        amos_ref.choose(read_file(tmp_path / "a"))
    assert "\n" not in str(error.value)


def test_an_npz_of_objects_is_read_without_running_them(tmp_path):
    np.savez(tmp_path / "a.npz", odd=np.array([{}], dtype=object), fc=np.ones((3, 4)))
    assert amos_ref.choose(read_file(tmp_path / "a.npz")).named("buffer") == ["odd"]


def test_no_file_and_no_folder(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(StorageError):
            read_file(path)
