"""minimize as a method of scipy.optimize.minimize: what its users expect of a method."""

import signal

import numpy as np
import pytest
import scipy.optimize
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref import errors, minimize


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
    assert found.message == "All steps were taken, as maxiter asks; no tolerance was given."
    assert found.history.step == [0, 50]


def test_scipy_method_takes_fun_with_gradient_and_args():
    both = solve(lambda x, k: (k * float(x @ x), 2 * k * x), [3, -4], jac=True, args=(0.5,))
    apart = solve(lambda x, k: k * float(x @ x), [3, -4], jac=lambda x, k: 2 * k * x, args=0.5)
    assert own.bits(both.x) == own.bits(apart.x)
    assert both.fun < 12.5


# Options, and what they lead to on a bowl from (3, -4): status, and words of the message. `success` is status 0.
ENDS = {
    "tol": (dict(tol=0.1, maxiter=5000), 0, "no greater than gtol=0.1"),
    "gtol": (dict(gtol=0.1, maxiter=5000), 0, "no greater than gtol=0.1"),
    "gtol before tol": (dict(gtol=0.1, tol=1e-9, maxiter=5000), 0, "no greater than gtol=0.1"),
    "gtol without maxiter": (dict(gtol=0.1), 0, "no greater than gtol=0.1"),
    "target": (dict(target=1.0, maxiter=5000), 0, "The loss is no greater than target=1."),
    "missed tol": (dict(tol=1e-9, maxiter=5), 1, "5 steps did not reach gtol=1e-09."),
    "missed target": (dict(target=-1.0, maxiter=5), 1, "5 steps did not reach target=-1."),
    "missed patience": (dict(patience=20, maxiter=5), 1, "5 steps did not reach patience=20."),
    "missed both": (dict(target=-1.0, gtol=0.0, maxiter=5), 1, "5 steps did not reach gtol=0 and target=-1."),
    "missed without maxiter": (dict(gtol=0.0), 1, "1000 steps did not reach gtol=0."),
    "patience": (dict(patience=3, maxiter=5000, learning_rate=1.0), 3, "no new lowest loss in 3 steps"),
    "as many as asked for": (dict(maxiter=5), 0, "All steps were taken, as maxiter asks"),
    "none at all": (dict(maxiter=0), 0, "All steps were taken, as maxiter asks"),
    "nothing asked for": (dict(), 1, "1000, as neither maxiter nor tol was given"),
    "no number": (dict(maxiter=None), 1, "1000, as neither maxiter nor tol was given"),
}


@pytest.mark.parametrize("case", ENDS)
def test_success_is_what_was_asked_for_and_the_message_says_what(case):
    options, status, words = ENDS[case]
    found = solve(lambda x: (float(x @ x), 2 * x), [3.0, -4.0], jac=True, options={"maxiter": None} | options)
    assert (found.status, found.success) == (status, status == 0)
    assert words in found.message
    assert ("exceeded" in found.message) == (status == 1)
    assert found.nfev == found.njev == found.nit + 1
    if "gtol" in words:
        assert abs(found.jac).max() <= 0.1 or not found.success
    if "maxiter" not in options:
        assert found.nit == 1000 or found.success


@pytest.mark.parametrize(("maxiter", "half_life"), [(50, 5.0), (None, 100.0)])
def test_the_message_tells_the_half_life_of_the_closed_form_if_nobody_said_it(maxiter, half_life):
    options = dict(optimizer="closed-form", maxiter=maxiter, alpha_0=0.05)
    seen = []
    for said in ({}, {"half_life": half_life}, {"p_0": 0.5}):
        found = scipy.optimize.minimize(
            scipy.optimize.rosen, [-1.2, 1.0], jac=scipy.optimize.rosen_der, method=amos_ref.scipy_method,
            options=options | said,
        )  # fmt: skip
        assert found.message.endswith(f" The half-life N/10 = {half_life:g}.") == (not said)
        seen.append(found.x)
    assert own.bits(seen[0]) == own.bits(seen[1]) != own.bits(seen[2])


def test_success_for_steps_that_nobody_asked_for_would_be_noticed(monkeypatch):
    monkeypatch.setattr("amos_ref.scipy_minimizer._explain", lambda end, limits, maxiter: (0, "All steps were taken."))
    for case in ("nothing asked for", "missed tol", "missed target", "patience"):
        with pytest.raises(AssertionError):
            test_success_is_what_was_asked_for_and_the_message_says_what(case)


