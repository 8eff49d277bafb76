"""Reports that several test files look at, made once; and a diagnosis that gives up soon."""

import importlib

import pytest
from helpers.toy_port import OPTIONS, Settable, ToyPort

from amos_ref.conformance import check


@pytest.fixture(scope="session")
def right():
    """A right port that can be started from a state."""
    return check(Settable())


@pytest.fixture(scope="session")
def adamw():
    """A right port that moves theta as AdamW is usually written."""
    return check(Settable(form="adamw"))


@pytest.fixture(scope="session")
def departing():
    """The sign of extra_l2 is wrong."""
    return check(ToyPort("extra_l2 sign"))


@pytest.fixture(scope="session")
def mixed():
    """It conforms, departs and lacks an option."""
    return check(ToyPort("extra_l2 sign", OPTIONS - {"clip_value"}))


@pytest.fixture(scope="session")
def installation():
    """The check of this installation."""
    return check()


@pytest.fixture
def short_diagnosis(monkeypatch):
    """A diagnosis that soon gives up, for what no deviations explain: looking for them takes seconds."""
    for name in ("BUDGET", "BUDGET_BESIDE"):
        monkeypatch.setattr(importlib.import_module("amos_ref.conformance.diagnosis.diagnose"), name, 2_000)
