"""The commands ``amos-ref explain`` and ``amos-ref schedule``: what a step and a schedule are, in numbers."""

import argparse
import json
from typing import Any

import numpy as np

from amos_ref import plots
from amos_ref.cli.tables import print_table, short
from amos_ref.errors import HyperParameterError


def add_to(commands: Any) -> None:
    """Add both commands to argparse's subparsers."""
    explain = commands.add_parser("explain", help="one step of a small example, stage by stage, with numbers")
    explain.add_argument("--algorithm", choices=["paper", "closed-form"], default="paper", help="default paper")
    explain.add_argument(
        "--step",
        type=int,
        metavar="T",
        help="which step to show, up to 1000; the paper counts from 1, the closed form from 0 (default the first)",
    )
    explain.add_argument("--json", action="store_true", help="print the numbers as JSON")
    explain.set_defaults(run=_explain)

    schedule = commands.add_parser(
        "schedule",
        help="alpha_t and rho_t of the closed forms, their recurrences and the paper",
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
    schedule.add_argument("--plot", metavar="FILE", help=f"draw them; FILE ends in .{', .'.join(plots.FORMATS)}")
    schedule.add_argument("--json", action="store_true", help="print the numbers as JSON")
    schedule.set_defaults(run=_schedule)


def _explain(args: argparse.Namespace) -> int:
    first = 1 if args.algorithm == "paper" else 0
    wanted = first if args.step is None else args.step
    if not first <= wanted <= 1000:
        raise HyperParameterError(f"--step is {wanted}; it must be from {first} to 1000")
    rng = np.random.default_rng(2022)
    params = {"kernel": rng.standard_normal((2, 3)).round(2), "bias": np.zeros(3)}
    opt = _example(args.algorithm)
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
    return 0


def _example(algorithm: str) -> Any:
    import amos_ref

    if algorithm == "closed-form":
        return amos_ref.ClosedFormAmos(alpha_0=0.1, half_life=10, direction="adam", backend="numpy")
    return amos_ref.Amos(
        learning_rate=0.1,
        eta={"bias": 0.5, "kernel": "sqrt(1/SHAPE[0])"},
        slot_shape={"bias": "tensor", "kernel": "(1, SHAPE[1])"},
        beta=0.9,
        extra_l2=0.01,
        backend="numpy",
    )


def _schedule(args: argparse.Namespace) -> int:
    if not 1 <= args.steps <= plots.MOST_STEPS:
        raise HyperParameterError(f"--steps is {args.steps}; it must be from 1 to {plots.MOST_STEPS}")
    half_life = 100.0 if args.half_life is None and args.p_0 is None else args.half_life
    options = dict(alpha_0=args.alpha_0, half_life=half_life, p_0=args.p_0, q=args.q, eta=args.eta)
    round_ones = {digit * 10**k for k in range(7) for digit in (1, 2, 5)}
    t = sorted({0, args.steps} | {n for n in round_ones if n < args.steps})
    found = plots.rates(np.array(t), **options)
    with plots.picture(args.plot, 11.0, 5.5) as figure:
        if figure is not None:
            for quantity, ax in zip(("alpha", "rho"), figure.subplots(1, 2), strict=True):
                plots.schedules(quantity, args.steps, ax, **options)
    if args.json:
        rates = {name: {"alpha": alpha.tolist(), "rho": rho.tolist()} for name, (alpha, rho) in found.items()}
        print(json.dumps({"options": options, "t": t, "schedules": rates}, indent=1))
    else:
        for i, title in enumerate(("alpha_t", "rho_t")):
            if i:
                print()
            rows = zip(map(str, t), *([short(x) for x in pair[i]] for pair in found.values()), strict=True)
            print_table([f"{title} at t", *found], [list(row) for row in rows])
    return 0
