"""The catalogue: every deviation shows, no two are one, and they combine."""

import functools

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.judging.reading import STATE, Reading

CASES = [case for case in table() if case.dtype == "float64" and case.inject is None]


@functools.cache
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
