"""amos_ref.ports.optax: it conforms, wrong versions of it are caught, and it bears what optax does to it."""

import functools
import importlib.util
import pathlib

import numpy as np
import pytest

import amos_ref
from amos_ref.conformance import check

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
ports = pytest.importorskip("amos_ref.ports.optax")

jnp = jax.numpy
SOURCE = pathlib.Path(ports.__file__)

# JAX warns of its own affairs while it is imported and used.
pytestmark = pytest.mark.filterwarnings("default")

BOTH = {"paper": ports.amos, "closed-form": ports.closed_form_amos}


@pytest.fixture(autouse=True)
def in_64_bits():
    """As the judge has it."""
    jax.config.update("jax_enable_x64", True)


# what the judge says


@pytest.mark.parametrize("algorithm", BOTH)
def test_every_case_conforms_in_every_dtype(algorithm):
    report = check(BOTH[algorithm], algorithm=algorithm)
    found = {}
    for r in report.results:
        found.setdefault(r.verdict, []).append(r)
    assert report.ok, str(report)
    assert set(found) == {"conforms", "not supported"}
    assert {r.dtype for r in found["conforms"]} == {"float64", "float32", "bfloat16", "float16"}
    assert {r.detail.split(": ")[-1] for r in found["not supported"]} == {
        "the port has no notion of it",  # what torch's optimizers undergo
        "the port's framework has no gradient of None",  # the judge's view of optax; see the tests of None below
        *({"the port is told momentum once"} if algorithm == "paper" else {}),
    }


FORMULAS = (
    "plain",
    "decayed",
    "everything",
    "schedule",
    "aged-momentum",
    "slots-rows",
    "slots-element",
    "zero-gradients",
)
PLANS = (
    "plain",
    "inverse-square",
    "recurrence",
    "sigma-init",
    "adam-aged",
    "sign-rows",
    "late-recurrence",
    "everything",
)


@pytest.mark.parametrize(("algorithm", "cases"), [("paper", FORMULAS), ("closed-form", PLANS)])
def test_cases_conform_under_jit(algorithm, cases):
    @functools.wraps(BOTH[algorithm])
    def compiled(*args, **options):
        made = BOTH[algorithm](*args, **options)
        return optax.GradientTransformation(made.init, jax.jit(made.update))

    report = check(compiled, algorithm=algorithm, cases=cases, dtypes=("float32", "bfloat16"))
    assert report.ok, str(report)
    assert {r.verdict for r in report.results} == {"conforms"}


#: Cases, what stands in the file once, what is written instead, and how the judge calls it.
WRONG = [
    ("paper", "extra_l2", "gamma / 2.0 + extra_l2", "gamma / 2.0 - extra_l2", ["extra_l2-sign"]),
    ("paper", "epsilon", "jnp.maximum(v, epsilon)", "(v + epsilon)", ["epsilon-added"]),
    ("paper", "plain", "jnp.sqrt(xi * eta) * b", "jnp.sqrt(xi) * b", ["d-without-eta"]),
    ("paper", "plain", "b + gamma * (1.0 + b)", "b + gamma", ["b-without-compounding"]),
    ("paper", "momentum", "mu * m + (1.0 - mu) * delta", "mu * m + delta", ["momentum-undamped"]),
    ("paper", "schedule", "learning_rate(t) if", "learning_rate(state.count) if", ["schedule-from-0"]),
    ("closed-form", "q-large", "alpha_0 * alpha_0 / (2.0 * q)", "alpha_0 * alpha_0 / q", ["decay-without-half"]),
    ("closed-form", "inverse-square", "math.sqrt(2.0) - 1.0", "1.0", ["half-life-of-falling-p"]),
    ("closed-form", "sigma-init", "jnp.all(self.theta == 1.0)", "jnp.array(True)", ["half-always"]),
]


