"""Memory that runs out at the n-th allocation while a step computes and writes, for every n: all of it, or nothing."""

import collections
import gc
import itertools
import signal

import numpy as np
import pytest
from helpers.optimizers import cases, make
from helpers.trees import all_bits

from amos_ref import errors
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers import turn

pytestmark = pytest.mark.no_cover  # which takes memory itself, at every line

_testcapi = pytest.importorskip("_testcapi", reason="this Python has no hooks for its allocator")


def tree(seed=1, names="kv"):
    """Two leaves, of two dtypes; "k" alone is what the compiled kernels step in one call."""
    rng = np.random.default_rng(seed)
    leaves = {"k": rng.standard_normal((6, 5)), "v": rng.standard_normal(7).astype(np.float32)}
    return {name: leaves[name] for name in names}


def second_step(name, backend, number, monkeypatch, names="kv"):
    """Take a second step in which the allocation of this number fails; whatever it returned or raised, and all bits.

    Allocations are Python's own: of numbers, tuples, frames, array headers. They fail inside the part of the step that
    writes and what leads to it. Before that nothing can be torn, and optree 0.20 crashes when memory runs out.
    """
    opt, params = make(name, backend), tree(names=names)
    state = opt.step(params, tree(10, names), opt.init(params))
    right = turn.Taking.run

    def run(self, *args, **launch):
        gc.disable()  # Hypothesis measures it, and says so where it has no memory
        _testcapi.set_nomemory(number, number + 1)
        try:
            return right(self, *args, **launch)
        finally:
            _testcapi.remove_mem_hooks()
            gc.enable()

    new = error = None
    grads = tree(11, names)
    with monkeypatch.context() as context:
        context.setattr(turn.Taking, "run", run)
        try:
            new = opt.step(params, grads, state)
        except (MemoryError, SystemError) as caught:  # NumPy has places where it says the latter
            error = caught
        except AttributeError as caught:  # Numba says so of a named tuple for whose class there is no room
            if "no attribute '__class__'" not in str(caught):
                raise
            error = caught
    return opt, params, state, new, error


def count_outcomes(name, backend, monkeypatch, names="kv"):
    opt, params = make(name, backend), tree(names=names)
    state = opt.step(params, tree(10, names), opt.init(params))
    none = all_bits((params, state[1:]))
    state = opt.step(params, tree(11, names), state)
    whole = all_bits((params, state[1:]))
    found, undisturbed = collections.Counter(), 0
    for number in itertools.count():
        handler = signal.getsignal(signal.SIGINT)
        opt, params, state, new, error = second_step(name, backend, number, monkeypatch, names)
        assert signal.getsignal(signal.SIGINT) is handler
        bits = all_bits((params, state[1:]))
        new = getattr(error, "amos_state", new)
        if new is not None:
            assert bits == whole
            assert new.count == 2
        else:
            assert bits == none
            new = opt.step(params, tree(11, names), state)
            assert all_bits((params, new[1:])) == whole
        found["failed" if error else "returned"] += 1
        undisturbed = 0 if error else undisturbed + 1
        if undisturbed > 60:  # there were not so many allocations
            return found
    return found


@cases
def test_every_allocation_may_fail(name, backend, monkeypatch):
    found = count_outcomes(name, backend, monkeypatch)
    assert found["failed"] > 20


@pytest.mark.parametrize("name", ["Amos that averages and clips", "ClosedFormAmos by Adam"])
def test_every_allocation_may_fail_around_the_one_call_of_a_small_tree(name, monkeypatch):
    assert count_outcomes(name, "cpu", monkeypatch, "k")["failed"] > 5


@pytest.mark.parametrize("name", ["Amos that averages and clips", "ClosedFormAmos by Adam"])
def test_a_step_that_is_not_resumed_would_be_refused_or_torn(name, monkeypatch):
    def once(write):
        write()

    monkeypatch.setattr(cpu, "insist", once)
    with pytest.raises((AssertionError, errors.StateError)):
        count_outcomes(name, "cpu", monkeypatch)
