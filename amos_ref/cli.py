"""The command line: amos-ref check | explain | vectors | info."""

import argparse
import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import amos_ref
from amos_ref.errors import AmosError, BackendError, MissingDependencyError, TargetError

OK, DEPARTS, USAGE, MISSING = 0, 1, 2, 3

_PACKAGES = (
    "numpy",
    "numba",
    "scipy",
    "optree",
    "rich",
    "ml_dtypes",
    "torch",
    "jax",
    "optax",
    "pytorch_optimizer",
    "jestimator",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return 0 conforms or done, 1 departs, 2 usage or bad input, 3 something is not installed."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (MissingDependencyError, BackendError) as error:
        return _complain(error, MISSING)
    except AmosError as error:
        return _complain(error, USAGE)
    except BrokenPipeError:
        # The reader of our output is gone; a second failure at exit would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _complain(error, USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _complain(error: object, status: int) -> int:
    print(f"amos-ref: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="amos-ref",
        description="The golden reference of the Amos optimizer.",
        epilog="Exit status: 0 conforms or done, 1 departs, 2 usage or bad input, 3 something needed is not installed, "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"amos_ref {amos_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check",
        help="check this installation, or a port against the page",
        description="Without TARGET: the installed backends against the page and the page against the stored vectors, "
        "bit for bit. With TARGET: run a port beside the page over a table of cases.",
    )
    check.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="module:attr or path/to/file.py:attr of a torch.optim.Optimizer class, an optax-style factory or a Port",
    )
    check.add_argument(
        "--exec",
        metavar="COMMAND",
        dest="command",
        help='check a command that speaks the protocol of docs/protocol.md, e.g. "./my_port --flag"',
    )
    check.add_argument("--timeout", type=float, metavar="SECONDS", help="for each answer of COMMAND (default 10)")
    check.add_argument("--transcript", metavar="FILE", help="write all that is said to and by COMMAND to FILE")
    check.add_argument(
        "--eta", metavar="RULE", help="the eta that the port hard-codes: a number, an expression in SHAPE"
    )
    check.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="our option is called THEIRS in the port, e.g. extra_l2=weight_decay (may be repeated)",
    )
    check.add_argument("--quick", action="store_true", help="float64 only")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.set_defaults(run=_check)

    explain = commands.add_parser("explain", help="one step of a small example, stage by stage, with numbers")
    explain.add_argument(
        "--step", type=int, default=1, metavar="T", help="which step to show, from 1 to 1000 (default 1)"
    )
    explain.add_argument("--json", action="store_true", help="print the numbers as JSON")
    explain.set_defaults(run=_explain)

    vectors = commands.add_parser("vectors", help="write the stored vectors anew")
    vectors.add_argument("action", choices=["generate"])
    vectors.add_argument("folder", type=pathlib.Path, help="an existing folder")
    vectors.set_defaults(run=_vectors)

    info = commands.add_parser("info", help="versions and backends")
    info.add_argument("--json", action="store_true", help="print as JSON")
    info.set_defaults(run=_info)
    return parser


def _progress(description: str) -> Callable[[Any], Any]:
    """Return a wrapper for an iterable: a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return iter
    from rich.console import Console
    from rich.progress import track

    return functools.partial(track, description=description, console=Console(stderr=True), transient=True)


def _check(args: argparse.Namespace) -> int:
    renamed = {}
    for text in args.map:
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs:
            raise TargetError(f"--map {text!r} is not of the form OURS=THEIRS")
        renamed[ours] = theirs
    port = _command(args, renamed)
    if port is None and (args.eta is not None or renamed or args.quick):
        raise TargetError("--eta, --map and --quick say something about a TARGET, and there is none")
    with contextlib.redirect_stdout(sys.stderr):  # what a port prints is not our report
        report = amos_ref.conformance.check(
            port,
            "quick" if args.quick else "full",
            eta=args.eta,
            renamed=renamed,
            progress=_progress("checking"),
        )
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        report.print()
    return OK if report.ok else DEPARTS


def _command(args: argparse.Namespace, renamed: dict[str, str]) -> Any:
    """Return TARGET, or a port for the command that is given instead of it."""
    if args.command is None:
        if args.timeout is not None or args.transcript is not None:
            raise TargetError("--timeout and --transcript say something about a --exec COMMAND, and there is none")
        return args.target
    if args.target is not None or renamed:
        raise TargetError("--exec COMMAND goes without a TARGET and without --map; a command uses our names")
    timeout = 10.0 if args.timeout is None else args.timeout
    return amos_ref.conformance.CommandPort(args.command, timeout=timeout, transcript=args.transcript)


def _explain(args: argparse.Namespace) -> int:
    import numpy as np

    if not 1 <= args.step <= 1000:
        raise TargetError(f"--step is {args.step}; it must be from 1 to 1000")
    rng = np.random.default_rng(2022)
    params = {"kernel": rng.standard_normal((2, 3)).round(2), "bias": np.zeros(3)}
    opt = amos_ref.Amos(
        learning_rate=0.1,
        eta={"bias": 0.5, "kernel": "sqrt(1/SHAPE[0])"},
        slot_shape={"bias": "tensor", "kernel": "(1, SHAPE[1])"},
        beta=0.9,
        extra_l2=0.01,
        backend="numpy",
    )
    state = opt.init(params)
    for t in range(1, args.step + 1):
        grads = {name: rng.standard_normal(a.shape).round(2) for name, a in params.items()}
        if t < args.step:
            state = opt.step(params, grads, state)
    trace = opt.trace(grads, state, params)
    if args.json:
        leaves = {n: {k: np.asarray(x).tolist() for k, x in s.items() if x is not None} for n, s in trace.items()}
        print(json.dumps({"t": trace.t, "rates": trace.rates._asdict(), "leaves": leaves}, indent=1))
    else:
        print(trace)
    return OK


def _vectors(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors import write

    if not args.folder.is_dir():
        raise TargetError(f"there is no folder {str(args.folder)!r}")
    for path in write(args.folder):
        print(path)
    return OK


def _info(args: argparse.Namespace) -> int:
    versions = {"amos_ref": amos_ref.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    backends = {"numpy": "the page itself", "cpu": _cpu(), "cuda": "this version has no CUDA kernels"}
    if args.json:
        print(json.dumps({"versions": versions, "backends": backends}, indent=1))
    else:
        for title, rows in (("versions", versions), ("backends", backends)):
            print(title)
            print("\n".join(f"  {name:18} {value}" for name, value in rows.items()))
    return OK


def _cpu() -> str:
    try:
        import numba
    except ImportError as error:
        return f"cannot be used: {error}"
    threads = numba.get_num_threads()
    return f"compiled kernels, {threads} threads; arrays that are not C-contiguous are stepped through a copy"
