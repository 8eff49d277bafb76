"""The CUDA kernels give the page's bits, for any grid. In the simulator the sizes are small, on a GPU they are not."""

import os
import pathlib
import time
from fractions import Fraction

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import EDGES, LARGE, drawn, make_leaf, make_rates, page, same, step, with_own
from helpers.placed import on_device, written
from hypothesis import given, settings
from hypothesis import strategies as st

from amos_ref.errors import NonFiniteError
from amos_ref.kernels.cuda import apply as cuda_apply
from amos_ref.kernels.cuda import backend as cuda
from amos_ref.kernels.cuda import reduce as cuda_reduce
from amos_ref.kernels.cuda import slots as cuda_kernels
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.leaf import Leaf

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
simulator_only = pytest.mark.skipif(not SIMULATED, reason="changes the source of kernels")
gpu_only = pytest.mark.skipif(SIMULATED, reason="too large for the simulator")
# The simulator computes with NumPy, which warns of overflow.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
PLAIN = own.COMBINATIONS[2]._replace(momentum=None)
WIDE = (own.COMBINATIONS[0], own.DIRECTED[1], own.DIRECTED[1]._replace(direction="sign"))


def check(leaf, rates, offsets=(0, 0, 0, 0, 0)):
    """One step of the kernels in place; every array it writes has the page's bits."""
    ref, there = page(leaf, rates), on_device(leaf, offsets)
    step("cuda", [there], rates)
    for what, got in written(there):
        same(got, ref[what], f"{what} of shape {got.shape}, slot {leaf.slot}")
    assert own.bits(there.g.astype(leaf.g.dtype)) == own.bits(leaf.g)


def check_shape(shape, slot, combination=own.COMBINATIONS[2], offsets=(0, 0, 0, 0, 0), **changes):
    check(make_leaf(np.random.default_rng(2), combination, shape, slot), make_rates(combination, **changes), offsets)


# Rows, columns, elements; whole and broken lines of 128; reduced runs before the innermost one.
SHAPES = [
    *(((n,), ()) for n in (0, 1, 2, 127, 128, 129, 513)),
    *(((n,), (n,)) for n in (0, 1, 127, 130, 513)),
    ((3, 260), (3, 1)),
    ((65, 3), (3,)),
    ((1, 130), (1, 130)),
    ((65, 8), (1, 8)),
    ((20, 132), (132,)),
    ((2, 65, 3), (2, 1, 3)),
    ((3, 0), (3, 1)),
    ((0, 3), (1, 3)),
    ((), ()),
    ((3, 2, 2), (1, 2, 1)),
    ((65, 2, 3, 2), (1, 2, 1, 2)),
    ((3, 2, 2, 2, 3, 2), (1, 2, 1, 2, 1, 2)),
    # Nothing to sum, before the innermost run or in it: the mean is 0.
    ((0, 3, 3), (1, 3, 1)),
    ((0, 3, 0), (1, 3, 1)),
    ((2, 3, 0), (1, 3, 1)),
    ((0, 3, 3, 2), (1, 3, 1, 2)),
]


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize("combination", [own.COMBINATIONS[2], own.DIRECTED[3]], ids=["paper", "adam"])
@pytest.mark.parametrize(("shape", "slot"), SHAPES)
def test_steps_have_the_bits_of_the_page_for_any_grid(shape, slot, combination):
    check_shape(shape, slot, combination)


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
@pytest.mark.parametrize(("shape", "slot"), [((300,), ()), ((3, 16), (1, 16)), ((140,), (140,)), ((2, 5), (5,))])
def test_every_dtype_has_the_bits_of_the_page(combination, shape, slot):
    check_shape(shape, slot, combination, clip_value=0.75)


@pytest.mark.parametrize("combination", own.FAMILY[2:], ids=own.FAMILY_IDS[2:])
@pytest.mark.parametrize(("shape", "slot"), [((260,), ()), ((2, 16), (1, 16)), ((260,), (260,))])
def test_addresses_that_allow_no_wide_loads(combination, shape, slot):
    for offsets in ((1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 1, 1), (0, 0, 0, 1, 0)):
        check_shape(shape, slot, combination, offsets)


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
@pytest.mark.parametrize(("shape", "slot"), [((130,), ()), ((2, 5), (5,)), ((2, 65), (2, 65))])
def test_leaves_with_numbers_of_their_own_have_the_bits_of_the_page(combination, shape, slot):
    leaf = make_leaf(np.random.default_rng(5), combination, shape, slot)
    check(with_own(leaf), make_rates(combination, clip_value=0.75))


#: A row is one chunk, few, which one thread sums, or more.
CHUNKS = [((8191,), ()), ((8193,), ()), ((2 * 8192 + 5,), ()), ((3 * 8192 + 1,), ()), ((4 * 8192 + 1,), ())]


@pytest.mark.parametrize(("shape", "slot"), [*CHUNKS, ((2, 8193), (2, 1)), ((4097, 2), (2,)), ((1, 2049), (2049,))])
def test_borders_of_chunks_and_of_sums_of_sums(shape, slot):
    check_shape(shape, slot, PLAIN)


