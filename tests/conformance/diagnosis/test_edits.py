"""Slips of the hand in the page's formulas: each has a name that says it, and none has another's."""

import ast
import importlib

import numpy as np
import pytest

from amos_ref.conformance import table
from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.diagnosis import evidence, search
from amos_ref.conformance.diagnosis.catalogue import CATALOGUE, deviation, reading_of
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.diagnosis.edits import Formula, edits
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.diagnosis.factors import FORMULAS, GRAMMAR
from amos_ref.conformance.diagnosis.lives import is_special
from amos_ref.conformance.judging.bound import Bound
from amos_ref.conformance.judging.drive import observe
from amos_ref.conformance.judging.judge import first_departure, run
from amos_ref.conformance.judging.reading import Reading
from amos_ref.conformance.pins import check_names
from tools.simulated_port import SimulatedPort

module = importlib.import_module("amos_ref.conformance.diagnosis.diagnose")
DOUBLE = [case for case in table() if case.dtype == "float64" and not is_special(case)]


def diagnosed(port, cases=DOUBLE):
    return diagnose(port, run(port, cases)[1])


class Slipped(SimulatedPort):
    """The page with stages of its own, as a port has them that a hand slipped in."""

    def __init__(self, **overrides):
        super().__init__(seed=5, dtypes=("float64",))
        self.overrides = [overrides]


def test_each_place_of_a_formula_is_edited_in_every_way():
    found = edits({"v": Formula("second moment", "nothing", ("2*g2 + sqrt(old_v)",))}, {}, {})
    wanted = "2*g2-sqrt(old_v) 2*g2 sqrt(old_v) 2/g2+sqrt(old_v) 2+sqrt(old_v) g2+sqrt(old_v) 4*g2+sqrt(old_v)"
    wanted += " 1*g2+sqrt(old_v) 2*g2+old_v 2*g2+old_v^0.25"
    assert sorted(found) == sorted(f"v-as-{text}" for text in wanted.split())
    assert found["v-as-2/g2+sqrt(old_v)"].does == "computes v as 2 / g2 + sqrt(old_v); the page as 2 * g2 + sqrt(old_v)"


def test_the_formulas_are_the_pages():
    """A formula that is another one than the page's would make a name of a right port."""
    for stage, formula in FORMULAS.items():
        for form in formula.forms:
            twice = f"2*({form})"  # of which one edit is the form itself
            name = f"{stage}-as-{ast.unparse(ast.parse(form)).replace(' ** ', '^').replace(' ', '')}"
            factors = importlib.import_module("amos_ref.conformance.diagnosis.factors")
            found = edits({stage: Formula("", "", (twice,))}, factors._MEANT, factors._CALLED)
            assert is_the_page(found[name].overrides)
            assert not is_the_page(found[f"{stage}-as-2"].overrides)


def is_the_page(overrides):
    return is_same(Reading([overrides]), Reading())


def is_same(one, other):
    for case in (case for case in DOUBLE if case.name in ("everything", "none-gradient", "slots-momentum")):
        options = {k: x for k, x in case.options.items() if k != "epsilon"}  # it is 2^-125 by default
        case = case._replace(options=options)
        for now, then in zip(one.run(case, case.eta), other.run(case, case.eta), strict=True):
            if not all(np.allclose(now[leaf].theta, then[leaf].theta, rtol=1e-12, atol=1e-15) for leaf in then):
                return False
    return True


