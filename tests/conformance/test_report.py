"""Reports say the same in every form; expected departures are no failure, and are missed when they stop."""

import io
import json
import os
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

import jsonschema
import pytest
from helpers import TESTS, bad_ports
from helpers.toy_port import OPTIONS, ToyPort
from markdown_it import MarkdownIt

import amos_ref
from amos_ref.cli import check as check_command
from amos_ref.cli import main
from amos_ref.conformance import check, expect, table
from amos_ref.conformance.judging import verdicts
from amos_ref.conformance.judging.drive import unsupported
from amos_ref.conformance.judging.judge import STAGES, Result
from amos_ref.conformance.judging.tolerance import METHOD
from amos_ref.conformance.report import Report, line
from amos_ref.errors import ExpectationError

SCHEMA = json.loads((pathlib.Path(amos_ref.__path__[0]) / "conformance" / "report.schema.json").read_text())
CASES = [case for case in table() if case.dtype in ("float64", "float32")]
RUN = [case for case in CASES if not unsupported(ToyPort(), case)]
REASON = "chosen in our first release"


@pytest.fixture(scope="module")
def wrong():
    """Conforms, departs and lacks an option."""
    return check(ToyPort("extra_l2 sign", OPTIONS - {"clip_value"}))


def validate(report):
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return data


# JSON


def test_the_schema_is_one_and_closed_everywhere():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for part in (SCHEMA, SCHEMA["$defs"]["result"], SCHEMA["$defs"]["diagnosis"]):
        assert part["additionalProperties"] is False
        assert sorted(part["required"]) == sorted(part["properties"])
    assert SCHEMA["$defs"]["verdict"]["enum"] == list(verdicts.VERDICTS)
    assert list(SCHEMA["$defs"]["result"]["properties"]) == list(Result._fields)
    assert set(SCHEMA["$defs"]["result"]["properties"]["stage"]["enum"]) == {*STAGES, None}


def test_json_of_a_check(wrong):
    data = validate(wrong)
    assert (data["format"], data["amos_ref"]) == ("amos-ref-report-1", amos_ref.__version__)
    assert (data["target"], data["suite"], data["tolerance"], data["ok"]) == ("toy", "full", METHOD, False)
    assert sum(data["counts"].values()) == len(data["results"]) == len(CASES)
    assert data["diagnosis"]["deviations"] == wrong.diagnosis.deviations


@pytest.mark.parametrize("port", [bad_ports.Drifting, bad_ports.Odd, bad_ports.Scribbling])
def test_json_of_bad_ports_is_valid(port):
    validate(check(port(), suite="quick"))


def test_json_of_the_installation():
    data = validate(check())
    assert data["tolerance"] is None
    assert data["diagnosis"] is None


