"""Ports in other languages: right ones conform, a wrong one departs, and mistakes in the command are named errors."""

import json
import os
import shlex

import numpy as np
import pytest
from helpers.children import PLAIN, judge_one

from amos_ref.cli import main
from amos_ref.conformance import CommandPort, check, table
from amos_ref.conformance.judging import drive, judge
from amos_ref.conformance.ports.command import _split
from amos_ref.errors import TargetError

EXTRA_L2 = {case.name for case in table() if "extra_l2" in case.options and not case.events}
WIDE = ("float64", "float32")  # what the examples take


def lacking(result):
    """Whether a command cannot do it: no command undergoes an event, and the one in C has no count, but beta^t."""
    return "undergo" in result.detail or "count cannot be set" in result.detail


def test_a_command_may_take_a_count(in_javascript):
    """That JavaScript's bits have 32 places is no matter: 2^31 is passed."""
    port = CommandPort(in_javascript)
    counted = [case for case in table() if case.count is not None]
    assert {judge_one(port, case).verdict for case in counted} == {"conforms"}
    port.close()


def test_the_examples_conform_on_every_case(example):
    report = check(CommandPort(example))
    assert report.ok
    for r in report.results:
        driven = r.dtype in WIDE and not lacking(r)
        assert r.verdict == ("conforms" if driven else "not supported")


def test_the_broken_examples_depart_where_extra_l2_is_at_work_and_are_diagnosed(example):
    report = check(CommandPort([*example, "--broken=extra_l2-sign"]))
    results = report.results
    departing = [r for r in results if r.verdict == "departs"]
    assert report.diagnosis.deviations == ["extra_l2-sign"]
    assert {r.case for r in departing} == EXTRA_L2
    assert {(r.step, r.stage) for r in departing if r.case == "extra_l2"} == {(1, "theta")}
    assert {r.dtype for r in departing} == {"float64", "float32"}
    others = [r for r in results if r.case not in EXTRA_L2 and r.dtype in WIDE and not lacking(r)]
    assert {r.verdict for r in others} == {"conforms"}


def test_what_is_put_is_where_the_next_step_starts(example):
    case = next(c for c in table() if c.name == "slots-momentum")
    ports = [CommandPort(example), CommandPort(example)]
    ahead, behind = ports
    for port in ports:
        drive._start(port, case, case.eta)
    for grads in case.grads[:3]:
        theta = ahead.step(grads)
    for grads in [{name: g + 1 for name, g in grads.items()} for grads in case.grads[:3]]:
        assert not np.array_equal(behind.step(grads)["kernel"], theta["kernel"])
    behind.put({"theta": theta, **ahead.state()})
    same, got = ahead.step(case.grads[3]), behind.step(case.grads[3])
    for name in case.params:
        np.testing.assert_array_equal(got[name], same[name])
        for part in ("v", "b", "m"):
            np.testing.assert_array_equal(behind.state()[part][name], ahead.state()[part][name])
    for port in ports:
        port.close()


def test_a_child_that_never_moves_departs(child):
    assert judge_one(child(), PLAIN).verdict == "departs"


def test_what_the_child_does_not_support_is_no_failure(child):
    results = {(r.case, r.dtype): r for r in judge.run(child(), table())[0]}
    assert results["slots-rows", "float64"].detail == "the port has no slot_shape"
    assert results["none-gradient", "float64"].verdict == "not supported"
    assert not hasattr(child(), "put")


def test_a_schedule_is_told_at_init_and_at_each_step(child, tmp_path):
    case = next(c for c in table() if c.name == "schedule")
    port = child(transcript=tmp_path / "transcript")
    judge_one(port, case)
    port.close()
    sent = [json.loads(x[2:]) for x in (tmp_path / "transcript").read_text().splitlines() if x.startswith(">")]
    rates = [np.frombuffer(bytes.fromhex(m["learning_rate"]), ">f8") for m in sent if "learning_rate" in m]
    np.testing.assert_array_equal(rates[0], case.learning_rates())
    np.testing.assert_array_equal(np.concatenate(rates[1:]), case.learning_rates())


