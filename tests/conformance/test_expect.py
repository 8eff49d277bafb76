"""Expected departures: they are no failure, are missed when they stop, and are listed as they were found."""

import json
import tomllib
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
    for case in ("slots-momentum", "life-*-momentum"):
        listed.append({"case": case, "verdict": "departs", "reason": REASON})
    listed[0].update(changes)
    return listed


def report_with(report, listed):
    results = report.results
    return Report("toy", expect.apply(results, expect.read(listed), expect.list_supported(results)))


def test_departures_that_are_all_expected_pass(departing):
    report = report_with(departing, entries())
    assert report.ok
    counts = report.counts()
    assert (counts["conforms"], counts["departs as expected"]) == (len(RUN) - 9, 9)
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


@pytest.mark.parametrize("wrong", ["", "counts what is expected", "and takes what was not run for expected"])
def test_no_case_passes_as_expected_that_was_not_run(wrong, monkeypatch):
    """A wrong version counts what was expected to end as well, gives up, and never sees what fails otherwise."""
    run, verdicts = judge.run, {"plain": "ended"}
    came_to = lambda port, case, *_: (judge.Result(*case[:2], "", verdicts.get(case.name, "raises"), step=1), None)  # noqa: E731
    monkeypatch.setattr(judge, "judge", came_to)
    monkeypatch.setattr(judge, "PATIENCE", {"ended": 1})
    if wrong:
        monkeypatch.setattr(judge, "run", lambda *args: run(*args[:5]))
    if wrong.startswith("and"):
        monkeypatch.setattr(judge.Result, "was_run", True)
    report = check(ToyPort(), "quick", expect=[{"case": "*", "verdict": "ended", "reason": REASON}])
    assert report.results[0].label == "ended as expected"
    assert report.ok is wrong.startswith("and")
    labels = {r.label for r in report.results if r.detail.startswith("not run")}
    assert labels == ({"ended as expected"} if report.ok else {"ended"} if wrong else set())
    assert "was not" not in expect.as_toml(report.results)


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
    assert before.count("[[departure]]") == 7  # one for a case that was run in every dtype that it has
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


HALF = {"case": "*extra_l2", "verdict": "departs", "reason": REASON}
HALVED = {**HALF, "does": ["extra_l2-halved"]}


class Scaled(ToyPort):
    """A port that multiplies extra_l2."""

    def __init__(self, factor, only=None):
        super().__init__()
        self.factor, self.scaled = factor, only

    def init(self, params, hyper):
        factor = self.factor if self.scaled is None or "momentum" in hyper else 0.5
        super().init(params, hyper | {"extra_l2": factor * hyper.get("extra_l2", 0.0)})


def results_of(port, names=("extra_l2", "momentum-extra_l2")):
    cases = [case for case in table() if case.name in names and case.dtype in ("float64", "float32")]
    return judge.run(port, cases)


def failing(port, listed):
    results, seen = results_of(port)
    after = expect.apply(results, expect.read(listed), expect.list_supported(results), seen)
    return [r for r in after if r.failed], after


def test_an_entry_that_says_what_a_port_does_expects_nothing_else():
    """An entry that only says that a case departs takes -5 extra_l2 for what halves it, and the report says so."""
    assert failing(Scaled(0.5), [HALVED])[0] == []
    wrong, _ = failing(Scaled(-5.0), [HALVED])
    assert len(wrong) == 4
    assert "expects: departs as extra_l2-halved does, but at step 1, theta of leaf 'kernel' [" in wrong[0].detail
    wrong, after = failing(Scaled(-5.0), [HALF])
    assert wrong == []
    assert all(r.detail.endswith("; listed only as 'departs', not how") for r in after)


def test_one_case_that_departs_otherwise_fails_alone():
    wrong, _ = failing(Scaled(-5.0, only="momentum"), [HALVED])
    assert {r.case for r in wrong} == {"momentum-extra_l2"}


def test_an_entry_may_say_a_number_where_nothing_has_a_name():
    results, seen = results_of(Scaled(0.3))
    text = expect.as_toml(results, seen)
    assert text.count("got = ") == 4
    listed = tomllib.loads(text.replace('""', '"why"'))["departure"]
    assert failing(Scaled(0.3), listed)[0] == []
    assert failing(Scaled(0.3 + 1e-16), listed)[0] == []
    for other in (0.31, 0.5, -5.0):
        wrong, _ = failing(Scaled(other), listed)
        assert len(wrong) == 4
        assert "with " in wrong[0].detail
    listed[0]["got"] += 0.001
    assert len(failing(Scaled(0.3), listed)[0]) == 1


