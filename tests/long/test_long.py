"""Long runs: a million steps against an independent recurrence, and ten thousand random cases.

Run by ``nox -s long``.
"""

import copy
import resource

import numpy as np
import pytest
from helpers.strategies import step_of

import amos_ref
from amos_ref.conformance.judging.bound import Bound
from amos_ref.conformance.judging.reading import Step
from amos_ref.optimizers.amos import compute_stages
from amos_ref.optimizers.leaf import Leaf

XI, ETA, BETA, L2 = 0.01, 0.5, 0.75, 2.0**-14
STEPS = 1_000_000


def recurrence(theta, steps):
    """One entry under the gradient 1, in 64-bit significands: then g2/v_hat = 1, and Amos is two lines."""
    wide = np.longdouble
    xi, eta, l2 = wide(XI), wide(ETA), wide(L2)
    k_c, k_d = wide(0.25) * np.sqrt(xi), wide(0.25) * np.sqrt(xi * eta)
    theta, b, half = wide(theta), wide(0), wide(0.5)
    for _ in range(steps):
        gamma = xi * xi / np.sqrt(1 + k_c * b)
        d = 1 / (1 + k_d * b)
        theta = theta - d * (xi * eta + (half * gamma + l2) * theta)
        b = b + gamma * (1 + b)
    return theta, b


def test_a_million_steps_stay_within_the_derived_bound_and_in_memory():
    """The bound is the running one of bound.py; beside it, the recurrence's own errors are 2^11 times smaller."""
    assert np.finfo(np.longdouble).nmant >= 63, "the recurrence needs a longdouble of 64 bits"
    params, grads = np.array([1.5]), np.ones(1)
    opt = amos_ref.Amos(XI, ETA, beta=BETA, extra_l2=L2, backend="cpu")
    state = opt.init(params)
    memory = []
    bound = Bound(Step(old_theta=params, old_v=state.v[""]), "float64")
    for t in range(1, STEPS + 1):
        if t <= 1000 or t % 1000 == 0:  # after 1,000 steps q is 1; the bound then grows by the same amount a step
            advance(bound, opt, params, grads, state, t, 1 if t <= 1000 else 1000)
        state = opt.step(params, grads, state)
        if t % 100_000 == 0:
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    theta, b = recurrence(1.5, STEPS)
    bounds = bound.allowed()
    for what, exact, got in (("b", b, state.b[""]), ("theta", theta, params[0])):
        off, allowed = abs(float(exact - got)), float(bounds[what].max())
        print(f"{what} = {float(got):.6g} is off by {off:.2g}; the bound is {allowed:.2g}")
    print(f"resident memory after every 100,000 steps, kB: {memory}")
    assert state.count == STEPS
    assert abs(b - state.b[""]) <= bounds["b"]
    assert abs(theta - params[0]) <= bounds["theta"]
    assert float(bounds["b"]) < 1e-6 * float(b), "a bound this wide would show no drift"
    assert memory[-1] - memory[0] < 4096, f"kB resident over 900,000 steps: {memory}"


def advance(bound, opt, params, grads, state, t, times):
    """Advance the bound as often as steps have passed, from the state of the last of them."""
    leaf = Leaf("", params.copy(), grads, state.v[""].copy(), state.b[""].copy(), None, ETA)
    rates = opt._rates(t)
    step = step_of(leaf, rates, t, compute_stages(leaf, rates))
    for _ in range(times):
        bound.advance(step)


def random_case(rng):
    """A tree of one to three leaves and an optimizer with options that are never degenerate."""
    shapes = [(), (5,), (3, 4), (2, 3, 2), (1, 6), (130,)]
    dtypes = ["float64", "float32", "float16"]
    params = {}
    for name in "abc"[: rng.integers(1, 4)]:
        shape = shapes[rng.integers(len(shapes))]
        params[name] = np.asarray(rng.standard_normal(shape)).astype(dtypes[rng.integers(3)])
    slots = ["tensor", "element", lambda name, shape: (*shape[:1], *[1] * (len(shape) - 1))]
    xi = float(2.0 ** -rng.integers(1, 12))
    opt = amos_ref.Amos(
        learning_rate=lambda t: xi / t,
        eta=float(2.0 ** -rng.integers(1, 6)),
        slot_shape=slots[rng.integers(3)],
        beta=float(rng.choice([0.5, 0.75, 0.999])),
        momentum=[None, 0.5, 0.9][rng.integers(3)],
        clip_value=[None, 1.0][rng.integers(2)],
        extra_l2=float(rng.choice([0.125, 1e-3])),
        state_dtype=["float64", "param"][rng.integers(2)],
        backend=["numpy", "cpu"][rng.integers(2)],
    )
    return params, opt


def gradients(rng, params):
    return {
        name: None if rng.random() < 0.1 else np.asarray(rng.standard_normal(a.shape)).astype(a.dtype)
        for name, a in params.items()
    }


def bits(params, state):
    trees = (params, state.v, state.b, state.m or {})
    return state.count, [(name, a.dtype, np.asarray(a).tobytes()) for t in trees for name, a in t.items()]


@pytest.mark.filterwarnings("ignore::amos_ref.optimizers.state.UnderflowWarning")  # float16 is among them
def test_ten_thousand_random_cases_update_is_step_is_traced_is_resumed(tmp_path):
    rng, path = np.random.default_rng(2022), tmp_path / "state"
    for case in range(10_000):
        params, opt = random_case(rng)
        stepped, resumed = copy.deepcopy(params), copy.deepcopy(params)
        state, step_state = opt.init(params), opt.init(params)
        resume_state = opt.init(params)
        for t in range(3):
            grads = gradients(rng, params)
            trace = opt.trace(grads, state, params)
            updates, state = opt.update(grads, state, params)
            for name, after in trace.items():
                moved = after["delta" if after["m"] is None else "m"]
                assert np.asarray(moved).tobytes() == updates[name].tobytes(), f"case {case}: trace of {name}"
            params = amos_ref.apply_updates(params, updates)
            step_state = opt.step(stepped, grads, step_state)
            if t == 1:  # stop and start again from the disk
                amos_ref.save_state(path, resume_state)
                resume_state = amos_ref.load_state(path, like=resumed)
            resume_state = opt.step(resumed, grads, resume_state)
        want = bits(params, state)
        assert bits(stepped, step_state) == want, f"case {case}: step"
        assert bits(resumed, resume_state) == want, f"case {case}: resumed"
