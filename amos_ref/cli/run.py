"""The command ``amos-ref run``: train on a problem or a CSV file, and compare with the reference."""

import argparse
import contextlib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref import plots, recipe, tree
from amos_ref.checks import named_arrays
from amos_ref.choosing import choose
from amos_ref.cli import csv_data, tuned
from amos_ref.cli.status import INTERRUPTED, OK
from amos_ref.errors import AmosError, HyperParameterError, ProblemError, escape
from amos_ref.minimizer import (
    OPTIMIZERS,
    Result,
    build_optimizer,
    describe_half_life,
    measure_distance,
    minimize,
)
from amos_ref.problems import PROBLEMS, Problem
from amos_ref.storage.options import encode_options
from amos_ref.terminal import format_number, print_table, show_progress

LEARNING_RATE, SEEDS, STEPS = 0.05, 5, 1000  # where nothing is given
HISTORY_ROWS = 100  # at least, and less than twice as many
Results = dict[str, Result]


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    run = commands.add_parser(
        "run",
        help=summary,
        description="Train from the problem's start and compare the end with a reference that does not come from Amos.",
    )
    names = ", ".join(PROBLEMS)
    run.add_argument(
        "problem",
        metavar="PROBLEM",
        help=f"{names}; with options as in quadratic:n=5,condition=1000; or a CSV file, "
        "perhaps compressed by gzip, or - for standard input, for a linear regression",
    )
    run.add_argument("--target", metavar="COLUMN", help="of a CSV file: the column to predict")
    run.add_argument(
        "--feature",
        metavar="COLUMN",
        action="append",
        help="predict it from this column (may be repeated; default all)",
    )
    run.add_argument("--delimiter", metavar="C", help="of a CSV file: what is between its fields, or tab (default ,)")
    run.add_argument("--decimal", choices=csv_data.DECIMALS, help="of a CSV file (default .; with , fields end with ;)")
    run.add_argument(
        "--algorithm",
        metavar="NAME",
        action="append",
        help=f"{', '.join(OPTIMIZERS)}; with options as in closed-form:half_life=50,direction=adam "
        "(may be repeated, to compare; default all three; half_life is a tenth of the steps unless it or p_0 is given)",
    )
    run.add_argument("--steps", type=int, metavar="N", help=f"how many to take (default {STEPS})")
    run.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help=f"the closed form's alpha_0 as well (default {LEARNING_RATE})",
    )
    run.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="digits without --algorithm and --learning-rate tries several settings on minibatches, each with so many "
        f"seeds (default {SEEDS}), over {recipe.EPOCHS} epochs unless --steps says otherwise",
    )
    run.add_argument("--plot", metavar="FILE", help=f"draw the losses; FILE ends in {', '.join(plots.ENDINGS)}")
    run.add_argument("--json", action="store_true", help="print the result and its history as JSON")
    run.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Train, print, draw; return 0, or 130 if it was interrupted."""
    if args.steps is not None and args.steps < 0:
        raise HyperParameterError(f"--steps is {args.steps}; it must be 0 or more")
    name = args.problem.partition(":")[0]
    if name == "digits" and args.algorithm is None and args.learning_rate is None:
        seeds = SEEDS if args.seeds is None else args.seeds
        if seeds < 1:
            raise HyperParameterError(f"--seeds is {seeds}; it must be 1 or more")
        task = dict(hidden=recipe.HIDDEN, batch_size=recipe.BATCH)
        problems = [_build_problem(args, after=k, **task) for k in range(seeds)]
        return tuned.main(problems, args.steps, args.plot, args.json)
    args.steps = STEPS if args.steps is None else args.steps
    if args.seeds is not None:
        raise HyperParameterError("--seeds is for the problem digits without --algorithm and --learning-rate")
    is_named = name in PROBLEMS
    regression = None if is_named else _read_regression(args)
    problem = _build_problem(args) if regression is None else regression.problem
    optimizers, notes = _build_optimizers(args, problem.start)
    with plots.picture(args.plot, 11.0, 4.8) as figure:
        best = problem.best
        results, losses = _train(problem, optimizers, args.steps)
        swings = {label: swing for label in results if (swing := _find_swing(losses[label], best))}
        if args.json:
            print(json.dumps(_describe(results, notes, swings, problem, regression), indent=1))
        else:
            _print_results(results, problem, regression)
            for label in results:
                if notes[label]:
                    print(f"{label}: {notes[label]}")
            _print_swings(swings)
        if figure is not None:
            sys.stdout.flush()  # what was trained is not lost to its picture
            _draw(figure, results, problem, best)
    return INTERRUPTED if any(r.status == "interrupted" for r in results.values()) else OK


# what the user asks for


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """Return NAME and the options of NAME:option=value,option=value; a value that is not a number stays a text."""
    name, colon, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in re.split(r",(?=\w+=)", rest) if colon else ():  # a value may hold commas
        key, equals, value = part.partition("=")
        if not (key and equals and value) or key in options:
            raise HyperParameterError(f"{text!r} is not of the form NAME:option=value,option=value")
        options[key] = value
        for number in (float, int):
            with contextlib.suppress(ValueError):
                options[key] = number(value)
    return name, options


def _build_problem(args: argparse.Namespace, after: int = 0, **defaults: Any) -> Problem:
    """Return the problem that was asked for, or, of its seeds, the one that is so many after it."""
    name, options = split_options(args.problem)
    options = {**defaults, **options}
    if after and isinstance(options.setdefault("seed", 0), int):
        options["seed"] += after
    for option in ("target", "feature", "delimiter", "decimal"):
        if getattr(args, option) is not None:
            raise ProblemError(f"--{option} says something about a CSV file; the problem is {name!r}")
    known = [key for key in inspect.signature(PROBLEMS[name]).parameters if key not in ("x", "y")]
    if unknown := [repr(key) for key in options if key not in known]:
        raise ProblemError(f"{name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        return PROBLEMS[name](**options)
    except AmosError:
        raise
    except (TypeError, ValueError, MemoryError) as error:
        raise ProblemError(f"{args.problem!r} is not a valid problem: {error}") from error


def _read_regression(args: argparse.Namespace) -> csv_data.Regression:
    if args.problem != csv_data.STANDARD_INPUT and not os.path.exists(args.problem):
        raise ProblemError(f"there is no problem and no file {args.problem!r}; the problems are {', '.join(PROBLEMS)}")
    form = csv_data.Form(args.delimiter, args.decimal or ".")
    return csv_data.read_regression(args.problem, args.target, args.feature or (), form)


def _build_optimizers(args: argparse.Namespace, start: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the optimizers by the texts that the user gave for them, and what is chosen for each by default."""
    has_kernels = any(leaf.ndim > 1 for leaf in tree.flatten(start).values())
    optimizers: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for text in args.algorithm or OPTIMIZERS:
        if text in optimizers:
            raise HyperParameterError(f"--algorithm {text} is given twice")
        name, options = split_options(text)
        if name not in OPTIMIZERS:
            raise HyperParameterError(f"there is no algorithm {name!r}; it must be {', '.join(OPTIMIZERS)}")
        rate = LEARNING_RATE if args.learning_rate is None else args.learning_rate
        options.setdefault("alpha_0" if name == "closed-form" else "learning_rate", rate)
        if name == "paper" and has_kernels:
            options.setdefault("eta", choose(start))
        with _name_algorithm(text):
            optimizers[text] = build_optimizer(name, options, args.steps)
        notes[text] = describe_half_life(name, options, args.steps)
    return optimizers, notes


