"""amos_ref.ports.keras on the backend of this process: test_ports_keras.py runs this file once for each."""

import doctest
import functools
import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

import amos_ref
from amos_ref.conformance import check
from amos_ref.conformance.ports.keras import KerasPort
from amos_ref.ports import keras as port

SOURCE = pathlib.Path(port.__file__)
BACKEND = keras.backend.backend()

# Frameworks warn of their own affairs while they are used.
pytestmark = pytest.mark.filterwarnings("default")

if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)  # so that float64 is float64


# what the judge says


BOTH = {"paper": port.Amos, "closed-form": port.ClosedFormAmos}
by_algorithm = pytest.mark.parametrize("algorithm", BOTH)


HALF = ("float32", "bfloat16", "float16")


@by_algorithm
@pytest.mark.parametrize("dtypes", [HALF, ("float64",)][: 1 + (BACKEND == "torch")], ids=lambda names: names[0])
def test_every_case_conforms_in_every_dtype(algorithm, dtypes, monkeypatch):
    monkeypatch.setattr(KerasPort, "dtypes", dtypes)  # by itself it has float32 alone, as keras.ops has
    if dtypes == ("float64",):
        keras.config.set_floatx("float64")  # which Keras has its learning rate in
    try:
        report = check(BOTH[algorithm], algorithm=algorithm)
    finally:
        keras.config.set_floatx("float32")
    found = {}
    for r in report.results:
        found.setdefault(r.verdict, []).append(r)
    assert report.ok, str(report)
    assert set(found) == {"conforms", "not supported"}
    assert {r.dtype for r in found["conforms"]} == set(dtypes)
    assert {r.detail.split(": ")[-1] for r in found["not supported"]} == {
        "the port has no notion of it",  # what the optimizers of torch and of optax undergo
        "the port's framework has no gradient of None",  # asked for below
        *({"the port is told momentum once"} if algorithm == "paper" else {}),
    }


class ByFunction(port.Amos):
    """The judge takes an option called eta for a number, and makes an optimizer a leaf, which cannot have None."""

    def __init__(self, learning_rate=1e-3, eta_fn=None, **options):
        super().__init__(learning_rate, lambda path, shape: eta_fn(path), **options)


class ClosedByFunction(port.ClosedFormAmos):
    def __init__(self, alpha_0=1e-3, sigma_fn=None, **options):
        sigma = sigma_fn if isinstance(sigma_fn, str) else lambda path, shape: sigma_fn(path)
        super().__init__(alpha_0, sigma=sigma, **options)


def with_signature(cls, base):
    """Say the options of a class, which it hands on, where the judge looks for them."""
    import inspect

    scale = cls._scale
    parameters = [p for p in inspect.signature(base.__init__).parameters.values() if p.kind != p.VAR_KEYWORD]
    renamed = [p.replace(name=f"{scale}_fn", default=None) if p.name == scale else p for p in parameters]
    cls.__init__.__signature__ = inspect.Signature(renamed)
    return cls


NONE = ("none-gradient", "none-at-first", "plain", "life-frozen", "life-add_param_group")


@pytest.mark.parametrize(
    ("algorithm", "cls"),
    [
        ("paper", with_signature(ByFunction, port.Amos)),
        ("closed-form", with_signature(ClosedByFunction, port.ClosedFormAmos)),
    ],
)
def test_gradients_of_None_conform(algorithm, cls):
    more = ("adam-none", "adam-none-at-first") if algorithm == "closed-form" else ()
    report = check(cls, algorithm=algorithm, cases=(*NONE, *more))
    assert report.ok, str(report)
    assert {r.case for r in report.results if r.verdict == "conforms"} >= {*NONE[:3], *more}


