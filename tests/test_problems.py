"""Every problem's gradient is that of its loss, and its reference is a minimum."""

import sys

import numpy as np
import optree
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from amos_ref import errors, problems, tree
from amos_ref.problems import PROBLEMS

DIGITS = dict(hidden=5)
ALL = [PROBLEMS[name](**(DIGITS if name == "digits" else {})) for name in PROBLEMS]
ALL += [problems.rosenbrock(5), problems.quadratic(7, 1e4, seed=3), problems.logistic_regression(seed=2, l2=0.3)]
each = pytest.mark.parametrize("problem", ALL, ids=[f"{p.name}-{i}" for i, p in enumerate(ALL)])


def slope(fun, params, way, h):
    """The derivative of the loss along a way, by differences of h and 2h with the term in h^2 taken out."""

    def central(h):
        ahead, behind = (optree.tree_map(lambda a, d, x=x: a + x * d, params, way) for x in (h, -h))
        return (fun(ahead)[0] - fun(behind)[0]) / (2 * h)

    return (4 * central(h) - central(2 * h)) / 3


def check_gradient(problem, fun, seed, scale):
    """Along random ways. With h = 2^-11 the differences lose EPS |loss| / h, some 1e-12 |loss|, and the next term is of
    the size of h^4 = 6e-14 of the fifth derivative; 1e-8 leaves room for sums of thousands of terms."""
    rng = np.random.default_rng(seed)
    params = optree.tree_map(lambda a: a + scale * rng.normal(size=a.shape), problem.start)
    way = optree.tree_map(lambda a: rng.normal(size=a.shape), params)
    loss, gradient = fun(params)
    parts = optree.tree_map(lambda g, d: float(np.sum(g * d)), gradient, way)
    size = sum(abs(x) for x in optree.tree_leaves(parts)) + abs(loss)
    assert abs(sum(optree.tree_leaves(parts)) - slope(fun, params, way, 2.0**-11)) <= 1e-8 * size


@each
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 2.0))
def test_gradients_are_those_of_the_loss(problem, seed, scale):
    check_gradient(problem, problem.fun, seed, scale)


@each
def test_a_gradient_that_is_a_thousandth_off_is_seen(problem):
    def wrong(params):
        loss, gradient = problem.fun(params)
        leaves, treedef = optree.tree_flatten(gradient)
        return loss, treedef.unflatten(
            [leaves[0] * 1.001, *leaves[1:]] if len(leaves) == 1 else [*leaves[:-1], leaves[-1] * 1.001]
        )

    with pytest.raises(AssertionError):
        check_gradient(problem, wrong, 1, 0.5)


@each
def test_gradients_have_the_form_of_the_parameters(problem):
    named = tree.flatten(problem.start)
    gradient = tree.match(tree.flatten(problem.fun(problem.start)[1]), named, "gradient")
    assert {n: (type(g), g.shape, g.dtype) for n, g in gradient.items()} == {
        n: (np.ndarray, a.shape, a.dtype) for n, a in named.items()
    }


@pytest.mark.parametrize("problem", [p for p in ALL if p.name != "digits"], ids=repr)
def test_the_reference_is_a_minimum(problem):
    loss, gradient = problem.fun(problem.reference)
    assert loss == problem.best < problem.fun(problem.start)[0]
    # What rounding leaves of sums of up to 200 terms of a size below 100.
    assert max(float(abs(g).max()) for g in optree.tree_leaves(gradient)) <= 200 * 100 * 2.0**-52
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = optree.tree_map(lambda a: a + 0.01 * rng.normal(size=a.shape), problem.reference)
        assert problem.fun(near)[0] > problem.best


def test_the_reference_of_the_network_is_far_below_its_start():
    problem = problems.digits(**DIGITS)
    assert not problem.unique
    assert problem.best < problem.fun(problem.start)[0] / 20


def test_condition_of_the_quadratic():
    fun = problems.quadratic(6, 250.0, seed=4).fun
    origin = fun(np.zeros(6))[1]
    hessian = np.array([fun(row)[1] - origin for row in np.eye(6)])
    assert np.linalg.eigvalsh(hessian)[[0, -1]] == pytest.approx([1.0, 250.0], rel=1e-11)
    assert not np.allclose(hessian, np.diag(np.diag(hessian)))


def test_seeds_make_other_problems_and_the_same_again():
    for make in (problems.quadratic, problems.linear_regression, problems.logistic_regression):
        one, again, other = make(seed=1), make(seed=1), make(seed=2)
        point = optree.tree_map(np.ones_like, one.start)
        assert one.fun(point)[0] == again.fun(point)[0] != other.fun(point)[0]


def test_regression_on_data_of_ones_own():
    x = np.array([[0, 1], [1, 0], [2, 2], [3, 1]])
    problem = problems.linear_regression(x.tolist(), x @ [2, -1] + 3)
    assert problem.reference["weight"] == pytest.approx([2, -1], abs=1e-13)
    assert problem.reference["bias"] == pytest.approx(3, abs=1e-13)


def test_logistic_losses_do_not_overflow():
    fun = problems.logistic_regression(np.array([[1e4], [-1e4]]), np.array([1.0, 0.0])).fun
    with np.errstate(all="raise", under="ignore"):
        for weight, loss in ((1.0, 0.005), (-1.0, 1e4 + 0.005)):
            found, gradient = fun({"weight": np.array([weight]), "bias": np.zeros(())})
            assert found == pytest.approx(loss, rel=1e-14)
            assert np.isfinite(gradient["weight"]).all()


