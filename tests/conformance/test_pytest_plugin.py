"""The pytest plugin: one test a case, nothing without --amos-port, nothing heavy at load."""

import sys
import tomllib

import pytest
from helpers import ROOT, bad_ports
from helpers.toy_port import OPTIONS, ToyPort

from amos_ref.conformance import cases_of, check, table
from amos_ref.conformance.judging.drive import unsupported
from amos_ref.conformance.report import line

pytest_plugins = ["pytester"]

PLUGIN = "amos_ref.conformance.pytest_plugin"

QUICK = [case for case in table() if case.dtype == "float64"]
TWO = "extra_l2 and not aged"  # two of the cases that see a wrong extra_l2: plain, and with momentum
LACKING = sum(bool(unsupported(ToyPort(), case)) for case in QUICK)

PORTS = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.bad_ports import Endless, Odd, Scribbling
from helpers.toy_port import OPTIONS, AllAxes, ToyPort

class Own(ToyPort):
    def state(self):
        return {{"b": {{name: 1.0 + b for name, b in self.b.items()}}}}

class Hard(ToyPort):
    def init(self, params, hyper):
        super().init(params, hyper | {{"eta": dict.fromkeys(params, 0.75)}})

right, wrong, few = ToyPort(), ToyPort("extra_l2 sign"), ToyPort(options=OPTIONS - {{"clip_value"}})
lacking = ToyPort(options=["learning_rate"])
lacking.dtypes = ()

class Ending(ToyPort):
    def __init__(self):
        os._exit(0)

