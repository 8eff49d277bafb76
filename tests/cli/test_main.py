"""The command line: output, exit status, one line for every mistake."""

import json
import subprocess
import sys

import helpers
import numpy as np
import pytest
from helpers.toy_port import ToyPort

import amos_ref
from amos_ref.cli import main
from amos_ref.conformance import table
from amos_ref.conformance.judging.drive import unsupported

QUICK = [case for case in table() if case.dtype == "float64"]
TESTS = str(helpers.TESTS)


def lines(capsys):
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def test_check_of_this_installation(capsys):
    assert main(["check"]) == 0
    out, err = lines(capsys)
    assert out[-1] == "this installation: 12 conforms"
    assert [line.split()[:4] for line in out[1:3]] == [
        ["page", "=", "vectors", "float64"],
        ["page", "=", "vectors", "float32"],
    ]
    assert err == []


def test_check_of_a_port(capsys, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    n = sum(not unsupported(ToyPort(), case) for case in QUICK)
    assert main(["check", "helpers.toy_port:ToyPort", "--quick"]) == 0
    assert lines(capsys)[0][-1] == f"toy: {n} conforms, {len(QUICK) - n} not supported"


def test_check_of_a_wrong_port_by_path_as_json(capsys, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {TESTS!r})\nfrom helpers.toy_port import ToyPort\n"
        "port = ToyPort('extra_l2 sign')\n"
    )
    assert main(["check", f"{path}:port", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    departing = {r["case"] for r in report["results"] if r["verdict"] == "departs"}
    assert departing == {"extra_l2", "momentum-extra_l2", "everything", "slots-momentum"}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["check", "nonsense"], "target 'nonsense' is not of the form"),
        (["check", "no_such_module_xyz:attr"], "there is no module 'no_such_module_xyz'"),
        (["check", "--quick"], "--quick says something about a TARGET"),
        (["check", "os:getcwd", "--map", "x"], "--map 'x' is not of the form OURS=THEIRS"),
        (["explain", "--step", "0"], "--step is 0; it must be from 1 to 1000"),
        (["vectors", "generate", "/no/such/folder"], "there is no folder '/no/such/folder'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, text, capsys):
    assert main(argv) == 2
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert text in err[0]


def test_a_missing_framework_is_exit_3(capsys, tmp_path):
    path = tmp_path / "port.py"
    path.write_text("raise ModuleNotFoundError('no', name='torch')")
    assert main(["check", f"{path}:x"]) == 3
    assert "needs torch, which is not installed: pip install torch==2.13.0" in lines(capsys)[1][0]


@pytest.mark.parametrize("argv", [[], ["dance"], ["explain", "--step", "x"], ["vectors"]])
def test_wrong_usage_is_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: amos-ref" in capsys.readouterr().err


def test_explain_prints_the_trace_with_its_numbers(capsys):
    assert main(["explain"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("step t=1: q=0.1, xi=0.1, beta=0.9")
    assert "rho = d (gamma/2 + extra_l2)" in first
    assert main(["explain", "--step", "3", "--json"]) == 0
    third = json.loads(capsys.readouterr().out)
    assert third["t"] == 3
    kernel = third["leaves"]["kernel"]
    alpha, rho = np.array(kernel["alpha"]), np.array(kernel["rho"])
    assert alpha.shape == (1, 3)
    before = np.array(kernel["theta"]) - np.array(kernel["delta"])
    np.testing.assert_allclose(-(alpha * kernel["g"] + rho * before), kernel["delta"], rtol=1e-12)


def test_info_names_versions_and_backends(capsys):
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["amos_ref"] == amos_ref.__version__
    assert main(["info"]) == 0
    assert "  numpy " in capsys.readouterr().out


def test_as_a_program():
    found = subprocess.run(
        [sys.executable, "-m", "amos_ref", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == f"amos_ref {amos_ref.__version__}\n"
    closed = subprocess.run(
        f"{sys.executable} -m amos_ref info | head -c 1", shell=True, capture_output=True, text=True
    )
    assert closed.stderr == ""
