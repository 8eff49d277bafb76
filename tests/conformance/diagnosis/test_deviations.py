"""The catalogue: every deviation shows, no two are one, and they combine."""

import collections
import functools

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.diagnosis.catalogue import CATALOGUE
from amos_ref.conformance.judging.reading import Reading

CASES = [case for case in table() if case.dtype == "float64" and case.inject is None]
NAN_V = next(case for case in table() if case.name == "nan-v")


@functools.cache
def numbers(case, *names):
    """All numbers that a run shows in theta, v, b and m, in one array."""
    overrides = [CATALOGUE[name].overrides for name in names]
    shown = [
        np.ravel(getattr(step, what))
        for now in Reading(overrides).run(case, case.eta)
        for step in now.values()
        for what in PAPER_AMOS.quantities
        if getattr(step, what) is not None
    ]
    return np.concatenate(shown)


def differ(one, other):
    return not np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_deviation_shows_in_some_case(name):
    cases = [NAN_V] if name == "nan-dropped-by-max" else CASES
    assert any(differ(numbers(case), numbers(case, name)) for case in cases)


def test_no_two_deviations_are_one():
    alike = [list(CATALOGUE)]
    for case in CASES:
        groups = []
        for names in alike:
            by = collections.defaultdict(list)
            for name in names:
                answer = numbers(case, name) + 0.0  # -0 is 0
                answer[np.isnan(answer)] = np.nan  # one NaN is as another
                by[answer.tobytes()].append(name)
            groups += [group for group in by.values() if len(group) > 1]
        alike = groups
    assert alike == []


def test_deviations_combine():
    case = next(case for case in CASES if case.name == "extra_l2")
    both = numbers(case, "extra_l2-sign", "extra_l2-halved")
    assert not differ(both, numbers(case, "extra_l2-halved", "extra_l2-sign"))
    for alone in ("extra_l2-sign", "extra_l2-halved"):
        assert differ(both, numbers(case, alone))


def test_the_catalogue_is_large_and_in_words():
    assert len(CATALOGUE) >= 40
    for deviation in CATALOGUE.values():
        assert deviation.does[0].islower() or deviation.does[:2] in ("v ", "m ", "b ", "c ", "d "), deviation.name
        assert not deviation.effect.endswith("."), deviation.name
