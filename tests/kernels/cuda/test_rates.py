"""Recorded steps find the numbers of each step by themselves, or in a table that was put on the device."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import strategies as own
from helpers.placed import to_device

import amos_ref
from amos_ref import spec
from amos_ref.errors import BackendError, HyperParameterError, NonFiniteError
from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda import backend as cuda
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda import rates as moving
from amos_ref.kernels.cuda.arrays import device_array
from amos_ref.kernels.cuda.slots import NONE

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
DIRECTIONS = ("gradient", "sign", "adam")
as_if_recorded = pytest.mark.skipif(not SIMULATED, reason="nothing is recorded; tests/gpu/test_gpu_replays.py does")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def optimizer(backend, rate):
    """Paper Amos at a learning rate, or the closed form along a direction."""
    if isinstance(rate, str):
        slots = {"b": "element", "w": "(1, SHAPE[1])"}
        return amos_ref.ClosedFormAmos(0.2, half_life=3, q=1.5, slot_shape=slots, direction=rate, backend=backend)
    options = dict(slot_shape={"b": (), "w": "(1, SHAPE[1])"}, beta=0.75, momentum=0.9, extra_l2=0.05)
    return amos_ref.Amos(rate, 0.6, **options, backend=backend)


def tree(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in {"b": (5,), "w": (3, 2)}.items()}


def moved(arrays):
    return {name: to_device(a) for name, a in arrays.items()}


def same_bits(params, state, there, state_there):
    assert state.count == state_there.count
    for ours, theirs in ((params, there), *zip(state[1:], state_there[1:], strict=True)):
        for name, a in (ours or {}).items():
            assert own.bits(theirs[name].copy_to_host()) == own.bits(a), name


def replays(rate):
    """An optimizer on the page and one on the device, each with what it steps; the latter's work, as if recorded."""
    ours, theirs = optimizer("numpy", rate), optimizer("cuda", rate)
    params, grads = tree(1), tree(2)
    there, gradients = moved(params), moved(grads)
    state, state_there = ours.init(params), theirs.init(there)
    state, state_there = ours.step(params, grads, state), theirs.step(there, gradients, state_there)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_driver, "is_capturing", lambda stream: True)
        patch.setattr(cuda.Work, "launch", lambda work, stream: None)
        patch.setattr(cuda_driver, "launcher", lambda *args: lambda *args: None)
        assert theirs.step(there, gradients, state_there) is state_there
    return (ours, params, grads, state), (theirs, there, gradients, state_there), theirs._last.peek().work


def replay(work, opt):
    """What a replay of a recorded step does."""
    work.record(opt._at(SimpleNamespace(count=0)), work.numbers.replays, cuda_driver.stream_of(None, 0))


@as_if_recorded
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rate", [0.3, lambda t: 0.3 / t, *DIRECTIONS], ids=["constant", "schedule", *DIRECTIONS])
def test_advance_says_which_steps_are_replayed(rate, steps):
    (ours, params, grads, state), (theirs, there, _held, state_there), work = replays(rate)
    for _ in range(2):
        state_there = theirs.advance(state_there, steps=steps)
        for _ in range(steps):
            state = ours.step(params, grads, state)
            replay(work, theirs)
    theirs.synchronize()
    same_bits(params, state, there, state_there)


@as_if_recorded
def test_replays_at_a_constant_rate_need_no_advance_also_after_a_step_in_between():
    (ours, params, grads, state), (theirs, there, gradients, state_there), work = replays(0.3)
    for _ in range(3):
        state = ours.step(params, grads, state)
        replay(work, theirs)
    state_there = state_there._replace(count=state.count)
    state, state_there = ours.step(params, grads, state), theirs.step(there, gradients, state_there)
    state = ours.step(params, grads, state)
    replay(work, theirs)
    theirs.synchronize()
    same_bits(params, state, there, state_there._replace(count=state.count))


@as_if_recorded
@pytest.mark.parametrize("rate", [lambda t: 0.3 / t, "gradient", "adam"], ids=["schedule", "gradient", "adam"])
def test_a_replay_beyond_the_table_writes_nothing_and_is_named(rate):
    (ours, params, grads, state), (theirs, there, gradients, state_there), work = replays(rate)
    state_there = theirs.advance(state_there, steps=2)
    for _ in range(2):
        state = ours.step(params, grads, state)
    for _ in range(4):
        replay(work, theirs)
    with pytest.raises(BackendError, match=r"more ran than opt\.advance"):
        theirs.synchronize()
    same_bits(params, state, there, state_there)
    state, state_there = ours.step(params, grads, state), theirs.step(there, gradients, state_there)
    same_bits(params, state, there, state_there)


