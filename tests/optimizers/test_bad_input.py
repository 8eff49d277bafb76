"""Every error that a step of any optimizer can end in: named, in one line, and with nothing moved."""

import copy
import math

import numpy as np
import pytest
from helpers import strategies as own
from helpers.attempts import Attempt
from helpers.messages import one_line
from helpers.optimizers import MEMBERS, backends_of, cases, make, members, parts_of

import amos_ref
from amos_ref import Amos, ClosedFormAmos, errors
from amos_ref.adamw import AdamW
from amos_ref.optimizers.state import PARTS


def leaf(where, name, value):
    """Replace one leaf of params or grads."""
    return lambda attempt: getattr(attempt, where).__setitem__(name, value)


def entry(where, index, value):
    """Overwrite numbers of the last leaf."""
    return lambda attempt: getattr(attempt, where)["z"].__setitem__(index, value)


class Tensor:
    """Shows itself in two lines, as arrays of other libraries do."""

    def __repr__(self):
        return "tensor([[1., 2.],\n        [3., 4.]])"


Z = np.ones((2, 3))
MASKED = np.ma.masked_array(Z, Z > 2)
MATRIX = Z.view(np.matrix)
S, D, N, T, X = errors.StateError, errors.DtypeError, errors.NonFiniteError, errors.TreeError, errors.ShapeError

CASES = {
    "gradient transposed": (leaf("grads", "z", Z.T), X, ["gradient of leaf 'z'", "(3, 2)", "(2, 3)"]),
    "gradient of one slot": (leaf("grads", "z", np.ones((1, 3))), X, ["gradient of leaf 'z'", "(1, 3)"]),
    "gradient missing": (lambda attempt: attempt.grads.pop("z"), T, ["grads", "missing 'z'"]),
    "gradient extra": (leaf("grads", "zz", Z), T, ["grads", "extra 'zz'"]),
    "gradient one list short": (leaf("grads", "a", {"w": [np.ones((2, 2))]}), T, ["missing 'a/w/1'"]),
    "gradient int": (leaf("grads", "z", Z.astype(int)), D, ["gradient", "'z'", "int64"]),
    "gradient bool": (leaf("grads", "z", Z > 0), D, ["gradient", "'z'", "bool"]),
    "gradient object": (leaf("grads", "z", Z.astype(object)), D, ["gradient", "'z'", "object"]),
    "gradient complex": (leaf("grads", "z", Z.astype(complex)), D, ["gradient", "'z'", "complex128"]),
    "gradient longdouble": (leaf("grads", "z", Z.astype(np.longdouble)), D, ["'z'", np.dtype("g").name]),
    "gradient big-endian": (leaf("grads", "z", Z.astype(">f8")), D, ["'z'", ">f8", "native"]),
    "gradient masked": (leaf("grads", "z", MASKED), D, ["gradient", "'z'", "MaskedArray"]),
    "gradient matrix": (leaf("grads", "z", MATRIX), D, ["gradient", "'z'", "matrix"]),
    "gradient of another library": (leaf("grads", "z", Tensor()), D, ["gradient", "'z'", "Tensor", "tensor("]),
    "gradient number": (leaf("grads", "z", 0.5), D, ["gradient", "'z'", "float", "0.5"]),
    "gradient text": (leaf("grads", "z", "nan"), D, ["gradient", "'z'", "str", "'nan'"]),
    "parameter lists": (leaf("params", "z", [[1.0, 2.5]]), D, ["params leaf 'z/0/0'", "float", "1.0"]),
    "parameter None": (leaf("params", "z", None), T, ["grads do not match params: extra 'z'"]),
    "parameter int": (leaf("params", "z", Z.astype("i4")), D, ["params leaf 'z'", "int32"]),
    "parameter big-endian": (leaf("params", "z", Z.astype(">f4")), D, ["params leaf 'z'", ">f4"]),
    "parameter matrix": (leaf("params", "z", MATRIX.copy()), D, ["params leaf 'z'", "matrix"]),
    "parameter masked": (leaf("params", "z", MASKED), D, ["params leaf 'z'", "MaskedArray"]),
    "parameter of another shape": (leaf("params", "z", np.ones((4, 3))), X, ["gradient of leaf 'z'", "(4, 3)"]),
    "parameter names collide": (leaf("params", "a/w/0", Z), T, ["params", "'a/w/0'"]),
    "gradient nan": (entry("grads", (1, 2), np.nan), N, ["gradient of leaf 'z'[1, 2] is nan"]),
    "gradient inf": (entry("grads", (0, 1), np.inf), N, ["gradient of leaf 'z'[0, 1] is inf"]),
    "gradient -inf": (entry("grads", (1, 0), -np.inf), N, ["gradient of leaf 'z'[1, 0] is -inf"]),
    "gradient squared": (entry("grads", (1, 1), -1e200), N, ["'z'[1, 1] is -1e+200", "square overflows"]),
    "gradients summed": (entry("grads", ..., 1.2e154), N, ["gradient of leaf 'z'", "sum", "overflows", "1.2e+154"]),
}
#: What no init leaves as the one number of a leaf.
UNLIKE_A_SIZE = (math.nan, math.inf, -math.inf, -0.5, 0.0)
#: What is no mistake where gradients are clipped before anything else, or where no mean of their squares is taken.
LEGAL = {
    "Amos that averages and clips": ("gradient inf", "gradient -inf", "gradient squared", "gradients summed"),
    "ClosedFormAmos by Adam": ("gradients summed",),
    "ClosedFormAmos by sign": ("gradients summed",),
    "AdamW": ("gradients summed",),
}


