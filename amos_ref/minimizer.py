"""A training loop that keeps a history."""

import contextlib
import copy
import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from amos_ref import tree
from amos_ref.batches import count_batches, rates_for, stream
from amos_ref.checks import Arrays, check_shape, named_arrays, named_gradients
from amos_ref.errors import HyperParameterError, NonFiniteError, ProblemError
from amos_ref.foreign import as_array_tree, like_given
from amos_ref.optimizers.configured import Configured
from amos_ref.optimizers.interrupt import InterruptGuard
from amos_ref.optimizers.turn import check_unused
from amos_ref.problems import Problem
from amos_ref.result import History, RaisedResult, Result
from amos_ref.rules import number
from amos_ref.terminal import complain, format_number, show_progress

#: Name -> (module, class).
OPTIMIZERS = {
    "paper": ("amos_ref.optimizers.amos", "Amos"),
    "closed-form": ("amos_ref.optimizers.closed_form", "ClosedFormAmos"),
    "adamw": ("amos_ref.adamw", "AdamW"),
}


def minimize(
    fun: Any,
    x0: Any = None,
    optimizer: Any = None,
    *,
    steps: int | None = None,
    batches: Any = None,
    epochs: int | None = None,
    state: Any = None,
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
        ``fun(params)`` returns the loss, a real number, and the gradient, a tree of arrays like `params` in which None
        stands for a leaf that the step skips. Both trees are copied. With `batches` it is called as
        ``fun(params, batch)``. A problem has its own `x0` and `optimum`.
    x0 : tree of arrays
        The start, of float16, bfloat16, float32 or float64. It is copied. What `fun`, `callback` and the result have as
        parameters are arrays of its kind: NumPy's, torch's (which require a gradient where it does) or JAX's.
    optimizer : {"paper", "closed-form", "adamw"} or an instance, optional
        By default "paper", or the optimizer of the Result that the training goes on from, with `options` in place of
        its own. A name stands for :class:`amos_ref.Amos`, :class:`amos_ref.ClosedFormAmos` or
        :class:`amos_ref.adamw.AdamW` with `options`. "closed-form" has a half-life of a tenth of `steps`, unless you
        give `half_life` or `p_0`; ``result.opt.half_life`` says what it was.
    steps : int, optional
        The greatest number of steps, >= 0. It is 1000 by default. With `batches` it is by default one step for each
        batch in each epoch.
    batches : iterable or callable, optional
        The minibatches, of any type: a list, a loader, or a function that returns a new iterator for each epoch. If
        their number N is known from ``len``, the learning rate of "paper" is by default 1/sqrt(N), and 1 - beta is the
        same number, but at most 1/2. Every loss is that of one batch, and the loss at the end is that of the last one.
    epochs : int, optional
        How many times the training goes through the batches, >= 1. By default once, or as often as `steps` asks if that
        is given. An iterator can be gone through only once.
    state : Result or state, optional
        What the training goes on from. It stays as it is. A Result also gives `x0` and `optimizer`, unless given.
        Batches begin with the first one: to go on within an epoch, give those that are left.
    optimum : tree of arrays, optional
        Where the minimum is. The history then records the distance to it.
    target, gtol : float, optional
        Stop when the loss is at most `target`, or when no entry of the gradient is greater than `gtol` in magnitude.
    patience : int, optional
        Stop after this many steps without a new lowest loss, >= 1.
    callback : callable, optional
        ``callback(steps_taken, loss, params)`` is called before each step and at the end. It stops the training by
        returning True (Python's or NumPy's) or by raising StopIteration. Anything else that it returns has no effect.
    every : int
        Record one step in so many, >= 1, and the last one. Recording a step takes about as long as the step.
    progress : bool
        Show the progress on standard error, as a bar on a terminal and otherwise as a line for every tenth of the
        steps. A half-life that was chosen by default is printed first.
    **options
        The options of the optimizer.

    Returns
    -------
    Result
        Also after Ctrl-C, and it then holds what had been reached. If `fun` or a step raises an exception, that ends
        the training, and the exception carries such a result as ``amos_result``.

    Raises
    ------
    HyperParameterError, ProblemError
        If an argument is out of its range, or if `fun` does not return a loss and a gradient.
    NonFiniteError
        If a loss or a gradient is NaN or infinite.
    DtypeError, ShapeError, TreeError
        If a gradient is not an array of floats like its parameter.

    Examples
    --------
    >>> import numpy as np, amos_ref
    >>> result = amos_ref.minimize(lambda x: (x @ x / 2, x), np.array([3.0, -4.0]), learning_rate=0.1, steps=200)
    >>> result.steps, result.loss < 1e-3 * result.history.loss[0]
    (200, True)
    """
    check_counts(epochs=(1 if epochs is None else epochs, 1))
    x0, optimizer, options, state = _go_on_from(x0, optimizer, options, state)
    if isinstance(fun, Problem) and fun.batches is not None and batches is None:
        batches = fun.batches()
    size = None if batches is None else count_batches(batches)
    if batches is None or steps is not None or size is not None:
        steps = steps if steps is not None else 1000 if batches is None or size is None else size * (epochs or 1)
    check_counts(
        steps=(0 if steps is None else steps, 0),
        every=(every, 1),
        patience=(1 if patience is None else patience, 1),
    )
    check_bounds(target=target, gtol=gtol)
    if isinstance(fun, Problem):
        x0 = fun.start if x0 is None else x0
        optimum = fun.reference if optimum is None and fun.unique else optimum
        fun = fun.fun
    if x0 is None:
        raise ProblemError("x0 is None; it must be the tree of arrays from which the training starts")
    if batches is None and epochs not in (None, 1):
        raise HyperParameterError(f"epochs is {epochs}, and there are no batches to go through; give batches or steps")
    check_callables(fun=fun, callback=fun if callback is None else callback)
    options = rates_for(optimizer, options, size)
    if steps is None and find_half_life(optimizer, options, 1):
        raise HyperParameterError("how many batches there are is not known: give steps or half_life")
    opt = build_optimizer(optimizer, options, steps or 0)
    if progress and (note := describe_half_life(optimizer, options, steps or 0)):
        complain(note)
    named = _read_arrays(x0, "x0")
    best = None if optimum is None else tree.match(_read_arrays(optimum, "optimum"), named, "optimum")
    for name, a in (best or {}).items():
        check_shape(a, named[name].shape, f"optimum leaf {name!r}")
    params = tree.unflatten(named, x0)
    state, rows, status = opt.init(params) if state is None else state, [], None
    begin, flow = int(state.count), None if batches is None else stream(batches, epochs, steps)
    loss, grads, lowest = math.nan, None, (math.inf, 0)
    try:
        batch = ()
        with show_progress([""], steps or 0) if progress else contextlib.nullcontext() as show:
            for t in itertools.count():
                last = t == steps
                if flow is not None and not (last and batch):
                    found = list(itertools.islice(flow, 1))
                    last, batch = last or not found, found or batch
                loss, grads = evaluate(fun, _copy_like(named, x0), begin + t, batch)
                lowest = min(lowest, (loss, t))
                if show is not None:
                    show("", t, f"loss {loss:.6g}")
                asked = callback is not None and _asks_to_stop(callback, begin + t, loss, _copy_like(named, x0))
                stops = {
                    "callback": asked,
                    "target": target is not None and loss <= target,
                    "gtol": gtol is not None and find_largest(grads, named) <= gtol,
                    "patience": patience is not None and t - lowest[1] >= patience,
                }
                status = next((name for name, reached in stops.items() if reached), "steps" if last else None)
                if status or t % every == 0:
                    rows.append(
                        _read(opt.trace(grads, state, params), begin + t, loss, measure_distance(named, best), named)
                    )
                if status:
                    break
                with InterruptGuard():  # until the new state has its name
                    state = opt.step(params, grads, state)
    except KeyboardInterrupt as interrupt:
        state, status = getattr(interrupt, "amos_state", state), "interrupted"
    except BaseException as error:
        state = getattr(error, "amos_state", state)
        with contextlib.suppress(AttributeError, TypeError):  # of an exception that takes no attributes
            error.amos_result = RaisedResult(  # pyright: ignore[reportAttributeAccessIssue]
                _copy_like(named, x0), loss, int(state.count) - begin, "error", _collect(rows, named), grads, state, opt
            )
        raise
    end, taken = _copy_like(named, x0), int(state.count) - begin
    return Result(end, loss, taken, str(status), _collect(rows, named), grads, state, opt)


def _go_on_from(x0: Any, optimizer: Any, options: dict[str, Any], state: Any) -> tuple[Any, Any, Any, Any]:
    """Return the start, the optimizer, its options and a copy of the state that are gone on from."""
    if isinstance(state, Result):
        x0 = state.params if x0 is None else x0
        if optimizer is None and state.opt is not None:
            optimizer, options = _with_options(state.opt, options), {}
        state = state.state
    check_unused(state)
    return x0, "paper" if optimizer is None else optimizer, options, copy.deepcopy(state)


def _with_options(opt: Any, options: Mapping[str, Any]) -> Any:
    """Return an optimizer with some of its options replaced."""
    if not options or not isinstance(opt, Configured):
        return build_optimizer(opt, options, 0)
    if unknown := [repr(key) for key in options if key not in opt.options]:
        name, known = type(opt).__name__, ", ".join(opt.options)
        raise HyperParameterError(f"the result's {name} has no option {', '.join(unknown)}; it has {known}")
    return type(opt)(**{**opt.options, **options})


def find_half_life(optimizer: Any, options: Mapping[str, Any], steps: int) -> float | None:
    """Return the half-life of the closed form that takes so many steps, if these options leave it open; else None."""
    is_planned = any(options.get(name) is not None for name in ("half_life", "p_0")) or callable(options.get("p_t"))
    is_open = isinstance(optimizer, str) and optimizer == "closed-form" and not is_planned
    return max(steps, 1) / 10 if is_open else None


def describe_half_life(optimizer: Any, options: Mapping[str, Any], steps: int) -> str:
    """Return in words the half-life that the options leave open; nothing if they say it."""
    half_life = find_half_life(optimizer, options, steps)
    return "" if half_life is None else f"half-life N/10 = {format_number(half_life)}"


def build_optimizer(optimizer: Any, options: Mapping[str, Any], steps: int) -> Any:
    """Return the optimizer of this name with these options, for so many steps, or the instance itself."""
    if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
        module, name = OPTIMIZERS[optimizer]
        cls = getattr(importlib.import_module(module), name)
        known = inspect.signature(cls).parameters
        if unknown := [repr(key) for key in options if key not in known]:
            raise HyperParameterError(f"{optimizer!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
        half_life = find_half_life(optimizer, options, steps)
        return cls(**options if half_life is None else {**options, "half_life": half_life})
    if isinstance(optimizer, type):
        words = f"an instance of it, or one of {', '.join(map(repr, OPTIMIZERS))}"
        raise HyperParameterError(f"optimizer is the class {optimizer.__name__}; it must be {words}")
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "step", "trace")):
        raise HyperParameterError(
            f"optimizer is {optimizer!r:.60}; it must be {', '.join(map(repr, OPTIMIZERS))} or have init, step, trace"
        )
    if options:
        raise HyperParameterError(f"optimizer is an instance already; {', '.join(map(repr, options))} cannot be set")
    return optimizer


def evaluate(fun: Callable[..., Any], params: Any, t: int, batch: Iterable[Any] = ()) -> tuple[float, Any]:
    """Return loss and gradient; raise ProblemError or NonFiniteError if `fun` returns anything else.

    The gradient is copied: `fun` may return the same arrays at every call, or its argument.
    """
    answer = fun(params, *batch)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ProblemError(f"fun returned {answer!r:.60} at step {t}; it must return (loss, gradient)")
    loss = number(answer[0])
    if not math.isfinite(loss):
        raise NonFiniteError(f"loss at step {t} is {answer[0]!r:.60}; it must be a finite number")
    grads = as_array_tree(answer[1], "grads")
    return loss, tree.unflatten(_copy(tree.flatten(grads, "grads")), grads)


def find_largest(grads: Any, named: Arrays) -> float:
    """Return the largest magnitude of a gradient's entries; infinity if no leaf has a gradient."""
    leaves = [np.abs(g.astype(np.float64)) for g in named_gradients(grads, named).values()]
    return max((float(a.max(initial=0.0)) for a in leaves), default=math.inf)


def measure_distance(named: Arrays, optimum: Arrays | None) -> float | None:
    """Return the Euclidean distance of all parameters to the optimum; None if that is unknown."""
    if optimum is None:
        return None
    apart = (a.astype(np.float64) - optimum[name].astype(np.float64) for name, a in named.items())
    return math.sqrt(sum(float(np.sum(d * d)) for d in apart))


def _read_arrays(given: Any, what: str) -> Arrays:
    """Return NumPy copies of the arrays of a tree, of whatever library, by name."""
    return _copy(named_arrays(as_array_tree(given, what), what))


def _copy_like(named: Arrays, like: Any) -> Any:
    """Return a tree of this form with copies of the arrays, of the kind that it has."""
    copied = _copy(named)
    return tree.unflatten({name: like_given(copied[name], a) for name, a in tree.present(like).items()}, like)


def _copy(named: dict[str, Any]) -> dict[str, Any]:
    """Return copies of NumPy's arrays, and everything else as it is: what reads it says what is wrong with it."""
    return {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in named.items()}


def _asks_to_stop(callback: Callable[[int, float, Any], Any], t: int, loss: float, params: Any) -> bool:
    """Whether a callback returns True, in Python's type or an array's, or raises StopIteration."""
    try:
        answer = callback(t, loss, params)
    except StopIteration:
        return True
    if not isinstance(answer, bool) and not str(getattr(answer, "dtype", "")).endswith("bool"):
        return False
    if math.prod(getattr(answer, "shape", ())) != 1:
        raise ProblemError(f"callback returned {answer!r:.60} at step {t}; it must return one truth value, or None")
    return bool(answer)


def _read(trace: Mapping[str, Any], t: int, loss: float, error: float | None, names: Iterable[str]) -> tuple[Any, ...]:
    """Return one row of the history: step, loss, error and, for each leaf, the means of alpha, rho and b."""

    def mean(name: str, part: str) -> float:
        a = np.asarray(trace.get(name, {}).get(part, np.nan))
        return float(np.mean(a)) if a.size else math.nan

    return t, loss, error, *({name: mean(name, part) for name in names} for part in ("alpha", "rho", "b"))


def _collect(rows: list[tuple[Any, ...]], names: Iterable[str]) -> History:
    """Return rows as a history, which thus has all of a row or nothing, wherever Ctrl-C came."""
    step, loss, errors = ([row[k] for row in rows] for k in range(3))
    rates = ({name: [row[k][name] for row in rows] for name in names} for k in range(3, 6))
    return History(step, loss, [error for error in errors if error is not None], *rates)


def check_callables(**callables: Any) -> None:
    for name, value in callables.items():
        if not callable(value):
            raise ProblemError(f"{name} is {value!r:.60}; it must be callable")


def check_counts(**counts: tuple[Any, int]) -> None:
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise HyperParameterError(f"{name} is {value!r}; it must be an integer >= {least}")


def check_bounds(**bounds: Any) -> None:
    for name, value in bounds.items():
        if value is not None and not math.isfinite(number(value)):
            raise HyperParameterError(f"{name} is {value!r}; it must be a finite number, or None")
