"""amos-ref bench --mpi: the model of a step's time, the shapes of models, and the command."""

import json
import math
from fractions import Fraction

import pytest
from helpers import TESTS
from helpers.command import run_json

import amos_ref
from amos_ref.bench import ranks
from amos_ref.cli import main
from amos_ref.mpi import Layout

TRUE = {
    "call": Fraction(1, 30_000),
    "entry": Fraction(1, 2 * 10**9),
    "sum": Fraction(3, 2 * 10**9),
    "latency": Fraction(1, 200_000),
    "bandwidth": Fraction(10**10),
}


def report_of(true, size):
    """What would be measured if a step took just what the model says, in fractions."""
    hops = math.ceil(math.log2(size))
    gather = [{"bytes": n, "seconds": hops * true["latency"] + n / true["bandwidth"]} for n in (0, 8000, 8 * 10**6)]
    steps = []
    for n in (10**5, 10**7):
        for kind, payload in (("rows (n, 1)", 0), ("tensor ()", 8 * (n // 8192)), ("columns (1, n)", n // 8)):
            apart = true["entry"] * n / size
            sending = hops * true["latency"] * (2 if payload else 1) + payload / true["bandwidth"]
            together = true["call"] + apart + true["sum"] * payload / 8 + sending
            steps.append(dict(kind=kind, parameters=n, payload=payload, apart=apart, together=together))
    return {"ranks": size, "agree": hops * true["latency"], "gather": gather, "steps": steps}


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_model_finds_its_own_numbers_and_predicts_what_it_did_not_see(size):
    report = report_of(TRUE, size)
    known = ranks.fit(report)
    assert known == TRUE
    for row in report["steps"]:
        assert ranks.predict(known, size, row["apart"], row["payload"]) == row["together"]
    for name in TRUE:  # each number counts
        wrong = {**known, name: known[name] * 2}
        found = [ranks.predict(wrong, size, row["apart"], row["payload"]) for row in report["steps"]]
        assert (found != [row["together"] for row in report["steps"]]) == (name != "entry")


def test_the_shapes_of_the_models():
    sizes = {name: [math.prod(shape) for shape in make().values()] for name, make in ranks.MODELS.items()}
    assert sum(sizes["GPT-2"]) == 124_439_808
    assert sum(sizes["7B"]) == 6_738_415_616
    assert 1.0e12 < sum(sizes["1T"]) < 1.01e12
    # The stored models have the first two blocks.
    for name, file, args in (
        ("GPT-2", "gpt2", (50257, 1024, 768, 2, 3072)),
        ("7B", "llama-7b", (32000, 0, 4096, 2, 11008)),
    ):
        stored = json.loads((TESTS / "models" / f"{file}.json").read_text(encoding="utf-8"))["parameters"]
        made = ranks.decoder(*args, gated=name == "7B")
        assert sorted(sorted(shape) for shape in made.values()) == sorted(sorted(shape) for shape in stored.values())


def test_the_table_is_that_of_layouts(capsys):
    known, network = {name: float(x) for name, x in TRUE.items()}, (2.0**-16, 2.0**33)
    rows = ranks.scale(known, network, (4, 100))
    assert [(row["model"], row["slots"], row["ranks"]) for row in rows] == [
        (model, slots, n) for model in ranks.MODELS for slots in ranks.MODEL_SLOTS for n in (4, 100)
    ]
    row = next(row for row in rows if (row["model"], row["slots"], row["ranks"]) == ("7B", "tensor", 100))
    opt = amos_ref.Amos(slot_shape="tensor")
    shares = Layout.even(ranks.MODELS["7B"](), 100, opt).bytes(opt)
    payload = sum(share.payload for share in shares)
    assert payload > 0
    assert row["payload"] == payload
    assert row["parameters"] == max(share.parameters for share in shares)
    assert row["bound"] == "computing"
    computing = known["entry"] * row["parameters"] / 4
    there = {**known, "latency": network[0], "bandwidth": network[1]}
    assert row["seconds"] == ranks.predict(there, 100, computing, payload)


def test_no_mpi_is_a_status_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(ranks.shutil, "which", lambda name, path: None)
    assert main(["bench", "--mpi", "--quick"]) == 3
    assert "pip install mpi4py mpich" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--mpi", "--sizes", "1e3"], "--mpi goes without --sizes"),
        (["--mpi", "--backend", "cuda"], "--mpi goes without --backend"),
        (["--mpi", "--from", "x"], "--mpi goes without --from"),
        (["--mpi", "--seconds", "0"], "--seconds is 0"),
        (["--mpi", "--network", "5"], "--network is '5'"),
        (["--mpi", "--network", "5,0"], "--network is '5,0'"),
        (["--network", "5,5"], "--network goes with --mpi"),
    ],
)
def test_bad_arguments_are_told_in_a_line(argv, words, capsys):
    assert main(["bench", *argv]) == 2
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert words in errors


def test_bytes_are_short():
    assert [ranks.format_bytes(n) for n in (0, 999, 1000, 999_600, 2.5e12)] == [
        "0 B",
        "999 B",
        "1 kB",
        "1 MB",
        "2.5e+03 GB",
    ]


def test_ranks_are_measured_where_there_is_mpi(monkeypatch, capsys):
    """The report of real ranks, or of what one rank prints where there are none."""
    steps = [row | {"shape": [1], "slot": [], "turns": 5} for row in report_of(TRUE, 2)["steps"]]
    printed = {name: float(x) for name, x in report_of(TRUE, 2).items() if name == "agree"}
    gather = [{name: float(x) for name, x in row.items()} for row in report_of(TRUE, 2)["gather"]]
    rows = [{k: float(x) if isinstance(x, Fraction) else x for k, x in row.items()} for row in steps]
    rows = [row | {"alone": 2 * row["together"], "ratio": 0.5} for row in rows]
    monkeypatch.setattr(ranks, "run_ranks", lambda size, settings: printed | {"gather": gather, "steps": rows})
    monkeypatch.setattr(ranks, "count_cores", lambda: 2)
    monkeypatch.setattr(ranks, "MODELS", {"GPT-2": ranks.MODELS["GPT-2"]})
    report = run_json(capsys, "bench", "--mpi", "--quick", "--network", "1e-6,1e10")
    assert report["format"] == ranks.MPI_FORMAT
    assert report["network"] == [1e-6, 1e10]
    assert len(report["scale"]) == len(ranks.MODEL_SLOTS) * len(ranks.RANK_COUNTS)
    assert main(["bench", "--mpi", "--quick"]) == 0
    text = capsys.readouterr().out
    for words in ("columns (1, n)", "0.50", "gather 8 MB", "us a message", "bound by"):
        assert words in text
