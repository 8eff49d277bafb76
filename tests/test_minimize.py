"""The training loop: what it steps is the optimizer, what it records is what happened, and it always comes back."""

import contextlib
import math
import pickle
import signal
import warnings

import numpy as np
import pytest
from helpers import strategies as own
from helpers.messages import one_line
from helpers.trees import all_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import amos_ref
from amos_ref import errors, minimize, problems, tree
from amos_ref.adamw import AdamW

EPS = 2.0**-52
NAMED = {
    "paper": dict(learning_rate=0.1, beta=0.75, slot_shape="element"),
    "closed-form": dict(alpha_0=0.05, half_life=40, direction="adam"),
    "adamw": dict(learning_rate=0.05, weight_decay=0.1),
}
CLASSES = {"paper": amos_ref.Amos, "closed-form": amos_ref.ClosedFormAmos, "adamw": AdamW}
each = pytest.mark.parametrize("name", NAMED)


def bowl(params):
    return float(sum(np.sum(a**2) for a in params.values()) / 2), params


def start():
    return {"a": np.array([3.0, -4.0]), "b": np.array(1.5)}


# the loop


@each
def test_the_loop_is_the_optimizer_step_by_step(name):
    problem = problems.linear_regression()
    result = minimize(problem, optimizer=name, steps=25, **NAMED[name])
    opt, params = (
        CLASSES[name](**NAMED[name]),
        tree.unflatten({n: a.copy() for n, a in tree.flatten(problem.start).items()}, problem.start),
    )
    state, history = opt.init(params), result.history
    for t in range(25):
        loss, grads = problem.fun(params)
        trace = opt.trace(grads, state, params)
        assert (history.step[t], history.loss[t]) == (t, loss)
        apart = [params[n] - problem.reference[n] for n in params]
        assert history.error[t] == pytest.approx(math.sqrt(sum(np.sum(d * d) for d in apart)), rel=20 * EPS)
        for part in ("alpha", "rho", "b"):
            for n in params:
                want = np.mean(trace[n][part]) if part in trace[n] else np.nan
                assert np.array_equal(getattr(history, part)[n][t], want, equal_nan=True)
        state = opt.step(params, grads, state)
    assert all_bits((result.params, result.state)) == all_bits((params, state))
    assert (result.steps, result.status, history.step[-1]) == (25, "steps", 25)
    assert result.loss == history.loss[-1] == problem.fun(params)[0]
    assert all_bits(result.gradient) == all_bits(problem.fun(params)[1])
    assert isinstance(result.opt, CLASSES[name])


@each
def test_an_instance_is_the_same(name):
    named = minimize(bowl, start(), name, steps=7, **NAMED[name])
    instance = minimize(bowl, start(), CLASSES[name](**NAMED[name]), steps=7)
    assert all_bits(named.params) == all_bits(instance.params)
    assert named.history.loss == instance.history.loss


@pytest.mark.parametrize("dtype", own.DTYPES.values(), ids=own.DTYPES)
def test_the_start_is_copied_and_keeps_its_dtype(dtype):
    x0 = {name: a.astype(dtype) for name, a in start().items()}
    before = all_bits(x0)
    result = minimize(bowl, x0, steps=5, learning_rate=0.1)
    assert all_bits(x0) == before
    assert {a.dtype for a in result.params.values()} == {dtype}
    assert result.loss < result.history.loss[0]


def test_fun_may_keep_and_change_what_it_is_given():
    def rude(params):
        loss, gradient = bowl({name: a.copy() for name, a in params.items()})
        for a in params.values():
            a[...] = np.nan
        return loss, gradient

    polite, changed = (minimize(fun, start(), steps=5, learning_rate=0.1) for fun in (bowl, rude))
    assert all_bits(polite.params) == all_bits(changed.params)


