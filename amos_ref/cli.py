"""The command line: amos-ref check | run | explain | schedule | vectors | info."""

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
from amos_ref import run_command, show_commands
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

    run_command.add_to(commands)
    show_commands.add_to(commands)

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
    if args.target is None and (args.eta is not None or renamed or args.quick):
        raise TargetError("--eta, --map and --quick say something about a TARGET, and there is none")
    with contextlib.redirect_stdout(sys.stderr):  # what a port prints is not our report
        report = amos_ref.conformance.check(
            args.target,
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
