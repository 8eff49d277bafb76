"""State and parameters on disk: every bit comes back, and other programs read the same arrays."""

import json
import os
import stat
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import strategies as own
from helpers.checkpoints import naive_file, parts_of, state_bits
from helpers.messages import one_line
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import Amos, AmosState, errors

NAMES = [
    "a/b/0",
    " ",
    "two\nlines\tand\x00nothing",
    '"sha256":"' + "0" * 64 + '"',
    '\\"sha256\\":\\"',
    "__metadata__",
    "v/b/theta/x",
    "größe/参数/🙂/\u2028/\ufeff",
    "e\u0301 and \u00e9",
    "../../etc",
]


def every_bit_pattern(dtype):
    """NaN of every payload, infinities, both zeros and subnormal numbers among them; for wide dtypes a sample."""
    if dtype.itemsize == 2:
        return np.arange(2**16, dtype="u2").view(dtype)
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), 4000, dtype=f"u{dtype.itemsize}", endpoint=False)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], dtype)
    return np.concatenate([special, bits.view(dtype)])


def test_the_file_is_the_one_that_the_format_describes(tmp_path):
    state = AmosState(7, {"w": np.ones((1, 2), "f4")}, {"w": np.zeros((1, 2), "f4")}, None)
    amos_ref.save_state(tmp_path / "state", state)
    texts = {
        "format": "amos-ref-state",
        "version": "1",
        "package": f"amos_ref {amos_ref.__version__}",
        "count": "7",
        "momentum": "no",
        "leaves": '["w"]',
    }
    assert (tmp_path / "state").read_bytes() == naive_file(texts, {"v/w": state.v["w"], "b/w": state.b["w"]})


@pytest.mark.parametrize("dtype", own.DTYPES.values(), ids=own.DTYPES)
def test_every_bit_comes_back(dtype, tmp_path):
    a = every_bit_pattern(dtype)
    a = a[: a.size // 8 * 8].reshape(-1, 8)
    layouts = {"C": a, "F": np.asfortranarray(a), "strided": a[::2, 1::3], "reversed": a[::-1, ::-1]}
    layouts |= {"0-d": np.array(a[1, 1]), "empty": a[:0], "empty 2": a[:, :0], "again": np.broadcast_to(a[0], (3, 8))}
    copies = {name: np.array(x, order="F") for name, x in layouts.items()}
    state = AmosState(2**70, layouts, copies, {name: x[...] for name, x in layouts.items()})
    amos_ref.save_state(tmp_path / "state", state)
    found = amos_ref.load_state(tmp_path / "state", like=layouts)
    assert state_bits(found) == state_bits(state)
    assert type(found.count) is int
    for _, arrays in parts_of(found):
        for x in arrays.values():
            assert x.flags.writeable
            assert x.flags.c_contiguous
            assert x.dtype.isnative


def test_names_of_any_characters_come_back_in_their_order(tmp_path):
    rng = np.random.default_rng(1)
    params = {name: rng.standard_normal(i) for i, name in enumerate(NAMES)}
    state = AmosState(1, *({name: a + k for name, a in params.items()} for k in range(3)))
    amos_ref.save_state(tmp_path / "größe \n", state)
    for like in (None, params):
        found = amos_ref.load_state(tmp_path / "größe \n", like)
        assert state_bits(found) == state_bits(state)
    assert list(amos_ref.load_state(tmp_path / "größe \n").v) == NAMES


@pytest.mark.parametrize("momentum", [None, 0.5])
@pytest.mark.parametrize("params", [np.ones(3, "f4"), np.array(2.0), {}, [np.ones(2), {"x": np.zeros((0, 3))}]])
def test_trees_of_every_form_come_back(params, momentum, tmp_path):
    opt = Amos(momentum=momentum)
    state = opt.init(params)
    amos_ref.save(tmp_path / "all", params, state, opt)
    found = amos_ref.load(tmp_path / "all", params)
    assert repr(found.params) == repr(params)
    assert state_bits(found.state) == state_bits(state)
    assert found.opt.options == opt.options
    # A file with parameters holds the state as well.
    assert state_bits(amos_ref.load_state(tmp_path / "all", params)) == state_bits(state)


@given(data=st.data())
def test_any_state_comes_back(data, tmp_path_factory):
    rng = np.random.default_rng(data.draw(own.seeds))
    names = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4, unique=True))
    v, b, m = {}, {}, {}
    for name in names:
        dtype_name, shape = data.draw(own.dtype_names), data.draw(own.shapes())
        slot = data.draw(own.slots(shape))
        v[name], b[name] = own.state_arrays(rng, slot, dtype_name)
        m[name] = own.laid_out(own.numbers(rng, shape, dtype_name), data.draw(own.layouts))
    state = AmosState(data.draw(st.integers(0, 10**600 - 1)), v, b, data.draw(st.sampled_from([m, None])))
    path = tmp_path_factory.getbasetemp() / "any"
    amos_ref.save_state(path, state)
    assert state_bits(amos_ref.load_state(path, like=m)) == state_bits(state)