ELSEWHERE = {
    "steps": "maxiter", "maxfev": "maxiter", "maxfun": "maxiter", "progress": "disp", "every": "amos_ref.minimize",
    "optimum": "amos_ref.minimize", "ftol": "gtol", "xtol": "gtol", "fatol": "gtol", "xatol": "gtol", "xrtol": "gtol",
    "eps": "learning_rate", "workers": "learning_rate", "lr": "learning_rate",
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_options_of_other_methods_are_named(name):
    with pytest.raises(errors.HyperParameterError) as error:
        solve(options={name: 1})
    one_line(error.value, [f"has no option {name!r}; ", ELSEWHERE[name]])


def test_return_all_has_every_step():
    found = solve(options={"return_all": True, "maxiter": 3})
    assert [own.bits(x) for x in found.allvecs] == [own.bits(solve(options={"maxiter": n}).x) for n in range(4)]
    assert "allvecs" not in solve()


STARTS = {
    "a list": [3.0, -4.0], "integers": [3, -4], "a number": 3, "float32": np.array([3, -4], "f4"),
    "the other byte order": np.array([3.0, -4.0]).astype(np.dtype("f8").newbyteorder()), "strided": np.arange(9.0)[::3],
    "read-only": np.frombuffer(np.array([3.0, -4.0]).tobytes()),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTS)
def test_any_start_that_scipy_takes(case):
    x0 = STARTS[case]
    found = solve(lambda x: float(x @ x), x0, lambda x: 2 * x, tol=0.1, options={"maxiter": 5000})
    assert found.success
    assert found.x.dtype == (np.float32 if case == "float32" else np.float64)
    assert found.x.shape == np.atleast_1d(x0).shape
    direct = amos_ref.scipy_method(lambda x: float(x @ x), x0, jac=lambda x: 2 * x, gtol=0.1, maxiter=5000,
                                   optimizer="adamw", learning_rate=0.05)  # fmt: skip
    assert own.bits(direct.x) == own.bits(found.x)


LOSSES = [np.array([0.5]), np.array([[0.5]]), [0.5], np.float32(0.5), np.array(0.5)]
GRADIENTS = [[1, 2], np.array([1, 2]), np.array([1.0, 2.0], "f4"), (1.0, np.float64(2.0))]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_any_loss_that_scipy_takes(loss):
    assert solve(lambda x: loss).fun == 0.5


@pytest.mark.parametrize("g", GRADIENTS, ids=repr)
def test_any_gradient_that_scipy_takes(g):
    assert own.bits(solve(jac=lambda x: g).jac) == own.bits(np.array([1.0, 2.0]))


def test_one_dimension_may_have_a_number_as_its_gradient():
    found = solve(lambda x: float(x[0] ** 2), [3.0], lambda x: 2 * x[0], tol=0.1, options={"maxiter": 5000})
    assert found.success


@pytest.mark.parametrize("jac", [True, False])
def test_a_function_may_change_its_argument_and_return_one_buffer(jac):
    def fun(x):
        loss, buffer[:] = float(x @ x), 2 * x
        x[:] = np.nan
        return (loss, buffer) if jac else loss

    def gradient(x):
        buffer[:] = 2 * x
        x[:] = np.nan
        return buffer

    buffer = np.zeros(2)
    found = solve(fun, [3.0, -4.0], jac or gradient)
    want = solve(lambda x: (float(x @ x), 2 * x), [3.0, -4.0], True)
    buffer[:] = np.nan
    assert [own.bits(found[part]) for part in ("x", "fun", "jac")] == [
        own.bits(want[part]) for part in ("x", "fun", "jac")
    ]


def test_basinhopping_takes_it():
    options = {"optimizer": "adamw", "learning_rate": 0.1, "gtol": 1e-3}
    found = scipy.optimize.basinhopping(
        lambda x: (float(x @ x), 2 * x), [3.0, -4.0], niter=2, rng=1,
        minimizer_kwargs={"method": amos_ref.scipy_method, "jac": True, "options": options},
    )  # fmt: skip
    assert found.minimization_failures == 0
    assert found.fun < 1e-5


def test_an_error_has_what_was_reached():
    def fun(x):
        calls.append(x)
        return 1.0 / (len(calls) - 5)

    calls = []
    with pytest.raises(ZeroDivisionError) as error:
        solve(fun)
    assert (error.value.amos_result.steps, error.value.amos_result.status) == (4, "error")


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


@pytest.mark.parametrize("answer", [True, np.True_])
def test_scipy_callbacks_may_return_true(answer):
    for callback in (lambda xk: answer, lambda intermediate_result: answer):
        found = solve(callback=callback)
        assert (found.nit, found.status, found.success) == (1, 99, False)
        assert "callback" in found.message


def test_scipy_callbacks_may_be_of_c_and_change_what_they_get():
    seen = []
    assert solve(callback=seen.append).nit == len(seen) == 50
    assert solve(callback=max).success  # which has no signature
    wild = lambda xk: xk.fill(np.nan)  # noqa: E731
    assert own.bits(solve(callback=wild).x) == own.bits(solve().x)


def test_scipy_method_returns_after_ctrl_c():
    def fun(x, calls=[]):  # noqa: B006
        calls.append(x)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return float(x @ x)

    found = solve(fun, [3.0, -4.0], jac=lambda x: 2 * x)
    assert (found.nit, found.status, found.success, found.message) == (4, 2, False, "Interrupted.")


@pytest.mark.parametrize(
    "bounds",
    [[(None, None)] * 2, [(-np.inf, np.inf)] * 2, np.array([[-np.inf, np.inf]] * 2), scipy.optimize.Bounds()],
    ids=["None", "infinite", "array", "Bounds"],
)
def test_bounds_that_bound_nothing_are_taken(bounds):
    fun, start = (lambda x: float(x @ x)), [3.0, -4.0]
    found = solve(fun, start, jac=lambda x: 2 * x, bounds=bounds)
    assert np.array_equal(found.x, solve(fun, start, jac=lambda x: 2 * x).x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(jac=None), ["jac", "needs the gradient"]),
        (dict(jac="2-point"), ["jac", "needs the gradient"]),
        (dict(bounds=[(0, 1), (0, 1)]), ["bounds is [(0, 1)"]),
        (dict(bounds=scipy.optimize.Bounds(0, 1)), ["bounds is Bounds"]),
        (dict(bounds=[(None, None), (None, 1)]), ["bounds is [(None"]),
        (dict(bounds=[(None, None), (0, None)]), ["bounds is [(None"]),
        (dict(bounds=scipy.optimize.Bounds([-np.inf, 0], np.inf)), ["bounds is Bounds"]),
        (dict(bounds=[None, None]), ["bounds is [None"]),
        (dict(bounds=3), ["bounds is 3"]),
        (dict(constraints={"type": "eq", "fun": sum}), ["constraints is {'type'"]),
        (dict(constraints=[scipy.optimize.LinearConstraint([1, 1])]), ["constraints is [<"]),
        (dict(hess=scipy.optimize.rosen_hess), ["hess is <function"]),
        (dict(hessp=scipy.optimize.rosen_hess_prod), ["hessp is <function"]),
        (dict(fun=lambda x: None), ["loss at step 0 is None"]),
        (dict(fun=lambda x: x), ["loss at step 0 is array"]),
        (dict(fun=lambda x: 1j), ["loss at step 0 is 1j"]),
        (dict(fun=lambda x: [1, [2]]), ["loss at step 0 is [1, [2]]"]),
        (dict(jac=lambda x: x[:1]), ["shape (1,)"]),
        (dict(jac=lambda x: x[:, None]), ["shape (2, 1)"]),
        (dict(jac=lambda x: 1.0), ["shape (1,)"]),
        (dict(jac=lambda x: None), ["jac returned None"]),
        (dict(jac=lambda x: x * 1j), ["jac returned array", "complex128"]),
        (dict(jac=lambda x: x > 0), ["jac returned array", "bool"]),
        (dict(jac=lambda x: "up"), ["jac returned 'up'"]),
        (dict(jac=lambda x: [1, [2]]), ["jac returned [1, [2]], which is not an array"]),
        (dict(jac=lambda x: x * np.nan), ["gradient of leaf ''[0] is nan"]),
        (dict(callback=3), ["callback is 3"]),
        (dict(x0=[1j, 2]), ["x0", "complex128"]),
        (dict(options={"optimizer": amos_ref.Amos}), ["the class Amos"]),
        (dict(options={"gtol": np.nan}), ["gtol is nan"]),
        (dict(options={"momentun": 1}), ["no option 'momentun'"]),
        (dict(options={"maxiter": -1}), ["maxiter is -1"]),
        (dict(tol=np.nan), ["tol is nan"]),
    ],
)
def test_what_scipy_method_cannot_use_is_named(arguments, words):
    with pytest.raises(errors.AmosError) as error:
        solve(**arguments)
    assert all(word in str(error.value) for word in words), error.value
