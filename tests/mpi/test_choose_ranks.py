"""amos-ref choose FILE --ranks R says which rank has what of a model, and what a step sends."""

import json

import pytest
from helpers import TESTS
from helpers.command import output_lines, run_json

import amos_ref
from amos_ref.cli import main
from amos_ref.mpi import Layout

GPT2 = TESTS / "models" / "gpt2.json"


def expected(ranks, balance="whole"):
    """Layout and bytes of GPT-2's first blocks."""
    shapes = json.loads(GPT2.read_text(encoding="utf-8"))["parameters"]
    choice = amos_ref.choose(shapes)
    opt = amos_ref.Amos(eta=choice, slot_shape=choice)
    layout = Layout.even(shapes, ranks, opt, balance)
    return layout, layout.bytes(opt)


@pytest.mark.parametrize("balance", ["whole", "each"])
def test_the_table_of_a_model(balance, capsys):
    assert main(["choose", str(GPT2), "--ranks", "3", "--balance", balance]) == 0
    lines, errors = output_lines(capsys)
    layout, shares = expected(3, balance)
    for rank, share in enumerate(shares):
        assert [str(rank), *(f"{n:,}" for n in share)] in [line.split() for line in lines]
    assert ["all", *(f"{sum(column):,}" for column in zip(*shares, strict=True))] in [line.split() for line in lines]
    cut = sum(not isinstance(each, int) for each in layout.cuts.values())
    assert any(line.startswith(f"{cut} of 28 leaves cut") for line in lines)
    assert errors == []


def test_the_document_has_what_is_printed(capsys):
    assert main(["choose", str(GPT2), "--ranks", "4"]) == 0
    lines, _ = output_lines(capsys)
    page = (TESTS.parent / "docs" / "distributed.md").read_text(encoding="utf-8").splitlines()
    at = page.index("    $ amos-ref choose tests/models/gpt2.json --ranks 4 | tail -n 11") + 1
    assert [line[4:] for line in page[at : at + 11]] == lines[-11:]


def test_json_has_the_layout_and_the_bytes(capsys):
    written = run_json(capsys, "choose", str(GPT2), "--ranks", "5")
    layout, shares = expected(5)
    assert Layout.from_json(json.dumps(written["layout"])) == layout
    assert written["bytes"] == [share._asdict() for share in shares]
    assert amos_ref.choosing.choice.Choice.from_dict(written).named("unknown") == []


def test_leaves_that_are_unknown_are_left_out(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text('{"fc.weight": [3, 4], "strange": [2, 2, 2]}', encoding="utf-8")
    assert main(["choose", str(path), "--ranks", "2", "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["layout"]["leaves"]) == ["fc.weight"]
    path.write_text('{"strange": [2, 2, 2]}', encoding="utf-8")
    assert main(["choose", str(path), "--ranks", "2"]) == 2
    assert "no leaf whose eta is known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [(["--ranks", "0"], "ranks is 0"), (["--balance", "each"], "--balance goes with --ranks")],
)
def test_bad_arguments_are_told_in_a_line(argv, words, capsys):
    assert main(["choose", str(GPT2), *argv]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert words in errors


def test_many_ranks_fit_a_screen(capsys):
    assert main(["choose", str(GPT2), "--ranks", "1024", "--balance", "each"]) == 0
    lines, _ = output_lines(capsys)
    assert len(lines) < 90
    assert max(map(len, lines)) < 200
