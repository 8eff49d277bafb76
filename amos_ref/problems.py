"""Problems to minimize: loss, gradient, start, and a reference solution that does not come from Amos.

Each function returns a :class:`Problem`, and the same one for the same arguments, bit for bit on one machine.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from amos_ref.checks import check_finite
from amos_ref.errors import MissingDependencyError, ProblemError
from amos_ref.rules import number

TRAINING = 1347  # of the digits; the others are held out

Fun = Callable[..., tuple[float, Any]]


@dataclass(frozen=True, eq=False)
class Problem:
    """A function of parameters that is to be minimized.

    Attributes
    ----------
    name : str
        The name of the function that made the problem.
    fun : callable
        ``fun(params)`` returns the loss and the gradient, which is a tree like `params`.
    start : tree of arrays
        Where a training begins.
    solve : callable
        ``solve()`` returns the parameters of `reference`.
    unique : bool
        Whether the reference is the only minimum, so that the distance to it means something.
    score : callable, optional
        ``score(params)`` returns the share of held-out samples that are classified correctly.
    batches : callable, optional
        ``batches()`` returns minibatches, and each call returns the same ones. Every pass over them is an epoch, in an
        order of its own. ``fun(params, batch)`` is the loss of one of them, and ``fun(params)`` that of all samples.
    """

    name: str
    fun: Fun
    start: Any
    solve: Callable[[], Any]
    unique: bool = True
    score: Callable[[Any], float] | None = None
    batches: Callable[[], "Minibatches"] | None = None

    @functools.cached_property
    def reference(self) -> Any:
        """The minimum; if `unique` is False, the best that a library's method finds from the same start."""
        return self.solve()

    @functools.cached_property
    def best(self) -> float:
        """The loss at the reference."""
        return self.fun(self.reference)[0]

    def __repr__(self) -> str:
        return f"Problem({self.name!r})"


