"""Tolerances: those of the page are computed once for a case, and never taken for another's."""

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.judging.tolerance import trajectory, trajectory_of_page

CASES = [case for case in table() if case.name in ("plain", "momentum", "aged-rest")]

QUANTITIES = PAPER_AMOS.quantities


def numbers(moments):
    return [
        {name: (*(getattr(m.step, what) for what in QUANTITIES), *m.allowed.values()) for name, m in now.items()}
        for now in moments
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}/{case.dtype}")
def test_the_pages_trajectory_is_computed_once(case):
    once = trajectory_of_page(case, case.eta)
    assert trajectory_of_page(case, dict(case.eta)) is once
    np.testing.assert_equal(numbers(once), numbers(trajectory(case, case.eta, Reading())))


def test_another_case_or_eta_has_another_trajectory():
    case = table()[0]
    once = trajectory_of_page(case, case.eta)
    assert trajectory_of_page(case, dict.fromkeys(case.eta, 0.125)) is not once
    assert trajectory_of_page(case._replace(options=case.options | {"beta": 0.5}), case.eta) is not once
    assert trajectory_of_page(case._replace(), case.eta) is not once  # a copy may be changed later


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}/{case.dtype}")
def test_every_number_that_can_be_off_may_be_off_a_little(case):
    for now in trajectory_of_page(case, case.eta):
        for moment in now.values():
            assert set(moment.allowed) >= {what for what in QUANTITIES if getattr(moment.step, what) is not None}
            for what, allowed in moment.allowed.items():
                if (value := getattr(moment.step, what)) is not None:
                    assert (allowed >= 0).all()
                    assert np.isfinite(allowed).all()
                    assert (allowed[value != 0] > 0).all() or what == "theta", what
