"""A child process: whatever it does, it is answered in time, told of in one line, and ended."""

import gc
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.children import PLAIN, has_ended, judge_one

from amos_ref.conformance import CommandPort, check
from amos_ref.conformance.judging import drive
from amos_ref.conformance.ports.failures import Crash, Garbage, Hang, PortError


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
    assert has_ended(process)
    assert port.child is None
    result = judge_one(port, PLAIN)  # and again, started anew, as a verdict
    assert result.verdict not in ("conforms", "departs", "not supported")
    assert text in result.detail


def test_megabytes_on_standard_error_block_nothing(child):
    port = child(step="sys.stderr.write('noise ' * 500_000 + '\\n'); sys.stderr.flush(); say(theta=theta)")
    assert judge_one(port, PLAIN).verdict == "departs"
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
    first, second = judge_one(port, PLAIN), judge_one(port, PLAIN)
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
    assert has_ended(process)
    port.close()


def test_check_closes_the_port_also_when_it_fails(child):
    port = child(step="say(error='not today')")
    process = port.child.process
    check(port, "quick")
    assert has_ended(process)
    assert not check(port, "quick").ok  # started anew

    port = child()
    process = port.child.process

    def broken(cases):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(port, "quick", progress=broken)
    assert has_ended(process)


def test_a_port_that_is_dropped_takes_its_child_along(child):
    process = child(timeout=1.0).child.process
    port = CommandPort([*process.args])
    process = port.child.process
    del port
    gc.collect()
    assert has_ended(process)


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
