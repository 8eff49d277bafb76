"""amos-ref check --algorithm closed-form: its options, its reports, and what goes wrong."""

import json
import os
import tomllib
from xml.etree import ElementTree

import helpers
import pytest
from helpers.reports import SCHEMA
from jsonschema import Draft202012Validator

from amos_ref.cli import check as check_command
from amos_ref.cli import main
from amos_ref.conformance import pytest_plugin
from amos_ref.conformance.algorithms import ALGORITHMS, CLOSED_FORM

RIGHT = str(helpers.ROOT / "examples" / "ports" / "closed_form_numpy.py") + ":step"
WRONG = os.fspath(helpers.TESTS / "helpers" / "closed_form_ports.py") + ":from_one"
CLOSED = ["--algorithm", "closed-form"]


def test_the_names_are_those_of_the_table():
    assert check_command.ALGORITHM_NAMES == pytest_plugin.ALGORITHM_NAMES == tuple(ALGORITHMS)


def test_all_forms_of_the_report_say_which_algorithm(tmp_path, capsys):
    junit, markdown = tmp_path / "report.xml", tmp_path / "report.md"
    files = ["--junit-xml", str(junit), "--markdown", str(markdown)]
    assert main(["check", RIGHT, *CLOSED, "--case", "plain,adam", "--json", *files]) == 0
    report = json.loads(capsys.readouterr().out)
    Draft202012Validator(SCHEMA).validate(report)
    assert report["algorithm"] == "closed-form"
    assert {r["verdict"] for r in report["results"]} == {"conforms"}
    assert ElementTree.parse(junit).getroot().attrib["name"] == f"amos-ref {RIGHT} as the closed form"
    assert f"{RIGHT} as the closed form: " in markdown.read_text()


def test_a_wrong_port_departs(capsys):
    assert main(["check", WRONG, *CLOSED, "--case", "plain", "--dtype", "float64"]) == 1
    first = capsys.readouterr().out.splitlines()[1]
    assert first.split()[:5] == ["plain", "float64", "departs", "step", "1,"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([RIGHT, "--algorithm", "nonsense"], "invalid choice: 'nonsense' (choose from 'paper', 'closed-form')"),
        (CLOSED, "--algorithm says something about a TARGET, and there is none"),
        ([RIGHT, *CLOSED, "--eta", "0.5"], "the closed form has no eta; what a port of it hard-codes is its sigma"),
        ([RIGHT, "--sigma", "0.5"], "paper Amos has no sigma; what a port of it hard-codes is its eta"),
        ([RIGHT, *CLOSED, "--sigma", "0.5"], "takes sigma, so --sigma, which is for ports that hard-code it"),
        ([RIGHT, *CLOSED, "--words", "decay"], "--words 'decay' is not of the form OPTION=WORD,WORD"),
        ([RIGHT, *CLOSED, "--words", "decay=,"], "--words 'decay=,' is not of the form OPTION=WORD,WORD"),
        ([RIGHT, *CLOSED, "--words", "decay=cosine"], "there is no decay 'cosine'; it is one of inverse-time"),
        ([RIGHT, "--words", "decay=recurrence"], "paper Amos: 'decay' is no option that has words; no option has"),
        ([RIGHT, *CLOSED, "--map", "beta=betas[1]"], "--map beta=betas[1]: 'beta' is not one of alpha_0, half_life"),
        ([RIGHT, *CLOSED, "--case", "extra_l2"], "there is no case 'extra_l2'"),
    ],
)
def test_what_means_nothing_is_named(words, text, capsys):
    try:
        status = main(["check", *words])
    except SystemExit as ended:  # argparse
        status = ended.code
    assert status == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err.splitlines()[-1]


def test_a_list_of_expected_departures(tmp_path, capsys):
    listed = tmp_path / "expected.toml"
    assert main(["check", WRONG, *CLOSED, "--quick", "--write-expect", str(listed)]) == 1
    entries = tomllib.loads(listed.read_text())["departure"]
    assert {entry["case"] for entry in entries} <= {case.name for case in CLOSED_FORM.table()}
    listed.write_text(listed.read_text().replace('reason = ""', 'reason = "counts from 1"'))
    assert main(["check", WRONG, *CLOSED, "--quick", "--expect", str(listed)]) == 0
    capsys.readouterr()
    assert main(["check", WRONG, "--quick", "--expect", str(listed)]) == 2  # as paper Amos it has no such cases
    listed.write_text('[[departure]]\ncase = "plain"\nverdict = "departs"\nstage = "b"\nreason = "x"\n')
    assert main(["check", WRONG, *CLOSED, "--quick", "--expect", str(listed)]) == 2
    assert "there is no stage 'b'" in capsys.readouterr().err
