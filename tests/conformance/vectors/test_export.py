"""Exported vectors hold what is stored, in every format."""

import json

import jsonschema
import numpy as np
import pytest
from helpers.stored_vectors import CASES, SCHEMA, find

from amos_ref import cli
from amos_ref.conformance.vectors import export as vector_export
from amos_ref.conformance.vectors import read as vectors


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
    assert texts["format"] == vectors.VECTORS_FORMAT
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
