"""The command ``amos-ref check``: judge this installation or a port, and write reports."""

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from amos_ref.cli.status import DEPARTS, INTERRUPTED, NO_ANSWER, OK, Undelivered, delivered
from amos_ref.conformance.judging.verdicts import SILENT
from amos_ref.conformance.ports.watchdog import DEFAULT
from amos_ref.errors import StorageError, TargetError
from amos_ref.float_mode import check_mode
from amos_ref.storage.files import try_file, write_file
from amos_ref.terminal import show_progress

ALGORITHM_NAMES = ("paper", "closed-form")
RECENT = 5  # departing cases, the last ones, below the bar

if TYPE_CHECKING:
    from amos_ref.conformance.judging.judge import Result
    from amos_ref.conformance.report import Report


def _write_expectations(report: "Report") -> str:
    from amos_ref.conformance.algorithms import PAPER_AMOS
    from amos_ref.conformance.expect import as_toml

    does = report.diagnosis.deviations if report.diagnosis else ()
    return as_toml(report.results, report.observations, does, report.algorithm or PAPER_AMOS)


FORMS: dict[str, Callable[["Report"], str]] = {
    "--json": lambda report: json.dumps(report.to_dict(), indent=1) + "\n",
    "--junit-xml": lambda report: report.to_junit(),
    "--markdown": lambda report: report.to_markdown(),
    "--write-expect": _write_expectations,
}


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    check = commands.add_parser(
        "check",
        help=summary,
        description="Without TARGET: the installed backends against the page and the page against the stored vectors, "
        "bit for bit. With TARGET: run a port beside the page over a table of cases.",
    )
    check.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="module:attr or path/to/file.py:attr of an optimizer class of torch or Keras, an optax-style factory, "
        "a function step(theta, g, state, ...) or a Port",
    )
    check.add_argument(
        "--exec",
        metavar="COMMAND",
        dest="command",
        help='check a command that speaks the protocol of docs/protocol.md, e.g. "./my_port --flag"',
    )
    check.add_argument("--transcript", metavar="FILE", help="write all that is said to and by COMMAND to FILE")
    check.add_argument(
        "--algorithm",
        choices=ALGORITHM_NAMES,
        help="what the port is to be: paper Amos (the default), or the closed form, as amos_ref.ClosedFormAmos",
    )
    check.add_argument(
        "--eta", metavar="RULE", help="the eta that the port hard-codes: a number, an expression in SHAPE"
    )
    check.add_argument("--sigma", metavar="RULE", help="the sigma that a port of the closed form hard-codes, likewise")
    check.add_argument(
        "--words",
        action="append",
        default=[],
        metavar="OPTION=WORD,...",
        help="which words a port of the closed form knows of an option, e.g. decay=inverse-square (may be repeated)",
    )
    check.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="our option is called THEIRS in the port, e.g. clip_value=max_norm; NAME[1] is an entry of a tuple, "
        "kwargs.NAME a keyword (may be repeated)",
    )
    for option, metavar, what in (
        ("--dtype", "DTYPE", "run the cases of this dtype only"),
        ("--case", "PATTERN", "run only the cases of this name, or of this pattern with * and ?"),
        ("--skip", "PATTERN", "do not run the cases of this name or pattern"),
    ):
        text = f"{what}; several between commas, or repeated"
        check.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    check.add_argument("--quick", action="store_true", help="the port's most precise dtype only, of those in --dtype")
    check.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="what the port's import, its init, and each of its steps may take (default 60; 10 for COMMAND)",
    )
    check.add_argument("--expect", metavar="FILE", help="a TOML file of departures that are expected and no failure")
    check.add_argument("--write-expect", metavar="FILE", help="write such a file; fill in every reason, then use it")
    check.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")
    check.add_argument("--junit-xml", metavar="PATH", help="write JUnit XML; - is standard output")
    check.add_argument("--markdown", metavar="PATH", help="write Markdown for a comment; - is standard output")
    check.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Check, and write the reports that are asked for; return 0 if the port conforms and all of them are written.

    If the check is interrupted, the reports say what it had found until then, and that it was interrupted.
    """
    from amos_ref import conformance

    check_mode()
    options = _options_of_target(args)
    try:
        return _report(args, lambda stack: _watch(_load_port(args, stack), options))
    except conformance.Interrupted as stopped:
        report = stopped.report
        args.write_expect = args.transcript = None  # a list of what was found so far would seem to be one of all
        _report(args, lambda stack: report)
        raise


def _watch(port: Any, options: dict[str, Any]) -> "Report":
    """Check, and show on a terminal how far it is."""
    from amos_ref import conformance

    with Watch() as watch:
        return conformance.check(port, **options, progress=watch.cases, found=watch.found, say=watch.say)


def _report(args: argparse.Namespace, check: Callable[[contextlib.ExitStack], "Report"]) -> int:
    """Open the files, check, write and print; return the exit status."""
    with contextlib.ExitStack() as stack:
        outputs = _find_outputs(args)
        report = check(stack)
    status = status_of(report)
    lost = _write_reports(report, outputs)
    with delivered(status):
        printed = [FORMS[option](report) for option, path in outputs.items() if path is None]
        print(*printed, end="") if printed else report.print()
    if lost:
        raise Undelivered(status or NO_ANSWER, "; ".join(lost))
    return status


def _write_reports(report: "Report", outputs: dict[str, str | None]) -> list[str]:
    """Write the files, each of them whether or not another could be; return what went wrong."""
    lost = []
    for option, path in outputs.items():
        try:
            if path is not None:
                write_file(path, FORMS[option](report))
        except StorageError as error:
            lost.append(str(error))
    return lost


def status_of(report: "Report") -> int:
    """Return 0 if the port conforms, 4 if all that is against it is that it gave no answer, and 1 otherwise."""
    if report.interrupted:
        return INTERRUPTED
    if report.ok:
        return OK
    failed = {r.verdict for r in report.results if r.failed}
    return NO_ANSWER if failed and failed <= set(SILENT) else DEPARTS


def _options_of_target(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of conformance.check; raise TargetError for options that do not go together."""
    given = {"--algorithm": args.algorithm, "--eta": args.eta, "--sigma": args.sigma, "--words": args.words}
    given |= {"--map": args.map, "--quick": args.quick, "--timeout": args.timeout}
    given |= {"--expect": args.expect, "--write-expect": args.write_expect}
    chosen = {"--dtype": args.dtype, "--case": args.case, "--skip": args.skip}
    given |= chosen
    alone = [option for option, value in given.items() if value not in (None, [], False)]
    if args.target is None and args.command is None and alone:
        raise TargetError(f"{alone[0]} says something about a TARGET, and there is none")
    if args.command is None and args.transcript is not None:
        raise TargetError("--transcript says something about an --exec COMMAND, and there is none")
    if args.command is not None and (args.target is not None or args.map):
        raise TargetError("--exec COMMAND goes without a TARGET and without --map; a command uses our names")
    narrow = [option for option, value in chosen.items() if value]
    if narrow and args.write_expect is not None:
        raise TargetError(f"--write-expect lists every departure, and {narrow[0]} leaves cases out")
    return {
        "algorithm": args.algorithm or ALGORITHM_NAMES[0],
        "sigma": args.sigma,
        "words": words_of(args.words),
        "dtypes": args.dtype or None,
        "cases": args.case or None,
        "skip": args.skip,
        "suite": "quick" if args.quick else "full",
        "eta": args.eta,
        "renamed": renamed_of(args.map),
        "expect": () if args.expect is None else args.expect,
        # The limit on a command is kept where its answers are read.
        "timeout": None if args.target is None else DEFAULT if args.timeout is None else args.timeout,
    }