@pytest.mark.parametrize(
    "change", [{"more": 1}, {"format": "amos-ref-report-2"}, {"counts": {"passes": 1}}, {"diagnosis": {"text": "x"}}]
)
def test_the_schema_refuses_what_is_no_report(change, wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(wrong.to_dict() | change)


# JUnit XML


def test_junit_has_a_test_case_for_each_case(wrong):
    suite = ElementTree.fromstring(wrong.to_junit())
    counts = wrong.counts()
    assert suite.attrib["tests"] == str(len(suite.findall("testcase"))) == str(len(CASES))
    assert suite.attrib["failures"] == str(len(suite.findall("*/failure"))) == str(counts["departs"])
    assert suite.attrib["skipped"] == str(len(suite.findall("*/skipped"))) == str(counts["not supported"])
    assert suite.attrib["errors"] == "0"
    assert suite.findtext("system-out") == wrong.diagnosis.text
    failing = suite.find("testcase[@name='extra_l2/float32']")
    assert failing is not None
    (failure,) = failing
    assert failure.attrib["type"] == "departs"
    assert failure.attrib["message"].startswith("departs at step 1, theta: theta of leaf 'kernel' [")


def test_junit_takes_what_a_port_says_whatever_it_says():
    report = check(bad_ports.Odd(), suite="quick")
    suite = ElementTree.fromstring(report.to_junit().encode())
    assert suite.attrib["errors"] == str(len(suite.findall("*/error"))) == str(report.counts()["raises"]) != "0"
    message = suite.findall("*/error")[0].attrib["message"]
    assert message == r"raises at step 1: ValueError: \x00\x1b[31m\udc80 <&]]>|`é"


# Markdown


def cells(markdown):
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    row: list[str] = []
    rows = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append(row := [])
        elif token.type == "inline" and token.children is not None:
            row.append("".join(child.content for child in token.children))
    return rows


def test_markdown_shows_failing_cases_and_folds_the_rest(wrong):
    text = wrong.to_markdown()
    visible, _, folded = text.partition("<details>")
    departing = [r for r in wrong.results if r.verdict == "departs"]
    assert [row[:3] for row in cells(visible)[1:]] == [[r.case, r.dtype, "departs"] for r in departing]
    assert len(cells(folded)) == 1 + len(wrong.results) - len(departing)
    assert all(text in visible for text in [wrong.summary(), *wrong.diagnosis.text.splitlines()])


def test_markdown_takes_what_a_port_says_as_text():
    rows = cells(check(bad_ports.Odd(), suite="quick").to_markdown())
    assert {len(row) for row in rows} == {5}
    assert rows[1][4] == r"ValueError: \x00\x1b[31m\udc80 <&]]>|`é"


# where reports go


@pytest.fixture
def port(tmp_path):
    """A target for the command line: `wrong.py:port` beside the reports."""
    path = tmp_path / "wrong.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom helpers.toy_port import ToyPort\n"
        "port = ToyPort('extra_l2 sign')\n"
    )
    return f"{path}:port"


def test_all_reports_at_once(port, tmp_path, capsys):
    junit, markdown = tmp_path / "report.xml", tmp_path / "report.md"
    assert main(["check", port, "--quick", "--json", "--junit-xml", str(junit), "--markdown", str(markdown)]) == 1
    data = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert ElementTree.parse(junit).getroot().attrib["failures"] == str(data["counts"]["departs"])
    assert len(cells(markdown.read_text())) == 2 + len(data["results"])
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["report.md", "report.xml", "wrong.py"]


def test_the_table_stays_on_standard_output_unless_it_is_taken(port, tmp_path, capsys):
    assert main(["check", port, "--quick", "--junit-xml", str(tmp_path / "report.xml")]) == 1
    assert capsys.readouterr().out.startswith("case ")
    assert main(["check", port, "--quick", "--markdown", "-"]) == 1
    assert capsys.readouterr().out.startswith("**amos-ref: does not conform**")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--json", "--markdown", "-"], "--json and --markdown would both write to '-'"),
        (["--junit-xml", "{}/a", "--markdown", "{}/../{name}/a"], "--junit-xml and --markdown would both write to"),
        (["--junit-xml", "{}/no/such/a.xml"], "No such file or directory"),
        (["--markdown", "{}"], "it exists and is no ordinary file"),
        (["--markdown", "/dev/null"], "it exists and is no ordinary file"),
        (["--expect", "{}/missing.toml"], "missing.toml': No such file or directory"),
        (["--expect", ""], "cannot read '': No such file or directory"),
        (["--write-expect", "{}/wrong.py"], "wrong.py': it exists; given to --expect as well, its reasons are kept"),
        (["--timeout", "0"], "timeout is 0.0; it must be above 0"),
    ],
)
def test_what_cannot_be_written_or_read_is_said_before_the_check(argv, text, port, tmp_path, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the port was run")

    monkeypatch.setattr("amos_ref.conformance.judging.judge.run", never)
    argv = [arg.format(tmp_path, name=tmp_path.name) for arg in argv]
    assert main(["check", port, *argv]) == 2
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


def test_odd_messages_reach_an_ascii_terminal():
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    for form in ([], ["--json"], ["--markdown", "-"], ["--junit-xml", "-"]):
        argv = [sys.executable, "-m", "amos_ref", "check", "helpers.bad_ports:Odd", "--quick", *form]
        found = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=100)
        assert (found.returncode, found.stderr) == (1, "")
        assert r"\udc80" in found.stdout


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal with colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_progress_names_the_case_on_a_terminal_alone(terminal, monkeypatch):
    cases = table()[:2]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(check_command._show_cases(cases)) == cases
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(check_command._show_cases(cases)) == cases
    assert "plain float64" in terminal.getvalue()
    assert list(check_command._show_cases([("a check of the installation",)])) == [("a check of the installation",)]
    monkeypatch.setenv("NO_COLOR", "1")
    shown = terminal.getvalue()
    assert list(check_command._show_cases(cases)) == cases
    assert terminal.getvalue() == shown


