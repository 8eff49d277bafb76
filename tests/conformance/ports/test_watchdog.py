"""A port that never returns is stopped, and a limit that cannot be kept is refused."""

import concurrent.futures
import math
import signal

import pytest
from helpers import bad_ports
from helpers.toy_port import ToyPort

from amos_ref.conformance import check
from amos_ref.conformance.ports import watchdog
from amos_ref.errors import TargetError


@pytest.mark.parametrize("where", ["init", "step", "own_eta"])
def test_a_port_that_never_returns_hangs(where):
    port = bad_ports.Endless(where)
    report = check(port, suite="quick", timeout=0.05)
    assert {r.verdict for r in report.results} == {"hangs"}
    asked = "asked for its eta of leaf 'kernel', of shape (6, 5): " if where == "own_eta" else ""
    assert [r.detail for r in report.results[:3]] == [f"{asked}no answer within 0.05 s"] * 3
    assert {r.detail for r in report.results[3:]} == {"not run, since 3 cases before it gave no answer"}
    assert report.results[0].step == (2 if where == "step" else None)
    assert not report.ok


def test_an_import_that_never_ends_is_a_named_error(tmp_path):
    path = tmp_path / "endless.py"
    path.write_text("while True: pass")
    with pytest.raises(TargetError, match=r"was not imported within 0\.05 s: its import does not end"):
        check(f"{path}:port", timeout=0.05)


def test_a_timer_of_someone_else_is_left_alone():
    with watchdog.time_limit(1000.0):
        before = signal.getitimer(signal.ITIMER_REAL)[0]
        with watchdog.time_limit(1e-9):
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, math.inf, "1", True])
def test_a_timeout_that_means_nothing_is_a_named_error(timeout):
    with pytest.raises(TargetError, match=r"timeout is .*; it must be above 0 and at most 86400 seconds"):
        check(ToyPort(), timeout=timeout)


def test_a_timeout_outside_the_main_thread_is_a_named_error():
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        pytest.raises(TargetError, match="can be kept only in the main thread"),
    ):
        pool.submit(check, ToyPort(), timeout=1.0).result()
