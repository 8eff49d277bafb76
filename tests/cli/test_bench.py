"""The command ``amos-ref bench``: what it selects, prints, refuses and draws, on the host and on a made-up GPU."""

import json
import os

import jsonschema
import pytest
from helpers import made_up_gpu
from helpers.benchmark import SCHEMA, keep_contenders
from numba.core import config

from amos_ref import plots
from amos_ref.bench import measure, start, workloads
from amos_ref.cli import main
from amos_ref.kernels.cuda import driver as cuda_driver

CLOSED = ["--algorithm", "closed-form"]
BRIEFLY = ["--seconds", "0.001", "--rounds", "3"]


@pytest.fixture
def only_page(monkeypatch):
    keep_contenders(monkeypatch, "cpu", "page")


def bench(capsys, *argv):
    status = main(["bench", *argv])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


@pytest.mark.usefixtures("only_page")
def test_bench_prints_tables_and_json_of_one_schema(capsys, tmp_path):
    argv = ["--sizes", "1e3,7", "--slots", "tensor,row", "--dtypes", "float32", "--threads", "1", *BRIEFLY]
    status, out, err = bench(capsys, *argv, "--json")
    report = json.loads("\n".join(out))
    jsonschema.validate(report, SCHEMA)
    assert status == 0
    assert [(w["parameters"], w["slot"]) for w in report["workloads"]] == [
        (n, slot) for n in (1000, 7) for slot in ("tensor", "row")
    ]
    assert err == [f"{i} of 4: {w['label']}" for i, w in enumerate(report["workloads"], 1)]
    for work in report["workloads"]:
        assert [r["contender"] for r in work["results"]] == ["amos_ref", "roof", "page"]
        assert [r["extra_bytes"] is None for r in work["results"]] == [False, True, False]
    path = tmp_path / "report.json"
    path.write_text("\n".join(out))
    status, shown, err = bench(capsys, "--from", str(path))
    assert (status, err) == (0, [])
    assert any(line.startswith("1e3: 1000 float32, row slots, 1 thread; 16.32 bytes a parameter") for line in shown)
    first = next(line.split() for line in shown if line.startswith("amos_ref   ") and ".." in line)
    record = report["workloads"][0]["results"][0]
    assert first[1] == f"{record['ns_per_parameter']:.3g}"
    assert first[4:6] == [f"{record['of_roof']:.3g}", "1"]
    # The same tables as they are printed while it measures.
    _, live, _ = bench(capsys, *argv)
    assert [line.split()[:1] for line in live] == [line.split()[:1] for line in shown]


@pytest.mark.usefixtures("only_page")
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--sizes", "1e3,many"], "size 'many' is not a whole number of parameters"),
        (["--sizes", "1.5"], "size '1.5' is not a whole number"),
        (["--sizes", "0"], "size '0' is not a whole number"),
        (["--sizes", "nan"], "size 'nan' is not a whole number"),
        (["--sizes", "1e400"], "size '1e400' is not a whole number"),
        (["--sizes", ","], "nothing is selected"),
        (["--trees", "oak"], "tree is 'oak'; it must be one of bert-tiny"),
        (["--trees", "0x64"], "tree is '0x64'; it must be one of bert-tiny"),
        (["--slots", "cell"], "slots is 'cell'; it must be one of tensor, row, column, element"),
        (["--dtypes", "int8"], "dtype is 'int8'; it must be one of float16"),
        (["--threads", "0"], "threads '0' is not a number from 1 to"),
        (["--threads", "1000000"], "threads '1000000' is not a number from 1 to"),
        (["--peers", "page,nobody"], "there is no peer 'nobody'; the peers are page, or none"),
        (["--seconds", "nan"], "--seconds is nan; it must be a finite number > 0"),
        (["--rounds", "0"], "--rounds is 0; it must be 1 or more"),
        (["--start", "--sizes", "1e3"], "--start goes without --sizes"),
        (["--from", "x.json", "--start"], "--start goes without --from"),
        (["--from", "/no/such/file.json"], "cannot read '/no/such/file.json': No such file"),
        (["--from", os.devnull], "it is not an ordinary file"),
        (["--plot", "x.txt"], "its name must end in .pdf, .png, .svg"),
        (["--directions", "adam"], "--directions goes with --algorithm closed-form"),
        ([*CLOSED, "--directions", "sideways"], "direction is 'sideways'; it must be one of gradient, adam"),
        ([*CLOSED, "--directions", ","], "nothing is selected"),
        ([*CLOSED, "--momentum"], "--algorithm closed-form goes without --momentum: it has none but Adam's direction"),
        ([*CLOSED, "--state", "float64"], "--algorithm closed-form goes without --state: its state is float64"),
        ([*CLOSED, "--start"], "--start goes without --algorithm"),
        ([*CLOSED, "--peers", "jestimator"], "there is no peer 'jestimator'; the peers are"),
        (["--peers", "paper"], "there is no peer 'paper'; the peers are page, or none"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(capsys, argv, text):
    status, out, err = bench(capsys, *argv)
    assert (status, out, len(err)) == (2, [], 1)
    assert text in err[0]


@pytest.mark.parametrize("argv", [["--backend", "abacus"], ["--state", "float16"]])
def test_wrong_choices_are_usage_errors(argv):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *argv])
    assert stop.value.code == 2


