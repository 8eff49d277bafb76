"""The command ``amos-ref bench``: it measures, or reads a stored report, and prints tables or JSON or draws."""

import argparse
import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from amos_ref import plots
from amos_ref.bench import contenders, gpu, verdict, workloads
from amos_ref.cli.status import INTERRUPTED, OK
from amos_ref.errors import AmosError, HyperParameterError, StorageError, escape
from amos_ref.storage.files import read_file
from amos_ref.terminal import complain, print_table

_SELECTION = ("sizes", "trees", "slots", "dtypes", "threads", "momentum", "state", "directions")
_HOW = ("algorithm", "quick", "peers", "seconds", "rounds")
_ONLY_PAPER = {  # options that have no meaning with the closed form, and why
    "momentum": "it has none but Adam's direction",
    "state": "its state is float64",
}
_ONLY_CPU = {  # options that have no meaning with backend cuda, and why
    "threads": "the host's threads take no part in a step",
    "start": "its kernels are not kept on disk, and each process compiles them",
}


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    bench = commands.add_parser(
        "bench",
        help=summary,
        description="Time a step of the kernels, of the roof (the bytes that a step must move, nothing else) and every "
        "peer that is installed, in turns; without a selection a plan of sizes, slots, dtypes, threads and trees, with "
        "one every combination of what is selected. A LIST has commas between its entries.",
    )
    bench.add_argument("--algorithm", choices=workloads.BENCH_ALGORITHMS, help="whose steps (default paper)")
    bench.add_argument("--quick", action="store_true", help="a shorter plan, under a minute")
    large = " or ".join(workloads.LARGE.values())
    bench.add_argument("--sizes", metavar="LIST", help=f"parameters of one array, as 1e3,1e6 (default {large})")
    bench.add_argument(
        "--trees", metavar="LIST", help=f"{', '.join(workloads.BERTS)}, or 1000x64 for 1,000 arrays of 64"
    )
    bench.add_argument("--slots", metavar="LIST", help=f"{', '.join(workloads.SLOT_NAMES)} (default tensor)")
    bench.add_argument("--dtypes", metavar="LIST", help=f"{', '.join(workloads.FLOATS)} (default float32)")
    bench.add_argument("--threads", metavar="LIST", help="numbers of threads (default all cores)")
    bench.add_argument("--momentum", action="store_true", help=f"with momentum {workloads.MOMENTUM}")
    bench.add_argument("--state", choices=workloads.STATES, help="dtype of v, b and m (default param, as the peers')")
    bench.add_argument(
        "--directions",
        metavar="LIST",
        help=f"of the closed form: {', '.join(workloads.BENCH_DIRECTIONS)} (default both)",
    )
    peers = {
        b: [name for name in c if name not in (contenders.OURS, contenders.ROOF)]
        for b, c in contenders.CONTENDERS.items()
    }
    names = "; ".join(f"backend {name}: {', '.join(known)}" for name, known in peers.items())
    bench.add_argument("--peers", metavar="LIST", help=f"none, or of {names} (default all)")
    bench.add_argument(
        "--backend", choices=list(contenders.CONTENDERS), default="cpu", help="whose kernels (default cpu)"
    )
    bench.add_argument("--seconds", type=float, metavar="S", help="for each workload (default 6; 0.6 with --quick)")
    bench.add_argument("--rounds", type=int, metavar="N", help="at most for each workload (default 200)")
    bench.add_argument("--start", action="store_true", help="instead: how long import and the first step take")
    bench.add_argument("--mpi", action="store_true", help="instead: steps over MPI ranks beside one process")
    bench.add_argument("--network", metavar="S,B", help="of --mpi: seconds a message, bytes a second (5e-6,12.5e9)")
    bench.add_argument("--from", dest="path", metavar="FILE", help="instead: show what --json printed before")
    bench.add_argument("--json", action="store_true", help="print as JSON")
    bench.add_argument("--plot", metavar="FILE", help=f"draw the figures; FILE ends in {', '.join(plots.ENDINGS)}")
    bench.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Measure, print, draw; return 0, or 130 if it was interrupted."""
    _check_alone(args)
    if args.mpi:
        return _compare_ranks(args)
    with plots.picture(args.plot, 13.0, 8.0) as figure, _name_file(args.path):
        report = _measure(args) if args.path is None else _load(args.path)
        if args.json:
            print(json.dumps(report, indent=1))
        elif args.path is not None:
            _print_report(report)
        if figure is not None:
            one, other = figure.subplots(1, 2)
            plots.speeds(report, one)
            plots.over_roof(report, other)
        return INTERRUPTED if report["interrupted"] else OK


def _compare_ranks(args: argparse.Namespace) -> int:
    """Do what --mpi says."""
    from amos_ref.bench import ranks

    network = ranks.parse_network(args.network)
    _check_seconds(args.seconds)
    report = ranks.measure(quick=args.quick, seconds=args.seconds, network=network)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        ranks.show(report)
    return OK


# options


def _split(text: str | None, default: str = "") -> list[str]:
    return [part.strip() for part in (default if text is None else text).split(",") if part.strip()]


def _check_alone(args: argparse.Namespace) -> None:
    """Refuse options that --start and --from would ignore."""
    given = [name for name in (*_SELECTION, *_HOW) if getattr(args, name) not in (None, False)]
    for what, others in (("start", ["plot", "path"]), ("path", ["start"])):
        clash = [*given, *(name for name in others if getattr(args, name))]
        if getattr(args, what) and clash:
            first, second = ("from" if name == "path" else name for name in (what, clash[0]))
            raise HyperParameterError(f"--{first} goes without --{second}")
    if args.network is not None and not args.mpi:
        raise HyperParameterError("--network goes with --mpi")
    given = [name for name in given if name not in ("quick", "seconds")]
    clash = [*given, *(name for name in ("start", "plot", "path") if getattr(args, name))]
    clash += ["backend"] * (args.backend != "cpu")
    if args.mpi and clash:
        raise HyperParameterError(f"--mpi goes without --{'from' if clash[0] == 'path' else clash[0]}")
    is_closed_form = args.algorithm == "closed-form"
    if args.directions is not None and not is_closed_form:
        raise HyperParameterError("--directions goes with --algorithm closed-form")
    refused = (
        ("backend cuda", _ONLY_CPU, args.backend == "cuda"),
        ("algorithm closed-form", _ONLY_PAPER, is_closed_form),
    )
    for what, options, applies in refused:
        for name, reason in options.items() if applies else ():
            if getattr(args, name) not in (None, False):
                raise HyperParameterError(f"--{what} goes without --{name}: {reason}")


def _select_workloads(args: argparse.Namespace) -> list[workloads.Workload]:
    """Return every combination of what is selected; an empty list if no option selects anything."""
    if all(getattr(args, name) in (None, False) for name in _SELECTION):
        return []
    works = workloads.select(
        sizes=_split(args.sizes, workloads.LARGE[args.backend] if args.trees is None else ""),
        trees=_split(args.trees),
        slots=_split(args.slots, "tensor"),
        dtypes=_split(args.dtypes, "float32"),
        threads=_split(args.threads, str(workloads.count_threads())),
        momentum=args.momentum,
        state=args.state or "param",
    )
    if args.algorithm == "closed-form":
        works = [work.as_closed_form(direction) for work in works for direction in _select_directions(args)]
    if not works:
        raise HyperParameterError("nothing is selected: a list is empty")
    return [replace(work, threads=0) for work in works] if args.backend == "cuda" else works


def _select_directions(args: argparse.Namespace) -> list[str]:
    chosen = _split(args.directions, ",".join(workloads.BENCH_DIRECTIONS))
    for name in chosen:
        if name not in workloads.BENCH_DIRECTIONS:
            known = ", ".join(workloads.BENCH_DIRECTIONS)
            raise HyperParameterError(f"direction is {name!r}; it must be one of {known}")
    return chosen


def _make_settings(args: argparse.Namespace) -> Any:
    from amos_ref.bench.measure import Settings

    seconds = args.seconds if args.seconds is not None else 0.6 if args.quick else 6.0
    rounds = 200 if args.rounds is None else args.rounds
    _check_seconds(args.seconds)
    if rounds < 1:
        raise HyperParameterError(f"--rounds is {rounds}; it must be 1 or more")
    least, compiled = (3, 250) if args.quick else (5, 10_000)
    least = 20 if args.backend == "cuda" else least
    peers, algorithm = _select_peers(args), args.algorithm or "paper"
    return Settings(peers, args.backend, seconds, min(least, rounds), rounds, compiled, algorithm=algorithm)


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise HyperParameterError(f"--seconds is {seconds}; it must be a finite number > 0")


def _select_peers(args: argparse.Namespace) -> tuple[str, ...]:
    known = contenders.list_peers(args.backend, args.algorithm or "paper")
    chosen = [] if args.peers == "none" else _split(args.peers, ",".join(known))
    for name in chosen:
        if name not in known:
            raise HyperParameterError(f"there is no peer {name!r}; the peers are {', '.join(known)}, or none")
    return tuple(dict.fromkeys(chosen))


# measuring


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the report; print progress on standard error and, without --json, each table as soon as it is measured."""
    from amos_ref.bench.measure import measure_workload
    from amos_ref.bench.report import begin_report
    from amos_ref.bench.start import measure_start

    works, settings = _select_workloads(args), _make_settings(args)
    planned = not works and not args.start
    if planned:
        works = workloads.plan(args.quick, args.backend, settings.algorithm)
    if args.backend == "cuda":
        gpu.check()
    report = begin_report(settings)
    if not args.json:
        _print_head(report)
    try:
        for i, work in enumerate(works, 1):
            complain(f"{i} of {len(works)}: {work}")
            report["workloads"].append(measure_workload(work, settings))
            if not args.json:
                _print_workload(report["workloads"][-1])
        has_start = planned and settings.algorithm == "paper" and args.backend == "cpu" and not args.quick
        if args.start or has_start:
            complain("starting in fresh processes")
            report["start"] = measure_start(args.backend)
            if not args.json:
                _print_start(report["start"])
    except KeyboardInterrupt:
        report["interrupted"] = True
    if not args.json:
        _print_verdict(report)
    return report


