"""``amos-ref run digits``: every algorithm with its best of a small grid, by the advice of docs/choosing.md.

Each choice is trained over several seeds, which give the start, the split of the data and the order of minibatches. The
best is the one with the lowest median of the losses on the training data, so held-out digits choose nothing.
"""

import itertools
import json
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from amos_ref import plots
from amos_ref.cli.status import INTERRUPTED, OK
from amos_ref.minimizer import Result, build_optimizer, minimize
from amos_ref.problems import Problem
from amos_ref.rules import PAPER_FLAX
from amos_ref.storage.options import encode_options
from amos_ref.terminal import print_table, show_progress

MULTIPLES = {"paper": (0.25, 0.5, 1.0, 2.0), "closed-form": (0.5, 1.0, 2.0, 4.0)}  # of 1/sqrt(N)
RATES = (0.003, 0.01, 0.03, 0.1)  # of AdamW
SLOT_RULES = {"slot_shape": PAPER_FLAX}


class Choice(NamedTuple):
    """One way to train, and how it went for each seed."""

    algorithm: str
    chosen: dict[str, float]  # the option of the grid
    results: list[Result]
    losses: list[float]
    scores: list[float]

    @property
    def loss(self) -> float:
        """What choices are compared by."""
        return statistics.median(self.losses)


def main(problems: list[Problem], steps: int, plot: str | None, as_json: bool) -> int:
    """Train, print, draw; return 0, or 130 if it was interrupted."""
    batches: Any = problems[0].batches
    grid = list(_grid(len(batches()), max(steps, 1)))
    with plots.picture(plot, 6.0, 4.8) as figure:
        choices, interrupted = _train(problems, grid, steps)
        best = [min(of, key=lambda c: c.loss) for _, of in itertools.groupby(choices, key=lambda c: c.algorithm)]
        if as_json:
            print(json.dumps(_describe(choices, best, problems[0]), indent=1))
        else:
            _print(choices, best, len(problems), steps)
        if figure is not None and best:
            axes = figure.subplots()
            plots.losses({c.algorithm: c.results[0].history for c in best}, 0.0, axes)
    return INTERRUPTED if interrupted else OK


def _grid(batches: int, steps: int) -> Iterator[tuple[str, dict[str, float], dict[str, Any]]]:
    """Yield what is tried: an algorithm, its option that varies, and all its options."""
    for multiple in MULTIPLES["paper"]:
        xi = multiple / batches**0.5
        yield "paper", {"learning_rate": xi}, {"beta": 1.0 - min(xi, 0.5), "eta": PAPER_FLAX, **SLOT_RULES}
    for multiple in MULTIPLES["closed-form"]:
        yield "closed-form", {"alpha_0": min(multiple / steps**0.5, 0.9)}, SLOT_RULES  # it must be below 1
    for rate in RATES:
        yield "adamw", {"learning_rate": rate}, {}


def _train(problems: list[Problem], grid: list[Any], steps: int) -> tuple[list[Choice], bool]:
    """Return the choices that were trained with all seeds, and whether Ctrl-C ended it."""
    choices, every = [], max(steps // 100, 1)
    taken = dict.fromkeys((algorithm for algorithm, *_ in grid), 0)
    with show_progress(list(taken), len(grid) // len(taken) * len(problems) * steps) as show, np.errstate(all="ignore"):
        for algorithm, chosen, others in grid:
            options, results = {**chosen, **others}, []
            for problem in problems:
                opt = build_optimizer(algorithm, options, steps)
                results.append(minimize(problem, optimizer=opt, steps=steps, every=every))
                if results[-1].status == "interrupted":
                    return choices, True
                taken[algorithm] += steps
                show(algorithm, taken[algorithm], f"{_say(chosen)}, loss {results[-1].loss:.6g}")
            ends = [(problem, result.params) for problem, result in zip(problems, results, strict=True)]
            losses = [problem.fun(params)[0] for problem, params in ends]
            scores = [problem.score(params) if problem.score else np.nan for problem, params in ends]
            choices.append(Choice(algorithm, chosen, results, losses, scores))
    return choices, False


def _say(chosen: dict[str, float]) -> str:
    return ", ".join(f"{option}={value:.3g}" for option, value in chosen.items())


def _print(choices: list[Choice], best: list[Choice], seeds: int, steps: int) -> None:
    def median(c: Choice) -> tuple[str, str]:
        return f"{c.loss:.4g}", f"{statistics.median(c.scores):.1%}"

    rows = []
    for c in best:
        loss, score = median(c)
        spread = f"{min(c.losses):.3g} - {max(c.losses):.3g}", f"{min(c.scores):.1%} - {max(c.scores):.1%}"
        rows.append([c.algorithm, loss, spread[0], score, spread[1], _say(c.chosen)])
    print_table(["", "loss", "spread", "held out", "spread", "best choice"], rows)
    print()
    tried = [[c.algorithm, _say(c.chosen), *median(c)] for c in choices]
    print_table(["what was tried", "choice", "loss", "held out"], tried)
    print(f"Medians over {seeds} seeds of {steps} steps each. held out: the share that is right.")
    print("The best choice has the lowest loss on the training data.")


def _describe(choices: list[Choice], best: list[Choice], problem: Problem) -> dict[str, Any]:
    runs = []
    for c in choices:
        ends = {"steps": c.results[0].steps, "losses": c.losses, "right_on_held_out": c.scores}
        options = encode_options(c.results[0].opt.options)
        runs.append({"algorithm": c.algorithm, "best": c in best, **ends, "options": options})
    return {"problem": problem.name, "runs": runs}
