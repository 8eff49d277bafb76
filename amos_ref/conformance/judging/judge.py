"""A port beside the page, case by case: each comes to one of the verdicts, with where a port first departs."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.bound import UNIT_ROUNDOFF
from amos_ref.conformance.judging.drive import Failure, Observation, observe, refused_word, unsupported
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.judging.tolerance import Moment, trajectory, trajectory_of_page
from amos_ref.conformance.judging.verdicts import FAILING, UNANSWERED
from amos_ref.conformance.ports.port import Arrays, Port
from amos_ref.errors import TargetError

STAGES = PAPER_AMOS.stages

#: How many cases may come to these before the rest is given up, so that a check comes to an end.
PATIENCE = {"hangs": 3, "ended": 10, "killed": 10}
NOT_RUN = "not run, since "  # how the detail of a case begins that was given up


class Result(NamedTuple):
    """What one case showed.

    Attributes
    ----------
    case, dtype, about : str
    verdict : {"conforms", "departs", "wrong shape", "not finite", "overwrites its input", "raises", "hangs", \
"ended", "killed", "crashes", "garbage", "no longer departs", "not supported"}
        What each means is in :data:`amos_ref.conformance.judging.verdicts.VERDICTS`.
    step : int or None
        The first step that departs or fails, from 1; None if that was init.
    stage : str or None
        The first quantity of that step that departs, among those the port shows: v, b, m, theta of paper Amos; m, v,
        theta of the closed form.
    leaf : str or None
    ratio : float or None
        The largest difference over its bound: at most 1 conforms.
    detail : str
        In words: what the port has and the page has, the port's message, or the options it lacks.
    only_state : bool
        Whether theta conforms at every step, and only what the port shows of its state departs.
    expected : str or None
        Why the port's author expects this verdict, if it is listed as expected.
    seconds : float or None
        How long it took; None if that was not measured.
    """

    case: str
    dtype: str
    about: str
    verdict: str
    step: int | None = None
    stage: str | None = None
    leaf: str | None = None
    ratio: float | None = None
    detail: str = ""
    only_state: bool = False
    expected: str | None = None
    seconds: float | None = None

    @property
    def was_run(self) -> bool:
        """Whether the port was asked, or the case was given up before that."""
        return not self.detail.startswith(NOT_RUN)

    @property
    def failed(self) -> bool:
        """Whether it fails a check."""
        return self.verdict in FAILING and self.expected is None

    @property
    def label(self) -> str:
        """The verdict, and whether it was expected."""
        return self.verdict if self.expected is None else f"{self.verdict} as expected"


def judge(port: Port, case: Case, eta: Any = None, timeout: float | None = None) -> tuple[Result, Observation | None]:
    """Run one case on a port and on the page; return what came of it, and what the port did if it did it.

    Parameters
    ----------
    port, case, eta, timeout
        As for :func:`amos_ref.conformance.judging.drive.observe`.
    """
    head = (case.name, case.dtype, case.about)
    reason = unsupported(port, case)
    if reason:
        return Result(*head, "not supported", detail=reason), None
    try:
        seen = observe(port, case, eta, timeout)
    except Failure as failed:
        if lacks := refused_word(case, failed):
            return Result(*head, "not supported", detail=lacks), None
        return Result(*head, failed.verdict, step=failed.step, detail=failed.detail), None
    result = compare(seen)
    return result, None if result.verdict == "conforms" and result.detail in case.also else seen


def compare(seen: Observation) -> Result:
    """Judge what a port did with a case."""
    case, shown = seen.case, seen.shown
    head = (case.name, case.dtype, case.about)
    moments = trajectory_of_page(case, seen.etas)
    departure, worst = first_departure(shown, moments)
    only_state = bool(
        departure and departure["stage"] != "theta" and not first_departure(shown, moments, ("theta",))[0]
    )
    written = ", ".join(map(repr, sorted(seen.overwritten)))
    if written and (departure is None or only_state):
        detail = f"it writes to the gradient of {written}: a second step with the same gradient would use other numbers"
        return Result(*head, "overwrites its input", leaf=min(seen.overwritten), detail=detail)
    if departure is None:
        return Result(*head, "conforms", ratio=worst, detail=seen.refused)
    for does, overrides in case.also.items():
        if first_departure(shown, trajectory(case, seen.etas, Reading([overrides])))[0] is None and not written:
            return Result(*head, "conforms", detail=does)
    if case.dtype in UNIT_ROUNDOFF:
        departure["detail"] += _describe_step(departure, shown, moments)
    if written:
        departure["detail"] += f"; it also writes to the gradient of {written}"
    return Result(*head, **departure, only_state=only_state)


def first_departure(
    port: list[dict[str, Arrays]],
    page: Iterable[dict[str, Moment]],
    stages: Iterable[str] | None = None,
    slack: float = 1.0,
    loose: bool = False,
) -> tuple[dict[str, Any] | None, float]:
    """Return the first departure, None if there is none, and the largest ratio of difference to `slack` bounds.

    Without `stages`, all that the algorithm has are compared. If it is `loose`, what is not finite is one thing: where
    a reading divides by 0, infinity or NaN comes of it, as its products are grouped.
    """
    worst = 0.0
    for t, (got, ref) in enumerate(zip(port, page, strict=False), 1):
        algorithm = next((moment.step.algorithm for moment in ref.values()), PAPER_AMOS)
        for stage in algorithm.stages if stages is None else stages:
            for name, moment in ref.items():
                ours = getattr(moment.step, stage)
                if ours is None or name not in got.get(stage, {}):
                    continue
                theirs, ours, allowed = got[stage][name], np.asarray(ours), slack * moment.allowed[stage]
                if loose and theirs.size == ours.size:
                    neither = ~np.isfinite(theirs) & ~np.isfinite(ours.reshape(theirs.shape))
                    theirs = np.where(neither, ours.reshape(theirs.shape), theirs)
                found = _compare(theirs, ours, allowed, stage == "theta")
                # A port may keep the change that it subtracts; a sign that is really wrong shows in theta.
                if stage == algorithm.change:
                    found = min(found, _compare(-theirs, ours, allowed, False))
                ratio, text, verdict = found
                if ratio > 1:
                    return dict(verdict=verdict, step=t, stage=stage, leaf=name, ratio=ratio, detail=text), ratio
                worst = max(worst, ratio)
    return None, worst


def _compare(got: np.ndarray, ref: np.ndarray, bound: np.ndarray, theta: bool) -> tuple[float, str, str]:
    """Return the largest difference over its bound, the entry that shows it, and the verdict if it is too large."""
    if got.size == ref.size and not theta:
        got = got.reshape(ref.shape)
    if got.shape != ref.shape:
        # Slots of another shape are a reading of the algorithm; parameters of another shape are none.
        text = f"shape {got.shape} where the page has {ref.shape}"
        return np.inf, text, "wrong shape" if theta else "departs"
    if not ref.size:
        return 0.0, "", ""
    with np.errstate(all="ignore"):
        # NaN must meet NaN. Where the page has infinity, a right evaluation may have subtracted two of them.
        same = (got == ref) | np.isnan(got) & ~np.isfinite(ref)
        ratios = np.where(same, 0.0, np.where(bound > 0, np.abs(got - ref) / bound, np.inf))  # no bound allows nothing
    broken = np.isfinite(ref) & ~np.isfinite(got)
    ratios = np.where(np.isnan(ratios) | broken, np.inf, ratios)
    worst = float(ratios.max())
    if worst <= 1:
        return worst, "", ""
    index = np.unravel_index(int(np.argmax(broken if broken.any() else ratios)), ref.shape)
    where = f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
    text = f"{where} is {float(got[index]):.9g} where the page has {float(ref[index]):.9g}".strip()
    return float(ratios[index]), text, "not finite" if broken.any() else "departs"


def _describe_step(departure: dict[str, Any], port: list[dict[str, Arrays]], page: Sequence[dict[str, Moment]]) -> str:
    """Split the port's first wrong change of theta into alpha and rho, where one slot lets least squares do it."""
    t, name = departure["step"], departure["leaf"]
    s, got = page[t - 1][name].step, port[t - 1]["theta"][name]
    before = port[t - 2]["theta"][name] if t > 1 else s.old_theta
    along, plain = s.algorithm.along, np.array_equal(s.theta, s.old_theta + s.delta, equal_nan=True)  # no momentum
    if departure["stage"] != "theta" or got.shape != before.shape or not plain or np.size(s.alpha) != 1 or got.size < 3:
        return ""
    basis = np.stack([getattr(s, along).reshape(-1), before.reshape(-1)], axis=1)
    change = (before - got).reshape(-1)
    if not (np.isfinite(change).all() and np.isfinite(basis).all()) or np.linalg.matrix_rank(basis) < 2:
        return ""
    (alpha, rho), *_ = np.linalg.lstsq(basis, change, rcond=None)
    if np.abs(basis @ (alpha, rho) - change).max() > 1e-3 * np.abs(change).max():
        return f"; the change is not of the form alpha*{along} + rho*theta"
    page_alpha, page_rho = float(np.reshape(s.alpha, ())), float(np.reshape(s.rho, ()))
    return f"; alpha is {alpha:.5g} (page {page_alpha:.5g}), rho is {rho:.5g} (page {page_rho:.5g})"


