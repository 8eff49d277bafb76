"""What is done by turns has the bits of what is done in order. Also passes with NUMBA_DISABLE_JIT=1."""

import itertools

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import PYTHON, check_step, make_leaf, make_rates, method_of

from amos_ref.kernels.cpu import backend, reduce

#: Rows of one chunk, of several, of a few elements more than a chunk or than 128 lanes; and leaves that have none.
SHAPES = [(3, 130), (2, 8192), (1, 8193), (0, 5), (5, 2), (2, 0), (1, 20000), (4, 127), (1, 16384 + 257), (7, 3)]
IN_ORDER, BATCHES = (0, 1), [(0, 1), (0, 0.3, 1), (0, 0.1, 0.2, 0.5, 0.9, 1)]


def reduce_wrongly(first, last, *rest):
    """Take the second chunk of each two for the first."""
    half = (last - first) // 2
    reduce.reduce_rows(first, first + half, *rest)
    *rest, sums = rest
    sums[first + half : last] = sums[first : first + last - first - half]


def sums_of(kernel, combination, batches):
    """What a kernel sums of SHAPES, called for batches of tasks between these fractions of all."""
    rng, rates = np.random.default_rng(6), make_rates(combination, clip_value=0.75)
    leaves = [make_leaf(rng, combination, shape, (shape[0], 1)) for shape in SHAPES]
    parts = backend.Work(leaves, method_of(leaves[0], rates)).parts
    part = next(part for part in parts if part.table.key.kind == "rows")
    part.sums[:] = np.nan
    tasks = part.table.reduce
    with np.errstate(all="ignore"):
        for first, last in itertools.pairwise(round(f * tasks.count) for f in batches):
            kernel(first, last, tasks.starts, part.table.leaves, part.g, part.moment, rates.chi, rates.aims, part.sums)
    return part.sums


@pytest.mark.parametrize("combination", [own.COMBINATIONS[k] for k in (0, 2, 6)] + [own.DIRECTED[k] for k in (1, 7)])
def test_two_chunks_by_turns_have_the_sums_of_one_after_the_other(combination):
    sums = sums_of(reduce.reduce_rows, combination, IN_ORDER)
    assert not np.isnan(sums).any()
    for batches in BATCHES:
        assert sums_of(reduce.reduce_far_rows, combination, batches).tobytes() == sums.tobytes()
    assert sums_of(reduce_wrongly, combination, IN_ORDER).tobytes() != sums.tobytes()


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
@pytest.mark.parametrize("n", [1, 5] if PYTHON else [1, 5, 513, 8193, 33000])
def test_many_rows_by_turns_have_the_bits_of_the_page(n, combination, monkeypatch):
    monkeypatch.setattr(backend, "FAR", 0)  # apply takes more than 64 tasks by turns
    for rows in (65, 66):
        leaf = make_leaf(np.random.default_rng(7), combination, (rows, n), (rows, 1))
        check_step(leaf, make_rates(combination))
