"""One rank of ``amos-ref bench --mpi``: steps over ranks beside one process, in turns, and what sending takes.

It is run as ``python -m mpi4py -m amos_ref.bench.one_rank SETTINGS``, with settings in JSON; rank 0 prints a report.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import amos_ref
from amos_ref.bench.ranks import CUT_ARRAYS
from amos_ref.kernels.cpu.threads import limit_threads
from amos_ref.kernels.shared import Piece
from amos_ref.mpi import Layout, Sharded
from amos_ref.mpi.cutting import edges_of, spread_units, way_along
from amos_ref.mpi.ranks import Ranks

REST_FOR = 1e-3  # seconds between two looks of a rank that must leave its core to the others
MOST_TURNS = 400


class Steps(NamedTuple):
    """Steps of one kind, each called by all ranks."""

    alone: Callable[[], None]  # of the whole array, on rank 0
    apart: Callable[[], None]  # each rank its part, as if that were an array of its own
    together: Callable[[], None]


def rest(comm: Any) -> None:
    """Wait for the others without using a core."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(REST_FOR)


def time_call(comm: Any, call: Callable[[], None]) -> float:
    """Return the seconds that the slowest rank takes."""
    rest(comm)
    comm.Barrier()
    start = time.perf_counter()
    call()
    took = time.perf_counter() - start
    rest(comm)
    return max(comm.allgather(took))


def time_sending(comm: Any, ranks: Ranks, settings: Any) -> tuple[float, list[dict[str, Any]]]:
    """Return the median seconds of agreeing, and of gathering so many bytes from all ranks together."""
    four = np.zeros(4, np.int64)
    agree = _median(comm, lambda: ranks.least(four), 1000)
    found = []
    for size in settings["bytes"]:
        each = max(size // 8 // comm.size, 1)
        sent, received, counts = np.zeros(each), np.zeros(each * comm.size), np.full(comm.size, each)
        turns = max(5, min(1000, 10**8 // size))
        gathered = _median(comm, lambda s=sent, r=received, c=counts: ranks.gather(s, r, c), turns)
        found.append({"bytes": received.nbytes, "seconds": gathered})
    return agree, found


def _median(comm: Any, call: Callable[[], Any], turns: int) -> float:
    found = []
    for _ in range(turns):
        comm.Barrier()
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(max(each) for each in zip(*comm.allgather(found), strict=True))


def make_steps(comm: Any, kind: str, size: int, threads: tuple[int, int]) -> tuple[Steps, dict[str, Any]]:
    """Return the steps of an array of about so many parameters, and what is said of it."""
    shape, slot, axis = CUT_ARRAYS[kind](size)
    opt, own = (amos_ref.Amos(0.01, eta=0.5, slot_shape=lambda name, shape: slot, backend="cpu") for _ in range(2))
    way = way_along(Piece(shape, slot, axis, (0, shape[axis])))
    edges = edges_of(way, spread_units(way, np.zeros(comm.size, np.int64)), shape)
    layout = Layout({"w": shape}, {"w": (axis, edges)})
    sharded = Sharded(opt, layout, comm)
    here = {"w": np.full(layout.shape("w", comm.rank) or (), 0.5, np.float32)}
    mine = {"w": np.full(here["w"].shape, 0.01, np.float32)}
    piece = layout.piece("w", comm.rank, slot)
    as_array = amos_ref.Amos(0.01, eta=0.5, slot_shape=lambda name, shape: piece.slot_here if piece else slot)
    whole = {"w": np.full(shape, 0.5, np.float32)} if comm.rank == 0 else {}
    grads = {"w": np.full(shape, 0.01, np.float32)} if comm.rank == 0 else {}
    states: list[Any] = [own.init(whole) if comm.rank == 0 else None, as_array.init(here), sharded.init(here)]
    most, each = threads

    def alone() -> None:
        if comm.rank == 0:
            with limit_threads(most):
                states[0] = own.step(whole, grads, states[0])

    def apart() -> None:
        with limit_threads(each):
            states[1] = as_array.step(here, mine, states[1])

    def together() -> None:
        with limit_threads(each):
            states[2] = sharded.step(here, mine, states[2])

    payload = sum(share.payload for share in layout.bytes(opt))
    about = {"kind": kind, "shape": shape, "slot": slot, "parameters": int(np.prod(shape)), "payload": payload}
    return Steps(alone, apart, together), about


def time_steps(comm: Any, steps: Steps, seconds: float) -> dict[str, Any]:
    """Return the medians of steps taken in turns, and of the ratio of one turn."""
    for call in steps:
        time_call(comm, call)  # compiles
    found: list[list[float]] = []
    end = time.monotonic() + seconds
    while comm.bcast(len(found) < 5 or (time.monotonic() < end and len(found) < MOST_TURNS)):
        found.append([time_call(comm, call) for call in steps])
    columns = dict(zip(steps._fields, map(statistics.median, zip(*found, strict=True)), strict=True))
    ratio = statistics.median(together / alone for alone, _, together in found)
    return {**columns, "ratio": ratio, "turns": len(found)}


def main() -> None:
    """Measure, and print on rank 0."""
    from mpi4py import MPI

    comm, settings = MPI.COMM_WORLD, json.loads(sys.argv[1])
    agree, gather = time_sending(comm, Ranks(comm), settings)
    rows = []
    for size in settings["sizes"]:
        for kind in CUT_ARRAYS:
            steps, about = make_steps(comm, kind, size, tuple(settings["threads"]))
            rows.append(about | time_steps(comm, steps, settings["seconds"]))
    if comm.rank == 0:
        print(json.dumps({"agree": agree, "gather": gather, "steps": rows}))


if __name__ == "__main__":
    main()