@pytest.mark.parametrize("case", CASES)
@members
def test_bad_gradients_and_parameters_are_refused(name, case):
    change, error, words = CASES[case]
    if (name, case) == ("ClosedFormAmos by a callable", "gradients summed"):
        words = [word.replace("gradient", "direction") for word in words]
    attempt = Attempt(name)
    change(attempt)
    if case in LEGAL.get(name, ()):
        for method in ("update", "trace", "step"):
            attempt.call(method)
    else:
        attempt.fails(error, words)


@members
def test_init_refuses_parameters_that_are_not_finite(name):
    with pytest.raises(N) as caught:
        make(name).init({"a": np.ones(2), "b": [np.array([[1.0, 2.0], [-np.inf, 3.0]])]})
    one_line(caught.value, ["params leaf 'b/0'[1, 0] is -inf"])


@members
def test_a_tree_within_itself_is_refused(name):
    endless = []
    endless.append(endless)
    with pytest.raises(T, match="nested too deeply, or within itself"):
        make(name).init(endless)


# states

VALIDATING = [name for name, (kind, _) in MEMBERS.items() if kind is not AdamW]


@pytest.mark.parametrize("count", [-1, True, 1.0, None])
@members
def test_counts_that_are_none_are_refused(name, count):
    attempt = Attempt(name)
    attempt.state = attempt.state._replace(count=count)
    attempt.fails(S, ["count", repr(count)])


@members
def test_states_of_another_type_are_refused(name):
    kind = make(name).state_type
    others = (Amos(), ClosedFormAmos(half_life=9), AdamW())
    attempt = Attempt(name)
    for other in (None, tuple(attempt.state), *(opt.init(attempt.params) for opt in others)):
        if type(other) is not kind:
            attempt.state = other
            attempt.fails(S, [f"not of type {kind.__name__} but {type(other).__name__}", "init(params)"])


@members
def test_parts_of_a_state_that_do_not_belong_are_refused(name):
    attempt = Attempt(name)
    right = attempt.state
    for part in parts_of(right):
        arrays = getattr(right, part)
        z, where = arrays["z"], f"state.{part} of leaf 'z'"
        wrong_shapes = {(2, 3), (1, 3), (1,), ()} - {z.shape}
        for change, words in (
            ({k: a for k, a in arrays.items() if k != "z"}, [f"state.{part} lacks leaf 'z'"]),
            ({k: a for k, a in arrays.items() if k != "a/w/1"}, [f"state.{part} lacks leaf 'a/w/1'"]),
            (arrays | {"zz": Z}, [f"state.{part} has an extra leaf 'zz'"]),
            *((arrays | {"z": np.ones(s)}, [f"{where} has shape {s}", str(z.shape)]) for s in wrong_shapes),
            (arrays | {"z": z.astype("f4")}, [f"{where} has dtype float32", "float64"]),
            (arrays | {"z": z.astype(int)}, [where, "int64"]),
            (arrays | {"z": [z.tolist()]}, [where, "list"]),
            (list(arrays.values()), [f"state.{part} is not a dict", "list"]),
        ):
            attempt.replace(part, change)
            attempt.fails(S, words)
        attempt.replace(part, None)
        optional = part in PARTS[type(right)].entries
        one = "the optimizer has one" if PARTS[type(right)].optional == "momentum m" else "the optimizer has them"
        attempt.fails(S, [PARTS[type(right)].optional, one] if optional else [f"state.{part} is not a dict", "no"])
        attempt.state = right
    for part in set(right._fields[1:]) - set(parts_of(right)):
        attempt.replace(part, {"a/w/0": np.ones((2, 2)), "a/w/1": np.ones(4), "z": Z})
        attempt.fails(S, [f"the state has {PARTS[type(right)].optional} but the optimizer has none", "starts anew"])
        attempt.state = right
    attempt.call("step")


