"""Workloads: how many parameters, slots and bytes they have, and which are selected or planned."""

from dataclasses import replace

import numpy as np
import pytest
from numba.core import config

from amos_ref.bench import workloads


def test_sizes_and_trees_have_as_many_parameters_as_they_say():
    for text, n in {"1": 1, "7": 7, "1e3": 1000, "1000": 1000, "999983": 999983, "1e8": 10**8}.items():
        work = workloads.parse_size(text)
        ((rows, columns),) = work.shapes
        assert rows * columns == work.parameters == n
        assert rows < columns or n == 1
    base = workloads.parse_tree("bert-base")
    # Published for bert-base-uncased with its pooler: 109,482,240, in 199 arrays.
    assert (len(base.shapes), base.parameters) == (199, 109_482_240)
    assert workloads.parse_tree("1000x64").shapes == ((64,),) * 1000


@pytest.mark.parametrize(
    ("changed", "per_parameter", "per_slot"),
    [
        (dict(), 16, 16),
        (dict(slot="row"), 16, 16),
        (dict(slot="column", state="float64"), 16, 32),
        (dict(slot="element"), 16, 16),  # a slot a parameter: 32
        (dict(slot="element", state="float64"), 16, 32),
        (dict(momentum=True), 24, 16),
        (dict(momentum=True, dtype="float16", state="float64"), 8 + 16, 32),
        (dict(dtype="bfloat16", slot="element"), 8, 8),
        (dict(dtype="float64"), 32, 32),
    ],
)
def test_the_bytes_of_a_step_are_counted(changed, per_parameter, per_slot):
    work = replace(workloads.parse_size("1e3"), **changed)
    ((rows, columns),) = work.shapes
    slots = {"tensor": 1, "row": rows, "column": columns, "element": 1000}[work.slot]
    assert work.slots == slots
    assert work.bytes == 1000 * per_parameter + slots * per_slot


@pytest.mark.parametrize("slot", workloads.SLOT_NAMES)
@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("bfloat16", 2), ("float64", 8)])
def test_the_bytes_of_the_closed_form_are_counted(slot, dtype, itemsize):
    """g and theta twice, whatever the slots; Adam's m and v, in float64, are read twice and written once."""
    work = replace(workloads.parse_size("1e3"), slot=slot, dtype=dtype, momentum=True)
    by_gradient, by_adam = work.as_closed_form("gradient"), work.as_closed_form("adam")
    assert by_gradient.bytes == 1000 * 4 * itemsize
    assert by_adam.bytes == 1000 * (4 * itemsize + 2 * 3 * 8)
    assert by_gradient.array_bytes == 1000 * 2 * itemsize
    assert by_adam.array_bytes == 1000 * (2 * itemsize + 2 * 8)
    assert by_adam.as_paper() == replace(work, momentum=False)
    assert str(by_adam).endswith(f"{slot} slots, closed form by adam, 1 thread")


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_of_the_closed_form_is_the_papers_in_both_directions(quick, backend):
    plan, papers = workloads.plan(quick, backend, "closed-form"), workloads.plan(quick, backend)
    assert len(set(plan)) == len(plan)
    assert {w.as_paper() for w in plan} == {w for w in papers if not w.momentum and w.state == "param"}
    assert {(w.algorithm, w.direction) for w in plan} == {("closed-form", "gradient"), ("closed-form", "adam")}


def test_slots_are_shapes_that_an_array_broadcasts_with():
    for shape in ((), (5,), (3, 4), (2, 3, 4)):
        for slot in workloads.SLOT_NAMES:
            if shape or slot in ("tensor", "element"):
                assert np.broadcast_shapes(workloads.slot_shape(slot, shape), shape) == shape
    assert [workloads.slot_shape(slot, (3, 4)) for slot in workloads.SLOT_NAMES] == [(), (3, 1), (1, 4), (3, 4)]


def test_every_combination_is_selected_once():
    works = workloads.select(["1e3", "5"], ["2x3"], ["row", "tensor"], ["float16", "float64"], ["1"], True, "float64")
    assert len(set(works)) == len(works) == 12
    assert {(w.momentum, w.state, w.threads) for w in works} == {(True, "float64", 1)}
    assert {w.name for w in works} == {"1e3", "5", "2x3"}


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_has_no_more_threads_than_numba(monkeypatch, quick):
    monkeypatch.setattr(workloads, "count_cores", lambda: 4)
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 3)
    assert {w.threads for w in workloads.plan(quick)} == {1, 3}
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 1)
    plan = workloads.plan(quick)
    assert {w.threads for w in plan} == {1}
    assert len(set(plan)) == len(plan)


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_has_every_size_slot_dtype_and_tree(quick):
    plan = workloads.plan(quick)
    assert len(set(plan)) == len(plan)
    assert {w.slot for w in plan} == set(workloads.SLOT_NAMES)
    assert {w.dtype for w in plan} == {"float16", "bfloat16", "float32", "float64"}
    assert {w.threads for w in plan} == {1, workloads.count_threads()}
    assert any(w.momentum for w in plan)
    assert any(len(w.shapes) == 1000 for w in plan)
    if not quick:
        sizes = {w.parameters for w in plan if len(w.shapes) == 1}
        assert sizes == {10**k for k in range(3, 9)}
        assert any(w.name == "bert-base" for w in plan)


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_of_a_gpu(quick):
    plan = workloads.plan(quick, "cuda")
    assert len(set(plan)) == len(plan)
    assert {w.threads for w in plan} == {0}
    assert not any("thread" in str(w) for w in plan)
    assert {w.slot for w in plan} == set(workloads.SLOT_NAMES)
    assert {w.dtype for w in plan} == {"float16", "bfloat16", "float32", "float64"}
    assert any(w.momentum for w in plan)
    assert {"1000x64", "bert-base"} <= {w.name for w in plan}
    large = {(w.parameters, w.slot) for w in plan if len(w.shapes) == 1 and w.dtype == "float32"}
    assert {(64 * 10**6, slot) for slot in workloads.SLOT_NAMES} <= large
    if not quick:
        assert {n for n, _ in large} >= {10**k for k in range(3, 9)} | {2 * 10**8}
        assert {"200x4096", "bert-mini"} <= {w.name for w in plan}
