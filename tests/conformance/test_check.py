"""The judge: right ports conform, each wrong one departs where its mistake is, and nothing else fails."""

import concurrent.futures
import json
import math
import signal

import numpy as np
import pytest
from helpers import bad_ports
from helpers.leaves import wrap_run
from helpers.toy_port import MISTAKES, OPTIONS, Settable, ToyPort

import amos_ref
from amos_ref.conformance import check, selfcheck, table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.ports import watchdog
from amos_ref.conformance.ports.target import as_port, find_target
from amos_ref.conformance.report import Report
from amos_ref.errors import AmosError, MissingDependencyError, TargetError
from amos_ref.kernels.cpu import backend as cpu

CASES = [case for case in table() if case.dtype in ("float64", "float32")]  # those of a port that does not tell


def test_a_right_port_conforms_on_every_case():
    report = check(Settable())
    assert report.ok
    assert report.counts() == {"conforms": len(CASES)}


def test_the_way_adamw_is_written_conforms():
    assert check(ToyPort(form="adamw")).ok


def test_the_bound_is_not_slack():
    """Some right evaluation comes within a factor of 10 of the bound in each precision."""
    results = check(Settable()).results + check(Settable(form="adamw")).results
    for dtype in ("float64", "float32"):
        assert max(r.ratio for r in results if r.dtype == dtype) > 0.1


def test_b_that_loses_a_small_gamma_is_refused():
    """(1 + b)(1 + gamma) - 1 in float32 keeps b at 0 where xi^2 is small."""

    class Cancelling(ToyPort):
        def change(self, name, g, xi, eta):
            old = self.b[name]
            delta = super().change(name, g, xi, eta)
            one = self.f(1)
            gamma = (self.b[name] - old) / (one + old)
            self.b[name] = ((one + old) * (one + gamma) - one).astype(self.f)
            return delta

    departing = {(r.case, r.dtype) for r in check(Cancelling()).results if r.verdict == "departs" or "b is" in r.detail}
    assert ("defaults", "float32") in departing


def test_state_kept_in_a_form_of_its_own_is_no_departure():
    class Own(ToyPort):
        def state(self):
            return {"b": {name: 1.0 + b for name, b in self.b.items()}}

    report = check(Own(), suite="quick")
    assert report.ok
    assert "theta conforms; the port's b is something else than ours" in report.results[0].detail
    assert not check(type("Wrong", (Own,), {})("c with xi"), suite="quick").ok


def test_a_port_that_computes_in_float32_is_told_so():
    class Single(ToyPort):
        def init(self, params, hyper):
            super().init({name: a.astype(np.float32) for name, a in params.items()}, hyper)

        def step(self, grads):
            return super().step({name: None if g is None else g.astype(np.float32) for name, g in grads.items()})

    result = judge.judge(Single(), table()[0])[0]
    assert result.verdict == "departs"
    assert result.detail.endswith("; within float32's bound: does the port compute in float32?")


def test_options_with_defaults_of_their_own_are_switched_off():
    class Clipped(ToyPort):
        def init(self, params, hyper):
            super().init(params, {"clip_value": 1.0, "extra_l2": 0.5, "c_coef": 1.0, "d_coef": 1.0} | hyper)

    def factory(learning_rate, eta, clip_value=1.0, extra_l2=0.5, momentum=0.9):
        raise AssertionError

    off = as_port(factory).signature.keywords({"learning_rate": 1.0})
    assert off == {"learning_rate": 1.0, "clip_value": np.inf, "extra_l2": 0.0, "momentum": 0.0}
    assert judge.judge(Clipped(), table()[0])[0].verdict == "departs"  # a Port itself must heed what is not in hyper


@pytest.mark.parametrize(
    "own", [3.0, {"kernel": 0.5}, {"kernel": 0.5, "bias": 0.0}, {"kernel": None, "bias": 1.0}, ZeroDivisionError]
)
def test_an_eta_that_the_port_tells_wrongly_is_a_named_error(own):
    class Telling(ToyPort):
        def own_eta(self, params):
            if own is ZeroDivisionError:
                raise own
            return own

    with pytest.raises(AmosError) as caught:
        judge.judge(Telling(options=OPTIONS - {"eta"}), table()[0])[0]
    assert "\n" not in str(caught.value)


def test_a_port_that_never_starts_is_a_named_error():
    class Stuck(ToyPort):
        def init(self, params, hyper):
            raise TypeError("missing 1 required argument: 'speed'")

    with pytest.raises(TargetError, match="toy could not be started on any case: TypeError: missing 1 required"):
        check(Stuck(), suite="quick")


