"""A port in a process of its own: whatever it does, it changes no outcome, reaches no terminal and outlives nothing."""

import contextlib
import gc
import json
import os
import select
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, TESTS, bad_ports
from helpers.children import PLAIN, judge_one
from helpers.toy_port import Settable

from amos_ref.cli import main
from amos_ref.conformance import cases, check, table
from amos_ref.conformance.judging.judge import judge
from amos_ref.conformance.ports import child as child_module
from amos_ref.conformance.ports import supervised, wire
from amos_ref.conformance.ports.failures import Garbage
from amos_ref.conformance.ports.supervised import TargetPort
from amos_ref.errors import MissingDependencyError, NoAnswerError, TargetError

TEXT = f"""
import atexit, ctypes, os, signal, subprocess, sys, threading, time
sys.path.insert(0, {str(TESTS)!r})
from helpers.toy_port import ToyPort
import numpy as np
TOP

class Port(ToyPort):
    name = "port"

    def step(self, grads):
        STEP
        return super().step(grads)
"""


@pytest.fixture
def target(tmp_path):
    """Return a function that writes a port to a file and returns its target."""

    def write(step="pass", top=""):
        path = tmp_path / f"port{len(list(tmp_path.iterdir()))}.py"
        path.write_text(TEXT.replace("TOP", top).replace("STEP", step.replace("\n", "\n        ")))
        return f"{path}:Port"

    return write


@pytest.fixture
def port(target):
    """Return a function that makes a port of a file, and closes it in the end."""
    made = []

    def make(step="pass", top="", timeout=20.0):
        made.append(TargetPort(target(step, top), timeout=timeout))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def few(monkeypatch):
    """Two cases are all that there are."""
    two = tuple(case for case in table() if case.dtype == "float64" and case.name in ("plain", "extra_l2"))
    monkeypatch.setattr(cases, "_table", lambda: two)


# what ends a port, or makes it fail


@pytest.mark.parametrize(
    ("step", "verdict", "text"),
    [
        ("os._exit(0)", "ended", "ended with exit status 0"),
        ("print('bye'); os._exit(3)", "ended", "ended with exit status 3; last on its standard error: 'bye'"),
        ("ctypes.string_at(0)", "killed", "was killed by SIGSEGV"),
        ("signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(60)", "killed", "was killed by SIGALRM"),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", "killed", "was killed by SIGKILL"),
        ("os.closerange(0, 100)", "ended", "ended with exit status 1"),
    ],
)
def test_what_ends_a_port_is_a_verdict_of_its_case(port, step, verdict, text):
    result, seen = judge(port(step), PLAIN)
    assert (result.verdict, result.step, seen) == (verdict, 1, None)
    assert text in result.detail
    assert result.detail.isprintable()


RAISED = {
    "SystemExit(0)": "SystemExit: 0",
    "KeyboardInterrupt": "KeyboardInterrupt:",
    "BaseException('all\\x1b[2J')": r"BaseException: all\x1b[2J",
    "type('\\x1b[2J', (Exception,), {})": r"\x1b[2J:",
    "type('Mute', (Exception,), dict(__str__=lambda self: sys.exit(0)))": "Mute: (its message cannot be printed)",
    "type('Sly', (ValueError,), dict(verdict='conforms', __class__=Port))": "Sly:",
}


def test_whatever_a_port_raises_is_a_verdict(port):
    one = port("raise next(raised)()", "raised = iter([lambda: " + ", lambda: ".join(RAISED) + "])")
    process = one.child.process
    for text in RAISED.values():
        result = judge_one(one, PLAIN)
        assert (result.verdict, result.step) == ("raises", 1)
        assert result.detail.startswith(text)
        assert result.detail.isprintable()
    assert one.child.process is process


def test_a_port_that_does_not_answer_hangs(port):
    one = port("while True: print('for ever')", timeout=0.3)
    result = judge_one(one, PLAIN)
    assert (result.verdict, result.detail) == ("hangs", "gave no answer within 0.3 s")


