"""ClosedFormAmos over trees: its backends have the same bits, and its numbers are the derivation's."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers import naive
from helpers import strategies as own
from helpers.attempts import Attempt
from helpers.optimizers import BACKENDS, CLOSED
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config

import amos_ref
from amos_ref import ClosedFormAmos, closed_form, errors

EPS = 2.0**-52
DTYPES = [(c.theta, c.g) for c in own.COMBINATIONS]
backends = pytest.mark.parametrize("backend", BACKENDS)


def small():
    return {"a": np.array([1.0, -2.0]), "b": np.array([[0.5], [3.0]], np.float32)}


# the backends agree


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
    with pytest.raises(errors.RuleError, match=r"sigma of leaf 'scale', the root mean square of its entries, is 0\.0"):
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
    opt = ClosedFormAmos(**{**CLOSED, "sigma": 0.5, "slot_shape": "tensor", "direction": "adam"})
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


@pytest.mark.parametrize(
    ("direction", "words"),
    [
        (lambda name, g, t: 1 / 0, ["raised ZeroDivisionError"]),
        (lambda name, g, t: None, ["NoneType"]),
        (lambda name, g, t: g[:1], ["shape (1, 3)"]),
        (lambda name, g, t: g.astype(int), ["dtype int64"]),
        (lambda name, g, t: [1.0, 2.0], ["list"]),
    ],
)
def test_directions_that_are_none(direction, words):
    attempt = Attempt("ClosedFormAmos by gradient")
    attempt.options["direction"] = lambda name, g, t: direction(name, g, t) if name == "z" else g
    attempt.fails(errors.DirectionError, ["direction of leaf 'z'", *words])


def test_directions_that_are_not_finite():
    attempt = Attempt("ClosedFormAmos by gradient")
    attempt.grads["z"][1, 0] = 3.0
    attempt.options["direction"] = lambda name, g, t: g / np.where(g == 3.0, np.nan, 1.0)
    attempt.fails(errors.NonFiniteError, ["direction of leaf 'z'[1, 0] is nan"])


@pytest.mark.parametrize(
    ("options", "params", "words"),
    [
        (dict(), {"w": np.full(2, 1e200)}, ["sigma of leaf 'w', the root mean square of its entries, is inf"]),
        (dict(), {"w": np.full(2, 1e-200)}, ["sigma of leaf 'w', the root mean square of its entries, is 0.0"]),
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


# on disk


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
