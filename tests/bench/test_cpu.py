"""This package as contenders on the host: what is timed are the steps of the page."""

from dataclasses import replace

import pytest
from helpers import strategies as own

import amos_ref
from amos_ref.bench import cpu, workloads
from amos_ref.errors import StateError


def take_steps(work, steps, run=cpu.AmosStepper.run):
    stepper = cpu.AmosStepper(work, "cpu")
    for _ in range(steps):
        run(stepper)
    return {name: own.bits(a) for name, a in stepper.params.items()}


def step_page(work, steps):
    """Take the same steps by the page, with the options written down here once more."""
    params, grads = workloads.draw_arrays(work)
    slots = {name: workloads.slot_shape(work.slot, a.shape) for name, a in params.items()}
    opt = amos_ref.Amos(
        1e-3,
        0.5,
        lambda name, shape: slots[name],
        beta=0.999,
        momentum=0.9 if work.momentum else None,
        state_dtype=work.state,
        backend="numpy",
    )
    state = opt.init(params)
    for _ in range(steps):
        state = opt.step(params, grads, state)
    return {name: own.bits(a) for name, a in params.items()}


@pytest.mark.parametrize("slot", workloads.SLOT_NAMES)
@pytest.mark.parametrize("changed", [dict(), dict(momentum=True), dict(state="float64"), dict(dtype="bfloat16")])
def test_our_contender_takes_the_steps_of_the_page(slot, changed):
    work = replace(workloads.parse_size("1e3"), slot=slot, **changed)
    assert take_steps(work, 3) == step_page(work, 3) != step_page(work, 0)
    tree = replace(workloads.parse_tree("3x64"), slot=slot, **changed)
    assert take_steps(tree, 2) == step_page(tree, 2) != step_page(tree, 1)


@pytest.mark.parametrize("direction", workloads.BENCH_DIRECTIONS)
@pytest.mark.parametrize("slot", workloads.SLOT_NAMES)
def test_our_contender_takes_the_steps_of_the_closed_form(slot, direction):
    work = replace(workloads.parse_tree("3x64"), slot=slot).as_closed_form(direction)
    params, grads = workloads.draw_arrays(work)
    slots = {name: workloads.slot_shape(slot, a.shape) for name, a in params.items()}
    options = dict(half_life=1000, sigma=0.5, direction=direction, slot_shape=lambda name, shape: slots[name])
    opt = amos_ref.ClosedFormAmos(1e-3, **options, backend="numpy")
    state = opt.init(params)
    for _ in range(3):
        state = opt.step(params, grads, state)
    assert take_steps(work, 3) == {name: own.bits(a) for name, a in params.items()} != take_steps(work, 2)


def test_steps_are_timed_where_most_of_them_divide_by_1():
    work = workloads.parse_size("1e3").as_closed_form("adam")
    for contender in (cpu.CPU_KERNELS, cpu.BOUND):
        stepper = contender.build(work)
        assert stepper.state.count == cpu.LATER
        ones = [stepper.opt._rates(cpu.LATER + k).aims.q1 == 1.0 for k in range(1000)]
        assert 0.75 < sum(ones) / 1000 < 0.85
        assert stepper.opt._rates(300).aims.q1 != 1.0


def test_beside_the_closed_form_paper_amos_has_the_same_slots():
    work = replace(workloads.parse_size("1e3"), slot="row").as_closed_form("adam")
    stepper = cpu.CPU_PAPER.build(work)
    assert type(stepper.opt) is amos_ref.Amos
    assert stepper.state.v["leaf0000"].shape == workloads.slot_shape("row", work.shapes[0])
    assert cpu.CPU_PAPER.count_moved_bytes(work) == work.as_paper().bytes < work.bytes


def forget_state(stepper):
    stepper.opt.step(stepper.params, stepper.grads, stepper.state)


def test_a_contender_that_drops_its_state_would_be_seen():
    with pytest.raises(StateError, match="stepped in place at step 1"):
        take_steps(workloads.parse_size("1e3"), 3, forget_state)


def test_the_page_is_not_measured_on_large_arrays():
    assert cpu.PAGE.find_limit(workloads.parse_size("1e6"), 0) is None
    assert "up to 1000000 parameters" in cpu.PAGE.find_limit(workloads.parse_size("1e7"), 0)
