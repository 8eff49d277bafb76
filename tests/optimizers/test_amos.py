"""Amos over trees: purity, agreement of its faces, mathematical properties, and problems with known optimum."""

import copy
import math

import numpy as np
import optree
import pytest
import scipy.integrate
import scipy.linalg
from helpers import strategies as own
from helpers.attempts import Attempt
from helpers.optimizers import BACKENDS, MEMBERS
from helpers.trees import all_bits, tree_of
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import errors

FULL = MEMBERS["Amos that averages and clips"][1]


def test_state_follows_the_gradients_that_were_given():
    opt = amos_ref.Amos(0.1, 0.5, "element", beta=0.75)
    params = np.array([1.0, -2.0])
    _, state = opt.update(np.array([2.0, 4.0]), opt.init(params), params)
    assert np.array_equal(state.v[""], [1.0, 4.0])
    # gamma = xi^2 at t = 1, as v_hat = g^2 and b = 0.
    assert state.b[""] == pytest.approx([0.01, 0.01], rel=1e-15, abs=0)


# leaves without gradient, counts, schedules, dtypes


def test_one_count_serves_the_tree():
    # A first gradient at t = 5 is debiased with t = 5: v = (1 - beta) g^2, r = (1 - beta^5) / v.
    opt, params = amos_ref.Amos(0.1, 0.6, beta=0.5), {"a": np.array([1.0]), "late": np.array([0.0])}
    state = opt.init(params)
    for _ in range(4):
        _, state = opt.update({"a": np.array([1.0]), "late": None}, state, params)
    trace = opt.trace({"a": None, "late": np.array([3.0])}, state, params)
    assert list(trace) == ["late"]
    assert trace["late"]["r"] == pytest.approx((1 - 0.5**5) / 4.5, rel=1e-15, abs=0)


def test_constant_schedule_is_a_number_and_schedules_count_from_1():
    called = []
    schedule = lambda t: called.append(t) or 0.2  # noqa: E731
    params = tree_of(0)
    fixed, scheduled = amos_ref.Amos(**FULL), amos_ref.Amos(**{**FULL, "learning_rate": schedule})
    states = [opt.init(params) for opt in (fixed, scheduled)]
    trees = [copy.deepcopy(params) for _ in states]
    for seed in (1, 2, 3):
        for k, opt in enumerate((fixed, scheduled)):
            states[k] = opt.step(trees[k], tree_of(seed), states[k])
        assert all_bits((trees[0], states[0])) == all_bits((trees[1], states[1]))
    scheduled.update(optree.tree_map(lambda a: None, params), scheduled.init(params)._replace(count=6), params)
    assert called == [1, 2, 3, 7]


def test_one_optimizer_serves_trees_of_other_shapes():
    opt = amos_ref.Amos(0.1, "sqrt(2 / SHAPE[0])", "element")
    for shape in ((3, 2), (5,)):
        trace = opt.trace(np.ones(shape), opt.init(np.ones(shape)), np.ones(shape))[""]
        assert trace["v"].shape == shape
        # At t = 1 and b = 0 alpha |g| is xi eta.
        assert trace["alpha"] == pytest.approx(np.full(shape, 0.1 * math.sqrt(2 / shape[0])), rel=1e-15, abs=0)


@pytest.mark.parametrize("name", own.DTYPES)
def test_state_dtypes(name):
    params = tree_of(0, name)
    for state_dtype, expected in (("float64", np.dtype("f8")), ("param", own.DTYPES[name])):
        opt = amos_ref.Amos(**FULL, state_dtype=state_dtype)
        states = [opt.init(params), opt.update(tree_of(1, name), opt.init(params), params)[1]]
        assert {a.dtype for state in states for a in optree.tree_leaves(state[1:])} == {expected}


