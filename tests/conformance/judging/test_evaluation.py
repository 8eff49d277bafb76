"""Right evaluations: drawn from a seed, each as good as the page, every operation rounded as it says."""

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.judging import evaluation
from amos_ref.conformance.judging.paper import ORDERS
from amos_ref.conformance.judging.reading import Reading
from amos_ref.dtypes import dtype_of

CASES = [case for case in table() if case.dtype == "float64"]
NARROW = ["float32", "float16", "bfloat16"]


@pytest.mark.parametrize(("stage", "k"), [(stage, k) for stage, ways in ORDERS.items() for k in range(len(ways))])
def test_each_way_to_compute_a_stage_gives_its_number(stage, k):
    """Up to rounding; a number that is a millionth off is not close."""

    def wrong(s, page):
        return None if (x := page(s)) is None else x * (1.0 + 1e-6)

    for overrides, right in (([{stage: ORDERS[stage][k]}], True), ([{stage: wrong}], False)):
        close = []
        for case in CASES[:12]:
            for a, b in zip(Reading().run(case, case.eta), Reading(overrides).run(case, case.eta), strict=True):
                pairs = [(getattr(a[name], stage), getattr(b[name], stage)) for name in a]
                close += [np.allclose(x, y, rtol=1e-12, atol=1e-14) for x, y in pairs if x is not None]
        assert all(close) == right


def test_an_evaluation_is_its_seeds():
    for dtype in NARROW:
        for seed in range(8):
            one, same = evaluation.draw(dtype, seed), evaluation.draw(dtype, seed)
            assert one[:5] == same[:5]
            case = next(c for c in table() if c.name == "plain" and c.dtype == dtype)
            for a, b in zip(one.reading().run(case, case.eta), same.reading().run(case, case.eta), strict=True):
                for name, step in a.items():
                    np.testing.assert_array_equal(np.asarray(step.theta), np.asarray(b[name].theta))


@pytest.mark.parametrize("dtype", NARROW)
def test_rounding_at_random_takes_a_neighbour_and_is_right_on_average(dtype):
    rng, kind = np.random.default_rng(8), dtype_of(dtype)
    exact = rng.standard_normal(200).astype(kind).astype(np.float64)
    np.testing.assert_array_equal(evaluation._round_at_random(exact, kind, rng), exact)
    x = rng.standard_normal(200)
    rounded = np.stack([evaluation._round_at_random(x, kind, rng) for _ in range(400)])
    np.testing.assert_array_equal(rounded.astype(kind).astype(np.float64), rounded)
    ulp = 2.0 ** -{"float32": 23, "float16": 10, "bfloat16": 7}[dtype] * np.abs(x)  # at most twice as much
    assert (np.abs(rounded - x) < ulp).all()
    assert max(len(set(column)) for column in rounded.T) == 2
    assert (np.abs(rounded.mean(0) - x) < 0.25 * ulp).all()  # ten times the deviation of a mean of 400
    largest = float(np.finfo(np.float16).max) if dtype == "float16" else 2.0**127 * 1.9999
    odd = np.array([np.inf, -np.inf, np.nan, 1.1 * largest if dtype == "float16" else 2.0**130, 0.0])
    with np.errstate(all="ignore"):
        got = evaluation._round_at_random(odd, kind, rng)
    np.testing.assert_array_equal(got, [np.inf, -np.inf, np.nan, np.inf, 0.0])