#: Cases, what stands in the file once, what is written instead, and how the judge calls it.
WRONG = [
    ("paper", "extra_l2", 'gamma / 2 + o["extra_l2"]', 'gamma / 2 - o["extra_l2"]', "extra_l2-sign"),
    ("paper", "epsilon", 'ops.clip(v, o["epsilon"], math.inf)', '(v + o["epsilon"])', "epsilon-added"),
    ("paper", "plain", "ops.sqrt(xi * eta) * b", "ops.sqrt(xi) * b", "d-without-eta"),
    ("paper", "plain", "b + gamma * (1 + b)", "b + gamma", "b-without-compounding"),
    ("paper", "plain", "t = self._count(wide) + 1", "t = self._count(wide) + 2", "bias-correction-late"),
    ("closed-form", "q-large", '/ (2 * o["q"])', '/ o["q"]', "decay-without-half"),
    ("closed-form", "sigma-init", "(a == 1).all()", "True", "half-always"),
]


def load_with(old, new, folder):
    """Return the module with one thing in it written otherwise."""
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path = folder / "altered.py"
    path.write_text(text.replace(old, new).replace('serializable("amos_ref")', 'serializable("altered")'), "utf-8")
    spec = importlib.util.spec_from_file_location("altered", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(BACKEND != "torch", reason="which is slower to find mistakes on")
@pytest.mark.parametrize(("algorithm", "case", "old", "new", "name"), WRONG, ids=lambda x: None)
def test_a_wrong_version_departs_and_is_named(tmp_path, algorithm, case, old, new, name):
    altered = load_with(old, new, tmp_path)
    cls = altered.Amos if algorithm == "paper" else altered.ClosedFormAmos
    report = check(cls, algorithm=algorithm, cases=("plain", case))
    assert not report.ok
    assert name in report.diagnosis.deviations or name == "bias-correction-late"


def test_docstrings():
    assert doctest.testmod(port).failed == 0


# beside the core


RULES = {".*kernel": 0.25, "norm/scale": 1.0, ".*": 0.5}
SLOTS = {".*kernel": (1, 5), "norm/scale": "element", ".*": "tensor"}
SHAPES = {"dense/kernel": (6, 5), "dense/bias": (5,), "norm/scale": (5,), "number": ()}
PAPER = dict(momentum=0.75, extra_l2=0.125, clip_value=2.0, slot_shape=SLOTS)
CLOSED = dict(half_life=3.0, direction="adam", slot_shape=SLOTS, sigma={"dense.*": "init", ".*": 0.5})
MAKE = {
    "paper": functools.partial(port.Amos, 0.25, RULES, **PAPER),
    "closed-form": functools.partial(port.ClosedFormAmos, 0.25, **CLOSED),
}
CORES = {
    "paper": functools.partial(amos_ref.Amos, 0.25, RULES, backend="numpy", **PAPER),
    "closed-form": functools.partial(amos_ref.ClosedFormAmos, 0.25, backend="numpy", **CLOSED),
}


def draw(seed):
    """Numbers that every format holds exactly, so that nothing is rounded before a step."""
    numbers = np.random.default_rng(seed)
    return {name: np.array(np.round(numbers.standard_normal(shape) * 8) / 8) for name, shape in SHAPES.items()}


def make_variables(arrays, dtype="float64"):
    """Variables whose paths are these names."""
    made = []
    for name, a in arrays.items():
        *scope, last = name.split("/")
        with keras.name_scope(scope[0]) if scope else keras.name_scope("unused"):
            variable = keras.Variable(np.asarray(a, "float32"), dtype=dtype, name=last)
        variable._path = name  # a layer's variable has its layer's path; these have no layer
        made.append(variable)
    return made


def step(optimizer, variables, grads):
    given = [None if g is None else ops.convert_to_tensor(g, x.dtype) for g, x in zip(grads, variables, strict=True)]
    optimizer.apply(given, variables)


def numpy_of(variables):
    return [ops.convert_to_numpy(x).astype("float64") for x in variables]


def assert_close(ours, theirs, bound):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


#: Of one step: fewer than 32 operations, each on numbers below 8, from gradient and state to theta.
STEP = 32 * 8
EPS = {"float64": 2.0**-52, "float32": 2.0**-23}


@by_algorithm
@pytest.mark.parametrize("dtype", EPS)
def test_steps_and_states_agree_with_the_core_both_ways(algorithm, dtype, tmp_path):
    variables, core = make_variables(draw(0), dtype), CORES[algorithm]()
    optimizer = MAKE[algorithm]()
    for seed in (1, 2, 3):
        step(optimizer, variables, draw(seed).values())
    theta = dict(zip(SHAPES, numpy_of(variables), strict=True))
    state = amos_ref.interop.from_keras(optimizer, state_dtype="float64")
    assert optimizer.paths == list(SHAPES)
    assert int(state.count) == 3
    amos_ref.save_state(tmp_path / "state", state)
    state = amos_ref.load_state(tmp_path / "state", like=theta)
    for seed in (4, 5):  # the core goes on
        state = core.step(theta, draw(seed), state)
        step(optimizer, variables, draw(seed).values())
    assert_close(numpy_of(variables), theta.values(), 2 * STEP * EPS[dtype])
    fresh, own = MAKE[algorithm](), make_variables(theta, dtype)
    for x, a in zip(own, theta.values(), strict=True):
        x.assign(a)
    fresh.build(own)
    amos_ref.interop.to_keras(state, fresh)  # and back
    step(fresh, own, draw(6).values())
    state = core.step(theta, draw(6), state)
    assert_close(numpy_of(own), theta.values(), 2 * STEP * EPS[dtype])
    if dtype == "float64":
        again = amos_ref.interop.from_keras(fresh)
        other = MAKE[algorithm]()
        other.build(make_variables(draw(0)))
        amos_ref.interop.to_keras(again, other)
        same = amos_ref.interop.from_keras(other)
        for part in ("v", "b", "m", "sigma"):
            for name, a in (getattr(again, part, None) or {}).items():
                assert np.array_equal(a, getattr(same, part)[name])


def test_states_that_do_not_fit_are_refused():
    variables = make_variables(draw(0))
    optimizer, other = MAKE["paper"](), MAKE["closed-form"]()
    with pytest.raises(amos_ref.errors.StateError, match=r"no state yet: optimizer.build"):
        amos_ref.interop.from_keras(optimizer)
    for each in (optimizer, other):
        step(each, variables, draw(1).values())
    state = amos_ref.interop.from_keras(optimizer)
    with pytest.raises(amos_ref.errors.StateError, match="AmosState, and the optimizer is of the other algorithm"):
        amos_ref.interop.to_keras(state, other)
    with pytest.raises(amos_ref.errors.StateError, match=r"not one of amos_ref\.ports\.keras"):
        amos_ref.interop.from_keras(keras.optimizers.Adam())
    plain = port.Amos(0.25, 0.5)
    plain.build(variables)
    with pytest.raises(amos_ref.errors.StateError, match="the state has momentum"):
        amos_ref.interop.to_keras(state, plain)
    coarse = port.Amos(0.25, 0.5, momentum=0.5)
    coarse.build(variables)
    with pytest.raises(amos_ref.errors.StateError, match=r"v of leaf 'dense/kernel' has the shape \(1, 5\)"):
        amos_ref.interop.to_keras(state, coarse)
    assert int(coarse.iterations) == 0


@by_algorithm
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_stepped_in_float32_and_rounded_once(algorithm, dtype):
    low, wide = make_variables(draw(0), dtype), make_variables(draw(0), "float32")
    one, other = MAKE[algorithm](), MAKE[algorithm]()
    for optimizer, variables in ((one, low), (other, wide)):
        step(optimizer, variables, draw(1).values())
    kept = [x for x in one.variables if x.name not in ("iteration", "learning_rate")]
    assert {keras.backend.standardize_dtype(x.dtype) for x in kept} == {"float32"}
    for a, b in zip(low, wide, strict=True):
        assert keras.backend.standardize_dtype(a.dtype) == dtype
        assert np.array_equal(numpy_of([a])[0], numpy_of([ops.cast(b, dtype)])[0])


# in a model


def make_model(**layers):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    x = keras.layers.Dense(16, activation="tanh", name="one", **layers)(inputs)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="two", **layers)(x))