@settings(max_examples=30)
@given(n=st.integers(1, 6), condition=st.floats(1.0, 30.0), seed=own.seeds)
def test_quadratics_are_descended_as_their_condition_allows(n, condition, seed):
    """From 0 with sigma = RMS(x*), a step of the closed form has the length s = alpha_0 |x*| exp(-2 S) exactly.

    Gradient and error e have a cosine of at least p = 2 sqrt(c) / (1 + c) for the condition c (Kantorovich). So with
    |e| <= E a step leaves E^2 - 2 s p E + s^2 at most, or s^2 where e was short, and the decay adds
    rho |x| <= rho (|x*| + E).
    """
    problem = problems.quadratic(n, condition, seed)
    sigma, size = float(np.sqrt(np.mean(problem.reference**2))), float(np.linalg.norm(problem.reference))
    found = minimize(problem, optimizer="closed-form", steps=400, alpha_0=0.05, half_life=100, sigma=sigma)
    p, error = 2 * math.sqrt(condition) / (1 + condition), size
    for t in range(400):
        shrink = 1 / (1 + t / 100)
        s, rho = 0.05 * size * shrink, 0.05**2 / 2 * shrink
        error = math.sqrt(max(s * s, error**2 - 2 * s * p * error + s * s)) + rho * (size + error)
        assert found.history.error[t + 1] <= error * (1 + 1e-9)
    assert error < size / 5


def test_leaves_without_gradient_have_no_rates():
    result = minimize(lambda p: (1.0, {"a": p["a"], "b": None}), start(), steps=2, learning_rate=0.1)
    assert np.isnan(result.history.alpha["b"]).all()
    assert np.isfinite(result.history.alpha["a"]).all()
    assert result.params["b"] == 1.5


# when it stops


def test_target_gtol_and_patience():
    for options, status in ((dict(target=1.0), "target"), (dict(gtol=0.5), "gtol")):
        result = minimize(bowl, start(), steps=500, learning_rate=0.1, **options)
        assert result.status == status
        assert 0 < result.steps < 500
        reached = (lambda loss, g: loss <= 1.0) if status == "target" else (lambda loss, g: abs(g).max() <= 0.5)
        assert reached(result.loss, np.append(result.params["a"], result.params["b"]))
    losses = iter([5.0, 4.0, 4.5, 4.0, 3.0, 3.5, 3.1, 3.0, 2.0])
    result = minimize(lambda p: (next(losses), p), start(), learning_rate=0.1, patience=3)
    assert (result.status, result.steps, result.loss) == ("patience", 7, 3.0)
    assert minimize(bowl, start(), steps=9, target=1e9).steps == 0


def test_callback_sees_each_step_and_stops_it():
    seen = []
    result = minimize(bowl, start(), steps=50, callback=lambda t, loss, x: seen.append((t, loss, x)) or t == 3)
    assert (result.status, result.steps) == ("callback", 3)
    assert [(t, loss) for t, loss, _ in seen] == list(zip(range(4), result.history.loss, strict=True))
    assert all_bits(seen[0][2]) == all_bits(start())
    assert all_bits(seen[3][2]) == all_bits(result.params)


class Answer:
    """A truth value of another library."""

    def __init__(self, value, dtype="torch.bool", shape=()):
        self.value, self.dtype, self.shape = value, dtype, shape

    def __bool__(self):
        return self.value


@pytest.mark.parametrize(
    ("answer", "stops"),
    [
        (True, True), (np.True_, True), (np.array(True), True), (np.array([[True]]), True), (Answer(True), True),
        (False, False), (np.False_, False), (np.array(False), False), (Answer(False), False), (None, False),
        (1, False), (np.array(1.0), False), ("stop", False), ([True], False), (Answer(True, "torch.int64"), False),
    ],
)  # fmt: skip
def test_a_callback_stops_it_by_any_librarys_true(answer, stops):
    result = minimize(bowl, start(), steps=3, callback=lambda t, loss, x: answer)
    assert (result.status, result.steps) == (("callback", 0) if stops else ("steps", 3))


def test_a_callback_may_raise_stop_iteration_and_change_what_it_is_given():
    def rude(t, loss, x):
        for a in x.values():
            a[...] = np.nan
        if t == 2:
            raise StopIteration

    result = minimize(bowl, start(), steps=9, learning_rate=0.1, callback=rude)
    assert (result.status, result.steps) == ("callback", 2)
    # bowl returns its argument as the gradient.
    assert all_bits(result.gradient) == all_bits(result.params)


