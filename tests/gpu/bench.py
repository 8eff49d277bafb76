"""Time steps on a GPU in turns beside a copy of as many bytes and torch's fused AdamW; tests/gpu/run.py runs it.

    python tests/gpu/bench.py REPORT.json [SECONDS | wait]

With "wait" it compiles what it is going to time, then reads on its input for how many seconds it may time.

Every timing is a median over turns, in milliseconds, with the 5 % and 95 % quantiles: "copy" moves the bytes of a step
on the device; "graph" is a replay of a recorded step; "bound" is `bound()`, "eager" `opt.step`, both with sync=False;
"adamw graph" and "adamw called" are torch's. "host" is how long the host is at a call, in microseconds. The report is
written after every workload, so that what was measured is there when time runs out.
"""

import contextlib
import functools
import gc
import json
import pathlib
import sys
import time
import traceback
from dataclasses import replace

import numpy as np

from amos_ref.bench import cpu, gpu, torch_peers, workloads
from amos_ref.bench.cuda import AmosBound, AmosReplay, AmosStep, DeviceCopy
from amos_ref.bench.report import find_versions
from amos_ref.bench.timing import Rotation, Stepper, StreamClock, count_copies
from amos_ref.bench.workloads import Workload, parse_tree

TURNS = 31
MOST = 8  # copies
BIG = 10**7  # parameters from which a turn has few steps


def one(name, size, slot="tensor", dtype="float32", momentum=False, direction=None):
    return Workload(name, (size,), slot=slot, dtype=dtype, threads=0, momentum=momentum, direction=direction)


def many(name, slot="tensor", direction=None):
    return replace(parse_tree(name), slot=slot, threads=0, direction=direction)


M134, M67 = (8192, 16384), (8192, 8192)
# The most wanted first: the time may run out.
WORKLOADS = [
    *(one("134M", M134, slot) for slot in ("tensor", "row", "column")),
    *(many("bert-base"), many("bert-base", "column"), many("1000x64"), many("200x4096"), one("67M", M67, "element")),
    *(one("134M", M134, "tensor", dtype) for dtype in ("bfloat16", "float16")),
    *(one("67M", M67, slot, momentum=True) for slot in ("tensor", "element")),
    *(one("67M", M67, "element", dtype) for dtype in ("bfloat16", "float16")),
    *(one("134M", M134, slot, direction=way) for way in ("gradient", "adam") for slot in ("tensor", "column")),
    *(one("67M", M67, "element", direction=way) for way in ("gradient", "sign", "adam")),
    *(many("1000x64", direction=way) for way in ("gradient", "adam")),
]


class Calls(Stepper):
    """Something that is called in a stream, once a step."""

    def __init__(self, stream, launch):
        self.stream, self.launch = stream, launch


def fused(work, count):
    """Steps of torch's fused AdamW, recorded and called; nothing where it has no such slots, or torch is missing."""
    if work.slot not in ("tensor", "element") or work.direction is not None:
        return {}
    with contextlib.suppress(ImportError):
        theirs = [torch_peers._replay(work, torch_peers._make_adamw, fused=True) for _ in range(count)]
        return {"adamw graph": theirs, "adamw called": [Calls(a.stream, a.optimizer.step) for a in theirs]}
    return {}


def host_time(launch, wait):
    """How long the host is at a call, in microseconds, while the device keeps up."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        launch()
        times.append(time.perf_counter() - start)
        wait()
    return round(1e6 * float(np.median(times)), 2)


def copies(work):
    """How many copies take turns: some that leave the L2 cache together, or two where those would be too many."""
    l2 = gpu.read_l2_bytes()
    count = min(count_copies(work.array_bytes, l2), MOST)
    return count if count * work.array_bytes > l2 else 2


def compile_all():
    """Take two steps of every workload, for what they compile."""
    for work in WORKLOADS:
        with contextlib.suppress(Exception):  # `measure` tells
            AmosStep(work).run()
        gc.collect()


def measure(work):
    """One row of the report."""
    count = copies(work)
    own = {"copy": DeviceCopy, "graph": AmosReplay, "bound": AmosBound, "eager": AmosStep}
    kinds = {kind: [make(work) for _ in range(count)] for kind, make in own.items()} | fused(work, count)
    rotations = {kind: Rotation(steppers, StreamClock()) for kind, steppers in kinds.items()}
    calls = 3 if work.parameters > BIG else 10
    times = {kind: [] for kind in kinds}
    for _ in range(TURNS):
        for kind, rotation in rotations.items():
            times[kind].append(1e3 * rotation.time_steps(calls))
    found = {kind: [round(float(x), 5) for x in np.percentile(all_[1:], [50, 5, 95])] for kind, all_ in times.items()}
    host = {kind: host_time(kinds[kind][0].launch, kinds[kind][0].wait) for kind in kinds if kind != "copy"}
    facts = dict(workload=str(work), arrays=len(work.shapes), parameters=work.parameters, bytes=work.bytes)
    return dict(**facts, copies=count, ms=found, host_us=host)


def main(path, seconds="100"):
    # All steppers on a device copy the same arrays there: they are made once.
    cpu.draw_arrays = torch_peers.draw_arrays = functools.lru_cache(1)(workloads.draw_arrays)
    if seconds == "wait":
        compile_all()
        seconds = sys.stdin.readline()
    started, report = time.time(), dict(device=gpu.describe(), versions=find_versions(), rows=[], left_out=[])
    for work in WORKLOADS:
        if time.time() - started > float(seconds):
            report["left_out"].append(str(work))
        else:
            try:
                report["rows"].append(measure(work))
                ms = report["rows"][-1]["ms"]
                line = "  ".join(f"{kind} {times[0]:.4f}" for kind, times in ms.items())
                print(f"{work!s:62} {line}  graph/copy {ms['graph'][0] / ms['copy'][0]:.3f}", flush=True)
                print(f"{'':62} host us: {report['rows'][-1]['host_us']}", flush=True)
            except Exception as error:
                traceback.print_exc(limit=-4)
                report["left_out"].append(f"{work}: {type(error).__name__}: {error}"[:200])
            gc.collect()
        pathlib.Path(path).write_text(json.dumps(report, indent=1) + "\n")
    failed = [name for name in report["left_out"] if "Error" in name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