def run(
    port: Port,
    cases: list[Case],
    eta: Any = None,
    timeout: float | None = None,
    progress: Callable[[Any], Any] = iter,
    expected: Callable[[Result], bool] = lambda result: False,
    found: Callable[[Result, Observation | None], None] = lambda result, observation: None,
) -> tuple[list[Result], list[Observation]]:
    """Judge every case; `progress` wraps the iterable, as rich.progress.track does, and `found` is told each result.

    After a few cases without an answer the rest is not run. Those that are `expected` do not count: what is not run
    could pass as expected.

    Raises
    ------
    TargetError
        If the port could not even be started on any case.
    """
    results, seen, silent = [], [], Counter()
    for case in progress(cases):
        lost = next((v for v, n in PATIENCE.items() if silent[v] >= n), None)
        if lost is not None:
            detail = f"{NOT_RUN}{PATIENCE[lost]} cases before it gave no answer"
            results.append(Result(case.name, case.dtype, case.about, lost, detail=detail))
            continue
        begun = time.perf_counter()
        result, observation = judge(port, case, eta, timeout)
        results.append(result._replace(seconds=time.perf_counter() - begun))
        silent[result.verdict] += not expected(result)
        seen += [observation] if observation else []
        found(results[-1], observation)
    if len(results) < len(cases):
        raise TargetError(f"{len(cases) - len(results)} of {len(cases)} cases were not run: `progress` left them out")
    driven = [r for r in results if r.verdict != "not supported"]
    if driven and all(r.verdict == "raises" and r.step is None for r in driven):
        raise TargetError(f"{port.name} could not be started on any case: {driven[0].detail}")
    return settle(results, cases), seen


