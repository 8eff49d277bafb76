"""Every error that a user can meet through Amos: named, in one line, and with nothing moved."""

import copy
import math

import numpy as np
import optree
import pytest
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref import Amos, errors

BACKENDS = ("numpy", "cpu")
OPTIONS = dict(learning_rate=0.2, eta=0.6, slot_shape={"z": (1, 3), ".*": "element"}, beta=0.75, extra_l2=0.05)


class Attempt:
    """Arguments of one step of a tree whose last leaf goes wrong, so that the others could have moved before."""

    def __init__(self, **options):
        self.options = {**OPTIONS, **options}
        rng = np.random.default_rng(8)
        self.params = {"a": {"w": [rng.normal(size=(2, 2)), rng.normal(size=4)]}, "z": rng.normal(size=(2, 3))}
        self.grads = optree.tree_map(lambda a: rng.normal(size=a.shape), self.params)
        opt = Amos(**self.options, backend="numpy")
        _, self.state = opt.update(self.grads, opt.init(self.params), self.params)

    def call(self, method, backend):
        opt = Amos(**self.options, backend=backend)
        if method == "step":
            return opt.step(self.params, self.grads, self.state)
        return getattr(opt, method)(self.grads, self.state, self.params)

    def bits(self):
        leaves = optree.tree_leaves((self.params, self.grads, self.state), none_is_leaf=True)
        return [own.bits(a) if isinstance(a, np.ndarray) else repr(a) for a in leaves]


def refused(attempt, error, parts, method, backend):
    before = attempt.bits()
    with pytest.raises(error) as caught:
        attempt.call(method, backend)
    assert type(caught.value) is error
    one_line(caught.value, parts)
    assert attempt.bits() == before


def part(where, name, value):
    """Replace one leaf of params, grads, or of v, b or m of the state."""

    def change(attempt):
        if where in "vbm":
            arrays = {**getattr(attempt.state, where), name: value}
            attempt.state = attempt.state._replace(**{where: arrays})
        else:
            getattr(attempt, where)[name] = value

    return change


def entry(where, index, value, name="z"):
    """Overwrite one number of a leaf."""

    def change(attempt):
        arrays = getattr(attempt.state, where) if where in ("v", "b", "m") else getattr(attempt, where)
        arrays[name][index] = value

    return change


def state(**changes):
    return lambda attempt: setattr(attempt, "state", attempt.state._replace(**changes))


def without(where, name):
    def change(attempt):
        if where in ("v", "b"):
            arrays = {k: a for k, a in getattr(attempt.state, where).items() if k != name}
            attempt.state = attempt.state._replace(**{where: arrays})
        else:
            del getattr(attempt, where)[name]

    return change


class Tensor:
    """Shows itself in two lines, as arrays of other libraries do."""

    def __repr__(self):
        return "tensor([[1., 2.],\n        [3., 4.]])"


Z = np.ones((2, 3))
MASKED = np.ma.masked_array(Z, Z > 2)
MATRIX = Z.view(np.matrix)
S, D, N, T, X = errors.StateError, errors.DtypeError, errors.NonFiniteError, errors.TreeError, errors.ShapeError

