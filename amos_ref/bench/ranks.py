"""``amos-ref bench --mpi``: steps over MPI ranks beside one process, a model of their time, and what it says of many.

The model: a rank computes for its own entries and for the sums of all ranks, and waits for two messages to all::

    seconds = call + entries * entry + sums * sum + messages * latency + 8 * sums / bandwidth

`entries` and `sums` are those of the layout, and `messages` is ceil(log2(ranks)) to agree and as many again where there
are sums. `call`, `entry`, `sum`, `latency` and `bandwidth` are measured here; for many machines latency and bandwidth
are those of a network that is said.
"""

import importlib.util
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import amos_ref
from amos_ref.bench.report import describe_machine, find_versions
from amos_ref.bench.workloads import count_cores
from amos_ref.dtypes import Shape
from amos_ref.errors import HyperParameterError, MissingDependencyError, RankError
from amos_ref.mpi.layout import Layout
from amos_ref.terminal import complain, counted, print_table

MPI_FORMAT = "amos-ref-bench-mpi-1"
WIDTH = 1000  # of the matrices that are measured
#: Arrays of about n parameters: shape, slot shape and the axis along which they are cut.
CUT_ARRAYS: dict[str, Callable[[int], tuple[Shape, Shape, int]]] = {
    "rows (n, 1)": lambda n: ((n // WIDTH, WIDTH), (n // WIDTH, 1), 0),
    "tensor ()": lambda n: ((n,), (), 0),
    "columns (1, n)": lambda n: ((n // WIDTH, WIDTH), (1, WIDTH), 0),
}
SIZES, QUICK = (100_000, 1_000_000, 10_000_000, 50_000_000), (100_000, 1_000_000)
BYTES = (800, 8_000, 80_000, 800_000, 8_000_000)
NETWORK = 5e-6, 12.5e9  # seconds a message, bytes a second: 100 Gbit/s
RANK_COUNTS = 8, 64, 512, 4096
MOST_SECONDS = 600  # seconds


# models


def decoder(vocabulary: int, positions: int, width: int, layers: int, hidden: int, *, gated: bool) -> dict[str, Shape]:
    """Return the shapes of a language model, inputs first: as GPT-2's, or (gated) as Llama's without biases."""
    shapes: dict[str, Shape] = {"embedding": (vocabulary, width)}
    if gated:
        shapes["head"] = (width, vocabulary)
    else:
        shapes["positions"] = (positions, width)
    for k in range(layers):
        block: dict[str, Shape]
        if gated:
            block = dict.fromkeys(("q", "k", "v", "o"), (width, width))
            block |= {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
            block |= {"norm1": (width,), "norm2": (width,)}
        else:
            block = {"qkv": (width, 3 * width), "o": (width, width), "up": (width, hidden), "down": (hidden, width)}
            block |= {f"{name} bias": shape[1:] for name, shape in list(block.items())}
            block |= {f"norm{i} {part}": (width,) for i in (1, 2) for part in ("gain", "bias")}
        shapes |= {f"{k}/{name}": shape for name, shape in block.items()}
    return shapes | ({"norm": (width,)} if gated else {"norm gain": (width,), "norm bias": (width,)})


MODELS = {
    "GPT-2": lambda: decoder(50257, 1024, 768, 12, 3072, gated=False),
    "7B": lambda: decoder(32000, 0, 4096, 32, 11008, gated=True),
    "1T": lambda: decoder(51200, 2048, 25600, 128, 102400, gated=False),
}
#: How a model's matrices (inputs, outputs) have slots: columns are free to cut; a slot for all is not.
MODEL_SLOTS = {"columns": {".*": lambda name, shape: (1, shape[1]) if len(shape) > 1 else ()}, "tensor": "tensor"}


# the model of a step


def fit(report: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of the model: two are sending's, one is the smallest array's, one the largest array's, and one
    is that of the row whose sums weigh most.
    """
    gather = report["gather"]
    small, large = gather[0], gather[-1]
    bandwidth = (large["bytes"] - small["bytes"]) / max(large["seconds"] - small["seconds"], 1e-9)
    hops = math.ceil(math.log2(report["ranks"]))
    sizes = sorted({row["parameters"] for row in report["steps"]})
    rows = {(row["kind"], row["parameters"]): row for row in report["steps"]}
    own, least = rows["rows (n, 1)", sizes[-1]], rows["rows (n, 1)", sizes[0]]
    columns = max((rows["columns (1, n)", n] for n in sizes), key=lambda row: row["payload"] / row["together"])
    known = {"latency": (report["agree"] + small["seconds"]) / 2 / hops, "bandwidth": bandwidth}
    call = max(least["together"] - least["apart"] - sending(known, report["ranks"], 0), 0.0)
    left = columns["together"] - columns["apart"] - call - sending(known, report["ranks"], columns["payload"])
    return {
        **known,
        "call": call,
        "entry": own["apart"] * report["ranks"] / own["parameters"],
        "sum": 8 * max(left, 0.0) / columns["payload"],
    }


def sending(known: dict[str, float], ranks: int, payload: int) -> float:
    """Return the seconds that agreeing and gathering take; nothing is gathered where nothing is to be sent."""
    messages = math.ceil(math.log2(ranks)) * (2 if payload else 1)
    return messages * known["latency"] + payload / known["bandwidth"]


def predict(known: dict[str, float], ranks: int, computing: float, payload: int) -> float:
    """Return the seconds of a step, of which a rank computes so many for its own entries."""
    return known["call"] + computing + known["sum"] * payload / 8 + sending(known, ranks, payload)


def scale(known: dict[str, float], network: tuple[float, float], counts: Any = RANK_COUNTS) -> list[dict[str, Any]]:
    """Return a row for each model, kind of slots and number of ranks."""
    rows, there = [], {**known, "latency": network[0], "bandwidth": network[1]}
    for model, shapes_of in MODELS.items():
        shapes = shapes_of()
        for slots, rule in MODEL_SLOTS.items():
            opt = amos_ref.Amos(eta=0.5, slot_shape=rule)
            for ranks in counts:
                complain(f"{model}, slots {slots}, {counted(ranks, 'rank')}")
                shares = Layout.even(shapes, ranks, opt).bytes(opt, "float32")
                most, payload = max(share.parameters for share in shares), sum(share.payload for share in shares)
                computing = known["entry"] * most / 4
                times = {
                    "call": known["call"],
                    "computing": computing,
                    "sums": known["sum"] * payload / 8,
                    "latency": sending(there, ranks, payload) - payload / network[1],
                    "bandwidth": payload / network[1],
                }
                rows.append(
                    {
                        "model": model,
                        "slots": slots,
                        "ranks": ranks,
                        "parameters": most,
                        "state": max(share.state for share in shares),
                        "payload": payload,
                        "seconds": predict(there, ranks, computing, payload),
                        "bound": max(times, key=lambda name: times[name]),
                    }
                )
    return rows


# measuring


def measure(*, quick: bool = False, seconds: float | None = None, network: tuple[float, float] = NETWORK) -> Any:
    """Return a report of steps here, of the model, and of what it says of many ranks.

    Raises
    ------
    MissingDependencyError
        If there is no MPI.
    RankError
        If a rank fails.
    """
    ranks = max(count_cores(), 2)
    settings = {
        "sizes": QUICK if quick else SIZES,
        "bytes": BYTES,
        "seconds": seconds if seconds is not None else 0.3 if quick else 2.0,
        "threads": (ranks, 1),
    }
    complain(f"{counted(ranks, 'rank')} with a thread each, beside one process with {counted(ranks, 'thread')}")
    report = {"format": MPI_FORMAT, "machine": describe_machine("cpu"), "versions": find_versions(), "ranks": ranks}
    report |= run_ranks(ranks, settings)
    known = fit(report)
    for row in report["steps"]:
        row["predicted"] = predict(known, ranks, row["apart"], row["payload"])
    return report | {"model": known, "network": network, "scale": scale(known, network)}


def run_ranks(ranks: int, settings: dict[str, Any]) -> Any:
    """Return what rank 0 prints."""
    places = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = shutil.which("mpiexec", path=places)
    if command is None or importlib.util.find_spec("mpi4py") is None:
        what = "mpi4py" if command else "mpiexec"
        raise MissingDependencyError(f"bench --mpi needs MPI, and there is no {what}: pip install mpi4py mpich")
    home = str(pathlib.Path(amos_ref.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    here = [sys.executable, "-m", "mpi4py", "-m", "amos_ref.bench.one_rank", json.dumps(settings)]
    try:
        done = subprocess.run(
            [command, "-n", str(ranks), *here],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise RankError(f"the ranks did not end within {MOST_SECONDS} s") from None
    if done.returncode:
        last = next((line for line in done.stderr.splitlines()[::-1] if "Error" in line), "nothing")
        raise RankError(f"a rank failed: it says {last!r:.300}")
    return json.loads(done.stdout)


# the command


def parse_network(text: str | None) -> tuple[float, float]:
    """Return seconds a message and bytes a second from ``"5e-6,12.5e9"``."""
    try:
        latency, bandwidth = map(float, (text or ",".join(map(str, NETWORK))).split(","))
    except ValueError:
        latency = bandwidth = math.nan
    if not (0 <= latency < math.inf and 0 < bandwidth < math.inf):
        raise HyperParameterError(f"--network is {text!r:.60}; it must be SECONDS,BYTES: a message, and in a second")
    return latency, bandwidth


def show(report: dict[str, Any]) -> None:
    """Print a report."""
    ranks, known = report["ranks"], report["model"]
    print(f"{report['machine']['cpu']}, {counted(ranks, 'rank')} with a thread each; milliseconds, medians of turns")
    print("one: one process; silent: ranks that send nothing")
    print_table(
        ("size", "slots", "one", "ranks", "ratio", "silent", "model", "payload", "turns"),
        [
            (
                f"{row['parameters']:.0e}",
                row["kind"],
                *(f"{1e3 * row[name]:.3g}" for name in ("alone", "together")),
                f"{row['ratio']:.2f}",
                *(f"{1e3 * row[name]:.3g}" for name in ("apart", "predicted")),
                format_bytes(row["payload"]),
                str(row["turns"]),
            )
            for row in report["steps"]
        ],
        left=("slots",),
    )
    print()
    rows = [("agree", f"{1e6 * report['agree']:.3g}")]
    rows += [(f"gather {format_bytes(each['bytes'])}", f"{1e6 * each['seconds']:.3g}") for each in report["gather"]]
    print_table(("message", "us"), rows)
    print()
    print(
        f"model: {1e6 * known['call']:.3g} us a step, {1e9 * known['entry']:.3g} ns a parameter of a rank,\n"
        f"       {1e9 * known['sum']:.3g} ns a sum, {1e6 * known['latency']:.3g} us a message, "
        f"{1e-9 * known['bandwidth']:.3g} GB/s"
    )
    latency, bandwidth = report["network"]
    print()
    print(
        f"many ranks, a network with {1e6 * latency:.3g} us a message and {1e-9 * bandwidth:.3g} GB/s;\n"
        "what a rank has at most, and what all receive in a step"
    )
    print_table(
        ("model", "slots", "ranks", "parameters", "state", "payload", "ms a step", "bound by"),
        [
            (
                row["model"],
                row["slots"],
                str(row["ranks"]),
                *(format_bytes(row[name]) for name in ("parameters", "state", "payload")),
                f"{1e3 * row['seconds']:.3g}",
                row["bound"],
            )
            for row in report["scale"]
        ],
        left=("slots", "bound by"),
    )


def format_bytes(n: float) -> str:
    """Return bytes with three digits and a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5 or unit == "GB":
            break
        n /= 1000
    return f"{n:.3g} {unit}"
