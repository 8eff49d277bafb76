"""A training loop that keeps a history, and the same loop as a method of scipy.optimize.minimize."""

import contextlib
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import tree
from amos_ref.checks import Arrays, check_shape, named_arrays
from amos_ref.errors import HyperParameterError, NonFiniteError, ProblemError
from amos_ref.problems import Problem
from amos_ref.rules import number
from amos_ref.terminal import show_progress

#: Name -> (module, class).
OPTIMIZERS = {
    "paper": ("amos_ref.optimizers.amos", "Amos"),
    "closed-form": ("amos_ref.optimizers.closed_form", "ClosedFormAmos"),
    "adamw": ("amos_ref.adamw", "AdamW"),
}


class History(NamedTuple):
    """What was recorded of a training: lists with one entry for each recorded step.

    Attributes
    ----------
    step : list of int
        Steps taken so far: 0 is the start.
    loss : list of float
    error : list of float
        Distance to the optimum; empty if no optimum is known.
    alpha, rho, b : dict of str to list of float
        Step size, weight decay and (paper Amos) decay clock of the step that follows, per leaf name: the mean over
        the leaf's slots, or NaN if the leaf has no gradient. b is the clock after that step.
    """

    step: list[int]
    loss: list[float]
    error: list[float]
    alpha: dict[str, list[float]]
    rho: dict[str, list[float]]
    b: dict[str, list[float]]


class Result(NamedTuple):
    """What :func:`minimize` returns.

    Attributes
    ----------
    params : tree of arrays
        The parameters at the end.
    loss : float
        The last one computed. It is the loss at `params`, unless Ctrl-C came between a step and its loss.
    steps : int
        How many were taken.
    status : {"steps", "target", "gtol", "patience", "callback", "interrupted"}
        Why it ended; "steps": all were taken.
    history : History
    gradient : tree of arrays
        The gradient that was computed with `loss`.
    state : NamedTuple
        The optimizer's state, to continue with.
    opt : Amos, ClosedFormAmos or AdamW
    """

    params: Any
    loss: float
    steps: int
    status: str
    history: History
    gradient: Any
    state: Any
    opt: Any


def minimize(
    fun: Any,
    x0: Any = None,
    optimizer: Any = "paper",
    *,
    steps: int = 1000,
    optimum: Any = None,
    target: float | None = None,
    gtol: float | None = None,
    patience: int | None = None,
    callback: Callable[[int, float, Any], Any] | None = None,
    every: int = 1,
    progress: bool = False,
    **options: Any,
) -> Result:
    """Minimize a function of a parameter tree.

    Parameters
    ----------
    fun : callable or problems.Problem
        ``fun(params) -> (loss, gradient)``, where the gradient is a tree like `params`, which are a copy. A problem
        comes with its own `x0` and `optimum`.
    x0 : tree of arrays
        The start, of any of the four dtypes; it is copied.
    optimizer : {"paper", "closed-form", "adamw"} or an instance
        A name stands for :class:`amos_ref.Amos`, :class:`amos_ref.ClosedFormAmos` or :class:`amos_ref.adamw.AdamW`
        with `options`.
    steps : int
        The most that are taken, >= 0.
    optimum : tree of arrays, optional
        The history records the distance to it.
    target, gtol : float, optional
        Stop when the loss is at most `target`, or the gradient's largest magnitude at most `gtol`.
    patience : int, optional
        Stop after this many steps without a new lowest loss, >= 1.
    callback : callable, optional
        ``callback(steps taken, loss, params)`` is called before each step; it stops the training by returning True.
    every : int
        Record one in so many steps (>= 1), and the last one. A record costs about as much as a step.
    progress : bool
        Show the progress on standard error: a bar on a terminal, a line for every tenth elsewhere.
    **options
        Options of the optimizer.

    Returns
    -------
    Result
        Ctrl-C ends the training too, and the result then holds what had been reached.

    Raises
    ------
    HyperParameterError, ProblemError
        If an argument is out of its range, or `fun` does not return a loss and a gradient.
    NonFiniteError
        If a loss is NaN or infinite.

    Examples
    --------
    >>> import numpy as np, amos_ref
    >>> result = amos_ref.minimize(lambda x: (x @ x / 2, x), np.array([3.0, -4.0]), learning_rate=0.1, steps=200)
    >>> result.steps, result.loss < 1e-3 * result.history.loss[0]
    (200, True)
    """
    _check_counts(steps=(steps, 0), every=(every, 1), patience=(1 if patience is None else patience, 1))
    _check_bounds(target=target, gtol=gtol)
    if isinstance(fun, Problem):
        x0 = fun.start if x0 is None else x0
        optimum = fun.reference if optimum is None and fun.unique else optimum
        fun = fun.fun
    opt = build_optimizer(optimizer, options)
    named = {name: a.copy() for name, a in named_arrays(x0, "x0").items()}
    best = None if optimum is None else tree.match(named_arrays(optimum, "optimum"), named, "optimum")
    for name, a in (best or {}).items():
        check_shape(a, named[name].shape, f"optimum leaf {name!r}")
    params = tree.unflatten(named, x0)
    state = opt.init(params)
    history = History([], [], [], *({name: [] for name in named} for _ in range(3)))
    loss, grads, status, lowest = math.nan, None, None, (math.inf, 0)
    try:
        with show_progress([""], steps) if progress else contextlib.nullcontext() as show:
            for t in range(steps + 1):
                copied = tree.unflatten({name: a.copy() for name, a in named.items()}, x0)
                loss, grads = evaluate(fun, copied, t)
                lowest = min(lowest, (loss, t))
                if show is not None:
                    show("", t, f"loss {loss:.6g}")
                stops = {
                    "callback": callback is not None and callback(t, loss, copied) is True,
                    "target": target is not None and loss <= target,
                    "gtol": gtol is not None and find_largest(grads) <= gtol,
                    "patience": patience is not None and t - lowest[1] >= patience,
                }
                status = next((name for name, reached in stops.items() if reached), "steps" if t == steps else None)
                if status or t % every == 0:
                    _record(history, t, loss, measure_distance(named, best), opt.trace(grads, state, params))
                if status:
                    break
                state = opt.step(params, grads, state)
    except KeyboardInterrupt as interrupt:
        state, status = getattr(interrupt, "amos_state", state), "interrupted"
    return Result(params, loss, int(state.count), str(status), history, grads, state, opt)


