"""Tell a right port from a wrong one, and where it departs."""

from collections.abc import Callable, Mapping
from typing import Any

from amos_ref.conformance.cases import Case, table
from amos_ref.conformance.command_port import CommandPort
from amos_ref.conformance.diagnose import Diagnosis, diagnose
from amos_ref.conformance.judge import Result, run
from amos_ref.conformance.port import Port
from amos_ref.conformance.report import Report
from amos_ref.conformance.target import as_port
from amos_ref.errors import TargetError

__all__ = ["Case", "CommandPort", "Diagnosis", "Port", "Report", "Result", "check", "table"]


def check(
    port: Any = None,
    suite: str = "full",
    *,
    eta: Any = None,
    renamed: Mapping[str, str] | None = None,
    progress: Callable[[Any], Any] = iter,
) -> Report:
    """Run a port beside the page, case by case; without a port, check this installation.

    Parameters
    ----------
    port : Port, torch.optim.Optimizer class, optax-style factory or str, optional
        A str is "module:attr" or "path/to/file.py:attr". None checks the installed backends against the page
        and the page against the stored vectors, bit for bit.
    suite : {"full", "quick"}
        "quick" leaves out float32.
    eta : rule, optional
        The eta that a port hard-codes, if it neither takes eta nor has a get_scale to ask.
    renamed : mapping of str to str, optional
        Our option -> the port's parameter, where its name is not a usual one.
    progress : callable
        Wraps the iterable of cases, as ``rich.progress.track`` does.

    Returns
    -------
    Report
        ``report.ok``, ``report.to_dict()``, ``print(report)``.

    Raises
    ------
    TargetError
        If the port cannot be found, loaded or driven.
    MissingDependencyError
        If it needs a framework that is not installed.

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
    if suite not in ("full", "quick"):
        raise TargetError(f"suite is {suite!r}; it must be 'full' or 'quick'")
    if port is None:
        from amos_ref.conformance.selfcheck import self_check

        return Report("this installation", self_check(progress))
    driven = as_port(port, renamed)
    cases = [case for case in table() if suite == "full" or case.dtype == "float64"]
    try:
        results, seen = run(driven, cases, eta, progress)
        departs = any(result.verdict == "departs" for result in results)
        return Report(driven.name, results, diagnose(driven, seen, eta) if departs else None)
    finally:
        if hasattr(driven, "close"):
            driven.close()  # pyright: ignore[reportAttributeAccessIssue]
