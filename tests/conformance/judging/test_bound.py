"""The bound: right ports come near to it, wrong ones beyond it, and it is not given where it would not hold."""

import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import check, table
from amos_ref.conformance.judging.bound import Unbounded
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.judging.tolerance import trajectory


def test_the_bound_is_not_slack(right, adamw):
    """Some right evaluation comes within a factor of 10 of the bound in each precision."""
    results = right.results + adamw.results
    for dtype in ("float64", "float32"):
        assert max(r.ratio or 0.0 for r in results if r.dtype == dtype) > 0.1


def test_b_that_loses_a_small_gamma_is_refused():
    """(1 + b)(1 + gamma) - 1 in float32 keeps b at 0 where xi^2 is small."""

    class Cancelling(ToyPort):
        def change(self, name, g, xi, eta):
            old = self.b[name]
            delta = super().change(name, g, xi, eta)
            one = self.f(1)
            gamma = (self.b[name] - old) / (one + old)
            self.b[name] = ((one + old) * (one + gamma) - one).astype(self.f)
            return delta

    departing = {(r.case, r.dtype) for r in check(Cancelling()).results if r.verdict == "departs" or "b is" in r.detail}
    assert ("defaults", "float32") in departing


def test_the_bound_refuses_to_speak_where_it_would_not_hold():
    small = {"q": lambda s, page: 1e-16}  # of the size of its own rounding error
    with pytest.raises(Unbounded):
        list(trajectory(table()[0], table()[0].eta, Reading([small])))
