"""The package's own threads beside concurrent.futures: a step's time with each, in turns, quiet and busy.

    python tools/pools.py [ROUNDS]       medians and 9th deciles in microseconds, for float32 and tensor slots

Busy means that as many other processes as there are cores compute all the time. The bits are compared.
"""

import concurrent.futures
import contextlib
import contextvars
import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import amos_ref
from amos_ref.kernels.cpu import threads

SIZES = (1_000_000, 4_000_000, 16_000_000)

executor = concurrent.futures.ThreadPoolExecutor(threads.most())


def share_by_executor(
    heads: Sequence[Any], count: int, run: Callable[..., Any], args: tuple[Any, ...], cancels: bool = False
) -> list[Any]:
    """Do what `threads._share` does; the caller sleeps until the others are done.

    With `cancels` nobody waits for a helper that has not begun when no batch is left.
    """
    if count == 1:
        return [run(*head, *args) for head in heads]
    launched = threads.Launch(run, heads, args, count)
    others = [executor.submit(contextvars.copy_context().run, launched.help, k) for k in range(count - 1)]
    try:
        launched.work()
    finally:
        concurrent.futures.wait([future for future in others if not (cancels and future.cancel())])
    if launched.errors:
        raise launched.errors[0]
    return launched.found


share_and_cancel = functools.partial(share_by_executor, cancels=True)

WAYS = {"own threads": threads._share, "executor": share_by_executor, "executor, cancelled": share_and_cancel}


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Let so many other processes compute meanwhile."""
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of each way's steps, which are taken in turns with the same arrays."""
    rng = np.random.default_rng(0)
    grads = rng.standard_normal(size, np.float32)
    steppers = {}
    for way in WAYS:
        opt, params = amos_ref.Amos(1e-3, 0.5, backend="cpu"), np.ones(size, np.float32)
        steppers[way] = [opt, params, opt.init(params)]
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for k in range(rounds + 1):
        for way, stepper in steppers.items():
            threads._share = WAYS[way]
            opt, params, state = stepper
            begin = time.perf_counter()
            stepper[2] = opt.step(params, grads, state)
            if k:
                spent[way].append((time.perf_counter() - begin) * 1e6)
    threads._share = WAYS["own threads"]
    if len({params.tobytes() for _, params, _ in steppers.values()}) > 1:
        raise AssertionError("the ways differ in their bits")
    return spent


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 200
    for others in (0, threads.most()):
        for size in SIZES:
            with busy(others):
                spent = measure(size, max(rounds * SIZES[0] // size, 10))
            print(f"{size:,} parameters, {threads.count()} threads, {others} other processes")
            for way, times in spent.items():
                last = statistics.quantiles(times, n=10)[-1]
                print(f"  {way:20} {statistics.median(times):8.0f} {last:8.0f}")


if __name__ == "__main__":
    main()