CASES = {
    "gradient transposed": (part("grads", "z", Z.T), X, ["gradient", "'z'", "(3, 2)", "(2, 3)"]),
    "gradient of one slot": (part("grads", "z", np.ones((1, 3))), X, ["gradient", "'z'", "(1, 3)"]),
    "gradient missing": (without("grads", "z"), T, ["grads", "missing 'z'"]),
    "gradient extra": (part("grads", "zz", Z), T, ["grads", "extra 'zz'"]),
    "gradient one list short": (part("grads", "a", {"w": [np.ones((2, 2))]}), T, ["missing 'a/w/1'"]),
    "gradient int": (part("grads", "z", Z.astype(int)), D, ["gradient", "'z'", "int64"]),
    "gradient bool": (part("grads", "z", Z > 0), D, ["gradient", "'z'", "bool"]),
    "gradient object": (part("grads", "z", Z.astype(object)), D, ["gradient", "'z'", "object"]),
    "gradient complex": (part("grads", "z", Z.astype(complex)), D, ["gradient", "'z'", "complex128"]),
    "gradient longdouble": (part("grads", "z", Z.astype(np.longdouble)), D, ["'z'", np.dtype("g").name]),
    "gradient big-endian": (part("grads", "z", Z.astype(">f8")), D, ["'z'", ">f8", "native"]),
    "gradient masked": (part("grads", "z", MASKED), D, ["gradient", "'z'", "MaskedArray"]),
    "gradient matrix": (part("grads", "z", MATRIX), D, ["gradient", "'z'", "matrix"]),
    "gradient of another library": (part("grads", "z", Tensor()), D, ["gradient", "'z'", "Tensor", "tensor("]),
    "gradient number": (part("grads", "z", 0.5), D, ["gradient", "'z'", "float", "0.5"]),
    "gradient text": (part("grads", "z", "nan"), D, ["gradient", "'z'", "str", "'nan'"]),
    "parameter lists": (part("params", "z", [[1.0, 2.5]]), D, ["params leaf 'z/0/0'", "float", "1.0"]),
    "parameter None": (part("params", "z", None), D, ["params leaf 'z'", "NoneType"]),
    "parameter int": (part("params", "z", Z.astype("i4")), D, ["params leaf 'z'", "int32"]),
    "parameter big-endian": (part("params", "z", Z.astype(">f4")), D, ["params leaf 'z'", ">f4"]),
    "parameter matrix": (part("params", "z", MATRIX.copy()), D, ["params leaf 'z'", "matrix"]),
    "parameter masked": (part("params", "z", MASKED), D, ["params leaf 'z'", "MaskedArray"]),
    "parameter of another shape": (part("params", "z", np.ones((4, 3))), X, ["gradient of leaf 'z'", "(4, 3)"]),
    "parameter names collide": (part("params", "a/w/0", Z), T, ["params", "'a/w/0'"]),
    "gradient nan": (entry("grads", (1, 2), np.nan), N, ["gradient of leaf 'z'[1, 2] is nan"]),
    "gradient inf": (entry("grads", (0, 1), np.inf), N, ["gradient of leaf 'z'[0, 1] is inf"]),
    "gradient -inf": (entry("grads", (1, 0), -np.inf), N, ["gradient of leaf 'z'[1, 0] is -inf"]),
    "gradient squared": (entry("grads", (1, 1), -1e200), N, ["'z'[1, 1] is -1e+200", "square overflows"]),
    "gradients summed": (entry("grads", ..., 1.2e154), N, ["gradient of leaf 'z'", "sum", "overflows", "1.2e+154"]),
    "no state": (lambda attempt: setattr(attempt, "state", None), S, ["NoneType"]),
    "state a tuple": (lambda attempt: setattr(attempt, "state", tuple(attempt.state)), S, ["tuple"]),
    "v missing a leaf": (without("v", "z"), S, ["state.v", "'z'"]),
    "b missing a leaf": (without("b", "a/w/1"), S, ["state.b", "'a/w/1'"]),
    "v extra": (part("v", "zz", Z), S, ["state.v", "extra", "'zz'"]),
    "v of the leaf's shape": (part("v", "z", Z), S, ["state.v of leaf 'z'", "(2, 3)", "(1, 3)"]),
    "b of no shape": (part("b", "z", np.array(0.0)), S, ["state.b of leaf 'z'", "()", "(1, 3)"]),
    "v float32": (part("v", "z", np.ones((1, 3), "f4")), S, ["state.v of leaf 'z'", "float32", "float64"]),
    "v a list": (part("v", "z", [[1.0, 2.0, 3.0]]), S, ["state.v of leaf 'z'", "list"]),
    "v int": (part("v", "z", np.ones((1, 3), int)), S, ["state.v of leaf 'z'", "int64"]),
    "v None": (state(v=None), S, ["state.v"]),
    "b None": (state(b=None), S, ["state.b"]),
    "m present": (state(m={"a/w/0": np.ones((2, 2)), "a/w/1": np.ones(4), "z": Z}), S, ["momentum"]),
    "count -1": (state(count=-1), S, ["count", "-1"]),
    "count True": (state(count=True), S, ["count", "True"]),
    "count 1.0": (state(count=1.0), S, ["count", "1.0"]),
    "count None": (state(count=None), S, ["count", "None"]),
}


