"""Schedules, rules and directions are the caller's code: whatever they do, a step is that of the page, or an error."""

import collections
import threading

import numpy as np
import pytest
from helpers import strategies as own

import amos_ref
from amos_ref.errors import NonFiniteError
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import threads
from amos_ref.kernels.table import LITTLE

backends = pytest.mark.parametrize("backend", ["numpy", "cpu"])
N = 50_000  # large enough that freed memory goes back to the system, or to the next array of this size


def tree(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(N) for name in "ab"}


def parts(state):
    return {part: getattr(state, part) for part in state._fields[1:] if getattr(state, part) is not None}


def optimizer(kind, backend, act):
    """An optimizer whose schedule, direction or rule calls `act`."""
    if kind == "schedule":
        return amos_ref.Amos(lambda t: act() or 0.1, slot_shape="element", momentum=0.9, backend=backend)
    if kind == "rule":
        return amos_ref.Amos(0.1, eta=lambda name, shape: act() or 0.5, slot_shape="element", backend=backend)
    return amos_ref.ClosedFormAmos(half_life=9, direction=lambda name, g, t: act() or g, backend=backend)


def steps_with_a_replacement(kind, what, when, backend):
    """All bits after four steps; at the `when`-th call of the callable an array is freed, another takes its place."""
    params, grads, calls, others = tree(1), tree(2), [], []

    def act():
        calls.append(1)
        named = {"params": params, "grads": grads, **parts(state)}.get(what)
        if len(calls) == when and named is not None:
            shape = named["b"].shape
            named["b"] = None
            others.extend(np.full(N, 7.0) for _ in range(4))
            named["b"] = np.full(shape, 3.0)

    opt = optimizer(kind, backend, act)
    state = opt.init(params)
    for _ in range(4):
        state = opt.step(params, grads, state)
    assert all((a == 7.0).all() for a in others), "an array of somebody else was written to"
    arrays = [*params.values(), *(a for part in parts(state).values() for a in part.values())]
    return [own.bits(a) for a in arrays]


@pytest.mark.parametrize("when", [1, 3])
@pytest.mark.parametrize("what", ["params", "grads", "v", "m", "sigma"])
@pytest.mark.parametrize("kind", ["schedule", "direction"])
def test_a_callable_may_replace_what_is_stepped(kind, what, when):
    ours, theirs = (steps_with_a_replacement(kind, what, when, backend) for backend in ("cpu", "numpy"))
    assert ours == theirs


@backends
def test_a_rule_that_replaces_a_parameter_is_followed(backend):
    params, old = {name: np.ones(4) for name in "ab"}, []

    def act():
        if params["b"].size and params["b"][0] == 1.0 and ready:
            old.append(params["b"])
            params["b"] = np.zeros(4)

    ready, opt = [], optimizer("rule", backend, act)
    state = amos_ref.Amos(slot_shape="element").init(params)
    ready.append(True)
    for _ in range(3):
        state = opt.step(params, {name: np.ones(4) for name in "ab"}, state)
    assert (old[0] == 1.0).all()
    assert (params["b"] < 0).all()


@backends
@pytest.mark.parametrize("kept", [False, True])
def test_a_refused_step_calls_everything_once(backend, kept):
    called = []

    def direction(name, g, t):
        called.append((name, t))
        return g

    opt = amos_ref.ClosedFormAmos(half_life=9, direction=direction, backend=backend)
    amos = amos_ref.Amos(lambda t: called.append(("lr", t)) or 0.1, backend=backend)
    for one, wanted in ((opt, "a"), (amos, "lr")):
        params, grads = {"a": np.ones(3)}, {"a": np.ones(3)}
        state = one.init(params)
        state = one.step(params, grads, state) if kept else state
        called.clear()
        grads["a"][1] = np.nan
        with pytest.raises(NonFiniteError, match=r"gradient of leaf 'a'\[1\] is nan"):
            one.step(params, grads, state)
        assert called in ([], [(wanted, state.count + one.first_step)])  # a direction is not asked for NaN


@backends
def test_a_direction_that_is_infinite_once_is_refused(backend):
    answers = [1.0, np.inf, 1.0]
    opt = amos_ref.ClosedFormAmos(half_life=9, direction=lambda name, g, t: g * answers.pop(0), backend=backend)
    params = {"a": np.ones(3)}
    state = opt.step(params, {"a": np.ones(3)}, opt.init(params))
    before = params["a"].copy()
    with pytest.raises(NonFiniteError, match=r"direction of leaf 'a'\[0\] is inf"):
        opt.step(params, {"a": np.ones(3)}, state)
    assert own.bits(params["a"]) == own.bits(before)
    opt.step(params, {"a": np.ones(3)}, state)


def test_a_step_goes_on_where_no_thread_can_be_started(monkeypatch):
    """The system may refuse when some kernels have written already: the caller's thread does what is left."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "helpers", [])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    rng, found = np.random.default_rng(3), []
    start, g = rng.standard_normal((2, LITTLE + 5))
    for backend in ("numpy", "cpu"):
        params, opt = start.copy(), amos_ref.Amos(0.1, backend=backend)
        with threads.limit_threads(4):
            state = opt.step(params, g, opt.init(params))
        found.append([own.bits(a) for a in (params, state.v[""], state.b[""])])
    assert found[0] == found[1]
    assert threads.helpers == []


@pytest.mark.parametrize("what", ["params", "grads", "v", "b"])
def test_another_thread_may_take_an_array_out_of_the_trees(what, monkeypatch):
    """As soon as a kept step has looked at it: the step holds what it has addresses of."""
    params, grads, others = tree(1), tree(2), []
    opt = amos_ref.Amos(0.1, slot_shape="element", backend="cpu")
    state = opt.step(params, grads, opt.init(params))
    right = cpu.Work.run

    def run(work, rates, **launch):
        {"params": params, "grads": grads, **parts(state)}[what]["b"] = None
        others.extend(np.full(N, 7.0) for _ in range(4))
        return right(work, rates, **launch)

    monkeypatch.setattr(cpu.Work, "run", run)
    monkeypatch.setattr(opt, "_lay_out", None)  # the layout is the kept one
    opt.step(params, grads, state)
    assert all((a == 7.0).all() for a in others)


@backends
@pytest.mark.parametrize("kept", [False, True])
def test_a_refused_gradient_is_named_whatever_the_order_of_its_tree(backend, kept):
    """An OrderedDict keeps its order, and a dict of parameters is walked in the order of its names."""
    params = {name: np.ones(3) for name in "abc"}
    grads = collections.OrderedDict((name, np.ones(3)) for name in "cab")
    opt = amos_ref.Amos(0.1, backend=backend)
    state = opt.init(params)
    state = opt.step(params, grads, state) if kept else state
    grads["a"][1] = np.nan
    with pytest.raises(NonFiniteError, match=r"gradient of leaf 'a'\[1\] is nan"):
        opt.step(params, grads, state)