def test_memory_is_bounded(port, monkeypatch):
    monkeypatch.setattr(supervised, "memory_limit", lambda: 1 << 30)
    result = judge_one(port("np.ones(1 << 28)"), PLAIN)
    assert result.verdict == "raises"
    assert "MemoryError: Unable to allocate 2.00 GiB" in result.detail


@pytest.mark.parametrize(
    ("top", "kind", "text"),
    [
        ("os._exit(0)", NoAnswerError, "ended with exit status 0 while it was imported"),
        ("os.system('echo no >&2'); os._exit(3)", NoAnswerError, "3 while it was imported; last on its .*: 'no'$"),
        ("ctypes.string_at(0)", NoAnswerError, "was killed by SIGSEGV while it was imported"),
        ("while True: pass", NoAnswerError, r"was not imported within 0\.5 s: its import does not end"),
        ("raise KeyboardInterrupt", TargetError, "cannot be driven: KeyboardInterrupt:"),
        ("raise BaseException('x')", TargetError, "failed to import: BaseException: x"),
        ("import jax_that_is_not_here", TargetError, "there is no module|failed to import: ModuleNotFoundError"),
        ("raise ModuleNotFoundError(name='jax')", MissingDependencyError, "needs jax, which is not installed"),
    ],
)
def test_an_import_that_fails_is_a_named_error(port, top, kind, text):
    with pytest.raises(kind, match=text) as caught:
        port(top=top, timeout=0.5 if "while" in top else 20.0)
    assert type(caught.value) is kind


# what changes nothing

STRAY = """for fd in range(20):
    try: os.write(fd, b'x{}\\n')
    except OSError: pass"""
SAYING = """def say():
    while True: print('.' * 99)
threading.Thread(target=say).start()"""

CONFORMING = {  # a line of its step, and one of its module
    "writes to every descriptor": (STRAY, ""),
    "goes on as two processes": ("os.fork()", ""),
    "prints from a thread for ever": ("pass", SAYING),
    "installs handlers": ("for n in (2, 10, 12, 14, 15): signal.signal(n, lambda *_: os._exit(0))", ""),
    "leaves a timer": ("signal.signal(14, lambda *_: 1 / 0); signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)", ""),
    "ends at exit": ("pass", "atexit.register(os._exit, 0)"),
    "patches NumPy": ("np.asarray = np.array = np.frombuffer = np.array_equal = None; sys.stdout = None", ""),
    "patches modules": ("import json; os.write = os.read = json.loads = json.dumps = None; sys.stdin.read()", ""),
    "leaves a process": ("subprocess.Popen(['/bin/sleep', '60'], start_new_session=True, env={})", ""),
}


@pytest.mark.parametrize("name", CONFORMING)
def test_what_a_right_port_does_besides_changes_nothing(port, name):
    one = port(*CONFORMING[name])
    for _ in range(2):
        assert judge_one(one, PLAIN).verdict == "conforms"


def test_without_marks_a_stray_line_would_be_an_answer(port, monkeypatch):
    """The wrong version: whatever line comes first is the answer."""
    ask = child_module.Child.ask
    one = port(CONFORMING["writes to every descriptor"][0])
    unmarked = lambda self, line, timeout, limit, mark: ask(self, line, timeout, limit)  # noqa: E731
    monkeypatch.setattr(child_module.Child, "ask", unmarked)
    assert judge_one(one, PLAIN).verdict == "garbage"


@pytest.mark.parametrize("name", ["Odd", "Crashed", "Reshaping", "Aliasing"])
def test_a_verdict_is_that_of_the_same_port_in_this_process(name):
    one = TargetPort(f"helpers.bad_ports:{name}", timeout=20.0)
    assert judge_one(one, PLAIN) == judge_one(getattr(bad_ports, name)(), PLAIN)
    one.close()


def test_every_case_comes_to_the_same_as_in_this_process():
    apart, here = check("helpers.toy_port:Settable", "quick", timeout=60.0), check(Settable(), "quick")
    assert [r._replace(seconds=None) for r in apart.results] == [r._replace(seconds=None) for r in here.results]


