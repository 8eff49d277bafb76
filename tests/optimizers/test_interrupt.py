"""Nothing half done: Ctrl-C, exceptions from the caller's own code, threads and forks, 2^31 steps."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
from helpers.leaves import wrap_run

import amos_ref
from amos_ref.errors import RuleError, ScheduleError
from amos_ref.kernels import page
from amos_ref.kernels.cpu import backend as cpu

BACKENDS = {"numpy": page, "cpu": cpu}
OPTIONS = dict(
    learning_rate=0.25, eta=0.5, beta=0.75, momentum=0.5, extra_l2=0.125, slot_shape={"k": "(1, SHAPE[1])", "": ()}
)


def tree(seed=1):
    rng = np.random.default_rng(seed)
    return {"k": rng.standard_normal((6, 5)), "v": rng.standard_normal(7).astype(np.float32)}


def bits(*trees):
    return [a.tobytes() for t in trees for a in amos_ref.tree.flatten(t).values()]


def all_bits(params, state):
    return bits(params, state.v, state.b, state.m or {})


def after(steps, backend="numpy"):
    params, opt = tree(), amos_ref.Amos(**OPTIONS, backend=backend)
    state = opt.init(params)
    for k in range(steps):
        state = opt.step(params, tree(10 + k), state)
    return all_bits(params, state)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moment", ["before", "between leaves", "behind"])
def test_ctrl_c_waits_for_the_whole_step(backend, moment, monkeypatch):
    def interrupted(leaves, run):
        if moment == "before":
            signal.raise_signal(signal.SIGINT)
        for leaf in leaves:
            run([leaf])
            if moment == "between leaves":
                signal.raise_signal(signal.SIGINT)
        if moment == "behind":
            signal.raise_signal(signal.SIGINT)
        return -1

    params, opt, want = tree(), amos_ref.Amos(**OPTIONS, backend=backend), after(1)
    state = opt.init(params)
    wrap_run(monkeypatch, BACKENDS[backend].Work, interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        opt.step(params, tree(10), state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert stop.value.amos_state.count == 1
    assert all_bits(params, stop.value.amos_state) == want


def test_the_interrupt_test_can_fail(monkeypatch):
    """Without the guard, Ctrl-C between two leaves leaves half a step behind."""

    class Nothing:
        def __init__(self, state):
            pass

        __enter__ = __exit__ = lambda self, *args: None

    monkeypatch.setattr("amos_ref.optimizers.base.InterruptGuard", Nothing)
    wanted = after(0), after(1)

    def interrupted(leaves, run):
        run(leaves[:1])
        signal.raise_signal(signal.SIGINT)

    wrap_run(monkeypatch, page.Work, interrupted)
    params, opt = tree(), amos_ref.Amos(**OPTIONS, backend="numpy")
    state = opt.init(params)
    with pytest.raises(KeyboardInterrupt):
        opt.step(params, tree(10), state)
    assert all_bits(params, state) not in wanted


def test_ctrl_c_that_meets_an_error_carries_no_state(monkeypatch):
    def failing(leaves, run):
        signal.raise_signal(signal.SIGINT)
        raise MemoryError

    wrap_run(monkeypatch, page.Work, failing)
    params, opt = tree(), amos_ref.Amos(**OPTIONS, backend="numpy")
    state = opt.init(params)
    with pytest.raises(KeyboardInterrupt) as stop:
        opt.step(params, tree(10), state)
    assert not hasattr(stop.value, "amos_state")
    assert all_bits(params, state) == after(0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("error", [ZeroDivisionError("at 2"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_schedule_raises_leaves_everything_as_it_was(backend, error):
    def schedule(t):
        if t == 2:
            raise error
        return 0.25

    params, opt = tree(), amos_ref.Amos(**OPTIONS | {"learning_rate": schedule}, backend=backend)
    state = opt.step(params, tree(10), opt.init(params))
    for call in (lambda: opt.step(params, tree(11), state), lambda: opt.update(tree(11), state, params)):
        with pytest.raises(ScheduleError if isinstance(error, Exception) else type(error)):
            call()
        assert all_bits(params, state) == after(1)
    assert state.count == 1


def test_what_a_rule_raises_leaves_everything_as_it_was():
    def eta(name, shape):
        if name == "v":
            raise KeyError(name)
        return 0.5

    params, opt = tree(), amos_ref.Amos(**OPTIONS | {"eta": eta})
    with pytest.raises(RuleError, match="the callable failed for leaf 'v': KeyError"):
        opt.init(params)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_allocation_that_fails_leaves_everything_as_it_was(backend, monkeypatch):
    """Memory may run out for the last leaf, after the first was reduced and decided."""
    params, opt = tree(), amos_ref.Amos(**OPTIONS, backend=backend)
    state = opt.init(params)
    target, name = (cpu.Part, "reduce") if backend == "cpu" else (page, "rounded")
    right, calls = getattr(target, name), []

    def fails_the_second_time(*args):
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError
        return right(*args)

    monkeypatch.setattr(target, name, fails_the_second_time)
    with pytest.raises(MemoryError):
        opt.step(params, tree(10), state)
    assert len(calls) == 2
    assert all_bits(params, state) == after(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_step_trees_of_their_own(backend):
    want, got = after(5), {}

    def work(k):
        got[k] = after(5, backend)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == dict.fromkeys(range(8), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_steps_on(backend):
    want = after(5)
    after(1, backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if after(5, backend) == want else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_count_passes_2_to_the_31(backend):
    params, opt = tree(), amos_ref.Amos(**OPTIONS, backend=backend)
    state = opt.init(params)._replace(count=2**31 - 2)
    for k in range(4):
        state = opt.step(params, tree(10 + k), state)
    assert state.count == 2**31 + 2
    assert opt.trace(tree(), state, params).t == 2**31 + 3