def build_optimizer(optimizer: Any, options: Mapping[str, Any]) -> Any:
    """Return the optimizer of this name with these options, or the instance itself."""
    if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
        module, name = OPTIMIZERS[optimizer]
        cls = getattr(importlib.import_module(module), name)
        if unknown := [repr(key) for key in options if key not in inspect.signature(cls).parameters]:
            raise HyperParameterError(f"{optimizer!r} has no option {', '.join(unknown)}")
        return cls(**options)
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "step", "trace")):
        raise HyperParameterError(
            f"optimizer is {optimizer!r:.60}; it must be {', '.join(map(repr, OPTIMIZERS))} or have init, step, trace"
        )
    if options:
        raise HyperParameterError(f"optimizer is an instance already; {', '.join(map(repr, options))} cannot be set")
    return optimizer


def evaluate(fun: Callable[[Any], Any], params: Any, t: int) -> tuple[float, Any]:
    """Return loss and gradient; raise ProblemError or NonFiniteError if `fun` returns anything else."""
    answer = fun(params)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ProblemError(f"fun returned {answer!r:.60} at step {t}; it must return (loss, gradient)")
    loss = number(answer[0])
    if not math.isfinite(loss):
        raise NonFiniteError(f"loss at step {t} is {answer[0]!r:.60}; it must be a finite number")
    return loss, answer[1]


def find_largest(grads: Any) -> float:
    """Return the largest magnitude of a gradient's entries, 0 if there are none."""
    leaves = [np.abs(g.astype(np.float64)) for g in tree.flatten(grads).values() if g is not None]
    return max((float(a.max(initial=0.0)) for a in leaves), default=0.0)


def measure_distance(named: Arrays, optimum: Arrays | None) -> float | None:
    """Return the Euclidean distance of all parameters to the optimum; None if that is unknown."""
    if optimum is None:
        return None
    apart = (a.astype(np.float64) - optimum[name].astype(np.float64) for name, a in named.items())
    return math.sqrt(sum(float(np.sum(d * d)) for d in apart))


def _record(history: History, t: int, loss: float, error: float | None, trace: Mapping[str, Any]) -> None:
    history.step.append(t)
    history.loss.append(loss)
    if error is not None:
        history.error.append(error)
    for part in ("alpha", "rho", "b"):
        for name, rows in getattr(history, part).items():
            a = np.asarray(trace.get(name, {}).get(part, np.nan))
            rows.append(float(np.mean(a)) if a.size else math.nan)


