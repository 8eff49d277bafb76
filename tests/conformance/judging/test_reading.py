"""Readings: the page's own numbers when nothing is overridden, other numbers for every deviation."""

import numpy as np
import pytest

from amos_ref import Amos
from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.judging.reading import STATE, Reading

CASES = [case for case in table() if case.dtype == "float64" and case.inject is None]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_page_read_stage_by_stage_has_the_bits_of_amos(case):
    rates = case.learning_rates()
    options = {name: x for name, x in case.options.items() if name != "learning_rate"}
    opt = Amos(lambda t: rates[t - 1], lambda n, s: case.eta[n], lambda n, s: case.slots[n], backend="numpy", **options)
    params = {name: a.copy() for name, a in case.params.items()}
    state = opt.init(params)
    for grads, now in zip(case.grads, Reading().run(case, case.eta), strict=True):
        state = opt.step(params, grads, state)
        for name, step in now.items():
            held = {"theta": params, "v": state.v, "b": state.b, "m": state.m or {name: None}}
            for what in STATE:
                ref, got = held[what][name], getattr(step, what)
                assert got is ref or np.array_equal(ref, got), (what, name)


def shown(case, *names):
    """Everything that a run shows of theta, v, b and m."""
    overrides = [CATALOGUE[name].overrides for name in names]
    return [
        {(name, what): getattr(step, what) for name, step in now.items() for what in STATE}
        for now in Reading(overrides).run(case, case.eta)
    ]


def differ(one, other):
    return any(
        a.keys() != b.keys() or any(not np.array_equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_deviation_shows_in_some_case(name):
    assert any(differ(shown(case), shown(case, name)) for case in CASES)


def test_no_two_deviations_are_one():
    answers = {name: [shown(case, name) for case in CASES] for name in CATALOGUE}
    names = list(CATALOGUE)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert any(differ(a, b) for a, b in zip(answers[one], answers[other], strict=True)), (one, other)


def test_deviations_combine():
    case = next(case for case in CASES if case.name == "extra_l2")
    both = shown(case, "extra_l2-sign", "extra_l2-halved")
    assert not differ(both, shown(case, "extra_l2-halved", "extra_l2-sign"))
    for alone in ("extra_l2-sign", "extra_l2-halved"):
        assert differ(both, shown(case, alone))


def test_the_catalogue_is_large_and_in_words():
    assert len(CATALOGUE) >= 40
    for deviation in CATALOGUE.values():
        assert deviation.does[0].islower() or deviation.does[:2] in ("v ", "m ", "b ", "c ", "d "), deviation.name
        assert not deviation.effect.endswith("."), deviation.name


def test_the_bound_refuses_to_speak_where_it_would_not_hold():
    from amos_ref.conformance.judging.bound import Unbounded
    from amos_ref.conformance.judging.tolerance import trajectory

    small = {"q": lambda s, page: 1e-16}  # of the size of its own rounding error
    with pytest.raises(Unbounded):
        list(trajectory(CASES[0], CASES[0].eta, Reading([small])))