def test_on_a_terminal_what_departs_is_told_below(wrong, terminal):
    wrong.print(terminal)
    text = terminal.getvalue()
    assert "\x1b[31mdeparts" in text
    assert text.count("see below") == text.count("rho is") + text.count("m of leaf")


# expected departures


def entries(**changes):
    kept = {"verdict": "departs", "stage": "theta", "reason": REASON}
    cases = ("extra_l2", "*extra_l2", "everything")
    listed = [{**kept, "case": cases[0]}, {**kept, "case": cases[1], "stage": "m"}, {**kept, "case": cases[2]}]
    listed[2]["stage"] = "m"
    listed.append({"case": "slots-momentum", "verdict": "departs", "reason": REASON})
    listed[0].update(changes)
    return listed


@pytest.fixture(scope="module")
def departing():
    return check(ToyPort("extra_l2 sign")).results


def report_with(results, listed):
    return Report("toy", expect.apply(results, expect.read(listed), expect.list_supported(results)))


def test_departures_that_are_all_expected_pass(departing):
    report = report_with(departing, entries())
    assert report.ok
    counts = report.counts()
    assert (counts["conforms"], counts["departs as expected"]) == (len(RUN) - 8, 8)
    shown = next(r for r in report.results if r.case == "extra_l2")
    assert (shown.verdict, shown.expected) == ("departs", REASON)
    assert line(shown).startswith(f"departs as expected at step 1, theta: {REASON} [theta of leaf 'kernel' [")
    validate(report)
    assert ElementTree.fromstring(report.to_junit()).attrib["skipped"] == str(len(report.results) - counts["conforms"])
    assert "conforms**" in report.to_markdown()
    assert f"departs as expected  step 1, theta     {REASON}" in str(report)


def test_python_takes_the_list_too():
    assert check(ToyPort("extra_l2 sign"), expect=entries()).ok
    assert not check(ToyPort("extra_l2 sign"), expect=entries()[1:]).ok


@pytest.mark.parametrize(
    "changes", [{"dtype": "float32"}, {"stage": "v"}, {"step": 2}, {"verdict": "raises"}, {"case": "plain"}]
)
def test_a_departure_that_is_not_the_listed_one_fails(changes, departing):
    report = report_with(departing, [entries(**changes)[0], *entries()[2:]])
    failing = {(r.case, r.dtype, r.verdict) for r in report.results if r.failed}
    assert ("extra_l2", "float64", "departs") in failing
    assert not report.ok


def test_a_listed_departure_that_stops_fails_and_says_where_it_is_listed(tmp_path):
    path = tmp_path / "expected.toml"
    path.write_text(f'[[departure]]\ncase = "plain"\ndtype = "float32"\nverdict = "departs"\nreason = "{REASON}"\n')
    report = check(ToyPort(), expect=path)
    (gone,) = [r for r in report.results if r.failed]
    assert (gone.case, gone.dtype, gone.verdict) == ("plain", "float32", "no longer departs")
    assert gone.detail == f"expected departure did not happen: remove it from {path}, entry 1 (case 'plain')"
    assert not report.ok
    validate(report)
    assert check(ToyPort(), suite="quick", expect=path).ok  # float32 is not run, so nothing is known of it


def test_a_listed_departure_of_what_is_no_longer_supported_fails():
    report = check(ToyPort(options=OPTIONS - {"clip_value"}), expect=[entries(case="clip")[0]])
    assert {r.verdict for r in report.results if r.failed} == {"no longer departs"}


