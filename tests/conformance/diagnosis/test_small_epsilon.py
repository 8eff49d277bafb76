"""Names of epsilon hold where gradients are as small as it is, and the note on float32 is said of float32 alone."""

import importlib

import numpy as np
import pytest
from conformance.diagnosis.test_search import DOUBLE, Without, diagnosed

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.catalogue import reading_of
from amos_ref.conformance.diagnosis.diagnose import SINGLE
from amos_ref.conformance.diagnosis.lives import is_special
from tools.simulated_port import SimulatedPort

module = importlib.import_module("amos_ref.conformance.diagnosis.diagnose")
FLOAT32 = [case for case in table() if case.dtype == "float32" and not is_special(case)]


def both(s, page):
    """Both an epsilon that is added and a least value."""
    return s.q / np.maximum(s.v + 1e-12, s.epsilon)


def added(s, page):
    return s.q / (s.v + 1e-12)


def test_an_epsilon_that_is_added_is_no_least_value():
    found = diagnosed(Without("epsilon", r=added), FLOAT32)
    assert found.deviations == ["epsilon-added", "epsilon-default-1e-12"]


@pytest.mark.parametrize("cases", [DOUBLE, FLOAT32], ids=["float64", "float32"])
def test_an_epsilon_that_is_added_beside_one_that_is_none_has_no_name(cases):
    assert diagnosed(Without(r=both), cases).deviations == []


def test_without_small_gradients_it_would_have_a_wrong_one(monkeypatch):
    monkeypatch.setattr(module, "_hold_near_epsilon", lambda attempt, candidates, confirming: candidates)
    assert diagnosed(Without("epsilon", r=added), FLOAT32).deviations == ["epsilon-default-1e-12"]


@pytest.mark.parametrize("name", ["epsilon-default-1e-18", "epsilon-default-1e-30"])
def test_where_float32_has_no_squares_of_gradients_nothing_is_decided(name, monkeypatch):
    """Gradients of 1e-18 have squares of 1e-36, some of them too small for a bound: the check ended with Unbounded."""
    assert diagnosed(SimulatedPort(name, seed=7), FLOAT32).deviations == [name]
    monkeypatch.setattr(module, "is_bounded", lambda case, etas: True)
    assert diagnosed(SimulatedPort(name, seed=7), FLOAT32).deviations == []


def test_a_change_that_is_tiny_is_not_called_float32(monkeypatch):
    port = Without(d=lambda s, page: page(s) * (1 - 1e-10 * s.count))
    assert SINGLE not in diagnosed(port).text
    monkeypatch.setattr(module, "_is_single", lambda one, reading: True)
    assert SINGLE in diagnosed(port).text


def test_an_epsilon_that_is_ignored_is_the_default_also_where_it_is_set():
    case = next(case for case in DOUBLE if case.options.get("epsilon", 1e-300) > 1e-3)
    steps = reading_of(("epsilon-ignored", "epsilon-default-1e-20")).run(case, case.eta)
    assert {float(step.epsilon) for step in next(steps).values()} == {1e-20}
    steps = reading_of(("epsilon-default-1e-20",)).run(case, case.eta)
    assert {float(step.epsilon) for step in next(steps).values()} == {case.options["epsilon"]}