def test_the_safetensors_library_reads_the_same_arrays(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    from safetensors.numpy import load_file

    rng = np.random.default_rng(2)
    params = {name: own.numbers(rng, (3, 2), name) for name in ("float16", "bfloat16", "float32", "float64")}
    params |= {name: rng.standard_normal(i) for i, name in enumerate(NAMES)}
    params |= {"0-d": np.array(1.5, "f2"), "empty": np.ones((2, 0, 3), "f4"), "": np.ones((1, 1))}
    opt = Amos(momentum=0.5, state_dtype="param", slot_shape="element", backend="numpy")
    state = opt.step(params, {name: a.copy() for name, a in params.items()}, opt.init(params))
    path = tmp_path / "all.safetensors"
    amos_ref.save(path, params, state, opt)
    everything = {f"{part}/{n}": a for part, arrays in (*parts_of(state), ("theta", params)) for n, a in arrays.items()}

    raw = dict(safetensors.deserialize(path.read_bytes()))
    assert set(raw) == set(everything)
    for name, a in everything.items():
        assert (tuple(raw[name]["shape"]), bytes(raw[name]["data"])) == (a.shape, a.tobytes())
    read = load_file(path)
    assert {name: own.bits(a) for name, a in read.items()} == {name: own.bits(a) for name, a in everything.items()}
    with safetensors.safe_open(path, framework="numpy") as file:
        texts = file.metadata()
    assert (texts["format"], texts["version"], texts["count"]) == ("amos-ref-state", "1", "1")
    assert json.loads(texts["leaves"]) == list(state.v)


def test_arrays_are_aligned_in_the_file(tmp_path):
    params = {"a": np.ones(1, "f2"), "b": np.ones(1), "c": np.ones(1, ml_dtypes.bfloat16), "d": np.ones(1, "f4")}
    amos_ref.save_state(tmp_path / "state", Amos(state_dtype="param").init(params))
    raw = (tmp_path / "state").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    assert all(e["data_offsets"][0] % sizes[e["dtype"]] == 0 for n, e in entries.items() if n != "__metadata__")


# conversions


def test_state_dtype_widens_to_the_bit_and_narrows_in_one_rounding(tmp_path):
    rng = np.random.default_rng(3)
    params = {name: np.zeros((4, 8), dtype) for name, dtype in own.DTYPES.items()}
    # Halfway between two bfloat16 numbers but for a last bit that float32 does not hold: two roundings go wrong.
    wide = {name: rng.standard_normal((4, 8)) for name in params} | {"bfloat16": np.full((4, 8), 1 + 2**-8 + 2**-40)}
    state = AmosState(3, wide, {n: a * 2 for n, a in wide.items()}, {n: -a for n, a in wide.items()})
    amos_ref.save_state(tmp_path / "wide", state)
    narrow = amos_ref.load_state(tmp_path / "wide", params, "param")
    for (_, got), (_, full) in zip(parts_of(narrow), parts_of(state), strict=True):
        for name, a in got.items():
            assert own.bits(a) == own.bits(amos_ref.spec.round_to(full[name], own.DTYPES[name]))
    assert float(narrow.v["bfloat16"][0, 0]) == 1 + 2**-7
    amos_ref.save_state(tmp_path / "narrow", narrow)
    again = amos_ref.load_state(tmp_path / "narrow", state_dtype="float64")
    for (_, got), (_, part) in zip(parts_of(again), parts_of(narrow), strict=True):
        assert {n: own.bits(a) for n, a in got.items()} == {n: own.bits(a.astype("f8")) for n, a in part.items()}


@pytest.mark.parametrize(("state_dtype", "like"), [("float32", {}), ("param", None), (64, None)])
def test_odd_state_dtypes_are_refused(state_dtype, like, tmp_path):
    with pytest.raises(errors.HyperParameterError) as caught:
        amos_ref.load_state(tmp_path / "none", like, state_dtype)
    one_line(caught.value, ["state_dtype", repr(state_dtype)])


# what does not fit


def test_an_option_that_does_not_exist_is_named_with_those_that_do(tmp_path):
    params, opt = {"w": np.ones(2)}, Amos()
    amos_ref.save(tmp_path / "file", params, opt.init(params), opt)
    with pytest.raises(errors.HyperParameterError) as caught:
        amos_ref.load(tmp_path / "file", params, lr=0.1)
    one_line(caught.value, ["no option 'lr'", "learning_rate"])
    assert amos_ref.load(tmp_path / "file", params, learning_rate=0.2).opt.learning_rate == 0.2


def test_a_leaf_of_another_shape_is_told_what_to_do(tmp_path):
    params, opt = {"body": np.ones(3), "head": np.ones((2, 3))}, Amos(slot_shape="element")
    amos_ref.save(tmp_path / "file", params, opt.init(params), opt)
    wider = {"body": np.ones(3), "head": np.ones((4, 3))}
    hint = "a leaf of another shape starts anew under another name"
    for strict in ("no", None, 1):
        with pytest.raises(errors.HyperParameterError, match=rf"strict is {strict!r}; it must be True or False"):
            amos_ref.load(tmp_path / "file", wider, strict=strict)
    for strict in (True, False):
        with pytest.raises(errors.StateError) as caught:
            amos_ref.load(tmp_path / "file", wider, strict=strict)
        assert (hint in str(caught.value)) is not strict
    renamed = {"body": wider["body"], "head4": wider["head"]}
    with pytest.warns(amos_ref.storage.checkpoint.LeavesWarning):
        assert amos_ref.load(tmp_path / "file", renamed, strict=False).state.v["head4"].shape == (4, 3)


def test_one_error_lists_every_leaf_that_does_not_fit(tmp_path):
    params = {"a": np.ones((2, 3)), "b": np.ones(3), "c": np.ones(1), "d": np.ones(2)}
    opt = Amos(slot_shape="element", momentum=0.5)
    state = opt.init(params)
    amos_ref.save(tmp_path / "all", params, state, opt)
    like = {"a": np.ones((2, 3)), "b": np.ones(4), "d": np.ones((5, 2)), "e": np.ones(1), "f/g": np.ones(1)}
    for load in (amos_ref.load_state, amos_ref.load):
        with pytest.raises(errors.StateError) as caught:
            load(tmp_path / "all", like)
        words = ["all'", "missing leaf 'e'", "missing leaf 'f/g'", "extra leaf 'c'"]
        words += [f"{part} of leaf 'b' has shape (3,) and the parameter (4,)" for part in "vbm"]
        # (2,) broadcasts to (5, 2), so v and b would do; m would not.
        one_line(caught.value, [*words, "m of leaf 'd' has shape (2,) and the parameter (5, 2)"])
        assert "v of leaf 'd'" not in str(caught.value)
        assert "leaf 'a'" not in str(caught.value)
        assert ("theta of leaf 'b'" in str(caught.value)) == (load is amos_ref.load)
    with pytest.raises(errors.StateError) as caught:
        amos_ref.load(tmp_path / "all", params | {"a": np.ones((2, 3), "f4")})
    one_line(caught.value, ["theta of leaf 'a' has dtype float64 and the parameter float32"])
    amos_ref.load_state(tmp_path / "all", params | {"a": np.ones((2, 3), "f4")})


def test_a_file_of_a_state_alone_gives_no_parameters(tmp_path):
    params = {"w": np.ones(2)}
    amos_ref.save_state(tmp_path / "state", Amos().init(params))
    with pytest.raises(errors.StorageError) as caught:
        amos_ref.load(tmp_path / "state", params)
    one_line(caught.value, ["state'", "load_state"])


W = {"w": np.ones(2)}
STATE = AmosState(1, W, W, None)
NOT_STATES = {
    "None": (None, ["NoneType"]),
    "a tuple": (tuple(STATE), ["tuple"]),
    "count -1": (STATE._replace(count=-1), ["count", "-1"]),
    "count 1.0": (STATE._replace(count=1.0), ["count", "1.0"]),
    "count too long": (STATE._replace(count=10**600), ["count", "600 digits"]),
    "v None": (STATE._replace(v=None), ["state.v", "NoneType"]),
    "b without w": (STATE._replace(b={}), ["state.b", "'w'"]),
    "m with more": (STATE._replace(m=W | {"x": np.ones(1)}), ["state.m", "'x'"]),
    "b of another shape": (STATE._replace(b={"w": np.ones(3)}), ["state.b of leaf 'w'", "(3,)", "(2,)"]),
    "b of another dtype": (STATE._replace(b={"w": np.ones(2, "f4")}), ["state.b of leaf 'w'", "float32"]),
    "v a list": (STATE._replace(v={"w": [[1.0], [1.0, 2.0]]}), ["state.v of leaf 'w'", "list"]),
    "v int": (STATE._replace(v={"w": np.ones(2, int)}), ["state.v of leaf 'w'", "int64"]),
    "v big-endian": (STATE._replace(v={"w": np.ones(2, ">f8")}), ["state.v of leaf 'w'", ">f8"]),
    "m too short": (STATE._replace(m={"w": np.ones(3)}), ["state.v of leaf 'w'", "(2,)", "(3,)"]),
    "name 3": (AmosState(1, {3: W["w"]}, {3: W["w"]}, None), ["leaf 3"]),
}


@pytest.mark.parametrize("case", NOT_STATES)
def test_what_is_no_state_is_not_written(case, tmp_path):
    state, words = NOT_STATES[case]
    with pytest.raises(errors.StateError) as caught:
        amos_ref.save_state(tmp_path / "state", state)
    one_line(caught.value, ["cannot write", "state'", *words])
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_belong_together_is_not_written(tmp_path):
    opt, averaging = Amos(), Amos(momentum=0.5)
    params = {"w": np.ones((2, 3))}
    state = opt.init(params)
    for arguments, error, words in (
        ((params, state, averaging), errors.StateError, ["momentum"]),
        (({"x": np.ones(1)}, state, opt), errors.StateError, ["state.v", "'w'"]),
        ((params, Amos(slot_shape="element").init({"w": np.ones((5, 3))}), opt), errors.StateError, ["(5, 3)"]),
        (({"w": [1.0]}, state, opt), errors.DtypeError, ["params leaf 'w/0'"]),
        (({"a": {"b": np.ones(1)}, "a/b": np.ones(1)}, state, opt), errors.TreeError, ["'a/b'"]),
        ((params, state, "Amos"), errors.HyperParameterError, ["opt", "'Amos'"]),
    ):
        with pytest.raises(error) as caught:
            amos_ref.save(tmp_path / "all", *arguments)
        one_line(caught.value, words)
    assert list(tmp_path.iterdir()) == []


def test_half_a_character_is_refused(tmp_path):
    state = AmosState(1, {"w\ud800": np.ones(1)}, {"w\ud800": np.ones(1)}, None)
    with pytest.raises(errors.StorageError) as caught:
        amos_ref.save_state(tmp_path / "state", state)
    one_line(caught.value, [r"'\ud800'"])
    assert list(tmp_path.iterdir()) == []


# files


def test_saving_keeps_permissions_and_links(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    amos_ref.save_state(target, STATE)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o640)
    link.symlink_to("target")
    amos_ref.save_state(str(link), STATE._replace(count=2))
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert amos_ref.load_state(os.fsencode(target)).count == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_a_file_in_the_current_folder_needs_no_folder_in_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amos_ref.save_state("state", STATE)
    assert amos_ref.load_state("state").count == 1


def test_importing_the_package_does_not_load_storage():
    code = "import sys, amos_ref; print([m for m in sys.modules if 'storage' in m or m == 'amos_ref.interop'])"
    code += "; amos_ref.save_state, amos_ref.load_state, amos_ref.save, amos_ref.load, amos_ref.interop"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


@pytest.mark.filterwarnings("ignore::amos_ref.groups.RuleWarning")
def test_options_that_the_state_does_not_fit(tmp_path):
    """Those that `load` is given are held against the state in the file, whose dtype it converts."""
    params = {"w": np.full((2, 3), 0.5, np.float32), "b": np.ones(3, np.float32)}
    opt = amos_ref.Amos(0.1, slot_shape={"w": (2, 1), "b": ()})
    state = opt.step(params, {"w": params["w"] + 1, "b": None}, opt.init(params))
    path = tmp_path / "state"
    amos_ref.save(path, params, state, opt)
    narrow = amos_ref.load(path, params, state_dtype="param")
    assert {a.dtype.name for part in (narrow.state.v, narrow.state.b) for a in part.values()} == {"float32"}
    assert narrow.state.v["w"].tobytes() == state.v["w"].astype(np.float32).tobytes()
    amos_ref.save(path, narrow.params, narrow.state, narrow.opt)
    wide = amos_ref.load(path, params, state_dtype="float64")
    assert wide.state.v["w"].dtype == np.float64
    for loaded in (narrow, wide, amos_ref.load(path, params, eta=0.25)):
        loaded.opt.step(loaded.params, {"w": params["w"], "b": params["b"]}, loaded.state)
    for options, words in (
        (dict(momentum=0.9), "state has no momentum"),
        (dict(slot_shape="element"), r"v of leaf '[wb]' has shape"),
    ):
        with pytest.raises(errors.StateError, match=words):
            amos_ref.load(path, params, **options)
