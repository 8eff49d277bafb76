"""Tell a right port from a wrong one, and say where the wrong one departs."""

import functools
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amos_ref.conformance.algorithms import Algorithm
    from amos_ref.conformance.cases import Case, table
    from amos_ref.conformance.diagnosis.diagnose import Diagnosis
    from amos_ref.conformance.judging.judge import Result
    from amos_ref.conformance.outcome import Interrupted
    from amos_ref.conformance.ports.command import CommandPort
    from amos_ref.conformance.ports.port import Port
    from amos_ref.conformance.report import Report
    from amos_ref.conformance.selection import Texts

__all__ = ["Case", "CommandPort", "Diagnosis", "Interrupted", "Port", "Report", "Result", "check", "table"]

_MODULE_OF = {
    "Case": "cases",
    "CommandPort": "ports.command",
    "Diagnosis": "diagnosis.diagnose",
    "Interrupted": "outcome",
    "Port": "ports.port",
    "Report": "report",
    "Result": "judging.judge",
    "table": "cases",
}


def __getattr__(name: str) -> Any:
    # As in amos_ref itself: imported when first used.
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'amos_ref.conformance' has no attribute {name!r}")
    return getattr(importlib.import_module(f"amos_ref.conformance.{_MODULE_OF[name]}"), name)


def check(
    port: Any = None,
    suite: str = "full",
    *,
    algorithm: str = "paper",
    eta: Any = None,
    sigma: Any = None,
    words: Mapping[str, str | Iterable[str]] | None = None,
    renamed: Mapping[str, str] | None = None,
    expect: str | os.PathLike[str] | Iterable[Mapping[str, Any]] = (),
    timeout: float | None = None,
    progress: Callable[[Any], Any] = iter,
    dtypes: str | Iterable[str] | None = None,
    cases: str | Iterable[str] | None = None,
    skip: str | Iterable[str] = (),
    found: Callable[["Result"], None] = lambda result: None,
    say: Callable[[str], None] = lambda text: None,
) -> "Report":
    """Run a port beside the page, case by case; without a port, check this installation.

    Parameters
    ----------
    port : Port, torch.optim.Optimizer class, optax-style factory or str, optional
        A str is "module:attr" or "path/to/file.py:attr", which is imported and run in a process of its own: it can
        end, hang and print as it likes. Any other object runs in this process. None checks the installed backends
        against the page and the page against the stored vectors, bit for bit.
    suite : {"full", "quick"}
        "quick" runs the most precise dtype of the port only, or of those that `dtypes` asks for.
    algorithm : {"paper", "closed-form"}
        What the port is to be: paper Amos, or the closed form, which is :class:`amos_ref.ClosedFormAmos`.
    eta : rule, optional
        The eta that a port hard-codes, if it neither takes eta nor has a get_scale to ask.
    sigma : rule, optional
        The sigma that a port of the closed form hard-codes, if it neither takes sigma nor measures it.
    words : mapping of str to iterable of str, optional
        Which words a port of the closed form knows of an option, where its signature does not say so:
        ``{"decay": ["inverse-square"]}`` of one that has only that.
    renamed : mapping of str to str, optional
        Our option -> the port's parameter, where its name is not a usual one; ``"betas[1]"`` is an entry of a tuple,
        ``"kwargs.l2"`` a keyword.
    expect : path or iterable of mapping, optional
        Departures that do not count as failures: a TOML file (see docs/checking.md), or its entries.
    timeout : float, optional
        Seconds that importing the port, its init, and each of its steps may take; None is no limit. For an object
        it rests on SIGALRM: see :mod:`amos_ref.conformance.ports.watchdog` for what it cannot stop.
    progress : callable
        Wraps the iterable of cases, as ``rich.progress.track`` does.
    dtypes, cases, skip : str or iterable of str, optional
        Names of dtypes, and names or patterns of cases, that are run or skipped; see
        :func:`amos_ref.conformance.selection.select`. The report's summary says how much of the suite that was.
    found : callable
        Called with each :class:`Result` at once. Whether a departure of the state alone is one is known at the end.
    say : callable
        Called with a line that says what is tried, while what the port does instead is looked for.

    Returns
    -------
    Report
        ``report.ok``, ``report.to_dict()``, ``print(report)``.

    Raises
    ------
    TargetError
        If there is no such algorithm, the port cannot be found, loaded or driven, the timeout cannot be kept, or
        nothing is left to run.
    Interrupted
        A KeyboardInterrupt, by Ctrl-C, whose `report` holds what was found until then.
    ExpectationError
        If `expect` cannot be read or an entry of it means nothing.
    NoAnswerError
        If nothing can be asked of the port: importing it ends its process or does not end.
    MissingDependencyError
        If the port needs a framework that is not installed.

    Examples
    --------
    >>> import amos_ref
    >>> class Still:  # a port that never moves
    ...     name, options, skips_none = "still", {"learning_rate", "beta", "eta"}, True
    ...     def init(self, params, hyper): self.params = params
    ...     def step(self, grads): return self.params
    ...     def state(self): return {}
    ...     def own_eta(self, params): return None
    >>> report = amos_ref.conformance.check(Still(), suite="quick")
    >>> report.ok, report.results[0].verdict, report.results[0].step
    (False, 'departs', 1)
    """
    from amos_ref.conformance.algorithms import algorithm_of

    kind = algorithm_of(algorithm)
    if port is None:
        from amos_ref.conformance.report import Report
        from amos_ref.conformance.selfcheck import self_check

        check_suite(suite)
        return Report("this installation", self_check(progress))
    from amos_ref.conformance import expect as expectations
    from amos_ref.conformance.judging.drive import check_eta
    from amos_ref.conformance.judging.judge import run
    from amos_ref.conformance.outcome import Outcome
    from amos_ref.conformance.ports.target import as_other, as_port
    from amos_ref.conformance.ports.watchdog import check_timeout
    from amos_ref.conformance.selection import check_runnable, select

    check_suite(suite)
    select([], dtypes, cases, skip, kind)  # what does not exist is said before the port is imported
    rule, known = kind.scale_rule(eta=eta, sigma=sigma), kind.read_words(words or {})
    apart = isinstance(port, str)  # it runs in a process of its own, whose answers are waited for no longer than that
    timeout, listed = check_timeout(timeout, alarm=not apart), expectations.read(expect, kind)
    driven, within = as_port(port, renamed, timeout, kind, known), None if apart else timeout
    try:
        every = cases_of(suite, driven, kind, dtypes)
        chosen = select(every, dtypes, cases, skip, kind)
        check_runnable(driven, chosen, every)
        check_eta(rule, chosen)
        again = functools.partial(as_other, port, driven, renamed or {}, timeout)
        outcome = Outcome(driven, suite, listed, every, found, kind, again)
        try:
            results, _ = run(driven, chosen, rule, within, progress, outcome.is_expected, outcome.note)
            return outcome.report(outcome.diagnose(results, rule, within, say))
        except KeyboardInterrupt as error:
            raise outcome.interrupt(error) from error
    finally:
        if hasattr(driven, "close"):
            driven.close()  # pyright: ignore[reportAttributeAccessIssue]


