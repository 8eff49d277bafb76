"""The command ``amos-ref info``: versions, backends, and how the processor computes."""

import argparse
import importlib.metadata
import json
import platform
from typing import Any

import amos_ref
from amos_ref.cli.status import OK
from amos_ref.errors import BackendError, escape
from amos_ref.float_mode import describe_mode
from amos_ref.kernels import load_backend

_NEEDED = ("numpy", "numba", "scipy", "optree", "rich", "ml_dtypes")
_OPTIONAL = ("torch", "jax", "optax", "pytorch_optimizer", "jestimator")


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    info = commands.add_parser("info", help=summary)
    info.add_argument("--json", action="store_true", help="print as JSON")
    info.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Print which versions and backends there are, and whether this thread computes as IEEE 754 says."""
    from amos_ref.kernels.cuda import driver as cuda_driver

    versions = {"amos_ref": amos_ref.__version__, "python": platform.python_version()}
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    backends = {"numpy": "the page itself", "cpu": _describe_cpu(), "cuda": cuda_driver.status()}
    found = {"versions": versions, "backends": backends, "processor": {"mode": describe_mode()}}
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for title, rows in found.items():
            print(title)
            print("\n".join(f"  {name:18} {escape(value)}" for name, value in rows.items()))
    return OK


def _describe_cpu() -> str:
    try:
        load_backend("cpu")
    except BackendError as error:
        return str(error)
    from amos_ref.kernels.cpu.threads import count

    return f"compiled kernels, {count()} threads; arrays that are not C-contiguous are stepped through a copy"