@settings(max_examples=60 if SIMULATED else 2000)
@given(data=st.data())
def test_any_step_has_the_bits_of_the_page(data):
    combination = data.draw(st.sampled_from(own.FAMILY), label="combination")
    shape = data.draw(own.shapes(max_side=3 if SIMULATED else 9), label="shape")
    slot = data.draw(own.slots(shape), label="slot")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    eta, rates = data.draw(drawn(combination))
    check(make_leaf(rng, combination, shape, slot, eta=eta), rates)


@gpu_only
@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize(("shape", "slot"), EDGES + LARGE)
@pytest.mark.parametrize("combination", [own.COMBINATIONS[0], own.COMBINATIONS[4], *own.DIRECTED[2:5]], ids=str)
def test_large_arrays_have_the_bits_of_the_page(combination, shape, slot):
    check_shape(shape, slot, combination)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", [(3,), (2, 1), (2, 3), ()])
def test_parameters_and_state_that_are_not_finite_follow_the_page(slot, value):
    for part in ("theta", "m", "v", "b"):
        leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[1], (2, 3), slot)
        getattr(leaf, part).reshape(-1)[0] = value
        check(leaf, make_rates(own.COMBINATIONS[1]))


def test_subnormals_are_kept():
    for slot in ((3,), (2, 1), (2, 3), ()):
        leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[0], (2, 3), slot)
        leaf.theta[...] = leaf.g[...] = 3e-310
        leaf.v[...], leaf.b[...] = 5e-324, 1e-320
        check(leaf, make_rates(own.COMBINATIONS[0], extra_l2=0.3))


def test_numbers_that_change_between_steps_reach_the_device():
    rates = make_rates(own.COMBINATIONS[1])
    leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[1], (3, 4), (1, 4))
    there = on_device(leaf)
    work = cuda.Work([there], Amos.method)
    for changes in ({}, dict(q=0.9, xi=0.01), dict(beta=0.5, extra_l2=0.3, epsilon=0.5), dict(clip_value=0.25)):
        rates = rates._replace(**changes)
        leaf = leaf._replace(**page(leaf, rates))
        work.run(rates)
        for (what, got), (_, want) in zip(written(there), leaf.written().items(), strict=True):
            same(got, want, f"{what} after {changes}")


# gradients that are not finite


def check_untouched(leaves, rates, match):
    there = [on_device(leaf) for leaf in leaves]
    with pytest.raises(NonFiniteError, match=match):
        step("cuda", there, rates)
    for leaf, found in zip(leaves, there, strict=True):
        assert [own.bits(a) for _, a in written(found)] == [own.bits(a) for _, a in leaf.written().items()]