@contextlib.contextmanager
def _name_algorithm(label: str) -> Iterator[None]:
    """Name the algorithm in every error of the block."""
    try:
        yield
    except AmosError as error:
        raise type(error)(f"{label}: {error}") from error


# training


def _train(problem: Problem, optimizers: dict[str, Any], steps: int) -> tuple[Results, dict[str, list[float]]]:
    """Return the results, and the loss before each step and at the end."""
    results: Results = {}
    losses: dict[str, list[float]] = {label: [] for label in optimizers}
    every = max(steps // HISTORY_ROWS, 1)
    with show_progress(list(optimizers), steps) as show, np.errstate(all="ignore"):
        for label, opt in optimizers.items():

            def show_step(t: int, loss: float, _: Any, label: str = label) -> None:
                losses[label].append(loss)
                show(label, t, f"loss {loss:.6g}")

            with _name_algorithm(label):
                results[label] = minimize(problem, optimizer=opt, steps=steps, every=every, callback=show_step)
            if results[label].status == "interrupted":
                break
    return results, losses


def _find_swing(losses: list[float], best: float) -> tuple[float, float, float] | None:
    """Return least, median and greatest of the last tenth of the losses above the best, if they go up and down there.

    They do if its later half is somewhere more than twice as great as its earlier half is at its least. The last loss
    is then one point of a swing, and may be any other on another machine, while the median is stable. What is below
    2^-40 of the first loss is left to rounding.
    """
    tail = np.array(losses[-(len(losses) // 10) :]) - best if len(losses) >= 100 else np.zeros(2)
    half = tail.size // 2
    if tail[half:].max() <= max(2 * tail[:half].min(), 2.0**-40 * abs(losses[0] if losses else 0.0)):
        return None
    return float(tail.min()), float(np.median(tail)), float(tail.max())


# the results


def _print_swings(swings: dict[str, tuple[float, float, float]]) -> None:
    if swings:
        print()
        rows = [[label, *(f"{loss:.3g}" for loss in swing)] for label, swing in swings.items()]
        print_table(["above reference, in the last tenth of steps", "least", "median", "greatest"], rows)


def _print_results(results: Results, problem: Problem, regression: csv_data.Regression | None) -> None:
    columns = ["", "steps", "loss", "above reference"]
    columns += ["distance to it"] if problem.unique else []
    columns += ["held out"] if problem.score else []
    ends = {"start": problem.start} | {label: r.params for label, r in results.items()}
    rows = []
    for label, params in (ends | {"reference": problem.reference}).items():
        end = _measure(params, problem)
        taken = "" if label not in results else f"{results[label].steps}"
        taken += " (interrupted)" if label in results and results[label].status == "interrupted" else ""
        score = [] if end["score"] is None else [f"{end['score']:.1%}"]
        distance = [] if end["error"] is None else [format_number(end["error"])]
        rows.append([label, taken, format_number(end["loss"]), format_number(end["gap"]), *distance, *score])
    print_table(columns, rows)
    if regression is not None:
        _print_coefficients(results, regression)


def _print_coefficients(results: Results, regression: csv_data.Regression) -> None:
    problem = regression.problem
    ends = {"reference": problem.reference} | {label: r.params for label, r in results.items()}
    fits = [regression.coefficients(params) for params in ends.values()]
    r2 = [1 - 2 * problem.fun(params)[0] for params in ends.values()]
    rows = [["intercept", *(format_number(intercept) for intercept, _ in fits)]]
    rows += [[name, *(format_number(s[j]) for _, s in fits)] for j, name in enumerate(regression.features)]
    print()
    print_table([f"{regression.target} =", *ends], [*rows, ["R^2", *map(format_number, r2)]])
    if not problem.unique:
        print("The columns depend on each other: other coefficients fit as well as the reference's.")


def _measure(params: Any, problem: Problem) -> dict[str, float | None]:
    """Return the loss, how far it is above the reference's, the distance to the reference, and the score."""
    loss = problem.fun(params)[0]
    error = measure_distance(named_arrays(params), named_arrays(problem.reference)) if problem.unique else None
    score = problem.score(params) if problem.score else None
    return {"loss": loss, "gap": loss - problem.best, "error": error, "score": score}


def _describe(
    results: Results,
    notes: dict[str, str],
    swings: dict[str, tuple[float, float, float]],
    problem: Problem,
    regression: csv_data.Regression | None,
) -> dict[str, Any]:
    def row(params: Any) -> dict[str, Any]:
        figures: dict[str, Any] = _measure(params, problem)
        if regression is not None:
            figures["intercept"], slopes = regression.coefficients(params)
            figures["coefficients"] = dict(zip(regression.features, slopes, strict=True))
        return figures

    runs = []
    for label, r in results.items():
        history = {"step": r.history.step, "loss": r.history.loss, "error": r.history.error or None}
        chosen = {"options": encode_options(r.opt.options), "by_default": notes[label] or None}
        swing = dict(zip(("least", "median", "greatest"), swings[label], strict=True)) if label in swings else None
        end = {"steps": r.steps, "status": r.status, **row(r.params), "swing": swing}
        runs.append({"algorithm": label, **chosen, **end, "history": history})
    rows = {"start": row(problem.start), "reference": row(problem.reference)}
    return {"problem": problem.name, "reference_is_optimum": problem.unique, **rows, "runs": runs}


def _draw(figure: Any, results: Results, problem: Problem, best: float) -> None:
    """Draw the losses and, where the optimum is known, a closed form's error beside its prediction."""
    planned = [(name, r) for name, r in results.items() if hasattr(r.opt, "schedule") and r.history.error]
    axes = figure.subplots(1, 2 if planned else 1, squeeze=False)[0]
    plots.losses({name: r.history for name, r in results.items()}, best, axes[0])
    for name, r in planned:
        plots.errors(r.history, r.opt.schedule, axes[1], name)
    figure.suptitle(escape(problem.name), parse_math=False)