@pytest.mark.parametrize("method", ["step", "update", "trace"])
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused(case, method):
    change, error, parts = CASES[case]
    for backend in BACKENDS if method == "step" else ("numpy",):
        attempt = Attempt()
        change(attempt)
        refused(attempt, error, parts, method, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (entry("params", (1, 2), np.nan), N, ["params leaf 'z'[1, 2] is nan"]),
        (entry("params", (0, 0), np.inf), N, ["params leaf 'z'[0, 0] is inf"]),
        (entry("v", (0, 1), np.inf), N, ["state.v of leaf 'z'[0, 1] is inf"]),
        (entry("b", (0, 1), np.nan), N, ["state.b of leaf 'z'[0, 1] is nan"]),
        (entry("v", (0, 1), -0.5), S, ["state.v of leaf 'z'", "-0.5"]),
        (entry("b", (0, 1), -0.25), S, ["state.b of leaf 'z'", "-0.25"]),
        (entry("m", (1, 1), -np.inf), N, ["state.m of leaf 'z'[1, 1] is -inf"]),
    ],
)
def test_validate_looks_at_parameters_and_state(change, error, parts, backend):
    attempt = Attempt(validate=True, momentum=0.5)
    change(attempt)
    refused(attempt, error, parts, "step", backend)
    attempt.options["validate"] = False
    attempt.call("step", backend)


