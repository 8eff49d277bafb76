"""Measuring: all contenders are timed in turns, so that whatever the machine does meanwhile happens to all of them."""

import contextlib
import gc
import math
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.bench import gpu
from amos_ref.bench.contenders import OURS, ROOF, find_contender
from amos_ref.bench.timing import Timed
from amos_ref.bench.workloads import Workload
from amos_ref.conformance.ports.failures import first_line
from amos_ref.errors import HyperParameterError

Times = dict[int, float]  # round -> seconds a step

_DESCRIBED = ("algorithm", "direction", "slot", "dtype", "state", "momentum", "threads", "bytes")
BRIEF, MOST_CALLS = 1e-3, 20  # a timing lasts this many seconds, or this many steps if they take less
TRIES = 5  # steps; the fastest of them tells how many steps make a timing


class Settings(NamedTuple):
    """How to measure."""

    peers: tuple[str, ...]
    backend: str
    seconds: float  # for each workload
    least: int  # rounds, of what is slow
    most: int  # rounds, of what is fast
    most_compiled: int  # arrays in one compiled program
    seed: int = 2022  # of the order in a round
    algorithm: str = "paper"  # whose steps are measured

    @property
    def contenders(self) -> tuple[str, ...]:
        return (OURS, ROOF, *self.peers)


# in turns


def time_in_turns(contenders: Mapping[str, Timed], settings: Settings) -> dict[str, Times]:
    """Time each contender in many rounds, in each of which it takes part at most once, in an order drawn anew.

    All get the same share of `settings.seconds`, so slow ones take part in fewer rounds, which are spread over all of
    them. Everyone takes part in the last round.
    """
    share = settings.seconds / len(contenders)
    calls, rounds = {}, {}
    for name, timed in contenders.items():
        calls[name], rounds[name] = _plan_rounds(timed, share, settings)
    rng = np.random.default_rng(settings.seed)
    total, times = max(rounds.values()), {name: {} for name in contenders}
    with _no_garbage_collector():
        for k in range(total):
            due = [name for name, n in rounds.items() if (k + 1) * n // total > k * n // total]
            for i in rng.permutation(len(due)):
                name = due[i]
                times[name][k] = contenders[name].time_steps(calls[name])
                time.sleep(contenders[name].pause)
    return times


def _plan_rounds(timed: Timed, share: float, settings: Settings) -> tuple[int, int]:
    """Return how many steps make a timing, and how many rounds fit into `share` seconds, by a few tries."""
    tries = [timed.time_steps(1)]
    while len(tries) < TRIES and sum(tries) < share / settings.least:
        tries.append(timed.time_steps(1))
    seconds = max(min(tries), 1e-9)
    calls = min(math.ceil(BRIEF / seconds), MOST_CALLS)
    cost = seconds * timed.count_steps(calls) + timed.pause
    return calls, min(max(int(share / cost), settings.least), settings.most)


@contextlib.contextmanager
def _no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# figures


def compare_times(times: Times, others: Times) -> float:
    """Return the median of the ratios of two contenders' times, over the rounds in which both took part."""
    return float(np.median([times[k] / others[k] for k in times.keys() & others.keys()]))


def summarize(name: str, times: Mapping[str, Times], moved: int, work: Workload) -> dict[str, Any]:
    """Return the record of one contender, whose algorithm must move `moved` bytes."""
    seconds = np.array(list(times[name].values()))
    low, median, high = (float(x) for x in np.percentile(seconds, [25, 50, 75]))
    return {
        "contender": name,
        "rounds": len(seconds),
        "seconds": {"median": median, "lower_quartile": low, "upper_quartile": high},
        "bytes": moved,
        "ns_per_parameter": median / work.parameters * 1e9,
        "gb_per_s": moved / median * 1e-9,
        "of_roof": compare_times(times[name], times[ROOF]),
        "of_ours": compare_times(times[name], times[OURS]),
    }


def describe_streams(seconds: Mapping[int, float]) -> dict[str, Any]:
    """Return with how many streams a thread the roof is fastest, and what one stream takes over what several do."""
    several = min(time for count, time in seconds.items() if count > 1)
    return {"used": min(seconds, key=lambda count: seconds[count]), "one_over_several": seconds[1] / several}


def measure_extra_bytes(timed: Timed) -> int:
    """Return how many bytes NumPy and Python allocate at the peak of one step."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        timed.run()
        return max(tracemalloc.get_traced_memory()[1] - before, 0)
    finally:
        tracemalloc.stop()


# one workload


def measure_workload(work: Workload, settings: Settings) -> dict[str, Any]:
    """Time every contender on a workload; return its description, the records, and who was skipped and why."""
    skipped: dict[str, str] = {}
    records = []
    gc.collect()  # the arrays of the last workload, before the free memory is asked for
    with limit_threads(work.threads):
        ready = dict(_prepare_all(work, settings, skipped))
        times = time_in_turns(ready, settings) if {OURS, ROOF} <= ready.keys() else {}
        for name in times:
            contender = find_contender(name, settings.backend)
            record = summarize(name, times, contender.count_moved_bytes(work), work)
            record["extra_bytes"] = measure_extra_bytes(ready[name]) if contender.traced else None
            if ready[name].streams:
                record["streams"] = describe_streams(ready[name].streams)
            if contender.clock is not None:
                record["copies"] = contender.count_copies(work)
            records.append(record)
    return {
        "name": work.name,
        "label": str(work),
        "parameters": work.parameters,
        "arrays": len(work.shapes),
        **{name: getattr(work, name) for name in _DESCRIBED},
        "results": records,
        "skipped": [{"contender": name, "reason": reason} for name, reason in skipped.items()],
    }


def _prepare_all(work: Workload, settings: Settings, skipped: dict[str, str]) -> Iterator[tuple[str, Timed]]:
    """Yield the contenders that can step the workload, within half of the free memory; say why others cannot."""
    free = gpu.read_free_memory() if settings.backend == "cuda" else read_free_memory()
    held, extra = 0, 0
    for name in settings.contenders:
        contender = find_contender(name, settings.backend)
        more, once = contender.count_memory(work)
        needed = held + more + max(extra, once)
        reason = contender.find_missing() or contender.find_limit(work, settings.most_compiled)
        if reason is None and needed > free / 2:
            reason = f"{needed / 1e9:.3g} GB with what the others hold is more than half of the free memory"
        if reason is None:
            try:
                timed = contender.prepare(work)
            except Exception as error:  # of somebody else's code, whatever it is
                if name in (OURS, ROOF) and not isinstance(error, MemoryError):
                    raise
                reason = f"failed: {first_line(error)}"
            else:
                held, extra = held + more, max(extra, once)
                yield name, timed
                continue
        skipped[name] = reason


def limit_threads(threads: int) -> contextlib.AbstractContextManager[None]:
    """Let the kernels use so many threads inside the block; 0 is for a GPU, on which no threads of the host step."""
    if not threads:
        return contextlib.nullcontext()
    from amos_ref.kernels.cpu.threads import limit_threads, most

    if threads > most():
        raise HyperParameterError(f"{threads} threads: NUMBA_NUM_THREADS is {most()}")
    return limit_threads(threads)


def read_free_memory() -> float:
    """Return how many bytes are free; infinity if the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return math.inf
