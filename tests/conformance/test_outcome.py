"""An interrupted check gives the report of what it had found, which is no pass in any of its forms."""

import json
from xml.etree import ElementTree

import pytest
from helpers.reports import validate
from helpers.toy_port import ToyPort

from amos_ref import conformance
from amos_ref.cli import main
from amos_ref.cli.status import Terminated
from amos_ref.conformance import cases_of, check, outcome
from amos_ref.conformance.report import Report

QUICK = len(cases_of("quick", ToyPort()))


class Stopped(ToyPort):
    """Ctrl-C comes before its fifth case; its state alone departs, in all of them."""

    def init(self, params, hyper):
        self.cases = getattr(self, "cases", 0) + 1
        if self.cases > 4:
            raise KeyboardInterrupt
        super().init(params, hyper)

    def state(self):
        return {"v": {name: v + 1 for name, v in self.v.items()}}


def interrupted(port, **options):
    with pytest.raises(outcome.Interrupted) as caught:
        check(port, **options)
    return caught.value.report


def test_ctrl_c_among_the_cases_gives_those_before_it():
    report = interrupted(Stopped(), suite="quick")
    assert [r.verdict for r in report.results] == ["conforms"] * 4  # a form of its own, as far as can be seen
    assert not report.ok
    assert report.summary() == f"toy: 4 of {QUICK} cases were run, interrupted during the cases: 4 conforms"
    data = validate(report)
    assert (data["ok"], data["interrupted"], data["out_of"]) == (False, "during the cases", QUICK)
    assert report.to_markdown().startswith("**amos-ref: was interrupted**")
    suite = ElementTree.fromstring(report.to_junit())
    assert (suite.attrib["tests"], suite.attrib["errors"]) == ("5", "1")
    assert suite.findall("testcase/error")[0].attrib["type"] == "interrupted"


def test_a_report_that_does_not_say_so_would_be_a_pass():
    report = interrupted(Stopped(), suite="quick")
    assert Report(report.target, report.results).ok


def test_ctrl_c_before_a_case_was_judged_is_ctrl_c():
    class AtOnce(Stopped):
        cases = 4

    with pytest.raises(KeyboardInterrupt) as caught:
        check(AtOnce(), suite="quick")
    assert type(caught.value) is KeyboardInterrupt


def diagnose_in_vain(error):
    def diagnose(port, seen, eta, timeout, say=lambda text: None):
        say("tried: pairs")
        raise error

    return diagnose


def test_ctrl_c_during_the_diagnosis_leaves_all_results(monkeypatch):
    monkeypatch.setattr(outcome, "diagnose", diagnose_in_vain(KeyboardInterrupt()))
    said = []
    report = interrupted(ToyPort("extra_l2 sign"), suite="quick", say=said.append)
    assert (len(report.results), report.out_of, report.diagnosis) == (QUICK, None, None)
    assert said == ["looking for what it does instead", "tried: pairs"]
    assert "interrupted during the diagnosis: what the port does instead was not found out." in str(report)
    assert report.summary().startswith("toy: interrupted during the diagnosis: ")


ENDS = [(KeyboardInterrupt(), "interrupted"), (Terminated("ended by SIGTERM"), "ended by SIGTERM")]


@pytest.mark.parametrize(("error", "words"), ENDS)
def test_the_command_gives_the_report_so_far(error, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outcome, "diagnose", diagnose_in_vain(error))
    monkeypatch.setattr(
        "amos_ref.cli.check._load_port", lambda args, stack: ToyPort("extra_l2 sign")
    )  # an object, in this process
    junit, listed = tmp_path / "report.xml", tmp_path / "list.toml"
    argv = ["check", "x:y", "--quick", "--json", "--junit-xml", str(junit), "--write-expect", str(listed)]
    assert main(argv) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["interrupted"] == "during the diagnosis"
    assert err == f"amos-ref: {words}\n"
    assert ElementTree.parse(junit).getroot().attrib["errors"] == "1"
    assert not listed.exists()  # it would be taken for a list of all departures


def test_results_are_told_at_once():
    found = []
    report = check(ToyPort("extra_l2 sign"), dtypes="float64", cases=["plain", "extra_l2"], found=found.append)
    assert [(r.case, r.verdict) for r in found] == [("plain", "conforms"), ("extra_l2", "departs")]
    assert found == report.results


def test_an_interrupted_check_is_public():
    assert conformance.Interrupted is outcome.Interrupted


class Coarse(ToyPort):
    """Loses the last bits of theta at its second step."""

    lost = 2.0**-47

    def step(self, grads):
        p = super().step(grads)
        self.p = {name: a * (1 + self.lost) for name, a in p.items()} if self.t == 2 else p
        return self.p


def test_what_departs_by_a_few_rounding_errors_is_said_to():
    text = check(Coarse(), cases=["plain/float64", "3-d/float64"]).diagnosis.text
    assert text.startswith("what departs (plain, 3-d) does so by less than 8 times its bound: ")


def test_what_departs_by_more_is_not():
    port = Coarse()
    port.lost = 2.0**-44
    assert check(port, cases=["plain/float64"]).diagnosis.text.startswith("no known set of deviations explains it.")