def data():
    numbers = np.random.default_rng(0)
    x = numbers.standard_normal((64, 8)).astype("float32")
    return x, np.tanh(x @ numbers.standard_normal((8, 1))).astype("float32")


def fit(model, epochs=2):
    x, y = data()
    return model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history["loss"]


@keras.saving.register_keras_serializable("tests")
def eta_by_shape(path, shape):
    return 1.0 if len(shape) < 2 else shape[0] ** -0.5


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 in four steps; it is called with 0 first."""

    def __call__(self, step):
        return 0.25 * ops.minimum(ops.cast(step, "float32") / 4, 1.0)

    def get_config(self):
        return {}


keras.saving.register_keras_serializable("tests")(WarmUp)
WAYS = {
    "rules": lambda: port.Amos(0.1, {".*kernel": 0.25, ".*": 0.5}, {"one/k.*": (1, 16), ".*": "tensor"}, momentum=0.9),
    "shape": lambda: port.Amos(WarmUp(), eta_by_shape, "element", beta=0.9, clipnorm=1.0, epsilon=1e-9),
    "plan": lambda: port.ClosedFormAmos(0.1, half_life=9.0, direction="adam"),
    "recurrence": lambda: port.ClosedFormAmos(0.1, p_0=0.5, decay="recurrence", p_t="constant", sigma={".*": 0.25}),
}
ways = pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)


@ways
def test_a_config_goes_around(make):
    config = make().get_config()
    again = type(make()).from_config(json.loads(json.dumps(config)))
    assert json.dumps(again.get_config()) == json.dumps(config)
    assert set(config) >= set(make().options)
    ends = []
    for optimizer in (make(), again, keras.optimizers.deserialize(keras.optimizers.serialize(make()))):
        model = make_model()
        model.compile(optimizer, "mse")
        fit(model)
        ends.append(model.get_weights())
    for other in ends[1:]:
        assert all(map(np.array_equal, ends[0], other))


@ways
def test_a_model_that_is_saved_in_the_middle_goes_on_to_the_bit(make, tmp_path):
    model = make_model()
    model.compile(make(), "mse")
    fit(model)
    model.save(tmp_path / "model.keras")
    fit(model)
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == 8
    fit(again)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    assert all(
        np.array_equal(numpy_of([a])[0], numpy_of([b])[0])
        for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True)
    )


def test_rules_are_saved_as_what_they_said(tmp_path):
    """A Sequential model that is loaded calls its variables otherwise, and a lambda is not saved."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, name="one")], name="net")
    slots = {".*net/one/kernel": (8, 1), ".*": "tensor"}
    eta = lambda path, shape: 0.25 if path.startswith("net/") else 1.0  # noqa: E731
    model.compile(port.Amos(0.1, eta, slots), "mse")
    assert [x.path for x in model.trainable_variables] == ["net/one/kernel", "net/one/bias"]
    fit(model)
    model.save(tmp_path / "model.keras")
    fit(model)
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [x.path for x in again.trainable_variables] == ["one/kernel", "one/bias"]
    config = again.optimizer.get_config()
    assert (list(config["eta"]), [list(slot) for slot in config["slot_shape"]]) == ([0.25, 0.25], [[8, 1], []])
    fit(again)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))
    with pytest.raises(ValueError, match=r"slot_shape has 2 values; there are 4 variables: \['dense/kernel'"):
        port.Amos.from_config(config).build(make_variables(draw(0)))