def _load(path: str) -> dict[str, Any]:
    """Return a report that --json printed."""
    from amos_ref.bench.report import BENCH_FORMAT

    report = _escape_texts(json.loads(read_file(path)))
    if not isinstance(report, dict) or report.get("format") != BENCH_FORMAT:
        raise StorageError(f"cannot read {path!r}: it is not what amos-ref bench --json prints ({BENCH_FORMAT})")
    return report


def _escape_texts(value: Any) -> Any:
    """Return what JSON holds with every text in it escaped."""
    if isinstance(value, dict):
        return {escape(key): _escape_texts(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_escape_texts(entry) for entry in value]
    return escape(value) if isinstance(value, str) else value


@contextlib.contextmanager
def _name_file(path: str | None) -> Iterator[None]:
    """Turn what goes wrong with a stored report into an error that names its file."""
    try:
        yield
    except Exception as error:
        if path is None or isinstance(error, AmosError | OSError):
            raise
        raise StorageError(f"cannot read {path!r}: {type(error).__name__}: {error}") from error


# tables

_COLUMNS = ("", "ns/parameter", "quartiles", "GB/s", "x roof", "x ours", "rounds", "extra MB")
_ON_DEVICE = ("", "us/step", *_COLUMNS[1:-1], "copies")


def _print_report(report: dict[str, Any]) -> None:
    """Print a whole report."""
    _print_head(report)
    for work in report["workloads"]:
        _print_workload(work)
    if report["start"] is not None:
        _print_start(report["start"])
    _print_verdict(report)


def _print_verdict(report: dict[str, Any]) -> None:
    """Print what the figures say in words."""
    lines = verdict.describe(report)
    if lines and "gpu" not in report["machine"]:
        print("\nWhere this machine stands:")
        print("\n".join(lines))


def _print_head(report: dict[str, Any]) -> None:
    """Print the machine, the versions and the contenders."""
    machine = report["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in machine["caches"].items())
    print(f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores; caches {caches or 'unknown'}")
    if "gpu" in machine:
        device = machine["gpu"]
        sizes = f"L2 {device['l2_bytes'] * 1e-6:.3g} MB, memory {device['memory_bytes'] * 1e-9:.3g} GB"
        print(
            f"{device['name']}, compute capability {device['compute_capability']}, {device['multiprocessors']} "
            f"multiprocessors; {sizes}; driver {device['driver'] or 'of unknown version'}, for CUDA {device['cuda']}"
        )
    print(f"{machine['system']}, Python {machine['python']}; load before the run {machine['load']}")
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print()
    for name, c in report["contenders"].items():
        print(f"{name:18} {c['about']}{'; ' + c['missing'] if c['missing'] else ''}")


def _print_workload(work: dict[str, Any]) -> None:
    """Print the table of one workload."""
    print()
    print(f"{work['label']}; {work['bytes'] / work['parameters']:.4g} bytes a parameter")
    if work["results"]:
        columns = _ON_DEVICE if "copies" in work["results"][0] else _COLUMNS
        print_table(columns, [_format_row(record, work["parameters"]) for record in work["results"]])
    for skip in work["skipped"]:
        if not skip["reason"].startswith("not installed"):  # said once, at the head
            print(f"{skip['contender']}: {skip['reason']}")


def _format_row(record: dict[str, Any], parameters: int) -> list[str]:
    low, high = (record["seconds"][f"{name}_quartile"] / parameters * 1e9 for name in ("lower", "upper"))
    figures = (f"{record[name]:.3g}" for name in ("gb_per_s", "of_roof", "of_ours"))
    middle = f"{record['ns_per_parameter']:.3g}", f"{low:.3g}..{high:.3g}", *figures, str(record["rounds"])
    if "copies" in record:
        return [record["contender"], f"{record['seconds']['median'] * 1e6:.4g}", *middle, str(record["copies"])]
    extra = "" if record["extra_bytes"] is None else f"{record['extra_bytes'] * 1e-6:.3g}"
    return [record["contender"], *middle, extra]


def _print_start(start: dict[str, Any]) -> None:
    """Print how long a process takes to its first step."""
    print()
    print(f"seconds from a fresh process, {start['array']}; medians of {start['runs']} and {start['cold_runs']} runs")
    rows = zip(start["stages"], start["warm"], start["cold"], strict=True)
    print_table(("", "kernels on disk", "no kernels on disk"), [(s, f"{w:.3g}", f"{c:.3g}") for s, w, c in rows])
    print(f"Numba is imported by: {start['numba_imported_by'] or 'none of them'}")
