"""Ports in other languages: right ones conform, a wrong one departs, and every way to misbehave has its verdict."""

import gc
import importlib.resources
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import numpy as np
import pytest
from helpers import ROOT

from amos_ref.cli import main
from amos_ref.conformance import CommandPort, check, table
from amos_ref.conformance.judging import drive, judge
from amos_ref.conformance.ports.failures import Crash, Garbage, Hang, PortError, PortFailure, Unsupported
from amos_ref.errors import TargetError

PORTS = ROOT / "examples" / "ports"
PLAIN = table()[0]
EXTRA_L2 = {case.name for case in table() if "extra_l2" in case.options}
WIDE = ("float64", "float32")  # what the examples take


def judged(port, case):
    return judge.judge(port, case)[0]


@pytest.fixture(scope="session")
def in_c(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    program = tmp_path_factory.mktemp("c") / "amos"
    flags = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", program, PORTS / "amos.c", "-lm"], check=True, timeout=120)
    return [str(program)]


@pytest.fixture(scope="session")
def in_javascript():
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    return ["node", str(PORTS / "amos.mjs")]


@pytest.fixture(params=["in_c", "in_javascript"])
def example(request):
    return request.getfixturevalue(request.param)


def test_the_examples_conform_on_every_case(example):
    report = check(CommandPort(example))
    assert report.ok
    for r in report.results:
        assert r.verdict == ("conforms" if r.dtype in WIDE else "not supported")


def test_the_broken_examples_depart_where_extra_l2_is_at_work_and_are_diagnosed(example):
    report = check(CommandPort([*example, "--broken=extra_l2-sign"]))
    results = report.results
    departing = [r for r in results if r.verdict == "departs"]
    assert report.diagnosis.deviations == ["extra_l2-sign"]
    assert {r.case for r in departing} == EXTRA_L2
    assert {(r.step, r.stage) for r in departing if r.case == "extra_l2"} == {(1, "theta")}
    assert {r.dtype for r in departing} == {"float64", "float32"}
    assert all(r.verdict == "conforms" for r in results if r.case not in EXTRA_L2 and r.dtype in WIDE)


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


def test_a_transcript_holds_messages_of_the_schema(example, tmp_path):
    schema = json.loads((importlib.resources.files("amos_ref.conformance.ports") / "protocol.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    port = CommandPort(example, transcript=tmp_path / "transcript")
    judged(port, PLAIN)
    port.put({"b": {"bias": np.array(16.0)}})
    port.close()
    lines = (tmp_path / "transcript").read_text().splitlines()
    assert [line[0] for line in lines] == [">", "<"] * (len(lines) // 2) + [">"]
    messages = [json.loads(line[2:]) for line in lines]
    calls = [m["call"] for m in messages[::2]]
    assert calls == ["hello", "init"] + ["step"] * 8 + ["put", "bye"]
    for message in messages:
        validator.validate(message)
        assert not validator.is_valid(message | {"more": 1})


def test_the_protocols_document_shows_what_the_example_says(in_c):
    """Its transcript is replayed: the same answers, to the bit."""
    lines = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").splitlines()
    said = [line.strip()[2:] for line in lines if line.strip().startswith(("> {", "< {"))]
    asked, answers = said[::2], said[1::2]
    assert [json.loads(line)["call"] for line in asked] == ["hello", "init", "step", "put", "step", "bye"]
    found = subprocess.run(in_c, input="\n".join(asked) + "\n", capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.splitlines() == answers


CHILD = """
import json, os, signal, sys, time

def say(**answer):
    print(json.dumps(answer), flush=True)

OPTIONS = ["learning_rate", "eta", "beta", "c_coef", "d_coef"]
FLAGS = dict(dtypes=["float64", "float32"], null_gradients=False, state=False, put=False)
t = 0
for line in sys.stdin:
    message = json.loads(line)
    call = message["call"]
    if call == "hello":
        hello = dict(protocol="amos-ref-port-1", name="child", options=OPTIONS) | FLAGS
        HELLO
    elif call == "init":
        theta, t = {k: leaf["theta"] for k, leaf in message["leaves"].items()}, 0
        INIT
    elif call == "step":
        t += 1
        STEP
    elif call == "bye":
        BYE
"""


@pytest.fixture
def child(tmp_path):
    """Return a function that makes a port of a child that answers as told, and closes it in the end."""
    made = []

    def make(step="say(theta=theta)", init="say(ok=True)", hello="say(**hello)", bye="break", timeout=5.0, **options):
        path = tmp_path / f"child{len(made)}.py"
        text = CHILD
        for place, code in (("HELLO", hello), ("INIT", init), ("STEP", step), ("BYE", bye)):
            text = text.replace(f"        {place}\n", f"        {code}\n")
        path.write_text(text)
        port = CommandPort([sys.executable, str(path)], timeout=timeout, **options)
        made.append(port)
        return port

    yield make
    for port in made:
        port.close()


def gone(process):
    """Whether the child has ended and been waited for."""
    return process.returncode is not None


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ("time.sleep(60)", Hang, "gave no answer within 0.5 s (is its output flushed after every line?)"),
        ("print('{\"theta\":', end='', flush=True); time.sleep(60)", Hang, "it began a line, '{\"theta\":', and"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Crash, "was killed by SIGSEGV"),
        ("print('out of memory', file=sys.stderr); sys.exit(3)", Crash, "status 3; last on its standard error: 'out"),
        ("raise ZeroDivisionError('no step today')", Crash, "'ZeroDivisionError: no step today'"),
        ("sys.exit(0)", Crash, "ended with exit status 0"),
        ("print('{\"the', end='', flush=True); sys.exit(0)", Crash, "status 0 in the middle of a line, '{\"the'"),
        ("os.close(1); time.sleep(60)", Crash, "closed its standard output"),
        ("print('step', t, '!' * 80, flush=True)", Garbage, "answered step with 'step 1 !!!!!!"),
        ("print(flush=True)", Garbage, "answered step with an empty line; expected {\"theta\":{...}}"),
        ("print('[' * 100000, flush=True)", Garbage, "more than"),
        ("print('[' * 60000, flush=True)", Garbage, "answered step with '[[["),
        ("print('x' * 10**7, flush=True)", Garbage, "answered with more than"),
        ("os.write(1, b'\\xff\\xfe\\x1b[2J\\n')", Garbage, "answered step with '\ufffd\ufffd\\x1b[2J'"),
        ("print(1, flush=True)", Garbage, "answered step with '1'"),
        ("os.write(1, b'{}\\n{}\\n')", Garbage, "said '{}' after its answer; an answer is one line"),
        ("os.write(1, b'debug\\n' + json.dumps(dict(theta=theta)).encode())", Garbage, "after its answer; an"),
        ("say(error='no step\\ntoday \\x1b[2J')", PortError, "no step today \\x1b[2J"),
        ("say(ok=True)", Garbage, "its answer to step has no 'theta'"),
        ("say(theta=theta, v=theta)", Garbage, "its answer to step has 'v', which is not of the protocol"),
        ("say(theta=[1.0])", Garbage, "its theta is '[1.0]'; expected an object with an entry for each leaf"),
        ("say(theta={'kernel': theta['kernel']})", Garbage, "its theta has no leaf 'bias'"),
        ("say(theta=theta | {'head': ''})", Garbage, "its theta has a leaf 'head', which was not in init"),
        ("say(theta=theta | {'bias': None})", Garbage, "its theta of leaf 'bias' is 'null'; expected hexadecimal"),
        ("say(theta=theta | {'bias': 'g' * 80})", Garbage, "expected hexadecimal digits"),
        ("say(theta=theta | {'bias': '0' * 40})", Garbage, "has 40 hexadecimal digits; shape (5,) takes 80 (float64)"),
        ("say(theta=theta | {'bias': ' ' * 80})", Garbage, "expected hexadecimal digits"),
    ],
)  # fmt: skip
def test_a_child_that_misbehaves(child, answer, kind, text):
    port = child(step=answer, timeout=0.5 if kind is Hang else 10.0)
    process = port.child.process
    drive._start(port, PLAIN, PLAIN.eta)
    with pytest.raises(kind) as caught:
        [port.step(grads) for grads in PLAIN.grads]
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert gone(process)
    assert port.child is None
    result = judged(port, PLAIN)  # and again, started anew, as a verdict
    assert result.verdict not in ("conforms", "departs", "not supported")
    assert text in result.detail


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("time.sleep(60)", "gave no answer within 0.5 s"),
        ("sys.exit(2)", "ended with exit status 2"),
        ("hello['protocol'] = 'amos-ref-port-2'; say(**hello)", "speaks the protocol 'amos-ref-port-2'; this is amos-"),
        ("del hello['name']; say(**hello)", "its answer to hello has no 'name'"),
        ("say(**hello, fast=True)", "has 'fast', which is not of the protocol"),
        ("hello['put'] = 1; say(**hello)", "has put '1'; expected a bool"),
        ("hello['name'] = '\\x1b[2J'; say(**hello)", "its name is '\\x1b[2J'; expected 1 to 100 printable"),
        ("hello['options'] = ['eta', 'lr']; say(**hello)", "its options hold '\"lr\"'; expected some of learning_rate"),
        ("hello['options'] = ['eta']; say(**hello)", "its options do not hold learning_rate"),
        ("hello['dtypes'] = ['float8']; say(**hello)", "its dtypes hold '\"float8\"'; expected some of float16"),
        ("say(error='not today')", "not today"),
    ],
)
def test_a_child_that_cannot_say_hello_is_a_named_error(child, answer, text):
    with pytest.raises(TargetError) as caught:
        child(hello=answer, timeout=0.5 if "sleep" in answer else 5.0)
    assert text in str(caught.value)
    assert str(caught.value).startswith(sys.executable)


def test_nan_bits_are_numbers(child):
    result = judged(child(step="say(theta={k: '7ff8000000000000' * (len(x) // 16) for k, x in theta.items()})"), PLAIN)
    assert result.verdict == "not finite"
    assert "is nan where the page has" in result.detail


def test_a_child_that_never_moves_departs(child):
    assert judged(child(), PLAIN).verdict == "departs"


def test_a_wrong_answer_to_init(child):
    with pytest.raises(Garbage, match=r'answered init with .*; expected {"ok":true}'):
        child(init="say(ok=False)").init(PLAIN.params, {"learning_rate": 0.25, "eta": PLAIN.eta})


def test_megabytes_on_standard_error_block_nothing(child):
    port = child(step="sys.stderr.write('noise ' * 500_000 + '\\n'); sys.stderr.flush(); say(theta=theta)")
    assert judged(port, PLAIN).verdict == "departs"
    assert len(port.child.errors) <= 4096


def test_a_child_that_does_not_read_cannot_block_us(child):
    port = child(init="say(ok=True); time.sleep(60)", timeout=0.5)
    large = {"x": np.zeros(100_000)}  # 1.6 MB of digits: more than a pipe holds
    port.init({"x": np.zeros(1)}, {"learning_rate": 0.25, "eta": {"x": 0.5}})
    with pytest.raises(Hang):
        port.step(large)


def test_the_next_case_is_asked_of_a_new_child(child, tmp_path):
    mark = tmp_path / "died"
    port = child(
        step=f"(open({str(mark)!r}, 'x'), os.abort()) if not os.path.exists({str(mark)!r}) else say(theta=theta)"
    )
    first, second = judged(port, PLAIN), judged(port, PLAIN)
    assert "was killed by SIGABRT" in first.detail
    assert second.verdict == "departs"


def test_after_a_failure_no_step_is_taken(child):
    port = child(step="sys.exit(1)")
    drive._start(port, PLAIN, PLAIN.eta)
    for _ in range(2):
        with pytest.raises(Crash):
            port.step(PLAIN.grads[0])


def test_grandchildren_end_as_well(child, tmp_path):
    """The whole process group is killed: a wrapper script's program does not outlive it."""
    pid = tmp_path / "pid"
    port = child(step=f"open({str(pid)!r}, 'w').write(str(os.fork() or time.sleep(60))); time.sleep(60)", timeout=0.5)
    drive._start(port, PLAIN, PLAIN.eta)
    with pytest.raises(Hang):
        port.step(PLAIN.grads[0])
    grandchild = int(pid.read_text())
    for _ in range(100):  # killed, but reaped by whoever inherits it
        try:
            state = pathlib.Path(f"/proc/{grandchild}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {grandchild} is still there")


@pytest.mark.parametrize("bye", ["break", "time.sleep(60)", "continue", "signal.signal(15, 1); print('x' * 10**6)"])
def test_close_ends_the_child_whatever_it_does(child, bye):
    port = child(bye=bye)
    process = port.child.process
    port.close()
    assert gone(process)
    port.close()


def test_check_closes_the_port_also_when_it_fails(child):
    port = child(step="say(error='not today')")
    process = port.child.process
    check(port, "quick")
    assert gone(process)
    assert not check(port, "quick").ok  # started anew

    port = child()
    process = port.child.process

    def broken(cases):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(port, "quick", progress=broken)
    assert gone(process)


def test_a_port_that_is_dropped_takes_its_child_along(child):
    process = child(timeout=1.0).child.process
    port = CommandPort([*process.args])
    process = port.child.process
    del port
    gc.collect()
    assert gone(process)


def test_what_the_child_does_not_support_is_no_failure(child):
    results = {(r.case, r.dtype): r for r in judge.run(child(), table())[0]}
    assert results["slots-rows", "float64"].detail == "the port has no slot_shape"
    assert results["none-gradient", "float64"].verdict == "not supported"
    assert not hasattr(child(), "put")


def test_a_schedule_is_told_at_init_and_at_each_step(child, tmp_path):
    case = next(c for c in table() if c.name == "schedule")
    port = child(transcript=tmp_path / "transcript")
    judged(port, case)
    port.close()
    sent = [json.loads(x[2:]) for x in (tmp_path / "transcript").read_text().splitlines() if x.startswith(">")]
    rates = [np.frombuffer(bytes.fromhex(m["learning_rate"]), ">f8") for m in sent if "learning_rate" in m]
    np.testing.assert_array_equal(rates[0], case.learning_rates())
    np.testing.assert_array_equal(np.concatenate(rates[1:]), case.learning_rates())


def test_a_transcript_tells_failures_and_standard_error(child, tmp_path):
    port = child(step="print('oh no', file=sys.stderr, flush=True); sys.exit(1)", transcript=tmp_path / "transcript")
    judged(port, PLAIN)
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
    assert transcript.read_text().startswith('> {"call":"hello","protocol":"amos-ref-port-1"}\n< {"protocol"')


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["check", "--exec", "no_such_command_xyz"], "no_such_command_xyz cannot be started"),
        (["check", "--exec", "false"], "false ended with exit status 1"),
        (["check", "--exec", "sh -c 'read x; echo hello'"], "sh answered hello with 'hello'; expected {\"protocol\""),
        (["check", "--exec", "echo hello"], "echo "),
        (["check", "--exec", "true", "os:getcwd"], "--exec COMMAND goes without a TARGET"),
        (["check", "--exec", "true", "--map", "eta=e"], "--exec COMMAND goes without a TARGET and without --map"),
        (["check", "--timeout", "3"], "--timeout says something about a TARGET, and there is none"),
        (["check", "--exec", "true", "--timeout", "0"], "the timeout of a command is 0.0"),
    ],
)
def test_mistakes_on_the_command_line(argv, text, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1


def test_ctrl_c_ends_the_child(child, tmp_path):
    pid = tmp_path / "pid"
    port = child(step=f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    command = " ".join(port.command)
    with subprocess.Popen(
        [sys.executable, "-m", "amos_ref", "check", "--exec", command], stderr=subprocess.PIPE, text=True
    ) as ours:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        ours.send_signal(signal.SIGINT)
        assert ours.communicate(timeout=30)[1] == "amos-ref: interrupted\n"
    assert ours.returncode == 130
    assert not pathlib.Path(f"/proc/{pid.read_text()}").exists()


def test_every_failure_has_a_verdict_and_none_passes():
    kinds = [PortError, Hang, Crash, Garbage, Unsupported]
    assert [kind.verdict for kind in kinds] == ["raises", "hangs", "crashes", "garbage", "not supported"]
    assert all(issubclass(kind, PortFailure) for kind in kinds)