def test_the_network_reads_digits():
    problem = problems.digits(**DIGITS)
    assert problem.score(problem.start) < 0.3
    assert problem.score(problem.reference) > 0.8
    assert repr(problem) == "Problem('digits')"


@pytest.mark.parametrize("batch_size", [64, 1000, 2000])
def test_minibatches_of_digits(batch_size):
    problem = problems.digits(batch_size=batch_size, **DIGITS)
    batches, again = problem.batches(), problem.batches()
    epochs = [list(batches) for _ in range(2)]
    for epoch in epochs:
        assert len(epoch) == len(batches) == -(-1347 // batch_size)
        assert max(map(len, epoch)) <= batch_size
        assert sorted(np.concatenate(epoch)) == list(range(1347))
    assert [a.tolist() for a in epochs[0]] != [a.tolist() for a in epochs[1]]
    assert [a.tolist() for epoch in epochs for a in epoch] == [a.tolist() for _ in range(2) for a in again]
    # The loss of all digits is the mean of those of the batches, weighed by their sizes.
    found = [(len(rows), *problem.fun(problem.start, rows)) for rows in epochs[0]]
    loss, gradient = problem.fun(problem.start)
    assert sum(n * part for n, part, _ in found) / 1347 == pytest.approx(loss, rel=1e-12)
    mean = sum(n * g["out"]["bias"] for n, _, g in found) / 1347
    assert mean == pytest.approx(gradient["out"]["bias"], rel=1e-9, abs=1e-12)
    assert problems.digits(**DIGITS).batches is None


def test_rosenbrock_has_a_second_minimum_from_4_dimensions_on():
    assert [problems.rosenbrock(n).unique for n in (2, 3, 4, 7)] == [True, True, False, False]
    found = scipy.optimize.minimize(scipy.optimize.rosen, [-1, 1, 1, 1], jac=scipy.optimize.rosen_der, tol=1e-10)
    assert np.linalg.norm(found.x - 1) > 1


X, Y = np.ones((3, 2)), np.array([0.0, 1.0, 1.0])
BAD = {
    "n": (problems.quadratic, dict(n=0), ["n=0"]),
    "n float": (problems.quadratic, dict(n=2.5), ["n=2.5"]),
    "condition": (problems.quadratic, dict(condition=0.5), ["condition=0.5"]),
    "condition nan": (problems.quadratic, dict(condition=np.nan), ["condition=nan"]),
    "rosenbrock": (problems.rosenbrock, dict(n=1), ["n >= 2", "1"]),
    "hidden": (problems.digits, dict(hidden=0), ["hidden >= 1", "0"]),
    "no batch": (problems.digits, dict(batch_size=0), ["batch_size >= 1", "0"]),
    "half a batch": (problems.digits, dict(batch_size=1.5), ["batch_size >= 1", "1.5"]),
    "text": (problems.linear_regression, dict(x=[["a"]], y=[1]), ["must be numbers"]),
    "ragged": (problems.linear_regression, dict(x=[[1], [1, 2]], y=[1, 2]), ["must be numbers"]),
    "no targets": (problems.linear_regression, dict(x=X), ["targets ()"]),
    "lengths": (problems.linear_regression, dict(x=X, y=Y[:2]), ["(3, 2)", "(2,)"]),
    "no features": (problems.linear_regression, dict(x=X[:, :0], y=Y), ["(3, 0)"]),
    "one row": (problems.linear_regression, dict(x=X[:1], y=Y[:1]), ["1 samples"]),
    "labels": (problems.logistic_regression, dict(x=X, y=Y + 1), ["0 and 1", "2.0"]),
    "one label": (problems.logistic_regression, dict(x=X, y=Y * 0), ["0 and 1"]),
    "l2": (problems.logistic_regression, dict(l2=0), ["l2 is 0"]),
    "l2 text": (problems.logistic_regression, dict(l2="1"), ["l2 is '1'"]),
    "condition text": (problems.quadratic, dict(condition="9"), ["condition='9'"]),
    "seed": (problems.digits, dict(seed=-1), ["seed is -1"]),
    "seed text": (problems.linear_regression, dict(seed="x"), ["seed is 'x'"]),
    "huge": (problems.linear_regression, dict(x=[[10**400], [1]], y=[1, 2]), ["must be numbers"]),
    "digits in text": (problems.linear_regression, dict(x=[["2024_01"], ["1"]], y=[1, 2]), ["must be numbers"]),
    "complex": (problems.linear_regression, dict(x=X + 1j, y=Y), ["must be numbers"]),
    "targets alone": (problems.linear_regression, dict(y=Y), ["must be (n, features)"]),
}


@pytest.mark.parametrize(("make", "arguments", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_named(make, arguments, words):
    with pytest.raises(errors.ProblemError) as error:
        make(**arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_data_that_are_not_finite():
    x = X.copy()
    x[1, 0] = np.nan
    with pytest.raises(errors.NonFiniteError, match=r"samples\[1, 0\] is nan"):
        problems.linear_regression(x, Y)
    with pytest.raises(errors.NonFiniteError, match=r"targets\[2\] is inf"):
        problems.logistic_regression(X, [0, 1, np.inf])


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'amos_ref\[digits\]'"):
        problems.digits()
