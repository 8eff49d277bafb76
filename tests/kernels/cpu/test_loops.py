"""The compiled kernels give the page's bits. Also passes with NUMBA_DISABLE_JIT=1, on smaller arrays."""

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import EDGES, LARGE, PYTHON, check_step, drawn, make_leaf, make_rates, with_own
from hypothesis import given, settings
from hypothesis import strategies as st

from amos_ref import closed_form
from amos_ref.kernels.cpu import loops
from amos_ref.optimizers.closed_form import LEAST_FULL, decide_one

compiled_only = pytest.mark.skipif(PYTHON, reason="kernels run as Python")


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
@settings(max_examples=50 if PYTHON else 300)
@given(data=st.data())
def test_step_has_the_bits_of_the_page(combination, data):
    shape = data.draw(own.shapes(max_side=4 if PYTHON else 7), label="shape")
    slot = data.draw(own.slots(shape), label="slot")
    layouts = data.draw(st.tuples(*[own.layouts] * 4), label="layouts of theta and m, g, v, b")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    eta, rates = data.draw(drawn(combination))
    check_step(make_leaf(rng, combination, shape, slot, layouts, eta=eta), rates)


@settings(max_examples=30 if PYTHON else 150)
@given(data=st.data())
def test_long_axes_have_the_bits_of_the_page(data):
    lengths = st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129] + ([] if PYTHON else [1023, 1024, 1025, 4097]))
    long = data.draw(lengths, label="long")
    shape = tuple(data.draw(st.permutations([long, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))])))
    slot = data.draw(own.slots(shape), label="slot")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    combination = data.draw(st.sampled_from([own.COMBINATIONS[1], own.DIRECTED[1]]), label="combination")
    check_step(
        make_leaf(rng, combination, shape, slot),
        make_rates(combination, clip_value=data.draw(st.none() | st.just(0.75))),
    )


@pytest.mark.parametrize("combination", [*own.COMBINATIONS[1:3], *own.DIRECTED[1:3]], ids=["8", "4", "adam", "sign"])
@pytest.mark.parametrize(("shape", "slot"), EDGES)
def test_sizes_around_the_borders_of_chunks(shape, slot, combination):
    check_step(make_leaf(np.random.default_rng(2), combination, shape, slot), make_rates(combination))


@pytest.mark.parametrize("combination", [*own.COMBINATIONS[1:3], *own.DIRECTED[1:3]], ids=["8", "4", "adam", "sign"])
@pytest.mark.parametrize(("shape", "slot"), [((130,), ()), ((2, 5), (5,)), ((2, 65), (2, 65)), ((3, 2, 2), (1, 2, 1))])
def test_leaves_with_numbers_of_their_own(shape, slot, combination):
    leaf = make_leaf(np.random.default_rng(5), combination, shape, slot)
    check_step(with_own(leaf), make_rates(combination, clip_value=0.75))


@pytest.mark.parametrize("combination", own.DIRECTED[1::3], ids=[c.theta for c in own.DIRECTED[1::3]])
@pytest.mark.parametrize(
    ("shape", "slot"),
    [((5000,), ()), ((300, 3), (300, 1)), ((67, 129), (1, 129)), ((2, 1025), (1, 1025)), ((9,), (9,))],
)
def test_steps_so_late_that_1_minus_beta_to_the_nth_is_1_have_the_bits_of_the_page(combination, shape, slot):
    assert combination.direction == "adam"
    for n, ones in ((100, 0), (110, 1), (10**6, 2)):
        rates = make_rates(combination, n=n, beta2=0.999)
        assert (rates.aims.q1 == 1.0) + (rates.aims.q2 == 1.0) == ones
        check_step(make_leaf(np.random.default_rng(10), combination, shape, slot), rates)


#: Around where u^2 loses bits, and where it is 0.
SMALL = [0.0, 5e-324, 3e-320, 1.7e-162, *(x * 2.0**k for k in (-538, -512, -511, -510, -62) for x in (0.7, 1.0, 1.3))]


