"""Other algorithms than paper Amos: each is recognised, none with a mistake of its own, and nothing that is Amos."""

import numpy as np
import pytest
from helpers import other_algorithms as other

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis import recognise as module
from amos_ref.conformance.diagnosis.recognise import recognise
from amos_ref.conformance.diagnosis.variants import OTHER_ALGORITHMS
from amos_ref.conformance.judging.judge import run
from tools.simulated_port import SimulatedPort

NAMES = (
    *("plain", "decayed", "extra_l2", "momentum", "schedule", "none-gradient", "zeros-follow", "3-d", "slots-rows"),
    *("tiny-gradients", "clip", "aged"),
)


def seen_of(port, dtype="float64", eta="0.25"):
    cases = [case for case in table() if case.dtype == dtype and case.name in NAMES]
    return run(port, cases, None if "eta" in port.options else eta)[1]


RIGHT = {
    "adam_with_amos:": other.port(other.adam_with_amos),
    "reduced_amos:": other.port(other.reduced_amos),
    "beta1 0.9 in every case": other.port(other.reduced_with_fixed_beta1),
    "sigma from eta, inverse-time, half life 250": other.port(other.closed_form),
    "the sign of the gradient as direction, inverse-square, p 0 0.5": other.port(other.closed_form_with_sign),
    "AdamW:": other.port(other.adam_w),
    "Adam:": other.port(other.adam_w, decay=0.0),
    "SGD:": other.port(other.sgd),
}


@pytest.mark.parametrize("said", RIGHT)
def test_an_algorithm_is_recognised(said):
    text = recognise(seen_of(RIGHT[said]))
    assert text is not None
    assert text.startswith("this is not paper Amos but ")
    assert said in text
    assert "float32's bounds" not in text


@pytest.mark.parametrize("said", ["reduced_amos:", "AdamW:"])
def test_so_it_is_in_float32(said):
    found = next(port for key, port in RIGHT.items() if said in key)
    assert said in (recognise(seen_of(found, "float32")) or "")


WRONG = {
    "m debiased": other.port(other.adam_with_amos, wrong="debiased"),
    "clock with another seed": other.port(other.reduced_amos, wrong="seed"),
    "another q": other.port(other.closed_form, q=2.0),
    "Adam without the correction of m": other.port(other.adam_w, plain=True),
    "a decay that nobody has as default": other.port(other.adam_w, decay=0.05),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_with_a_mistake_of_its_own_it_is_nothing_known(mistake):
    assert recognise(seen_of(WRONG[mistake])) is None


def test_what_a_port_leaves_out_is_said():
    text = recognise(seen_of(other.port(other.adam_with_amos, wrong="untamed")))
    assert "no clipping by nu" in (text or "")


@pytest.mark.parametrize(
    "names", [(), ("clip-ignored",), ("bias-twice",), ("d-absent", "c-absent"), ("sign-of-gradient",)]
)
def test_paper_amos_is_nothing_else(names):
    assert recognise(seen_of(SimulatedPort(*names))) is None


def test_a_port_that_never_moves_is_nothing():
    still = [
        one._replace(shown=[{"theta": dict(one.case.params)}] * len(one.shown)) for one in seen_of(SimulatedPort())
    ]
    assert recognise(still) is None
    assert recognise([]) is None


def test_one_case_that_does_not_fit_is_enough(monkeypatch):
    seen, others = seen_of(RIGHT["AdamW:"]), seen_of(RIGHT["SGD:"])
    i = next(i for i, one in enumerate(seen) if one.case.name == "3-d")
    seen[i] = next(one for one in others if one.case.name == "3-d")
    assert recognise(seen) is None
    # The wrong version: a case that does not fit passes for one that could not be decided.
    fits = module._fits
    settings = {"momentum": (0.9,), "epsilon": (1e-8,), "place": ("behind",), "decay": (("decoupled", 0.01),)}
    variant = next(v for v in OTHER_ALGORITHMS if v.name == "AdamW")
    monkeypatch.setattr(module, "OTHER_ALGORITHMS", (variant._replace(settings=settings),))
    monkeypatch.setattr(module, "_is_near", lambda *args: True)
    monkeypatch.setattr(module, "_fits", lambda *args: fits(*args) or None)
    assert "AdamW" in (recognise(seen) or "")


def test_a_port_that_computes_in_float32_is_said_to_be_near():
    def rounded(one):
        shown = [{"theta": {k: np.float64(np.float32(a)) for k, a in now["theta"].items()}} for now in one.shown]
        return one._replace(shown=shown)

    text = recognise([rounded(one) for one in seen_of(RIGHT["AdamW:"])])
    assert "AdamW" in (text or "")
    assert "in float32's bounds" in (text or "")


def test_what_cannot_be_decided_is_no_agreement(monkeypatch):
    seen = seen_of(RIGHT["SGD:"])
    monkeypatch.setattr(module, "_fits", lambda *args: None)
    assert recognise(seen) is None
