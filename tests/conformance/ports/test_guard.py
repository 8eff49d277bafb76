"""The guard ends many processes as quickly as few."""

import os
import subprocess
import sys

import pytest

from amos_ref.conformance.ports import child as child_module

SCANS = f"""
import ctypes, os, subprocess, sys
sys.path.insert(0, {os.path.dirname(child_module.__file__)!r})
import guard
ctypes.CDLL(None).prctl(guard.SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for _ in range(20):
    os.system("setsid sleep 600 &")
look, looks = guard._children, []
guard._children = lambda: looks.append(0) or look()
CHANGE
guard.kill_children()
print(len(looks))
"""
ONE_AFTER_THE_OTHER = (
    "kill, wait = guard._kill, os.waitpid; guard._kill = lambda child: kill(child) and child == look()[0]"
)


@pytest.mark.parametrize(("change", "most"), [("", 4), (ONE_AFTER_THE_OTHER, 20)])
def test_the_guard_looks_for_what_is_left_a_few_times_and_not_once_for_each_process(change, most):
    """The second is the wrong version: with hundreds of processes it took longer than the check waits for a guard."""
    if not child_module._has_guard():
        pytest.skip("it needs Linux")
    argv = [sys.executable, "-c", SCANS.replace("CHANGE", change)]
    looks = int(subprocess.run(argv, stdout=subprocess.PIPE, timeout=60, check=True).stdout)
    assert (looks <= 4) is (most == 4)
