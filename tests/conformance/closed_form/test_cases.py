"""The closed form's table of cases: what it must hold for deviations to show."""

import numpy as np
import pytest

from amos_ref.conformance.closed_form.cases import random_case, table

CASES = [case for case in table() if case.dtype == "float64"]
FORMULAS = [case for case in CASES if not case.special()]
AS_USED = {"defaults", "adam-defaults"}  # with the numbers that people have


def test_every_dtype_has_its_cases():
    counts = {dtype: sum(case.dtype == dtype for case in table()) for dtype in ("float32", "float16", "bfloat16")}
    assert len(FORMULAS) >= 50
    assert counts["float32"] >= len(FORMULAS)
    assert min(counts.values()) >= 20


def test_options_are_exact_in_float32():
    for case in CASES:
        for name, x in case.options.items():
            if isinstance(x, float) and case.name not in AS_USED:
                assert float(np.float32(x)) == x, (case.name, name)


def test_inputs_are_not_degenerate():
    plans = {(case.options.get("decay"), "p_0" in case.options, case.options.get("p_t")) for case in FORMULAS}
    assert len(plans) >= 6
    assert {0.5, 3.0, 0.75} <= {case.options.get("q") for case in FORMULAS}
    assert {"adam", "sign", None} <= {case.options.get("direction") for case in FORMULAS}
    assert all(sigma != 1.0 for case in CASES for sigma in case.eta.values())
    assert any(case.count == 1000 for case in CASES)
    assert any(any(g is None for g in given.values()) for case in FORMULAS for given in case.grads)


def test_measured_arrays_are_constant_in_every_way_that_matters():
    case = next(case for case in FORMULAS if case.name == "sigma-init-special")
    constant = {float(a.flat[0]) for a in case.params.values() if (a == a.flat[0]).all()}
    assert {0.0, 1.0, 2.0, -1.0, 3.0} <= constant
    assert 0.5 not in constant  # which the rule for zeros and ones would give as well
    assert {a.ndim for a in case.params.values()} == {0, 1, 2}


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        CASES[0].params["kernel"][0] = 1.0


@pytest.mark.parametrize("options", [("half_life",), ("p_0", "q"), ("half_life", "decay", "direction", "slot_shape")])
def test_a_random_case_has_the_options_of_the_port(options):
    for seed in range(20):
        case = random_case(seed, options)
        assert case.needs() <= set(options)
        assert len({"half_life", "p_0"} & set(case.options)) == 1


def test_random_cases_reach_every_option():
    options = ("half_life", "p_0", "decay", "p_t", "q", "sigma", "direction", "beta1", "beta2", "adam_epsilon")
    options += ("epsilon", "clip_value", "slot_shape")
    cases = [random_case(seed, options) for seed in range(40)]
    assert {name for case in cases for name in (*case.options, *case.needs())} == {*options, "alpha_0"}
    assert all(np.array_equal(cases[3].params[k], a) for k, a in random_case(3, options).params.items())