def test_a_transcript_tells_failures_and_standard_error(child, tmp_path):
    port = child(step="print('oh no', file=sys.stderr, flush=True); sys.exit(1)", transcript=tmp_path / "transcript")
    judge_one(port, PLAIN)
    lines = (tmp_path / "transcript").read_text().splitlines()
    assert lines[-2:] == ["! oh no", "# ended with exit status 1; last on its standard error: 'oh no'"]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("no_such_command_xyz", "no_such_command_xyz cannot be started: No such file or directory"),
        ("/", "/ cannot be started: Permission denied"),
        ("'open quote", "cannot be split into words: No closing quotation"),
        ("  ", "the command to check is empty"),
        (["a\0b"], "cannot be started: embedded null byte"),
    ],
)
def test_commands_that_cannot_be_started(command, text):
    with pytest.raises(TargetError) as caught:
        CommandPort(command)
    assert text in str(caught.value)


def test_a_command_in_this_folder_needs_its_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_port_xyz").write_text("")
    with pytest.raises(TargetError, match=r"for the file in this folder: \./my_port_xyz"):
        CommandPort("my_port_xyz")


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_timeouts_that_are_none(timeout):
    with pytest.raises(TargetError, match="must be a finite number of seconds > 0"):
        CommandPort("true", timeout=timeout)


def test_a_transcript_that_cannot_be_written(child, tmp_path):
    with pytest.raises(TargetError, match=r"the transcript cannot be written: .*No such file"):
        child(transcript=tmp_path / "no" / "folder")
    if os.path.exists("/dev/full"):
        with pytest.raises(TargetError, match=r"the transcript cannot be written: .*No space left"):
            child(transcript="/dev/full")


def test_from_the_command_line(in_c, capsys, tmp_path):
    transcript = tmp_path / "transcript"
    argv = ["check", "--quick", "--exec", f"{in_c[0]} --broken=extra_l2-sign", "--timeout", "20"]
    assert main([*argv, "--transcript", str(transcript)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("amos.c: ")
    assert f" {len(EXTRA_L2)} departs" in out.splitlines()[-1]
    assert err == ""
    said = transcript.read_text()
    assert main([*argv, "--transcript", str(transcript), "--markdown", str(transcript)]) == 2
    assert "--transcript and --markdown would both write to" in capsys.readouterr().err
    assert transcript.read_text() == said
    assert said.startswith('> {"call":"hello","protocol":"amos-ref-port-1"}\n< {"protocol"')


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["check", "--exec", "no_such_command_xyz"], "no_such_command_xyz cannot be started"),
        (["check", "--exec", "false"], "false ended with exit status 1"),
        (["check", "--exec", "sh -c 'read x; echo hello'"], "sh: answered hello with 'hello'; expected {\"protocol\""),
        (["check", "--exec", "echo hello"], "echo"),
        (["check", "--exec", "true", "os:getcwd"], "--exec COMMAND goes without a TARGET"),
        (["check", "--exec", "true", "--map", "eta=e"], "--exec COMMAND goes without a TARGET and without --map"),
        (["check", "--timeout", "3"], "--timeout says something about a TARGET, and there is none"),
        (["check", "--exec", "true", "--timeout", "0"], "the timeout of a command is 0.0"),
    ],
)
def test_mistakes_on_the_command_line(argv, text, capsys):
    assert main(argv) == (4 if "false" in argv else 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (r"C:\ports\mine.exe --fast", [r"C:\ports\mine.exe", "--fast"]),
        (r'"C:\my ports\mine.exe" --name="a b" --x', [r"C:\my ports\mine.exe", "--name=a b", "--x"]),
        (r"C:\o'neill\mine.exe #1 ''", [r"C:\o'neill\mine.exe", "#1", "''"]),
    ],
)
def test_on_windows_a_backslash_is_part_of_a_path(command, words):
    assert _split(command, windows=True) == words


def test_a_shell_would_take_it_out():
    assert _split(r"C:\ports\mine.exe", windows=False) == ["C:portsmine.exe"]


@pytest.mark.parametrize("text", [r"a\ b 'c d' \"e f\" # 'g'\''h'", "", "  ", "'' x", "é\tx\ny", r"\\a"])
def test_elsewhere_words_are_a_shells(text):
    assert _split(text, windows=False) == shlex.split(text)
