"""Expected departures: they are no failure, are missed when they stop, and are listed as they were found."""

import json
from xml.etree import ElementTree

import pytest
from helpers.reports import validate
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.cli import main
from amos_ref.conformance import check, expect, table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.judging.drive import unsupported
from amos_ref.conformance.report import Report, line
from amos_ref.errors import ExpectationError

RUN = [c for c in table() if c.dtype in ("float64", "float32") and not unsupported(ToyPort(), c)]
REASON = "chosen in our first release"


def entries(**changes):
    kept = {"verdict": "departs", "stage": "theta", "reason": REASON}
    cases = ("extra_l2", "*extra_l2", "everything")
    listed = [{**kept, "case": cases[0]}, {**kept, "case": cases[1], "stage": "m"}, {**kept, "case": cases[2]}]
    listed[2]["stage"] = "m"
    listed.append({"case": "slots-momentum", "verdict": "departs", "reason": REASON})
    listed[0].update(changes)
    return listed


def report_with(report, listed):
    results = report.results
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


@pytest.mark.parametrize("counted", [False, True])
def test_no_case_passes_as_expected_that_was_not_run(counted, monkeypatch):
    """The wrong version counts what was expected to end as well, gives up, and never sees what fails otherwise."""
    run, verdicts = judge.run, {"plain": "ended"}
    came_to = lambda port, case, *_: (judge.Result(*case[:2], "", verdicts.get(case.name, "raises"), step=1), None)  # noqa: E731
    monkeypatch.setattr(judge, "judge", came_to)
    monkeypatch.setattr(judge, "PATIENCE", {"ended": 1})
    if counted:
        monkeypatch.setattr(judge, "run", lambda *args: run(*args[:5]))
    report = check(ToyPort(), "quick", expect=[{"case": "*", "verdict": "ended", "reason": REASON}])
    assert report.results[0].label == "ended as expected"
    assert report.ok is counted


def test_a_listed_departure_of_what_is_no_longer_supported_fails():
    report = check(ToyPort(options=OPTIONS - {"clip_value"}), expect=[entries(case="clip")[0]])
    assert {r.verdict for r in report.results if r.failed} == {"no longer departs"}


def test_the_written_list_expects_exactly_the_run(wrong_port, tmp_path, capsys):
    path = tmp_path / "expected.toml"
    assert main(["check", wrong_port, "--write-expect", str(path)]) == 1
    assert main(["check", wrong_port, "--expect", str(path)]) == 2
    assert "entry 1 (case 'extra_l2'): reason is missing or empty" in capsys.readouterr().err
    path.write_text(path.read_text().replace('""', json.dumps(REASON)))
    before = path.read_text()
    assert before.count("[[departure]]") == 6  # one for a case that was run in every dtype that it has
    assert main(["check", wrong_port, "--expect", str(path), "--write-expect", str(path)]) == 0
    assert path.read_text() == before
    other = ToyPort("d without eta")
    assert not check(other, expect=path).ok


def test_a_list_written_from_float64_alone_says_nothing_of_float32(wrong_port, tmp_path):
    path = tmp_path / "expected.toml"
    assert main(["check", wrong_port, "--quick", "--write-expect", str(path)]) == 1
    path.write_text(path.read_text().replace('""', '"why"'))
    assert path.read_text().count('dtype = "float64"') == 4
    assert main(["check", wrong_port, "--quick", "--expect", str(path)]) == 0
    assert main(["check", wrong_port, "--expect", str(path)]) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[departure]", "is not TOML"),
        ("\x00", "is not TOML"),
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
