"""Whether a port that departs is another algorithm altogether.

How far rounding may take a right port of a variant is measured: the variant is evaluated EVALUATIONS times in float32,
rounded up or down at random (judging/evaluation.py), and WIDENED times the largest error so far is allowed, for each
leaf. For float64, where errors are proportionally smaller, that is scaled by the ratio of the two unit roundoffs.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from amos_ref.closed_form import Schedule
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import Case
from amos_ref.conformance.diagnosis.variants import (
    GIVEN,
    OTHER_ALGORITHMS,
    Settings,
    Variant,
    VariantReading,
    closed_form_amos,
)
from amos_ref.conformance.judging.bound import UNIT_ROUNDOFF
from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.evaluation import draw
from amos_ref.errors import AmosError

EVALUATIONS = 4
WIDENED = 16.0
ROUGH = 1e-3  # of a leaf's way: what is off by more is ruled out before rounding is measured
#: Ways to count, for which most cases need not be tried.
COUNTS: tuple[dict[str, Any], ...] = ({}, {"own_count": True}, {"from_0": True}, {"own_count": True, "from_0": True})
DECAYS: tuple[dict[str, Any], ...] = (
    {"decay": "inverse-time"},
    {"decay": "inverse-square"},
    {"decay": "recurrence"},
    {"decay": "recurrence", "p_t": "constant"},
)


@np.errstate(all="ignore")  # of what a port overflows
def recognise(seen: Sequence[Observation]) -> str | None:
    """Say which other algorithm reproduces theta in every case that can be decided; None if none does.

    Parameters
    ----------
    seen : sequence of Observation
        What the port did with each case. The most precise of float64 and float32 is looked at; of a case in which the
        judge sets the state, only the step before it does, since a variant keeps another state.
    """
    same = next((s for d in UNIT_ROUNDOFF if (s := [one for one in seen if one.case.dtype == d])), [])
    if not same or not any(np.any(one.shown[0]["theta"][k] != a) for one in same for k, a in one.case.params.items()):
        return None
    dtype, algorithm = same[0].case.dtype, ALGORITHMS[same[0].case.algorithm]
    steady = [one for one in same if _is_steady(one.case)]
    near = [
        (variant, {**settings, **counts})
        for variant in OTHER_ALGORITHMS
        if not (variant.rule is closed_form_amos and algorithm.name == "closed-form")  # the catalogue's
        for settings in _settings(variant, same)
        if all(_is_near(variant, settings, one) for one in steady)
        for counts in COUNTS
        if all(_is_near(variant, {**settings, **counts}, one) for one in same)
    ]
    for within in dict.fromkeys((dtype, "float32")):
        for variant, settings in near:
            fits = list(_all_fit(variant, settings, same, UNIT_ROUNDOFF[within]))
            decided = fits.count(True)
            if False not in fits and 2 * decided > len(same):
                return _say(variant, settings, decided, same, within)
    return None


def _is_steady(case: Case) -> bool:
    """Whether all ways to count are one: no leaf is skipped, and there is one learning rate."""
    whole = all(g is not None for given in case.grads for g in given.values())
    return whole and isinstance(case.options[ALGORITHMS[case.algorithm].rate], float)


def _say(variant: Variant, settings: Settings, decided: int, same: Sequence[Observation], within: str) -> str:
    case, all_of = same[0].case, len(same)
    dtype = case.dtype
    chosen = ", ".join(_word(name, x) for name, x in settings.items() if _word(name, x))
    lines = [f"this is not {ALGORITHMS[case.algorithm].title} but {variant.name}: {variant.about}."]
    lines += [f"it has {chosen}."] if chosen else []
    left = f"; {all_of - decided} could not be decided" if decided < all_of else ""
    held = "" if within == dtype else ", in float32's bounds"
    lines.append(f"with that, theta of all {decided} cases in {dtype} is reproduced{held}{left}. See docs/variants.md.")
    return "\n".join(lines)


def _word(name: str, x: Any) -> str:
    """Say a setting, if it is worth saying."""
    if name == "schedule":
        return ", ".join(f"{key.replace('_', ' ')} {value:g}" if value.__class__ is float else str(value)
                         for key, value in x.items())  # fmt: skip
    words = {
        ("momentum", 0.9): "beta1 0.9 in every case",
        ("norm", 1.0): "all gradients clipped to a joint norm of 1",
        ("norm", GIVEN): "clip_value as a joint norm of all gradients",
        ("nu_clip", False): "no clipping by nu",
        ("own_count", True): "a count for each leaf",
        ("from_0", True): "a schedule read from 0",
        ("place", "uncorrected"): "epsilon beside the root of an uncorrected v",
        ("place", "within"): "epsilon within the root",
        ("sigma", "eta"): "sigma from eta",
        ("sigma", "initial"): "sigma from the initial entries",
        ("direction", "sign"): "the sign of the gradient as direction",
        ("undamped", False): "a damped momentum",
        ("nesterov", True): "Nesterov's momentum",
    }
    if name == "epsilon":
        return f"epsilon {x:g}"
    if name == "decay" and x[1] not in (GIVEN, 0.0):
        return f"weight decay {x[1]:g}"
    return words.get((name, x), "") if not isinstance(x, tuple) else ""


def _settings(variant: Variant, same: Sequence[Observation]) -> Iterator[Settings]:
    """Yield every combination of a variant's settings; a closed form's schedule is measured first."""
    for values in itertools.product(*variant.settings.values()):
        settings = dict(zip(variant.settings, values, strict=True))
        if variant.rule is closed_form_amos:
            yield from (settings | {"schedule": schedule} for schedule in _measure_schedules(settings, same))
        else:
            yield settings


def _measure_schedules(settings: Settings, same: Sequence[Observation]) -> Iterator[dict[str, Any]]:
    """Yield the schedules under which the closed form shrinks as it did in the longest case with one learning rate."""
    from scipy.optimize import brentq

    constant = [one for one in same if _is_steady(one.case) and not one.case.inject]
    if not constant:
        return
    one = max(constant, key=lambda one: (len(one.case.grads), one.case.options["learning_rate"]))
    alpha_0, last = one.case.options["learning_rate"], len(one.case.grads) - 1
    unshrunk = {**settings, "schedule": {"decay": "inverse-time", "half_life": 1e300}}
    shrink = _shrink(unshrunk, one)
    if not (last and abs(shrink[0] - 1.0) < ROUGH and 0.0 < shrink[-1] < 1.0):
        return
    for decay, unknown in itertools.product(DECAYS, ("half_life", "p_0")):

        def gap(log: float, decay: Any = decay, unknown: str = unknown) -> float:
            plan: dict[str, Any] = {**decay, unknown: math.exp(log)}
            return float(Schedule(alpha_0, **plan).shrink(last)) - shrink[-1]

        try:
            found = math.exp(brentq(gap, -30.0, 30.0, xtol=1e-15))  # pyright: ignore[reportArgumentType]
        except (ValueError, AmosError):
            continue
        near = {float(f"{found:.4g}"), float(f"{found:.9g}"), found}
        yield from ({**decay, unknown: x} for x in sorted(near, key=lambda x: len(repr(x))))


def _shrink(settings: Settings, one: Observation) -> list[float]:
    """Return how long each step of a port is, relative to that of a closed form that does not fall."""
    found = []
    for t, now in enumerate(VariantReading(closed_form_amos, settings).run(one.case, one.etas, one.shown), 1):
        steps = [s for s in now.values() if s.count == t]
        ours = np.concatenate([(s.theta - s.old_theta).reshape(-1) for s in steps])
        theirs = np.concatenate([(one.shown[t - 1]["theta"][s.name] - s.old_theta).reshape(-1) for s in steps])
        found.append(float(ours @ theirs / (ours @ ours)) if ours.any() else np.nan)
    return found


def _all_fit(variant: Variant, settings: Settings, same: Sequence[Observation], u: float) -> Iterator[bool | None]:
    """Yield whether each case fits, until one does not."""
    for one in same:
        yield (fits := _fits(variant, settings, one, u))
        if fits is False:
            return


def _ways(reading: VariantReading, one: Observation) -> Iterator[tuple[int, str, Any, Any]]:
    """Yield (step, leaf, theta, |theta - theta_0|) of each step that the port took by itself."""
    steps = 1 if one.case.inject else len(one.case.grads)
    for t, now in enumerate(itertools.islice(reading.run(one.case, one.etas), steps), 1):
        for name, start in one.case.params.items():
            theta = np.asarray(now[name].theta) if name in now else start
            yield t, name, theta, np.abs(theta - start)


def _is_near(variant: Variant, settings: Settings, one: Observation) -> bool:
    """Whether the port's theta is roughly the variant's at every step."""
    way: dict[str, float] = {}
    try:
        for t, name, theta, moved in _ways(VariantReading(variant.rule, settings), one):
            got = one.shown[t - 1]["theta"][name]
            if got.shape != theta.shape or not np.array_equal(np.isfinite(got), np.isfinite(theta)):
                return False
            if not np.isfinite(theta).all():
                return True
            way[name] = max(way.get(name, 0.0), np.max(moved, initial=0.0))
            allowed = ROUGH * way[name] + 1e-6 * np.max(np.abs(theta), initial=0.0)
            if not np.max(np.abs(got - theta), initial=0.0) <= allowed:
                return False
    except AmosError:  # a schedule that this learning rate does not allow decides nothing
        pass
    return True


def _fits(variant: Variant, settings: Settings, one: Observation, u: float) -> bool | None:
    """Whether the port's theta is the variant's but for rounding; None if something leaves that open.

    That is rounding, infinity, or a learning rate that the variant's schedule does not allow.
    """
    try:
        return _fits_but_for_rounding(variant, settings, one, u)
    except AmosError:
        return None


def _fits_but_for_rounding(variant: Variant, settings: Settings, one: Observation, u: float) -> bool | None:
    members = [draw("float32", seed).reading() for seed in range(EVALUATIONS)]
    runs = [_ways(VariantReading(variant.rule, settings, m.number, m.store), one) for m in members]
    error: dict[str, float] = {}
    way: dict[str, float] = {}
    for (t, name, theta, moved), *others in zip(_ways(VariantReading(variant.rule, settings), one), *runs, strict=True):
        gaps = [np.max(np.abs(other - theta), initial=0.0) for _, _, other, _ in others]
        error[name] = max(error.get(name, 0.0), *gaps)
        way[name] = max(way.get(name, 0.0), np.max(moved, initial=0.0))
        if not (way[name] == 0.0 or error[name] <= 0.1 * way[name]) or not np.isfinite(theta).all():
            return None
        size = 4.0 * t * u * np.max(np.abs(theta), initial=0.0)
        allowed = WIDENED * error[name] * (u / UNIT_ROUNDOFF["float32"]) + size
        if not np.max(np.abs(one.shown[t - 1]["theta"][name] - theta), initial=0.0) <= allowed:
            return False
    return True
