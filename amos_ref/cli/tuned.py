"""``amos-ref run digits``: every algorithm with its best of a small grid, by the settings of amos_ref/recipe.py.

Each choice is trained over several seeds, which give the start, the split of the data and the order of minibatches. The
best is the one with the lowest median of the losses on the training data, so held-out digits choose nothing.
"""

import itertools
import json
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from amos_ref import plots, recipe
from amos_ref.cli.status import INTERRUPTED, OK
from amos_ref.minimizer import Result, build_optimizer, minimize
from amos_ref.problems import Minibatches, Problem
from amos_ref.storage.options import encode_options
from amos_ref.terminal import print_table, show_progress


class Choice(NamedTuple):
    """One way to train, and how it went for each seed."""

    algorithm: str
    chosen: dict[str, float]  # the options of the grid
    results: list[Result]
    losses: list[float]
    scores: list[float]

    @property
    def loss(self) -> float:
        """What choices are compared by."""
        return statistics.median(self.losses)


def main(problems: list[Problem], steps: int | None, plot: str | None, as_json: bool) -> int:
    """Train, print, draw; return 0, or 130 if it was interrupted. Without `steps` there are those of nine epochs."""
    make_batches: Any = problems[0].batches
    batches: Minibatches = make_batches()
    steps = recipe.EPOCHS * batches.count if steps is None else steps
    grid = list(_grid(batches, max(steps, 1)))
    with plots.picture(plot, 6.0, 4.8) as figure:
        with one_thread():
            choices, interrupted = _train(problems, grid, steps)
        best = [min(of, key=lambda c: c.loss) for _, of in itertools.groupby(choices, key=lambda c: c.algorithm)]
        if as_json:
            print(json.dumps(_describe(choices, best, problems[0]) | {"interrupted": interrupted}, indent=1))
        else:
            _print(choices, best, len(problems), steps)
            if interrupted:
                print(f"Interrupted: {len(choices)} of {len(grid)} choices were tried.")
        if figure is not None and best:
            axes = figure.subplots()
            plots.losses({c.algorithm: c.results[0].history for c in best}, 0.0, axes)
    return INTERRUPTED if interrupted else OK


def one_thread() -> Any:
    """Return a context in which BLAS has one thread: its others only wait for matrices of this size.

    The last digits then do not depend on how many cores a machine has, either.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn, which has the digits, brings it

    return threadpool_limits(1)


def _grid(batches: Minibatches, steps: int) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Yield what is tried: an algorithm, the options that vary, and all its options."""
    mean = batches.count / batches.samples  # the loss of a minibatch is a mean
    for factor in recipe.FACTORS:
        yield "paper", ("learning_rate",), recipe.paper(batches.count, mean, xi=factor)
    for alpha in recipe.ALPHAS:
        for half_life in recipe.HALF_LIVES:
            yield "closed-form", ("alpha_0", "half_life"), recipe.closed_form(steps, alpha, half_life)
    for options in recipe.adamw_grid():
        yield "adamw", tuple(options), options


def _train(problems: list[Problem], grid: list[Any], steps: int) -> tuple[list[Choice], bool]:
    """Return the choices that were trained with all seeds, and whether Ctrl-C ended it."""
    choices, every, taken = [], max(steps // 100, 1), 0
    total = len(grid) * len(problems) * steps
    with show_progress(["digits"], total) as show, np.errstate(all="ignore"):
        for algorithm, names, options in grid:
            chosen, results = {name: options[name] for name in names}, []
            for problem in problems:
                opt = build_optimizer(algorithm, options, steps)
                results.append(minimize(problem, optimizer=opt, steps=steps, every=every))
                if results[-1].status == "interrupted":
                    return choices, True
                taken += steps
                show("digits", taken, f"{algorithm}, {_say(chosen)}, loss {results[-1].loss:.6g}")
            ends = [(problem, result.params) for problem, result in zip(problems, results, strict=True)]
            losses = [problem.fun(params)[0] for problem, params in ends]
            scores = [problem.score(params) if problem.score else np.nan for problem, params in ends]
            choices.append(Choice(algorithm, chosen, results, losses, scores))
    return choices, False


def _is_in(best: list[Choice], choice: Choice) -> bool:
    """Return whether it is one of the best; choices that went alike are not the same, and arrays do not compare."""
    return any(choice is one for one in best)


def _say(chosen: dict[str, float]) -> str:
    return ", ".join(f"{option}={value:.3g}" for option, value in chosen.items())


def _print(choices: list[Choice], best: list[Choice], seeds: int, steps: int) -> None:
    def median(c: Choice) -> tuple[str, str]:
        return f"{c.loss:.4g}", f"{statistics.median(c.scores):.1%}"

    rows = []
    for c in best:
        loss, score = median(c)
        spread = f"{min(c.losses):.3g} - {max(c.losses):.3g}", f"{min(c.scores):.1%} - {max(c.scores):.1%}"
        rows.append([c.algorithm, loss, spread[0], score, spread[1]])
    print_table(["the best choice", "loss", "spread", "held out", "spread"], rows)
    print()
    tried = [[c.algorithm, _say(c.chosen), *median(c), "best" if _is_in(best, c) else ""] for c in choices]
    print_table(["what was tried", "choice", "loss", "held out", ""], tried)
    print(f"Medians over {seeds} seeds of {steps} steps each. held out: the share that is right.")
    print("The best choice has the lowest loss on the training data.")


def _describe(choices: list[Choice], best: list[Choice], problem: Problem) -> dict[str, Any]:
    runs = []
    for c in choices:
        ends = {"steps": c.results[0].steps, "losses": c.losses, "right_on_held_out": c.scores}
        options = encode_options(c.results[0].opt.options)
        runs.append({"algorithm": c.algorithm, "best": _is_in(best, c), **ends, "options": options})
    return {"problem": problem.name, "runs": runs}