def load_with(old, new, folder):
    """Return the module with one thing in it written otherwise."""
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path = folder / "altered.py"
    path.write_text(text.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("altered", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("algorithm", "case", "old", "new", "names"), WRONG, ids=lambda x: x[0] if isinstance(x, list) else ""
)
def test_a_wrong_version_departs_and_is_named(tmp_path, algorithm, case, old, new, names):
    altered = load_with(old, new, tmp_path)
    factory = altered.amos if algorithm == "paper" else altered.closed_form_amos
    report = check(factory, algorithm=algorithm, cases=("plain", case), dtypes="float64")
    assert not report.ok
    assert report.diagnosis.deviations == names


# beside the core


RULES = {"eta": {".*kernel": 0.25, ".*": 0.5}, "slot_shape": {".*kernel": (1, 5), "norm/0": "element", ".*": "tensor"}}
PAIRS = {
    "paper": (
        functools.partial(ports.amos, 0.25, momentum=0.75, extra_l2=0.125, clip_value=2.0, **RULES),
        functools.partial(amos_ref.Amos, 0.25, backend="numpy", momentum=0.75, extra_l2=0.125, clip_value=2.0, **RULES),
    ),
    "closed-form": (
        functools.partial(
            ports.closed_form_amos, 0.25, half_life=3.0, direction="adam", slot_shape=RULES["slot_shape"]
        ),
        functools.partial(
            amos_ref.ClosedFormAmos,
            0.25,
            backend="numpy",
            half_life=3.0,
            direction="adam",
            slot_shape=RULES["slot_shape"],
        ),
    ),
}


def draw(seed, dtype="float64"):
    numbers = np.random.default_rng(seed)
    made = [numbers.standard_normal(shape).astype(np.float32) for shape in [(6, 5), (5,), (5,), ()]]
    kernel, bias, scale, number = (jnp.asarray(a, dtype) for a in made)
    return {"dense": {"kernel": kernel, "bias": bias}, "norm": [scale, number]}


def advance(optimizer, params, state, seeds, change=lambda grads: grads):
    update = jax.jit(optimizer.update)
    for seed in seeds:
        updates, state = update(change(draw(seed, params["norm"][0].dtype)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def as_numpy(tree):
    return jax.tree.map(lambda a: np.array(a, dtype=np.float64), tree)


def assert_close(one, other, ulps, eps=2.0**-52):
    """So many roundings of numbers of the entries' size, which is about 1 here, or that of the largest state."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0) <= ulps * eps


#: Of one step: fewer than 32 operations, each on numbers below 8, from gradient and state to theta.
STEP = 32 * 8


@pytest.mark.parametrize("algorithm", PAIRS)
def test_a_gradient_of_None_skips_the_leaf_and_the_count_goes_on(algorithm):
    port, core = (make() for make in PAIRS[algorithm])
    params, mine = draw(0), as_numpy(draw(0))
    state, own = port.init(params), core.init(mine)
    for seed in (1, 2, 3):
        grads = draw(seed)
        if seed == 2:
            grads["dense"]["bias"] = grads["norm"][1] = None
        before = params["dense"]["bias"]
        updates, state = jax.jit(port.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
        own = core.step(mine, _numpy(grads), own)
        assert (seed == 2) == bool(jnp.array_equal(params["dense"]["bias"], before))
        assert_close(params, mine, seed * STEP)
    assert int(state.count) == 3


def _numpy(grads):
    return jax.tree.map(lambda g: None if g is None else np.asarray(g), grads, is_leaf=lambda g: g is None)


def test_a_skipped_leaf_keeps_the_sign_of_its_zeros():
    optimizer = ports.amos(0.5, eta=1.0)
    params = {"a": jnp.array([-0.0, 0.0])}
    updates, _ = optimizer.update({"a": None}, optimizer.init(params), params)
    assert np.signbit(optax.apply_updates(params, updates)["a"]).tolist() == [True, False]


@pytest.mark.parametrize("algorithm", PAIRS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_state_goes_to_the_core_and_back_and_the_next_step_agrees(algorithm, dtype, tmp_path):
    port, core = (make() for make in PAIRS[algorithm])
    params, state = advance(port, draw(0, dtype), port.init(draw(0, dtype)), (1, 2))
    here = amos_ref.interop.from_optax(state, params, state_dtype="float64")
    mine = as_numpy(params)
    amos_ref.save_state(tmp_path / "state", here)
    here = amos_ref.load_state(tmp_path / "state", like=mine)
    here = core.step(mine, as_numpy(draw(3, dtype)), here)
    wide = jnp.float64 if dtype == "float64" else jnp.float32
    stepped, after = advance(
        port,
        jax.tree.map(lambda p: p.astype(wide), params),
        state,
        (3,),
        lambda g: jax.tree.map(lambda a: a.astype(dtype).astype(wide), g),
    )
    assert_close(stepped, mine, STEP, float(jnp.finfo(wide).eps))
    back = amos_ref.interop.to_optax(here, like=after)
    assert [a.dtype for a in jax.tree.leaves(back)] == [a.dtype for a in jax.tree.leaves(after)]
    assert type(back) is type(after)
    assert_close(back, after, STEP, float(jnp.finfo(wide).eps))
    if dtype == "float64":  # there and back again is the same to the bit
        again = amos_ref.interop.to_optax(amos_ref.interop.from_optax(after, params), like=port.init(params))
        assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(after)))


def test_a_state_inside_of_optaxs_containers_is_found():
    port = PAIRS["paper"][0]()
    labels = {"dense": "a", "norm": "b"}
    split = optax.chain(optax.partition({"a": port, "b": port}, labels), optax.ema(0.5))
    whole, there = advance(port, draw(0), port.init(draw(0)), (1, 2))
    state = amos_ref.interop.from_optax(there, whole)
    filled = amos_ref.interop.to_optax(state, like=split.init(draw(0)))
    assert int(filled[1].count) == 0  # the average behind is not ours
    found = amos_ref.interop.from_optax(filled, whole)
    assert found.count == 2
    assert all(np.array_equal(found.m[name], a) for name, a in state.m.items())
