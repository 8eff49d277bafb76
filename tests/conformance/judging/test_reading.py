"""Readings: with nothing overridden, the numbers are the page's own."""

import numpy as np
import pytest

from amos_ref import Amos
from amos_ref.conformance import table
from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.judging.reading import Reading

CASES = [case for case in table() if case.dtype == "float64" and case.inject is None and not case.groups]
CASES = [case for case in CASES if not isinstance(case.options.get("momentum"), tuple)]  # Amos has one momentum
REFUSED = [case for case in CASES if case.first_not_finite() and "clip_value" not in case.options]
REFUSED += [case for case in CASES if case.name.startswith("nan") and "clip_value" in case.options]


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED], ids=lambda case: case.name)
def test_the_page_read_stage_by_stage_has_the_bits_of_amos(case):
    rates = case.learning_rates()
    options = {name: x for name, x in case.options.items() if name != "learning_rate"}
    opt = Amos(
        lambda t: rates[min(t, len(rates)) - 1],
        lambda n, s: case.eta[n],
        lambda n, s: case.slots[n],
        backend="numpy",
        **options,
    )
    params = {name: a.copy() for name, a in case.params.items()}
    state = opt.init(params)
    for grads, now in zip(case.grads, Reading().run(case, case.eta), strict=True):
        state = opt.step(params, grads, state)
        if state.count == 1 and case.count is not None:
            state = state._replace(count=case.count)
        for name, step in now.items():
            held = {"theta": params, "v": state.v, "b": state.b, "m": state.m or {name: None}}
            for what in PAPER_AMOS.quantities:
                ref, got = held[what][name], getattr(step, what)
                assert got is ref or np.array_equal(ref, got, equal_nan=True), (what, name)


def test_a_quotient_of_plain_numbers_by_0_is_no_number():
    case = CASES[0]
    (first, *_) = Reading([{"alpha": lambda s, page: 0.5 / (0.0 * float(s.xi))}]).run(case, case.eta)
    assert all(np.isnan(step.alpha) and np.isnan(step.theta).all() for step in first.values())


def test_mean_squares_that_are_kept_are_those_of_the_same_numbers():
    """They are kept for all readings of a case; a reading with another gradient, slot or precision has its own."""
    case = CASES[0]
    readings = [
        {},
        {"g": lambda s, page: 2.0 * page(s)},
        {"slot": lambda s, page: s.shapes[s.name]},
        {"g": lambda s, page: page(s).astype(np.float32)},
    ]
    fresh = [list(Reading([one], lambda x: np.float64(x)).run(case, case.eta)) for one in readings]  # keeps nothing
    for _ in range(2):
        for overrides, steps in zip(readings, fresh, strict=True):
            for now, then in zip(Reading([overrides]).run(case, case.eta), steps, strict=True):
                for name in now:
                    assert np.array_equal(now[name].g2, then[name].g2)
                    assert np.asarray(now[name].g2).dtype == np.asarray(then[name].g2).dtype
    assert len({str(steps[0][name].g2) for steps in fresh for name in steps[0]}) > 3
