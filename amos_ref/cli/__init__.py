"""The command line: amos-ref check | run | explain | schedule | bench | vectors | info."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import amos_ref
from amos_ref.cli import bench, check, explain, info, run, schedule, vectors
from amos_ref.cli.status import INTERRUPTED, MISSING, OK, USAGE
from amos_ref.errors import AmosError, BackendError, MissingDependencyError, escape
from amos_ref.terminal import complain


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return 0 conforms or done, 1 departs, 2 usage or bad input, 3 something is not installed."""
    args = _build_parser().parse_args(argv)
    with contextlib.suppress(AttributeError):  # a stand-in for standard output need not have it
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
        return _complain("interrupted", INTERRUPTED)


def _complain(error: object, status: int) -> int:
    complain(f"amos-ref: {' '.join(str(error).split())}")
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote what was given so that a terminal can show it."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="amos-ref",
        description="The golden reference of the Amos optimizer.",
        epilog="Exit status: 0 conforms or done, 1 departs, 2 usage or bad input, 3 something needed is not installed, "
        "130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"amos_ref {amos_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (check, run, explain, schedule, bench, vectors, info):
        command.add_to(commands)
    return parser
