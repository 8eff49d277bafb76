"""The command line: amos-ref check | run | explain | schedule | bench | vectors | info."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Sequence

import amos_ref
from amos_ref.cli import bench as bench_command
from amos_ref.cli import check as check_command
from amos_ref.cli import run as run_command
from amos_ref.cli import show as show_commands
from amos_ref.errors import AmosError, BackendError, MissingDependencyError, TargetError

OK, USAGE, MISSING = 0, 2, 3

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
    with contextlib.suppress(AttributeError):  # what a stand-in for standard output need not have
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
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

    check_command.add_to(commands)

    run_command.add_to(commands)
    show_commands.add_to(commands)
    bench_command.add_to(commands)

    vectors = commands.add_parser("vectors", help="write the stored vectors anew, or export them")
    actions = vectors.add_subparsers(required=True, metavar="ACTION")
    generate = actions.add_parser("generate", help="write the stored vectors anew (needs python-flint)")
    generate.add_argument("folder", type=pathlib.Path, help="an existing folder")
    generate.set_defaults(run=_generate)
    export = actions.add_parser("export", help="write stored vectors of all dtypes to one file")
    export.add_argument("--format", required=True, choices=["json", "npz", "safetensors"])
    export.add_argument("--case", metavar="ID", help="one case, e.g. plain/float32")
    export.add_argument("--flag", metavar="FLAG", help="the cases with a flag, e.g. momentum")
    export.add_argument("--output", required=True, type=pathlib.Path, metavar="PATH", help="the file to write")
    export.set_defaults(run=_export)

    info = commands.add_parser("info", help="versions and backends")
    info.add_argument("--json", action="store_true", help="print as JSON")
    info.set_defaults(run=_info)
    return parser


def _generate(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors.write import write

    if not args.folder.is_dir():
        raise TargetError(f"there is no folder {str(args.folder)!r}")
    for path in write(args.folder):
        print(path)
    return OK


def _export(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors.export import export, select

    export(select(args.case, args.flag), args.format, args.output)
    print(args.output)
    return OK


def _info(args: argparse.Namespace) -> int:
    from amos_ref.kernels.cuda import driver as cuda_driver

    versions = {"amos_ref": amos_ref.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    backends = {"numpy": "the page itself", "cpu": _cpu(), "cuda": cuda_driver.status()}
    if args.json:
        print(json.dumps({"versions": versions, "backends": backends}, indent=1))
    else:
        for title, rows in (("versions", versions), ("backends", backends)):
            print(title)
            print("\n".join(f"  {name:18} {value}" for name, value in rows.items()))
    return OK


def _cpu() -> str:
    try:
        from amos_ref.kernels.cpu.threads import count
    except ImportError as error:
        return f"cannot be used: {error}"
    return f"compiled kernels, {count()} threads; arrays that are not C-contiguous are stepped through a copy"