class Minibatches:
    """The numbers of samples in batches of at most `size`, about equally long; each pass is in a new random order."""

    def __init__(self, samples: int, size: int, seed: Any) -> None:
        self.samples, self.count = samples, -(-samples // size)
        self._rng = np.random.default_rng([1, seed])  # not the one that drew the start

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(np.array_split(self._rng.permutation(self.samples), self.count))


def quadratic(n: int = 10, condition: float = 100.0, seed: int = 0) -> Problem:
    """Return the problem (x - x*)^T H (x - x*) / 2, where H has eigenvalues from 1 to `condition` in a random basis.

    The minimum x* is random, and the start is 0.

    Parameters
    ----------
    n : int
        The dimension, >= 1.
    condition : float
        The greatest eigenvalue of H divided by the least, >= 1.
    seed : int
        Seed of the basis and of x*.

    Raises
    ------
    ProblemError
        If an argument is out of its range.

    Examples
    --------
    >>> from amos_ref import problems
    >>> problem = problems.quadratic(n=3, condition=10)
    >>> problem.best
    0.0
    """
    if not (_is_integer(n, 1) and 1 <= number(condition) < np.inf):
        raise ProblemError(
            f"a quadratic needs n >= 1 and a finite condition >= 1, not n={n!r}, condition={condition!r}"
        )
    rng = _generator(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    hessian = basis * np.geomspace(1.0, condition, n) @ basis.T
    hessian = (hessian + hessian.T) / 2
    optimum = rng.normal(size=n)

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        gradient = hessian @ (x - optimum)
        return float((x - optimum) @ gradient / 2), gradient

    return Problem("quadratic", fun, np.zeros(n), optimum.copy)


def linear_regression(x: Any = None, y: Any = None, seed: int = 0) -> Problem:
    """Return the problem of least squares: half the mean squared error of ``x @ weight + bias``.

    The reference is the solution of scipy.linalg.lstsq.

    Parameters
    ----------
    x : array of shape (samples, features), optional
        Without it, 200 random samples of 5 features and noisy targets are drawn.
    y : array of shape (samples,), optional
        The targets, which go with `x`.
    seed : int
        Seed of the random samples.

    Raises
    ------
    ProblemError, NonFiniteError
        If the shapes do not fit, if there are fewer than two samples, or if a number is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from amos_ref import problems
    >>> problem = problems.linear_regression(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]))
    >>> {name: a.round(6).tolist() for name, a in problem.solve().items()}
    {'bias': 1.0, 'weight': [2.0]}
    """
    if x is None and y is None:
        rng = _generator(seed)
        x = rng.normal(size=(200, 5)) * [1.0, 2.0, 0.5, 1.0, 3.0]
        y = x @ [1.0, -2.0, 0.5, 0.0, 1.5] + 0.7 + 0.3 * rng.normal(size=200)
    a, b = _samples(x, y)

    def fun(params: Any) -> tuple[float, Any]:
        residual = a @ params["weight"] + params["bias"] - b
        gradient = {"bias": np.asarray(np.mean(residual)), "weight": a.T @ residual / b.size}
        return float(np.mean(residual**2) / 2), gradient

    def solve() -> Any:
        import scipy.linalg

        solution: Any = scipy.linalg.lstsq(np.column_stack([a, np.ones(b.size)]), b)[0]  # pyright: ignore
        return {"bias": np.asarray(solution[-1]), "weight": solution[:-1]}

    return Problem("linear-regression", fun, _linear_start(a), solve)


def logistic_regression(x: Any = None, y: Any = None, l2: float = 0.01, seed: int = 0) -> Problem:
    """Return the problem of logistic regression: the mean of log(1 + exp(-s z)), plus l2/2 |weight|^2.

    Here z is ``x @ weight + bias``, and s is 1 for the label 1 and -1 for the label 0. The reference is the point where
    scipy.optimize.root finds a gradient of 0.

    Parameters
    ----------
    x : array of shape (samples, features), optional
        Without it, 200 random samples of 5 features and noisy labels are drawn.
    y : array of shape (samples,)
        Labels 0 and 1, both of which occur.
    l2 : float
        > 0, because without it there is no minimum if a plane separates the samples.
    seed : int
        Seed of the random samples.

    Raises
    ------
    ProblemError, NonFiniteError
        If the shapes do not fit, if the labels are not 0 and 1, if l2 is not > 0, or if a number is NaN or infinite.

    Examples
    --------
    >>> from amos_ref import problems
    >>> problem = problems.logistic_regression()
    >>> loss, gradient = problem.fun(problem.start)
    >>> round(loss, 6), gradient["weight"].shape
    (0.693147, (5,))
    """
    if x is None and y is None:
        rng = _generator(seed)
        x = rng.normal(size=(200, 5))
        y = (x @ [1.0, -2.0, 0.5, 0.0, 1.5] + 0.7 + rng.normal(size=200) > 0).astype(float)
    a, b = _samples(x, y)
    if set(b) != {0.0, 1.0}:
        raise ProblemError(f"the labels of a logistic regression must be 0 and 1, not {sorted(set(b))[:3]}...")
    if not 0 < number(l2) < np.inf:
        raise ProblemError(f"l2 is {l2!r}; it must be finite and > 0")
    sign = 2 * b - 1

    def fun(params: Any) -> tuple[float, Any]:
        z = sign * (a @ params["weight"] + params["bias"])
        slope = -sign * np.exp(-np.logaddexp(0.0, z)) / b.size  # -s / (1 + exp(s z)), without overflow
        gradient = {"bias": np.asarray(np.sum(slope)), "weight": a.T @ slope + l2 * params["weight"]}
        return float(np.mean(np.logaddexp(0.0, -z)) + l2 / 2 * np.sum(params["weight"] ** 2)), gradient

    def split(p: np.ndarray) -> Any:
        return {"bias": np.asarray(p[-1]), "weight": p[:-1]}

    def solve() -> Any:
        import scipy.optimize

        def flat_gradient(p: np.ndarray) -> np.ndarray:
            gradient = fun(split(p))[1]
            return np.append(gradient["weight"], gradient["bias"])

        return split(scipy.optimize.root(flat_gradient, np.zeros(a.shape[1] + 1), tol=1e-14).x)

    return Problem("logistic", fun, _linear_start(a), solve)


def rosenbrock(n: int = 2) -> Problem:
    """Return Rosenbrock's problem: the sum of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2 over i.

    The function is a curved valley. The start is (-1.2, 1, -1.2, ...), and the reference is the minimum (1, 1, ...).

    Parameters
    ----------
    n : int
        The dimension, >= 2. From 4 on there is a second minimum.

    Raises
    ------
    ProblemError
        If n is not an integer >= 2.

    Examples
    --------
    >>> from amos_ref import problems
    >>> problem = problems.rosenbrock(n=2)
    >>> round(problem.fun(problem.start)[0], 6)
    24.2
    """
    if not _is_integer(n, 2):
        raise ProblemError(f"the Rosenbrock function needs n >= 2, not {n!r}")
    import scipy.optimize

    def fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(scipy.optimize.rosen(x)), scipy.optimize.rosen_der(x)

    return Problem("rosenbrock", fun, np.resize([-1.2, 1.0], n), functools.partial(np.ones, n), unique=n < 4)


def digits(hidden: int = 32, seed: int = 0, batch_size: int | None = None) -> Problem:
    """Return the problem of reading handwritten digits: the mean cross-entropy of a network on 1,347 of them.

    The network has 64 inputs, a layer of tanh units and 10 outputs, and 450 more digits are held out. The digits come
    with scikit-learn (``pip install 'amos_ref[digits]'``). No minimum is known. The reference is the point that scipy's
    L-BFGS-B reaches after 200 iterations.

    Parameters
    ----------
    hidden : int
        The number of hidden units, >= 1.
    seed : int
        Seed of the start, of the choice of the digits that are held out, and of the order of the minibatches.
    batch_size : int, optional
        The greatest number of digits in a minibatch, >= 1. Without it there are no minibatches.

    Raises
    ------
    ProblemError
        If hidden or batch_size is not an integer >= 1.
    MissingDependencyError
        If scikit-learn is not installed.
    """
    if not _is_integer(hidden, 1):
        raise ProblemError(f"the network needs hidden >= 1, not {hidden!r}")
    if not (batch_size is None or _is_integer(batch_size, 1)):
        raise ProblemError(f"minibatches need batch_size >= 1, not {batch_size!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError("digits needs scikit-learn: pip install 'amos_ref[digits]'") from None
    data: Any = load_digits()
    rng = _generator(seed)
    order = rng.permutation(data.target.size)
    images, labels = data.data[order] / 16.0, data.target[order]
    train, held_out = slice(None, TRAINING), slice(TRAINING, None)
    start = {
        "hidden": {"bias": np.zeros(hidden), "kernel": rng.normal(scale=1 / 8, size=(64, hidden))},
        "out": {"bias": np.zeros(10), "kernel": rng.normal(scale=hidden**-0.5, size=(hidden, 10))},
    }
    fun = functools.partial(_network, images[train], labels[train])

    def score(params: Any) -> float:
        return float(np.mean(np.argmax(_forward(params, images[held_out])[1], axis=1) == labels[held_out]))

    batches = None if batch_size is None else functools.partial(Minibatches, TRAINING, batch_size, seed)
    return Problem("digits", fun, start, functools.partial(_lbfgs, fun, start), False, score, batches)


def _forward(params: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h = np.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return h, h @ params["out"]["kernel"] + params["out"]["bias"]


def _network(x: np.ndarray, labels: np.ndarray, params: Any, rows: Any = slice(None)) -> tuple[float, Any]:
    """Return the mean cross-entropy and its gradient, which is computed layer by layer from the end."""
    x, labels = x[rows], labels[rows]
    h, z = _forward(params, x)
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.sum(np.exp(z), axis=1, keepdims=True))
    each = np.arange(labels.size)
    dz = np.exp(log_p)
    dz[each, labels] -= 1.0
    dz /= labels.size
    dh = dz @ params["out"]["kernel"].T * (1.0 - h * h)
    gradient = {
        "hidden": {"bias": dh.sum(axis=0), "kernel": x.T @ dh},
        "out": {"bias": dz.sum(axis=0), "kernel": h.T @ dz},
    }
    return float(-np.mean(log_p[each, labels])), gradient


def _lbfgs(fun: Fun, start: Any) -> Any:
    import optree
    import scipy.optimize

    leaves, treedef = optree.tree_flatten(start)
    ends = np.cumsum([a.size for a in leaves])[:-1]

    def as_tree(x: np.ndarray) -> Any:
        parts = np.split(x, ends)
        return treedef.unflatten([part.reshape(a.shape) for part, a in zip(parts, leaves, strict=True)])

    def flatten(tree: Any) -> np.ndarray:
        return np.concatenate([a.reshape(-1) for a in optree.tree_leaves(tree)])

    def flat_fun(x: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = fun(as_tree(x))
        return loss, flatten(gradient)

    end = scipy.optimize.minimize(flat_fun, flatten(start), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return as_tree(end.x)


def _samples(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets as float64 arrays; raise ProblemError or NonFiniteError if they do not fit."""
    try:
        if any(np.asarray(data).dtype.kind in "cSU" for data in (x, y)):
            raise TypeError("they are complex, or texts")
        a, b = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProblemError(f"samples and targets must be numbers: {error}") from None
    if a.ndim != 2 or b.shape != a.shape[:1] or a.shape[1] < 1:
        raise ProblemError(f"samples have shape {a.shape} and targets {b.shape}; they must be (n, features) and (n,)")
    if a.shape[0] < 2:
        raise ProblemError(f"there are {a.shape[0]} samples; a regression needs two or more")
    check_finite(a, "samples")
    check_finite(b, "targets")
    return a, b


def _linear_start(a: np.ndarray) -> Any:
    return {"bias": np.zeros(()), "weight": np.zeros(a.shape[1])}


def _generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise ProblemError(f"seed is {seed!r:.80}: {error}") from None


def _is_integer(n: Any, least: int) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and bool(n >= least)


#: The problems by name.
PROBLEMS: dict[str, Callable[..., Problem]] = {
    "quadratic": quadratic,
    "linear-regression": linear_regression,
    "logistic": logistic_regression,
    "rosenbrock": rosenbrock,
    "digits": digits,
}
