"""The training loop: what it steps is the optimizer, what it records is what happened, and it always comes back."""

import math
import signal

import numpy as np
import pytest
import scipy.optimize
from helpers import strategies as own
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
    "no optimizer": (dict(optimizer=None), errors.HyperParameterError, ["None"]),
    "option": (dict(momentun=0.9), errors.HyperParameterError, ["'paper' has no option 'momentun'"]),
    "option value": (dict(learning_rate=-1), errors.HyperParameterError, ["learning_rate is -1"]),
    "closed-form": (dict(optimizer="closed-form"), errors.HyperParameterError, ["half_life", "exactly one"]),
    "instance": (dict(optimizer=amos_ref.Amos(), eta=1.0), errors.HyperParameterError, ["instance already", "'eta'"]),
    "x0": (dict(x0=[1.0]), errors.DtypeError, ["x0 leaf '0'", "float"]),
    "no x0": (dict(x0=None), errors.DtypeError, ["x0"]),
    "optimum": (dict(optimum={"a": np.ones(2)}), errors.TreeError, ["optimum", "missing 'b'"]),
    "fun": (dict(fun=lambda x: 3.0), errors.ProblemError, ["fun returned 3.0 at step 0", "(loss, gradient)"]),
    "fun of 3": (dict(fun=lambda x: (1, 2, 3)), errors.ProblemError, ["(1, 2, 3)"]),
    "loss": (dict(fun=lambda x: (np.inf, x)), errors.NonFiniteError, ["loss at step 0 is inf"]),
    "loss text": (dict(fun=lambda x: ("low", x)), errors.NonFiniteError, ["loss at step 0 is 'low'"]),
    "gradient": (dict(fun=lambda x: (1.0, {"a": x["a"]})), errors.TreeError, ["missing 'b'"]),
    "nan": (dict(fun=lambda x: (1.0, {**x, "b": np.array(np.nan)})), errors.NonFiniteError, ["gradient of leaf 'b'"]),
}


@pytest.mark.parametrize(("changes", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_named(changes, error, words):
    with pytest.raises(error) as raised:
        minimize(**{"fun": bowl, "x0": start(), **changes})
    assert all(word in str(raised.value) for word in words), raised.value


def test_an_optimum_of_another_shape():
    with pytest.raises(errors.ShapeError, match=r"optimum leaf 'a' has shape \(3,\)"):
        minimize(bowl, start(), optimum={"a": np.ones(3), "b": np.array(0.0)})


# scipy


def solve(fun=scipy.optimize.rosen, x0=(-1.2, 1.0), jac=scipy.optimize.rosen_der, **arguments):
    options = {"optimizer": "adamw", "learning_rate": 0.05, "maxiter": 50, **arguments.pop("options", {})}
    return scipy.optimize.minimize(fun, x0, jac=jac, method=amos_ref.scipy_method, options=options, **arguments)


def test_scipy_method_is_minimize():
    found = solve()
    ref = minimize(
        lambda x: (scipy.optimize.rosen(x), scipy.optimize.rosen_der(x)),
        np.array([-1.2, 1.0]), "adamw", steps=50, learning_rate=0.05,
    )  # fmt: skip
    assert own.bits(found.x) == own.bits(ref.params)
    assert own.bits(found.jac) == own.bits(scipy.optimize.rosen_der(found.x))
    assert found.fun == scipy.optimize.rosen(found.x) == ref.loss
    assert (found.nit, found.nfev, found.njev, found.status, found.success) == (50, 51, 51, 0, True)
    assert found.message == "All steps were taken."
    assert found.history.step == [0, 50]


def test_scipy_method_takes_fun_with_gradient_and_args():
    both = solve(lambda x, k: (k * float(x @ x), 2 * k * x), [3, -4], jac=True, args=(0.5,))
    apart = solve(lambda x, k: k * float(x @ x), [3, -4], jac=lambda x, k: 2 * k * x, args=0.5)
    assert own.bits(both.x) == own.bits(apart.x)
    assert both.fun < 12.5


def test_scipy_method_ends_by_tol():
    bowl = lambda x: (float(x @ x), 2 * x)  # noqa: E731
    found = solve(bowl, [3.0, -4.0], jac=True, tol=0.1, options={"maxiter": 5000})
    assert (found.status, found.success) == (0, True)
    assert abs(found.jac).max() <= 0.1
    assert found.nit < 5000
    missed = solve(bowl, [3.0, -4.0], jac=True, tol=1e-9)
    assert (missed.status, missed.success, missed.nit) == (1, False, 50)
    assert "iterations" in missed.message


def test_scipy_callbacks_of_both_forms():
    seen, results = [], []

    def stop(xk):
        seen.append(xk)
        if len(seen) == 3:
            raise StopIteration

    def keyword(intermediate_result):
        results.append(intermediate_result)

    found = solve(callback=stop)
    assert (found.nit, found.status, found.success) == (3, 99, False)
    assert own.bits(seen[2]) == own.bits(found.x)
    found = solve(callback=keyword)
    assert len(results) == found.nit == 50
    assert (results[-1].fun, own.bits(results[-1].x)) == (found.fun, own.bits(found.x))


def test_scipy_method_returns_after_ctrl_c():
    def fun(x, calls=[]):  # noqa: B006
        calls.append(x)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return float(x @ x)

    found = solve(fun, [3.0, -4.0], jac=lambda x: 2 * x)
    assert (found.nit, found.status, found.success, found.message) == (4, 2, False, "Interrupted.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(jac=None), ["jac", "needs the gradient"]),
        (dict(jac="2-point"), ["jac", "needs the gradient"]),
        (dict(bounds=[(0, 1), (0, 1)]), ["bounds is [(0, 1)"]),
        (dict(bounds=scipy.optimize.Bounds(0, 1)), ["bounds is Bounds"]),
        (dict(constraints={"type": "eq", "fun": sum}), ["constraints is {'type'"]),
        (dict(constraints=[scipy.optimize.LinearConstraint([1, 1])]), ["constraints is [<"]),
        (dict(hess=scipy.optimize.rosen_hess), ["hess is <function"]),
        (dict(hessp=scipy.optimize.rosen_hess_prod), ["hessp is <function"]),
        (dict(fun=lambda x: None), ["loss at step 0 is None"]),
        (dict(fun=lambda x: x), ["loss at step 0 is array"]),
        (dict(jac=lambda x: x[:1]), ["shape (1,)"]),
        (dict(options={"momentun": 1}), ["no option 'momentun'"]),
        (dict(options={"maxiter": -1}), ["maxiter is -1"]),
        (dict(tol=np.nan), ["tol is nan"]),
    ],
)
def test_what_scipy_method_cannot_use_is_named(arguments, words):
    with pytest.raises(errors.AmosError) as error:
        solve(**arguments)
    assert all(word in str(error.value) for word in words), error.value
