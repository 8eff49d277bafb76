"""What tests/helpers/elsewhere takes away is gone for amos_ref, and for nobody else."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT, TESTS

#: Wrong versions: what works here and not there, and the error that it then is.
WINDOWS = {
    "import os; os.killpg(os.getpgrp(), 0)": "AttributeError",
    "from os import fork": "ImportError",
    "import fcntl": "ModuleNotFoundError",
    "import resource": "ModuleNotFoundError",
    "import signal; signal.setitimer(signal.ITIMER_REAL, 1)": "AttributeError",
    "from _signal import SIGHUP": "ImportError",
    "import signal; signal.signal(signal.Signals(9), print)": "ValueError",
    "import os; os.open('.', os.O_RDONLY)": "PermissionError",
    "import os; f = open('a', 'w'); open('b', 'w').close(); os.replace('b', 'a')": "PermissionError",
    "import os; f = open('a', 'w'); os.unlink('a')": "PermissionError",
    "import numpy as np, os; a = np.memmap('a', mode='w+', shape=9); f = a._mmap; os.unlink('a')": "PermissionError",
    "import selectors, os; s = selectors.DefaultSelector(); s.register(os.pipe()[0], 1); s.select(0)": "OSError",
    "import select, os; select.select([os.pipe()[0]], [], [], 0)": "OSError",
    "import subprocess; subprocess.Popen(['true'], preexec_fn=print)": "ValueError",
    "import subprocess; subprocess.Popen(['true'], pass_fds=[1])": "AssertionError",
    "import ctypes; ctypes.CDLL(None)": "TypeError",
}
LINUX = {
    "open('/proc/self/status')": "FileNotFoundError",
    "import pathlib; pathlib.Path('/proc/self/status').read_text()": "FileNotFoundError",
    "import os; os.sched_getaffinity(0)": "AttributeError",
    "import select; select.epoll()": "AttributeError",
    "import sys; assert sys.platform == 'linux'": "AssertionError",
}
WRONG = [("windows", code, error) for code, error in (WINDOWS | LINUX).items()]
WRONG += [("macos", code, error) for code, error in LINUX.items()]


def run(code, owner, system, folder):
    """Run code as if it stood in a module of this name; return the name of the error that it raises."""
    program = f"import signal, select\ntry:\n exec({code!r}, {{'__name__': {owner!r}}})\n"
    program += "except BaseException as e:\n print(type(e).__name__)"
    path = os.pathsep.join(map(str, (TESTS / "helpers" / "elsewhere", ROOT)))
    env = os.environ | {"PYTHONPATH": path, "AMOS_REF_ELSEWHERE": system}
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=folder, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize(("system", "code", "error"), WRONG)
def test_code_that_needs_what_is_not_there_is_caught(system, code, error, tmp_path):
    assert run(code, "amos_ref.wrong", system, tmp_path) == error


@pytest.mark.parametrize("code", [code for code in WINDOWS if "preexec" not in code and "Signals" not in code])
def test_others_keep_it(code, tmp_path):
    assert run(code, "another", "windows", tmp_path) == ""


def test_macos_has_what_posix_has(tmp_path):
    code = "import os, signal, fcntl; os.killpg; os.fork; signal.SIGALRM; os.open('.', os.O_DIRECTORY)"
    assert run(code, "amos_ref.right", "macos", tmp_path) == ""
    assert run("import os; os.name == 'nt' or fail", "amos_ref.right", "windows", tmp_path) == ""