def _check_counts(**counts: tuple[Any, int]) -> None:
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise HyperParameterError(f"{name} is {value!r}; it must be an integer >= {least}")


def _check_bounds(**bounds: Any) -> None:
    for name, value in bounds.items():
        if value is not None and not math.isfinite(number(value)):
            raise HyperParameterError(f"{name} is {value!r}; it must be a finite number, or None")


# Why a training ended, as scipy says it: status and message.
_SCIPY_STATUS = {
    "gtol": (0, "The gradient's largest entry is no greater than tol."),
    "steps": (0, "All steps were taken."),
    "callback": (99, "The callback raised StopIteration."),
}


def scipy_method(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    maxiter: int = 1000,
    disp: bool = False,
    optimizer: Any = "paper",
    **options: Any,
) -> Any:
    """Minimize as a method of scipy.optimize.minimize, which passes everything here.

    Parameters
    ----------
    fun, x0, args, jac, callback
        As in scipy.optimize.minimize; `jac` must be True or a callable.
    hess, hessp, bounds, constraints
        Must not be given: this method cannot use them.
    tol : float, optional
        Stop when the gradient's largest magnitude is at most `tol`.
    maxiter : int
        The most steps that are taken, >= 0.
    disp : bool
        Show the progress on standard error.
    optimizer, **options
        As in :func:`minimize`.

    Returns
    -------
    scipy.optimize.OptimizeResult
        x, fun, jac, nit, nfev, njev, status, success, message, and the `history`. `success` is False if `tol` was
        given and not reached, if the callback stopped the training, and after Ctrl-C.

    Raises
    ------
    ProblemError
        If there is no gradient, or something that cannot be used is given.

    Examples
    --------
    >>> import scipy.optimize, amos_ref
    >>> result = scipy.optimize.minimize(
    ...     scipy.optimize.rosen, [-1.2, 1.0], jac=scipy.optimize.rosen_der, method=amos_ref.scipy_method,
    ...     options={"optimizer": "adamw", "learning_rate": 0.05, "maxiter": 2000},
    ... )
    >>> result.nit, result.success, bool(result.fun < 0.01)
    (2000, True, True)
    """
    from scipy.optimize import OptimizeResult

    unused = {"hess": hess, "hessp": hessp, "bounds": bounds, "constraints": constraints}
    for name, value in unused.items():
        if value is not None and not (isinstance(value, tuple | list) and len(value) == 0):
            raise ProblemError(f"{name} is {value!r:.60}; this method cannot use it, so it must not be given")
    if not callable(jac):
        raise ProblemError(f"jac is {jac!r:.60}; this method needs the gradient: jac=True or a callable")
    _check_counts(maxiter=(maxiter, 0))
    _check_bounds(tol=tol)
    calls = 0

    def as_pair(x: np.ndarray) -> tuple[Any, np.ndarray]:
        nonlocal calls
        calls += 1
        loss = np.asarray(fun(x, *args))
        return loss.item() if loss.size == 1 else loss, np.array(jac(x, *args), dtype=np.float64)

    stop = None if callback is None else _scipy_callback(callback)
    loop: dict[str, Any] = dict(steps=maxiter, every=max(maxiter, 1), gtol=tol, callback=stop, progress=disp)
    end = minimize(as_pair, np.atleast_1d(x0), optimizer, **loop, **options)
    status, message = _SCIPY_STATUS.get(end.status, (2, "Interrupted."))
    if end.status == "steps" and tol is not None:
        status, message = 1, "Maximum number of iterations has been exceeded."
    found = dict(x=end.params, fun=end.loss, jac=end.gradient, nit=end.steps, nfev=calls, njev=calls)
    return OptimizeResult(found, status=status, success=status == 0, message=message, history=end.history)


def _scipy_callback(callback: Callable[..., Any]) -> Callable[[int, float, Any], bool]:
    """Return a callback for :func:`minimize` that calls scipy's, which has two forms, after each step."""
    from scipy.optimize import OptimizeResult

    by_keyword = set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def call(t: int, loss: float, x: np.ndarray) -> bool:
        try:
            if t > 0 and by_keyword:
                callback(intermediate_result=OptimizeResult(x=x, fun=loss))
            elif t > 0:
                callback(x)
        except StopIteration:
            return True
        return False

    return call
