"""Nothing half done, by any optimizer: Ctrl-C, exceptions from the caller's own code, memory that runs out."""

import signal

import numpy as np
import pytest
from helpers.leaves import wrap_run
from helpers.optimizers import BACKENDS, CASES, MEMBERS, cases, make
from helpers.trees import all_bits

from amos_ref import errors
from amos_ref.kernels import page
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers import base


def tree(seed=1):
    rng = np.random.default_rng(seed)
    return {"k": rng.standard_normal((6, 5)), "v": rng.standard_normal(7).astype(np.float32)}


def start(name, backend, **changes):
    """An optimizer, its parameters and their state."""
    opt, params = make(name, backend, **changes), tree()
    return opt, params, opt.init(params)


def after(steps, name, **changes):
    """All bits after so many steps that nothing disturbs."""
    opt, params, state = start(name, "numpy", **changes)
    for k in range(steps):
        state = opt.step(params, tree(10 + k), state)
    return all_bits((params, state[1:]))


# Ctrl-C


@pytest.mark.parametrize("moment", ["before", "between leaves", "behind"])
@cases
def test_ctrl_c_waits_for_the_whole_step(name, backend, moment, monkeypatch):
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

    opt, params, state = start(name, backend)
    wrap_run(monkeypatch, BACKENDS[backend].Work, interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        opt.step(params, tree(10), state)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert stop.value.amos_state.count == 1
    monkeypatch.undo()
    assert all_bits((params, stop.value.amos_state[1:])) == after(1, name)


@cases
def test_without_the_guard_half_a_step_would_be_left_behind(name, backend, monkeypatch):
    class Nothing:
        def __init__(self, state):
            pass

        __enter__ = __exit__ = lambda self, *args: None

    wanted = after(0, name), after(1, name)
    monkeypatch.setattr(base, "InterruptGuard", Nothing)

    def interrupted(leaves, run):
        run(leaves[:1])
        signal.raise_signal(signal.SIGINT)

    opt, params, state = start(name, backend)
    wrap_run(monkeypatch, BACKENDS[backend].Work, interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.step(params, tree(10), state)
    assert all_bits((params, state[1:])) not in wanted


@cases
def test_ctrl_c_that_meets_an_error_carries_no_state(name, backend, monkeypatch):
    def failing(leaves, run):
        signal.raise_signal(signal.SIGINT)
        raise MemoryError

    opt, params, state = start(name, backend)
    wrap_run(monkeypatch, BACKENDS[backend].Work, failing)
    with pytest.raises(KeyboardInterrupt) as stop:
        opt.step(params, tree(10), state)
    assert not hasattr(stop.value, "amos_state")
    assert all_bits((params, state[1:])) == after(0, name)


# what the caller's own code raises

SCHEDULED = {"Amos": "learning_rate", "Amos that averages and clips": "learning_rate", "AdamW": "learning_rate"}


@pytest.mark.parametrize("error", [ZeroDivisionError("at 2"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0] in SCHEDULED])
def test_what_a_schedule_raises_leaves_everything_as_it_was(name, backend, error):
    def schedule(t):
        if t == 2:
            raise error
        return 0.25

    opt, params, state = start(name, backend, learning_rate=schedule)
    state = opt.step(params, tree(10), state)
    wanted = after(1, name, learning_rate=0.25)
    for call in (opt.step, lambda p, g, s: opt.update(g, s, p), lambda p, g, s: opt.trace(g, s, p)):
        with pytest.raises(errors.ScheduleError if isinstance(error, Exception) else type(error)):
            call(params, tree(11), state)
        assert all_bits((params, state[1:])) == wanted
    assert state.count == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("at v"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_direction_raises_leaves_everything_as_it_was(backend, error):
    def direction(name, g, t):
        if (name, t) == ("v", 1):
            raise error
        return g

    name = "ClosedFormAmos by a callable"
    opt, params, state = start(name, backend, direction=direction)
    state = opt.step(params, tree(10), state)
    for call in (opt.step, lambda p, g, s: opt.update(g, s, p), lambda p, g, s: opt.trace(g, s, p)):
        with pytest.raises(errors.DirectionError if isinstance(error, Exception) else type(error)):
            call(params, tree(11), state)
        assert all_bits((params, state[1:])) == after(1, "ClosedFormAmos by gradient")
    assert state.count == 1


def test_what_a_rule_raises_leaves_everything_as_it_was():
    def rule(name, shape):
        if name == "v":
            raise KeyError(name)
        return 0.5

    params = tree()
    for opt in (make("Amos", eta=rule), make("ClosedFormAmos by gradient", sigma=rule)):
        with pytest.raises(errors.RuleError, match="the callable failed for leaf 'v': KeyError"):
            opt.init(params)
        assert all_bits(params) == all_bits(tree())


# memory that runs out at each call that allocates before a step writes

#: Backend, method, and what fails: a function of a module, or the optimizer's own page. Launches of the kernels only
#: read at first, at least four times with the tree above.
ALLOCATIONS = {
    "results": ("numpy", "step", page, "round_like"),
    "reductions": ("cpu", "step", cpu.Part, "reduce"),
    "launches": ("cpu", "step", cpu, "launch"),
    "checks": ("numpy", "step", base, "check_written"),
    "the page": ("numpy", "step", None, "page"),
    "the page of update": ("numpy", "update", None, "page"),
    "the page of trace": ("numpy", "trace", None, "page"),
}
MEMORY_CASES = [(name, where) for name in MEMBERS for where, (b, *_) in ALLOCATIONS.items() if (name, b) in CASES]


def fail_at(monkeypatch, opt, target, call, number):
    """Let the call of this number raise MemoryError."""
    right, calls = getattr(target or type(opt).method, call), []

    def failing(*args):
        calls.append(args)
        if len(calls) == number:
            raise MemoryError
        return right(*args)

    if target is None:
        monkeypatch.setattr(type(opt), "method", type(opt).method._replace(page=failing))
    else:
        monkeypatch.setattr(target, call, failing)


@pytest.mark.parametrize(("name", "where"), MEMORY_CASES, ids=[", ".join(case) for case in MEMORY_CASES])
def test_an_allocation_that_fails_leaves_everything_as_it_was(name, where, monkeypatch):
    backend, method, target, call = ALLOCATIONS[where]
    _, params, state = start(name, backend)
    failed = 0
    for number in range(1, 5 if where == "launches" else 20):
        opt = make(name, backend)
        with monkeypatch.context() as context:
            fail_at(context, opt, target, call, number)
            try:
                if method == "step":
                    opt.step(params, tree(10), state)
                else:
                    getattr(opt, method)(tree(10), state, params)
                break  # there was memory enough
            except MemoryError:
                failed += 1
        assert all_bits((params, state[1:])) == after(0, name)
    assert failed >= (1 if where in ("checks", "launches") else 2)
    if method == "step":
        if where == "launches":
            opt.step(params, tree(10), state)
        assert all_bits((params, state[1:])) == after(1, name)
