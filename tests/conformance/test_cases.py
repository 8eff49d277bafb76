"""The table of cases: the same in every call, read-only, in numbers that float32 holds, and not degenerate."""

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.cases import random_case
from amos_ref.conformance.ports.port import ALIASES
from amos_ref.dtypes import dtype_of

CASES = table()


def arrays(case):
    parts = (case.params, *case.grads, *(case.inject or {}).values())
    return [a for part in parts for a in part.values() if a is not None]


def test_a_case_is_known_by_its_name_and_dtype():
    assert len({(case.name, case.dtype) for case in CASES}) == len(CASES)
    assert table() == CASES
    assert table() is not CASES  # a list of one's own
    assert CASES[0] != CASES[0]._replace()
    assert len({*CASES, *table()}) == len(CASES)


def test_nobody_can_change_a_case():
    for case in CASES:
        for a in arrays(case):
            with pytest.raises(ValueError, match="read-only"):
                a[...] = 0.0


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}/{case.dtype}")
def test_its_dtype_holds_its_numbers(case):
    for a in [*case.params.values(), *(g for grads in case.grads for g in grads.values() if g is not None)]:
        np.testing.assert_array_equal(a.astype(dtype_of(case.dtype)).astype(np.float64), a)
    assert not {1.0} & {*case.learning_rates(), *case.eta.values()}


def test_further_cases_are_drawn_from_their_seed():
    for seed in range(20):
        one, same = (random_case(seed, tuple(ALIASES)) for _ in range(2))
        assert (one.options, one.eta, one.slots) == (same.options, same.eta, same.slots)
        assert all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(same), strict=True))
        few = random_case(seed, ("learning_rate", "eta"))
        assert set(few.options) == {"learning_rate", "beta"}
        assert not any(few.slots.values())
