"""amos-ref check: of this installation and of ports."""

import json

import helpers
from helpers.command import output_lines
from helpers.toy_port import ToyPort

from amos_ref.cli import main
from amos_ref.conformance import table
from amos_ref.conformance.judging.drive import unsupported

QUICK = [case for case in table() if case.dtype == "float64"]
TESTS = str(helpers.TESTS)


def test_check_of_this_installation(capsys):
    assert main(["check"]) == 0
    out, err = output_lines(capsys)
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
    assert output_lines(capsys)[0][-1] == f"toy: {n} conforms, {len(QUICK) - n} not supported"


def test_check_of_a_wrong_port_by_path_as_json(capsys, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {TESTS!r})\n"
        "from helpers.toy_port import ToyPort\nport = ToyPort('extra_l2 sign')\n"
    )
    assert main(["check", f"{path}:port", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    departing = {r["case"] for r in report["results"] if r["verdict"] == "departs"}
    assert departing == {"extra_l2", "momentum-extra_l2", "everything", "slots-momentum"}


def test_a_missing_framework_is_exit_3(capsys, tmp_path):
    path = tmp_path / "port.py"
    path.write_text("raise ModuleNotFoundError('no', name='torch')")
    assert main(["check", f"{path}:x"]) == 3
    assert "needs torch, which is not installed: pip install torch==2.13.0" in output_lines(capsys)[1][0]
