"""Times of many contenders in turns, so that what the machine does meanwhile happens to all of them."""

import contextlib
import gc
import math
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.bench import gpu
from amos_ref.bench.contenders import OURS, ROOF, Contender, contender, limited
from amos_ref.bench.workloads import Workload
from amos_ref.conformance.ports.failures import first_line

Times = dict[int, float]  # round -> seconds a step

BRIEF, MOST_CALLS = 1e-3, 20  # a timing lasts this many seconds, or this many steps
TRIES = 5  # steps, by the fastest of which it is told how many that is


class Settings(NamedTuple):
    """How to measure."""

    peers: tuple[str, ...]
    backend: str
    seconds: float  # for each workload
    least: int  # rounds, of what is slow
    most: int  # rounds, of what is fast
    most_compiled: int  # arrays in one compiled program
    seed: int = 2022  # of the order in a round

    @property
    def contenders(self) -> tuple[str, ...]:
        return (OURS, ROOF, *self.peers)


# in turns


def interleaved(contenders: Mapping[str, Any], settings: Settings) -> dict[str, Times]:
    """Time each contender in many rounds; each takes part at most once in a round, in a new order every time.

    All get the same share of `settings.seconds`; what is slow takes part in fewer rounds, spread over all of them.
    Everyone takes part in the last.
    """
    share = settings.seconds / len(contenders)
    calls, rounds = {}, {}
    for name, c in contenders.items():
        tries = [c.steps(1)]
        while len(tries) < TRIES and sum(tries) < share / settings.least:
            tries.append(c.steps(1))
        seconds = max(min(tries), 1e-9)
        calls[name] = min(math.ceil(BRIEF / seconds), MOST_CALLS)
        cost = seconds * c.taken(calls[name]) + c.settles
        rounds[name] = min(max(int(share / cost), settings.least), settings.most)
    rng = np.random.default_rng(settings.seed)
    total, times = max(rounds.values()), {name: {} for name in contenders}
    with _without_collector():
        for k in range(total):
            due = [name for name, n in rounds.items() if (k + 1) * n // total > k * n // total]
            for i in rng.permutation(len(due)):
                times[due[i]][k] = contenders[due[i]].steps(calls[due[i]])
                time.sleep(contenders[due[i]].settles)
    return times


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# figures


def ratio(times: Times, others: Times) -> float:
    """Return the median of times over others', round by round, in the rounds that both took part in."""
    return float(np.median([times[k] / others[k] for k in times.keys() & others.keys()]))


def figures(name: str, times: Mapping[str, Times], moved: int, work: Workload) -> dict[str, Any]:
    """Return the record of one contender; `moved` is the bytes that its algorithm must move."""
    seconds = np.array(list(times[name].values()))
    low, median, high = (float(x) for x in np.percentile(seconds, [25, 50, 75]))
    return {
        "contender": name,
        "rounds": len(seconds),
        "seconds": {"median": median, "lower_quartile": low, "upper_quartile": high},
        "bytes": moved,
        "ns_per_parameter": median / work.parameters * 1e9,
        "gb_per_s": moved / median * 1e-9,
        "of_roof": ratio(times[name], times[ROOF]),
        "of_ours": ratio(times[name], times[OURS]),
    }


def extra_bytes(c: Contender) -> int:
    """Return how many bytes one step allocates at its peak, of what NumPy and Python allocate."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        c.run()
        return max(tracemalloc.get_traced_memory()[1] - before, 0)
    finally:
        tracemalloc.stop()


# one workload


def measured(work: Workload, settings: Settings) -> dict[str, Any]:
    """Measure every contender on a workload: return its description, a record each, and who was skipped and why."""
    skipped: dict[str, str] = {}
    records = []
    gc.collect()  # the last workload's arrays, before the free memory is looked at
    with limited(work.threads):
        ready = dict(_ready(work, settings, skipped))
        if {OURS, ROOF} <= ready.keys():
            times = interleaved(ready, settings)
            moved = {name: contender(name, settings.backend).bytes(work) for name in ready}
            records = [figures(name, times, moved[name], work) for name in ready]
        for record in records:
            c = ready[record["contender"]]
            record["extra_bytes"] = extra_bytes(c) if c.traced else None
            if c.copies is not None:
                record["copies"] = c.copies
    described = {"name": work.name, "label": str(work), "parameters": work.parameters, "arrays": len(work.shapes)}
    described |= dict(slot=work.slot, dtype=work.dtype, state=work.state, momentum=work.momentum, threads=work.threads)
    described |= {"bytes": work.bytes}
    skips = [{"contender": name, "reason": reason} for name, reason in skipped.items()]
    return {**described, "results": records, "skipped": skips}


def _ready(work: Workload, settings: Settings, skipped: dict[str, str]) -> Iterator[tuple[str, Contender]]:
    """Yield those who can do the workload, warm, within half of the free memory; say why others cannot."""
    free = gpu.free_memory() if settings.backend == "cuda" else free_memory()
    room, kept, extra = free / 2, 0, 0
    for name in settings.contenders:
        cls = contender(name, settings.backend)
        reason = cls.missing() or cls.unable(work, settings.most_compiled)
        more, once = cls.needs(work)
        if reason is None and (needed := kept + more + max(extra, once)) > room:
            reason = f"{needed / 1e9:.3g} GB with what the others hold is more than half of the free memory"
        if reason is None:
            try:
                made = cls.ready(work)
            except Exception as error:  # of somebody else's code, whatever it is
                if name in (OURS, ROOF) and not isinstance(error, MemoryError):
                    raise
                reason = f"failed: {first_line(error)}"
            else:
                kept, extra = kept + more, max(extra, once)
                yield name, made
                continue
        skipped[name] = reason


def free_memory() -> float:
    """Return how many bytes can be had; without end where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return math.inf