def test_one_process_serves_all_cases_and_another_one_follows_its_end(port, tmp_path):
    mark = tmp_path / "mark"
    one = port(f"if os.path.exists({str(mark)!r}): os._exit(1)")
    first = one.child.process.pid
    assert judge_one(one, PLAIN).verdict == judge_one(one, PLAIN).verdict == "conforms"
    assert one.child.process.pid == first
    mark.touch()
    assert judge_one(one, PLAIN).verdict == "ended"
    mark.unlink()
    assert judge_one(one, PLAIN).verdict == "conforms"
    assert one.child.process.pid != first


@pytest.mark.parametrize(
    "line",
    ["", "[]", "nonsense", "[" * 100_000, "{" * 9],
)
def test_what_is_no_message_is_garbage(line):
    with pytest.raises(Garbage):
        wire.read_line(line.encode())


@pytest.mark.parametrize(
    "entry",
    [
        1,
        [],
        {"x": 1},
        {"x": {}},
        {"x": {"dtype": "object", "shape": [1], "bits": "00" * 8}},
        {"x": {"dtype": "float64", "shape": [-1], "bits": ""}},
        {"x": {"dtype": "float64", "shape": [1], "bits": "zz" * 8}},
        {"x": {"dtype": "float64", "shape": [10**9] * 3, "bits": "00"}},
        {"x": {"dtype": [], "shape": 1, "bits": None}},
    ],
)
def test_what_is_no_array_is_garbage(entry):
    with pytest.raises(Garbage):
        wire.read_arrays(entry)


# what is printed


def test_nothing_of_a_port_stands_in_a_report_or_reaches_the_terminal(target, few, capfd):
    step = "print('\\x1b[2J said'); os.system('echo said'); ctypes.CDLL(None).puts(b'said'); os.write(1, b'\\x9b1m\\n')"
    top = "atexit.register(print, 'said at exit'); print('said at import')"
    assert main(["check", target(step, top), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["ok"] is True
    assert r"\x1b[2J said" in err
    assert all(c.isprintable() or c == "\n" for c in err)


def test_what_a_port_does_at_exit_is_done_and_modules_are_not_taken_apart(target, few, capfd):
    top = """
import logging.handlers
class Part:
    def __del__(self): print("taken apart")
part, log = Part(), logging.getLogger("port")
log.addHandler(logging.handlers.MemoryHandler(9, 99, logging.StreamHandler()))  # shown by logging's own atexit
log.error("logged")
atexit.register(print, "said at exit, ", end="")
"""
    assert main(["check", target("pass", top), "--json"]) == 0
    assert capfd.readouterr().err == "said at exit, logged\n"


def test_a_port_that_prints_much_is_shown_in_part(target, few, capfd):
    assert main(["check", target("print('much\\n' * 1000)")]) == 0
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 201
    assert err[-1].startswith("(200 lines of ")


def test_a_long_line_is_shown_in_part(target, few, capfd):
    assert main(["check", target("print('x' * 100_000)")]) == 0
    assert {len(line) for line in capfd.readouterr().err.splitlines()} == {1003}


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("self.close = lambda: 1 / 0", "the port's close() raised ZeroDivisionError: division by zero\n"),
        ("os.closerange(3, 100)", "the port's process cannot go on: OSError: [Errno 9] Bad file descriptor\n"),
    ],
)
def test_what_fails_between_the_questions_is_one_line(target, few, capfd, step, text):
    main(["check", target(step)])
    err = capfd.readouterr().err
    assert set(err.splitlines(True)) == {text}


@pytest.mark.parametrize(
    ("step", "top", "status"),
    [
        ("os._exit(0)", "", 4),
        ("ctypes.string_at(0)", "", 4),
        ("pass", "os._exit(0)", 4),
        ("raise SystemExit(0)", "", 1),
    ],
)
def test_no_end_of_a_port_is_a_pass(target, few, capfd, step, top, status):
    assert main(["check", target(step, top), "--json"]) == status
    out, err = capfd.readouterr()
    assert (json.loads(out)["ok"] is False) if out else "while it was imported" in err


