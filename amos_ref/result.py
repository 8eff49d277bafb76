"""What a training loop returns, and how it is shown."""

import math
import pickle
from typing import Any, NamedTuple

from amos_ref import tree
from amos_ref.terminal import Printed, counted, format_number

SHOWN_ROWS = 10  # of a history that is shown


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

    def __repr__(self) -> str:
        return f"<History of {counted(len(self.step), 'recorded step')}: step, loss, error, alpha, rho, b>"


class Result(NamedTuple):
    """What :func:`minimize` returns.

    Attributes
    ----------
    params : tree of arrays
        The parameters at the end.
    loss : float
        The last loss that was computed, or NaN if there was none. It is the loss at `params`, unless Ctrl-C or an error
        came between a step and its loss.
    steps : int
        How many steps were taken.
    status : {"steps", "target", "gtol", "patience", "callback", "interrupted", "error"}
        Why the training ended. "steps" means that all steps were taken, and "error" is the status of the
        ``amos_result`` that an exception carries.
    history : History
        What was recorded during the training.
    gradient : tree of arrays
        A copy of the gradient that was computed together with `loss`, in NumPy, or None if there was none.
    state : NamedTuple
        The optimizer's state, from which the training can go on.
    opt : Amos, ClosedFormAmos or AdamW
        The optimizer.
    """

    params: Any
    loss: float
    steps: int
    status: str
    history: History
    gradient: Any
    state: Any
    opt: Any

    def __repr__(self) -> str:
        return f"<Result: {self._describe_end()}; print() shows the history>"

    def __str__(self) -> str:
        steps, loss = self.history.step, self.history.loss
        shown = sorted({round(k * (len(steps) - 1) / SHOWN_ROWS) for k in range(SHOWN_ROWS + 1)}) if steps else []
        half_life = getattr(self.opt, "options", {}).get("half_life")
        planned = "" if half_life is None else f" with a half-life of {format_number(half_life)}"
        lines = [f"{self._describe_end()}, by {type(self.opt).__name__}{planned}"]
        lines += [f"{'step':>8}  {'loss':>12}"] * bool(shown)
        return "\n".join(lines + [f"{steps[k]:8}  {format_number(loss[k]):>12}" for k in shown])

    _repr_html_ = Printed._repr_html_  # a NamedTuple has no bases of its own

    def _describe_end(self) -> str:
        arrays = list(tree.present(self.params).values())
        size = sum(math.prod(a.shape) for a in arrays)
        words = f"{counted(len(arrays), 'leaf', 'leaves')}, {counted(size, 'parameter')}"
        return f"loss {format_number(self.loss)} after {counted(self.steps, 'step')} ({self.status}); {words}"


class RaisedResult(Result):
    """What an exception has of a training: pickled with it, but for an optimizer (with a lambda) that cannot be."""

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self.opt)
        except Exception:  # whatever the caller's own types raise
            return Result, (*self[:-1], None)
        return Result, tuple(self)
