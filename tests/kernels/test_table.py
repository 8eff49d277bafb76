"""Tables of leaves: how an array and its slots are seen by kernels, and how work is divided."""

import math

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import make_leaf
from hypothesis import given
from hypothesis import strategies as st

from amos_ref import spec
from amos_ref.kernels import table
from amos_ref.kernels.table import Mixed, Tasks, address, box_of, tables


def test_batches_are_of_about_the_same_work_and_each_task_is_in_one():
    tasks = Tasks(np.array([0, 30, 30, 100, 101]), np.array([0, 300, 300, 370, 1000]))
    for count in range(1, 12):
        batches = tasks.batches(count)
        assert [k for first, last in batches for k in range(first, last)] == list(range(101))
        assert len(batches) <= count * table.BATCHES
    assert tasks.batches(1) == [(0, 25), (25, 100), (100, 101)]
    assert Tasks(np.array([0, 0]), np.array([0, 0])).batches(2) == []


@st.composite
def arrays(draw):
    """An array of whole numbers, whose sums are exact in any order, and the shape of its slots."""
    shape = draw(own.shapes(max_side=4))
    rng = np.random.default_rng(draw(own.seeds))
    return rng.integers(-9, 9, shape).astype(np.float64), draw(own.slots(shape))


def summed(a, slot):
    """The sum of each slot, flat."""
    full = (1,) * (a.ndim - len(slot)) + slot
    axes = tuple(k for k in range(a.ndim) if full[k] == 1 and a.shape[k] != 1)
    return np.asarray(a.sum(axis=axes, keepdims=True)).reshape(-1)


@given(arrays())
def test_a_box_reduces_to_the_sums_of_the_slots(drawn):
    a, slot = drawn
    box = box_of(a.shape, slot)
    assert box.outer * box.n * box.inner == a.size
    assert box.slots == math.prod(slot)
    if box.kind == "elements":
        assert np.array_equal(a.reshape(-1), summed(a, slot))
        return
    assert box.kind == ("rows" if box.inner == 1 else "columns")
    places = box.outer * box.inner
    flat = a.reshape(box.outer, box.n, box.inner).sum(axis=1).reshape(-1)
    if not box.mixed:
        assert np.array_equal(flat, summed(a, slot))
        return
    totals = np.concatenate([np.full(box.slots, np.nan), flat])
    mixed = Mixed(
        box, box.runs[: box.cut] + box.runs[box.cut + 1 :], slice(0, box.slots), slice(box.slots, box.slots + places)
    )
    mixed.fold(totals)
    assert np.array_equal(totals[: box.slots], summed(a, slot))
    mixed.spread(totals)
    full = (1,) * (a.ndim - len(slot)) + slot
    wanted = np.broadcast_to(totals[: box.slots].reshape(full), a.shape).reshape(box.outer, box.n, box.inner)
    assert np.array_equal(np.broadcast_to(totals[box.slots :].reshape(box.outer, 1, box.inner), wanted.shape), wanted)


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193])
def test_element_slots_are_cut_in_chunks(size):
    box = box_of((size,), (size,))
    assert (box.kind, box.n, box.slots) == ("elements", size, size)
    assert box.pieces == box.groups == -(-size // spec.CHUNK)
    assert box_of((size, 2), (size, 2)).kind == "elements"


def test_leaves_of_a_kind_and_of_the_same_dtypes_share_a_table():
    rng = np.random.default_rng(1)
    shapes = [((5, 3), (5, 1)), ((130,), ()), ((5, 2), (1, 2)), ((7,), (7,)), ((2, 3, 2), (1, 3, 1)), ((0, 3), (1, 3))]
    kinds = [(k, c) for k in range(len(shapes)) for c in (0, 2)]
    leaves = [make_leaf(rng, own.COMBINATIONS[c], *shapes[k], name=str(n)) for n, (k, c) in enumerate(kinds)]
    found = tables(leaves, address)
    assert sorted((t.key.kind, t.key.theta.name) for t in found) == sorted(
        (kind, name) for kind in ("rows", "columns", "elements") for name in ("float64", "float32")
    )
    assert sorted(int(n) for t in found for n in t.leaves[:, table.LEAF]) == list(range(len(leaves)))
    for t in found:
        taken = []
        for row, box in zip(t.leaves, t.boxes, strict=True):
            leaf = leaves[row[table.LEAF]]
            assert (leaf.theta.dtype, leaf.g.dtype, leaf.v.dtype, leaf.m is not None, 0, "") == tuple(t.key)[1:]
            read = [row[column] for column in (table.THETA, table.G, table.STATE_0, table.STATE_1)]
            assert read == [address(a) for a in (leaf.theta, leaf.g, leaf.v, leaf.b)]
            assert row[table.M] == (0 if leaf.m is None else address(leaf.m))
            if t.key.kind != "elements":
                places = box.outer * box.inner
                taken += range(row[table.PLACES], row[table.PLACES] + places)
                taken += range(row[table.SLOTS], row[table.SLOTS] + box.slots) if box.mixed else []
        # No two leaves share scratch memory, and all of it is used.
        assert sorted(taken) == list(range(t.places))
        assert t.reduce.count >= len(t.leaves) or any(box.outer * box.groups == 0 for box in t.boxes)
        assert np.array_equal(
            t.share,
            [max(leaf.g.size // max(leaf.v.size, 1), 1) for leaf in (leaves[n] for n in t.leaves[:, table.LEAF])],
        )
