"""Run a port through a case: what it shows after each step, or how it failed."""

import contextlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS, Algorithm
from amos_ref.conformance.cases import Case
from amos_ref.conformance.ports.failures import Garbage, Unsupported, failure_of, first_line, message, text_of
from amos_ref.conformance.ports.port import Arrays, Port, copy_shown
from amos_ref.conformance.ports.watchdog import Hangs, time_limit
from amos_ref.dtypes import dtype_of
from amos_ref.errors import MissingDependencyError, RuleError, TargetError
from amos_ref.rules import eta_of, scale_of

UNDECLARED_DTYPES = ("float64", "float32")  # of a port that has no attribute `dtypes`


class Observation(NamedTuple):
    """What a port did with a case.

    Attributes
    ----------
    case : Case
        With the options that the port was run with, where these are its own.
    etas : dict of str to float
        The eta, or sigma, of each leaf: the case's, or the port's own.
    shown : list of dict
        After each step: ``{"theta": {leaf: array}}``, and the state as far as the port shows it; float64 copies.
    overwritten : set of str
        Leaves whose gradient the port wrote to.
    refused : str
        The port's own words, if it refused a step that was given NaN or infinity: it was asked no more. Else "".
    """

    case: Case
    etas: dict[str, float]
    shown: list[dict[str, Arrays]]
    overwritten: set[str]
    refused: str = ""


def observe(port: Port, case: Case, eta: Any = None, timeout: float | None = None) -> Observation:
    """Run a case that the port supports (see :func:`unsupported`), or raise Failure.

    Parameters
    ----------
    port : Port
    case : Case
        A port without beta is run with 0.999.
    eta : rule, optional
        What the port hard-codes, if it neither takes eta nor tells its own.
    timeout : float, optional
        Seconds that its init and each of its steps may take.
    """
    etas = _find_etas(port, case, eta, timeout)
    seen = Observation(_as_run(port, case, eta), etas, [], set())
    with _failures_of(None, timeout):
        _start(port, seen.case, seen.etas)
    _undergo(port, case, 0, timeout)
    try:
        for shown in _drive(port, case, seen.overwritten, timeout):
            seen.shown.append(shown)
    except Failure as failed:
        if not failed.refuses(case):
            raise
        return seen._replace(refused=f"step {failed.step} is refused: {failed.detail}")
    return seen


def _as_run(port: Port, case: Case, eta: Any = None) -> Case:
    """Return the case with the port's own options where it cannot be given ours."""
    algorithm = ALGORITHMS[case.algorithm]
    lacking = [name for name in algorithm.unasked if name in case.options and name not in port.options]
    own = {name: algorithm.options[name] for name in lacking}
    if algorithm.measured and algorithm.scale not in port.options:
        own |= {algorithm.scale: algorithm.measured} if eta is None else {}
    for option in algorithm.words:
        word, *more = _words_of(port, option, algorithm) or (algorithm.options[option],)
        if option in algorithm.told and not more and option not in case.options and word != algorithm.options[option]:
            own[option] = word
    return case._replace(options=case.options | own) if own else case


def _as_taken(port: Port, case: Case) -> Mapping[str, Any]:
    """Return the case's options as the port can be given them; what a leaf has of its own is not exchanged."""
    return case.options if case.groups else ALGORITHMS[case.algorithm].exchange(case.options, port.options)


def _words_of(port: Port, option: str, algorithm: Algorithm) -> Collection[str]:
    """Return the words that a port knows of an option; of one that it has not, the one that it hard-codes."""
    usual = algorithm.words[option] if option in port.options else (algorithm.options[option],)
    words = getattr(port, "words", {})
    if not isinstance(words, Mapping):
        raise TargetError(f"{port.name} has words of type {type(words).__name__}; they must be a dict by option")
    known = words.get(option, usual)
    return (known,) if isinstance(known, str) else tuple(known)


def refused_word(case: Case, failed: "Failure") -> str:
    """Return which word of an option the port refuses by name at its start, with what it says; "" if it does not."""
    algorithm = ALGORITHMS[case.algorithm]
    for option in algorithm.words if failed.verdict == "raises" and failed.step in (None, 1) else ():
        word = case.options.get(option, algorithm.options[option] if option in algorithm.told else None)
        if isinstance(word, str) and re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", failed.detail):
            return f"the port has no {option} {word!r}: {failed.detail}"
    return ""


