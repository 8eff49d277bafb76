"""ClosedFormAmos over trees: its faces agree, its backends have the same bits, its numbers are the derivation's."""

import copy
import math
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import optree
import pytest
from helpers import naive
from helpers import strategies as own
from helpers.leaves import wrap_run
from helpers.trees import all_bits, tree_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config

import amos_ref
from amos_ref import ClosedFormAmos, ClosedFormState, closed_form, errors
from amos_ref.kernels import page
from amos_ref.kernels.cpu import backend as cpu

EPS = 2.0**-52
BACKENDS = {"numpy": page, "cpu": cpu}
DIRECTIONS = ("gradient", "adam", "sign", lambda name, g, t: g - 0.25 * (t + 1) * len(name))
DTYPES = [(c.theta, c.g) for c in own.COMBINATIONS]
OPTIONS = dict(
    alpha_0=0.2,
    half_life=3.0,
    q=0.75,
    sigma={".*bias": 0.6, ".*": "init"},
    slot_shape={".*bias": "tensor", ".*scale": "element", ".*": "(1,) * (len(SHAPE) - 1) + SHAPE[-1:]"},
    beta1=0.7,
    beta2=0.8,
    adam_epsilon=0.125,
    epsilon=2.0**-20,
)
directions = pytest.mark.parametrize("direction", DIRECTIONS, ids=["gradient", "adam", "sign", "callable"])
backends = pytest.mark.parametrize("backend", BACKENDS)


def small():
    return {"a": np.array([1.0, -2.0]), "b": np.array([[0.5], [3.0]], np.float32)}


# the faces of one step agree, and the backends


@directions
@backends
@pytest.mark.parametrize(("theta", "g"), DTYPES)
def test_step_is_update_and_apply_in_bits(direction, backend, theta, g):
    opt, params = ClosedFormAmos(**OPTIONS, direction=direction, backend=backend), tree_of(0, theta)
    stepped, state, pure_state = copy.deepcopy(params), opt.init(params), opt.init(params)
    for seed in range(3):
        grads = tree_of(seed, g)
        updates, pure_state = opt.update(grads, pure_state, params)
        params = amos_ref.apply_updates(params, updates)
        state = opt.step(stepped, grads, state)
        assert {a.dtype for a in optree.tree_leaves(updates)} == {np.dtype("f8")}
        assert all_bits(stepped) == all_bits(params)
        assert all_bits(state) == all_bits(pure_state)
    assert state.count == 3


@settings(max_examples=30 if config.DISABLE_JIT else 150)
@pytest.mark.parametrize(("theta", "g"), DTYPES)
@given(data=st.data())
def test_backends_have_the_same_bits(theta, g, data):
    shape = data.draw(own.shapes(max_side=4 if config.DISABLE_JIT else 7), label="shape")
    slot = data.draw(own.slots(shape), label="slot")
    layouts = data.draw(st.tuples(own.layouts, own.layouts), label="layouts")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    start = own.numbers(rng, shape, theta, middle=0, spread=3)
    gradient = own.laid_out(own.numbers(rng, shape, g), layouts[1])
    check_backends(start, gradient, slot, data.draw(st.integers(0, 10**12), label="count"), layouts[0])


def check_backends(start, gradient, slot, count, layout="C"):
    found = []
    for backend in BACKENDS:
        opt = ClosedFormAmos(0.3, half_life=40, sigma=0.7, slot_shape={"": slot}, backend=backend)
        params = own.laid_out(start, layout)
        opt.step(params, gradient, opt.init(params)._replace(count=count))
        found.append(own.bits(params))
    assert found[0] == found[1]


