"""Slips of the hand in the closed form's formulas: each has a name that says it, and none has another's."""

import ast
import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest

from amos_ref import closed_form
from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.closed_form.bound import Bound
from amos_ref.conformance.closed_form.edits import _APPLIED, _SYMBOLS, EDITS, FORMULAS
from amos_ref.conformance.closed_form.factors import GRAMMAR
from amos_ref.conformance.closed_form.formulas import correction, recurrence
from amos_ref.conformance.diagnosis.catalogue import KNOWN, deviation, reading_of
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.diagnosis.edits import edits
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.judging.drive import observe
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.pins import check_names
from tools.simulated_port import SimulatedPort

module = importlib.import_module("amos_ref.conformance.diagnosis.diagnose")
DOUBLE = [case for case in CLOSED_FORM.table() if case.dtype == "float64" and not case.special()]
SHOWING = "plain inverse-square inverse-square-p_0 p_0 recurrence recurrence-constant sigma-init-special adam".split()


def diagnosed(port, cases=DOUBLE):
    return diagnose(port, run(port, cases)[1])


class Slipped(SimulatedPort):
    """The page with stages of its own, as a port has them that a hand slipped in."""

    def __init__(self, **overrides):
        super().__init__(seed=5, dtypes=("float64",), algorithm="closed-form")
        self.overrides = [overrides]


def is_same(one, other):
    for case in (case for case in DOUBLE if case.name in (*SHOWING, "sigma-init", "everything", "none-at-first")):
        for now, then in zip(one.run(case, case.eta), other.run(case, case.eta), strict=True):
            if not all(
                are_near(getattr(now[k], what), getattr(then[k], what)) for k in then for what in "theta m v".split()
            ):
                return False
    return True


def are_near(a, b):
    return (a is None and b is None) or np.allclose(a, b, 1e-12, 1e-15, equal_nan=True)


@pytest.mark.parametrize(("stage", "form"), [(stage, form) for stage, of in FORMULAS.items() for form in of.forms])
def test_the_formulas_are_the_pages(stage, form):
    """A formula that is another one than the page's would make a name of a right port."""
    found = edits({stage: FORMULAS[stage]._replace(forms=(f"2*({form})",))}, _SYMBOLS, _APPLIED)  # one edit is the form
    name = f"{stage}-as-{ast.unparse(ast.parse(form)).replace(' ** ', '^').replace(' ', '')}"
    assert is_same(Reading([found[name].overrides]), Reading())
    assert not is_same(Reading([found[f"{stage}-as-2"].overrides]), Reading())


def planned(falling, constant):
    """Override exp(-2S) of the closed forms."""

    def shrink(s, page):
        return page(s) if s.decay == "recurrence" else falling(s.x) if s.falling else constant(s.x)

    return {"shrink": shrink}


def adam(way):
    return {"u": lambda s, page: way(s) if s.direction == "adam" else page(s)}


def directed(s, n):
    q1, q2 = (correction(beta, n) for beta in (s.beta1, s.beta2))
    return s.m / q1 / (np.sqrt(s.v / q2) + s.adam_epsilon)


def summed(s, page):
    if s.decay != "recurrence":
        return page(s)
    sums = np.float64(0.0)
    for _ in range(s.t):
        sums = sums + s.k / np.exp(-sums)
    return np.exp(-sums if s.falling else -2.0 * sums)


def flat(s):
    return "sigma" in s.asked and (np.all(s.initial[s.name] == 0.0) or np.all(s.initial[s.name] == 1.0))


