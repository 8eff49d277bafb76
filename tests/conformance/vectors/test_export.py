"""Exported vectors hold what is stored, in every format."""

import json
import re
import time
import zipfile

import jsonschema
import numpy as np
import pytest
from helpers import ROOT
from helpers.stored_vectors import CASES, CLOSED_CASES, FOLDER, SCHEMA, find

from amos_ref import cli
from amos_ref.conformance.vectors import export as vector_export
from amos_ref.conformance.vectors import read as vectors
from amos_ref.conformance.vectors.cases import STEP
from amos_ref.conformance.vectors.closed_cases import CLOSED_STEP
from amos_ref.conformance.vectors.stored import OPTION_WORDS


def exported(capsys, *argv):
    assert cli.main(["vectors", "export", *map(str, argv)]) == 0
    assert capsys.readouterr().out == f"{argv[-1]}\n"


def test_export_as_json_is_the_same_format(tmp_path, capsys):
    path = tmp_path / "some.json"
    exported(capsys, "--format", "json", "--output", path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert list(vectors.cases(document)) == CASES + CLOSED_CASES
    assert document["algorithm"] == "paper Amos and closed-form Amos"
    assert all(line.startswith(("paper Amos: ", "closed-form Amos: ")) for line in document["header"])
    for algorithm, found in (("paper", CASES), ("closed-form", CLOSED_CASES)):
        exported(capsys, "--format", "json", "--algorithm", algorithm, "--output", path)
        document = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(SCHEMA).validate(document)
        assert list(vectors.cases(document)) == found
    exported(capsys, "--format", "json", "--flag", "schedule", "--output", path)
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert [entry for entry, _ in vectors.cases(document)] == [e for e, _ in CASES if "schedule" in e["flags"]]
    assert set(document["notes"]) == {f for e, _ in CASES if "schedule" in e["flags"] for f in e["flags"]}


def test_the_archive_holds_the_stored_files_and_is_always_the_same(tmp_path, capfdbinary, monkeypatch):
    path = tmp_path / "vectors.zip"
    assert cli.main(["vectors", "export", "--format", "zip", "--output", str(path)]) == 0
    capfdbinary.readouterr()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name).decode() for name in archive.namelist()}
        assert {m.date_time for m in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    dtypes = ("bfloat16", "float16", "float32", "float64")
    stored = [f"{algorithm}-{name}.json" for algorithm in ("closed", "paper") for name in dtypes]
    stored += ["schedules.json", "schedules.schema.json", "schema.json"]
    assert list(members) == ["README.md", *stored]
    for name in stored:
        assert members[name] == (FOLDER / name).read_text(encoding="utf-8"), name
        assert members[name].encode() in path.read_bytes()  # as it is: what reads lines needs nothing else
    for name, (formula, note) in (*STEP.items(), *CLOSED_STEP.items()):
        assert f"{name} = {formula}{f' ({note})' if note else ''}" in members["README.md"]
    monkeypatch.setattr("time.localtime", lambda *_: time.gmtime(2**31 - 1))
    assert cli.main(["vectors", "export", "--format", "zip"]) == 0
    assert capfdbinary.readouterr().out == path.read_bytes()


def test_cases_are_listed(capsys):
    assert cli.main(["vectors", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [entry["id"] for entry, _ in CASES + CLOSED_CASES]
    assert cli.main(["vectors", "list", "--algorithm", "closed-form", "--flag", "late"]) == 0
    first = "closed-late/float64: the count goes from 1 to 1000000 [late]"
    assert capsys.readouterr().out.splitlines()[0] == first
    assert cli.main(["vectors", "list", "--algorithm", "closed-form", "--flag", "momentum"]) == 2
    assert "there is no flag 'momentum'; there are closed-form, sigma" in capsys.readouterr().err


def test_some_cases_make_an_archive_of_their_own(tmp_path, capsys):
    path = tmp_path / "vectors.zip"
    exported(capsys, "--format", "zip", "--flag", "reject", "--output", path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert [name for name in names if "schedules" in name] == ["schedules.json", "schedules.schema.json"]
        for name in (name for name in names if name.startswith(("paper", "closed"))):
            document = json.loads(archive.read(name))
            jsonschema.Draft202012Validator(SCHEMA).validate(document)
            assert {entry["error"] for entry, _ in vectors.cases(document)} <= {"non-finite", "range", "shape"}
            assert set(document["notes"]) == {f for entry, _ in vectors.cases(document) for f in entry["flags"]}


@pytest.mark.parametrize("form", vector_export.EXPORT_FORMATS)
def test_standard_output_takes_every_format(form, tmp_path, capfdbinary):
    argv = ["vectors", "export", "--format", form, "--case", "plain/float32", "--output"]
    assert cli.main([*argv, str(tmp_path / "some")]) == 0
    capfdbinary.readouterr()
    assert cli.main([*argv, "-"]) == 0
    found = capfdbinary.readouterr().out
    if form != "npz":  # which has the time in it
        assert found == (tmp_path / "some").read_bytes()
    assert len(found) == len((tmp_path / "some").read_bytes())


def test_a_terminal_is_given_no_archive(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main(["vectors", "export", "--format", "zip"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "standard output is a terminal, which cannot show zip: --output says where to write" in err


@pytest.mark.parametrize(
    "case_id", ["schedule/bfloat16", "aged-momentum/float32", "none-gradient/float64", "closed-adam/float16"]
)
def test_lines_hold_what_is_stored(case_id, tmp_path, capsys):
    path = tmp_path / "some"
    exported(capsys, "--format", "lines", "--case", case_id, "--output", path)
    entry, dtype = find(case_id)
    case, found = vectors.stored_case(entry, dtype), [line.split(" ") for line in path.read_text().splitlines()]
    closed = "closed" in case_id
    assert found[0] == ["case", case_id, "closed-form" if closed else "paper", dtype.name]
    of = {
        what: [words for first, *words in found if first == what] for what in ("option", "leaf", "set", "step", "grad")
    }
    assert {name: x if name in OPTION_WORDS else float(numbers([x])[0]) for name, x in of["option"]} == case.numbers()
    scale = "sigma" if closed else "eta"
    assert {name: [eta, json.loads(shape), json.loads(slot)] for name, eta, shape, slot in of["leaf"]} == {
        name: [leaf[scale], leaf["shape"], leaf["slot_shape"]] for name, leaf in entry["leaves"].items()
    }
    assert [(int(t), *rate) for t, *rate in of["step"]] == [(step["t"], step[case.shared]) for step in entry["steps"]]
    given = [
        (k, case.array(leaf["g"], k, "g")) for step in entry["steps"] for k, leaf in step["leaves"].items() if leaf["g"]
    ]
    assert [name for name, *_ in of["grad"]] == [name for name, _ in given]
    for (_, *bits), (_, g) in zip(of["grad"], given, strict=True):
        np.testing.assert_array_equal(numbers(bits), g.ravel().astype(np.float64))
    at = iter(found[next(i for i, words in enumerate(found) if words[0] == "step") :])
    for step in entry["steps"]:
        for name, leaf in step["leaves"].items():
            for part, near in (leaf["tolerance"] or {}).items():
                words = next(words for words in at if words[0] == "want")
                assert words[1:3] == [name, part]
                post = case.array(leaf["post"][part], name, part)
                np.testing.assert_array_equal(numbers(words[3::2]), post.ravel().astype(np.float64))
                assert "".join(words[4::2]) == near
    assert "want" not in {words[0] for words in at}


def numbers(bits):
    return np.array([int(x, 16) for x in bits], dtype=np.uint64).view(np.float64)


def test_lines_of_what_is_to_be_refused_are_none(capsys, tmp_path):
    assert (
        cli.main(["vectors", "export", "--format", "lines", "--flag", "reject", "--output", str(tmp_path / "x")]) == 2
    )
    assert "a port is to refuse each of these cases" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_schema_has_a_name_of_its_own():
    assert SCHEMA["$id"] == "urn:amos-ref:vectors:3"


def test_the_document_has_every_formula():
    """A reader of the page needs no other one."""
    text = (ROOT / "docs" / "vectors.md").read_text(encoding="utf-8")
    paper, closed = text.split("## A step of the closed form")
    for part, step in ((paper, STEP), (closed, CLOSED_STEP)):
        rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| (.*?) ?\|$", part, re.MULTILINE)
        assert {name: tuple(rest) for name, *rest in rows} == step


@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize(
    "case_id", ["long/float32", "subnormal/bfloat16", "nan-gradient/float16", "closed-long-adam/float32"]
)
def test_export_of_arrays(form, case_id, tmp_path, capsys):
    path = tmp_path / "some"
    exported(capsys, "--format", form, "--case", case_id, "--output", path)
    got, texts = read_npz(path) if form == "npz" else read_safetensors(path)
    entry, dtype = find(case_id)
    expected = dict(vector_export.named_arrays(vectors.stored_case(entry, dtype)))
    assert set(got) == set(expected)
    for name, a in expected.items():
        kept = got[name].view(dtype) if form == "npz" and a.dtype.name == "bfloat16" else got[name]
        assert (kept.dtype, kept.shape, kept.tobytes()) == (a.dtype, a.shape, a.tobytes()), name
    said = {k: entry[k] for k in ("about", "flags", "error") if k in entry}
    said |= {"options": {k: x for k, x in entry["options"].items() if k in OPTION_WORDS}} if "closed" in case_id else {}
    assert json.loads(texts["cases"]) == {case_id: said}
    assert texts["format"] == vectors.VECTORS_FORMAT
    first = entry["steps"][0]
    assert vectors.encode(expected[f"{case_id}/{first['t']}/x/pre.theta"]) == first["leaves"]["x"]["pre"]["theta"]


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