def test_the_best_entry_is_looked_for():
    loose = [{**HALF, "verdict": "departs"}, {**HALVED, "does": ["extra_l2-sign"]}, HALVED]
    _, after = failing(Scaled(0.5), loose)
    assert not any("listed" in r.detail for r in after)
    _, after = failing(Scaled(-5.0), loose)
    assert all("listed only" in r.detail for r in after)


def test_a_message_is_pinned_by_a_pattern():
    def fails(message, detail="ValueError: no [b] at 0x7f3a"):
        raised = judge.Result("plain", "float64", "", "raises", step=1, detail=detail)
        listed = [{"case": "plain", "verdict": "raises", "reason": REASON, "message": message}]
        (after,) = expect.apply([raised], expect.read(listed), {("plain", "float64")})
        return after.failed

    assert not fails("ValueError: no [b] at *")
    assert fails("ValueError: no [b]")  # brackets are no class of characters, and all of it is compared
    assert fails("ValueError: no b at *")
    assert fails("*a" * 100, "a" * 5000 + "b")  # at once: as one regular expression of .*a.*a it would take years
    raised = judge.Result("plain", "float64", "", "raises", step=1, detail="ValueError: no [b] at 0x7f3a")
    text = expect.as_toml([raised])
    assert 'message = "ValueError: no [b] at *"' in text
    (again,) = expect.apply([raised], expect.read([HALF | {"case": "plain"}]), {("plain", "float64")})
    assert again.failed
    assert 'message = "ValueError: no [b] at **"' in expect.as_toml([again])  # without what the list said of it


def test_a_state_in_a_form_of_its_own_is_left_out(tmp_path):
    class Own(Scaled):
        def state(self):
            return {"b": {name: 1.0 + b for name, b in self.b.items()}}

    results, seen = results_of(Own(0.5))
    listed = tomllib.loads(expect.as_toml(results, seen, ["extra_l2-halved"]).replace('""', '"why"'))["departure"]
    assert {(tuple(entry["does"]), entry["only"]) for entry in listed} == {(("extra_l2-halved",), "theta")}
    assert failing(Own(0.5), listed)[0] == []
    assert len(failing(Own(-5.0), listed)[0]) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('does = ["halved"]', "there is no deviation 'halved'; docs/deviations.md lists them"),
        ("does = [1]", "does must be a list of names of deviations"),
        ('does = "clip-ignored"', "does is 'clip-ignored'; it must be of type list"),
        ('only = "theta"', "only says something about does, and there is none"),
        ('does = []\nonly = "v"', "only is 'v'; it must be 'theta'"),
        ("got = 1", "got needs step, stage and leaf"),
        ("got = true", "got is True; it must be of type float"),
        ('got = "1"', "it must be of type float"),
        ('got = 1.0\nstep = 1\nstage = "theta"\nleaf = "x"', "there is no leaf 'x'"),
        (f'got = 1{"0" * 400}\nstep = 1\nstage = "theta"\nleaf = "bias"', "got is an integer that float64 cannot hold"),
        ("index = [1]", "leaf and index say where got is; got is missing"),
        ("got = nan\nindex = [-1]", "index is [-1]; it must be a list of numbers >= 0"),
    ],
)
def test_pins_that_mean_nothing_are_named_errors(text, words, tmp_path):
    path = tmp_path / "expected.toml"
    path.write_text(f'[[departure]]\ncase = "plain"\nverdict = "departs"\nreason = "x"\n{text}\n')
    with pytest.raises(ExpectationError) as caught:
        expect.read(path)
    assert str(caught.value).startswith(f"{path}, entry 1 (case 'plain'): ")
    assert words in str(caught.value)


def test_numbers_of_a_port_that_gave_none_cannot_be_pinned():
    for pin in ({"does": []}, {"got": 1.0, "step": 1, "stage": "v", "leaf": "bias"}):
        with pytest.raises(ExpectationError, match="a port that raises shows no numbers: pin its message"):
            expect.read([{"case": "plain", "verdict": "raises", "reason": "x", **pin}])


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