@pytest.mark.parametrize(
    ("slips", "name"),
    [
        ({"v": lambda s, page: s.beta / s.old_v + (1.0 - s.beta) * s.g2}, "v-as-beta/old_v+(1-beta)*g2"),
        ({"v": lambda s, page: s.beta * s.old_v + (1.0 - s.beta)}, "v-as-beta*old_v+(1-beta)"),
        ({"v": lambda s, page: s.beta * s.old_v}, "g2_in_v-times-0"),
        ({"v": lambda s, page: s.beta * s.old_v - (1.0 - s.beta) * s.g2}, "g2_in_v-times--1"),
        ({"q": lambda s, page: 1.0 + s.beta**s.t}, "q-as-1+beta^t"),
        ({"q": lambda s, page: 1.0 - s.beta ** (s.t - 2)}, "q-as-1-beta^(t_before-1)"),
        ({"gamma": lambda s, page: s.c / (s.xi * s.xi) * (s.r * s.g2)}, "gamma-as-c/xi^2*(r*g2)"),
        ({"gamma": lambda s, page: s.xi * s.xi * s.c / (s.r * s.g2)}, "gamma-as-c*xi^2/(r*g2)"),
        ({"rho": lambda s, page: s.d / (s.gamma / 2.0 + s.extra_l2)}, "rho-as-d/(gamma/2+extra_l2)"),
        (
            {"d": lambda s, page: 1.0 / (1.0 - s.d_coef * np.sqrt(s.xi * s.eta) * s.old_b)},
            "d_coef-times--1",
        ),
        (
            {"delta": lambda s, page: -s.d / (s.xi * s.eta * np.sqrt(s.r) * s.g + s.rho / s.d * s.old_theta)},
            "delta-as--d/(xi*eta*sqrt(r)*g+(gamma/2+extra_l2)*old_theta)",
        ),
        (
            {"m": lambda s, page: None if page(s) is None else s.momentum * s.old_m + (1.0 - s.momentum)},
            "m-as-momentum*old_m+(1-momentum)",
        ),
    ],
)
def test_a_slip_is_named(slips, name, monkeypatch):
    port = Slipped(**slips)
    assert diagnosed(port).candidates == [[name]]
    if "-as-" in name:
        assert deviation(name).does.startswith("computes ")
        check_names([name])
        slip = GRAMMAR.edits[name]
        left = {k: d for k, d in GRAMMAR.edits.items() if not k.startswith(name.partition("as-")[0])}
        monkeypatch.setattr(GRAMMAR, "edits", left)
        monkeypatch.setattr(module, "BUDGET", 20_000)
        for names in diagnosed(port, DOUBLE[:12]).candidates:  # not another one's
            assert "-as-" not in names[0]
            assert is_same(reading_of(names), Reading([slip.overrides]))


@pytest.mark.parametrize(
    ("slips", "name"),
    [
        ({"c": lambda s, page: 1.0 / np.sqrt(0.7 + s.c_coef * np.sqrt(s.xi) * s.old_b)}, "1_in_c-times-0.7"),
        ({"d": lambda s, page: 1.0 / (1.3 + s.d_coef * np.sqrt(s.xi * s.eta) * s.old_b)}, "1_in_d-times-1.3"),
        ({"v": lambda s, page: s.beta * s.old_v + (1.01 - s.beta) * s.g2}, "1_in_v-times-1.01"),
        ({"v": lambda s, page: s.beta * s.old_v + 0.37 * s.g2}, "(1-beta)_in_v-times-0.37*(1-beta)^-1"),
        (
            {"m": lambda s, page: None if page(s) is None else s.momentum * s.old_m + (1.7 - s.momentum) * s.delta},
            "1_in_m-times-1.7",
        ),
        (
            {"m": lambda s, page: None if page(s) is None else s.momentum * s.old_m + 0.37 * s.delta},
            "(1-mu)_in_m-times-0.37*(1-mu)^-1",
        ),
        (
            {
                "m": lambda s, page: (
                    None if page(s) is None else s.momentum * s.old_m + (1.0 - s.momentum) ** 2 * s.delta
                )
            },
            "delta_in_m-times-(1-mu)",
        ),
    ],
)
def test_a_number_in_the_place_of_another_one_is_fitted(slips, name):
    found = diagnosed(Slipped(**slips))
    assert found.candidates == [[name]]
    wrong = name.replace("0.7", "0.71").replace("1.3", "1.31").replace("1.01", "1.02").replace("0.37", "0.38")
    wrong = wrong.replace("1.7", "1.71").replace("times-(1-mu)", "times-1.01*(1-mu)")
    assert not Evidence(run(Slipped(**slips), DOUBLE)[1]).fits((wrong,))


