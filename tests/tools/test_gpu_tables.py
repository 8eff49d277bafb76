"""The tables of the documents are made from the report of tests/gpu/run.py, and from nothing else."""

import importlib.util
import json
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("gpu_tables", ROOT / "tools/gpu_tables.py")
assert spec is not None
assert spec.loader is not None
gpu_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_tables)

KINDS = ("copy", "graph", "bound", "eager")
FOUND = dict(
    device=dict(name="Made-up GPU", driver="1.2", cuda="13.0"),
    versions={"numpy": "2.4.6", "jax": "0.11"},
    rows=[
        dict(workload="1000x64", ms={k: [0.5 + i, 0, 1] for i, k in enumerate(KINDS)}, host_us=dict(eager=9, bound=3))
    ],
    left_out=["67M"],
)
TESTS = dict(verdict="out of time", passed=3, failed=1, skipped=2, seconds=4.5)
REPORT = dict(date="2026-11-26", parts=dict(tests=TESTS, bench=dict(verdict="passed", seconds=9, found=FOUND)))


def test_tables_stand_between_their_marks_and_nothing_else_changes(tmp_path):
    page, report = tmp_path / "page.md", tmp_path / "report.json"
    page.write_text("a\n<!-- gpu: checks -->\nold\n<!-- end -->\nb\n<!-- gpu: speed -->\n<!-- end -->\nc\n")
    report.write_text(json.dumps(REPORT))
    gpu_tables.main(report, page)
    text = page.read_text()
    gpu_tables.main(report, page)
    assert page.read_text() == text
    assert (text[:2], text[-2:]) == ("a\n", "c\n")
    assert "old" not in text
    assert "| tests | out of time | 3 | 1 | 2 | 4.5 |" in text
    assert "| 1000x64 | 0.5000 | 1.5000 | 2.5000 | 3.5000 |  |  | 3.00 | 9, 3 |" in text
    assert "Left out: 67M." in text
    assert "Made-up GPU, driver 1.2, CUDA 13.0, numpy 2.4.6, 2026-11-26." in text


def test_without_a_bench_the_date_is_what_is_known():
    assert gpu_tables.checks(dict(date="2026-11-26", parts=dict(tests=TESTS)))[-1] == "2026-11-26."
