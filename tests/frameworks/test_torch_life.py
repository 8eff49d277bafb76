"""The life of a torch optimizer: two right ports conform in every case, and each wrong one is named."""

import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.life import is_life
from amos_ref.conformance.ports.target import load_port
from amos_ref.conformance.ports.torch_life import EVENTS

torch = pytest.importorskip("torch")
torch_amos = pytest.importorskip("helpers.torch_amos")

FEW = [case for case in table() if case.dtype == "float64"]
FEW = [case for case in FEW if is_life(case) or case.name in ("plain", "none-at-first", "schedule", "warm-up")]
FEW = [case for case in FEW if set(case.events.values()) <= {*EVENTS, "two-at-once"}]  # not those of other frameworks


def verdicts(cls):
    results, seen = run(load_port(cls, {}), FEW)
    return {r.case: r for r in results}, seen


@pytest.mark.parametrize("name", ["Amos", "ForeachAmos"])
def test_right_ports_conform_throughout_their_lives(name):
    found, _ = verdicts(getattr(torch_amos, name))
    lacking = {case for case, r in found.items() if r.verdict == "not supported"}
    assert {r.verdict for r in found.values()} == {"conforms", "not supported"}
    paths = {"foreach", "fused", "capturable", "differentiable"} - ({"foreach"} if name == "ForeachAmos" else set())
    assert lacking == {f"life-{path}{more}" for path in paths for more in ("", "-momentum")} | {"life-gradients-sparse"}
    assert "does not support sparse gradients" in found["life-gradients-sparse"].detail


@pytest.mark.parametrize("cls", torch_amos.WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_port_is_caught_and_named(cls):
    found, seen = verdicts(cls)
    assert any(r.verdict == "departs" for r in found.values())
    said = diagnose(load_port(cls, {}), seen)
    assert said is not None
    assert {*said.deviations, *said.life} == torch_amos.WRONG[cls]


def test_complex_gradients_have_one_of_two_means_and_no_other():
    found, seen = verdicts(torch_amos.Modulus)
    assert found["life-parameters-complex"].verdict == "conforms"
    assert "|g|^2" in found["life-parameters-complex"].detail
    assert diagnose(load_port(torch_amos.Modulus, {}), seen) is None
    assert verdicts(torch_amos.Squares)[0]["life-parameters-complex"].verdict == "departs"
