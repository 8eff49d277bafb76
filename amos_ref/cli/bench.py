"""The command ``amos-ref bench``: how fast the kernels are here, beside the roof and beside other optimizers."""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from amos_ref import plots
from amos_ref.bench import contenders, gpu, show, workloads
from amos_ref.cli.status import INTERRUPTED, OK
from amos_ref.errors import AmosError, HyperParameterError, StorageError

# To be set before torch and JAX are imported: how many milliseconds threads of LLVM's OpenMP spin, as long as GNU's do
# (peers.SPIN), and no search for accelerators; or not three quarters of the GPU's memory at once.
_ENVIRONMENT = {
    "cpu": {"KMP_BLOCKTIME": "10", "JAX_PLATFORMS": "cpu"},
    "cuda": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}

_SELECTION = ("sizes", "trees", "slots", "dtypes", "threads", "momentum", "state")
_HOW = ("quick", "peers", "seconds", "rounds")
_ONLY_CPU = {  # what has no meaning with backend cuda -> why
    "threads": "the host's threads take no part in a step",
    "start": "its kernels are not kept on disk, and each process compiles them",
}


def add_to(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    bench = commands.add_parser(
        "bench",
        help="measure the kernels here, beside the memory's roof and other optimizers",
        description="Time a step of the kernels, of the roof (the bytes that a step must move, nothing else) and every "
        "peer that is installed, in turns; without a selection a plan of sizes, slots, dtypes, threads and trees, with "
        "one every combination of what is selected. A LIST has commas between its entries.",
    )
    bench.add_argument("--quick", action="store_true", help="a shorter plan, under a minute")
    large = " or ".join(workloads.LARGE.values())
    bench.add_argument("--sizes", metavar="LIST", help=f"parameters of one array, as 1e3,1e6 (default {large})")
    bench.add_argument(
        "--trees", metavar="LIST", help=f"{', '.join(workloads.BERTS)}, or 1000x64 for 1,000 arrays of 64"
    )
    bench.add_argument("--slots", metavar="LIST", help=f"{', '.join(workloads.SLOTS)} (default tensor)")
    bench.add_argument("--dtypes", metavar="LIST", help=f"{', '.join(workloads.FLOATS)} (default float32)")
    bench.add_argument("--threads", metavar="LIST", help="numbers of threads (default all cores)")
    bench.add_argument("--momentum", action="store_true", help=f"with momentum {workloads.MOMENTUM}")
    bench.add_argument("--state", choices=workloads.STATES, help="dtype of v, b and m (default param, as the peers')")
    names = "; ".join(f"backend {name}: {', '.join(contenders.peers(name))}" for name in contenders.CONTENDERS)
    bench.add_argument("--peers", metavar="LIST", help=f"none, or of {names} (default all)")
    bench.add_argument(
        "--backend", choices=list(contenders.CONTENDERS), default="cpu", help="whose kernels (default cpu)"
    )
    bench.add_argument("--seconds", type=float, metavar="S", help="for each workload (default 6; 0.6 with --quick)")
    bench.add_argument("--rounds", type=int, metavar="N", help="at most for each workload (default 200)")
    bench.add_argument("--start", action="store_true", help="instead: how long import and the first step take")
    bench.add_argument("--from", dest="path", metavar="FILE", help="instead: show what --json printed before")
    bench.add_argument("--json", action="store_true", help="print as JSON")
    bench.add_argument("--plot", metavar="FILE", help=f"draw the figures; FILE ends in .{', .'.join(plots.FORMATS)}")
    bench.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Measure, print, draw; return 0, or 130 if it was interrupted."""
    _check_alone(args)
    with plots.picture(args.plot, 13.0, 8.0) as figure, _readable(args.path):
        report = _measured(args) if args.path is None else _stored(args.path)
        if args.json:
            print(json.dumps(report, indent=1))
        elif args.path is not None:
            show.everything(report)
        if figure is not None:
            one, other = figure.subplots(1, 2)
            plots.speeds(report, one)
            plots.over_roof(report, other)
        return INTERRUPTED if report["interrupted"] else OK


# what is asked for


def _list(text: str | None, default: str = "") -> list[str]:
    return [part.strip() for part in (default if text is None else text).split(",") if part.strip()]


def _check_alone(args: argparse.Namespace) -> None:
    """Refuse options that --start and --from would ignore."""
    given = [name for name in (*_SELECTION, *_HOW) if getattr(args, name) not in (None, False)]
    for what, others in (("start", ["plot", "path"]), ("path", ["start"])):
        clash = [*given, *(name for name in others if getattr(args, name))]
        if getattr(args, what) and clash:
            first, second = ("from" if name == "path" else name for name in (what, clash[0]))
            raise HyperParameterError(f"--{first} goes without --{second}")
    for name, reason in _ONLY_CPU.items() if args.backend == "cuda" else ():
        if getattr(args, name) not in (None, False):
            raise HyperParameterError(f"--backend cuda goes without --{name}: {reason}")


def _workloads(args: argparse.Namespace) -> list[workloads.Workload]:
    """Return every combination of what is selected; nothing where nothing is."""
    if all(getattr(args, name) in (None, False) for name in _SELECTION):
        return []
    found = workloads.selected(
        sizes=_list(args.sizes, workloads.LARGE[args.backend] if args.trees is None else ""),
        trees=_list(args.trees),
        slots=_list(args.slots, "tensor"),
        dtypes=_list(args.dtypes, "float32"),
        threads=_list(args.threads, str(workloads.cores())),
        momentum=args.momentum,
        state=args.state or "param",
    )
    if not found:
        raise HyperParameterError("nothing is selected: a list is empty")
    return [replace(work, threads=0) for work in found] if args.backend == "cuda" else found


def _settings(args: argparse.Namespace) -> Any:
    from amos_ref.bench.measure import Settings

    seconds = args.seconds if args.seconds is not None else 0.6 if args.quick else 6.0
    rounds = 200 if args.rounds is None else args.rounds
    if not 0 < seconds < float("inf"):
        raise HyperParameterError(f"--seconds is {seconds}; it must be a finite number > 0")
    if rounds < 1:
        raise HyperParameterError(f"--rounds is {rounds}; it must be 1 or more")
    least, compiled = (3, 250) if args.quick else (5, 10_000)
    least = 20 if args.backend == "cuda" else least
    return Settings(_peers(args), args.backend, seconds, min(least, rounds), rounds, compiled)


def _peers(args: argparse.Namespace) -> tuple[str, ...]:
    known = contenders.peers(args.backend)
    chosen = [] if args.peers == "none" else _list(args.peers, ",".join(known))
    for name in chosen:
        if name not in known:
            raise HyperParameterError(f"there is no peer {name!r}; the peers are {', '.join(known)}, or none")
    return tuple(dict.fromkeys(chosen))


# measuring


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, with a line for each workload on standard error and its table as soon as it is there."""
    from amos_ref.bench import start
    from amos_ref.bench.measure import measured

    works, settings = _workloads(args), _settings(args)
    planned = not works and not args.start
    if planned:
        works = _plan(args.quick, args.backend)
    if args.backend == "cuda":
        gpu.check()
    report = _head(settings)
    if not args.json:
        show.head(report)
    try:
        for i, work in enumerate(works, 1):
            print(f"{i} of {len(works)}: {work}", file=sys.stderr)
            report["workloads"].append(measured(work, settings))
            if not args.json:
                show.workload(report["workloads"][-1])
        if args.start or (planned and not args.quick and args.backend == "cpu"):
            print("starting in fresh processes", file=sys.stderr)
            report["start"] = start.measured(args.backend)
            if not args.json:
                show.start(report["start"])
    except KeyboardInterrupt:
        report["interrupted"] = True
    return report


def _plan(quick: bool, backend: str) -> list[workloads.Workload]:
    """Return the plan, without bfloat16 where there is none."""
    plan = workloads.plan(quick, backend)
    if importlib.util.find_spec("ml_dtypes") is not None:
        return plan
    print("bfloat16 is left out, as ml_dtypes is not installed: pip install 'amos_ref[bf16]'", file=sys.stderr)
    return [work for work in plan if work.dtype != "bfloat16"]


def _head(settings: Any) -> dict[str, Any]:
    """Return a report in which nothing is measured yet."""
    from amos_ref.bench.machine import machine

    for name, value in _ENVIRONMENT[settings.backend].items():
        os.environ.setdefault(name, value)
    report = {"format": show.FORMAT, "machine": machine(settings.backend), "versions": contenders.versions()}
    report |= {"settings": settings._asdict(), "interrupted": False}
    report |= {"contenders": contenders.described(settings.contenders, settings.backend)}
    return {**report, "workloads": [], "start": None}


def _stored(path: str) -> dict[str, Any]:
    """Return what --json printed."""
    with open(path, encoding="utf-8") as file:
        report = json.load(file)
    if not isinstance(report, dict) or report.get("format") != show.FORMAT:
        raise StorageError(f"cannot read {path!r}: it is not what amos-ref bench --json prints ({show.FORMAT})")
    return report


@contextlib.contextmanager
def _readable(path: str | None) -> Iterator[None]:
    """Say of a stored report that it is to blame for what goes wrong with it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if path is None or isinstance(error, AmosError):
            raise
        raise StorageError(f"cannot read {path!r}: {type(error).__name__}: {error}") from error