def check_suite(suite: str) -> None:
    """Raise TargetError if there is no such suite."""
    from amos_ref.errors import TargetError

    if suite not in ("full", "quick"):
        raise TargetError(f"suite is {suite!r}; it must be 'full' or 'quick'")


def cases_of(suite: str, port: "Port", algorithm: "Algorithm | None" = None, dtypes: "Texts" = None) -> "list[Case]":
    """Return the cases of a suite in the dtypes that a port takes; "quick" in the most precise of them only.

    They are paper Amos's unless another algorithm is given. With `dtypes`, "quick" takes the most precise of these.

    The cases of an optimizer's life are in both suites, in the most precise dtype.
    """
    from amos_ref.conformance.algorithms import PAPER_AMOS
    from amos_ref.conformance.cases import round_case
    from amos_ref.conformance.judging.drive import UNDECLARED_DTYPES
    from amos_ref.conformance.life import is_life
    from amos_ref.conformance.selection import as_list

    check_suite(suite)
    asked = as_list(dtypes) if dtypes is not None and suite == "quick" else None
    known = getattr(port, "dtypes", UNDECLARED_DTYPES)
    taken = [name for name in ("float64", "float32", "bfloat16", "float16") if name in known]
    taken = [name for name in taken if asked is None or name in asked] or taken
    every = (algorithm or PAPER_AMOS).table()
    wanted = [case for case in every if not is_life(case) and case.dtype in (taken if suite == "full" else taken[:1])]
    return wanted + [round_case(case, dtype) for case in every if is_life(case) for dtype in taken[:1]]
