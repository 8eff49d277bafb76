"""The training loop of :func:`amos_ref.minimize` as a method of scipy.optimize.minimize."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.errors import HyperParameterError, ProblemError
from amos_ref.minimizer import Result, check_bounds, check_callables, check_counts, describe_half_life, minimize
from amos_ref.outside import pass_on

DEFAULT_STEPS = 1000
#: Options that other methods, or `minimize` itself, have under these names, and what to do here.
OTHERWISE = {
    "steps": "maxiter is how many steps are taken",
    "maxfev": "each step evaluates the function once: give maxiter",
    "maxfun": "each step evaluates the function once: give maxiter",
    "progress": "disp shows the progress",
    "every": "call amos_ref.minimize for a whole history",
    "optimum": "call amos_ref.minimize for the distance to it",
} | dict.fromkeys(["ftol", "xtol", "fatol", "xatol", "xrtol"], "give gtol (or tol), target or patience")


def scipy_method(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    gtol: float | None = None,
    target: float | None = None,
    patience: int | None = None,
    maxiter: int | None = None,
    disp: bool = False,
    return_all: bool = False,
    optimizer: Any = "paper",
    **options: Any,
) -> Any:
    """Minimize a function with Amos, as the `method` of scipy.optimize.minimize, which passes its arguments to this.

    Parameters
    ----------
    fun, x0, args, jac
        As in scipy.optimize.minimize; `jac` must be True or a callable.
    hess, hessp, bounds, constraints
        They must not be given, because this method cannot use them.
    callback : callable, optional
        It is called after each step, as ``callback(intermediate_result=...)`` if that is the name of its only
        parameter, and otherwise as ``callback(x)``. It stops the training by raising StopIteration or returning True.
    tol, gtol : float, optional
        Stop when no entry of the gradient is greater than `gtol` in magnitude. `tol` sets `gtol`, unless that is given.
    target, patience
        Stop as :func:`amos_ref.minimize` does.
    maxiter : int, optional
        The greatest number of steps, >= 0; 1000 by default.
    disp : bool
        Show the progress on standard error.
    return_all : bool
        Whether the result has `allvecs`, the parameters at the start and after each step.
    optimizer, **options
        As in :func:`amos_ref.minimize`. If the half-life was chosen by default, `message` ends with it.

    Returns
    -------
    scipy.optimize.OptimizeResult
        It has x, fun, jac, nit, nfev, njev, status, success, message, the `history` of the first and the last step,
        and `allvecs` if `return_all` is True. `success` is True, and `status` is 0,

        - if `tol`, `gtol` or `target` was reached;
        - if you gave none of them nor `patience`, and all steps that `maxiter` asks for were taken.

        Otherwise `success` is False, and `status` is 1 if the steps ran out, 2 after Ctrl-C, 3 if `patience` ran out,
        and 99 if the callback stopped the training. `message` says this in words.

    Raises
    ------
    ProblemError
        If there is no gradient, or if something is given that cannot be used.
    HyperParameterError
        If an option does not exist here, or is out of its range.
    AmosError
        As in :func:`amos_ref.minimize`, and with ``amos_result`` as there.

    Examples
    --------
    >>> import scipy.optimize, amos_ref
    >>> result = scipy.optimize.minimize(
    ...     scipy.optimize.rosen, [-1.2, 1.0], jac=scipy.optimize.rosen_der, method=amos_ref.scipy_method,
    ...     options={"optimizer": "adamw", "learning_rate": 0.05, "maxiter": 5000, "gtol": 0.1},
    ... )
    >>> result.success, result.message
    (True, ...)
    """
    from scipy.optimize import OptimizeResult

    unused = {"hess": hess, "hessp": hessp, "bounds": bounds, "constraints": constraints}
    for name, value in unused.items():
        empty = value is None or (isinstance(value, tuple | list) and len(value) == 0)
        if not empty and not (name == "bounds" and _are_open(value)):
            raise ProblemError(f"{name} is {value!r:.60}; this method cannot use it, so it must not be given")
    for name in options:
        if name in OTHERWISE:
            raise HyperParameterError(f"scipy_method has no option {name!r}; {OTHERWISE[name]}")
    if not callable(jac):
        raise ProblemError(f"jac is {jac!r:.60}; this method needs the gradient: jac=True or a callable")
    check_callables(fun=fun, callback=fun if callback is None else callback)
    check_counts(maxiter=(0 if maxiter is None else maxiter, 0))
    check_bounds(tol=tol, gtol=gtol)
    steps, gtol = DEFAULT_STEPS if maxiter is None else maxiter, tol if gtol is None else gtol
    calls, seen = 0, []

    def as_pair(x: np.ndarray) -> tuple[Any, np.ndarray]:
        nonlocal calls
        calls += 1
        # Copies: what scipy makes of jac=True compares x with the one that it was called with before.
        return _as_loss(fun(x.copy(), *args)), _as_gradient(jac(x.copy(), *args))

    def after_step(t: int, loss: float, x: np.ndarray) -> Any:
        if return_all:
            seen.append(x.copy())
        return _call(callback, x, loss) if callback is not None and t > 0 else None

    end = minimize(
        as_pair, _as_start(x0), optimizer, steps=steps, every=max(steps, 1), callback=after_step,
        target=target, gtol=gtol, patience=patience, progress=bool(disp), **options,
    )  # fmt: skip
    limits = {"gtol": gtol, "target": target, "patience": patience}
    status, message = _explain(end, {name: x for name, x in limits.items() if x is not None}, maxiter)
    note = describe_half_life(optimizer, options, steps)
    message += f" The {note}." if note else ""
    found = dict(x=end.params, fun=end.loss, jac=end.gradient, nit=end.steps, nfev=calls, njev=calls)
    found |= {"allvecs": seen} if return_all else {}
    return OptimizeResult(found, status=status, success=status == 0, message=message, history=end.history)


def _explain(end: Result, limits: dict[str, Any], maxiter: int | None) -> tuple[int, str]:
    """Return scipy's status, and why the training ended."""
    missed = " and ".join(f"{name}={limit:.6g}" for name, limit in limits.items())
    match end.status:
        case "gtol":
            return 0, f"The gradient's largest entry is no greater than gtol={limits['gtol']:.6g}."
        case "target":
            return 0, f"The loss is no greater than target={limits['target']:.6g}."
        case "patience":
            return 3, f"There was no new lowest loss in {limits['patience']} steps."
        case "callback":
            return 99, "The callback raised StopIteration or returned True."
        case "interrupted":
            return 2, "Interrupted."
    if missed:
        return 1, f"Maximum number of iterations has been exceeded: {end.steps} steps did not reach {missed}."
    if maxiter is None:
        return 1, f"Maximum number of iterations has been exceeded: {end.steps}, as neither maxiter nor tol was given."
    return 0, "All steps were taken, as maxiter asks; no tolerance was given."


