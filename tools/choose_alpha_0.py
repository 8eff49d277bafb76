"""Losses of the closed form on scikit-learn's digits, by alpha_0 and half-life: the table of docs/choosing.md.

    python -m tools.choose_alpha_0                  # about a minute
    python -m tools.choose_alpha_0 --steps 300 --seeds 5

alpha_0 is a multiple of 1/sqrt(N), the half-life a share of N, for N steps with gradients of all the data. Each loss is
the median over the seeds of the start and of the split.
"""

import argparse
import statistics

from amos_ref import minimize, problems
from amos_ref.terminal import print_table

MULTIPLES = (0.03, 0.1, 0.3, 1.0, 3.0)  # of 1/sqrt(N)
SHARES = (0.01, 0.1, 1.0)  # of N


def measure(problem, steps, direction, share, multiple):
    """The loss at the end of one training."""
    options = dict(alpha_0=multiple / steps**0.5, half_life=share * steps, direction=direction)
    return minimize(problem, optimizer="closed-form", steps=steps, every=steps, **options).loss


def rows(tasks, numbers):
    """The rows of the table: for each number of steps, direction and half-life the losses by alpha_0."""
    for steps in numbers:
        for direction in ("gradient", "adam"):
            for share in SHARES:
                losses = [[measure(task, steps, direction, share, k) for task in tasks] for k in MULTIPLES]
                yield [
                    f"{steps}",
                    direction,
                    "N" if share == 1 else f"N/{1 / share:.0f}",
                    *(f"{statistics.median(x):.4f}" for x in losses),
                ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="50,500", metavar="LIST", help="numbers of steps (default 50,500)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many (default 3)")
    parser.add_argument("--hidden", type=int, default=16, metavar="N", help="units of the network (default 16)")
    args = parser.parse_args(argv)
    tasks = [problems.digits(args.hidden, seed=seed) for seed in range(args.seeds)]
    columns = ["N", "direction", "half-life", *(f"{k:g}" for k in MULTIPLES)]
    print("alpha_0 in units of 1/sqrt(N):")
    print_table(columns, list(rows(tasks, map(int, args.steps.split(",")))))


if __name__ == "__main__":
    main()