class Failure(Exception):
    """The port failed: at its start (step None) or at a step."""

    step: int | None
    error: BaseException
    verdict: str
    detail: str

    def __init__(self, step: int | None, error: BaseException, where: str = "") -> None:
        told = Hangs if isinstance(error, Hangs) else failure_of(error)
        self.step, self.error, self.verdict = step, error, told.verdict if told else "raises"
        self.detail = where + (message(error) if told else first_line(error))

    def refuses(self, case: Case) -> bool:
        """Whether the port raised an error of its own at a step that NaN or infinity had reached."""
        first = case.first_not_finite()
        reached = self.step is not None and first is not None and self.step >= first - bool(case.inject)
        return reached and self.verdict == "raises" and not isinstance(self.error, MemoryError)


@contextlib.contextmanager
def _failures_of(step: int | None, timeout: float | None, where: str = "") -> Iterator[None]:
    """Run the port's code: what it prints is no part of our output, and whatever it raises is a failure of its own.

    That a number overflows or is invalid is the verdict's to say, not NumPy's.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), np.errstate(all="ignore"), time_limit(timeout):
            yield
    except (MissingDependencyError, TargetError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise Failure(step, error, where) from error


def unsupported(port: Port, case: Case) -> str:
    """Return why the port cannot be run through the case; "" if it can."""
    algorithm, own = ALGORITHMS[case.algorithm], _as_run(port, case)
    needed = own._replace(options=_as_taken(port, own)).needs()
    lacking = sorted(needed - set(port.options) - set(algorithm.words))
    if lacking:
        return f"the port has no {', '.join(lacking)}"
    for option in algorithm.words:
        word = own.options.get(option, algorithm.options[option] if option in algorithm.told else None)
        if word is not None and word not in _words_of(port, option, algorithm):
            return f"the port has no {option} {word!r}"
    if not port.skips_none and any(g is None for grads in case.grads for g in grads.values()):
        return "the port's framework has no gradient of None"
    if case.dtype not in getattr(port, "dtypes", UNDECLARED_DTYPES):
        return f"the port has no {case.dtype}"
    if case.inject and not hasattr(port, "put"):
        return "the port's state cannot be set"
    if case.count is not None and not hasattr(port, "put_count"):
        return "the port's count cannot be set"
    if case.events and not hasattr(port, "undergo"):
        return "the port has no method undergo"
    return ""


def _find_etas(port: Port, case: Case, eta: Any, timeout: float | None) -> dict[str, float]:
    algorithm = ALGORITHMS[case.algorithm]
    scale = algorithm.scale
    if scale in port.options:
        if eta is not None:
            text = f"takes {scale}, so --{scale}, which is for ports that hard-code it, does not apply"
            raise TargetError(f"{port.name} {text}")
        return case.eta
    if eta is not None:
        if scale in case.options:
            raise Failure(None, Unsupported(f"the port has the {scale} that is given, and measures none"))
        try:
            return {name: scale_of(eta, scale, name, a.shape) for name, a in case.params.items()}
        except RuleError as error:  # where it has a value in no case, check_eta has said so
            raise Failure(None, Unsupported(f"--{scale} has no value here: {error}")) from error
    if algorithm.measured:
        return case.eta
    own = {name: _ask_eta(port, case, name, timeout) for name in case.params}
    if None in own.values():
        text = f"takes no {scale} and has no get_scale to ask: --{scale} RULE says what it uses"
        others = [other for other in ALGORITHMS.values() if other.scale != scale]
        hints = [f"if it is a port of {one.title}, which has no {scale}: --algorithm {one.name}" for one in others]
        raise TargetError(f"{port.name} {'; '.join([text, *hints])}")
    return own  # type: ignore[return-value]


def _ask_eta(port: Port, case: Case, name: str, timeout: float | None) -> float | None:
    """Ask the port for its own eta of a leaf; None if it hard-codes none. What it raises is a failure of this case."""
    a = case.params[name]
    where = f"asked for its eta of leaf {name!r}, of shape {a.shape}: "
    with _failures_of(None, timeout, where):
        own = port.own_eta({name: a.astype(dtype_of(case.dtype))})
    if own is None:
        return None
    if not isinstance(own, dict) or name not in own:
        raise TargetError(f"{port.name} tells its eta as {text_of(own)}; it must be a dict with an entry for each leaf")
    try:
        return eta_of(own[name], name, a.shape)
    except RuleError as error:
        raise Failure(None, Garbage(str(error)), where) from error


def check_eta(eta: Any, cases: Sequence[Case]) -> None:
    """Raise TargetError or RuleError if what --eta says has a value in no case."""
    if isinstance(eta, str) and not eta.strip():
        scale = ALGORITHMS[cases[0].algorithm].scale if cases else "eta"
        text = "it must be a number, or an expression in SHAPE such as sqrt(1/SHAPE[-1])"
        raise TargetError(f"--{scale} is empty; {text}")
    errors = []
    for case in cases if eta is not None else ():
        try:
            for name, a in case.params.items():
                scale_of(eta, ALGORITHMS[case.algorithm].scale, name, a.shape)
        except RuleError as error:
            errors.append(error)
        else:
            return
    if errors:
        raise errors[0]


def _start(port: Port, case: Case, etas: dict[str, float]) -> None:
    algorithm = ALGORITHMS[case.algorithm]
    hyper = {name: algorithm.options[name] for name in algorithm.told} | {algorithm.scale: etas}
    hyper |= _as_taken(port, case)
    hyper = {name: list(x) if isinstance(x, tuple) else x for name, x in hyper.items()}
    if "slot_shape" in port.options:
        hyper["slot_shape"] = case.slots
    if case.groups:
        hyper["groups"] = {name: dict(own) for name, own in case.groups.items()}
    port.init({name: a.astype(dtype_of(case.dtype)) for name, a in case.params.items()}, hyper)


def _undergo(port: Port, case: Case, t: int, timeout: float | None) -> None:
    if t in case.events:
        with _failures_of(t or None, timeout, f"{case.events[t]}: "):
            port.undergo(case.events[t])  # type: ignore[attr-defined]


def _drive(port: Port, case: Case, overwritten: set[str], timeout: float | None) -> Iterator[dict[str, Arrays]]:
    """Yield what the port shows after each step: theta, and its state if it shows that.

    Leaves whose gradient the port writes to, in the step it is given for or later, are added to `overwritten`.
    """
    given: list[Arrays] = []
    for t, grads in enumerate(case.grads, 1):
        given.append({name: g.astype(dtype_of(case.dtype)) for name, g in grads.items() if g is not None})
        with _failures_of(t, timeout):
            theta, state = port.step(dict.fromkeys(grads) | given[-1]), port.state()
            shown = copy_shown(theta, state, case.params)
            if t == 1 and case.inject:
                port.put(_values_to_put(case, shown))  # type: ignore
            if t == 1 and case.count is not None:
                port.put_count(case.count)  # type: ignore
        for ours, theirs in zip(case.grads, given, strict=False):
            overwritten |= {k for k, g in theirs.items() if not np.array_equal(g, ours[k], equal_nan=True)}  # type: ignore
        _undergo(port, case, t, timeout)
        yield shown


def _values_to_put(case: Case, shown: dict[str, Arrays]) -> dict[str, Arrays]:
    """Return copies of the state that a case sets; a momentum has the port's sign, which may be of what it subtracts.

    The first momentum is the first change of theta, but for that sign and for what storing theta rounds.
    """
    values = {what: {name: a.copy() for name, a in arrays.items()} for what, arrays in (case.inject or {}).items()}
    change = ALGORITHMS[case.algorithm].change or ""
    for name, m in shown.get(change, {}).items():
        moved = shown["theta"][name] - case.params[name]
        if m.shape == moved.shape and 4 * np.abs(m + moved).max(initial=0.0) < np.abs(m - moved).max(initial=0.0):
            values[change][name] *= -1.0
    return values
