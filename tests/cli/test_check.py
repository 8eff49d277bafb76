"""amos-ref check: of this installation and of ports."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from xml.etree import ElementTree

import helpers
import jsonschema
import pytest
from helpers.command import output_lines
from helpers.reports import SCHEMA, cells
from helpers.toy_port import ToyPort

from amos_ref.cli import check as check_command
from amos_ref.cli import main
from amos_ref.conformance import table
from amos_ref.conformance.judging.drive import unsupported
from amos_ref.conformance.judging.judge import Result
from amos_ref.errors import StorageError
from amos_ref.storage import files

QUICK = [case for case in table() if case.dtype == "float64"]
TESTS = str(helpers.TESTS)
PORTS = helpers.ROOT / "examples" / "ports"


def test_check_of_this_installation(capsys):
    assert main(["check"]) == 0
    out, err = output_lines(capsys)
    assert out[-1] == "this installation: 25 conforms"
    assert [line.split()[:4] for line in out[1:3]] == [
        ["page", "=", "vectors", "float64"],
        ["page", "=", "vectors", "float32"],
    ]
    assert err == []


def test_check_of_a_port(capsys, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    n = sum(not unsupported(ToyPort(), case) for case in QUICK)
    assert main(["check", "helpers.toy_port:ToyPort", "--quick"]) == 0
    assert output_lines(capsys)[0][-1] == f"toy: {n} conforms, {len(QUICK) - n} not supported"


def test_check_of_a_wrong_port_by_path_as_json(capsys, wrong_port):
    assert main(["check", wrong_port, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    departing = {r["case"] for r in report["results"] if r["verdict"] == "departs"}
    momentum = {"momentum-extra_l2", "slots-momentum", "life-other-order-momentum"}
    assert departing == {"extra_l2", "everything"} | momentum


def test_a_missing_framework_is_exit_3(capsys, tmp_path):
    path = tmp_path / "port.py"
    path.write_text("raise ModuleNotFoundError('no', name='torch')")
    assert main(["check", f"{path}:x"]) == 3
    assert "needs torch, which is not installed: pip install torch==2.13.0" in output_lines(capsys)[1][0]


# where reports go


def test_all_reports_at_once(wrong_port, tmp_path, capsys):
    junit, markdown = tmp_path / "report.xml", tmp_path / "report.md"
    assert main(["check", wrong_port, "--quick", "--json", "--junit-xml", str(junit), "--markdown", str(markdown)]) == 1
    data = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert ElementTree.parse(junit).getroot().attrib["failures"] == str(data["counts"]["departs"])
    assert len(cells(markdown.read_text())) == 2 + len(data["results"])
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["report.md", "report.xml", "wrong.py"]


def test_the_table_stays_on_standard_output_unless_it_is_taken(wrong_port, tmp_path, capsys):
    assert main(["check", wrong_port, "--quick", "--junit-xml", str(tmp_path / "report.xml")]) == 1
    assert capsys.readouterr().out.startswith("case ")
    assert main(["check", wrong_port, "--quick", "--markdown", "-"]) == 1
    assert capsys.readouterr().out.startswith("**amos-ref: does not conform**")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--json", "--markdown", "-"], "--json and --markdown would both write to '-'"),
        (["--junit-xml", "{}/a", "--markdown", "{}/../{name}/a"], "--junit-xml and --markdown would both write to"),
        (["--markdown", "{}/../{name}/wrong.py"], "--markdown would overwrite "),
        (["--expect", "{}/wrong.py", "--junit-xml", "{}/wrong.py"], "--junit-xml would overwrite "),
        (["--junit-xml", "{}/no/such/a.xml"], "No such file or directory"),
        (["--markdown", "{}"], "it exists and is not an ordinary file"),
        (["--markdown", "/dev/null"], "it exists and is not an ordinary file"),
        (["--expect", "{}/missing.toml"], "missing.toml': No such file or directory"),
        (["--expect", ""], "cannot read '': No such file or directory"),
        (["--write-expect", "{}/wrong.py"], "wrong.py': it exists; given to --expect as well, its reasons are kept"),
        (["--timeout", "0"], "timeout is 0.0; it must be above 0"),
    ],
)
def test_what_cannot_be_written_or_read_is_said_before_the_check(argv, text, wrong_port, tmp_path, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the port was run")

    monkeypatch.setattr("amos_ref.conformance.judging.judge.run", never)
    argv = [arg.format(tmp_path, name=tmp_path.name) for arg in argv]
    assert main(["check", wrong_port, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert text in err
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.py"]


@pytest.mark.parametrize("option", ["--expect", "--write-expect", "--timeout"])
def test_options_that_need_a_target(option, capsys):
    assert main(["check", option, "1"]) == 2
    assert f"{option} says something about a TARGET, and there is none" in capsys.readouterr().err


def test_a_check_that_fails_leaves_old_reports_as_they_were(tmp_path, capsys):
    old = tmp_path / "report.md"
    old.write_text("old")
    assert main(["check", "json:no_such", "--markdown", str(old)]) == 2
    assert old.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.md"]
    assert "json has no attribute" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", [[], ["ml_dtypes"]])
def test_a_plain_installation_reports_a_port_that_departs(lacking, wrong_port, tmp_path):
    """As if no extra were installed; while ml_dtypes came with one, there was no report."""
    extras = tomllib.loads((helpers.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["bf16"] == []
    names = {re.split(r"[\[>=]", text)[0] for texts in extras.values() for text in texts} - {"amos_ref", "numpy"}
    modules = {"pyyaml": "yaml", "python-flint": "flint", "scikit-learn": "sklearn", "pytest-cov": "pytest_cov"}
    absent = [modules.get(name, name.replace("-", "_")) for name in sorted(names)] + lacking
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); from amos_ref.cli import main; sys.exit(main())"
    reports = [tmp_path / "report.xml", tmp_path / "report.md"]
    argv = ["check", wrong_port, "--junit-xml", reports[0], "--markdown", reports[1], "--json"]
    env = os.environ | {"PYTHONPATH": str(helpers.ROOT)}
    found = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, env=env, timeout=100)
    assert found.returncode == (3 if lacking else 1), found.stderr
    assert [path.exists() for path in reports] == [not lacking] * 2
    if not lacking:
        assert json.loads(found.stdout)["diagnosis"]["deviations"] == ["extra_l2-sign"]
        assert "<failure" in reports[0].read_text()
        assert reports[1].read_text().startswith("**amos-ref: does not conform**")


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_a_report_that_cannot_be_written_takes_no_other_with_it(
    wrong, alone, wrong_port, tmp_path, capsys, monkeypatch
):
    """A port that departs keeps its 1, and one that conforms is not said to have been used in a wrong way."""
    port = wrong_port if wrong else str(PORTS / "amos_numpy.py:step")
    paths = {"--junit-xml": tmp_path / "report.xml", "--markdown": tmp_path / "report.md"}
    lost, kept = paths.values()

    def write(path, content):
        if os.fspath(path) == str(lost):
            raise StorageError(f"cannot write {str(path)!r}: No space left on device")
        return files.write_file(path, content)

    monkeypatch.setattr(check_command, "write_file", write)
    argv = [text for option, path in paths.items() for text in (option, str(path)) if not alone or path == lost]
    assert main(["check", port, "--quick", *argv]) == (1 if wrong else 4)
    out, err = capsys.readouterr()
    assert out.startswith("case ")
    assert err.splitlines()[-1] == f"amos-ref: cannot write {str(lost)!r}: No space left on device"
    assert not lost.exists()
    assert kept.exists() is not alone


def test_odd_messages_reach_an_ascii_terminal():
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join([TESTS, str(helpers.ROOT)])}
    for form in ([], ["--json"], ["--markdown", "-"], ["--junit-xml", "-"]):
        argv = [sys.executable, "-m", "amos_ref", "check", "helpers.bad_ports:Odd", "--quick", *form]
        found = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=100)
        assert (found.returncode, found.stderr) == (1, "")
        assert r"\udc80" in found.stdout


def watched(cases, *results):
    """What is shown of a check of these cases in which there are these results."""
    with check_command.Watch() as watch:
        assert list(watch.cases(cases)) == cases
        for result in results:
            watch.found(result)
        watch.say("tried: pairs")


DEPARTS = Result("plain", "float64", "", "departs", step=1, stage="b", leaf="x", detail="is 2")


def test_a_terminal_is_shown_the_case_and_what_departs_at_once(terminal, monkeypatch):
    cases = table()[:2]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    watched(cases, DEPARTS)
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", terminal)
    watched(cases, DEPARTS, DEPARTS._replace(only_state=True), DEPARTS._replace(verdict="conforms"))
    shown = terminal.getvalue()
    assert "plain float64" in shown
    assert "1 depart: tried: pairs" in shown
    assert "2 depart" not in shown
    assert "plain float64: departs at step 1, b: b of leaf 'x' is 2" in shown
    watched([("a check of the installation",)])
    monkeypatch.setenv("NO_COLOR", "1")
    shown = terminal.getvalue()
    watched(cases, DEPARTS)
    assert terminal.getvalue() == shown