def test_a_callback_that_answers_for_each_entry_is_refused():
    with pytest.raises(errors.ProblemError, match=r"callback returned array\(\[ True, False\]\) at step 0; it must"):
        minimize(bowl, start(), callback=lambda t, loss, x: x["a"] > 0)


def test_python_alone_would_not_stop_by_numpys_true(monkeypatch):
    wrong = lambda callback, t, loss, params: callback(t, loss, params) is True  # noqa: E731
    monkeypatch.setattr("amos_ref.minimizer._asks_to_stop", wrong)
    with pytest.raises(AssertionError):
        test_a_callback_stops_it_by_any_librarys_true(np.True_, True)


def test_one_buffer_for_all_gradients_is_as_good_as_many():
    buffer = {name: np.empty_like(a) for name, a in start().items()}

    def fun(params):
        for name, a in params.items():
            buffer[name][...] = a
        return bowl(buffer)

    kept = minimize(fun, start(), steps=5, learning_rate=0.1)
    assert all_bits(kept.params) == all_bits(minimize(bowl, start(), steps=5, learning_rate=0.1).params)
    fun({name: a * np.nan for name, a in start().items()})
    assert all_bits(kept.gradient) == all_bits(kept.params)


def test_the_start_and_the_optimum_may_change_meanwhile():
    def fun(params):
        for a in (*x0.values(), *optimum.values()):
            a += 1
        return bowl(params)

    x0, optimum = start(), {name: np.zeros_like(a) for name, a in start().items()}
    found = minimize(fun, x0, optimum=optimum, steps=5, learning_rate=0.1)
    want = minimize(bowl, start(), optimum={"a": np.zeros(2), "b": np.zeros(())}, steps=5, learning_rate=0.1)
    assert (all_bits(found.params), found.history) == (all_bits(want.params), want.history)


def test_without_copies_each_of_these_would_be_noticed(monkeypatch):
    monkeypatch.setattr("amos_ref.minimizer._copy", lambda named: named)
    for check in (
        test_fun_may_keep_and_change_what_it_is_given,
        test_a_callback_may_raise_stop_iteration_and_change_what_it_is_given,
        test_one_buffer_for_all_gradients_is_as_good_as_many,
        test_the_start_and_the_optimum_may_change_meanwhile,
    ):
        with pytest.raises((AssertionError, errors.AmosError)):
            check()


def test_no_gradient_at_all_is_no_small_gradient():
    result = minimize(lambda p: (1.0, {"a": None, "b": None}), start(), steps=2, gtol=1.0)
    assert (result.status, result.steps) == ("steps", 2)
    assert minimize(lambda p: (1.0, {"a": None, "b": np.array(0.5)}), start(), steps=2, gtol=1.0).status == "gtol"


def test_every_records_the_last_step_too():
    whole, thin = (minimize(bowl, start(), steps=10, learning_rate=0.1, every=every) for every in (1, 4))
    assert thin.history.step == [0, 4, 8, 10]
    assert thin.history.loss == [whole.history.loss[t] for t in thin.history.step]
    assert thin.history.b["a"] == [whole.history.b["a"][t] for t in thin.history.step]
    assert all_bits(thin.params) == all_bits(whole.params)
    assert minimize(bowl, start(), steps=0).history.step == [0]


@each
def test_ctrl_c_returns_what_was_reached(name):
    calls = []

    def fun(params):
        calls.append(None)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return bowl(params)

    result = minimize(fun, start(), name, steps=100, **NAMED[name])
    whole = minimize(bowl, start(), name, steps=7, **NAMED[name])
    assert (result.status, result.steps) == ("interrupted", 7)
    assert all_bits((result.params, result.state)) == all_bits((whole.params, whole.state))
    assert result.loss == whole.history.loss[-2]


