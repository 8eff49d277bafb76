"""The command line: amos-ref check | run | explain | schedule | choose | bench | vectors | info."""

import argparse
import contextlib
import importlib
import sys
import traceback
from collections.abc import Container, Sequence
from typing import NoReturn

import amos_ref
from amos_ref.cli.status import (
    FULL,
    INTERRUPTED,
    MISSING,
    NO_ANSWER,
    PIPE,
    USAGE,
    Undelivered,
    delivered,
    open_standard_streams,
    silence_standard_output,
    terminated_by_signals,
)
from amos_ref.errors import AmosError, BackendError, MissingDependencyError, NoAnswerError, escape
from amos_ref.terminal import complain

#: What each command does, in a line. Its module, of the same name, is imported where it is asked for.
COMMANDS = {
    "check": "check this installation, or a port against the page",
    "run": "train on a problem or a CSV file, and compare with the reference",
    "explain": "one step of a small example, stage by stage, with numbers",
    "schedule": "alpha_t and rho_t of the closed forms, their recurrences and the paper",
    "choose": "eta and slot shape for every parameter of a model",
    "bench": "measure the kernels here, beside the memory's roof and other optimizers",
    "vectors": "write the stored vectors again, list or export them",
    "info": "versions and backends",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: what each means is in :mod:`amos_ref.cli.status`.

    It is 0 only if the command has done what it was asked for, and all that it printed has arrived.
    """
    if not open_standard_streams():
        return _complain("standard output is closed: no answer could be delivered", NO_ANSWER)
    args = build_parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    with contextlib.suppress(AttributeError):  # a stand-in for standard output need not have it
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    with terminated_by_signals() as received:
        status = _run(args)
    return 128 + received[0] if received else status


def _run(args: argparse.Namespace) -> int:
    try:
        status = args.run(args)
        with delivered(status):
            return status
    except BrokenPipeError:
        silence_standard_output()
        return PIPE
    except Undelivered as error:
        silence_standard_output()
        return _complain(error, error.status) if str(error) else error.status
    except (MissingDependencyError, BackendError) as error:
        return _complain(error, MISSING)
    except NoAnswerError as error:
        return _complain(error, NO_ANSWER)
    except AmosError as error:
        return _complain(error, USAGE)
    except OSError as error:
        if error.errno not in FULL:
            return _complain(error, USAGE)
        silence_standard_output()  # files have errors of their own, so it was printing, in the middle of the command
        return _complain(Undelivered.why(error), NO_ANSWER)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "interrupted", INTERRUPTED)
    except BaseException:  # a mistake of ours: 1 would say that something was compared, and SystemExit could say 0
        traceback.print_exc()
        return NO_ANSWER


def _complain(error: object, status: int) -> int:
    complain(f"amos-ref: {' '.join(str(error).split())}")
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote what was given so that a terminal can show it."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def build_parser(asked: Container[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return a parser of the commands that are asked for; the others are in its list, without options."""
    parser = _Parser(
        prog="amos-ref",
        description="The golden reference of the Amos optimizer.",
        epilog="Exit status: 0 conforms or done, 1 departs, 2 usage or bad input, 3 something needed is not installed, "
        "4 no answer (the target ended, was killed or hung; output that did not arrive), 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"amos_ref {amos_ref.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name in asked:
            importlib.import_module(f"amos_ref.cli.{name}").add_to(commands, summary)
        else:
            commands.add_parser(name, help=summary)
    return parser