def test_a_port_that_ends_again_and_again_is_given_up(target, few, capfd, monkeypatch):
    monkeypatch.setattr("amos_ref.conformance.judging.judge.PATIENCE", {"ended": 1})
    assert main(["check", target("os._exit(0)"), "--json"]) == 4
    rows = json.loads(capfd.readouterr().out)["results"]
    assert [r["verdict"] for r in rows] == ["ended", "ended"]
    assert rows[1]["detail"] == "not run, since 1 cases before it gave no answer"


# what outlives a check

LEFT = "p = subprocess.Popen(['sleep', '600'], start_new_session=True, env={}, executable='/bin/sleep'); "
LEFT += "open(PID, 'w').write(str(p.pid))"


def wait_for_end(descriptor):
    return bool(select.select([descriptor], [], [], 20)[0])


@pytest.fixture
def left(tmp_path):
    """Return code that leaves a process in a session of its own, and a function that returns its pidfd."""
    if not hasattr(os, "pidfd_open") or not child_module._has_guard():
        pytest.skip("it needs Linux")
    path, opened = tmp_path / "pid", []
    os.mkfifo(path)

    def follow():
        opened.append(os.pidfd_open(int(path.read_text())))
        return opened[-1]

    yield LEFT.replace("PID", repr(str(path))), follow
    for descriptor in opened:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


@pytest.mark.parametrize("end", ["close", "drop", "SIGTERM"])
def test_processes_in_sessions_of_their_own_end_with_the_port(port, left, end):
    code, follow = left
    one = port(top=f"threading.Thread(target=lambda: exec({code!r}, globals())).start()")
    descriptor = follow()
    process = one.child.process
    if end == "close":
        one.close()
    elif end == "drop":
        one.child = None
        gc.collect()
    else:
        process.terminate()  # of the guard itself, which does not end before the others
        one.close()
    assert wait_for_end(descriptor)
    assert process.wait(20) is not None


def test_without_a_guard_they_would_outlive_it(port, left, monkeypatch):
    monkeypatch.setattr(child_module, "_has_guard", lambda: False)
    code, follow = left
    one = port(top=f"threading.Thread(target=lambda: exec({code!r}, globals())).start()")
    descriptor = follow()
    one.close()
    assert not select.select([descriptor], [], [], 0)[0]


@pytest.mark.parametrize("step", ["pass", "os._exit(0)", "time.sleep(60)"])
def test_what_other_systems_lack_is_not_needed(port, monkeypatch, step):
    monkeypatch.setattr(child_module, "_has_guard", lambda: False)
    monkeypatch.delattr(os, "killpg")
    for name in ("SIGALRM", "setitimer", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    one = port(step, timeout=0.5 if "sleep" in step else 20.0)
    process = one.child.process
    verdict = {"pass": "conforms", "os._exit(0)": "ended"}.get(step, "hangs")
    assert judge_one(one, PLAIN).verdict == verdict
    one.close()
    assert process.returncode is not None


@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130), ("SIGKILL", -9)])
def test_a_signal_to_the_check_ends_its_children_and_removes_its_files(target, left, tmp_path, number, status):
    code, follow = left
    folder = tmp_path / "reports"
    folder.mkdir()
    argv = [sys.executable, "-m", "amos_ref", "check", target(f"{code}\nwhile True: pass"), "--timeout", "600"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*argv, "--markdown", folder / "report.md"], stderr=subprocess.PIPE, env=env) as ours:
        try:
            descriptor = follow()
            ours.send_signal(getattr(signal, number))
            words = ours.communicate(timeout=60)[1].decode()
        finally:
            ours.kill()
    assert ours.returncode == status
    assert wait_for_end(descriptor)
    assert os.listdir(folder) == []
    if status > 0:
        assert words == f"amos-ref: {'interrupted' if number == 'SIGINT' else f'ended by {number}'}\n"