@each
def test_ctrl_c_inside_a_step_counts_the_step(name, monkeypatch):
    right = CLASSES[name].trace

    def trace(self, grads, state, params):
        if state.count == 4:
            monkeypatch.setattr("amos_ref.optimizers.interrupt.InterruptGuard.__enter__", late)
        return right(self, grads, state, params)

    enter = amos_ref.optimizers.interrupt.InterruptGuard.__enter__

    def late(self):
        enter(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CLASSES[name], "trace", trace)
    result = minimize(bowl, start(), name, steps=100, **NAMED[name])
    monkeypatch.undo()
    whole = minimize(bowl, start(), name, steps=5, **NAMED[name])
    assert (result.status, result.steps) == ("interrupted", 5)
    assert all_bits((result.params, result.state)) == all_bits((whole.params, whole.state))


class Late:
    """An optimizer in which Ctrl-C comes when the step is done and its caller does not yet have the state."""

    def __init__(self, opt, last):
        self.opt, self.last, self.init, self.trace = opt, last, opt.init, opt.trace

    def step(self, params, grads, state):
        new = self.opt.step(params, grads, state)
        if new.count == self.last:
            signal.raise_signal(signal.SIGINT)
        return new


def check_ctrl_c_behind_a_step():
    result = minimize(bowl, start(), Late(amos_ref.Amos(0.1), 4), steps=100)
    whole = minimize(bowl, start(), steps=4, learning_rate=0.1)
    assert (result.status, result.steps) == ("interrupted", 4)
    assert all_bits((result.params, result.state)) == all_bits((whole.params, whole.state))


def test_ctrl_c_behind_a_step_counts_the_step(monkeypatch):
    check_ctrl_c_behind_a_step()
    monkeypatch.setattr("amos_ref.minimizer.InterruptGuard", contextlib.nullcontext)
    with pytest.raises(AssertionError):
        check_ctrl_c_behind_a_step()


@pytest.mark.parametrize("place", ["fun", "callback", "loss", "gradient"])
def test_an_error_has_what_was_reached(place):
    def fun(params):
        if place == "fun" and len(seen) == 4:
            raise ZeroDivisionError
        loss, g = bowl(params)
        bad = len(seen) == 4
        return (math.nan if bad and place == "loss" else loss), (
            {**g, "a": g["a"] * math.nan} if bad and place == "gradient" else g
        )

    def callback(t, loss, x):
        seen.append(loss)
        if place == "callback" and t == 4:
            raise ZeroDivisionError

    seen = []
    with pytest.raises((ZeroDivisionError, errors.NonFiniteError)) as raised:
        minimize(fun, start(), steps=9, learning_rate=0.1, callback=callback)
    result, whole = raised.value.amos_result, minimize(bowl, start(), steps=4, learning_rate=0.1)
    assert (result.status, result.steps) == ("error", 4)
    assert all_bits((result.params, result.state)) == all_bits((whole.params, whole.state))
    assert result.history.loss == whole.history.loss[:4]
    assert len(result.history.alpha["a"]) == len(result.history.step) == 4


@pytest.mark.parametrize("rate", [0.1, lambda t: 0.1], ids=["plain", "callable"])
def test_an_error_goes_to_another_process(rate):
    with pytest.raises(errors.NonFiniteError) as raised:
        minimize(lambda p: (math.nan, p), start(), learning_rate=rate)
    error = pickle.loads(pickle.dumps(raised.value))
    assert str(error) == str(raised.value) == "loss at step 0 is nan; it must be a finite number"
    assert all_bits(error.amos_result.params) == all_bits(start())
    assert (error.amos_result.opt is None) == callable(rate)
    assert raised.value.amos_result.opt is not None


