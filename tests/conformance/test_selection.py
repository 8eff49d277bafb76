"""A check of some cases: which are run, what the summary says, and that nothing left to run is no pass."""

import pytest
from helpers.reports import validate
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.cli import main
from amos_ref.conformance import cases_of, check, selection, table
from amos_ref.conformance.selection import select
from amos_ref.errors import TargetError

ALL = len(cases_of("full", ToyPort()))


def names(**choice):
    return [f"{case.name}/{case.dtype}" for case in select(table(), **choice)]


def test_cases_are_chosen_by_name_pattern_and_dtype():
    assert names(cases="plain", dtypes="float32") == ["plain/float32"]
    assert names(cases=["plain", "0-d,1-d"], dtypes=["float64, float32"], skip="*/float64") == [
        "plain/float32",
        "0-d/float32",
        "1-d/float32",
    ]
    assert names(cases="plain/bfloat16") == ["plain/bfloat16"]
    assert set(names(cases="aged*", skip="aged-*", dtypes="float64")) == {"aged/float64"}
    assert names() == [f"{case.name}/{case.dtype}" for case in table()]
    assert names(skip="*") == []


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"dtypes": "flaot32"}, r"there is no dtype 'flaot32' \(did you mean float32 or .*; the dtypes are float16,"),
        ({"dtypes": ""}, "there is no dtype ''"),
        ({"cases": "extral2"}, r"there is no case 'extral2' \(did you mean extra_l2 or "),
        ({"skip": ["plain", "momentum-extra"]}, r"'momentum-extra' \(did you mean momentum-extra_l2"),
        ({"cases": "zzz"}, "there is no case 'zzz'; "),
        ({"cases": "plain,"}, "there is no case ''"),
        ({"cases": "plain/float8"}, "there is no case 'plain/float8'"),
    ],
)
def test_what_does_not_exist_is_named_before_the_port_is_imported(choice, text):
    with pytest.raises(TargetError, match=text):
        check("no_such_module:Port", **choice)


def test_a_report_says_how_much_was_run():
    report = check(ToyPort(), cases=["plain", "aged"])
    assert report.ok
    assert report.summary() == f"toy: 2 of {ALL} cases were run: 2 conforms, 2 not supported"
    assert validate(report)["out_of"] == ALL
    assert check(ToyPort(), suite="quick", cases="*").out_of is None


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"dtypes": "float16"}, f"nothing is left to run of toy's {ALL} cases; their dtypes are float64, float32"),
        ({"cases": "plain", "skip": "plain"}, f"nothing is left to run of toy's {ALL} cases"),
        ({"cases": "clip"}, "nothing is left to run: toy supports none of 2 cases: the port has no clip_value"),
    ],
)
def test_nothing_left_to_run_is_no_pass(choice, text, monkeypatch):
    port = ToyPort(options=OPTIONS - {"clip_value"})
    with pytest.raises(TargetError, match=text):
        check(port, **choice)
    monkeypatch.setattr(selection, "check_runnable", lambda *args: None)  # the wrong version
    assert not check(port, **choice).ok


def test_the_command_takes_several_and_says_what_it_left_out(tmp_path, monkeypatch, capsys):
    target = ["check", "examples.ports.amos_numpy:step"]
    assert main([*target, "--dtype", "float64", "--case", "plain,0-d", "--case", "extra_l2", "--skip", "0-*"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"2 of {ALL} cases were run: 2 conforms")
    assert main([*target, "--case", "plian"]) == 2
    assert main([*target, "--case", "plain", "--skip", "plain"]) == 2
    assert "did you mean plain" in capsys.readouterr().err
    assert main([*target, "--case", "plain", "--write-expect", str(tmp_path / "list.toml")]) == 2
    assert "--write-expect lists every departure, and --case leaves cases out" in capsys.readouterr().err
    assert not (tmp_path / "list.toml").exists()
    assert main(["check", "--dtype", "float64"]) == 2
    assert main([*target, "--map", "beta=a", "--map", "beta=b"]) == 2
    assert "--map says beta twice: a and b" in capsys.readouterr().err


def test_quick_takes_the_most_precise_dtype_of_those_that_are_asked_for():
    report = check(ToyPort(), suite="quick", dtypes="bfloat16,float32", cases=["plain", "life-two-at-once"])
    assert {(r.case, r.dtype) for r in report.results} == {("plain", "float32"), ("life-two-at-once", "float32")}
    assert {r.dtype for r in check(ToyPort(), suite="quick", cases="plain").results} == {"float64"}
    with pytest.raises(TargetError, match="nothing is left to run"):  # it does not take the one that is asked for
        check(type("Double", (ToyPort,), {"dtypes": ("float64",)})(), suite="quick", dtypes="float32")