def _load_port(args: argparse.Namespace, stack: contextlib.ExitStack) -> Any:
    """Return TARGET, or a port for the command that is given instead of it."""
    if args.command is None:
        return args.target
    from amos_ref.conformance.ports.command import CommandPort

    timeout = 10.0 if args.timeout is None else args.timeout
    chosen = args.algorithm or ALGORITHM_NAMES[0]
    port = CommandPort(args.command, timeout=timeout, transcript=args.transcript, algorithm=chosen)
    stack.callback(port.close)
    return port


def renamed_of(texts: list[str]) -> dict[str, str]:
    """Return ``{ours: theirs}`` from texts of the form OURS=THEIRS."""
    renamed = {}
    for text in texts:
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs:
            raise TargetError(f"--map {text!r} is not of the form OURS=THEIRS")
        if ours in renamed:
            raise TargetError(f"--map says {ours} twice: {renamed[ours]} and {theirs}")
        renamed[ours] = theirs
    return renamed


def words_of(texts: list[str]) -> dict[str, list[str]]:
    """Return words by option from texts of the form OPTION=WORD,WORD."""
    found: dict[str, list[str]] = {}
    for text in texts:
        option, equals, words = text.partition("=")
        if not equals or not all(words.split(",")):
            raise TargetError(f"--words {text!r} is not of the form OPTION=WORD,WORD")
        found.setdefault(option, []).extend(word.strip() for word in words.split(","))
    return found