all_axes, own, wrong_own, hard = AllAxes(), Own(), Own("c with xi"), Hard(options=OPTIONS - {{"eta"}})
"""


@pytest.fixture
def run(pytester):
    """Run pytest on a port of PORTS, with the plugin named by -p, whether it is installed or not."""
    pytester.makepyfile(my_ports=PORTS)
    pytester.syspathinsert()

    def run(port, *args):
        of_port = ["--amos-port", f"my_ports:{port}"] if port else []
        # In this process the plugin may have been imported before, of which pytest warns.
        plain = ["-p", "no:cacheprovider", "-p", "no:amos_ref", "-p", PLUGIN, "-rA"]
        plain += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return pytester.runpytest_inprocess(*plain, *of_port, "--amos-suite", "quick", *args)

    return run


def test_a_right_port_passes_one_test_a_case(run):
    result = run("right", "-v")
    result.assert_outcomes(passed=len(QUICK) - LACKING, skipped=LACKING)
    result.stdout.fnmatch_lines(["amos-ref::extra_l2/float64 PASSED*"])
    assert result.ret == 0


def test_a_wrong_port_fails_with_one_line_a_case_and_no_traceback(run, departing):
    result = run("wrong", "-k", f"extra_l2/float64 and {TWO}", "-x")
    result.assert_outcomes(failed=1, deselected=len(QUICK) - 2)
    expected = next(r for r in departing.results if r.case == "extra_l2")
    lines = result.stdout.lines
    at = next(i for i, text in enumerate(lines) if "FAILURES" in text)
    assert lines[at + 2 : at + 3] == [line(expected)]
    assert "short test summary" in lines[at + 3]
    result.stdout.fnmatch_lines(["FAILED amos-ref::extra_l2/float64 - departs at step 1, theta: *"])


def test_verdicts_are_those_of_a_whole_check(run):
    """A state in a form of its own is told from a wrong one by the other cases, even if they are deselected."""
    run("own", "-k", "plain/float64").assert_outcomes(passed=1, deselected=len(QUICK) - 1)
    run("wrong_own", "-k", "plain/float64").assert_outcomes(failed=1, deselected=len(QUICK) - 1)


def test_what_is_not_supported_is_skipped(run):
    result = run("few")
    port = ToyPort(options=OPTIONS - {"clip_value"})
    lacking = sum(bool(unsupported(port, case)) for case in QUICK)
    assert lacking > LACKING
    result.assert_outcomes(passed=len(QUICK) - lacking, skipped=lacking)
    result.stdout.fnmatch_lines(["SKIPPED*the port has no clip_value"])


LISTED = """
[[departure]]
case = "*extra_l2"
verdict = "departs"
reason = "chosen"
"""


def test_expected_departures_xfail_and_fail_once_they_stop(run, pytester):
    pytester.makefile(".toml", expected=LISTED)
    result = run("wrong", "--amos-expect", "expected.toml", "-k", TWO)
    result.assert_outcomes(xfailed=2, deselected=len(QUICK) - 2)
    result.stdout.fnmatch_lines(["XFAIL amos-ref::extra_l2/float64 - departs as expected at step 1, theta: chosen*"])
    run("wrong", "--amos-expect", "expected.toml").assert_outcomes(
        xfailed=2, failed=3, passed=len(QUICK) - LACKING - 5, skipped=LACKING
    )
    run("wrong", "--amos-expect", "expected.toml", "-k", TWO, "--runxfail").assert_outcomes(
        failed=2, deselected=len(QUICK) - 2
    )
    result = run("right", "--amos-expect", "expected.toml", "-k", TWO)
    result.assert_outcomes(failed=2, deselected=len(QUICK) - 2)
    result.stdout.fnmatch_lines(["no longer departs: expected departure did not happen: remove it from expected.toml*"])


def test_expected_departures_are_what_they_are_listed_as(run, pytester):
    pytester.makefile(
        ".toml", expected=LISTED + 'does = ["extra_l2-sign"]\n', other=LISTED + 'does = ["extra_l2-halved"]\n'
    )
    result = run("wrong", "--amos-expect", "expected.toml", "-k", TWO)
    result.assert_outcomes(xfailed=2, deselected=len(QUICK) - 2)
    result = run("wrong", "--amos-expect", "other.toml", "-k", TWO)
    result.assert_outcomes(failed=2, deselected=len(QUICK) - 2)
    result.stdout.fnmatch_lines(["FAILED amos-ref::extra_l2/float64 - departs at step 1, theta: *"])


def test_it_stops_at_the_first_failure(run):
    result = run("wrong", "-x")
    result.assert_outcomes(failed=1, passed=[case.name for case in QUICK].index("extra_l2"))


def test_collect_only_runs_nothing(run):
    result = run("Endless", "--collect-only", "-q")
    result.stdout.fnmatch_lines(["amos-ref::plain/float64", f"{len(QUICK)} tests collected*"])


def test_bad_ports_fail_in_one_line(run):
    result = run("Odd", "-k", "plain/float64")
    result.stdout.fnmatch_lines(["raises at step 1: ValueError: *"])
    result = run("Endless", "-k", "plain/float64", "--amos-timeout", "0.05")
    result.stdout.fnmatch_lines(["hangs at step 2: gave no answer within 0.05 s"])
    result = run("Scribbling", "-k", "plain/float64")
    result.stdout.fnmatch_lines(["overwrites its input: it writes to the gradient of 'bias', 'kernel'*"])


def test_options_of_the_port(run):
    assert run("hard", "--amos-eta", "3/4", "-k", "plain/float64").ret == 0
    assert run("hard", "--amos-eta", "0.5", "-k", "plain/float64").ret == 1
    result = run("hard", "-k", "plain/float64")
    result.stdout.fnmatch_lines(["toy takes no eta and has no get_scale to ask*"])
    assert not any("Traceback" in text or text.startswith(">") for text in result.stdout.lines)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nothing"], "ERROR: --amos-port: my_ports has no attribute 'nothing'"),
        (["Ending"], "ERROR: --amos-port: my_ports:Ending ended with exit status 0 while it was imported"),
        (["lacking"], "ERROR: --amos-port: toy supports none of the 0 cases: nothing is checked"),
        (["right", "--amos-port", ""], "ERROR: --amos-port: target '' is not of the form module:attr or file.py:attr"),
        (["hard", "--amos-eta", " "], "ERROR: --amos-port: --eta is empty; it must be a number, or an expression*"),
        (["right", "--amos-map", "x"], "ERROR: --amos-port: --map 'x' is not of the form OURS=THEIRS"),
        (["right", "--amos-expect", "no.toml"], "ERROR: --amos-port: cannot read 'no.toml': No such file or directory"),
        (["right", "--amos-timeout", "0"], "ERROR: --amos-port: timeout is 0.0; it must be above 0 *"),
    ],
)
def test_what_cannot_be_used_ends_pytest_in_one_line(args, text, run):
    result = run(*args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([text])
    assert "Traceback" not in result.stderr.str()


def test_nothing_happens_without_a_port(run, pytester):
    pytester.makepyfile(test_own="def test_own(): pass")
    run(None).assert_outcomes(passed=1)
    run("right").assert_outcomes(passed=1 + len(QUICK) - LACKING, skipped=LACKING)


def test_installed_it_loads_by_its_entry_point_and_imports_nothing_heavy(pytester, monkeypatch):
    """A distribution with the entry point that pyproject.toml declares, as an installation has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (name, module), *_ = project["entry-points"]["pytest11"].items()
    assert (name, module) == ("amos_ref", PLUGIN)
    info = pytester.mkdir("installed-1.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    pytester.makepyfile(
        my_ports=PORTS,
        test_load="""
            import sys

            def test_load(pytestconfig):
                assert pytestconfig.pluginmanager.get_plugin("amos_ref") is not None
                ours = sorted(name for name in sys.modules if name.startswith("amos_ref"))
                assert ours == ["amos_ref", "amos_ref.conformance", "amos_ref.conformance.pytest_plugin"]
                assert not {"numpy", "numba", "optree", "scipy", "torch", "jax"} & set(sys.modules)
        """,
    )
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{ROOT}")
    plain = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"]
    for only in ("hypothesispytest", "pytest_cov", "anyio", "jaxtyping"):  # other plugins import what they like
        plain += ["-p", f"no:{only}"]
    result = pytester.run(*plain, "-W", "error", "test_load.py")
    result.assert_outcomes(passed=1)
    assert "warning" not in result.stdout.str().lower()
    result = pytester.run(*plain, "--amos-port", "my_ports:right", "-k", "plain/float64")
    result.assert_outcomes(passed=1, deselected=len(cases_of("full", ToyPort())))


def test_the_ports_of_these_tests_are_what_they_seem():
    assert check(ToyPort(), suite="quick").ok
    assert not check(bad_ports.Scribbling(), suite="quick").ok


def test_a_port_of_the_closed_form(run):
    result = run(None, "--amos-port", "examples.ports.closed_form_numpy:step", "--amos-algorithm", "closed-form", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["amos-ref::sigma-init/float64 PASSED*"])
    wrong = ["--amos-port", "helpers.closed_form_ports:from_one", "--amos-algorithm", "closed-form"]
    assert run(None, *wrong, "-k", "plain/float64").ret == 1
    both = [*wrong, "--amos-eta", "0.5"]
    result = run(None, *both)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the closed form has no eta; what a port of it hard-codes is its sigma"])


def test_a_port_that_wants_slots_with_all_axes_is_skipped_where_they_have_fewer(run):
    result = run("all_axes", "-k", "slots-fewer-axes or slots-either-end or slots-rows")
    result.assert_outcomes(passed=1, skipped=2, deselected=len(QUICK) - 3)
    result.stdout.fnmatch_lines(["SKIPPED*the port takes no slots of fewer axes than their leaf: IndexError*"])
