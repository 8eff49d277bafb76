"""The stored vectors: what the tool writes, to the byte; what every backend computes, to the bit; and the oracle."""

import collections
import copy
import importlib.resources
import json
import re
import sys

import jsonschema
import numpy as np
import pytest
from helpers import ROOT
from helpers.toy_port import ToyPort

from amos_ref import cli, exact, spec
from amos_ref.conformance.cases import table
from amos_ref.conformance.vectors import cases as vector_cases
from amos_ref.conformance.vectors import export as vector_export
from amos_ref.conformance.vectors import read as vectors
from amos_ref.conformance.vectors import write as vector_writer
from amos_ref.errors import MissingDependencyError, VectorError
from tools import exactness

F64 = np.dtype(np.float64)
FOLDER = importlib.resources.files("amos_ref.conformance.vectors") / "data"
SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
STORED = {name: vectors.load(name) for name in vectors.DTYPES}
CASES = [(entry, dtype) for document in STORED.values() for entry, dtype in vectors.cases(document)]
COMPUTED = [(entry, dtype) for entry, dtype in CASES if "error" not in entry]
FLAGS = (
    "plain eta slots extra_l2 momentum clip schedule warmup epsilon zero-gradient subnormal huge zero-dim "
    "size-one-axis none-gradient low-precision long injected-state nan inf empty reject"
).split()


def find(case_id):
    return copy.deepcopy(next((entry, dtype) for entry, dtype in CASES if entry["id"] == case_id))