@pytest.mark.parametrize("content", ["{", "[]", "[" * 10**5, '{"format": "other"}', '{"format": "amos-ref-bench-1"}'])
def test_a_damaged_report_is_a_named_error(capsys, tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    for more in ([], ["--plot", str(tmp_path / "x.png")]):
        status, _, err = bench(capsys, "--from", str(path), *more)
        assert (status, len(err)) == (2, 1)
        assert str(path) in err[0]
    assert not (tmp_path / "x.png").exists()


@pytest.mark.usefixtures("only_page")
def test_ctrl_c_keeps_what_was_measured(capsys, monkeypatch):
    measure_workload = measure.measure_workload

    def interrupt(work, chosen):
        if work.parameters == 7:
            raise KeyboardInterrupt
        return measure_workload(work, chosen)

    monkeypatch.setattr(measure, "measure_workload", interrupt)
    status, out, _ = bench(capsys, "--sizes", "1e3,7,5", *BRIEFLY, "--json")
    report = json.loads("\n".join(out))
    jsonschema.validate(report, SCHEMA)
    assert (status, report["interrupted"]) == (130, True)
    assert [w["parameters"] for w in report["workloads"]] == [1000]


def test_without_threads_there_are_no_more_than_numba_has(capsys, monkeypatch):
    """NUMBA_NUM_THREADS=1 refused what nobody had asked for: a thread for each core."""
    keep_contenders(monkeypatch, "cpu")
    monkeypatch.setattr(workloads, "count_cores", lambda: 2)
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 1)
    status, out, _ = bench(capsys, "--sizes", "1e3", *BRIEFLY, "--json")
    assert (status, [w["threads"] for w in json.loads("\n".join(out))["workloads"]]) == (0, [1])
    status, _, err = bench(capsys, "--sizes", "1e3", "--threads", "2", *BRIEFLY)
    assert (status, err[-1]) == (2, "amos-ref: 2 threads: NUMBA_NUM_THREADS is 1")


def test_the_closed_form_is_measured_beside_paper_amos(capsys, tmp_path, monkeypatch):
    keep_contenders(monkeypatch, "cpu", "page", "paper")
    argv = [*CLOSED, "--sizes", "1e3", "--slots", "tensor,element", "--threads", "1", *BRIEFLY]
    status, out, err = bench(capsys, *argv, "--json")
    report = json.loads("\n".join(out))
    jsonschema.validate(report, SCHEMA)
    assert (status, report["settings"]["algorithm"]) == (0, "closed-form")
    kinds = [(slot, direction) for slot in ("tensor", "element") for direction in ("gradient", "adam")]
    assert [(w["slot"], w["direction"]) for w in report["workloads"]] == kinds
    assert {w["algorithm"] for w in report["workloads"]} == {"closed-form"}
    assert err == [f"{i} of 4: {w['label']}" for i, w in enumerate(report["workloads"], 1)]
    for work in report["workloads"]:
        ours, roof, page, paper = work["results"]
        assert [r["contender"] for r in (ours, roof, page, paper)] == ["amos_ref", "roof", "page", "paper"]
        moved = 64_000 if work["direction"] == "adam" else 16_000
        assert ours["bytes"] == roof["bytes"] == page["bytes"] == work["bytes"] == moved
        assert paper["bytes"] == (32_000 if work["slot"] == "element" else 16_016)
    path = tmp_path / "report.json"
    path.write_text("\n".join(out))
    assert main(["bench", "--from", str(path), "--plot", str(tmp_path / "x.png")]) == 0
    shown = capsys.readouterr().out
    assert "1000 float32, element slots, closed form by adam, 1 thread; 64 bytes a parameter" in shown