def test_init_refuses_parameters_that_are_not_finite():
    with pytest.raises(errors.NonFiniteError) as caught:
        Amos().init({"a": np.ones(2), "b": [np.array([[1.0, 2.0], [-np.inf, 3.0]])]})
    one_line(caught.value, ["params leaf 'b/0'[1, 0] is -inf"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leaf", ["z", "a"])
def test_clipping_takes_infinity_and_never_nan(backend, leaf):
    # z has reducing slots, a element slots: another kernel looks at each.
    index = (1, 1)
    attempt = Attempt(clip_value=1.5)
    grads = attempt.grads["z"] if leaf == "z" else attempt.grads["a"]["w"][0]
    grads[index] = -np.inf
    clipped = copy.deepcopy(attempt)
    (clipped.grads["z"] if leaf == "z" else clipped.grads["a"]["w"][0])[index] = -1.5
    attempt.call("step", backend)
    clipped.call("step", backend)
    assert [own.bits(a) for a in optree.tree_leaves(attempt.params)] == [
        own.bits(a) for a in optree.tree_leaves(clipped.params)
    ]
    grads[index] = np.nan
    refused(attempt, N, [f"gradient of leaf '{'z' if leaf == 'z' else 'a/w/0'}'[1, 1] is nan"], "step", backend)


# targets in memory


def linked(where, name, source):
    """Replace a leaf by a view of another."""
    return lambda attempt: part(where, name, source(attempt))(attempt)


def tied(attempt):
    attempt.params["a"]["w"][1] = attempt.params["z"].reshape(-1)[1:5]


def tied_with_a_skipped_leaf(attempt):
    tied(attempt)
    attempt.grads["a"]["w"][1] = None


def gradient_inside_another_parameter(attempt):
    attempt.grads["a"]["w"][1] = attempt.params["z"].reshape(-1)[:4]


R, O, strided = errors.ReadOnlyError, errors.OverlapError, np.lib.stride_tricks.as_strided  # noqa: E741
GZ, PZ, PA = "gradient of leaf 'z'", "parameter of leaf 'z'", "parameter of leaf 'a/w/1'"
TARGETS = {
    "parameter read-only": (lambda attempt: attempt.params["z"].setflags(write=False), R, [PZ, "read-only"]),
    "b read-only": (
        lambda attempt: attempt.state.b["z"].setflags(write=False),
        R,
        ["state b of leaf 'z'", "read-only"],
    ),
    "gradient is parameter": (linked("grads", "z", lambda attempt: attempt.params["z"]), O, [GZ, PZ]),
    "gradient is parameter reversed": (linked("grads", "z", lambda attempt: attempt.params["z"][::-1]), O, [GZ, PZ]),
    "gradient inside another": (gradient_inside_another_parameter, O, ["gradient of leaf 'a/w/1'", PZ]),
    "parameters tied": (tied, O, [PA, PZ]),
    "parameters tied, one skipped": (tied_with_a_skipped_leaf, O, [PA, PZ]),
    "v inside gradient": (linked("v", "z", lambda attempt: attempt.grads["z"][:1]), O, [GZ, "state v of leaf 'z'"]),
    "v is b": (
        linked("v", "z", lambda attempt: attempt.state.b["z"]),
        O,
        ["state b of leaf 'z'", "state v of leaf 'z'"],
    ),
    "stride 0": (part("params", "z", strided(np.ones(3), (2, 3), (0, 8))), O, [PZ, "(0, 8)"]),
    "sliding window": (part("params", "z", strided(np.ones(4), (2, 3), (8, 8))), O, [PZ, "(8, 8)"]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", TARGETS)
def test_targets_that_cannot_be_written_alone_are_refused(case, backend):
    change, error, parts = TARGETS[case]
    attempt = Attempt()
    change(attempt)
    refused(attempt, error, parts, "step", backend)
    # Reading alone is no trouble.
    attempt.call("update", backend)


def test_interleaved_parameters_may_be_stepped_and_hide_no_overlap_behind_them():
    memory = np.arange(1.0, 13.0)
    params = {"even": memory[::2], "odd": memory[1::4]}
    grads = {"even": np.ones(6), "odd": np.ones(3)}
    opt = Amos(0.1, 0.6)
    opt.step(params, grads, opt.init(params))
    params["tail"], grads["tail"] = memory[10:11], np.ones(1)
    with pytest.raises(errors.OverlapError) as caught:
        opt.step(params, grads, opt.init(params))
    one_line(caught.value, ["parameter of leaf 'even'", "parameter of leaf 'tail'"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_may_be_read_only_broadcast_or_shared(backend):
    attempt = Attempt()
    attempt.grads["z"] = np.broadcast_to(np.array([1.0, 2.0, 3.0]), (2, 3))
    attempt.grads["a"]["w"] = [np.broadcast_to(0.5, (2, 2)), np.broadcast_to(0.5, 4)]
    assert attempt.call("step", backend).count == 2


# options, schedules, backends, state and options that do not belong together

NAN_INF = (math.nan, math.inf, -math.inf)
WRONG = {
    "learning_rate": (*NAN_INF, -0.1, None, "0.1", True, 1j, [0.1], np.ones(2)),
    "eta": (*NAN_INF, 0, -0.5, None, True, 1j, [0.5]),
    "beta": (*NAN_INF, 1, 1.0, -0.1, None, "0.9", True, 1j, [0.9], np.ones(1)),
    "momentum": (*NAN_INF, 1, -0.1, "0.9", False, 1j),
    "clip_value": (*NAN_INF, 0, 0.0, -1.0, "1", True),
    "extra_l2": (*NAN_INF, -1e-3, None, "0", True, 1j),
    "c_coef": (*NAN_INF, -0.25, None, "0.25", True),
    "d_coef": (*NAN_INF, -0.25, None, "0.25", True),
    "epsilon": (*NAN_INF, 0, 0.0, -1e-9, None, "1e-9", True),
    "state_dtype": ("float32", None, np.float64, 64),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(errors.HyperParameterError) as caught:
        Amos(**{name: value})
    one_line(caught.value, [name, repr(value)])


@pytest.mark.parametrize(
    "slot_shape", [{".*": 3}, {".*": None}, {"a.*": "tensor"}, {".*": "(7,)"}, "(2, 3", lambda name, shape: 3]
)
def test_slot_shapes_that_fit_no_leaf_are_refused_by_init(slot_shape):
    with pytest.raises(errors.RuleError) as caught:
        Amos(slot_shape=slot_shape).init({"z": Z})
    one_line(caught.value, ["slot_shape", "'z'"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("slot_shape", 3), ("slot_shape", None), ("slot_shape", iter([1])), ("validate", "no"), ("eta", iter([1]))],
)
def test_options_of_a_type_that_can_never_fit_are_refused_at_once(name, value):
    with pytest.raises(errors.HyperParameterError) as caught:
        Amos(**{name: value})
    one_line(caught.value, [name, repr(value)])


@pytest.mark.parametrize("value", [np.True_, np.complex128(1), 1j, "0.1", np.ones(2)])
def test_what_is_no_real_number_is_refused_from_option_and_schedule_alike(value):
    with pytest.raises(errors.HyperParameterError):
        Amos(learning_rate=value)
    opt = Amos(learning_rate=lambda t: value)
    with pytest.raises(errors.ScheduleError):
        opt.update(Z, opt.init(Z), Z)


def test_a_tree_within_itself_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(errors.TreeError, match="nested too deeply, or within itself"):
        Amos().init(endless)


@pytest.mark.parametrize("backend", ["", "gpu", "CPU", None, 3, ["cpu"]])
def test_unknown_backends_are_refused(backend):
    with pytest.raises(errors.BackendError) as caught:
        Amos(backend=backend)
    one_line(caught.value, [repr(backend)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [*NAN_INF, -1e-3, None, "0.1", True, 1j, [0.1], np.ones(1)])
def test_schedules_that_give_no_rate_are_refused(value, backend):
    attempt = Attempt()
    attempt.options["learning_rate"] = lambda t: value
    refused(attempt, errors.ScheduleError, ["learning_rate(2)", repr(value)], "step", backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_schedules_that_raise_are_refused(backend):
    attempt = Attempt()
    attempt.options["learning_rate"] = lambda t: {}["rate of step"]
    refused(attempt, errors.ScheduleError, ["learning_rate(2)", "KeyError", "rate of step"], "step", backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_of_other_options_is_refused(backend):
    for options, words in (
        ({"momentum": 0.5}, ["momentum"]),
        ({"slot_shape": "tensor"}, ["state.v", "'a/w/0'", "(2, 2)"]),
    ):
        attempt = Attempt()
        attempt.options.update(options)
        refused(attempt, errors.StateError, words, "step", backend)
    attempt = Attempt(momentum=0.5)
    attempt.state.m["z"] = np.ones((1, 3))
    refused(attempt, errors.StateError, ["state.m of leaf 'z'", "(1, 3)", "(2, 3)"], "step", backend)
    attempt = Attempt(state_dtype="param")
    attempt.params["z"] = attempt.params["z"].astype(np.float32)
    refused(attempt, errors.StateError, ["state.v of leaf 'z'", "float64", "float32"], "step", backend)


def raising(*_):
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": np.ones((2, 2))},
        {"learning_rate": raising},
        {"learning_rate": lambda t: np.ones((2, 2))},
        {"eta": Tensor()},
        {"eta": {".*": Tensor()}},
        {"eta": raising},
        {"slot_shape": raising},
        {"slot_shape": {".*": Tensor()}},
        {"backend": Tensor()},
    ],
)
def test_messages_stay_in_one_line_whatever_they_show(options):
    with pytest.raises(errors.AmosError) as caught:
        (opt := Amos(**options)).update(Z, opt.init(Z), Z)
    one_line(caught.value, [])


def test_updates_that_fit_no_parameter_are_refused():
    params = {"w": np.ones((2, 3))}
    for updates, error in (
        ({}, errors.TreeError),
        ({"w": None}, errors.DtypeError),
        ({"w": np.ones((3, 2))}, errors.ShapeError),
        ({"w": np.ones((2, 3), int)}, errors.DtypeError),
    ):
        with pytest.raises(error) as caught:
            amos_ref.apply_updates(params, updates)
        one_line(caught.value, ["'w'"])


def test_every_error_derives_from_one():
    assert all(issubclass(getattr(errors, name), errors.AmosError) for name in errors.__all__)
