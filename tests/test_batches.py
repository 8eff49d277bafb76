"""Training by minibatches, and going on from a result."""

import copy
import math
from typing import Any

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref import batches
from amos_ref.errors import HyperParameterError, ProblemError, StateError

ROWS = [np.array([1.0, -2.0]), np.array([3.0, 0.5]), np.array([-1.0, 4.0])]
START = {"w": np.array([0.25, -0.5]), "b": np.array(0.125)}


def fun(params, row):
    apart = params["w"] * row + params["b"] - 0.75
    return float(apart @ apart) / 2, {"w": apart * row, "b": np.sum(apart)}


def by_hand(opt, rows):
    params = {name: a.copy() for name, a in START.items()}
    state = opt.init(params)
    for row in rows:
        state = opt.step(params, fun(params, row)[1], state)
    return params, state


def same(params, state, result):
    assert {name: own.bits(a) for name, a in result.params.items()} == {n: own.bits(a) for n, a in params.items()}
    assert result.state.count == state.count
    assert all(own.bits(result.state.v[name]) == own.bits(a) for name, a in state.v.items())


@pytest.mark.parametrize("given", [ROWS, tuple(ROWS), lambda: iter(ROWS)])
def test_every_batch_in_its_turn(given):
    result = amos_ref.minimize(fun, START, learning_rate=0.1, beta=0.8, batches=given, epochs=3)
    assert (result.status, result.steps) == ("steps", 9)
    same(*by_hand(amos_ref.Amos(0.1, beta=0.8), ROWS * 3), result)
    assert result.history.loss[:2] == [fun(START, ROWS[0])[0], pytest.approx(result.history.loss[1])]
    assert result.loss == fun(result.params, ROWS[-1])[0]
    fewer = amos_ref.minimize(fun, START, learning_rate=0.1, beta=0.8, batches=given, epochs=3, steps=5)
    same(*by_hand(amos_ref.Amos(0.1, beta=0.8), (ROWS * 3)[:5]), fewer)
    once = amos_ref.minimize(fun, START, learning_rate=0.1, beta=0.8, batches=iter(ROWS))
    same(*by_hand(amos_ref.Amos(0.1, beta=0.8), ROWS), once)


def test_batches_in_another_order_are_caught(monkeypatch):
    monkeypatch.setattr("amos_ref.minimizer.stream", lambda given, *rest: batches.stream(given[::-1], *rest))
    with pytest.raises(AssertionError):
        test_every_batch_in_its_turn(ROWS)


def test_the_rates_that_follow_from_the_number_of_batches():
    opt = amos_ref.minimize(fun, START, batches=ROWS * 4).opt
    assert (opt.learning_rate, opt.beta) == (1 / math.sqrt(12), 1 - 1 / math.sqrt(12))
    opt = amos_ref.minimize(fun, START, batches=ROWS[:1]).opt
    assert (opt.learning_rate, opt.beta) == (1.0, 0.5)
    opt = amos_ref.minimize(fun, START, batches=ROWS * 4, beta=0.75).opt
    assert (opt.learning_rate, opt.beta) == (1 / math.sqrt(12), 0.75)
    for more in ({"learning_rate": 0.3}, {"optimizer": "adamw"}):
        options: dict[str, Any] = more
        opt = amos_ref.minimize(fun, START, batches=ROWS, **options).opt
        assert opt.learning_rate == more.get("learning_rate", 1e-3)
    opt = amos_ref.minimize(fun, START, "closed-form", batches=ROWS, epochs=10).opt
    assert opt.half_life == 3.0
    with pytest.raises(HyperParameterError, match="is not known: give steps or half_life"):
        amos_ref.minimize(fun, START, "closed-form", batches=iter(ROWS))


def test_going_on():
    """Two trainings of three steps are one of six, and the first result stays what it is."""
    first = amos_ref.minimize(fun, START, learning_rate=lambda t: 0.3 / t, beta=0.8, batches=ROWS)
    kept = own.bits(first.state.v["w"]), own.bits(first.params["w"])
    for more in ({"state": first}, {"x0": first.params, "optimizer": first.opt, "state": first.state}):
        arguments: dict[str, Any] = more
        second = amos_ref.minimize(fun, batches=ROWS, **arguments)
        same(*by_hand(amos_ref.Amos(lambda t: 0.3 / t, beta=0.8), ROWS * 2), second)
        assert (second.steps, second.history.step) == (3, [3, 4, 5, 6])
        assert (own.bits(first.state.v["w"]), own.bits(first.params["w"])) == kept
    used = first.opt.init(START)
    first.opt.step({name: a.copy() for name, a in START.items()}, START, used)
    with pytest.raises(StateError, match="this state was stepped in place"):
        amos_ref.minimize(fun, START, first.opt, batches=ROWS, state=used)