@pytest.mark.parametrize("wrong", MISTAKES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_mistake_departs_at_its_stage(wrong, dtype):
    results, _ = judge.run(ToyPort(wrong), [case for case in CASES if case.dtype == dtype])
    departing = [r for r in results if r.verdict == "departs"]
    assert departing
    assert MISTAKES[wrong] in {r.stage for r in departing}
    assert all(r.ratio > 1 and r.step >= 1 and r.leaf in ("kernel", "bias", "x") for r in departing)


@pytest.mark.parametrize("wrong", MISTAKES)
def test_each_mistake_shows_in_theta_alone(wrong):
    class Closed(ToyPort):
        def state(self):
            return {}

    departing = [r for r in judge.run(Closed(wrong), CASES)[0] if r.verdict == "departs"]
    assert departing
    assert {r.stage for r in departing} == {"theta"}


def test_alpha_and_rho_of_the_wrong_step_are_told():
    result, _ = judge.judge(ToyPort("extra_l2 sign"), next(case for case in CASES if case.name == "extra_l2"))
    assert result.step == 1
    assert "rho is -0.09375 (page 0.15625)" in result.detail


def test_momentum_kept_with_the_other_sign_is_no_departure():
    class Subtracts(ToyPort):
        def state(self):
            return {
                part: {k: -a if part == "m" else a for k, a in arrays.items()}
                for part, arrays in super().state().items()
            }

    assert check(Subtracts()).ok


def test_what_a_port_lacks_is_not_supported_and_no_failure():
    report = check(ToyPort(options=OPTIONS - {"slot_shape", "clip_value"}), suite="quick")
    assert report.ok
    lacking = {r.case: r.detail for r in report.results if r.verdict == "not supported"}
    assert lacking["clip"] == "the port has no clip_value"
    assert lacking["slots-rows"] == "the port has no slot_shape"
    assert set(lacking) == {c.name for c in CASES if c.needs() & {"slot_shape", "clip_value"} or c.inject}


def test_a_port_without_beta_is_run_with_0_999():
    class Fixed(Settable):
        def init(self, params, hyper):
            super().init(params, {name: x for name, x in hyper.items() if name != "beta"})

    assert check(Fixed(options=OPTIONS - {"beta"})).counts() == {"conforms": len(CASES)}


def test_a_port_that_lacks_what_every_case_needs_is_not_ok():
    class Never(ToyPort):
        skips_none = False

    cases = [case for case in table() if case.needs()]
    report = Report("never", judge.run(Never(options={"learning_rate", "eta"}), cases)[0])
    assert set(report.counts()) == {"not supported"}
    assert not report.ok


@pytest.mark.parametrize(
    ("port", "verdict", "text"),
    [
        (bad_ports.Raising, "raises", "ZeroDivisionError: no step today"),
        (bad_ports.Quitting, "raises", "SystemExit: 0"),
        (bad_ports.Mute, "raises", "Mumble: (its message cannot be printed)"),
        (bad_ports.Lying, "raises", "Liar: all is well"),
        (bad_ports.Odd, "raises", "ValueError: \\x00\\x1b[31m\\udc80 <&]]>|`é"),
        (bad_ports.Crashed, "crashes", "ended by signal 11"),
        (bad_ports.Flat, "wrong shape", "shape (30,) where the page has (6, 5)"),
        (bad_ports.Reshaping, "wrong shape", "shape (2, 9) where the page has (6, 5)"),
        (bad_ports.Drifting, "not finite", "is nan where the page has"),
        (bad_ports.Overflowing, "not finite", "[0, 0] is inf where the page has"),
        (bad_ports.Complex, "garbage", "theta of leaf 'kernel' is complex"),
        (bad_ports.Losing, "garbage", "step returned leaves ['kernel'] for ['bias', 'kernel']"),
        (bad_ports.Wordy, "garbage", "theta of leaf 'kernel' is no array of real numbers: ValueError: could not"),
        (bad_ports.Empty, "garbage", "theta is NoneType; it must be a dict of arrays by leaf"),
        (bad_ports.Stateless, "garbage", "state returned NoneType; it must be a dict"),
        (bad_ports.HalfStateless, "garbage", "v is NoneType; it must be a dict of arrays by leaf"),
        (bad_ports.Scribbling, "overwrites its input", "it writes to the gradient of 'bias', 'kernel': a second step"),
        (bad_ports.Aliasing, "overwrites its input", "it writes to the gradient of 'bias', 'kernel': a second step"),
    ],
)
def test_ports_that_misbehave(port, verdict, text):
    result = judge.judge(port(), table()[0])[0]
    assert result.verdict == verdict
    assert result.failed
    assert text in result.detail
    assert result.detail.isprintable()
    assert not check(port(), suite="quick").ok


def test_a_wrong_port_that_overwrites_its_input_departs_and_is_told_both():
    result = judge.judge(bad_ports.Scribbling("c with xi"), table()[0])[0]
    assert (result.verdict, result.stage) == ("departs", "b")
    assert result.detail.endswith("; it also writes to the gradient of 'bias', 'kernel'")


def test_a_port_may_keep_and_step_the_parameters_it_was_given():
    assert check(bad_ports.InPlace(), suite="quick").ok


@pytest.mark.parametrize("where", ["init", "step", "own_eta"])
def test_a_port_that_never_returns_hangs(where):
    port = bad_ports.Endless(where)
    if where == "own_eta":
        with pytest.raises(TargetError, match=r"failed to tell its eta: Hangs: no answer within 0\.05 s"):
            check(port, timeout=0.05)
        return
    report = check(port, suite="quick", timeout=0.05)
    assert {r.verdict for r in report.results} == {"hangs"}
    assert [r.detail for r in report.results[:3]] == ["no answer within 0.05 s"] * 3
    assert {r.detail for r in report.results[3:]} == {"not run, since 3 cases before it gave no answer"}
    assert report.results[0].step == (None if where == "init" else 2)
    assert not report.ok


def test_an_import_that_never_ends_is_a_named_error(tmp_path):
    path = tmp_path / "endless.py"
    path.write_text("while True: pass")
    with pytest.raises(TargetError, match=r"was not there within 0\.05 s: its import does not end"):
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


def test_eta_that_the_port_hard_codes_is_given_or_asked_for():
    class Hard(ToyPort):
        def init(self, params, hyper):
            super().init(params, hyper | {"eta": dict.fromkeys(params, 0.75)})

    options = OPTIONS - {"eta"}
    assert check(Hard(options=options), suite="quick", eta=0.75).ok
    assert not check(Hard(options=options), suite="quick", eta="3/8").ok
    with pytest.raises(TargetError, match=r"toy takes no eta and has no get_scale to ask: --eta RULE"):
        check(Hard(options=options), suite="quick")


def test_report_is_plain_data_and_reads_well():
    report = check(bad_ports.Drifting(), suite="quick")
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["ok"] is False
    assert again["results"][0]["ratio"] == "inf"
    lines = str(report).splitlines()
    assert lines[0].split() == ["case", "dtype", "verdict", "first", "departs", "at", "details"]
    assert lines[-1] == report.summary()
    assert lines[-1].startswith("toy: 30 not finite")
    assert not any(line != line.rstrip() for line in lines)


def test_self_check_passes_and_sees_a_kernel_that_is_one_bit_off(monkeypatch):
    assert all(r.verdict == "conforms" for r in selfcheck.self_check())

    def off_by_one_ulp(leaves, run):
        bad = run()
        for leaf in leaves:
            if leaf.theta.dtype == np.float64 and leaf.theta.size:
                leaf.theta.flat[0] = np.nextafter(leaf.theta.flat[0], np.inf)
        return bad

    wrap_run(monkeypatch, cpu.Work, off_by_one_ulp)
    wrong = [r for r in selfcheck.self_check() if r.verdict == "departs"]
    assert [(r.case, r.dtype) for r in wrong] == [("cpu = vectors", "float64"), ("cpu = page", "float64")]
    assert "plain/float64, step 1: theta of leaf" in wrong[0].detail


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nonsense", "not of the form module:attr"),
        (":attr", "not of the form"),
        ("json:", "not of the form"),
        ("no_such_module_xyz:attr", "there is no module 'no_such_module_xyz'"),
        ("json:no_such_attr", "json has no attribute 'no_such_attr'"),
        ("no/such/file.py:attr", "there is no file 'no/such/file.py'"),
        ("math:pi", "neither an optimizer class of torch or Keras, nor"),
        ("os:getcwd", "no parameter for the learning rate"),
    ],
)
def test_targets_that_cannot_be_used(target, text):
    with pytest.raises(TargetError, match=text):
        as_port(target)