def test_the_words_of_a_number_in_the_place_of_another():
    assert deviation("1_in_c-times-0.7").does == "the 1 of 1 + c_coef sqrt(xi) b, in c, is 0.7 times as large"
    name = "(1-beta)_in_v-times-0.3*(1-beta)^-1"
    assert deviation(name).does == "the 1 - beta of v lacks its factor (1-beta) and is 0.3 times as large"
    assert deviation(name).name == name


def test_a_port_that_has_nothing_but_nan_gets_no_name(monkeypatch):
    """More than one slip makes NaN of everything, and which one it was nobody can tell."""
    port = Slipped(theta=lambda s, page: page(s) * np.nan)
    assert diagnosed(port, DOUBLE[:12]).candidates == []
    everything = {"not-a-number": {"theta": lambda s, page: page(s) * np.nan}}
    slip = GRAMMAR.edits["delta-as--d"]
    monkeypatch.setattr(GRAMMAR, "edits", {slip.name: slip._replace(overrides=everything["not-a-number"])})
    assert diagnosed(port, DOUBLE[:12]).candidates == []
    monkeypatch.setattr(Evidence, "_tells_nothing", lambda self, names, i: False)
    assert diagnosed(port, DOUBLE[:12]).candidates == [[slip.name]]  # a false one


def test_what_a_slip_hides_is_no_part_of_a_name(monkeypatch):
    """The change is computed from r, so that another step size beside it shows in nothing but wider bounds."""
    seen = run(SimulatedPort("delta-as--d/(xi*eta*sqrt(r)*g+(gamma/2+extra_l2)*old_theta)", seed=5), DOUBLE[::3])[1]
    found = [names for some in search.sets(Evidence(seen, budget=30_000), largest=2) for names in some]
    assert not [names for names in found if len(names) > 1 and set(names) & set(GRAMMAR.edits)]


def test_infinity_and_nan_are_one_where_a_reading_divides_by_0():
    """1 / (1 - z) with z = 1: the terms of the change are infinite, and their sum is NaN or not, as it is written."""
    name, case = "d-as-1/(1-d_coef*sqrt(xi*eta)*old_b)", next(case for case in DOUBLE if case.name == "aged")

    def grouped(s, page):
        return -s.d * (s.xi * s.eta * np.sqrt(s.r) * s.g + (s.gamma / 2.0 + s.extra_l2) * s.old_theta)

    port = Slipped(d=GRAMMAR.edits[name].overrides["d"], delta=grouped)
    one = observe(port, case)
    assert any(np.isinf(now["theta"]["kernel"]).any() for now in one.shown)
    assert Evidence([one]).misfit((name,), 0) is None
    steps = list(evidence.trajectory(one.case, one.etas, reading_of((name,))))
    assert first_departure(one.shown, steps, slack=evidence.SLACK)[0] is not None
    assert first_departure(one.shown, steps, slack=evidence.SLACK, loose=True)[0] is None


def test_bounds_are_there_where_the_state_is_0_negative_or_infinite(monkeypatch):
    slips = ("v-as-beta*old_v", "b-as-old_b-gamma*(1+old_b)", "g2_in_v-times--1", "v-as-beta/old_v+(1-beta)*g2")
    for name in slips:
        one = observe(SimulatedPort(name, seed=5), next(case for case in DOUBLE if case.name == "decayed"))
        assert Evidence([one]).decides((name,), 0)
    monkeypatch.setattr(Bound, "_settle", lambda self, s, *parts: None)
    assert not Evidence([one]).decides((name,), 0)


def test_bounds_around_a_negative_b_are_as_wide_as_around_its_size():
    """They were the narrower the more b was below 0: one of these inputs was no port's whose clock runs backwards."""
    name = "gamma_in_b-times--1"
    port, draw_case = SimulatedPort(name, seed=5), PAPER_AMOS.load("cases").random_case
    held = Evidence([observe(port, draw_case(i, tuple(port.options))) for i in range(20)])
    assert not list(held.failing((name,)))
    assert all(held.decides((name,), i) for i in range(20))


def test_the_catalogue_comes_before_an_edit():
    assert diagnosed(SimulatedPort("b-without-compounding", seed=5), DOUBLE[:8]).candidates == [
        ["b-without-compounding"]
    ]
    assert not set(GRAMMAR.edits) & set(CATALOGUE)