@pytest.mark.parametrize("combination", WIDE, ids=["paper", "adam", "sign"])
@pytest.mark.parametrize("slot", [(), (1, 4), (3, 4), (3, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_gradient_that_is_not_finite_leaves_everything_untouched(slot, value, combination):
    rng = np.random.default_rng(5)
    leaves = [make_leaf(rng, combination, (3, 4), s, name=n) for n, s in (("a", ()), ("b", slot), ("c", slot))]
    leaves[1].g[2, 1] = leaves[2].g[0, 0] = value
    check_untouched(leaves, make_rates(combination), r"gradient of leaf 'b'\[2, 1\] is")


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
def test_every_place_of_element_slots_is_looked_at(combination):
    leaf = make_leaf(np.random.default_rng(5), combination, (300,), (300,))
    for place in (0, 3, 4, 7, 126, 128, 255, 256, 292, 299):
        kept, leaf.g[place] = leaf.g[place], np.nan
        check_untouched([leaf], make_rates(combination), rf"\[{place}\] is nan")
        leaf.g[place] = kept


def test_a_sum_that_overflows_is_seen_though_every_square_is_finite():
    leaf = make_leaf(np.random.default_rng(5), own.COMBINATIONS[0], (300,), ())
    leaf.g[...] = 1.2e154
    check_untouched([leaf], make_rates(own.COMBINATIONS[0]), "sum of its squares overflows")


@pytest.mark.parametrize("combination", WIDE, ids=["paper", "adam", "sign"])
def test_an_infinite_gradient_is_clipped_and_nan_is_not(combination):
    leaf = make_leaf(np.random.default_rng(5), combination, (3, 4), ())
    leaf.g[1, 1] = np.inf
    check(leaf, make_rates(combination, clip_value=0.5))
    leaf.g[1, 1] = np.nan
    check_untouched([leaf], make_rates(combination, clip_value=0.5), r"\[1, 1\] is nan")


# repeats, and wrong versions


@gpu_only
def test_a_hundred_repeats_are_the_same():
    rng = np.random.default_rng(6)
    leaves = [make_leaf(rng, own.COMBINATIONS[2], s, slot, name=str(s)) for s, slot in LARGE]
    found = set()
    for _ in range(100):
        there = [on_device(leaf) for leaf in leaves]
        step("cuda", there, make_rates(own.COMBINATIONS[2]))
        found.add(tuple(own.bits(a) for leaf in there for _, a in written(leaf)))
    assert len(found) == 1


def fused(a, b, c):
    """a * b + c, rounded once."""
    return np.float64(float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))


def check_gentle(shape, slot):
    """A step of numbers near 1, whose last bits all matter."""
    rng, rates = np.random.default_rng(7), make_rates(own.COMBINATIONS[1])
    theta, g, m = rng.standard_normal((3, *shape))
    check(Leaf("w", theta, g, np.zeros(slot), np.ones(slot), m, 0.6), rates)


def backwards(address, begin, count, stride):
    total = np.float64(0)
    for row in reversed(range(count)):
        total += cuda_kernels.real(address, begin + row * stride)
    return total


WRONG = {
    "a chunk of other length": (cuda_reduce, "CHUNK", 256, (513,), ()),
    "a fused square": (cuda_reduce, "add_square", lambda acc, x: fused(x, x, acc), (9, 40), (1, 40)),
    "sums in another order": (cuda_kernels, "sum_rows", backwards, (130, 5), (1, 5)),
    "a fused change": (cuda_apply, "change", lambda a, g, r, t: -fused(a, g, r * t), (300,), ()),
    "a fused average": (cuda_apply, "average", lambda m, d, mu: fused(mu, m, (1 - mu) * d), (300,), ()),
}


@simulator_only
@pytest.mark.parametrize("which", WRONG)
def test_wrong_versions_are_seen(which, monkeypatch):
    module, name, value, *leaf = WRONG[which]
    check_gentle(*leaf)
    monkeypatch.setattr(module, name, value)
    with pytest.raises((pytest.fail.Exception, NonFiniteError)):  # of wrong bits, or of memory that nothing wrote
        check_gentle(*leaf)


@simulator_only
def test_lanes_combined_in_another_order_are_seen(monkeypatch):
    source = pathlib.Path(cuda_reduce.__file__).read_text(encoding="utf-8")
    wrong = source.replace("shared[lane + half]", "shared[2 * (first + half) - 1 - lane]")
    assert wrong != source
    space = {"__name__": "wrong"}
    exec(compile(wrong, "wrong.py", "exec"), space)
    check_gentle((300,), ())
    monkeypatch.setattr(cuda, "reducing", space["reducing"])
    with pytest.raises(pytest.fail.Exception):
        check_gentle((300,), ())


@simulator_only
def test_few_chunks_combined_in_another_order_are_seen(monkeypatch):
    def total(a, b):
        return added.append((a, b)) or a + b

    added = []
    shape = (3 * 8192 + 1,)
    monkeypatch.setattr(cuda_kernels, "add", total)
    check_gentle(shape, ())
    assert len(added) == 3  # of the four chunks
    monkeypatch.setattr(cuda_kernels, "add", lambda a, b: np.nextafter(a + b, np.inf))
    with pytest.raises(pytest.fail.Exception):
        check_gentle(shape, ())


@simulator_only
@given(st.lists(st.integers(0, 3) | st.integers(1, 2**20), min_size=1, max_size=9).filter(any), st.data())
def test_every_task_finds_its_leaf(counts, data):
    starts = np.concatenate([[0], np.cumsum(counts)])
    task, members = data.draw(st.integers(0, int(starts[-1]) - 1)), len(counts)
    wanted = int(np.searchsorted(starts, task, side="right")) - 1
    for find in (cuda_kernels.leaf_of, cuda_kernels.leaf_near):
        assert find(task, starts.ctypes.data, members) == wanted


@simulator_only
def test_a_guess_that_is_not_looked_at_would_be_seen(monkeypatch):
    monkeypatch.setattr(cuda_kernels, "search", lambda task, starts, low, high: min(task, high - 1))
    with pytest.raises(AssertionError):
        test_every_task_finds_its_leaf()


@simulator_only
@pytest.mark.parametrize("slot", [(), (12,), (3, 4)])
def test_kernels_that_ignore_the_flag_are_seen(slot, monkeypatch):
    leaf = make_leaf(np.random.default_rng(5), own.COMBINATIONS[0], (3, 4), slot if slot != (12,) else (1, 4))
    leaf.g[1, 1] = np.nan
    check_untouched([leaf], make_rates(own.COMBINATIONS[0]), "nan")
    for module in (cuda_kernels, cuda_apply):
        monkeypatch.setattr(module, "NONE", 0)
    with pytest.raises(AssertionError):
        check_untouched([leaf], make_rates(own.COMBINATIONS[0]), "nan")


@simulator_only
def test_threads_that_ask_at_once_share_one_array(monkeypatch):
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    class Slow(dict):
        def get(self, key):
            found = super().get(key)
            time.sleep(0.002)  # the others ask meanwhile
            return found

    made = FakeCUDAShared.__init__

    def make(self, size):
        made(self, size)
        self._allocations = Slow()

    monkeypatch.setattr(FakeCUDAShared, "__init__", make)
    check_shape((300,), ())