LONG = [
    *(((n,), slot) for n in (0, 1, 127, 128, 129, 8191, 8192, 8193, 24577) for slot in ((), (n,))),
    *(((rows, 3), (3,)) for rows in (1, 63, 64, 65, 129)),
    *(((2, columns), slot) for columns in (1, 1023, 1025, 2049) for slot in ((1, columns), (2, 1), (2, columns))),
    ((130, 2, 3, 4), (1, 2, 1, 4)),
    ((3, 65, 2, 3), (3, 1, 2, 1)),
    ((), ()),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(
    ("shape", "slot"), [case for case in LONG if not config.DISABLE_JIT or own.size(case[0]) < 9999]
)
def test_backends_have_the_same_bits_around_the_borders_of_chunks(shape, slot):
    rng = np.random.default_rng(2)
    start, gradient = (own.numbers(rng, shape, name) for name in ("float32", "float64"))
    check_backends(start, gradient, slot, 7)


def test_both_backends_are_told_apart_by_a_wrong_one(monkeypatch):
    right = ClosedFormAmos.method
    slow = right._replace(page=lambda leaf, rates: right.page(leaf, rates._replace(shrink=rates.shrink * 0.999)))
    monkeypatch.setattr(ClosedFormAmos, "method", slow)
    with pytest.raises(AssertionError):
        check_backends(np.array([1.0, 2.0]), np.array([0.5, 1.0]), (), 7)


def test_update_and_trace_are_pure():
    for direction in DIRECTIONS:
        opt, params, grads = ClosedFormAmos(**OPTIONS, direction=direction), tree_of(0), tree_of(1)
        state = opt.init(params)
        before = all_bits((params, grads, state))
        opt.update(grads, state, params)
        opt.trace(grads, state, params)
        assert all_bits((params, grads, state)) == before


@directions
def test_trace_is_the_update_taken_apart(direction):
    opt, params, grads = ClosedFormAmos(**OPTIONS, direction=direction), tree_of(0), tree_of(9)
    state = opt.init(params)._replace(count=5)
    trace, (updates, after) = opt.trace(grads, state, params), opt.update(grads, state, params)
    named, new = amos_ref.tree.flatten(updates), amos_ref.tree.flatten(amos_ref.apply_updates(params, updates))
    assert trace.t == 5
    assert trace.rates.shrink == closed_form.error(5, alpha_0=0.2, half_life=3.0)
    assert list(trace) == list(named)
    for name, found in trace.items():
        assert own.bits(found["delta"]) == own.bits(named[name])
        assert own.bits(found["theta"]) == own.bits(new[name])
        assert found["error"] == state.sigma[name] ** 2 * trace.rates.shrink
        for part in "mv":
            assert (found[part] is None) == (direction != "adam")
            assert found[part] is None or own.bits(found[part]) == own.bits(getattr(after, part)[name])
        shown = str(trace).split(f"leaf {name!r}:")[1]
        assert f"sigma={float(state.sigma[name]):.6g}" in shown
        assert all(f"  {symbol} = " in shown for symbol in ("g", "u", "u2", "alpha", "rho", "delta", "theta"))
        assert ("  m = " in shown) == (direction == "adam")


# the numbers are the derivation's


@given(data=st.data())
def test_step_against_exact_arithmetic(data):
    """A step in fractions, element by element. u2 of n <= 27 terms errs by n EPS, its root by half of that, all else
    by fewer than 12 roundings."""
    shape = data.draw(own.shapes(max_side=3, max_dims=3), label="shape")
    slot = data.draw(own.slots(shape), label="slot")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    theta, g = (own.numbers(rng, shape, "float64", middle=0, spread=3) for _ in range(2))
    alpha_0, q = data.draw(st.floats(1e-3, 0.5)), data.draw(st.floats(0.3, 3.0))
    sigma, count = data.draw(st.floats(0.1, 5.0)), data.draw(st.integers(0, 1000))
    epsilon = 2.0 ** data.draw(st.sampled_from([-125, 2]))
    opt = ClosedFormAmos(alpha_0, half_life=64, q=q, sigma=sigma, slot_shape={"": slot}, epsilon=epsilon)
    found = opt.trace(g, opt.init(theta)._replace(count=count), theta)[""]
    shrink = 1 / (1 + Fraction(count, 64))
    rho = Fraction(alpha_0) ** 2 / (2 * Fraction(q)) * shrink
    members = {}
    for i in np.ndindex(shape):
        members.setdefault(naive.slot_of(i, slot), []).append(i)
    for inside in members.values():
        u2 = max(sum(Fraction(float(g[i])) ** 2 for i in inside) / len(inside), Fraction(epsilon))
        alpha = Fraction(alpha_0) * Fraction(sigma) / naive.root(u2) * shrink
        for i in inside:
            terms = alpha * Fraction(float(g[i])), rho * Fraction(float(theta[i]))
            gap = abs(Fraction(float(found["delta"][i])) + sum(terms))
            assert gap <= (27 + 12) * EPS * sum(map(abs, terms))


@given(t=st.integers(0, 10**9), decay=st.sampled_from(["inverse-time", "inverse-square", "recurrence"]), seed=own.seeds)
def test_orders_of_step_and_decay(t, decay, seed):
    """(alpha |u| / |eps_0|)^2 = 2 q rho exp(-2 S), the same identity as of the schedules, in every slot."""
    theta, g = np.random.default_rng(seed).normal(size=(2, 4, 3))
    opt = ClosedFormAmos(0.01, half_life=50, decay=decay, q=2.0, slot_shape=(4, 1))
    trace = opt.trace(g, (state := opt.init(theta))._replace(count=t), theta)
    found, shrink = trace[""], trace.rates.shrink
    relative = found["alpha"] * np.sqrt(np.mean(g * g, axis=1, keepdims=True)) / state.sigma[""]
    assert np.allclose(relative**2, 4 * found["rho"] * shrink, rtol=40 * EPS, atol=0)
    assert shrink == closed_form.error(t, half_life=50, alpha_0=0.01, decay=decay)


def test_half_life_halves_step_and_decay_exactly():
    opt, params, g = ClosedFormAmos(half_life=700), np.array([1.0, 3.0]), np.array([2.0, 1.0])
    first, later = (opt.trace(g, opt.init(params)._replace(count=t), params)[""] for t in (0, 700))
    assert (later["alpha"], later["rho"]) == (first["alpha"] / 2, first["rho"] / 2)


def test_sigma_of_every_kind_of_leaf():
    params = {
        "bias": np.zeros(3, np.float16),
        "scale": np.ones((2, 2), np.float32),
        "kernel": np.array([[3.0, -4.0]]),
        "one": np.array(1.0),
        "none": np.zeros((0, 4)),
        "half": np.array([1.0, 0.0], own.BFLOAT16),
    }
    sigma = {name: float(a) for name, a in ClosedFormAmos(p_0=0.5).init(params).sigma.items()}
    assert sigma == {
        "bias": 0.5, "scale": 0.5, "one": 0.5, "none": 0.5, "kernel": math.sqrt(12.5), "half": math.sqrt(0.5)
    }  # fmt: skip
    rules = {"bias": 0.1, "k": "sqrt(2 / SHAPE[-1])", ".*": "init"}
    sigma = ClosedFormAmos(p_0=0.5, sigma=rules).init(params).sigma
    assert (float(sigma["bias"]), float(sigma["kernel"]), float(sigma["scale"])) == (0.1, 1.0, 0.5)
    preset = ClosedFormAmos(p_0=0.5, sigma=amos_ref.rules.PAPER_FLAX).init({"dense": {"bias": np.ones(2)}})
    assert float(preset.sigma["dense/bias"]) == 0.5


def test_a_standard_deviation_for_sigma_would_be_refused(monkeypatch):
    """The wrong reading that freezes rescale parameters does not get past init."""
    monkeypatch.setattr(closed_form, "initial_sigma", lambda theta: float(np.std(theta)))
    with pytest.raises(errors.RuleError, match=r"sigma of leaf 'scale' is 0\.0"):
        ClosedFormAmos(p_0=0.5).init({"scale": np.ones(3)})


@backends
def test_a_direction_of_0_moves_by_decay_alone(backend):
    opt, params = ClosedFormAmos(0.5, half_life=10, backend=backend), np.array([8.0, -16.0])
    opt.step(params, np.zeros(2), opt.init(params))
    assert params.tolist() == [7.0, -14.0]  # rho = 1/8


@backends
def test_epsilon_is_a_floor_and_nothing_is_added(backend):
    opt = ClosedFormAmos(0.5, half_life=10, sigma=2.0, epsilon=0.25, backend=backend)
    for g, alpha in ((0.25, 2.0), (0.5, 2.0), (1.0, 1.0)):
        params = np.array([0.0])
        opt.step(params, np.array([g]), opt.init(params))
        assert params[0] == -alpha * g


def test_scaling_directions_changes_nothing():
    params, g = np.random.default_rng(3).normal(size=(2, 9))
    opt = ClosedFormAmos(half_life=10)
    ref, _ = opt.update(g, opt.init(params), params)
    got, _ = opt.update(np.ldexp(g, 40), opt.init(params), params)
    assert own.bits(got) == own.bits(ref)


def test_adam_direction_is_adams():
    beta1, beta2, floor = 0.7, 0.8, 0.125
    opt = ClosedFormAmos(**{**OPTIONS, "sigma": 0.5, "slot_shape": "tensor"}, direction="adam")
    params = np.array([1.0, -2.0, 0.5])
    state, gradients = opt.init(params), np.random.default_rng(1).normal(size=(5, 3))
    for n in range(1, 6):
        g = gradients[n - 1]
        # m and v by their sums, not by recursion: m_hat = sum (1 - b) b^(n-i) g_i / (1 - b^n)
        weights = [(1 - b) * b ** np.arange(n - 1, -1, -1.0) / (1 - b**n) for b in (beta1, beta2)]
        want = weights[0] @ gradients[:n] / (np.sqrt(weights[1] @ gradients[:n] ** 2) + floor)
        found = opt.trace(g, state, params)[""]
        assert np.allclose(found["u"], want, rtol=1e-13, atol=0)
        state = opt.step(params, g, state)
    assert np.allclose(state.v[""], (1 - beta2**5) * weights[1] @ gradients**2, rtol=1e-13, atol=0)


def test_sign_and_callable_directions():
    params, g = np.array([1.0, -2.0, 3.0]), np.array([-5.0, 0.0, 2.0], np.float32)
    opt = ClosedFormAmos(half_life=5, direction="sign")
    assert opt.trace(g, opt.init(params), params)[""]["u"].tolist() == [-1.0, 0.0, 1.0]
    seen = []

    def direction(name, g, t):
        seen.append((name, g.dtype.name, t))
        g *= 2  # a copy
        return g.astype(np.float32)

    opt, kept = ClosedFormAmos(half_life=5, direction=direction), g.copy()
    state = opt.step(params, g, opt.init(params))
    opt.step(params, g, state)
    assert seen == [("", "float64", 0), ("", "float64", 1)]
    assert own.bits(g) == own.bits(kept)


@backends
def test_a_direction_may_share_memory_with_the_parameter(backend):
    memory = np.arange(200.0)
    params, shifted, alone = memory[1:], memory[:-1], memory[1:].copy()
    for theta, u in ((alone, shifted.copy()), (params, shifted)):
        opt = ClosedFormAmos(0.1, half_life=5, direction=lambda name, g, t, u=u: u, backend=backend)
        opt.step(theta, np.ones(199), opt.init(theta))
    assert own.bits(params) == own.bits(alone)


@directions
def test_leaf_without_gradient_keeps_its_bits_while_the_count_goes_on(direction):
    opt, params = ClosedFormAmos(**OPTIONS, direction=direction), small()
    state = opt.step(params, small(), opt.init(params))
    kept = all_bits((params["b"], [a["b"] for a in state[1:] if a is not None]))
    grads = {"a": np.ones(2), "b": None}
    updates, pure = opt.update(grads, state, params)
    assert all_bits(amos_ref.apply_updates(params, updates)["b"]) == kept[:1]
    state = opt.step(params, grads, state)
    assert state.count == pure.count == 2
    for after in (state, pure):
        assert all_bits((params["b"], [a["b"] for a in after[1:] if a is not None])) == kept


@backends
@pytest.mark.parametrize("count", [np.int64(2**40), 2**70, 10**400])
def test_huge_counts(count, backend):
    for decay in ("inverse-time", "inverse-square", "recurrence"):
        opt = ClosedFormAmos(half_life=5, decay=decay, direction="adam", backend=backend)
        params = small()
        state = opt.step(params, small(), opt.init(params)._replace(count=count))
        assert state.count == int(count) + 1
        assert all(np.isfinite(a).all() for a in params.values())


def test_callable_p_t_in_training():
    laws = [dict(decay="recurrence", p_t=lambda t, s: 0.4), dict(decay="recurrence", p_t="constant", p_0=0.4)]
    found = []
    for law in laws:
        opt, params = ClosedFormAmos(0.1, **law), small()
        state = opt.init(params)
        for _ in range(20):
            state = opt.step(params, small(), state)
        found.append(params["a"])
    assert np.allclose(*found, rtol=1e-12, atol=0)


# prediction and measurement


@pytest.mark.parametrize(("alpha_0", "near"), [(1e-3, True), (0.6, False)])
def test_predicted_and_measured_error(alpha_0, near):
    """u = eps, theta* = 0: p = q = 1, and only higher orders of alpha_0 = a are left out.

    With e_t = exp(-S_t) and x_t = |eps_t| / |eps_0|, x_{t+1} = x_t (1 - rho_t) - a e_t^2, rho_t = a^2 e_t^2 / 2, and
    e_{t+1} = e_t exp(-a e_t) <= e_t - a e_t^2 + a^2 e_t^3 / 2. So D = e - x, 0 at first, grows by a^2 e_t^3 at most;
    as e_t <= 1 / (1 + a t), D <= a^2 (1 + 1 / (2a)). Hence 1 - (x / e)^2 <= 2 D / e <= (a + 2 a^2) / e.
    """
    opt = ClosedFormAmos(alpha_0, p_0=1.0, decay="recurrence", p_t="constant")
    params = np.array([3.0, -4.0, 1.0])
    state, start, short = opt.init(params), np.sum(params**2), []
    predicted = opt.schedule.shrink(np.arange(2001))
    for t in range(1, 2001):
        state = opt.step(params, params.copy(), state)
        short.append(1 - np.sum(params**2) / start / predicted[t])
    if near:
        assert np.all(np.array(short) <= (alpha_0 + 2 * alpha_0**2) / np.sqrt(predicted[1:]))
        assert -1e-10 < min(short) < max(short) < 0.004
    else:
        assert max(short) > 0.9


def test_first_step_is_the_papers_and_then_they_part():
    """alpha_0 = xi, sigma = eta, q = 1: both start with alpha = xi eta / RMS(g) and rho = xi^2/2."""
    params, g = np.random.default_rng(5).normal(size=(2, 8))
    paper = amos_ref.Amos(0.1, 0.6, beta=0.0)
    closed = ClosedFormAmos(0.1, sigma=0.6, half_life=50)
    states = [paper.init(params), closed.init(params)]
    for t in range(2):
        one, other = (opt.trace(g, state, params)[""] for opt, state in zip((paper, closed), states, strict=True))
        same = [one[k] == pytest.approx(other[k], rel=8 * EPS) for k in ("alpha", "rho")]
        assert same == [t == 0] * 2
        states = [paper.update(g, states[0], params)[1], closed.update(g, states[1], params)[1]]


# bad input: a named error, and everything as it was


class Attempt:
    """A step in both forms that must raise and change nothing."""

    def __init__(self, **options):
        self.params, self.grads = small(), small()
        self.opt = ClosedFormAmos(**{"half_life": 9, **options})
        self.state = self.opt.init(self.params)

    def fails(self, error, *words):
        before = all_bits((self.params, self.grads, self.state))
        for attempt in (
            self.opt.step,
            lambda p, g, s: self.opt.update(g, s, p),
            lambda p, g, s: self.opt.trace(g, s, p),
        ):
            with pytest.raises(error) as raised:
                attempt(self.params, self.grads, self.state)
            message = str(raised.value)
            assert "\n" not in message
            assert all(word in message for word in words), message
            assert all_bits((self.params, self.grads, self.state)) == before


@directions
@backends
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_gradients_that_are_not_finite(direction, backend, value):
    attempt = Attempt(direction=direction, backend=backend)
    attempt.grads["b"] = np.array([[1.0], [value]])
    attempt.fails(errors.NonFiniteError, f"gradient of leaf 'b'[1, 0] is {value!r}")


@backends
def test_a_sum_of_squares_that_overflows(backend):
    attempt = Attempt(backend=backend)
    attempt.grads["a"] = np.full(2, 1.2e154)
    attempt.fails(errors.NonFiniteError, "gradient of leaf 'a'", "sum of its squares overflows")


@backends
@pytest.mark.parametrize(
    ("direction", "words"),
    [
        (lambda name, g, t: 1 / 0, ["raised ZeroDivisionError"]),
        (lambda name, g, t: None, ["NoneType"]),
        (lambda name, g, t: g[:1], ["shape (1,)"]),
        (lambda name, g, t: g.astype(int), ["dtype int64"]),
        (lambda name, g, t: [1.0, 2.0], ["list"]),
    ],
)
def test_directions_that_are_none(direction, words, backend):
    Attempt(direction=direction, backend=backend).fails(errors.DirectionError, "direction of leaf 'a'", *words)


@backends
def test_directions_that_are_not_finite(backend):
    attempt = Attempt(direction=lambda name, g, t: g / np.where(g == 3.0, np.nan, 1.0), backend=backend)
    attempt.fails(errors.NonFiniteError, "direction of leaf 'b'[1, 0] is nan")


def test_states_that_do_not_belong():
    for change, *words in (
        (lambda s: s._replace(sigma={"a": s.sigma["a"]}), "state.sigma lacks leaf 'b'"),
        (lambda s: s._replace(sigma={**s.sigma, "b": np.ones(1)}), "state.sigma of leaf 'b' has shape (1,)"),
        (lambda s: s._replace(sigma={**s.sigma, "b": np.float32(1) * np.ones(())}), "state.sigma of leaf 'b'"),
        (lambda s: s._replace(m=s.sigma), "has moments m and v", "none"),
        (lambda s: s._replace(count=-1), "state.count is -1"),
        (lambda s: amos_ref.Amos().init(small()), "ClosedFormState", "AmosState"),
        (lambda s: tuple(s), "ClosedFormState", "tuple"),
    ):
        attempt = Attempt()
        attempt.state = change(attempt.state)
        attempt.fails(errors.StateError, *words)
    attempt = Attempt(direction="adam")
    attempt.state = attempt.state._replace(v=None)
    attempt.fails(errors.StateError, "has no moments m and v")
    with pytest.raises(errors.StateError, match=r"not of type AmosState but ClosedFormState"):
        amos_ref.Amos().update(small(), attempt.state, small())


def test_validate_looks_at_parameters_and_state():
    attempt = Attempt(validate=True, direction="adam")
    attempt.params["a"][1] = np.nan
    attempt.fails(errors.NonFiniteError, "params leaf 'a'[1] is nan")
    attempt = Attempt(validate=True, direction="adam")
    attempt.state.v["a"][0] = -1
    attempt.fails(errors.StateError, "state.v of leaf 'a' holds -1.0")


def test_other_bad_input():
    attempt = Attempt()
    attempt.grads["a"] = np.ones(3)
    attempt.fails(errors.ShapeError, "gradient of leaf 'a' has shape (3,)")
    attempt.grads = {"a": np.ones(2)}
    attempt.fails(errors.TreeError, "missing 'b'")
    attempt = Attempt(decay="recurrence", half_life=None, p_t=lambda t, s: -1)
    attempt.state = attempt.state._replace(count=1)
    attempt.fails(errors.ScheduleError, "p_t(0, 0.0) is -1")
    params = small()
    opt = ClosedFormAmos(half_life=9, direction="adam")
    state = opt.init(params)
    with pytest.raises(errors.OverlapError, match="gradient of leaf 'a' shares memory with parameter of leaf 'a'"):
        opt.step(params, {**small(), "a": params["a"]}, state)
    with pytest.raises(errors.OverlapError, match=r"state m of leaf '.' shares memory with state v of leaf '.'"):
        opt.step(params, small(), state._replace(m=state.v))
    params["a"].flags.writeable = False
    with pytest.raises(errors.ReadOnlyError, match="parameter of leaf 'a' is read-only"):
        opt.step(params, small(), state)


@pytest.mark.parametrize(
    ("options", "params", "words"),
    [
        (dict(), {"w": np.full(2, 1e200)}, ["sigma of leaf 'w' is inf"]),
        (dict(), {"w": np.full(2, 1e-200)}, ["sigma of leaf 'w' is 0.0"]),
        (dict(sigma={"v": 1.0}), {"w": np.ones(2)}, ["sigma: no rule matches leaf 'w'"]),
        (dict(sigma=lambda name, shape: -1), {"w": np.ones(2)}, ["sigma of leaf 'w' is -1"]),
        (dict(sigma="SHAPE[0"), {"w": np.ones(2)}, ["SHAPE[0"]),
        (dict(slot_shape=(3,)), {"w": np.ones(2)}, ["slot_shape of leaf 'w'", "(3,)"]),
    ],
)
def test_leaves_without_sigma_or_slot(options, params, words):
    with pytest.raises(errors.RuleError) as error:
        ClosedFormAmos(half_life=9, **options).init(params)
    assert all(word in str(error.value) for word in words), error.value


def test_init_refuses_parameters_that_are_not_finite():
    with pytest.raises(errors.NonFiniteError, match=r"params leaf 'w'\[1\] is inf"):
        ClosedFormAmos(half_life=9).init({"w": np.array([1.0, np.inf])})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("direction", x) for x in ("adagrad", None, 1)),
        *(("sigma", x) for x in (0, -1.0, math.nan, None, [1.0])),
        *(("beta1", x) for x in (1, -0.1, math.nan, "0.9")),
        *(("beta2", x) for x in (1.0, None)),
        *(("adam_epsilon", x) for x in (0, math.inf)),
        *(("epsilon", x) for x in (0, -1)),
        ("validate", 1),
        ("slot_shape", 3),
        ("alpha_0", 1.0),
        ("half_life", -1),
        ("p_0", 0.5),
        ("p_t", "falling"),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(errors.HyperParameterError, match=name):
        ClosedFormAmos(**{"half_life": 9, name: value})