def _place(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _find_outputs(args: argparse.Namespace) -> dict[str, str | None]:
    """Return the files that are written after the check, and try before it that they can be; None: standard output."""
    paths = {"--transcript": args.transcript, "--json": "-" if args.json else None}
    paths |= {"--junit-xml": args.junit_xml, "--markdown": args.markdown, "--write-expect": args.write_expect}
    file = (args.target or "").rpartition(":")[0]
    read = {_place(path) for path in (args.expect, file if file.endswith(".py") else None) if path}
    outputs: dict[str, str | None] = {}
    taken: dict[str, str] = {}  # which option writes to a place
    for option, path in paths.items():
        if path is None:
            continue
        place = "-" if path == "-" and option != "--transcript" else _place(path)
        if place in taken:
            raise TargetError(f"{taken[place]} and {option} would both write to {path!r}")
        taken[place] = option
        renewed = option == "--write-expect" and args.expect is not None and place == _place(args.expect)
        if option == "--write-expect" and os.path.exists(path) and not renewed:
            raise StorageError(f"cannot write {path!r}: it exists; given to --expect as well, its reasons are kept")
        if place in read and not renewed:
            raise TargetError(f"{option} would overwrite {path!r}, which the check reads")
        if place == "-":
            outputs[option] = None
        elif option != "--transcript":  # which is written line by line while the check runs
            try_file(path)
            outputs[option] = path
    return outputs


class Watch(contextlib.ExitStack):
    """What a terminal shows during a check: the case that is running, since it may hang, and what departs so far."""

    done: int
    text: str

    def __init__(self) -> None:
        super().__init__()
        self.failing: list[str] = []
        self.done, self.text = 0, ""
        self.show: Callable[..., None] | None = None

    def cases(self, cases: Sequence[Any]) -> Iterator[Any]:
        """Yield the cases and show each."""
        self.show = self.enter_context(show_progress([""], len(cases), transient=True))
        for self.done, case in enumerate(cases):
            self.say(f"{case.name} {case.dtype}" if hasattr(case, "dtype") else "")
            yield case
        self.done = len(cases)

    def found(self, result: "Result") -> None:
        """Take a result; that of a state that departs alone may come to nothing."""
        from amos_ref.conformance.report import line

        if result.failed and not result.only_state:
            self.failing.append(f"{result.case} {result.dtype}: {line(result)}")
            self.say(self.text)

    def say(self, text: str) -> None:
        """Show what is done now."""
        self.text = text
        if self.show is not None:
            count = f"{len(self.failing)} depart: " if self.failing else ""
            self.show("", self.done, f"{count}{text}", self.failing[-RECENT:])
