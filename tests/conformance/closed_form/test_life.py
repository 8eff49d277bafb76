"""The life of an optimizer of the closed form: a right one goes on as if nothing had happened, a wrong one shows."""

import re

import pytest
from helpers import ROOT

from amos_ref import closed_form
from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.closed_form.life import LIVES
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


def test_what_is_left_out_is_said_in_the_document():
    text = (ROOT / "docs" / "life.md").read_text(encoding="utf-8")
    reasons = text[text.index("## The closed form") : text.index("## A port of your own")]
    left_out = {"momentum-on", "lr-tensor", "lr-scheduler", "inject_hyperparams"}
    assert {f"life-{name}" for name in left_out} <= set(re.findall(r"`(life-[\w-]+)`", reasons))
    assert not left_out & {case.name.removeprefix("life-") for case in CASES}
