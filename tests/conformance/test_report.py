"""Reports say the same in every form: JSON, JUnit XML, Markdown and the table on a terminal."""

import html
from xml.etree import ElementTree

import jsonschema
import pytest
from helpers import bad_ports
from helpers.reports import SCHEMA, cells, validate
from helpers.toy_port import OPTIONS, ToyPort

import amos_ref
from amos_ref.conformance import check, table
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.judging import verdicts
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.judging.tolerance import METHOD
from amos_ref.conformance.report import Report

CASES = [case for case in table() if case.dtype in ("float64", "float32")]


# JSON


def test_the_schema_is_one_and_closed_everywhere():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for part in (SCHEMA, SCHEMA["$defs"]["result"], SCHEMA["$defs"]["diagnosis"]):
        assert part["additionalProperties"] is False
        assert sorted(part["required"]) == sorted(part["properties"])
    assert SCHEMA["$defs"]["verdict"]["enum"] == list(verdicts.VERDICTS)
    assert [*SCHEMA["$defs"]["result"]["properties"], "seconds"] == list(Result._fields)
    stages = [stage for algorithm in ALGORITHMS.values() for stage in algorithm.stages]
    assert set(SCHEMA["$defs"]["result"]["properties"]["stage"]["enum"]) == {*stages, None}
    assert SCHEMA["properties"]["algorithm"]["enum"] == [*ALGORITHMS, None]


def test_json_of_a_check(mixed):
    data = validate(mixed)
    assert (data["format"], data["amos_ref"]) == ("amos-ref-report-1", amos_ref.__version__)
    assert data["algorithm"] == "paper"
    assert (data["target"], data["suite"], data["tolerance"], data["ok"]) == ("toy", "full", METHOD, False)
    assert sum(data["counts"].values()) == len(data["results"]) == len(CASES)
    assert data["diagnosis"]["deviations"] == mixed.diagnosis.deviations


@pytest.mark.parametrize("port", [bad_ports.Drifting, bad_ports.Odd, bad_ports.Scribbling])
def test_json_of_bad_ports_is_valid(port):
    validate(check(port(), suite="quick"))


def test_json_of_the_installation(installation):
    data = validate(installation)
    assert data["tolerance"] is None
    assert data["algorithm"] is None
    assert data["diagnosis"] is None


@pytest.mark.parametrize(
    "change", [{"more": 1}, {"format": "amos-ref-report-2"}, {"counts": {"passes": 1}}, {"diagnosis": {"text": "x"}}]
)
def test_the_schema_refuses_what_is_no_report(change, mixed):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(mixed.to_dict() | change)


def test_json_is_the_same_twice_but_for_the_seconds(mixed):
    again = check(ToyPort("extra_l2 sign", OPTIONS - {"clip_value"}))
    first, second = mixed.to_dict(), again.to_dict()
    assert first.pop("seconds") > 0
    assert second.pop("seconds") > 0
    assert first == second
    assert mixed.seconds >= sum(r.seconds for r in mixed.results) > 0


# JUnit XML


def test_junit_has_a_test_case_for_each_case(mixed):
    suite = ElementTree.fromstring(mixed.to_junit())
    counts = mixed.counts()
    assert suite.attrib["tests"] == str(len(suite.findall("testcase"))) == str(len(CASES))
    assert suite.attrib["failures"] == str(len(suite.findall("*/failure"))) == str(counts["departs"])
    assert suite.attrib["skipped"] == str(len(suite.findall("*/skipped"))) == str(counts["not supported"])
    assert suite.attrib["errors"] == "0"
    times = [float(test.attrib["time"]) for test in suite.findall("testcase")]
    ran = [r.verdict != "not supported" for r in mixed.results]
    assert all(took > 0 for took, was in zip(times, ran, strict=True) if was)
    assert sum(times) <= float(suite.attrib["time"]) + 0.0005 * len(times)
    assert suite.findtext("system-out") == mixed.diagnosis.text
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


def test_markdown_shows_failing_cases_and_folds_the_rest(mixed):
    text = mixed.to_markdown()
    visible, _, folded = text.partition("<details>")
    departing = [r for r in mixed.results if r.verdict == "departs"]
    assert [row[:3] for row in cells(visible)[1:]] == [[r.case, r.dtype, "departs"] for r in departing]
    assert len(cells(folded)) == 1 + len(mixed.results) - len(departing)
    assert all(text in visible for text in [mixed.summary(), *mixed.diagnosis.text.splitlines()])


def test_markdown_takes_what_a_port_says_as_text():
    rows = cells(check(bad_ports.Odd(), suite="quick").to_markdown())
    assert {len(row) for row in rows} == {5}
    assert rows[1][4] == r"ValueError: \x00\x1b[31m\udc80 <&]]>|`é"


# the table


def test_on_a_terminal_what_departs_is_told_below(mixed, terminal):
    mixed.print(terminal)
    text = terminal.getvalue()
    assert "\x1b[31mdeparts" in text
    assert text.count("see below") == text.count("rho is") + text.count("m of leaf")


def test_ok_needs_something_that_was_run():
    about = ("plain", "float64", "")
    assert not Report("x", []).ok
    assert not Report("x", [Result(*about, "not supported")]).ok
    assert Report("x", [Result(*about, "conforms")]).ok
    for verdict in verdicts.FAILING:
        assert not Report("x", [Result(*about, "conforms"), Result(*about, verdict)]).ok


def test_a_report_is_one_line_among_other_values_and_whole_in_a_notebook(mixed):
    assert repr([mixed]) == f"[<Report of {mixed.summary()}>]"
    assert html.unescape(mixed._repr_html_()) == f"<pre>{mixed}</pre>"


def test_in_a_notebook_a_report_is_shown_once_and_as_text(mixed, monkeypatch, capsys):
    """Rich takes a notebook for its terminal, and showed the whole table there whenever a report became text."""
    text, shown = str(mixed), []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    assert str(mixed) == text
    monkeypatch.setattr("amos_ref.conformance.report.is_terminal", lambda file: True)
    mixed.print()
    assert mixed.summary() in capsys.readouterr().out
    assert shown == []