def test_single_array_and_validate():
    rng = np.random.default_rng(3)
    theta, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    plain, looking = (amos_ref.Amos(0.1, 0.6, "element", validate=validate) for validate in (False, True))
    wrapped = {"w": theta.copy()}
    plain.step(wrapped, {"w": g}, plain.init(wrapped))
    alone = theta.copy()
    state = looking.step(alone, g, looking.init(alone))
    assert own.bits(alone) == own.bits(wrapped["w"])
    assert list(state.v) == [""]


# clipping, and state of other options

SLOTS = {"z": (1, 3), ".*": "element"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leaf", ["z", "a"])
def test_clipping_takes_infinity_and_never_nan(backend, leaf):
    # z has reducing slots, a element slots: another kernel looks at each.
    index = (1, 1)
    attempt = Attempt("Amos", slot_shape=SLOTS, clip_value=1.5)
    grads = attempt.grads["z"] if leaf == "z" else attempt.grads["a"]["w"][0]
    grads[index] = -np.inf
    clipped = copy.deepcopy(attempt)
    (clipped.grads["z"] if leaf == "z" else clipped.grads["a"]["w"][0])[index] = -1.5
    attempt.state = attempt.call("step", backend)
    clipped.call("step", backend)
    assert [own.bits(a) for a in optree.tree_leaves(attempt.params)] == [
        own.bits(a) for a in optree.tree_leaves(clipped.params)
    ]
    grads[index] = np.nan
    attempt.fails(
        errors.NonFiniteError, [f"gradient of leaf '{'z' if leaf == 'z' else 'a/w/0'}'[1, 1] is nan"], ["step"]
    )


def test_state_of_other_options_is_refused():
    for options, words in (
        ({"momentum": 0.5}, ["momentum"]),
        ({"slot_shape": "tensor"}, ["state.v", "'a/w/0'", "(2, 2)"]),
    ):
        attempt = Attempt("Amos", slot_shape=SLOTS)
        attempt.options.update(options)
        attempt.fails(errors.StateError, words)
    attempt = Attempt("Amos", slot_shape=SLOTS, momentum=0.5)
    attempt.state.m["z"] = np.ones((1, 3))
    attempt.fails(errors.StateError, ["state.m of leaf 'z'", "(1, 3)", "(2, 3)"])
    attempt = Attempt("Amos", slot_shape=SLOTS, state_dtype="param")
    attempt.params["z"] = attempt.params["z"].astype(np.float32)
    attempt.fails(errors.StateError, ["state.v of leaf 'z'", "float64", "float32"])


# what the formulas promise


def options_of(hyper):
    return {**{k: x for k, x in hyper.items() if k != "xi"}, "learning_rate": hyper["xi"], "backend": "numpy"}


def play(hyper, slot, theta, gradients):
    """Pure steps: all updates and the last state."""
    opt = amos_ref.Amos(**options_of(hyper), slot_shape={"": slot})
    state, updates = opt.init(theta), []
    for g in gradients:
        delta, state = opt.update(g, state, theta)
        theta = amos_ref.apply_updates(theta, delta)
        updates.append(delta)
    return updates, state


@st.composite
def games(draw, *, clip=False):
    shape = draw(own.shapes(max_side=4, max_dims=3), label="shape")
    slot = draw(own.slots(shape), label="slot")
    rng = np.random.default_rng(draw(own.seeds, label="seed"))
    theta, *gradients = (own.numbers(rng, shape, "float64", middle=0, spread=3) for _ in range(4))
    hyper = draw(own.hyper_parameters())
    return {**hyper, "clip_value": hyper["clip_value"] if clip else None}, slot, theta, gradients


@given(games(), st.integers(-30, 60))
def test_scaling_gradients_by_a_power_of_2_changes_no_update(game, power):
    hyper, slot, theta, gradients = game
    # v > epsilon is the condition; a slot of zeros meets epsilon but has nothing to scale.
    hyper["epsilon"] = 2.0**-200
    ref, state = play(hyper, slot, theta, gradients)
    got, scaled = play(hyper, slot, theta, [np.asarray(np.ldexp(g, power)) for g in gradients])
    assert all_bits(got) == all_bits(ref)
    assert own.bits(scaled.v[""]) == own.bits(np.ldexp(state.v[""], 2 * power))
    assert own.bits(scaled.b[""]) == own.bits(state.b[""])


@given(games(clip=True))
def test_turning_all_signs_turns_the_updates(game):
    hyper, slot, theta, gradients = game
    ref, state = play(hyper, slot, theta, gradients)
    got, turned = play(hyper, slot, np.asarray(-theta), [np.asarray(-g) for g in gradients])
    assert all(np.array_equal(a, -b) for a, b in zip(got, ref, strict=True))
    assert all_bits((turned.v, turned.b)) == all_bits((state.v, state.b))


@given(st.data(), own.hyper_parameters(momentum=False))
def test_permuting_a_slot_permutes_the_update_to_the_order_of_summation(data, hyper):
    n = data.draw(st.integers(2, 40), label="n")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    theta, g = (own.numbers(rng, (n,), "float64", middle=0, spread=3) for _ in range(2))
    order = rng.permutation(n)
    (ref,), _ = play(hyper, (), theta, [g])
    (got,), _ = play(hyper, (), theta[order], [g[order]])
    # Two sums of n positive numbers differ by 2(n - 1) roundings at most. gamma has r g2 and so at most twice
    # that; all else has the same roundings in both orders, fewer than 40 on either side.
    chi = math.inf if hyper["clip_value"] is None else hyper["clip_value"]
    trace = amos_ref.Amos(**options_of(hyper)).trace(g, amos_ref.Amos().init(theta), theta)[""]
    terms = abs(trace["alpha"] * np.clip(g, -chi, chi)) + abs(trace["rho"] * theta)
    assert np.all(abs(got - ref[order]) <= (4 * (n - 1) + 80) * 2.0**-53 * terms[order])


@given(st.data(), own.hyper_parameters())
def test_row_slots_are_stacked_tensors_in_bits(data, hyper):
    rows, n = data.draw(st.integers(1, 5), label="rows"), data.draw(st.sampled_from([1, 2, 127, 129, 300]), label="n")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    theta, *gradients = (own.numbers(rng, (rows, n), "float64", middle=0, spread=3) for _ in range(3))
    stacked, state = play(hyper, (rows, 1), theta, gradients)
    for k in range(rows):
        alone, own_state = play(hyper, (), theta[k], [g[k] for g in gradients])
        assert all_bits(alone) == all_bits([delta[k] for delta in stacked])
        assert own_state.b[""] == state.b[""][k, 0]


@given(games(clip=True))
def test_b_starts_at_0_and_never_falls(game):
    hyper, slot, theta, gradients = game
    opt = amos_ref.Amos(**options_of(hyper), slot_shape={"": slot})
    state = opt.init(theta)
    assert not np.any(state.b[""])
    for g in gradients:
        _, after = opt.update(g, state, theta)
        assert np.all(after.b[""] >= state.b[""])
        state = after


def clock(xi, c_coef, steps):
    """b after each step under gradients of constant size, whose sign changes."""
    opt = amos_ref.Amos(xi, 0.6, c_coef=c_coef, beta=0.9, backend="numpy")
    theta = np.array([0.3, -0.4])
    state = opt.init(theta)
    for t in range(steps):
        _, state = opt.update(np.array([0.7, 0.7]) * (-1) ** (t // 3), state, theta)
    return float(state.b[""])


@pytest.mark.parametrize(("xi", "c_coef", "steps"), [(0.05, 0.9, 800), (0.1, 0.25, 400), (0.2, 0.5, 300)])
def test_clock_under_constant_gradients_follows_its_ode(monkeypatch, xi, c_coef, steps):
    """With |g| constant v_hat = g^2, so that the steps are Euler's, of length 1, for b' = f(b).

    f(b) = xi^2 (1 + b) / sqrt(1 + k b), k = c_coef sqrt(xi) < 1, has 0 < f' <= xi^2 = L, so b'' = f' f > 0: Euler
    stays below, and its global error is at most max|b''| / (2 L) (exp(L T) - 1) <= f(b(T)) / 2 (exp(L T) - 1).
    """
    k = c_coef * math.sqrt(xi)
    slope = lambda t, b: xi**2 * (1 + b) / np.sqrt(1 + k * b)  # noqa: E731
    solved = scipy.integrate.solve_ivp(slope, (0, steps), [0.0], rtol=1e-11, atol=1e-12).y[0, -1]
    gap = slope(0, solved) / 2 * math.expm1(xi**2 * steps)
    # 1e-8 is for the solver and the roundings.
    assert solved - gap - 1e-8 * solved <= clock(xi, c_coef, steps) <= solved * (1 + 1e-8)
    monkeypatch.setattr(amos_ref.spec, "decay_factor_c", lambda b, xi, c_coef: 1.0)
    assert clock(xi, c_coef, steps) > solved * (1 + 1e-8)


# known optima: with beta = 0, r g2 = 1 at every step, so that alpha and rho follow from b alone, known in advance

RATES = dict(learning_rate=0.1, eta=0.6, beta=0.0, c_coef=0.3, d_coef=0.4, backend="numpy")


def planned(steps):
    """(alpha times the root mean square of g, rho) of every step."""
    b, xi, eta = 0.0, 0.1, 0.6
    for _ in range(steps):
        gamma = xi**2 / math.sqrt(1 + 0.3 * math.sqrt(xi) * b)
        d = 1 / (1 + 0.4 * math.sqrt(xi * eta) * b)
        yield d * xi * eta, d * gamma / 2
        b += gamma * (1 + b)


def descend(slot, theta, gradient, steps):
    opt = amos_ref.Amos(**RATES, slot_shape=slot)
    state = opt.init(theta)
    for _ in range(steps):
        state = opt.step(theta, gradient(theta), state)
    return theta


def test_quadratics_of_any_curvature_are_descended_by_signs():
    """Element slots: every entry moves towards its optimum by a - rho |theta| to a + rho |theta|.

    With |theta| <= B, the largest error E obeys E <- max(E - (a - rho B), a + rho B): it shrinks by the least
    move, or the optimum is passed by at most the greatest.
    """
    rng = np.random.default_rng(5)
    optimum, start = rng.normal(size=8), rng.normal(size=8)
    curvature = 10.0 ** np.arange(-4, 4)
    error = abs(start - optimum).max()
    largest = abs(optimum).max() + error
    for a, rho in planned(3000):
        assert rho * largest < a < error or error < 0.1
        error = max(error - (a - rho * largest), a + rho * largest)
    found = descend("element", start, lambda theta: curvature * (theta - optimum), 3000)
    assert error < 2e-3
    assert abs(found - optimum).max() <= error


def test_linear_regression_approaches_least_squares():
    """One slot: the gradient's part of a step has the length s = a sqrt(n) exactly.

    Its angle to the error e has a cosine of at least p = 2 sqrt(l L) / (l + L) for a Hessian with eigenvalues in
    [l, L] (Kantorovich). So |e - s g/|g||^2 <= x^2 - 2 s p x + s^2 with x = |e| <= E, convex in x and largest at an
    end of [0, E]; the decay adds rho |theta| <= rho (|theta*| + E).
    """
    rng = np.random.default_rng(6)
    a, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    optimum, _, _, singular = scipy.linalg.lstsq(a, y + a @ [1.0, -2.0, 0.5, 3.0])
    target = y + a @ [1.0, -2.0, 0.5, 3.0]
    least, largest = singular[-1] ** 2, singular[0] ** 2
    p = 2 * math.sqrt(least * largest) / (least + largest)
    error = size = np.linalg.norm(optimum)
    for step, rho in planned(6000):
        s = step * math.sqrt(4)
        error = math.sqrt(max(s * s, error**2 - 2 * s * p * error + s * s)) + rho * (size + error)
    found = descend("tensor", np.zeros(4), lambda theta: a.T @ (a @ theta - target) / 60, 6000)
    assert error < 0.01 * size
    assert np.linalg.norm(found - optimum) <= error
