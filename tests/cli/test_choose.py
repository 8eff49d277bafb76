"""amos-ref choose prints what choose says of the names and shapes of a file."""

import json

import pytest
from helpers import TESTS
from helpers.command import output_lines, run_json

import amos_ref
from amos_ref.choosing.choice import Choice
from amos_ref.cli import main

MODELS = sorted((TESTS / "models").iterdir())


@pytest.mark.parametrize("path", MODELS, ids=[path.stem for path in MODELS])
def test_the_table_of_a_model(path, capsys):
    assert main(["choose", str(path)]) == 0
    lines, errors = output_lines(capsys)
    choice = amos_ref.choose(json.loads(path.read_text(encoding="utf-8"))["parameters"])
    assert lines[0] == choice.summary()[0]
    assert len(lines) == len(choice.summary()) + 2 + len(choice.rows())
    assert errors == []


def test_json_is_the_choice(capsys):
    written = run_json(
        capsys, "choose", str(TESTS / "models" / "gpt2.json"), "--family", "gpt2", "--override", ".*bias=0.25"
    )
    shapes = json.loads((TESTS / "models" / "gpt2.json").read_text(encoding="utf-8"))["parameters"]
    expected = amos_ref.choose(shapes, family="gpt2", overrides={".*bias": 0.25})
    assert Choice.from_dict(written) == expected


def test_an_unknown_leaf_comes_first_and_has_its_own_status(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text('{"fc.weight": [3, 4], "strange": [2, 2, 2]}', encoding="utf-8")
    assert main(["choose", str(path)]) == 1
    lines, _ = output_lines(capsys)
    assert lines[-2].split()[0] == "strange"
    assert main(["choose", str(path), "--override", "strange=1/SHAPE[0]"]) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--family", "bret"], "invalid choice"),
        (["--layout", "rows"], "invalid choice"),
        (["--override", "0.5"], "it must be NAME=ETA"),
        (["--override", "fc9=0.5"], "no leaf matches 'fc9'"),
        (["--override", ".*=big"], "'big'"),
    ],
)
def test_bad_arguments_are_told_in_a_line(argv, words, capsys):
    try:
        status = main(["choose", str(TESTS / "models" / "gpt2.json"), *argv])
    except SystemExit as error:
        status = error.code
    assert status == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert words in errors


def test_bad_files_are_told_in_a_line(tmp_path, capsys):
    (tmp_path / "a.pt").write_bytes(b"\x80\x02}q\x00.")
    for path in (tmp_path / "a.pt", tmp_path / "none", tmp_path):
        assert main(["choose", str(path)]) == 2
        out, errors = output_lines(capsys)
        assert (out, len(errors)) == ([], 1)
