"""The life of an optimizer of the closed form: a right one goes on as if nothing had happened, a wrong one shows."""

import re

import numpy as np
import pytest
from helpers import ROOT

from amos_ref import closed_form
from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.closed_form.life import LIVES
from amos_ref.conformance.diagnosis.catalogue import KNOWN, reading_of
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.life import is_life
from tools.simulated_port import SimulatedPort

CASES = [case for case in CLOSED_FORM.table() if is_life(case)]


def departing(*overrides):
    port = SimulatedPort(seed=3, algorithm="closed-form")
    port.overrides = list(overrides)
    return {r.case.removeprefix("life-") for r in run(port, CASES)[0] if r.verdict != "conforms"}


def test_a_right_port_undergoes_everything():
    assert departing() == set()


def happened(s, event):
    return any(name == event and after < s.count for after, name in s.events.items())


def again(event):
    """The mistake: sigma is measured again after an event."""

    def measure(s, page):
        return closed_form.initial_sigma(s.old_theta) if "sigma" in s.asked and happened(s, event) else page(s)

    return {"sigma": measure}


def restarts(event):
    """The mistake: t is 0 again."""
    return {"t": lambda s, page: page(s) - 3 if happened(s, event) else page(s)}


@pytest.mark.parametrize("event", ["state_dict", "pickle", "deepcopy"])
def test_what_is_lost_on_the_way_shows(event):
    assert departing(again(event)) == {f"{event}-sigma"}
    assert departing(restarts(event)) == {event, *(f"{event}-{name}" for name, _, _ in LIVES.kept)}


def test_options_of_groups_that_are_ignored_show():
    ignored = {name: lambda s, page, name=name: s.options_of[None][name] for name in ("alpha_0", "half_life", "q")}
    assert departing(ignored) == {name for name, *_ in LIVES.groups}


NAMES = [name for name, deviation in KNOWN["closed-form"].catalogue.items() if deviation.stage == "life"]
FEW = [*CASES, *(c for c in CLOSED_FORM.table() if c.dtype == "float64" and c.name in ("plain", "none-at-first"))]


# Some of each kind, since each takes a check of its own.
@pytest.mark.parametrize(
    "name",
    [
        "state-dict-loses-state",
        "pickle-measures-sigma-anew",
        "deepcopy-restarts",
        "groups-options-first",
        "loaded-state-dict-keeps-half_life",
        "foreach-along-the-gradient",
        "count-outside-the-state",
        "state-follows-order",
    ],
)
def test_a_deviation_of_a_life_is_named(name):
    port = SimulatedPort(name, algorithm="closed-form")
    results, seen = run(port, FEW)
    wrong = {result.case for result in results if result.verdict != "conforms"}
    assert wrong
    assert wrong <= {case.name for case in CASES if KNOWN["closed-form"].catalogue[name].only(case)}
    found = diagnose(port, seen)
    assert found is not None
    assert found.deviations == [name]


@pytest.mark.parametrize("name", ["pickle-loses-count", "deepcopy-measures-sigma-anew", "fused-without-decay"])
def test_what_the_catalogue_lacks_gets_no_other_name(name, monkeypatch):
    """Without pickle-loses-count its port was said to restart, though sigma and Adam's moments were not lost."""
    port, cases = SimulatedPort(name, algorithm="closed-form"), FEW
    seen = run(port, cases)[1]
    known = KNOWN["closed-form"]
    fewer = {other: d for other, d in known.catalogue.items() if other != name}
    monkeypatch.setitem(KNOWN, "closed-form", known._replace(catalogue=fewer))  # delitem would put it back as the last
    found = diagnose(port, seen)
    assert found is not None
    assert (found.deviations, found.life) == ([], [])
    assert "no known deviation explains" in found.text


def test_a_count_that_turned_negative_is_read():
    """A counter of 8 bits is tried on a recurrence of a thousand steps: it ended the check by an IndexError."""
    case = next(c for c in CLOSED_FORM.table() if c.dtype == "float64" and c.name == "late-recurrence")
    last = list(reading_of(("count-int8",), "closed-form").run(case, case.eta))[-1]
    assert last["kernel"].t < 0
    assert np.isfinite(last["kernel"].theta).all()


def test_every_deviation_of_a_life_shows_and_differs_from_the_others():
    def numbers(case, *names):
        steps = (s for now in reading_of(names, "closed-form").run(case, case.eta) for s in now.values())
        return b"".join(np.asarray(getattr(s, what)).tobytes() for s in steps for what in CLOSED_FORM.quantities)

    answers = {name: tuple(numbers(case, name) for case in CASES) for name in NAMES}
    assert tuple(map(numbers, CASES)) not in answers.values()
    assert len(set(answers.values())) == len(NAMES)


def test_what_is_left_out_is_said_in_the_document():
    text = (ROOT / "docs" / "life.md").read_text(encoding="utf-8")
    reasons = text[text.index("## The closed form") : text.index("## A port of your own")]
    left_out = {"momentum-on", "lr-tensor", "lr-scheduler", "inject_hyperparams"}
    assert {f"life-{name}" for name in left_out} <= set(re.findall(r"`(life-[\w-]+)`", reasons))
    assert not left_out & {case.name.removeprefix("life-") for case in CASES}