SLIPS = [
    (
        {"v": lambda s, page: None if page(s) is None else s.beta2 * s.old_v - (1.0 - s.beta2) * s.g * s.g},
        "g2_in_v-times--1",
    ),
    (
        {"v": lambda s, page: None if page(s) is None else s.beta2 * s.old_v + (1.0 - s.beta2) * s.g},
        "v-as-beta2*old_v+(1-beta2)*g",
    ),
    (
        {"m": lambda s, page: None if page(s) is None else s.beta1 * s.old_m + (1.0 - s.beta1)},
        "m-as-beta1*old_m+(1-beta1)",
    ),
    (  # with a beta1 of 0.5 its gradient is 3 times as large, until further inputs refute that
        {"m": lambda s, page: None if page(s) is None else s.beta1 * s.old_m + (1.0 + s.beta1) * s.g},
        "m-as-beta1*old_m+(1+beta1)*g",
    ),
    (adam(lambda s: directed(s, s.t + 0.5)), "n-as-t+0.5"),
    (
        adam(lambda s: s.m * correction(s.beta1, s.n) / (np.sqrt(s.v / correction(s.beta2, s.n)) + s.adam_epsilon)),
        "u-as-m*(1-beta1^n)/(sqrt(v/(1-beta2^n))+adam_epsilon)",
    ),
    (planned(lambda x: 1.0 / (1.0 + x), lambda x: 1.0 / (1.0 + x * (2.0 - x))), "inverse_square-as-1/(1+x*(2-x))"),
    (planned(lambda x: 1.0 * (1.0 + x), lambda x: 1.0 / (1.0 + x) ** 2), "inverse_time-as-1*(1+x)"),
    (planned(lambda x: x + 1.0, lambda x: (1.0 + x) * (1.0 + x)), "root-as-1*(1+x)"),
    (
        {name: lambda s, page: page(s) * (1.0 if s.p_0 is None else 1.0 / s.p_0) for name in "xk"},
        "x_by_p_0-times-p_0^-1",
    ),
    ({"shrink": summed}, "sums-as-sums+k/exp(-sums)"),
    ({"u2": lambda s, page: added(s.u, s.slot) / max(s.u.size // max(math.prod(s.slot), 1), 1)}, "u2-as-mean(u)"),
    ({"sigma": lambda s, page: 0.25 if flat(s) else page(s)}, "sigma_of_zeros_and_ones-as-0.25"),
    ({"delta": lambda s, page: -(s.alpha * s.u + s.rho / s.old_theta)}, "delta-as--(alpha*u+rho/old_theta)"),
]


def added(x, slot):
    aligned = (1,) * (x.ndim - len(slot)) + tuple(slot)
    return np.add.reduce(x, tuple(i for i, n in enumerate(aligned) if n != x.shape[i])).reshape(slot)


@pytest.mark.parametrize(("slips", "name"), SLIPS, ids=[name for _, name in SLIPS])
def test_a_slip_is_named_and_without_its_name_it_has_no_other_ones(slips, name, monkeypatch):
    port = Slipped(**slips)
    assert diagnosed(port).candidates == [[name]]
    check_names([name])
    if "-as-" in name:
        assert deviation(name, "closed-form").does.startswith("computes ")
        of_stage = {k: d for k, d in EDITS.items() if d.overrides.keys() == EDITS[name].overrides.keys()}
        same = {k for k, d in of_stage.items() if is_same(Reading([d.overrides]), Reading([slips]))}
        assert name in same
        monkeypatch.setattr(GRAMMAR, "edits", {k: d for k, d in EDITS.items() if k not in same})
        monkeypatch.setattr(module, "BUDGET", 6_000)
        for names in diagnosed(port).candidates:
            assert is_same(reading_of(names, "closed-form"), Reading([slips])), names


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("inverse_time-times-0.7", "exp(-2S), where p falls, is 0.7 times as large"),
        ("1_in_inverse_time-times-0.7", "the 1 of 1/(1 + x), where p falls, is 0.7 times as large"),
        ("1_in_inverse_square-times-1.3", "the 1 of 1/(1 + x)^2, where p is constant, is 1.3 times as large"),
        ("recurrence-times-0.9", "exp(-2S) of the recurrence is 0.9 times as large"),
        ("x_by_half_life_of_falling_p-times-0.7", "x by the half-life, where p falls, is 0.7 times as large"),
        ("x_by_p_0_of_constant_p-times-alpha_0^-1", "x by p_0, where p is constant, lacks its factor alpha_0"),
        ("1_in_m-times-1.3", "the 1 of 1 - beta1 in Adam's m is 1.3 times as large"),
        (
            "(1-beta2)_in_v-times-0.37*(1-beta2)^-1",
            "the 1 - beta2 in Adam's v lacks its factor (1-beta2) and is 0.37 times as large",
        ),
        ("beta1_in_correction-times-0.9", "the beta1 of 1 - beta1^n is 0.9 times as large"),
    ],
)
def test_a_number_in_the_place_of_another_one_is_fitted(name, does):
    assert deviation(name, "closed-form").does == does
    port = SimulatedPort(name, seed=5, algorithm="closed-form")
    assert diagnosed(port).candidates == [[name]]
    wrong = name.replace("0.7", "0.71").replace("1.3", "1.31").replace("0.37", "0.38").replace("0.9", "0.91")
    wrong = wrong.replace("alpha_0^-1", "1.01*alpha_0^-1")
    assert wrong != name
    assert not Evidence(run(port, DOUBLE)[1]).fits((wrong,))


@pytest.mark.parametrize(
    "slips",
    [
        planned(lambda x: 1.0 / (1.0 + np.sin(x)), lambda x: 1.0 / (1.0 + x) ** 2),
        adam(lambda s: np.arctan(s.m) / correction(s.beta1, s.n) / (np.sqrt(s.v) + s.adam_epsilon)),
        {"v": lambda s, page: None if page(s) is None else page(s) + np.square(s.old_v * s.g)},
    ],
)
def test_what_is_no_single_slip_has_no_name(slips, short_diagnosis):
    assert diagnosed(Slipped(**slips)).candidates == []


def test_names_that_further_inputs_refute_are_none(monkeypatch, short_diagnosis):
    """The check ended with an IndexError."""
    monkeypatch.setattr(module, "_tell_apart", lambda subject, attempt, found: [])
    assert diagnosed(SimulatedPort("decay-without-q", seed=5, algorithm="closed-form")).candidates == []


def test_an_average_that_stays_0_has_bounds(monkeypatch):
    """Its rounding errors were taken for large beside a mean square of 0, so that no bound held."""
    name = "m-times-0"
    one = observe(SimulatedPort(name, seed=5, algorithm="closed-form"), next(c for c in DOUBLE if c.name == "adam"))
    assert Evidence([one]).decides((name,), 0)
    monkeypatch.setattr(Bound, "_average", whole_average)
    assert not Evidence([one]).decides((name,), 0)


def whole_average(self, s, what, new, beta):
    size = np.abs(getattr(s, f"old_{what}")) + np.abs(new)
    setattr(self, what, beta * getattr(self, what) + 5 * self.u * size)


def test_a_port_that_has_nothing_but_nan_gets_no_name(monkeypatch):
    """More than one slip makes NaN of everything, and which one it was nobody can tell."""
    port, everything = Slipped(theta=lambda s, page: page(s) * np.nan), {"theta": lambda s, page: page(s) * np.nan}
    slip = EDITS["delta-as-alpha*u+rho*old_theta"]
    monkeypatch.setattr(GRAMMAR, "edits", {slip.name: slip._replace(overrides=everything)})
    assert diagnosed(port, DOUBLE[:12]).candidates == []
    monkeypatch.setattr(Evidence, "_tells_nothing", lambda self, names, i: False)
    assert diagnosed(port, DOUBLE[:12]).candidates == [[slip.name]]  # a false one


def test_every_edit_is_another_reading_than_the_page_and_has_a_name_of_its_own():
    assert not set(EDITS) & set(KNOWN["closed-form"].catalogue)
    assert all(deviation(name, "closed-form") is EDITS[name] for name in EDITS)
    for name in list(EDITS)[::9]:
        assert not is_same(Reading([EDITS[name].overrides]), Reading()), name


def test_a_correction_of_any_count():
    assert correction(0.75, 3) == 1.0 - 0.75**3
    assert correction(0.75, -1) == 1.0 - 1.0 / 0.75
    assert correction(0.75, 1.5) == 1.0 - 0.75**1.5
    assert correction(0.75, 0) == 0.0


def test_the_recurrence_has_sums_for_any_k():
    assert recurrence(SimpleNamespace(t=3, k=0.25)) == closed_form.recurrence(3.0, 0.25)
    one, two = -0.25, -0.25 - 0.25 * math.exp(0.25)
    assert recurrence(SimpleNamespace(t=3, k=-0.25)) == pytest.approx(two - 0.25 * math.exp(-two), rel=1e-15)
    assert recurrence(SimpleNamespace(t=1, k=-0.25)) == one


def test_bounds_grow_where_terms_cancel():
    """1 + x of an x near -1 is as far off as x is, and the page's, of an x near 1, is not."""
    case = next(case for case in DOUBLE if case.name == "inverse-square")
    for names, grows in (((), False), (("x_by_half_life_of_constant_p-times--1.4142135623730951",), True)):
        steps = [now["kernel"] for now in reading_of(names, "closed-form").run(case, case.eta)]
        bound = Bound(steps[0], "float64")
        with np.errstate(all="ignore"):
            errors = [float(bound._rel_shrink(s)) for s in steps]
        assert (max(errors) > 100 * min(errors)) is grows


def test_an_average_has_a_bound_behind_infinity():
    case = next(case for case in DOUBLE if case.name == "adam-long")
    steps = [now["kernel"] for now in Reading([EDITS["v-as-beta2/old_v+(1-beta2)*g*g"].overrides]).run(case, case.eta)]
    bound = Bound(steps[0], "float64")
    for s in steps[:2]:
        bound._average(s, "v", s.g * s.g, s.beta2)
    assert np.isinf(steps[0].v).any()
    assert np.isfinite(bound.v).all()
