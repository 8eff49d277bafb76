"""A port's conformance as pytest's own tests: ``pytest --amos-port module:attr`` adds one test a case.

Every run of pytest in an environment with amos_ref loads this file, so it imports nothing but pytest until a port is
named.
"""

from typing import TYPE_CHECKING, Any

import pytest  # pyright: ignore[reportMissingImports]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amos_ref.conformance.cases import Case
    from amos_ref.conformance.expect import Expectation
    from amos_ref.conformance.judging.drive import Observation
    from amos_ref.conformance.judging.judge import Result
    from amos_ref.conformance.ports.supervised import TargetPort

SUITES = ("full", "quick")
ALGORITHM_NAMES = ("paper", "closed-form")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("amos-ref", "a port of the Amos optimizer beside its golden reference")
    group.addoption("--amos-port", metavar="MODULE:ATTR", help="the port, as `amos-ref check` takes it")
    group.addoption(
        "--amos-suite", choices=SUITES, default="full", help="quick: the most precise dtype only (default: full)"
    )
    group.addoption("--amos-expect", metavar="FILE", help="departures that are expected: these tests xfail")
    group.addoption(
        "--amos-algorithm", choices=ALGORITHM_NAMES, default="paper", help="what the port is to be (default: paper)"
    )
    group.addoption("--amos-sigma", metavar="RULE", help="the sigma that a port of the closed form hard-codes")
    words = "which words a port of the closed form knows of an option"
    group.addoption("--amos-words", action="append", default=[], metavar="OPTION=WORD,...", help=words)
    group.addoption("--amos-eta", metavar="RULE", help="the eta that the port hard-codes")
    group.addoption("--amos-map", action="append", default=[], metavar="OURS=THEIRS", help="our option's name there")
    group.addoption("--amos-timeout", type=float, metavar="SECONDS", help="for init and for each step (default 60)")


@pytest.hookimpl(tryfirst=True)  # before -k and --last-failed choose among the tests
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add a test for each case, if a port is named."""
    if config.getoption("--amos-port") is not None:  # an empty text is a mistake, and not as good as none
        tests = PortUnderTest.from_parent(session, name="amos-ref", nodeid="amos-ref").collect()
        config.hook.pytest_collectreport(
            report=pytest.CollectReport("amos-ref", "passed", None, [*tests])
        )  # counts them
        items += tests


class PortUnderTest(pytest.Collector):
    """The port, which runs in a process of its own, and what its cases came to."""

    rule: Any  # what --amos-eta or --amos-sigma says
    listed: "list[Expectation]"
    port: "TargetPort"
    cases: "Sequence[Case]"

    def collect(self) -> list["CaseTest"]:
        """Import the port and make the tests; what is wrong with the options ends pytest in one line."""
        from amos_ref.cli.check import renamed_of, words_of
        from amos_ref.conformance import cases_of, expect
        from amos_ref.conformance.algorithms import algorithm_of
        from amos_ref.conformance.judging.drive import check_eta, unsupported
        from amos_ref.conformance.ports import watchdog
        from amos_ref.conformance.ports.supervised import TargetPort
        from amos_ref.errors import AmosError, TargetError, escape

        option: Any = self.config.getoption
        limit = option("--amos-timeout")
        try:
            timeout = watchdog.DEFAULT if limit is None else watchdog.check_timeout(limit, alarm=False)
            algorithm = algorithm_of(option("--amos-algorithm"))
            self.rule = algorithm.scale_rule(eta=option("--amos-eta"), sigma=option("--amos-sigma"))
            words = algorithm.read_words(words_of(list(option("--amos-words"))))
            self.listed = expect.read(() if option("--amos-expect") is None else option("--amos-expect"), algorithm)
            renamed = renamed_of(list(option("--amos-map")))
            self.port = TargetPort(str(option("--amos-port")), renamed, timeout, algorithm, words)
            self.config.add_cleanup(self.port.close)
            self.cases = cases_of(str(option("--amos-suite")), self.port, algorithm)
            check_eta(self.rule, self.cases)
            if all(unsupported(self.port, case) for case in self.cases):
                raise TargetError(f"{self.port.name} supports none of the {len(self.cases)} cases: nothing is checked")
        except AmosError as error:
            raise pytest.UsageError(f"--amos-port: {escape(str(error))}") from None
        self.judged: dict[tuple[str, str], tuple[Result, Observation | None]] = {}
        return [CaseTest.from_parent(self, name=f"{case.name}/{case.dtype}", case=case) for case in self.cases]

    def result(self, case: "Case") -> "Result":
        """Judge a case; where all cases together tell what its result means, all are judged."""
        from amos_ref.conformance.expect import apply
        from amos_ref.conformance.judging.drive import unsupported
        from amos_ref.conformance.judging.judge import settle

        found, seen = self._judge(case)
        if found.only_state or (case.may_lack and found.verdict == "raises"):
            every = settle([self._judge(each)[0] for each in self.cases], self.cases)
            found = next(r for r in every if (r.case, r.dtype) == (case.name, case.dtype))
        supported = {(each.name, each.dtype) for each in self.cases if not unsupported(self.port, each)}
        return apply([found], self.listed, supported, [seen] if seen else [])[0]

    def _judge(self, case: "Case") -> "tuple[Result, Observation | None]":
        from amos_ref.conformance.judging.judge import judge

        key = (case.name, case.dtype)
        if key not in self.judged:
            self.judged[key] = judge(self.port, case, self.rule)
        return self.judged[key]


class Departure(Exception):
    """A case that does not conform; its text is all that pytest shows."""


class CaseTest(pytest.Item):
    """One case."""

    parent: PortUnderTest

    def __init__(self, *, case: "Case", **of_pytest: Any) -> None:
        super().__init__(**of_pytest)
        self.case = case

    def runtest(self) -> None:
        """Pass, skip what is not supported, xfail what is expected, and fail the rest."""
        from amos_ref.conformance.report import line

        result = self.parent.result(self.case)
        if result.verdict == "not supported":
            pytest.skip(result.detail)
        if result.expected is not None:
            pytest.xfail(line(result))  # returns under --runxfail
        if result.verdict != "conforms":
            raise Departure(line(result))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return one line, without a traceback: the mistake is in the port, not here."""
        from amos_ref.errors import AmosError, escape

        if isinstance(excinfo.value, Departure | AmosError):
            return escape(str(excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Name the test by its case."""
        return self.path, None, self.nodeid