# the files


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_the_files_are_what_the_tool_writes(name):
    assert vector_writer.text_of(name) == (FOLDER / f"paper-{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_the_files_follow_the_schema(name):
    jsonschema.Draft202012Validator(SCHEMA).validate(STORED[name])
    assert STORED[name]["groups"][0]["dtype"] == name


def test_the_schema_allows_nothing_else():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def walk(node):
        if isinstance(node, dict):
            assert node.get("additionalProperties", False) is False
            assert node.get("type") != "object" or "additionalProperties" in node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda case: case.update(comment="x"),
        lambda case: case.pop("flags"),
        lambda case: case["options"].update(beta="0.75"),
        lambda case: case["steps"][0]["leaves"]["bias"]["pre"].update(v="3FF0000000000000"),
        lambda case: case["steps"][0]["leaves"]["bias"]["real"].pop("gamma"),
        lambda case: case["steps"][0].update(t=0),
    ],
)
def test_the_schema_sees_damage(damage):
    document = copy.deepcopy(STORED["float32"])
    damage(document["groups"][0]["cases"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(document)


def test_ids_are_unique_and_flags_explained():
    ids = [entry["id"] for entry, _ in CASES]
    assert len(set(ids)) == len(ids)
    for document in STORED.values():
        used = {flag for entry, _ in vectors.cases(document) for flag in entry["flags"]}
        assert used == set(document["notes"])
    assert {flag for entry, _ in CASES for flag in entry["flags"]} == set(vector_cases.NOTES) >= set(FLAGS)


def test_the_files_are_small():
    assert sum(len((FOLDER / f"paper-{name}.json").read_bytes()) for name in vectors.DTYPES) < 2_000_000


def test_the_document_says_what_the_flags_mean():
    text = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    notes = {flag: (note.kind, note.description, note.effect) for flag, note in vector_cases.NOTES.items()}
    rows = re.findall(r"^\| (\S+) \| (basic|option|edge|refusal) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert {flag: tuple(rest) for flag, *rest in rows} == notes


# the backends


@pytest.mark.parametrize("name", vectors.DTYPES)
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_every_backend_gives_the_stored_bits(name, backend):
    count, wrong = vectors.verify(name, backend)
    assert count >= 36
    assert wrong == []


def flipped(text):
    return text[:-1] + "0123456789abcdef"[int(text[-1], 16) ^ 1]


@pytest.mark.parametrize(
    ("case_id", "k", "part", "message"),
    [
        ("plain/float32", 2, "post", "plain/float32, step 3: v of leaf 'bias' has other bits"),
        ("plain/float32", 2, "pre", "plain/float32, before step 3: v of leaf 'bias' has other bits"),
        ("long/float64", 3, "post", "long/float64, step 1000: v of leaf 'x' has other bits"),
        ("nan-gradient/float16", 0, "post", "nan-gradient/float16 is refused, but v of leaf 'x' was changed"),
    ],
)
def test_one_flipped_bit_is_found(case_id, k, part, message):
    entry, dtype = find(case_id)
    leaf = entry["steps"][k]["leaves"]["bias" if "plain" in case_id else "x"]
    leaf[part] = leaf[part] | {"v": flipped(leaf[part]["v"])}
    assert vectors.verify_case(entry, dtype, "numpy") == message


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_a_refusal_that_does_not_come_or_is_another_one_is_found(backend):
    entry, dtype = find("inf-gradient/float32")
    assert vectors.verify_case(entry | {"error": "HyperParameterError"}, dtype, backend).startswith(
        "inf-gradient/float32 is refused with NonFiniteError, not HyperParameterError: "
    )
    entry["options"]["clip_value"] = vectors.encode(2.0)
    message = "inf-gradient/float32 is computed; it must be refused with NonFiniteError"
    assert vectors.verify_case(entry, dtype, backend) == message


# the oracle


def given_steps(entry, dtype):
    """Yield what the oracle and the page need for each stored step of each leaf, and the leaf's bits."""
    case = vectors.StoredCase(entry, dtype)
    hyper = {"momentum": None, "clip_value": None} | {k: vectors.number(x) for k, x in entry["options"].items()}
    for step in entry["steps"]:
        before, xi = case.state(step, "pre"), vectors.number(step["learning_rate"])
        for name, leaf in step["leaves"].items():
            if leaf["g"] is not None:
                arrays = {what: held[name] for what, held in before.items()} | {"g": case.array(leaf["g"], name, "g")}
                full = hyper | dict(xi=xi, eta=vectors.number(entry["leaves"][name]["eta"]))
                m = {"m": arrays.get("m")}
                yield exactness.Step(arrays | m, step["t"], full, dtype.name, "float64"), case, name, leaf


def test_page_and_oracle_agree_within_the_counted_roundings():
    """real is itself half an ulp off at most; what is below the normal numbers may be a few subnormal units off."""
    equal, seen = collections.Counter(), collections.Counter()
    for entry, dtype in COMPUTED:
        for given, case, name, leaf in given_steps(entry, dtype):
            got = exactness.page(given)
            for quantity, bound in exactness.bounds(given, got)[1].items():
                if quantity == "theta":
                    continue
                real = case.array(leaf["real"][quantity], name, quantity)
                assert (abs(got[quantity] - real) <= bound + abs(np.spacing(real)) / 2).all(), f"{case.id}: {quantity}"
                with np.errstate(all="ignore"):
                    equal[quantity] += int(np.sum(np.float32(got[quantity]) == np.float32(real)))
                seen[quantity] += real.size
    assert sum(seen.values()) > 20_000
    assert sum(seen.values()) - sum(equal.values()) <= 3  # v of one step, halfway between two floats


def test_stored_parameters_are_the_oracles_correctly_rounded():
    right = collections.Counter()
    for entry, dtype in COMPUTED:
        for given, case, name, leaf in given_steps(entry, dtype):
            theta = case.array(leaf["post"]["theta"], name, "theta")
            real = exact.step(**given.arrays, t=given.t, dtype=dtype.name, **given.hyper)["theta"]
            right[dtype.name, "all"] += theta.size
            right[dtype.name, "equal"] += int(np.sum(theta == real))
    for name in ("float32", "float16", "bfloat16"):
        assert right[name, "equal"] == right[name, "all"] > 1000


def test_a_wrong_page_is_seen_by_the_oracle(monkeypatch):
    monkeypatch.setattr(spec, "grown", lambda b, gamma: b + gamma * b)
    with pytest.raises(AssertionError, match=": b"):
        test_page_and_oracle_agree_within_the_counted_roundings()


# the tolerances


def farthest(entry, dtype, wrong=""):
    """How many tolerances a port in the group's dtype is away from post, at most; it runs from the start."""
    case = vectors.StoredCase(entry, dtype)
    steps = list(case.steps())
    hyper = {key: vectors.number(text) for key, text in entry["options"].items()}
    hyper |= {"learning_rate": [rate for _, _, rate, _ in steps], "slot_shape": case.slots}
    hyper |= {"eta": {name: vectors.number(leaf["eta"]) for name, leaf in entry["leaves"].items()}}
    if dtype == np.float16:
        hyper["epsilon"] = max(hyper["epsilon"], 2.0**-14)  # 2^-125 would be 0
    port, most = ToyPort(wrong), 0.0
    port.init(case.state(entry["steps"][0], "pre")["theta"], hyper)
    for t, step, _, grads in steps:
        if t > 1 and step and "injected-state" in entry["flags"] and t == 2:
            for what, held in case.state(step, "pre").items():
                setattr(port, what.replace("theta", "p"), {name: a.astype(dtype) for name, a in held.items()})
        shown = {"theta": port.step(grads), **port.state()}
        for name, leaf in step["leaves"].items() if step else ():
            for what, text in (leaf["tolerance"] or {}).items():
                off = abs(shown[what][name].astype(F64) - case.array(leaf["post"][what], name, what).astype(F64))
                allowed = case.array(text, name, what, "tolerance")
                ratio = np.divide(off, allowed, out=np.where(off > 0, np.inf, 0.0), where=allowed > 0)
                most = max(most, float(ratio.max(initial=0.0)))
    return most


def test_tolerances_are_numbers():
    unknown = set()
    for entry, dtype in COMPUTED:
        case = vectors.StoredCase(entry, dtype)
        for name, leaf in ((name, leaf) for step in entry["steps"] for name, leaf in step["leaves"].items()):
            if leaf["tolerance"] is None:
                unknown.add(case.id)
            for what, text in (leaf["tolerance"] or {}).items():
                a = case.array(text, name, what, "tolerance")
                assert ((a >= 0) & np.isfinite(a)).all(), case.id
    judged = {f"{case.name}/{case.dtype}" for case in table()}
    narrow = {entry["id"] for entry, dtype in COMPUTED if dtype.itemsize == 2}
    assert unknown == {"subnormal/float32"} | (narrow - judged)


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_a_right_port_stays_within_the_tolerances(name):
    """But for what this port cannot do: take the mean of nothing, and in float16 square a subnormal number."""
    beyond = {"empty"} | ({"subnormal"} if name == "float16" else set())
    known = [entry for entry, dtype in COMPUTED if dtype.name == name and not beyond & set(entry["flags"])]
    assert len(known) > 25
    ratios = {entry["id"]: farthest(entry, vectors.dtype_of(name)) for entry in known}
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.parametrize(
    ("case_id", "wrong"),
    [
        ("plain/float32", "sum for mean"),
        ("decayed/float32", "gamma without c"),
        ("slots-columns/float32", "sum for mean"),
        ("aged-extra_l2/float32", "extra_l2 outside d"),
        ("long/float32", "momentum debiased"),
        ("none-gradient/float64", "None is zero"),
        ("subnormal-theta/float64", "bias one off"),
        ("aged-rest/bfloat16", "extra_l2 outside d"),
        ("clip/float16", "clip after"),
    ],
)
def test_a_wrong_port_does_not(case_id, wrong):
    assert farthest(*find(case_id), wrong) > 1


# bits and files


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_bits_survive_writing_and_reading(name):
    dtype = vectors.dtype_of(name)
    a = np.array([[0.0, -0.0, 1.5], [np.inf, np.nan, -(2.0**-14)]]).astype(dtype)
    text = vectors.encode(a)
    assert len(text) == a.size * dtype.itemsize * 2
    assert vectors.decode(text, dtype, a.shape).tobytes() == a.tobytes()
    assert vectors.encode(np.float64(1.0)) == "3ff0000000000000"


@pytest.mark.parametrize("text", ["zz", "3ff", "3ff00000000000003ff0000000000000"])
def test_damaged_bits_are_named(text):
    with pytest.raises(VectorError, match=r"is not the bits of \(\) float64"):
        vectors.decode(text, F64, ())


def test_damaged_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(VectorError, match="vectors of float64: "):
        vectors.load("float64")
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "paper-float64.json"
    for content, text in (
        ("{", "vectors of float64: "),
        ("[]", "not of the format"),
        ('{"format": "amos-ref-vectors-1"}', "not of the format"),
    ):
        path.write_text(content)
        with pytest.raises(VectorError, match=text):
            vectors.load("float64")


@pytest.mark.parametrize(("package", "extra"), [("ml_dtypes", "bf16"), ("flint", "oracle")])
def test_a_missing_package_is_a_named_error(package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'amos_ref\[{extra}\]'"):
        vector_writer.generate("bfloat16")


# export


def exported(capsys, *argv):
    assert cli.main(["vectors", "export", *map(str, argv)]) == 0
    assert capsys.readouterr().out == f"{argv[-1]}\n"


def test_export_as_json_is_the_same_format(tmp_path, capsys):
    path = tmp_path / "some.json"
    exported(capsys, "--format", "json", "--output", path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert list(vectors.cases(document)) == CASES
    exported(capsys, "--format", "json", "--flag", "schedule", "--output", path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert [entry for entry, _ in vectors.cases(document)] == [e for e, _ in CASES if "schedule" in e["flags"]]
    assert set(document["notes"]) == {f for e, _ in CASES if "schedule" in e["flags"] for f in e["flags"]}


@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize("case_id", ["long/float32", "subnormal/bfloat16", "nan-gradient/float16"])
def test_export_of_arrays(form, case_id, tmp_path, capsys):
    path = tmp_path / "some"
    exported(capsys, "--format", form, "--case", case_id, "--output", path)
    got, texts = read_npz(path) if form == "npz" else read_safetensors(path)
    entry, dtype = find(case_id)
    expected = dict(vector_export.named_arrays(vectors.StoredCase(entry, dtype)))
    assert set(got) == set(expected)
    for name, a in expected.items():
        kept = got[name].view(dtype) if form == "npz" and a.dtype.name == "bfloat16" else got[name]
        assert (kept.dtype, kept.shape, kept.tobytes()) == (a.dtype, a.shape, a.tobytes()), name
    assert json.loads(texts["cases"]) == {case_id: {k: entry[k] for k in ("about", "flags", "error") if k in entry}}
    assert texts["format"] == vectors.FORMAT
    theta = entry["steps"][0]["leaves"]["x"]["pre"]["theta"]
    assert vectors.encode(expected[f"{case_id}/1/x/pre.theta"]) == theta


def read_npz(path):
    with np.load(path) as archive:
        found = dict(archive)
    return {k: a for k, a in found.items() if a.dtype.kind != "U"}, {
        k: str(a) for k, a in found.items() if a.dtype.kind == "U"
    }


def read_safetensors(path):
    import safetensors.numpy

    with safetensors.safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--format", "json", "--case", "plain", "--output", "x"], "there is no case 'plain'; an id is like"),
        (["--format", "json", "--flag", "dance", "--output", "x"], "there is no flag 'dance'; there are plain, "),
        (["--format", "json", "--case", "plain/float32", "--flag", "nan", "--output", "x"], "with flag 'nan'"),
        (["--format", "json", "--output", "/no/such/x"], "/no/such/x"),
        (["--format", "npz", "--output", "/no/such/x"], "/no/such/x"),
        (["--format", "safetensors", "--output", "/no/such/x"], "cannot write '/no/such/x'"),
    ],
)
def test_export_of_nothing_or_to_nowhere_is_one_line(argv, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["vectors", "export", *argv]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
