"""The diagnosis: every deviation by its own name, alone and combined, and no name where none fits."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.catalogue import CATALOGUE
from amos_ref.conformance.diagnosis.diagnose import _count, diagnose
from amos_ref.conformance.diagnosis.lives import is_special
from amos_ref.conformance.judging.judge import run
from tools.simulated_port import SimulatedPort

DOUBLE = [case for case in table() if case.dtype == "float64" and not is_special(case)]
OTHERWISE = {"state-float32"}  # with the float32 bounds everything fits: told as that


def diagnosed(port, dtype="float64"):
    results, seen = run(port, [case for case in table() if case.dtype == dtype and not is_special(case)])
    return results, diagnose(port, seen)


FORMULAS = [name for name, d in CATALOGUE.items() if d.only(DOUBLE[0])]  # the others have tests of their own


# Every third takes minutes less; nox -s matrix asks for the name of each.
@pytest.mark.parametrize("name", sorted(set(FORMULAS) - OTHERWISE)[::3])
def test_every_deviation_is_named_in_float64(name):
    results, found = diagnosed(SimulatedPort(name, seed=5))
    assert any(result.verdict == "departs" for result in results)
    assert found is not None
    assert found.deviations == [name]
    assert CATALOGUE[name].does in found.text
    assert CATALOGUE[name].effect in found.text


@pytest.mark.parametrize("seed", range(4))
def test_a_right_evaluation_is_not_diagnosed(seed):
    results, found = diagnosed(SimulatedPort(seed=seed))
    assert {result.verdict for result in results} == {"conforms"}
    assert found is None


@pytest.mark.parametrize(
    "names",
    [
        ("extra_l2-sign", "extra_l2-halved"),
        ("sum-for-mean", "d-without-eta"),
        ("c-with-xi", "momentum-debiased"),
        ("new-b-in-d", "clip-after-mean", "schedule-from-0"),
        # Neither shows without the other in most cases.
        ("epsilon-on-root", "epsilon-default-1e-08"),
        ("epsilon-added", "epsilon-default-1e-30"),
        # Sets that have a twin with one deviation more, which changes nothing, were followed in place of others.
        ("momentum-ignored", "epsilon-on-corrected", "epsilon-default-1e-30", "count-per-leaf"),
        # Each step fits where it starts from the state that the port shows, whose b is wrong.
        ("gamma-whole", "b-exponential"),
        # Both show in the first theta, which neither makes right alone.
        ("gamma-whole", "new-b-in-d"),
        # What was fitted left nothing to search with.
        ("variance", "mean-square-of-differences", "c-absent", "momentum-with-new-d"),
    ],
)
def test_combined_deviations_are_named(names):
    _, found = diagnosed(SimulatedPort(*names))
    assert found is not None
    assert set(found.deviations) == set(names)


def test_a_port_that_shows_no_state_is_diagnosed_from_theta():
    _, found = diagnosed(SimulatedPort("c-and-d-swapped", shows=()))
    assert found is not None
    assert found.deviations == ["c-and-d-swapped"]


def test_a_wrong_state_beside_theta_is_told_and_theta_diagnosed():
    class OwnForm(SimulatedPort):
        def state(self):
            return {what: {name: a + 1.0 for name, a in arrays.items()} for what, arrays in super().state().items()}

    _, found = diagnosed(OwnForm("gamma-whole"))
    assert found is not None
    assert found.deviations == ["gamma-whole"]
    assert "something else than ours" in found.text


def test_float32_arithmetic_is_told_apart_from_a_deviation():
    class Single(SimulatedPort):
        def init(self, params, hyper):
            super().init({name: a.astype(np.float32) for name, a in params.items()}, hyper)

    _, found = diagnosed(Single())
    assert found is not None
    assert found.deviations == []
    assert "float32" in found.text
    _, found = diagnosed(Single("gamma-whole"))
    assert found is not None
    assert found.deviations == ["gamma-whole"]
    assert "float32" in found.text


def test_a_departure_in_low_precision_alone_is_looked_up():
    cases = [case for case in table() if case.dtype == "bfloat16" and case.name in ("plain", "extra_l2", "aged-rest")]
    port = SimulatedPort("extra_l2-doubled")
    _, seen = run(port, cases)
    found = diagnose(port, seen)
    assert found is not None
    assert found.deviations == ["extra_l2-doubled"]


def test_what_no_deviation_explains_gets_no_name():
    class Odd(SimulatedPort):
        def step(self, grads):
            return {name: a * 1.03125 for name, a in super().step(grads).items()}

    _, found = diagnosed(Odd())
    assert found is not None
    assert (found.deviations, found.candidates, found.dialect) == ([], [], None)
    assert "no known set of deviations" in found.text
    assert "relative errors there: v 0, b 0, theta 0.031" in found.text


def test_candidates_are_told_apart_by_further_inputs(monkeypatch):
    """Without slots an array of one number has no axes to take a fan from; the port is run on inputs that have."""
    port = SimulatedPort("eta-fan-in")
    _, seen = run(port, [case for case in DOUBLE if case.name == "0-d"])
    found = diagnose(port, seen)
    assert found is not None
    assert found.deviations == ["eta-fan-in"]
    for name in ("FURTHER", "CONFIRMING"):
        monkeypatch.setattr(importlib.import_module("amos_ref.conformance.diagnosis.diagnose"), name, 0)
    left_open = diagnose(port, seen)
    assert left_open is not None
    assert left_open.deviations == []
    assert left_open.candidates == [["eta-ignored"], ["eta-fan-out"], ["eta-fan-in"]]
    assert left_open.text.startswith("one of 3 readings")


def test_a_diagnosis_is_plain_values():
    _, found = diagnosed(SimulatedPort("gamma-sign"))
    assert found is not None
    assert found.to_dict()["deviations"] == ["gamma-sign"]
    assert set(found.to_dict()) == {"text", "deviations", "candidates", "dialect", "nearest", "life"}


@pytest.mark.parametrize(
    ("decided", "words"),
    [
        ([True, True], "all 2 cases in float64"),
        ([True, False, True], "the 2 of 3 cases in float64 that could be decided"),
        ([True], "the one case in float64"),
    ],
)
def test_what_could_not_be_decided_is_not_counted_as_reproduced(decided, words):
    seen = [SimpleNamespace(case=DOUBLE[0])] * len(decided)
    evidence = SimpleNamespace(seen=seen, given=len(decided), decides=lambda names, i: decided[i])
    assert _count(evidence, ()) == words
