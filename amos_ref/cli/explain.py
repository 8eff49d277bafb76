"""The command ``amos-ref explain``: one step of a small example, in numbers."""

import argparse
import json
from typing import Any

import numpy as np

from amos_ref.cli.status import OK
from amos_ref.errors import HyperParameterError


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    explain = commands.add_parser("explain", help=summary)
    explain.add_argument("--algorithm", choices=["paper", "closed-form"], default="paper", help="default paper")
    directions = ["gradient", "adam", "sign"]
    explain.add_argument("--direction", choices=directions, help="of the closed form (default adam)")
    explain.add_argument(
        "--step",
        type=int,
        metavar="T",
        help="which step to show, up to 1000; the paper counts from 1, the closed form from 0 (default the first)",
    )
    explain.add_argument("--json", action="store_true", help="print the numbers as JSON")
    explain.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Print the intermediates of one step."""
    first = 1 if args.algorithm == "paper" else 0
    wanted = first if args.step is None else args.step
    if not first <= wanted <= 1000:
        raise HyperParameterError(f"--step is {wanted}; it must be from {first} to 1000")
    rng = np.random.default_rng(2022)
    params = {"kernel": rng.standard_normal((2, 3)).round(2), "bias": np.zeros(3)}
    opt = _build_example(args.algorithm, args.direction)
    state = opt.init(params)
    for t in range(first, wanted + 1):
        grads = {name: rng.standard_normal(a.shape).round(2) for name, a in params.items()}
        if t < wanted:
            state = opt.step(params, grads, state)
    trace = opt.trace(grads, state, params)
    if args.json:
        leaves = {n: {k: np.asarray(x).tolist() for k, x in s.items() if x is not None} for n, s in trace.items()}
        print(json.dumps({"t": trace.t, "rates": trace.rates._asdict(), "leaves": leaves}, indent=1))
    else:
        print(trace)
    return OK


def _build_example(algorithm: str, direction: str | None) -> Any:
    import amos_ref

    if direction is not None and algorithm != "closed-form":
        raise HyperParameterError("--direction goes with --algorithm closed-form")
    member = amos_ref.ClosedFormAmos if algorithm == "closed-form" else amos_ref.Amos
    options: dict[str, Any] = member.example | ({} if direction is None else {"direction": direction})
    return member(**options, backend="numpy")