def test_backends_that_do_not_exist():
    with pytest.raises(errors.BackendError, match="'tpu'"):
        ClosedFormAmos(half_life=9, backend="tpu")


# whole or not at all


@backends
@pytest.mark.parametrize("moment", ["before", "behind"])
def test_ctrl_c_waits_for_the_whole_step(backend, moment, monkeypatch):
    def interrupted(leaves, run):
        if moment == "before":
            signal.raise_signal(signal.SIGINT)
        bad = run()
        if moment == "behind":
            signal.raise_signal(signal.SIGINT)
        return bad

    opt = ClosedFormAmos(half_life=9, direction="adam", backend=backend)
    params, whole = small(), small()
    state, want = opt.init(params), opt.step(whole, small(), opt.init(whole))
    wrap_run(monkeypatch, BACKENDS[backend].Work, interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        opt.step(params, small(), state)
    assert all_bits((params, stop.value.amos_state)) == all_bits((whole, want))


@backends
def test_an_allocation_that_fails_leaves_everything_as_it_was(backend, monkeypatch):
    """In the page's functions, and between the launches of kernels."""

    def fails_the_second_time(right):
        calls = []

        def fails(*args):
            calls.append(args)
            if len(calls) % 2 == 0:
                raise MemoryError
            return right(*args)

        return fails

    attempt = Attempt(direction="adam", backend=backend)
    monkeypatch.setattr(closed_form, "decide", fails_the_second_time(closed_form.decide))
    monkeypatch.setattr(cpu, "launch", fails_the_second_time(cpu.launch))
    attempt.fails(MemoryError)


# on disk


@directions
def test_training_goes_on_from_disk_with_the_same_bits(direction, tmp_path):
    given_again = {"direction": direction} if callable(direction) else {}
    opt, params = ClosedFormAmos(**OPTIONS, direction=direction), small()
    state = opt.step(params, small(), opt.init(params))
    amos_ref.save(tmp_path / "run", params, state, opt)
    saved = amos_ref.load(tmp_path / "run", like=small(), **given_again)
    assert type(saved.opt) is ClosedFormAmos
    assert repr(saved.opt) == repr(opt)
    assert type(saved.state) is ClosedFormState
    assert all_bits(saved.state) == all_bits(state)
    assert all_bits(amos_ref.load_state(tmp_path / "run", like=small())) == all_bits(state)
    state, again = opt.step(params, small(), state), saved.opt.step(saved.params, small(), saved.state)
    assert all_bits((saved.params, again)) == all_bits((params, state))


def test_state_alone_on_disk(tmp_path):
    for direction in ("gradient", "adam"):
        state = ClosedFormAmos(half_life=9, direction=direction).init(small())._replace(count=10**30)
        amos_ref.save_state(tmp_path / "state", state)
        found = amos_ref.load_state(tmp_path / "state")
        assert type(found) is ClosedFormState
        assert found.count == 10**30
        assert all_bits(found[1:]) == all_bits(state[1:])


def test_callables_must_be_given_again(tmp_path):
    opt, params = ClosedFormAmos(decay="recurrence", p_t=lambda t, s: 0.5), small()
    amos_ref.save(tmp_path / "run", params, opt.init(params), opt)
    with pytest.raises(errors.HyperParameterError, match=r"must be given: p_t \(.*lambda"):
        amos_ref.load(tmp_path / "run", like=small())


def test_state_and_optimizer_of_different_kinds(tmp_path):
    closed, paper = ClosedFormAmos(half_life=9), amos_ref.Amos()
    with pytest.raises(errors.StateError, match="not of type AmosState but ClosedFormState"):
        amos_ref.save(tmp_path / "run", small(), closed.init(small()), paper)
    with pytest.raises(errors.StateError, match="not of type ClosedFormState but AmosState"):
        amos_ref.save(tmp_path / "run", small(), paper.init(small()), closed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "OtherState"}, "its state is 'OtherState'"),
        ({"state": "AmosState"}, "its arrays are not those of its leaves"),
        ({"optimizer": "Amos"}, "its optimizer is 'Amos'"),
    ],
)
def test_files_that_mix_the_kinds(changes, words, tmp_path, monkeypatch):
    from amos_ref.storage import container

    right = container.write
    monkeypatch.setattr(container, "write", lambda path, arrays, texts: right(path, arrays, texts | changes))
    opt, params = ClosedFormAmos(half_life=9), small()
    amos_ref.save(tmp_path / "run", params, opt.init(params), opt)
    with pytest.raises(errors.StorageError, match=words):
        amos_ref.load(tmp_path / "run", like=small())


def test_importing_the_package_does_not_import_the_closed_form_optimizer():
    code = "import sys, amos_ref; print('amos_ref.optimizers.closed_form' in sys.modules); amos_ref.ClosedFormAmos"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