@pytest.mark.parametrize("name", VALIDATING)
def test_validate_looks_at_every_parameter_and_all_of_the_state(name):
    right = Attempt(name, validate=True)
    constants = PARTS[type(right.state)].constants
    for value in (np.nan, np.inf):
        attempt = copy.deepcopy(right)
        attempt.params["z"][1, 2] = value
        attempt.fails(N, [f"params leaf 'z'[1, 2] is {value}"])
    for part in parts_of(right.state):
        shape = getattr(right.state, part)["z"].shape
        index = tuple(n - 1 for n in shape)
        where = f"state.{part} of leaf 'z'"
        entry_of = f"{where}[{', '.join(map(str, index))}]"
        mistakes = (
            (np.nan, N, [f"{entry_of} is nan"]),
            (-np.inf, N, [f"{entry_of} is -inf"]),
            (-0.5, S, [f"{where} holds -0.5; it must be >= 0"]),
        )
        if part in constants:
            mistakes = [(value, S, [f"{where} is {value!r}; it must be finite and > 0"]) for value in UNLIKE_A_SIZE]
        for value, error, words in mistakes:
            if value == -0.5 and part == "m":
                continue
            attempt = copy.deepcopy(right)
            getattr(attempt.state, part)["z"][index] = value
            attempt.fails(error, words)
            if MEMBERS[name][0] is Amos:  # which takes no care of what validate is for
                attempt.options["validate"] = False
                for backend in backends_of(name):
                    copy.deepcopy(attempt).call("step", backend)
    right.call("step")


@pytest.mark.parametrize("name", VALIDATING)
def test_validate_looks_at_every_value_at_each_step(name):
    for backend in backends_of(name):
        attempt = Attempt(name)
        opt = make(name, backend, validate=True)
        for _ in range(2):
            attempt.state = opt.step(attempt.params, attempt.grads, attempt.state)
        attempt.params["z"][0, 0] = np.inf
        with pytest.raises(N, match=r"params leaf 'z'\[0, 0\] is inf"):
            opt.step(attempt.params, attempt.grads, attempt.state)


# targets in memory

R, O, strided = errors.ReadOnlyError, errors.OverlapError, np.lib.stride_tricks.as_strided  # noqa: E741
GZ, PZ, PA = "gradient of leaf 'z'", "parameter of leaf 'z'", "parameter of leaf 'a/w/1'"


def linked(where, name, source):
    """Replace a leaf by a view of another."""
    return lambda attempt: leaf(where, name, source(attempt))(attempt)


def tied(attempt):
    attempt.params["a"]["w"][1] = attempt.params["z"].reshape(-1)[1:5]


def tied_with_a_skipped_leaf(attempt):
    tied(attempt)
    attempt.grads["a"]["w"][1] = None


def gradient_inside_another_parameter(attempt):
    attempt.grads["a"]["w"][1] = attempt.params["z"].reshape(-1)[:4]


TARGETS = {
    "parameter read-only": (lambda attempt: attempt.params["z"].setflags(write=False), R, [PZ, "read-only"]),
    "gradient is parameter": (linked("grads", "z", lambda attempt: attempt.params["z"]), O, [GZ, PZ]),
    "gradient is parameter reversed": (linked("grads", "z", lambda attempt: attempt.params["z"][::-1]), O, [GZ, PZ]),
    "gradient inside another": (gradient_inside_another_parameter, O, ["gradient of leaf 'a/w/1'", PZ]),
    "parameters tied": (tied, O, [PA, PZ]),
    "parameters tied, one skipped": (tied_with_a_skipped_leaf, O, [PA, PZ]),
    "stride 0": (leaf("params", "z", strided(np.ones(3), (2, 3), (0, 8))), O, [PZ, "(0, 8)"]),
    "sliding window": (leaf("params", "z", strided(np.ones(4), (2, 3), (8, 8))), O, [PZ, "(8, 8)"]),
}


@pytest.mark.parametrize("case", TARGETS)
@members
def test_targets_that_cannot_be_written_alone_are_refused(name, case):
    change, error, words = TARGETS[case]
    attempt = Attempt(name)
    change(attempt)
    attempt.fails(error, words, ["step"])
    # Reading alone is no trouble.
    for method in ("update", "trace"):
        attempt.call(method)


