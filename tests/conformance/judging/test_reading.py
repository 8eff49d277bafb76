"""Readings: with nothing overridden, the numbers are the page's own."""

import numpy as np
import pytest

from amos_ref import Amos
from amos_ref.conformance import table
from amos_ref.conformance.judging.reading import STATE, Reading

CASES = [case for case in table() if case.dtype == "float64" and case.inject is None and not case.groups]


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