def test_targets_that_fail_to_import(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "breaks_here.py").write_text("1 / 0")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "needs_torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    with pytest.raises(TargetError, match="breaks_here failed to import: ZeroDivisionError: division by zero"):
        find_target("breaks_here:x")
    with pytest.raises(TargetError, match="leaves failed to import: SystemExit: 0"):
        find_target("leaves:x")
    with pytest.raises(TargetError, match=r"breaks_here.py failed to import"):
        find_target("breaks_here.py:x")
    with pytest.raises(MissingDependencyError, match=r"needs torch, which is not installed: pip install torch==2.13.0"):
        find_target("needs_torch:x")


def test_a_port_class_is_found_by_name():
    assert as_port("helpers.toy_port:ToyPort").name == "toy"


def test_names_of_options_are_mapped():
    def factory(rate, eta_fn, weight_decay=0.1, momentum=0.9, **ignored):
        raise AssertionError

    port = as_port(factory, {"learning_rate": "rate", "extra_l2": "weight_decay"})
    assert port.options == {"learning_rate", "eta", "extra_l2", "momentum"}
    assert port.signature.keywords({"learning_rate": 1.0}) == {"rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    with pytest.raises(TargetError, match="the port has no parameter 'nope'"):
        as_port(factory, {"learning_rate": "nope"})
    with pytest.raises(TargetError, match="'speed' is not one of learning_rate"):
        as_port(factory, {"speed": "rate"})


def test_unknown_suite():
    with pytest.raises(TargetError, match="suite is 'half'"):
        amos_ref.conformance.check(ToyPort(), suite="half")