def test_sigma_that_was_not_saved_would_be_seen(tmp_path):
    model = make_model()
    model.compile(port.ClosedFormAmos(0.1, half_life=9.0), "mse")
    fit(model)
    measured = numpy_of(model.optimizer.scales)
    again = port.ClosedFormAmos(0.1, half_life=9.0)
    again.build(model.trainable_variables)
    assert not all(map(np.array_equal, measured, numpy_of(again.scales)))


def test_a_model_learns_under_every_way_to_run_it():
    ends = []
    for options in ({"jit_compile": False}, {"jit_compile": BACKEND == "jax"}, {"run_eagerly": True}):
        model = make_model()
        model.compile(WAYS["rules"](), "mse", **options)
        losses = fit(model, 10)
        assert losses[-1] < losses[0] / 2
        ends.append(model.get_weights())
    for other in ends[1:]:
        assert_close(ends[0], other, 1e-4)


def test_warm_up_from_0_moves_v_alone():
    variables = make_variables(draw(0))
    before = numpy_of(variables)
    optimizer = port.Amos(WarmUp(), 0.5)
    step(optimizer, variables, draw(1).values())
    assert all(map(np.array_equal, before, numpy_of(variables)))
    assert all(np.any(a) for a in numpy_of(optimizer.v))
    step(optimizer, variables, draw(1).values())
    assert not any(map(np.array_equal, before, numpy_of(variables)))


