"""Which of the two terms of a change of theta is right, whatever the other is."""

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.diagnosis.lives import is_special
from amos_ref.conformance.diagnosis.terms import count_right_terms
from amos_ref.conformance.judging.drive import observe
from amos_ref.conformance.judging.tolerance import trajectory_of_page
from tools.simulated_port import SimulatedPort

CASES = {case.name: case for case in table() if case.dtype == "float64" and not is_special(case)}


def right_terms(name, case):
    """Return how many terms of the page's first change are right beside a port with a deviation."""
    one = observe(SimulatedPort(name), CASES[case])
    now = next(iter(trajectory_of_page(one.case, one.etas)))
    return count_right_terms(now, one.shown[0]["theta"], {}, 1.0)


@pytest.mark.parametrize("case", ["plain", "slots-rows", "slots-columns", "aged"])
def test_the_term_that_is_wrong_is_not_counted(case):
    assert right_terms("gamma-whole", case) == 1  # alpha is right
    assert right_terms("eta-not-in-step", case) == 1  # rho is right


def test_both_terms_wrong_and_a_change_of_another_form():
    both = SimulatedPort("gamma-whole", "eta-not-in-step")
    one = observe(both, CASES["plain"])
    now = next(iter(trajectory_of_page(one.case, one.etas)))
    theta = one.shown[0]["theta"]
    assert count_right_terms(now, theta, {}, 1.0) == 0
    # Not a number times the gradient and another one times theta.
    odd = {name: moment.step.theta + 0.01 * np.cos(np.arange(theta[name].size)).reshape(theta[name].shape)
           for name, moment in now.items()}  # fmt: skip
    assert count_right_terms(now, odd, {}, 1.0) == 0


def test_slots_of_few_entries_say_nothing():
    """One number explains one entry, whatever it is: both terms would be called right."""
    assert right_terms("gamma-whole", "slots-element") == 0


def test_a_momentum_moves_theta_by_no_such_terms():
    assert right_terms("gamma-whole", "momentum") == 0


def test_that_a_term_is_right_counts_as_nearer():
    one = observe(SimulatedPort("gamma-whole", "new-b-in-d"), CASES["plain"])
    evidence = Evidence([one])
    before, after = (evidence.misfit(names, 0) for names in ((), ("new-b-in-d",)))
    assert before is not None
    assert after is not None
    assert before[:2] == after[:2] == (1, "theta")
    assert evidence.place(before) < evidence.place(after)
