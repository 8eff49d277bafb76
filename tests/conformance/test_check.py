"""check(): a right port conforms, a wrong one does not, and what cannot be checked is a named error."""

import json

import pytest
from helpers import bad_ports
from helpers.toy_port import OPTIONS, Settable, ToyPort

import amos_ref
from amos_ref.conformance import check, table
from amos_ref.errors import TargetError

CASES = [case for case in table() if case.dtype in ("float64", "float32")]  # those of a port that does not tell
DRIVEN = [case for case in CASES if not case.events]  # the toy port does not undergo anything


def test_a_right_port_conforms_on_every_case(right):
    assert right.ok
    assert right.counts() == {"conforms": len(DRIVEN), "not supported": len(CASES) - len(DRIVEN)}


def test_the_way_adamw_is_written_conforms(adamw):
    assert adamw.ok


def test_state_kept_in_a_form_of_its_own_is_no_departure():
    class Own(ToyPort):
        def state(self):
            return {"b": {name: 1.0 + b for name, b in self.b.items()}}

    report = check(Own(), suite="quick")
    assert report.ok
    assert "theta conforms; the port's b is something else than ours" in report.results[0].detail
    assert not check(type("Wrong", (Own,), {})("c with xi"), suite="quick").ok


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
    settable = {c.name for c in CASES if c.inject or c.events or c.count}
    assert set(lacking) == settable | {c.name for c in CASES if c.needs() & {"slot_shape", "clip_value"}}


def test_a_port_without_beta_is_run_with_0_999():
    class Fixed(Settable):
        def init(self, params, hyper):
            super().init(params, {name: x for name, x in hyper.items() if name != "beta"})

    assert check(Fixed(options=OPTIONS - {"beta"})).counts()["conforms"] == len(DRIVEN)


def test_a_port_that_never_starts_is_a_named_error():
    class Stuck(ToyPort):
        def init(self, params, hyper):
            raise TypeError("missing 1 required argument: 'speed'")

    with pytest.raises(TargetError, match="toy could not be started on any case: TypeError: missing 1 required"):
        check(Stuck(), suite="quick")


def test_eta_that_the_port_hard_codes_is_given_or_asked_for(short_diagnosis):
    class Hard(ToyPort):
        def init(self, params, hyper):
            super().init(params, hyper | {"eta": dict.fromkeys(params, 0.75)})

    options = OPTIONS - {"eta"}
    assert check(Hard(options=options), suite="quick", eta=0.75).ok
    assert not check(Hard(options=options), suite="quick", eta="3/8").ok
    with pytest.raises(
        TargetError, match=r"toy takes no eta .* ask: --eta RULE .* closed form.*: --algorithm closed-form$"
    ):
        check(Hard(options=options), suite="quick")


def test_report_is_plain_data_and_reads_well():
    report = check(bad_ports.Drifting(), suite="quick")
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert again["ok"] is False
    assert again["results"][0]["ratio"] == "inf"
    lines = str(report).splitlines()
    assert lines[0].split() == ["case", "dtype", "verdict", "first", "departs", "at", "details"]
    assert lines[-1] == report.summary()
    assert lines[-1].startswith(f"toy: {report.counts()['not finite']} not finite")
    assert not any(line != line.rstrip() for line in lines)


def test_unknown_suite():
    with pytest.raises(TargetError, match="suite is 'half'"):
        amos_ref.conformance.check(ToyPort(), suite="half")
