"""The table of published ports: made of what the checks said, and of nothing else."""

import json
import subprocess
from types import SimpleNamespace

from helpers import ROOT

from tools import published_ports as module
from tools.published_ports import Published, check, measure, render

PORT = Published("somebodys", "1.0", "{site}/amos.py:Amos")
REPORT = {
    "counts": {"conforms": 1, "departs": 1},
    "diagnosis": {"deviations": ["extra_l2-sign"], "dialect": None, "text": "extra_l2-sign: subtracts"},
    "results": [
        {"case": "plain", "dtype": "float64", "verdict": "conforms", "detail": ""},
        {"case": "plain", "dtype": "float32", "verdict": "departs", "detail": "theta"},
        {"case": "new", "dtype": "float64", "verdict": "raises", "detail": "KeyError: | <b>"},
    ],
}


def answering(monkeypatch, stdout="", stderr="", returncode=1):
    asked = []

    def run(command, **options):
        asked.append((command, options))
        return SimpleNamespace(stdout=stdout, stderr=stderr, returncode=returncode)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_a_report_is_kept_case_by_case(monkeypatch, tmp_path):
    asked = answering(monkeypatch, json.dumps(REPORT))
    found = check(PORT, tmp_path)
    (command, options), *_ = asked
    assert command[-2:] == [f"{tmp_path}/amos.py:Amos", "--json"]
    assert str(tmp_path) in options["env"]["PYTHONPATH"]
    assert found["cases"]["plain"] == {"float64": "conforms", "float32": "departs"}
    page = render({"versions": {"torch": "2"}, "ports": {"somebodys 1.0": found}})
    assert "| somebodys 1.0 | 1 conforms, 1 departs | [extra_l2-sign](deviations.md) |" in page
    assert "| plain | +x |" in page
    assert "| new | ! |" in page  # a case that is no longer in the table is shown, too
    assert r"* raises: KeyError: \| &lt;b>: somebodys 1.0" in page


def test_what_cannot_be_checked_says_why(monkeypatch, tmp_path):
    answering(monkeypatch, stderr=f"warning\namos-ref: {tmp_path}/amos.py failed to import: no chex\n")
    found = check(PORT, tmp_path)
    assert found == {"failed": ".../amos.py failed to import: no chex"}
    page = render({"versions": {}, "ports": {"somebodys 1.0": found}})
    assert "| somebodys 1.0 | could not be checked | .../amos.py failed to import: no chex |" in page


def test_what_cannot_be_installed_says_why(monkeypatch):
    def fail(port):
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(module, "install", fail)
    assert "could not be installed" in measure(PORT)["failed"]


def test_only_what_is_asked_for_is_checked_again(monkeypatch, tmp_path):
    (tmp_path / "ports.json").write_text(json.dumps({"versions": {}, "ports": {"zij 0.1.1": {"failed": "of old"}}}))
    monkeypatch.setattr(module, "measure", lambda port: {"failed": "new"})
    module.main([str(tmp_path), "jestimator", "pytorch_optimizer==3.9.0"])
    kept = json.loads((tmp_path / "ports.json").read_text())["ports"]
    assert kept["zij 0.1.1"] == {"failed": "of old"}
    assert kept["jestimator 0.3.3"] == {"failed": "new"}
    assert [name for name in kept if name.startswith("pytorch")] == ["pytorch_optimizer 3.9.0"]
    before = (tmp_path / "ports.md").read_text(encoding="utf-8")
    module.main([str(tmp_path), "--from"])
    assert (tmp_path / "ports.md").read_text(encoding="utf-8") == before


def test_the_page_is_what_the_measurement_makes_of_it():
    measured = json.loads((ROOT / "docs" / "ports.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    assert page == render(measured)
    assert {path.stem for path in (ROOT / "docs" / "reports").glob("*.md")} == set(module.REPORTS)
    assert set(measured["ports"]) == {port.name for port in module.PORTS}
