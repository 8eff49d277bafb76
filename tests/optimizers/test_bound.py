"""Steps that are bound to their arrays; tests/helpers/sequences.py holds them against the page."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
from helpers import strategies as own
from helpers.sequences import FOUR, Life, burst

import amos_ref
from amos_ref.errors import BackendError, NonFiniteError, OverlapError, ScheduleError, StateError
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers import bound as module
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.interrupt import InterruptGuard

MAKE = {
    "amos": lambda backend: amos_ref.Amos(lambda t: 0.3 / t, 0.5, momentum=0.9, backend=backend),
    "closed form": lambda backend: amos_ref.ClosedFormAmos(0.1, half_life=3, backend=backend),
    "closed form, adam": lambda backend: amos_ref.ClosedFormAmos(0.1, half_life=3, direction="adam", backend=backend),
}
BACKENDS = ("numpy", "cpu")


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {"a": rng.standard_normal((2, 3), np.float32), "b": np.array(rng.standard_normal(), np.float32)}


def started(backend="cpu", member="amos", **changes):
    opt, params, grads = MAKE[member](backend), arrays(1), arrays(2) | changes
    return opt, params, grads, opt.init(params)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("member", MAKE)
def test_a_bound_step_is_the_step(member, backend):
    opt, params, grads, state = started(backend, member, b=None)
    other, theirs, _, reference = started(backend, member)
    step = opt.bind(params, grads, state)
    for t in range(4):
        grads["a"][...] = arrays(10 + t)["a"]
        state, reference = step(), other.step(theirs, grads, reference)
        assert step.state is state
        assert state.count == reference.count == t + 1
        assert own.bits(params["a"]) == own.bits(theirs["a"])
    grads["a"][1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"gradient of leaf 'a'\[1, 2\] is nan"):
        step()
    assert step.state is state
    assert own.bits(params["a"]) == own.bits(theirs["a"])
    grads["a"][1, 2] = 0.5
    step()
    other.step(theirs, grads, reference)
    assert own.bits(params["a"]) == own.bits(theirs["a"])


def test_nothing_is_asked_of_an_array_again(monkeypatch):
    opt, params, grads, state = started()
    step = opt.bind(params, grads, state)
    monkeypatch.setattr(Amos, "_lay_out", lambda *args: pytest.fail("it is laid out anew"))
    monkeypatch.setattr(module.BoundStep, "_step_anew", lambda self: pytest.fail("it is a step like any other"))
    params["a"] = grads["b"] = None  # what the trees hold now is nothing to it
    assert step().count == 1


def with_the_first_numbers(self, work):
    """A version that steps with the numbers of its first step."""
    self.first = getattr(self, "first", None) or self._optimizer._rates_of(self._state)
    work.run = lambda rates, **launch: type(work).run(work, self.first, **launch)
    return step_on(self, work)


def with_old_gradients(self, gradients, addresses):
    """A version that reads what the gradients were when they were bound."""
    if not hasattr(self, "old"):
        self.old = [np.copy(g) for g in gradients]
    take(self, self.old, None)


take, step_on = cpu.Work.take, module.BoundStep._step_on


@pytest.mark.parametrize("wrong", [with_the_first_numbers, with_old_gradients])
def test_a_wrong_version_is_seen(wrong, monkeypatch):
    life = Life("amos", "cpu", FOUR)
    burst(life, 1, 4, ["bound"])
    life.gradients()
    life.bound()
    place, name = (module.BoundStep, "_step_on") if wrong is with_the_first_numbers else (cpu.Work, "take")
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError, match="should be"):
        life.bound()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_refused_when_it_is_bound(backend):
    opt, params, grads, state = started(backend)
    with pytest.raises(OverlapError):
        opt.bind(params, params, state)
    with pytest.raises(StateError):
        opt.bind(params, grads, None)
    with pytest.raises(BackendError, match="stream is 3, which is for backend 'cuda'"):
        opt.bind(params, grads, state, stream=3)


def test_it_holds_its_arrays_until_it_is_closed():
    opt, params, grads, state = started()
    gone = weakref.ref(params["a"])
    with opt.bind(params, grads, state) as step:
        del params, state
        gc.collect()
        step()
        assert gone() is not None
    gc.collect()
    assert gone() is None
    assert step.state is None
    step.close()
    for call in (step, step.synchronize):
        with pytest.raises(StateError, match="this bound step is closed"):
            call()


@pytest.mark.parametrize("do", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(do):
    step = started()[0].bind(*started()[1:])
    with pytest.raises(TypeError, match="can be neither copied nor pickled; bind again"):
        do(step)


def test_a_state_that_was_stepped_elsewhere_is_refused_and_so_is_that_of_a_bound_step():
    opt, params, grads, state = started()
    step = opt.bind(params, grads, state)
    step()
    with pytest.raises(StateError, match="this state was stepped in place at step 1"):
        opt.step(params, grads, state)
    state = opt.step(params, grads, step.state)
    with pytest.raises(StateError, match="this state was stepped in place at step 2"):
        step()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_schedule_may_fail_or_be_set_and_may_not_take_the_step(backend):
    opt, params, grads, state = started(backend)
    step = opt.bind(params, grads, state)
    before = own.bits(params["a"])

    def fails(t):
        raise KeyError(t)

    said = []

    def takes(t):
        with pytest.raises(StateError, match="is being taken"):
            step()
        said.append(t)
        return 0.1

    opt.set_learning_rate(fails)
    with pytest.raises(ScheduleError):
        step()
    assert own.bits(params["a"]) == before
    opt.set_learning_rate(takes)
    assert step().count == 1
    assert said == [1]


def test_two_threads_take_no_step_at_once():
    opt, params, grads, state = started()
    inside, leave = threading.Event(), threading.Event()

    def waits(t):
        inside.set()
        leave.wait(60)
        return 0.1

    opt.set_learning_rate(waits)
    step = opt.bind(params, grads, state)
    inside.clear()
    thread = threading.Thread(target=step)
    thread.start()
    inside.wait(60)
    with pytest.raises(StateError, match="is being taken"):
        step()
    leave.set()
    thread.join()
    assert step.state.count == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_comes_after_the_step_and_the_state_is_the_new_one(backend, monkeypatch):
    opt, params, grads, state = started(backend)
    step = opt.bind(params, grads, state)
    leave = InterruptGuard.__exit__

    def interrupted(self, *raised):
        leave(self, *raised)
        raise KeyboardInterrupt

    monkeypatch.setattr(InterruptGuard, "__exit__", interrupted)
    with pytest.raises(KeyboardInterrupt) as seen:
        step()
    assert step.state.count == 1
    assert seen.value.amos_state is step.state
    monkeypatch.undo()
    assert step().count == 2


@pytest.mark.parametrize("change", [dict(order="F"), dict(validate=True)], ids=str)
def test_where_no_layout_can_be_kept_it_is_a_step_like_any_other(change):
    params, grads = ({"a": np.array(a["a"], order=change.get("order", "C"))} for a in (arrays(1), arrays(2)))
    expected = {"a": np.array(params["a"])}
    options = {key: value for key, value in change.items() if key == "validate"}
    opt, other = (amos_ref.Amos(0.3, 0.5, backend="cpu", **options) for _ in range(2))
    step, state = opt.bind(params, grads, opt.init(params)), other.init(expected)
    for t in range(3):
        grads["a"][...] = arrays(t)["a"]
        state = other.step(expected, {"a": np.array(grads["a"])}, state)
        assert step().count == state.count
    assert own.bits(params["a"]) == own.bits(expected["a"])


def test_options_that_are_set_want_the_step_bound_again():
    """The kernels' work holds eta of each leaf, which the bound step would go on with."""
    params, grads = {"a": np.ones(3), "b": np.ones((2, 3))}, {"a": np.full(3, 0.5), "b": np.full((2, 3), 0.25)}
    opt = amos_ref.Amos(0.1, eta=0.5, backend="cpu")
    bound = opt.bind(params, grads, opt.init(params))
    bound()
    opt.set_learning_rate(0.05)
    bound()
    opt.set_params(frozen={"a": True, "b": False})
    before = {name: a.copy() for name, a in params.items()}
    with pytest.raises(StateError, match="set_params has set the options since this step was bound: bind again"):
        bound()
    assert all(np.array_equal(a, before[name]) for name, a in params.items())
    state = opt.bind(params, grads, bound.state)()
    assert state.count == 3
    assert np.array_equal(params["a"], before["a"])
    assert not np.array_equal(params["b"], before["b"])