@members
def test_state_that_cannot_be_written_alone_is_refused(name):
    right = Attempt(name)
    written = parts_of(right.state, constants=False)
    for part in parts_of(right.state):
        z, where = getattr(right.state, part)["z"], f"state {part} of leaf 'z'"
        read_only, inside_gradient, inside_parameter = (copy.deepcopy(right) for _ in range(3))
        getattr(read_only.state, part)["z"].setflags(write=False)
        for attempt, source in ((inside_gradient, "grads"), (inside_parameter, "params")):
            getattr(attempt.state, part)["z"] = getattr(attempt, source)["z"].reshape(-1)[: z.size].reshape(z.shape)
        inside_parameter.fails(O, [PZ, where], ["step"])
        if part in written:
            read_only.fails(R, [where, "read-only"], ["step"])
            inside_gradient.fails(O, [GZ, where], ["step"])
        else:
            read_only.call("step")
            inside_gradient.call("step")
        for other in written:
            if other != part and getattr(right.state, other)["z"].shape == z.shape:
                twice = copy.deepcopy(right)
                getattr(twice.state, part)["z"] = getattr(twice.state, other)["z"]
                twice.fails(O, [where, f"state {other} of leaf 'z'"], ["step"])


@cases
def test_interleaved_parameters_may_be_stepped_and_hide_no_overlap_behind_them(name, backend):
    memory = np.arange(1.0, 13.0)
    params = {"even": memory[::2], "odd": memory[1::4]}
    grads = {"even": np.ones(6), "odd": np.ones(3)}
    opt = make(name, backend)
    alone = {key: a.copy() for key, a in params.items()}
    opt.step(alone, grads, opt.init(alone))
    opt.step(params, grads, opt.init(params))
    assert [own.bits(a) for a in params.values()] == [own.bits(a) for a in alone.values()]
    params["tail"], grads["tail"] = memory[10:11], np.ones(1)
    with pytest.raises(O) as caught:
        opt.step(params, grads, opt.init(params))
    one_line(caught.value, ["parameter of leaf 'even'", "parameter of leaf 'tail'"])


@cases
def test_gradients_may_be_read_only_broadcast_or_shared(name, backend):
    attempt = Attempt(name)
    attempt.grads["z"] = np.broadcast_to(np.array([1.0, 2.0, 3.0]), (2, 3))
    attempt.grads["a"]["w"] = [np.broadcast_to(0.5, (2, 2)), np.broadcast_to(0.5, 4)]
    assert attempt.call("step", backend).count == 2


# schedules

#: The option that may be a schedule, as it is called in messages at the second step; the others it needs.
SCHEDULES = {
    "Amos": ("learning_rate", "learning_rate(2)", {}),
    "AdamW": ("learning_rate", "learning_rate(2)", {}),
    "ClosedFormAmos by gradient": ("p_t", "p_t(0, 0.0)", {"decay": "recurrence", "half_life": None}),
}
NO_RATES = (math.nan, math.inf, -math.inf, -1e-3, None, "0.1", True, 1j, [0.1], np.ones(1), np.ones((2, 2)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_give_no_rate_are_refused(name):
    attempt = Attempt(name)
    option, where, others = SCHEDULES[name]
    attempt.options |= others
    for value in NO_RATES:
        attempt.options[option] = lambda *_, value=value: value
        attempt.fails(errors.ScheduleError, [where, " ".join(repr(value).split())])


def raising(*_):
    raise KeyError("rate of step", "\n")


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_raise_are_refused(name):
    attempt = Attempt(name)
    option, where, others = SCHEDULES[name]
    attempt.options |= {**others, option: raising}
    attempt.fails(errors.ScheduleError, [where, "KeyError", "rate of step"])


# what belongs to no optimizer


def test_updates_that_fit_no_parameter_are_refused():
    params = {"w": np.ones((2, 3))}
    for updates, error in (
        ({}, T),
        ({"w": None}, D),
        ({"w": np.ones((3, 2))}, X),
        ({"w": np.ones((2, 3), int)}, D),
    ):
        with pytest.raises(error) as caught:
            amos_ref.apply_updates(params, updates)
        one_line(caught.value, ["'w'"])


def test_every_error_derives_from_one():
    assert all(issubclass(getattr(errors, name), errors.AmosError) for name in errors.__all__)


def test_an_attempt_that_does_not_fail_as_it_must_is_seen():
    """The helper of this file catches a step that succeeds, one that moves something, and a message of two lines."""

    class Moving(Attempt):
        def call(self, method, backend="numpy"):
            self.params["z"][0, 0] += 1
            raise N("one line")

    attempt = Attempt("Amos")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        attempt.fails(N, [], ["update"])
    with pytest.raises(AssertionError):
        Moving("Amos").fails(N, [])
    with pytest.raises(AssertionError):
        one_line(Exception("two\nlines"), [])
