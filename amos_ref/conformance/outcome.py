"""What a check has found so far, of which a report can be made at any moment: also when it is interrupted."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from amos_ref.conformance import expect
from amos_ref.conformance.algorithms import PAPER_AMOS, Algorithm
from amos_ref.conformance.cases import Case
from amos_ref.conformance.diagnosis import kinship
from amos_ref.conformance.diagnosis.diagnose import Diagnosis
from amos_ref.conformance.diagnosis.evidence import SLACK
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.judge import Result, settle
from amos_ref.conformance.judging.tolerance import METHOD
from amos_ref.conformance.ports.options import Note
from amos_ref.conformance.ports.port import Port
from amos_ref.conformance.report import Report


class Interrupted(KeyboardInterrupt):
    """A check was interrupted; `report` holds what it had found until then."""

    def __init__(self, text: str, report: Report) -> None:
        super().__init__(text)
        self.report = report


class Outcome:
    """The results of a check, as they come in.

    Parameters
    ----------
    port : Port
    suite : str
    listed : list of Expectation
    cases : sequence of Case
        What the suite has for this port; fewer may be run.
    found : callable
        Is told each result.
    algorithm : Algorithm
    again : callable
        Returns the port as another algorithm, or None.
    """

    algorithm: Algorithm
    again: kinship.Make
    port: Port
    suite: str
    listed: list[expect.Expectation]
    cases: Sequence[Case]
    found: Callable[[Result], None]
    doing: str
    begun: float

    def __init__(
        self,
        port: Port,
        suite: str,
        listed: list[expect.Expectation],
        cases: Sequence[Case],
        found: Callable[[Result], None],
        algorithm: Algorithm = PAPER_AMOS,
        again: kinship.Make = lambda other: None,
    ) -> None:
        self.algorithm, self.again = algorithm, again
        self.port, self.suite, self.listed, self.cases, self.found = port, suite, listed, cases, found
        self.results: list[Result] = []
        self.seen: list[Observation] = []
        self.doing = "during the cases"
        self.begun = time.perf_counter()

    def note(self, result: Result, observation: Observation | None) -> None:
        """Take a result, and what the port did if it did it."""
        self.results.append(result)
        self.seen += [observation] if observation else []
        self.found(result)

    def is_expected(self, r: Result) -> bool:
        """Whether an entry of the list says that the case comes out so."""
        return any(entry.names(r.case, r.dtype) and entry.fits(r) for entry in self.listed)

    def diagnose(
        self, results: Sequence[Result], eta: Any, timeout: float | None, say: Callable[[str], None]
    ) -> Diagnosis | None:
        """Take the final results and say what the port does instead, if it departs."""
        self.results, self.doing = list(results), "during the diagnosis"
        departs = any(r.verdict in ("departs", "not finite") for r in results)
        if not departs and any(r.verdict != "not supported" for r in results):
            return None
        say("looking for what it does instead")
        known = diagnose(self.port, self.seen, eta, timeout, say=say) if departs else None
        known = known or _say_how_near([r for r in results if r.verdict == "departs"])
        return kinship.with_kin(known, self.algorithm, self.again, timeout)

    def report(self, diagnosis: Diagnosis | None = None, interrupted: str | None = None) -> Report:
        """Return the report of what there is."""
        results = expect.apply(self.results, self.listed, expect.list_supported(self.results), self.seen)
        out_of = len(self.cases) if len(results) < len(self.cases) else None
        notes = [note for note in getattr(self.port, "notes", ()) if isinstance(note, Note)]
        seconds = time.perf_counter() - self.begun
        head = self.port.name, results, self.suite, METHOD, diagnosis
        return Report(*head, self.seen, seconds, notes, out_of, interrupted, self.algorithm)

    def interrupt(self, error: KeyboardInterrupt) -> KeyboardInterrupt:
        """Return what to raise: with a report, if a case was judged."""
        if not self.results:
            return error
        self.results = settle(self.results, self.cases)
        return Interrupted(str(error), self.report(interrupted=self.doing))


def _say_how_near(departing: Sequence[Result]) -> Diagnosis | None:
    """Say of what departs, and is no reason to look for a deviation, that it is almost right."""
    if not departing:
        return None
    cases = ", ".join(dict.fromkeys(r.case for r in departing))
    text = (
        f"what departs ({cases}) does so by less than {SLACK:g} times its bound: "
        "rounding errors may be all that is wrong, of a formula in which digits cancel."
    )
    return Diagnosis(text, [], [], None, [])
