"""One optimizer through long sequences of moves, and the page after each: equal bits (tests/helpers/sequences.py)."""

import os

import numba
import numpy as np
import optree
import pytest
from helpers.sequences import ANYWHERE, FOUR, MEMBERS, ONLY_HERE, Life, burst, transitions
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from amos_ref.kernels import layout
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.optimizers import base, turn

pytestmark = pytest.mark.no_cover  # thousands of moves, and what each does is tested elsewhere
MOVES = (*ANYWHERE, *ONLY_HERE)
EXAMPLES = int(os.environ.get("AMOS_REF_EXAMPLES", "0"))


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


class Machine(RuleBasedStateMachine):
    """Moves drawn one by one, and by handfuls; Hypothesis makes the shortest sequence that fails."""

    member = backend = ""

    @initialize()
    def begin(self):
        self.life = Life(self.member, self.backend)

    @rule(skipped=st.sets(st.sampled_from(tuple(Life("amos", "numpy").names))), how=st.sampled_from(["new", "freed"]))
    def gradients(self, skipped, how):
        self.life.gradients(skipped, how)

    @rule(move=st.sampled_from(MOVES))
    def move(self, move):
        getattr(self.life, move)()

    @rule(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 20))
    def burst(self, seed, count):
        burst(self.life, seed, count, MOVES)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("member", MEMBERS)
def test_long_sequences_have_the_bits_of_fresh_optimizers_on_the_page(member, backend):
    machine = type("Drawn", (Machine,), {"member": member, "backend": backend})
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES or 15, stateful_step_count=20))


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("member", MEMBERS)
def test_every_transition_between_missing_gradients(member, backend):
    transitions(Life(member, backend, FOUR))


def without_nones(self, params, grads, state):
    """What was wrong until 0.2.0: every None is dropped before anything is compared."""
    gs = [g for g in leaves_of(grads) if g is not None]
    return leaves_of(params) + [part[name] for part in (state.v, state.b) for name in self.names] + gs


def as_many_nones(self, params, grads, state):
    """Where as many gradients are missing as before, this takes them for the same."""
    found = without_nones(self, params, grads, state)
    return found if not hasattr(self, "watch") or len(found) == len(self.watch.watch.words) else None


def leaves_of(tree):
    return optree.tree_leaves(tree, none_is_leaf=True)


@pytest.mark.parametrize(
    ("careless", "said"), [(without_nones, "compares as many arrays"), (as_many_nones, "but should be")]
)
def test_a_layout_that_is_careless_of_missing_gradients_is_seen(careless, said, monkeypatch):
    monkeypatch.setattr(layout.KeptLayout, "_arrays", careless)
    life = Life("amos", "cpu", FOUR)
    with pytest.raises(AssertionError, match=said):
        transitions(life)


def test_an_optimizer_that_takes_a_used_state_is_seen(monkeypatch):
    monkeypatch.setattr(base, "check_unused", lambda state: None)
    monkeypatch.setattr(turn.Turn, "take", lambda self, t: None)
    monkeypatch.setattr(turn.Turn, "give_back", lambda self: None)
    life = Life("amos", "cpu", FOUR)
    life.gradients()
    with pytest.raises(AssertionError, match="None"):
        life.forgotten_state()


def test_scratch_memory_is_not_read_before_it_is_written():
    assert np.isnan(cpu.scratch(2, 3)).all()
