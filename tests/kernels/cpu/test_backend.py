"""A step of many leaves, in few tables and by any number of threads, has the page's bits for each."""

import threading
import time

import numba
import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import EDGES, PYTHON, check_step, make_leaf, make_rates, page, same, step
from numba.core import config

from amos_ref import Amos, ClosedFormAmos
from amos_ref.errors import NonFiniteError
from amos_ref.kernels import load_backend, table
from amos_ref.kernels.cpu import threads


def tree_leaves(seed):
    """Leaves for every kernel, with more tasks of each than there are threads."""
    rng = np.random.default_rng(seed)
    side = 9 if PYTHON else 300
    slots = [
        ((3, 9000), (3, 1)),
        ((9000,), ()),
        ((side, side), (1, side)),
        ((130, 5), (5,)),
        ((side, side), (side, side)),
    ]
    return [make_leaf(rng, own.COMBINATIONS[1], *slots[k], name=str(k)) for k in range(len(slots))]


def stepped(leaves, times=2):
    for _ in range(times):
        step("cpu", leaves, make_rates(own.COMBINATIONS[1]))
    return [own.bits(a) for leaf in leaves for _, a in leaf.written().items()]


@pytest.fixture(params=["whoever"] if PYTHON else ["whoever", "helpers"])
def eager_threads(request, monkeypatch):
    """Share even the smallest work between threads; perhaps let the caller come late, so that helpers do most of it."""
    monkeypatch.setattr(table, "LITTLE", 1)
    if request.param == "helpers":
        work = threads.Launch.work

        def late(launched):
            if threading.current_thread() not in threads.helpers:
                time.sleep(2e-4)
            work(launched)

        monkeypatch.setattr(threads.Launch, "work", late)
    before = numba.get_num_threads()
    yield min(config.NUMBA_NUM_THREADS, 5)
    numba.set_num_threads(before)


@pytest.mark.no_cover
def test_number_of_threads_changes_no_bit(eager_threads):
    assert eager_threads >= 2
    found = []
    for count in range(1, eager_threads + 1):
        numba.set_num_threads(count)
        found.append(stepped(tree_leaves(6)))
    assert all(bits == found[0] for bits in found)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize(("shape", "slot"), [edge for edge in EDGES if own.size(edge[0]) < 1000])
def test_shared_work_has_the_bits_of_the_page(shape, slot):
    check_step(make_leaf(np.random.default_rng(2), own.COMBINATIONS[1], shape, slot), make_rates(own.COMBINATIONS[1]))


def many_leaves(rng, count=60):
    """Leaves of few shapes and dtypes, so that tables hold many of each, empty ones too, in no order."""
    kinds = [((5, 3), (5, 1)), ((130,), ()), ((0, 3), (1, 3)), ((), ()), ((66, 2), (1, 2)), ((7,), (7,)), ((0,), (0,))]
    kinds += [((2, 65, 3), (2, 1, 3)), ((3, 2, 4), (1, 2, 1)), ((2, 0), (2, 1)), ((1, 8193), (1, 1))]
    order = rng.integers(len(kinds), size=count)
    return [
        make_leaf(rng, own.COMBINATIONS[1 + k % 2], *kinds[kind], name=str(k), eta=0.1 + k / count)
        for k, kind in enumerate(order)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_many_leaves_in_few_tables_have_the_bits_of_the_page(count, eager_threads):
    numba.set_num_threads(min(count, eager_threads))
    leaves = many_leaves(np.random.default_rng(count), 20 if PYTHON else 200)
    rates = make_rates(own.COMBINATIONS[1])
    ref = [page(leaf, rates._replace(momentum=None if leaf.m is None else rates.momentum)) for leaf in leaves]
    step("cpu", leaves, rates)
    for leaf, wanted in zip(leaves, ref, strict=True):
        for what, got in leaf.written().items():
            same(got, wanted[what], f"{what} of leaf {leaf.name}, shape {leaf.theta.shape}, slot {leaf.slot}")


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("slot", [(), (7,)])
def test_every_thread_sees_a_gradient_that_is_not_finite(slot):
    for i in range(7):
        leaf = make_leaf(np.random.default_rng(2), own.COMBINATIONS[1], (7,), slot)
        leaf.g[i] = np.nan
        before = [own.bits(a) for _, a in leaf.written().items()]
        with pytest.raises(NonFiniteError, match=rf"\[{i}\] is nan"):
            step("cpu", [leaf], make_rates(own.COMBINATIONS[1]))
        assert [own.bits(a) for _, a in leaf.written().items()] == before


@pytest.mark.no_cover
@pytest.mark.usefixtures("eager_threads")
def test_python_threads_may_step_different_trees_at_once():
    seeds = (7, 8, 9)
    ref = [stepped(tree_leaves(seed)) for seed in seeds]
    got, start = {}, threading.Barrier(len(seeds))

    def work(seed):
        leaves = tree_leaves(seed)
        start.wait()
        got[seed] = stepped(leaves)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [got.get(seed) for seed in seeds] == ref


# work that serves a later step


def laid_out_work(leaves):
    return load_backend("cpu").prepare(leaves, Amos.method)


def test_work_takes_other_gradients_of_the_same_shapes():
    rng = np.random.default_rng(1)
    leaves = many_leaves(rng, 12)
    # Those that average have rates of their own; here all do.
    leaves = [leaf for leaf in leaves if leaf.m is not None]
    rates, work = make_rates(own.COMBINATIONS[1]), laid_out_work(leaves)
    assert work.keeps
    gradients = [rng.standard_normal(leaf.g.shape).astype(leaf.g.dtype) for leaf in leaves]
    others = [leaf._replace(g=g) for leaf, g in zip(leaves, gradients, strict=True)]
    wanted = [page(leaf, rates) for leaf in others]
    work.take(gradients, None)
    assert work.run(rates) == -1
    for leaf, arrays in zip(others, wanted, strict=True):
        for what, got in leaf.written().items():
            same(got, arrays[what], f"{what} of leaf {leaf.name}")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_work_takes_a_gradient_for_each_leaf(count):
    leaves = [make_leaf(np.random.default_rng(1), own.COMBINATIONS[0], (3,), (), name=name) for name in "ab"]
    work = laid_out_work(leaves)
    with pytest.raises(AssertionError, match=f"{count} gradients for a step of 2 leaves"):
        work.take([np.ones(3)] * count, None)
    with pytest.raises(AssertionError, match="2 gradients for a step of 2 leaves"):
        work.take([np.ones(3)] * 2, np.zeros(count, np.int64))


def test_a_scale_in_an_array_is_read_anew():
    opt = ClosedFormAmos(0.5, half_life=10, sigma=2.0, backend="cpu")
    params, grads = np.zeros(2), np.ones(2)
    state = opt.step(params, grads, opt.init(params))
    params[...] = 0
    state.sigma[""][...] = 4.0
    opt.step(params, grads, state._replace(count=0))
    assert params.tolist() == [-2.0, -2.0]  # alpha_0 sigma


@pytest.mark.parametrize("layout", own.LAYOUTS)
def test_work_over_copies_serves_one_step(layout):
    leaf = make_leaf(np.random.default_rng(1), own.COMBINATIONS[0], (4, 3), (3,), (layout,) * 4)
    contiguous = all(a.flags.c_contiguous and a.flags.aligned for a in leaf.arrays().values())
    assert laid_out_work([leaf]).keeps == contiguous