def _as_start(x0: Any) -> np.ndarray:
    """Return the start as scipy passes it: one-dimensional, and of floats if it was of integers."""
    x0 = np.atleast_1d(np.asarray(x0))
    return x0.astype(np.float64) if x0.dtype.kind in "iu" else x0.astype(x0.dtype.newbyteorder("="))


def _are_open(bounds: Any) -> bool:
    """Whether bounds, in either of scipy's forms, bound nothing."""
    from scipy.optimize import Bounds

    if isinstance(bounds, Bounds):
        return bool(np.all(np.isneginf(bounds.lb)) and np.all(np.isposinf(bounds.ub)))
    try:
        return all(low in (None, -np.inf) and high in (None, np.inf) for low, high in bounds)
    except (TypeError, ValueError):  # they are not pairs
        return False


def _as_loss(value: Any) -> Any:
    """Return the number in an array or list of one, as scipy takes them; anything else as it is, to be refused."""
    try:
        return np.asarray(value).item()
    except Exception as error:  # whatever another library raises
        pass_on(error)
        return value


def _as_gradient(value: Any) -> np.ndarray:
    """Return a gradient as an array of float64, as scipy takes it: a list too, and a number for one dimension."""
    try:
        a = np.atleast_1d(np.asarray(value))
    except Exception as error:  # whatever another library raises
        pass_on(error)
        raise ProblemError(f"jac returned {value!r:.60}, which is not an array: {error}") from error
    if a.dtype.kind not in "fiu" and a.dtype.name != "bfloat16":
        raise ProblemError(f"jac returned {value!r:.60}, of dtype {a.dtype}; it must return real numbers")
    return a.astype(np.float64)


def _call(callback: Callable[..., Any], x: np.ndarray, loss: float) -> Any:
    """Call a callback of scipy's, which has two forms."""
    from scipy.optimize import OptimizeResult

    try:
        by_keyword = set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):  # of a function written in C
        by_keyword = False
    return callback(intermediate_result=OptimizeResult(x=x, fun=loss)) if by_keyword else callback(x)