@pytest.mark.parametrize("epsilon", [5e-324, 1e-310, 2.0**-1022, 2.0**-1021, 2.0**-125, 0.3, 1e300])
@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_a_slot_of_one_entry_has_the_bits_of_the_page_without_a_root(epsilon, factor):
    rng = np.random.default_rng(8)
    g = np.concatenate([SMALL, np.negative(SMALL), rng.standard_normal(40) * 10.0 ** rng.uniform(-160, 150, 40)])
    for combination in (own.DIRECTED[0], own.DIRECTED[1], own.DIRECTED[2]):
        leaf = make_leaf(rng, combination, g.shape, g.shape)
        leaf = leaf._replace(g=g.astype(leaf.g.dtype) if leaf.g.dtype == np.float64 else leaf.g, own=(factor,))
        check_step(leaf, make_rates(combination, epsilon=epsilon))


def test_a_root_is_needed_where_squares_lose_bits():
    def decide_rashly(u, sigma, shrink, alpha_0, q, epsilon):
        return decide_one(u, sigma, shrink, alpha_0, q, max(epsilon, LEAST_FULL))

    rest = 0.7, 0.4, 0.3, 1.5, 5e-324
    ref = [closed_form.decide(u * u, *rest) for u in SMALL]
    assert [decide_one(u, *rest) for u in SMALL] == ref
    assert [decide_rashly(u, *rest) for u in SMALL] != ref


def change_one(rho, k, value):
    rho[k] = value
    return rho


@pytest.mark.parametrize("size", [1, 2, 9, 1025])
def test_even_numbers_are_told_from_uneven_ones_by_their_bits(size):
    for value in (0.25, 0.0, np.nan):
        assert loops.is_even(np.full(size, value))
    for k in {0, size // 2, size - 1} if size > 1 else ():
        assert not loops.is_even(change_one(np.full(size, 0.25), k, 0.5))
        assert not loops.is_even(change_one(np.zeros(size), k, -0.0))


@compiled_only
@pytest.mark.parametrize("inner", [loops.WIDE, loops.WIDE + 1, 3 * loops.WIDE + 1])
@pytest.mark.parametrize("combination", [own.COMBINATIONS[1], *own.DIRECTED[1:3]], ids=["uneven", "adam", "sign"])
def test_columns_whose_rho_is_one_number_have_the_bits_of_the_page(combination, inner):
    check_step(make_leaf(np.random.default_rng(9), combination, (2, 5, inner), (2, 1, inner)), make_rates(combination))


@compiled_only
@pytest.mark.parametrize(("shape", "slot"), LARGE)
@pytest.mark.parametrize(
    "combination", [own.COMBINATIONS[0], own.COMBINATIONS[7], own.DIRECTED[7]], ids=["plain", "half", "adam"]
)
def test_large_arrays_have_the_bits_of_the_page(combination, shape, slot):
    check_step(make_leaf(np.random.default_rng(3), combination, shape, slot), make_rates(combination))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", [(3,), (4, 1), (4, 3), ()])
def test_parameters_and_state_that_are_not_finite_follow_the_page(slot, value):
    for part in ("theta", "m", "v", "b"):
        leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[1], (4, 3), slot)
        getattr(leaf, part).reshape(-1)[0] = value
        check_step(leaf, make_rates(own.COMBINATIONS[1]))
    for combination in own.DIRECTED[:2]:
        leaf = make_leaf(np.random.default_rng(4), combination, (4, 3), slot)
        leaf.theta[1, 1] = value
        check_step(leaf, make_rates(combination))


@pytest.mark.parametrize("slot", [(3,), (4, 1), (4, 3), ()])
def test_subnormals_are_kept(slot):
    # A processor told to flush subnormals to 0, or a library that told it, would show here.
    leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[0], (4, 3), slot)
    leaf.theta[...] = leaf.g[...] = 3e-310
    leaf.v[...], leaf.b[...] = 5e-324, 1e-320
    check_step(leaf, make_rates(own.COMBINATIONS[0], extra_l2=0.3))
    assert np.all(leaf.theta != 0)


def test_arrays_that_are_not_aligned():
    a = np.frombuffer(bytearray(8 * 6 + 1), np.float64, 6, 1)
    a[...] = np.linspace(-1, 2, 6)
    leaf = make_leaf(np.random.default_rng(5), own.COMBINATIONS[0], (6,), ())._replace(theta=a)
    assert not leaf.theta.flags.aligned
    check_step(leaf, make_rates(own.COMBINATIONS[0]))