def settle(results: list[Result], cases: Iterable[Case]) -> list[Result]:
    """Return the results, changed where only all cases together tell what one means."""
    named = {case.name: case for case in cases}
    return _accept_own_forms(_accept_refusals(results, named), named)


def _accept_refusals(results: list[Result], named: dict[str, Case]) -> list[Result]:
    """Take an error for a refusal where every case that needs a thing raises one at once, and another with slots runs.

    A port that takes the thing in one case and raises in another has a fault, and so has one that raises at any slots.
    """
    needing = [r for r in results if named[r.case].may_lack and r.verdict != "not supported"]
    others = [r for r in results if any(named[r.case].slots.values()) and not named[r.case].may_lack]
    at_once = all(r.verdict == "raises" and r.step in (None, 1) for r in needing)
    if not at_once or (others and all(r.verdict in ("not supported", *UNANSWERED) for r in others)):
        return results
    return [_refused(r, named[r.case]) if r in needing else r for r in results]


def _refused(r: Result, case: Case) -> Result:
    return r._replace(verdict="not supported", step=None, detail=f"the port takes no {case.may_lack}: {r.detail}")


def _accept_own_forms(results: list[Result], named: dict[str, Case]) -> list[Result]:
    """Where theta conforms in every case of the formulas, accept a state that differs: it is a form of its own.

    Such a state cannot be set to the page's, so that cases which do so say nothing. What departs in another case, as
    where something happens to the optimizer, changes nothing of this.
    """
    right = ("conforms", "overwrites its input", "not supported")
    plain = [r for r in results if not named[r.case].special()]
    kept = [r for r in plain if not named[r.case].inject]
    if any(r.only_state for r in kept) and all(r.verdict in right or r.only_state for r in kept):
        setting = {name for name, case in named.items() if case.inject or case.count is not None}
        return [_leave_out(r) if r.case in setting else _accept_own_form(r) if r.only_state else r for r in results]
    return results


def _leave_out(r: Result) -> Result:
    detail = "the port's state is something else than ours, and cannot be set to ours"
    return Result(r.case, r.dtype, r.about, "not supported", detail=detail)


def _accept_own_form(r: Result) -> Result:
    detail = f"theta conforms; the port's {r.stage} is something else than ours: {r.detail}"
    return r._replace(verdict="conforms", step=None, stage=None, leaf=None, ratio=None, detail=detail)
