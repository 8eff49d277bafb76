"""Whether a step became faster or slower: two checkouts of this repository, timed in turns in one run.

    python tools/compare_speed.py BEFORE AFTER [--rounds 9] [--seconds 0.05] [--only TEXT]

BEFORE and AFTER are folders that contain `amos_ref`, such as two git worktrees. Each has a process of its own, with the
folder as PYTHONPATH, which takes steps of `Amos` and `ClosedFormAmos` (backend "cpu") when it is told to. The two take
turns, BEFORE AFTER BEFORE AFTER, in each round for about `--seconds`; nothing else should run meanwhile. A line shows
the median time of a step in each checkout, over the rounds, and the time in AFTER over that in BEFORE: the median, the
least and the greatest of the rounds' ratios. `--only` selects the cases whose name contains a text.

Only the public names `init` and `step` are used, so any two versions can be compared.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ARRAYS = {"1e3": (25, 40), "1e4": (80, 125), "1e5": (250, 400), "1e6": (800, 1250), "1e7": (2500, 4000)}
TREES = {"1000 x 64": [(64,)] * 1000, "30 x 4096": [(4096,)] * 30}
SLOTS = ("tensor", "row", "column", "element")
CASES = [
    (algorithm, name, slot)
    for algorithm in ("Amos", "ClosedFormAmos")
    for name in (*ARRAYS, *TREES)
    for slot in (SLOTS if name in ARRAYS else ("tensor",))
]
WARM_UP = 5  # steps
MOST = 2000  # steps in one turn


# the process of one checkout


def slot_shape(slot, shape):
    return {"tensor": (), "row": (*shape[:-1], 1), "column": (1, *shape[1:]), "element": shape}[slot]


class Case:
    """An optimizer with its arrays, which takes steps."""

    def __init__(self, algorithm, name, slot):
        import numpy as np

        import amos_ref

        options = {"slot_shape": lambda _, shape: slot_shape(slot, shape), "backend": "cpu"}
        if algorithm == "ClosedFormAmos":
            options |= {"half_life": 1e5}
        rng = np.random.default_rng(2022)
        shapes = TREES.get(name) or [ARRAYS[name]]
        draw = {f"leaf{i}": rng.standard_normal((2, *shape), np.float32) for i, shape in enumerate(shapes)}
        self.params = {leaf: np.float32(0.5) * a[0] for leaf, a in draw.items()}
        self.grads = {leaf: np.float32(0.01) * a[1] for leaf, a in draw.items()}
        self.opt = getattr(amos_ref, algorithm)(1e-3, **options)
        self.state = self.opt.init(self.params)

    def run(self, steps):
        """Take steps, and return the median of their seconds."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self.state = self.opt.step(self.params, self.grads, self.state)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def work():
    """Answer each line of standard input, which is a case to begin or a number of steps to take."""
    answers, sys.stdout = sys.stdout, sys.stderr  # so that nothing else is printed among the answers
    case = None
    for line in sys.stdin:
        message = json.loads(line)
        if isinstance(message, list):
            case = None  # frees its arrays
            case = Case(*message)
            message = WARM_UP
        assert case is not None
        print(case.run(message), file=answers, flush=True)


# the process that compares


class Worker:
    """The process of one checkout."""

    def __init__(self, folder):
        if not (folder / "amos_ref" / "__init__.py").is_file():
            raise SystemExit(f"{folder} does not contain amos_ref")
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        command = [sys.executable, __file__, "--work"]
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, message):
        """Return the seconds of a step, after `message` (a case) has begun or `message` steps were taken."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(message), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a worker ended; what went wrong is printed above")
        return float(answer)

    def close(self):
        """Let the process end."""
        self.process.communicate()


def compare(case, workers, rounds, seconds):
    """Return the times of each round, in pairs."""
    for worker in workers:
        worker.ask(case)
    slowest = max(worker.ask(WARM_UP) for worker in workers)
    steps = min(max(int(seconds / slowest), 3), MOST)
    return [tuple(worker.ask(steps) for worker in workers) for _ in range(rounds)]


def main():
    parser = argparse.ArgumentParser(description="Compare the speed of two checkouts.")
    parser.add_argument("folders", nargs=2, type=pathlib.Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--only", default="", metavar="TEXT")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        workers = [Worker(folder) for folder in args.folders]
        for worker in workers:
            stack.callback(worker.close)
        print(f"{'':40} {'before us':>10} {'after us':>10} {'after/before':>13}   least..greatest")
        for case in CASES:
            title = f"{case[0]:15} {case[1]}, {case[2]} slots"
            if args.only in title:
                pairs = compare(case, workers, args.rounds, args.seconds)
                before, after = (statistics.median(times) * 1e6 for times in zip(*pairs, strict=True))
                ratios = sorted(b / a for a, b in pairs)
                ratio = f"{statistics.median(ratios):13.3f}   {ratios[0]:.3f}..{ratios[-1]:.3f}"
                print(f"{title:40} {before:10.1f} {after:10.1f} {ratio}", flush=True)


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--work"] else main()