@as_if_recorded
def test_a_learning_rate_that_is_set_reaches_replays_by_advance():
    (ours, params, grads, state), (theirs, there, _held, state_there), work = replays(0.3)
    for rate in (0.1, lambda t: 0.2 / t, 0.3):
        for opt in (ours, theirs):
            opt.set_learning_rate(rate)
        state_there = theirs.advance(state_there, steps=2)
        for _ in range(2):
            state = ours.step(params, grads, state)
            replay(work, theirs)
    theirs.synchronize()
    same_bits(params, state, there, state_there)


@pytest.mark.parametrize("steps", [0, -1, 1.0, True, None])
def test_a_number_of_replays_that_is_none_is_refused(steps):
    opt = optimizer("cuda", 0.3)
    with pytest.raises(HyperParameterError, match=f"steps is {steps!r}; it must be a whole number"):
        opt.advance(opt.init(moved(tree(1))), steps=steps)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 1 - 2**-53])
def test_the_device_has_the_pages_power(beta):
    for t in (1, 2, 3, 7, 1000, 12345, 2**31 + 1, 2**53 + 1, 2**62 + 5):
        rates, place = to_device(np.zeros(5)), to_device(np.array([t - 1, 0, moving.STEADY, 0]))
        flag, at = arrays.upload(np.array([NONE])), device_array(rates, "").address
        launch = cuda_driver.launcher(moving.next_numbers, 1, 1, 0)
        launch(at + 16, 2, arrays.describe(place).address, flag.address, beta)
        assert rates.copy_to_host()[2] == spec.one_minus_power(beta, t)
        assert place.copy_to_host()[0] == t


RATES = {"constant": 0.3, "schedule": lambda t: 0.3 / t, "gradient": "gradient", "adam": "adam"}


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_steps_that_wrote_nothing_are_not_counted(rate, before):
    """A gradient that is not finite, and steps after it before the host learns of it: bound, and not waited for."""
    ours, theirs = optimizer("numpy", rate), optimizer("cuda", rate)
    params, grads = tree(1), tree(2)
    there, gradients = moved(params), moved(grads)
    state, bound = ours.init(params), theirs.bind(there, gradients, theirs.init(there), sync=False)
    for _ in range(before):
        state = ours.step(params, grads, state)
        bound()
    good = gradients["w"].copy_to_host()
    gradients["w"].copy_to_device(np.full_like(good, np.nan))
    for _ in range(3):
        bound()
    gradients["w"].copy_to_device(good)
    bound()
    assert bound.state.count == before + 4
    with pytest.raises(NonFiniteError, match=rf"'w' is or was not finite, in the step after {before}; that") as told:
        bound.synchronize()
    assert told.value.count == before == bound.state.count
    for _ in range(2):
        state = ours.step(params, grads, state)
        bound()
    bound.synchronize()
    same_bits(params, state, there, bound.state)


@as_if_recorded
def test_which_step_it_was_is_not_said_where_it_may_have_been_another():
    opt = optimizer("cuda", 0.3)
    there, gradients = moved(tree(1)), moved(tree(2))
    state = opt.step(there, gradients, opt.init(there))
    gradients["w"].copy_to_device(np.full((3, 2), np.nan, np.float32))
    state = opt.step(there, gradients, state, sync=False)
    opt.step(there, gradients, state._replace(count=5), sync=False)  # a count that does not follow
    with pytest.raises(NonFiniteError, match="in some step since the host last waited") as told:
        opt.synchronize()
    assert told.value.count is None
    (_, _, _, _), (theirs, there, gradients, state_there), work = replays(0.3)
    gradients["w"].copy_to_device(np.full((3, 2), np.nan, np.float32))
    replay(work, theirs)
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="in some step since") as told:
            theirs.synchronize()
        assert told.value.count is None
        state_there = theirs.step(there, gradients, state_there, sync=False)


def test_a_count_that_goes_on_behind_a_step_that_wrote_nothing_would_be_seen(monkeypatch):
    monkeypatch.setattr(moving.Numbers, "taken", lambda numbers, stream: numbers.counted[0])
    with pytest.raises(AssertionError):
        test_steps_that_wrote_nothing_are_not_counted(0.3, 1)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_steps_of_two_states_and_of_other_rates_find_their_numbers(rate):
    """Counts that jump, learning rates that change, and a schedule for a constant: each step has its own numbers."""
    ours, theirs = optimizer("numpy", rate), optimizer("cuda", rate)
    params, grads = tree(1), tree(2)
    there, gradients = moved(params), moved(grads)
    state, state_there = ours.init(params), theirs.init(there)
    for step, count in enumerate([0, 1, 7, 8, 3, 2**40, 2**40 + 1, 5, 6, 7]):
        state, state_there = state._replace(count=count), state_there._replace(count=count)
        if step in (4, 8) and not isinstance(rate, str):
            for opt in (ours, theirs):
                opt.set_learning_rate(0.2 if step == 4 else lambda t: 0.1 / t)
        state = ours.step(params, grads, state)
        state_there = theirs.step(there, gradients, state_there, sync=step % 2 == 0)
    theirs.synchronize()
    same_bits(params, state, there, state_there)