def test_bytes_of_the_other_direction_would_be_seen(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(workloads.Workload, "moment_bytes", 0)
    with pytest.raises((AssertionError, ValueError)):
        test_the_closed_form_is_measured_beside_paper_amos(capsys, tmp_path, monkeypatch)


def test_the_schema_refuses_what_is_not_the_report():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": "amos-ref-bench-1"}, SCHEMA)


# pictures


def fabricated():
    def work(n, slot, found):
        records = [{"contender": name, "ns_per_parameter": ns, "of_roof": ns / 0.5} for name, ns in found.items()]
        described = dict(parameters=n, arrays=1, slot=slot, dtype="float32", threads=2, momentum=False, state="param")
        return {**described, "label": f"{n} {slot}", "results": records}

    works = [
        work(1000, "tensor", {"amos_ref": 2.0, "roof": 0.5}),
        work(10, "tensor", {"amos_ref": 4.0, "roof": 0.5, "page": 8.0}),
        work(1000, "row", {"amos_ref": 16.0, "roof": 0.5}),
    ]
    return {"contenders": {"amos_ref": {}, "roof": {}, "page": {}, "absent": {}}, "workloads": works}


def test_the_pictures_are_the_numbers():
    lines = {line.get_label(): line.get_xydata().tolist() for line in plots.speeds(fabricated()).get_lines()}
    assert lines == {"roof": [[10, 2], [1000, 2]], "amos_ref": [[10, 0.25], [1000, 0.5]], "page": [[10, 0.125]]}
    ax = plots.over_roof(fabricated())
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines == {"amos_ref": [[32, 0], [8, 1], [4, 2]], "page": [[16, 1]], "roof": [[1, 0], [1, 1]]}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1000 row", "10 tensor", "1000 tensor"]


@pytest.mark.usefixtures("only_page")
def test_bench_draws(capsys, tmp_path):
    path = tmp_path / "x.png"
    assert bench(capsys, "--sizes", "7", *BRIEFLY, "--plot", str(path))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_start_is_printed(capsys, monkeypatch):
    found = dict(array="an array", stages=["one", "two"], warm=[0.25, 1.0], cold=[0.25, 8.0], runs=9, cold_runs=3)
    monkeypatch.setattr(start, "measure_start", lambda backend: {**found, "numba_imported_by": "two"})
    status, out, _ = bench(capsys, "--start")
    assert status == 0
    assert [line.split() for line in out[-3:]] == [
        ["one", "0.25", "0.25"],
        ["two", "1", "8"],
        ["Numba", "is", "imported", "by:", "two"],
    ]


# on a GPU


def bench_gpu(capsys, *argv):
    status = main(["bench", "--backend", "cuda", *argv])
    out, err = capsys.readouterr()
    return status, out, err.splitlines()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--threads", "1"], "--backend cuda goes without --threads: the host's threads take no part in a step"),
        (["--start"], "--backend cuda goes without --start: its kernels are not kept on disk"),
        (["--peers", "page"], "there is no peer 'page'; the peers are torch-fused, torch-foreach, torch-eager"),
    ],
)
def test_what_a_gpu_does_not_have_is_refused(capsys, argv, text):
    status, out, err = bench_gpu(capsys, *argv)
    assert (status, out, len(err)) == (2, "", 1)
    assert text in err[0]


@pytest.mark.skipif(cuda_driver.usable(), reason="there is a GPU, or the simulator")
def test_without_a_gpu_one_line_says_why(capsys):
    status, out, err = bench_gpu(capsys, "--quick")
    assert (status, out, len(err)) == (3, "", 1)
    assert "backend 'cuda'" in err[0]


def test_the_simulator_is_not_measured(capsys, monkeypatch):
    monkeypatch.setattr(cuda_driver, "check", lambda: None)
    monkeypatch.setattr(cuda_driver, "simulated", lambda: True)
    status, out, err = bench_gpu(capsys, "--quick")
    assert (status, out, len(err)) == (3, "", 1)
    assert "simulator" in err[0]


def test_a_report_of_a_gpu(capsys, tmp_path, monkeypatch):
    made_up_gpu.install(monkeypatch)
    keep_contenders(monkeypatch, "cuda")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    argv = ["--sizes", "1e4,2e7", "--slots", "tensor,row", "--seconds", "0.01"]
    status, out, err = bench_gpu(capsys, *argv, "--json")
    assert status == 0
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    assert err == [f"{i} of 4: {w['label']}" for i, w in enumerate(report["workloads"], 1)]
    assert report["start"] is None
    assert report["machine"]["gpu"]["name"] == "Made-up GPU"
    assert report["machine"]["gpu"]["cuda"] == "13.1"
    assert report["settings"]["least"] == 20
    for work in report["workloads"]:
        ours, copied = work["results"]
        assert (ours["contender"], copied["contender"]) == ("amos_ref", "roof")
        assert ours["extra_bytes"] is None
        assert min(ours["rounds"], copied["rounds"]) >= 20
        assert (ours["copies"] == 32) == (work["parameters"] == 10**4)
    large = report["workloads"][2]["results"][0]
    assert large["of_roof"] == pytest.approx(2 / 1.8, rel=0.01)  # 0.90 of the copy's bandwidth
    assert large["gb_per_s"] == pytest.approx(1800, rel=0.01)
    path = tmp_path / "report.json"
    path.write_text(out)
    assert main(["bench", "--from", str(path), "--plot", str(tmp_path / "x.png")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Made-up GPU, compute capability 9.0, 132 multiprocessors; L2 50 MB") for line in shown)
    first = next(line.split() for line in shown if line.startswith("amos_ref   ") and ".." in line)
    record = report["workloads"][0]["results"][0]
    assert first[1] == f"{record['seconds']['median'] * 1e6:.4g}"
    assert first[-1] == "32"
    assert "copies" in next(line for line in shown if "us/step" in line)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert plots.over_roof(report).get_xlabel() == "time of a step / time of the copy"
    assert "on a GPU" in plots.speeds(report).get_title()