def test_what_is_no_epoch():
    for wrong, words, epochs in (
        ([], "batches has none for epoch 1", 1),
        (iter(ROWS), "batches has none for epoch 2; an iterator is used up after one", 2),
    ):
        with pytest.raises(ProblemError) as caught:
            amos_ref.minimize(fun, START, batches=wrong, epochs=epochs)
        one_line(caught.value, [words])
    assert caught.value.amos_result.steps == 3  # pyright: ignore[reportAttributeAccessIssue]
    for nothing in (3, 0.5, object()):
        with pytest.raises(ProblemError, match=r"^batches is .*; it must be a list, a loader or a function"):
            amos_ref.minimize(fun, START, batches=nothing)
    for epochs in (0, -1, 1.5):
        with pytest.raises(HyperParameterError, match=r"^epochs is"):
            amos_ref.minimize(fun, START, batches=ROWS, epochs=epochs)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "opt",
    [
        amos_ref.Amos(0.1, eta={"w": 0.5, ".*": "sqrt(2)"}, slot_shape=[1], frozen={"b": True}),
        amos_ref.ClosedFormAmos(half_life=3, sigma={"w": "init", ".*": 0.5}),
        amos_ref.Amos(eta=amos_ref.rules.PAPER_FLAX, slot_shape=amos_ref.rules.PAPER_FLAX),
    ],
    ids=repr,
)
def test_clones_and_parameters(opt):
    base = pytest.importorskip("sklearn.base")
    clone = base.clone(opt)
    assert clone is not opt
    assert repr(clone) == repr(opt)
    assert clone.set_params(clip_value=2.0) is clone
    assert (clone.clip_value, opt.clip_value) == (2.0, None)
    for wrong in ({"clip_value": -1.0}, {"clip": 1.0}):
        with pytest.raises(HyperParameterError, match="clip"):
            clone.set_params(**wrong)
    assert clone.get_params() == {**opt.get_params(), "clip_value": 2.0}


@pytest.mark.parametrize(("given", "steps"), [(dict(steps=7), 7), (dict(epochs=2), 6), (dict(steps=2), 2), ({}, 3)])
def test_a_problem_with_minibatches_brings_them(given, steps):
    problem = amos_ref.problems.digits(hidden=3, batch_size=449)
    result = amos_ref.minimize(problem, eta=0.25, **given)
    assert result.steps == steps
    assert result.opt.learning_rate == 1 / math.sqrt(3)
    several, state, params = problem.batches(), result.opt.init(problem.start), copy.deepcopy(problem.start)
    for rows in [rows for _ in range(3) for rows in several][:steps]:
        state = result.opt.step(params, problem.fun(params, rows)[1], state)
    assert own.bits(result.params["hidden"]["kernel"]) == own.bits(params["hidden"]["kernel"])


@pytest.mark.parametrize("kind", ["list", "function", "iterator", "one epoch"])
def test_steps_alone_go_through_the_batches_as_often_as_they_take(kind):
    seen = []

    def record(params, batch):
        seen.append(batch.tolist())
        return fun(params, batch)

    batches = {"function": lambda: iter(ROWS), "iterator": iter(ROWS)}.get(kind, ROWS)
    epochs = 1 if kind == "one epoch" else None
    result = amos_ref.minimize(record, START, batches=batches, learning_rate=0.1, steps=7, epochs=epochs)
    once = [rows.tolist() for rows in ROWS]
    wanted = once if kind in ("iterator", "one epoch") else [*once, *once, once[0]]
    wanted = [*wanted, wanted[-1]]  # the loss at the end is that of the last batch
    assert (result.steps, result.status, seen) == (len(wanted) - 1, "steps", wanted)


def bowl(params):
    return sum(float(np.sum(a * a)) / 2 for a in params.values()), params


def test_going_on_keeps_the_options_that_are_not_changed():
    first = amos_ref.minimize(bowl, START, learning_rate=0.1, eta=0.01, momentum=0.9, steps=5)
    again = amos_ref.minimize(bowl, state=first, learning_rate=0.2, steps=5)
    assert dict(again.opt.options) == {**first.opt.options, "learning_rate": 0.2}
    assert amos_ref.minimize(bowl, state=first, steps=1).opt is first.opt
    with pytest.raises(
        HyperParameterError, match="the result's Amos has no option 'alpha_0'; it has learning_rate, eta"
    ):
        amos_ref.minimize(bowl, state=first, alpha_0=0.2)
    closed = amos_ref.minimize(bowl, START, "closed-form", steps=5)
    changed = amos_ref.minimize(bowl, state=closed, alpha_0=0.2, steps=2).opt
    assert (type(changed), changed.alpha_0, changed.half_life) == (amos_ref.ClosedFormAmos, 0.2, closed.opt.half_life)
    with pytest.raises(StateError, match="state is not of type AmosState but ClosedFormState"):
        amos_ref.minimize(bowl, state=closed, optimizer="paper", steps=1)


def test_what_is_missing_is_said():
    with pytest.raises(HyperParameterError, match="epochs is 3, and there are no batches"):
        amos_ref.minimize(bowl, START, epochs=3)
    with pytest.raises(ProblemError, match="x0 is None; it must be the tree of arrays"):
        amos_ref.minimize(bowl, state=amos_ref.Amos().init(START))