def test_the_written_list_expects_exactly_the_run(port, tmp_path, capsys):
    path = tmp_path / "expected.toml"
    assert main(["check", port, "--write-expect", str(path)]) == 1
    assert main(["check", port, "--expect", str(path)]) == 2
    assert "entry 1 (case 'extra_l2'): reason is missing or empty" in capsys.readouterr().err
    path.write_text(path.read_text().replace('""', json.dumps(REASON)))
    before = path.read_text()
    assert before.count("[[departure]]") == 6  # one for a case that was run in every dtype that it has
    assert main(["check", port, "--expect", str(path), "--write-expect", str(path)]) == 0
    assert path.read_text() == before
    other = ToyPort("d without eta")
    assert not check(other, expect=path).ok


def test_a_list_written_from_float64_alone_says_nothing_of_float32(port, tmp_path):
    path = tmp_path / "expected.toml"
    assert main(["check", port, "--quick", "--write-expect", str(path)]) == 1
    path.write_text(path.read_text().replace('""', '"why"'))
    assert path.read_text().count('dtype = "float64"') == 4
    assert main(["check", port, "--quick", "--expect", str(path)]) == 0
    assert main(["check", port, "--expect", str(path)]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[departure]", "is no TOML"),
        ("\x00", "is no TOML"),
        ("a = 1", "must be a list of [[departure]] and nothing else; it has ['a']"),
        ("departure = 1", "must be a list of [[departure]]"),
        ("departure = [1]", "entry 1 is 1; it must be a table"),
        ('[[departure]]\nverdict = "departs"\nreason = "x"', "entry 1: case is missing or empty"),
        ('[[departure]]\ncase = "plain"\nreason = "x"', "entry 1 (case 'plain'): verdict is missing or empty"),
        ('[[departure]]\ncase = "plain"\nverdict = "departs"', "entry 1 (case 'plain'): reason is missing or empty"),
        ('[[departure]]\ncase = "plain"\nverdict = "departs"\nreason = " "', "reason is missing or empty"),
        ('[[departure]]\ncase = "plane"\nverdict = "departs"\nreason = "x"', "there is no case 'plane'"),
        ('[[departure]]\ncase = "plain"\ndtype = "int"\nverdict = "departs"\nreason = "x"', "there is no dtype 'int'"),
        ('[[departure]]\ncase = "plain"\nverdict = "conforms"\nreason = "x"', "there is no verdict 'conforms'"),
        ('[[departure]]\ncase = "plain"\nverdict = "no longer departs"\nreason = "x"', "there is no verdict"),
        ('[[departure]]\ncase = "plain"\nverdict = "departs"\nstage = "w"\nreason = "x"', "there is no stage 'w'"),
        ('[[departure]]\ncase = "plain"\nverdict = "departs"\nstep = 0\nreason = "x"', "there is no step 0"),
        ('[[departure]]\ncase = "plain"\nstep = true', "step is True; it must be of type int"),
        ('[[departure]]\ncase = 1', "case is 1; it must be of type str"),
        ('[[departure]]\ncase = "plain"\nwhy = "x"', "entry 1 (case 'plain'): unknown key 'why'; the keys are case,"),
    ],
)  # fmt: skip
def test_lists_that_mean_nothing_are_named_errors(text, words, tmp_path):
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(ExpectationError) as caught:
        check(ToyPort(), expect=path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reason_is_one_line_whatever_it_holds():
    (entry,) = expect.read([{"case": "plain", "verdict": "departs", "reason": "first\n second\x1b\x7f"}])
    assert entry.reason == r"first second\x1b\x7f"


def test_ok_needs_something_that_was_run():
    about = ("plain", "float64", "")
    assert not Report("x", []).ok
    assert not Report("x", [Result(*about, "not supported")]).ok
    assert Report("x", [Result(*about, "conforms")]).ok
    for verdict in verdicts.FAILING:
        assert not Report("x", [Result(*about, "conforms"), Result(*about, verdict)]).ok
