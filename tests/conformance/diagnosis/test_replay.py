"""Places that are computed on their own give the numbers of a whole run, or say that they do not stand alone."""

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis import fit, replay
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.diagnosis.factors import OFFSETS, TARGETS
from amos_ref.conformance.judging.drive import observe
from tools.simulated_port import SimulatedPort

DOUBLE = {case.name: case for case in table() if case.dtype == "float64"}


def places(port, case, names=()):
    held = Evidence([observe(port, DOUBLE[case])])
    return held, fit._points(held, names, 0)


def solved(held, target, names, points):
    return [(k, step.name, step.count) for k, step in fit._solve(held, target, names, points, 1.0)]


SOME = [*(TARGETS[name] for name in ("g", "v", "gamma", "d", "alpha", "m")), OFFSETS["v_start"]]


@pytest.mark.parametrize("target", SOME, ids=lambda target: target.words)
@pytest.mark.parametrize("case", ["decayed", "momentum"])
def test_what_is_solved_for_is_the_same_to_the_bit(target, case):
    held, points = places(SimulatedPort("alpha-times-0.9*xi^-1", seed=5), case)
    assert points.apart
    alone, whole = (solved(held, target, (), points._replace(apart=apart)) for apart in (True, False))
    assert alone == whole
    assert alone or target is not TARGETS["alpha"]


def test_a_reading_that_remembers_is_run_as_a_whole(monkeypatch):
    names, port = ("v-largest",), SimulatedPort("v-largest", "alpha-times-eta", seed=5)
    held, points = places(port, "decayed", names)
    assert not points.apart
    right = solved(held, TARGETS["alpha"], names, points)
    monkeypatch.setattr(replay, "take", lambda stages, step: vars(step).update(dict.fromkeys(stages, np.float64(1.0))))
    assert right
    assert solved(held, TARGETS["alpha"], names, points) == right  # nothing was replayed
    assert solved(held, TARGETS["alpha"], names, points._replace(apart=True)) != right


def test_a_momentum_that_takes_the_other_sign_is_no_place_apart():
    _, points = places(SimulatedPort("delta-times-0.5", seed=5), "momentum")
    there = {place: points.steps[place] for place in points.got}
    factors = [{"m": lambda s, page, k=k: k * page(s)} for k in (2.0, -2.0)]
    same, other = (replay.Replay([], factor, "theta", there, points.seen) for factor in factors)
    assert same.at(max(points.got)) is not None
    assert other.at(max(points.got)) is None


def test_a_state_that_is_not_shown_is_no_place_apart():
    port = SimulatedPort("alpha-times-eta", seed=5, shows=("v", "b"))
    one = observe(port, DOUBLE["momentum"])
    steps = fit._run(Evidence([one]), Evidence([one]).reading_of(()), one, len(one.shown))
    assert not replay.are_apart(one, steps, 1)
    assert replay.are_apart(one, steps, len(one.shown))  # the last step is nobody's start
    whole = observe(SimulatedPort("alpha-times-eta", seed=5), DOUBLE["momentum"])
    assert replay.are_apart(whole, steps, 1)