def stateless(optimizer, variables, grads):
    """Take a step as a compiled training takes it; a scaled loss has no other way under JAX."""
    given = [ops.convert_to_tensor(g, x.dtype) for g, x in zip(grads, variables, strict=True)]
    own, mine = ([ops.copy(ops.convert_to_tensor(x)) for x in xs] for xs in (optimizer.variables, variables))
    mine, own = optimizer.stateless_apply(own, given, mine)
    for xs, values in ((variables, mine), (optimizer.variables, own)):
        for x, value in zip(xs, values, strict=True):
            x.assign(value)


def test_mixed_precision_with_a_scaled_loss():
    """A loss scale that overflows skips the step, and one of a power of two changes nothing."""
    ends = []
    for scale in (1.0, 16.0):
        variables, optimizer = make_variables(draw(0), "float32"), MAKE["paper"]()
        if scale > 1:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
        optimizer.build(variables)
        for seed in (1, 2):
            stateless(optimizer, variables, [g * scale for g in draw(seed).values()])
        ends.append(numpy_of(variables))
    stateless(optimizer, variables, [np.full_like(g, np.inf) for g in draw(3).values()])
    assert all(map(np.array_equal, ends[1], numpy_of(variables)))
    assert int(amos_ref.interop.from_keras(optimizer).count) == 2
    # Under JAX the other one is compiled, which may fuse multiplications and additions.
    assert_close(*ends, 2 * STEP * EPS["float32"] if BACKEND == "jax" else 0.0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
        model.compile(WAYS["rules"](), "mse")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    losses = fit(model, 10)
    assert losses[-1] < losses[0]
    assert {keras.backend.standardize_dtype(x.dtype) for x in model.optimizer.inner_optimizer.v} == {"float32"}


def test_frozen_layers_stay_and_gradients_of_None_skip():
    model = make_model()
    model.get_layer("one").trainable = False
    model.compile(port.Amos(0.1, 0.5), "mse")
    before = [numpy_of(layer.variables) for layer in (model.get_layer("one"), model.get_layer("two"))]
    fit(model)
    assert all(map(np.array_equal, before[0], numpy_of(model.get_layer("one").variables)))
    assert not any(map(np.array_equal, before[1], numpy_of(model.get_layer("two").variables)))
    assert len(model.optimizer.v) == 4
    variables, optimizer = make_variables(draw(0)), MAKE["paper"]()
    theta, core = draw(0), CORES["paper"]()
    state = core.init(theta)
    for seed in (1, 2, 3):
        grads = draw(seed) | ({"dense/bias": None} if seed < 3 else {})
        step(optimizer, variables, grads.values())
        state = core.step(theta, grads, state)
    assert_close(numpy_of(variables), theta.values(), 3 * STEP * EPS["float64"])
    assert int(optimizer.iterations) == 3


# what Keras's own class offers


def apart(options, change=lambda grads: grads, repeat=1):
    """Return how variables end with options of Keras, and with gradients that are changed by hand."""
    ends = []
    for own, of_hand in ((options, lambda grads: grads), ({}, change)):
        variables = make_variables(draw(0))
        optimizer = port.Amos(0.25, 0.5, beta=0.75, momentum=0.5, clip_value=0.75, **own)
        for seed in (1, 2, 3):
            grads = [np.asarray(g) for g in draw(seed).values()]
            for _ in range(repeat if own else 1):
                step(optimizer, variables, of_hand(grads))
        ends.append(numpy_of(variables))
    return ends


def norm(*arrays):
    return sum(float((a * a).sum()) for a in arrays) ** 0.5


CHANGES = {
    "clipnorm": (dict(clipnorm=0.5), lambda gs: [g * min(1.0, 0.5 / max(norm(g), 1e-30)) for g in gs]),
    "global_clipnorm": (dict(global_clipnorm=0.5), lambda gs: [g * min(1.0, 0.5 / norm(*gs)) for g in gs]),
    "clipvalue": (dict(clipvalue=0.5), lambda gs: [g.clip(-0.5, 0.5) for g in gs]),
    "loss_scale_factor": (dict(loss_scale_factor=4.0), lambda gs: [g / 4 for g in gs]),
}


@pytest.mark.parametrize(("options", "change"), CHANGES.values(), ids=CHANGES)
def test_gradients_are_changed_first(options, change):
    ours, by_hand = apart(options, change)
    assert_close(ours, by_hand, 1e-6)  # Keras's own norms are in float32
    assert not np.allclose(ours[0], apart({"name": "plain"})[0][0], atol=1e-3)


def test_gradients_that_are_accumulated_make_one_step():
    ours, whole = apart(dict(gradient_accumulation_steps=2), repeat=2)
    assert_close(ours, whole, 3 * STEP * EPS["float64"])


def test_the_average_of_the_weights_is_that_of_the_steps():
    variables = make_variables(draw(0))
    optimizer = port.Amos(0.25, 0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    plain, other = port.Amos(0.25, 0.5), make_variables(draw(0))
    averages = None
    for seed in (1, 2, 3):
        step(optimizer, variables, draw(seed).values())
        step(plain, other, draw(seed).values())
        now = numpy_of(other)
        averages = now if averages is None else [0.5 * a + 0.5 * b for a, b in zip(averages, now, strict=True)]
        if seed < 3:
            assert_close(numpy_of(variables), now, 1e-12)
    assert_close(numpy_of(variables), averages, 1e-6)  # overwritten; Keras averages in float32


# bad input


WRONG_OPTIONS = {
    "learning_rate is -0.1; it must be a number in [0, inf)": dict(learning_rate=-0.1),
    "eta is 0.0; it must be a number in (0, inf)": dict(eta=0.0),
    "beta is 1; it must be a number in [0, 1)": dict(beta=1),
    "momentum is True": dict(momentum=True),
    "clip_value is 0": dict(clip_value=0),
    "epsilon is nan": dict(epsilon=float("nan")),
    "extra_l2 is None": dict(extra_l2=None),
    "weight_decay is not for Amos": dict(weight_decay=0.1),
    "Argument(s) not recognized: {'decays'": dict(decays=0.1),
}
WRONG_PLANS = {
    "half_life is None and p_0 is None; exactly one": {},
    "half_life is 3.0 and p_0 is 0.5; exactly one": dict(half_life=3.0, p_0=0.5),
    "p_t is 'constant' with decay 'inverse-time'": dict(half_life=3.0, p_t="constant"),
    "q is 0.125; it must be above alpha_0^2/2": dict(half_life=3.0, alpha_0=0.5, q=0.125),
    "direction is 'lion'; it must be one of": dict(half_life=3.0, direction="lion"),
    "there is no learning_rate": dict(half_life=3.0, learning_rate=0.1),
}
WRONG_RULES = {
    "eta: no rule for variable ['norm/scale', 'number']": dict(eta={"dense.*": 0.5}),
    "eta: there is no variable ['dense/scale']": dict(eta=dict.fromkeys([*SHAPES, "dense/scale"], 0.5)),
    "eta: no rule for variable ['number']": dict(eta=dict.fromkeys(list(SHAPES)[:3], 0.5)),
    "eta of 'dense/bias' is -1.0": dict(eta={"dense/bias": -1.0, ".*": 1.0}),
    "eta of 'dense/kernel' is None": dict(eta=lambda path, shape: None),
    "slot_shape of 'dense/bias' is (6, 5)": dict(slot_shape={"dense.*": (6, 5), ".*": "tensor"}),
    "slot_shape of 'dense/kernel' is 'rows'; it must be 'tensor', 'element' or broadcast to (6, 5)": dict(
        slot_shape="rows"
    ),
}


@pytest.mark.parametrize(("words", "options"), WRONG_OPTIONS.items(), ids=WRONG_OPTIONS)
def test_options_that_are_wrong(words, options):
    with pytest.raises(ValueError, match=r".") as error:
        port.Amos(**options)
    assert words in str(error.value)


@pytest.mark.parametrize(("words", "options"), WRONG_PLANS.items(), ids=WRONG_PLANS)
def test_options_of_the_closed_form_that_are_wrong(words, options):
    with pytest.raises(ValueError, match=r".") as error:
        port.ClosedFormAmos(**options)
    assert words in str(error.value)


@pytest.mark.parametrize(("words", "options"), WRONG_RULES.items(), ids=WRONG_RULES)
def test_rules_that_are_wrong(words, options):
    with pytest.raises(ValueError, match=r".") as error:
        port.Amos(**options).build(make_variables(draw(0)))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_rest_that_is_wrong():
    whole = keras.Variable(np.arange(3), dtype="int32", name="n", trainable=False)
    with pytest.raises(ValueError, match="variable 'n' is int32; Amos steps real floating-point variables"):
        port.Amos().build([whole])
    plan = port.ClosedFormAmos(half_life=3.0)
    with pytest.raises(AttributeError, match="alpha_0 is a constant of the plan"):
        plan.learning_rate = 0.1
    zero = make_variables({"w": np.full(3, np.inf)})
    with pytest.raises(ValueError, match="sigma of 'w' is inf"):
        plan.build(zero)


def test_what_choose_returns_is_taken():
    model = make_model()
    choice = amos_ref.choose({x.path: x.numpy() for x in model.trainable_variables})
    optimizer = port.Amos(0.1, choice, choice, beta=0.9)
    model.compile(optimizer, "mse")
    fit(model)
    assert [tuple(v.shape) for v in optimizer.v] == [entry.slot_shape for entry in choice.values()]
    assert list(optimizer.scales) == [entry.eta for entry in choice.values()]
    assert type(optimizer).from_config(optimizer.get_config()).options.keys() == optimizer.options.keys()


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
@by_algorithm
def test_steps_that_jax_compiles_are_those_of_the_core(algorithm):
    variables, theta = make_variables(draw(0)), draw(0)
    optimizer, core = MAKE[algorithm](), CORES[algorithm]()
    optimizer.build(variables)
    state, own, mine = core.init(theta), [x.value for x in optimizer.variables], [x.value for x in variables]
    compiled = jax.jit(optimizer.stateless_apply)
    for seed in (1, 2, 3):
        mine, own = compiled(own, [ops.convert_to_tensor(g) for g in draw(seed).values()], mine)
        state = core.step(theta, draw(seed), state)
    assert_close([np.asarray(a) for a in mine], theta.values(), 3 * STEP * EPS["float64"])