def test_an_error_that_takes_no_attributes_passes_as_it_is():
    class Bare(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    def fun(params):
        raise Bare

    with pytest.raises(Bare):
        minimize(fun, start())


def test_progress_is_on_standard_error_and_changes_nothing(capsys):
    quiet = minimize(bowl, start(), steps=3, learning_rate=0.1)
    assert capsys.readouterr() == ("", "")
    shown = minimize(bowl, start(), steps=3, learning_rate=0.1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"step 3 of 3, loss {shown.loss:.6g}"
    assert all_bits(shown.params) == all_bits(quiet.params)


# bad input

BAD = {
    "steps": (dict(steps=-1), errors.HyperParameterError, ["steps is -1"]),
    "steps float": (dict(steps=1.0), errors.HyperParameterError, ["steps is 1.0"]),
    "every": (dict(every=0), errors.HyperParameterError, ["every is 0"]),
    "patience": (dict(patience=0), errors.HyperParameterError, ["patience is 0"]),
    "target": (dict(target=np.nan), errors.HyperParameterError, ["target is nan"]),
    "gtol": (dict(gtol="1e-3"), errors.HyperParameterError, ["gtol is '1e-3'"]),
    "optimizer": (dict(optimizer="sgd"), errors.HyperParameterError, ["'sgd'", "'paper'", "'adamw'"]),
    "no optimizer": (dict(optimizer=3), errors.HyperParameterError, ["optimizer is 3"]),
    "option": (dict(momentun=0.9), errors.HyperParameterError, ["'paper' has no option 'momentun'"]),
    "class": (dict(optimizer=amos_ref.Amos), errors.HyperParameterError, ["the class Amos", "an instance"]),
    "no function": (dict(fun=3), errors.ProblemError, ["fun is 3", "callable"]),
    "no callback": (dict(callback=3), errors.ProblemError, ["callback is 3", "callable"]),
    "scipy's name": (dict(tol=1e-3), errors.HyperParameterError, ["no option 'tol'; it has learning_rate, eta"]),
    "option value": (dict(learning_rate=-1), errors.HyperParameterError, ["learning_rate is -1"]),
    "both": (
        dict(optimizer="closed-form", half_life=9, p_0=0.5),
        errors.HyperParameterError,
        ["half_life is 9", "p_0 is 0.5", "exactly one"],
    ),
    "instance": (dict(optimizer=amos_ref.Amos(), eta=1.0), errors.HyperParameterError, ["instance already", "'eta'"]),
    "x0": (dict(x0=[1.0]), errors.DtypeError, ["x0 leaf '0'", "float"]),
    "no x0": (dict(x0=None), errors.ProblemError, ["x0 is None"]),
    "optimum": (dict(optimum={"a": np.ones(2)}), errors.TreeError, ["optimum", "missing 'b'"]),
    "fun": (dict(fun=lambda x: 3.0), errors.ProblemError, ["fun returned 3.0 at step 0", "(loss, gradient)"]),
    "fun of 3": (dict(fun=lambda x: (1, 2, 3)), errors.ProblemError, ["(1, 2, 3)"]),
    "loss": (dict(fun=lambda x: (np.inf, x)), errors.NonFiniteError, ["loss at step 0 is inf"]),
    "loss text": (dict(fun=lambda x: ("low", x)), errors.NonFiniteError, ["loss at step 0 is 'low'"]),
    "gradient": (dict(fun=lambda x: (1.0, {"a": x["a"]})), errors.TreeError, ["missing 'b'"]),
    "nan": (dict(fun=lambda x: (1.0, {**x, "b": np.array(np.nan)})), errors.NonFiniteError, ["gradient of leaf 'b'"]),
}


NO_GRADIENTS = {
    "float": (6.0, errors.DtypeError, ["gradient of leaf 'b' is not a NumPy array but float: 6.0"]),
    "int": (np.array(1), errors.DtypeError, ["gradient of leaf 'b' has dtype int64"]),
    "complex": (np.array(1j), errors.DtypeError, ["gradient of leaf 'b' has dtype complex128"]),
    "object": (np.array(1, object), errors.DtypeError, ["gradient of leaf 'b' has dtype object"]),
    "list": ([1.0], errors.TreeError, ["missing 'b'", "extra 'b/0'"]),
    "tensor": (
        Answer(True, "torch.float64"),
        errors.DtypeError,
        ["gradient of leaf 'b' is not a NumPy array but Answer"],
    ),
    "shape": (np.ones(1), errors.ShapeError, ["gradient of leaf 'b' has shape (1,)"]),
    "nan": (np.array(np.nan), errors.NonFiniteError, ["'b'", "is nan"]),
}


@pytest.mark.parametrize("options", [{}, {"gtol": 1e-3}, {"gtol": 1e-3, "every": 9}, {"steps": 0}, {"target": 1e9}])
@pytest.mark.parametrize("case", NO_GRADIENTS)
@each
def test_a_gradient_that_is_none_is_named(name, case, options):
    g, error, words = NO_GRADIENTS[case]
    with pytest.raises(error) as raised:
        minimize(lambda p: (1.0, {"a": p["a"], "b": g}), start(), name, **NAMED[name], **options)
    one_line(raised.value, words)


@pytest.mark.parametrize(("changes", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_named(changes, error, words):
    with pytest.raises(error) as raised:
        minimize(**{"fun": bowl, "x0": start(), **changes})
    assert all(word in str(raised.value) for word in words), raised.value


OPEN = [dict(), dict(half_life=None), dict(p_0=None, direction="adam"), dict(decay="recurrence", p_t="constant")]
SAID = [dict(half_life=7.0), dict(p_0=0.5), dict(decay="recurrence", p_t=lambda t, s: 0.5)]


@pytest.mark.parametrize("options", OPEN + SAID)
def test_the_closed_form_has_a_half_life_of_a_tenth_of_the_steps_unless_something_is_said(options, capsys):
    opt = minimize(bowl, start(), "closed-form", steps=30, progress=True, **options).opt
    wanted = amos_ref.ClosedFormAmos(**{**options, "half_life": 3.0} if options in OPEN else options)
    assert opt.options == wanted.options
    assert ("half-life N/10 = 3" in capsys.readouterr().err.splitlines()) == (options in OPEN)


@pytest.mark.parametrize("wrong", [lambda optimizer, options, steps: 100.0, lambda optimizer, options, steps: None])
def test_a_half_life_that_is_not_the_steps_would_be_seen(monkeypatch, capsys, wrong):
    monkeypatch.setattr("amos_ref.minimizer.find_half_life", wrong)
    test = test_the_closed_form_has_a_half_life_of_a_tenth_of_the_steps_unless_something_is_said
    with pytest.raises((AssertionError, errors.HyperParameterError)):
        test(dict(), capsys)


def test_no_steps_at_all_have_a_half_life_too():
    assert minimize(bowl, start(), "closed-form", steps=0).opt.half_life == 0.1


def test_an_optimum_of_another_shape():
    with pytest.raises(errors.ShapeError, match=r"optimum leaf 'a' has shape \(3,\)"):
        minimize(bowl, start(), optimum={"a": np.ones(3), "b": np.array(0.0)})


#: What a training is warned of: where its entries start, the gradient's size, and the optimizer.
WARNED = {
    "EtaWarning": (0.01, 1.0, {}),
    "SigmaWarning": (0.01, 1.0, {"eta": "init"}),
    "RuleWarning": (0.5, 1.0, {"frozen": {"no such leaf": True}}),
    "UnderflowWarning": (0.5, 1e-4, {"state_dtype": "param"}),
}


def warned_of(name, train):
    size, scale, options = WARNED[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt = amos_ref.Amos(0.1, **options)
        train(lambda params: (1.0, np.full((4, 5), scale, "f2")), np.full((4, 5), size, "f2"), opt, steps=1)
    return [(one.category.__name__, one.filename) for one in caught]


@pytest.mark.parametrize("name", WARNED)
def test_warnings_of_a_training_name_the_line_that_started_it(name):
    assert warned_of(name, minimize) == [(name, __file__)]


def test_a_warning_that_names_a_line_of_the_package_would_be_seen(monkeypatch):
    monkeypatch.setattr("amos_ref.optimizers.scale.level_of_caller", lambda: 4)  # the caller of init
    assert warned_of("EtaWarning", minimize) == [("EtaWarning", amos_ref.minimizer.__file__)]
