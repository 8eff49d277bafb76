"""The command ``amos-ref schedule``: step size and weight decay over the steps, in numbers and as a picture."""

import argparse
import json
from typing import Any

import numpy as np

from amos_ref import plots
from amos_ref.cli.status import OK
from amos_ref.errors import HyperParameterError
from amos_ref.terminal import format_number, print_table


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    schedule = commands.add_parser(
        "schedule",
        help=summary,
        description="Step size alpha_t, in units of |eps_0| / |u_t|, and weight decay rho_t: the closed forms, the "
        "recurrences that they approximate, and the paper's under gradients of constant size, with xi = alpha_0.",
    )
    schedule.add_argument("--alpha-0", type=float, default=0.01, metavar="X", help="default 0.01")
    schedule.add_argument("--half-life", type=float, metavar="T", help="default 100; the closed forms are halved there")
    schedule.add_argument("--p-0", type=float, metavar="P", help="instead: the cosine of direction and error at t = 0")
    schedule.add_argument("--q", type=float, default=1.0, metavar="Q", help="default 1")
    schedule.add_argument("--eta", type=float, default=0.5, metavar="E", help="of the paper (default 0.5)")
    schedule.add_argument(
        "--steps", type=int, default=100_000, metavar="N", help="the last t, up to 1000000 (default 100000)"
    )
    schedule.add_argument("--plot", metavar="FILE", help=f"draw them; FILE ends in {', '.join(plots.ENDINGS)}")
    schedule.add_argument("--json", action="store_true", help="print the numbers as JSON")
    schedule.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Print the schedules, and draw them if that is asked for."""
    if not 1 <= args.steps <= plots.MOST_CLOCK_STEPS:
        raise HyperParameterError(f"--steps is {args.steps}; it must be from 1 to {plots.MOST_CLOCK_STEPS}")
    half_life = 100.0 if args.half_life is None and args.p_0 is None else args.half_life
    options = dict(alpha_0=args.alpha_0, half_life=half_life, p_0=args.p_0, q=args.q, eta=args.eta)
    round_ones = {digit * 10**k for k in range(7) for digit in (1, 2, 5)}
    t = sorted({0, args.steps} | {n for n in round_ones if n < args.steps})
    rates = plots.rates(np.array(t), **options)
    with plots.picture(args.plot, 11.0, 5.5) as figure:
        _print(args, t, rates, options)
        if figure is not None:
            for quantity, ax in zip(("alpha", "rho"), figure.subplots(1, 2), strict=True):
                plots.schedules(quantity, args.steps, ax, **options)
    return OK


def _print(args: argparse.Namespace, t: list[int], rates: dict[str, Any], options: dict[str, Any]) -> None:
    if args.json:
        lists = {name: {"alpha": alpha.tolist(), "rho": rho.tolist()} for name, (alpha, rho) in rates.items()}
        print(json.dumps({"options": options, "t": t, "schedules": lists}, indent=1))
    else:
        for i, title in enumerate(("alpha_t", "rho_t")):
            if i:
                print()
            rows = zip(map(str, t), *([format_number(x) for x in pair[i]] for pair in rates.values()), strict=True)
            print_table([f"{title} at t", *rates], [list(row) for row in rows])
