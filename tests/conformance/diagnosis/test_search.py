"""The search: the grammar's factors are fitted, no name is false, and what decides nothing is no agreement."""

import contextlib
import importlib

import numpy as np
import pytest
from helpers.toy_port import ToyPort

from amos_ref import spec
from amos_ref.conformance import table
from amos_ref.conformance.diagnosis import evidence, fit
from amos_ref.conformance.diagnosis.catalogue import CATALOGUE, deviation, reading_of
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.diagnosis.evidence import UNDECIDED, BudgetSpent, Evidence
from amos_ref.conformance.diagnosis.factors import GRAMMAR
from amos_ref.conformance.diagnosis.fit import fitted, fitted_offsets
from amos_ref.conformance.diagnosis.lives import is_special
from amos_ref.conformance.diagnosis.search import sets
from amos_ref.conformance.judging.bound import RunningBound
from amos_ref.conformance.judging.drive import observe
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.ports.port import ALIASES
from tools.simulated_port import SimulatedPort

module = importlib.import_module("amos_ref.conformance.diagnosis.diagnose")
DOUBLE = [case for case in table() if case.dtype == "float64" and not is_special(case)]


def diagnosed(port, cases=DOUBLE):
    return diagnose(port, run(port, cases)[1])


class Without(SimulatedPort):
    """A simulated port that lacks some options, and has a stage of its own."""

    def __init__(self, *lacking, **overrides):
        super().__init__(seed=5, dtypes=("float64", "float32"))
        self.options = set(ALIASES) - set(lacking)
        self.overrides = [overrides]

    def init(self, params, hyper):
        own = {"slot_shape": dict.fromkeys(params, ()), "beta": 0.999}
        super().init(params, own | hyper)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gamma-times-eta", "gamma has an extra factor eta"),
        ("gamma-times-eta^1/2", "gamma has an extra factor sqrt(eta)"),
        ("alpha-times-eta^-1/2", "the step size alpha has sqrt(eta) where the page has eta"),
        ("c_coef-times-xi^3/2", "c_coef sqrt(xi) b, in c, has xi^2 where the page has sqrt(xi)"),
        ("d_coef-times-eta^1/2", "d_coef sqrt(xi eta) b, in d, has eta where the page has sqrt(eta)"),
        ("gamma-times-r^-1", "gamma lacks its factor r"),
        ("alpha-times-0.9*xi^-1", "the step size alpha lacks its factor xi and is 0.9 times as large"),
        ("rho-times-1.07", "the whole decay rho is 1.07 times as large"),
        ("alpha-times-r^-1/4", "the step size alpha has r^1/4 where the page has sqrt(r)"),
        ("xi-times-0.75", "the learning rate is 0.75 times as large"),
        ("gamma_in_rho-times-gamma", "the gamma of the decay has an extra factor gamma"),
        ("b_in_b-times-beta", "the old b in the new has an extra factor beta"),
        ("b_in_growth-times--1", "the b of gamma (1 + b) is -1 times as large"),
        ("m_in_m-times-0", "the old average in the new is left out (0)"),
        ("delta_in_m-times-2", "the change that is averaged is 2 times as large"),
        ("alpha-plus-0.01", "adds 0.01 to the step size alpha"),
        ("rho-minus-0.25", "subtracts 0.25 from the whole decay rho"),
        ("r-times-beta^t*(1-beta^t)^-1", "r = (1-beta^t)/v has an extra factor beta^t and lacks its factor (1-beta^t)"),
    ],
)
def test_a_factor_that_no_list_has_is_fitted_and_said_in_words(name, words):
    assert deviation(name).does == words
    found = diagnosed(SimulatedPort(name, seed=5))
    assert found.candidates
    for names in found.candidates:
        assert numbers_of(names) == pytest.approx(numbers_of([name]), rel=1e-9)


def numbers_of(names):
    case = next(case for case in DOUBLE if case.name == "everything")
    return [x for now in reading_of(names).run(case, case.eta) for s in now.values() for x in s.theta.ravel()]


def test_names_of_the_grammar_are_read_back():
    for name in list(GRAMMAR.singles)[::37]:
        if "-times-" in name:
            assert GRAMMAR.parse(name).name == name
    for name in ("g-plus-0.001", "b-minus-1e-09"):
        assert GRAMMAR.parse(name).name == name
    for name in (
        "alpha-plus-xi",
        "c-plus-0.5",
        "gamma-times-",
        "gamma-times-nonsense",
        "delta2-times-eta",
        "gamma",
        "gamma-times-xi^x",
    ):
        with pytest.raises(KeyError):
            GRAMMAR.parse(name)


UNHEARD_OF = {
    "log1p": {"gamma": lambda s, page: np.log1p(page(s))},
    "tanh": {"delta": lambda s, page: page(s.but(g=np.tanh(s.g)))},
    "cube": {"d": lambda s, page: np.cbrt(page(s))},
}


@pytest.mark.parametrize(
    ("bug", "lacking"),
    [("log1p", ()), ("log1p", ("beta",)), ("tanh", ("beta", "slot_shape")), ("cube", ("beta",))],
    ids=str,
)
def test_what_no_list_has_gets_no_name_in_ports_that_lack_options_either(bug, lacking, short_diagnosis):
    found = diagnosed(Without(*lacking, **UNHEARD_OF[bug]))
    assert (found.deviations, found.candidates) == ([], [])
    assert "float32" not in found.text


def test_a_case_that_decides_nothing_is_no_agreement(monkeypatch):
    """beta = 0.999 leaves bias-twice without bounds: taken for agreement, that was a false name every time."""
    port = Without("beta", **UNHEARD_OF["log1p"])
    seen = [one._replace(case=one.case._replace(dtype="float32")) for one in run(port, DOUBLE)[1]]
    held = Evidence(seen)
    undecided = [i for i in range(len(seen)) if held.outcome(("bias-twice",), i) is UNDECIDED]
    assert len(undecided) > len(seen) / 2
    some = Evidence([held.seen[i] for i in undecided])
    assert not some.fits(("bias-twice",))
    monkeypatch.setattr(Evidence, "decides", lambda self, names, i: True)  # as it was
    assert some.fits(("bias-twice",))


def test_bounds_that_admit_the_page_as_well_decide_nothing():
    case = next(case for case in table() if (case.name, case.dtype) == ("plain", "bfloat16"))

    class Still(ToyPort):
        def step(self, grads):
            return self.params

    port = SimulatedPort("theta-frozen", seed=5)
    held = Evidence([observe(port, case)])
    assert held.fits(("theta-frozen",))
    assert not held.fits(("bias-twice",))


def test_a_leaf_that_a_reading_never_steps_must_stand_still():
    case = next(case for case in DOUBLE if case.name == "plain")
    one = observe(SimulatedPort("maximize", seed=5), case)
    never = {"grad": lambda s, page: None}
    CATALOGUE["never"] = CATALOGUE["maximize"]._replace(name="never", overrides=never)
    try:
        assert Evidence([one]).misfit(("never",), 0).detail == "moves, which the reading never does"
    finally:
        del CATALOGUE["never"]


def test_a_search_ends_after_so_many_steps():
    seen = run(SimulatedPort("eta-twice", seed=5), DOUBLE[:2])[1]
    held = Evidence(seen, budget=3)
    with pytest.raises(BudgetSpent):
        [held.outcome((name,), 0) for name in list(CATALOGUE)[:5]]


@pytest.mark.parametrize("mended", [True, False])
def test_a_name_is_confirmed_although_the_search_has_spent_its_budget(mended, monkeypatch):
    """As a check of two cases did, in which the budget ended between the name and its confirmation."""
    monkeypatch.setattr(module, "_confirm", lambda *args, right=module._confirm: spend(*args) or right(*args))
    if not mended:
        monkeypatch.setattr(Evidence, "beyond_budget", lambda self: contextlib.nullcontext())
    port = SimulatedPort("gamma-times-eta", seed=5)
    seen = run(port, DOUBLE)[1]
    with contextlib.nullcontext() if mended else pytest.raises(BudgetSpent):
        assert diagnose(port, seen).deviations == ["gamma-times-eta"]


def spend(subject, attempt, candidates, further):
    attempt.evidence.left *= not candidates


def test_a_name_must_hold_on_inputs_that_the_search_did_not_see(monkeypatch, short_diagnosis):
    """A port that squares gamma's eta in the table's cases only is no port with another factor."""

    class Cheats(SimulatedPort):
        def init(self, params, hyper):
            known = set(hyper["eta"].values()) <= {0.25, 0.5}
            self.overrides = [CATALOGUE["gamma-with-eta"].overrides] if known else []
            super().init(params, hyper)

    cases = DOUBLE[:6]
    assert diagnosed(Cheats(seed=5), cases).deviations == []
    module = evidence.__name__.replace("evidence", "diagnose")
    monkeypatch.setattr(f"{module}.CONFIRMING", 0)
    monkeypatch.setattr(f"{module}.FURTHER", 0)
    assert diagnosed(Cheats(seed=5), cases).deviations == ["gamma-with-eta"]


def test_a_deviation_that_others_hide_almost_everywhere_is_not_named_as_another_one(monkeypatch):
    """A bias correction with 0.999 makes the normalised gradient so small that clipping it looks like no clipping."""
    hidden = ("clip-by-global-norm", "c-absent", "clip-normalised", "beta-ignored-in-correction", "c_coef-in-d")
    assert "clip-normalised" in diagnosed(SimulatedPort(*hidden)).deviations
    monkeypatch.setattr(f"{module.__name__}.CONFIRMING", 0)
    assert "clip-normalised" in diagnosed(SimulatedPort(*hidden)).deviations  # told apart by inputs to that end
    monkeypatch.setattr(f"{module.__name__}.TWINS", 1)  # where it looks as one reading with the other
    assert "clip-ignored" in diagnosed(SimulatedPort(*hidden)).deviations


def test_what_is_right_in_later_steps_settles_which_of_many_is_extended(monkeypatch):
    """In its first step a v of the largest g2 is one that is summed, or averaged evenly, or forgets."""
    names = ["v-of-largest", "trust-ratio-of-gradient"]
    assert diagnosed(SimulatedPort(*names), DOUBLE[::4]).deviations == names
    monkeypatch.setattr(Evidence, "count_right", lambda self, names, i: 0)
    assert diagnosed(SimulatedPort(*names), DOUBLE[::4]).deviations == []


def test_an_option_that_is_not_heeded_hides_nothing_where_it_is_not_set(monkeypatch):
    """A beta of 0.999 inside makes v wrong wherever a beta is set; one case has the defaults."""
    names = ["variance", "beta-ignored"]
    cases = [case for case in DOUBLE if case.name == "defaults" or case.options["beta"] == 0.75][:12]
    assert diagnosed(SimulatedPort(*names), cases).deviations == names
    monkeypatch.setattr("amos_ref.conformance.diagnosis.search.CASE_OF_DEFAULTS", "none")
    monkeypatch.setattr("amos_ref.conformance.diagnosis.search.PROBES", 1)
    assert diagnosed(SimulatedPort(*names), cases).deviations == []


def test_a_name_whose_part_shows_only_where_nothing_is_decided_is_none():
    """Decay in the gradient, which theta never follows, explains a decay where the bounds around theta are huge."""
    seen = Evidence(run(SimulatedPort("g-times-0"), DOUBLE)[1])
    wrong = ("l2-in-gradient", "epsilon-ignored", "v-forgets", "trust-ratio", "theta-frozen", "g2-times-0")
    right = ("g2-times-0", "alpha-times-0")
    assert seen.fits(wrong)
    assert seen.fits(right)
    assert not seen.needs_each(wrong)
    assert seen.needs_each(right)


def test_a_factor_that_is_lacking_has_a_name_although_it_is_0_at_first():
    """A warm-up begins with a learning rate of 0, and gamma without it cannot be had from gamma by a division."""
    assert "warm-up" in [case.name for case in DOUBLE]
    assert diagnosed(Without(gamma=lambda s, page: s.c * (s.r * s.g2))).deviations == ["gamma-times-xi^-2"]


def test_a_decay_that_cancels_is_bounded_by_its_parts():
    """gamma/2 - extra_l2 near 0 has the rounding errors of both; bounds by their difference refused a right name."""
    case = next(case for case in DOUBLE if case.name == "extra_l2")
    xi = case.options["learning_rate"]
    near = case._replace(options=case.options | {"extra_l2": spec.growth(1.0, xi, 1.0, 1.0) / 2.0 * (1 + 2.0**-30)})
    held = Evidence([observe(SimulatedPort("extra_l2-sign", seed=seed), near) for seed in range(8)])
    assert held.fits(("extra_l2-sign",))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("divisor-plus-1e-08", "adds 1e-08 to max(v, epsilon), by which r divides"),
        ("root_of_divisor-plus-1e-08", "adds 1e-08 to sqrt(max(v, epsilon)), by which r divides twice"),
        ("corrected_divisor-plus-1e-08", "adds 1e-08 to max(v, epsilon) / (1-beta^t), which r is one over"),
        (
            "root_of_corrected_divisor-plus-0.25",
            "adds 0.25 to sqrt(max(v, epsilon) / (1-beta^t)), which sqrt(r) is one over",
        ),
        ("v_start-plus-0.001", "adds 0.001 to v at its start"),
        ("b_start-plus-1.0", "adds 1 to b at its start"),
    ],
)
def test_a_number_is_fitted_where_it_is_added(name, words):
    assert deviation(name).does == words
    held = Evidence(run(SimulatedPort(name, seed=5), DOUBLE[:10])[1])
    found = list(fitted_offsets(held, (), list(held.failing(()))))
    assert (name,) in found
    assert [names for names in found if held.fits(names)] == [(name,)]


def test_a_number_of_the_size_of_rounding_errors_is_no_name(monkeypatch):
    """It shows where v is tiny, and there alone: so does the rounding of a v that something larger was added to."""
    held = Evidence(run(SimulatedPort("v-plus-8.881784197001252e-16", seed=5), DOUBLE)[1])
    failing = list(held.failing(()))
    assert 0 < 2 * len(failing) <= len(held.seen)
    assert list(fitted_offsets(held, (), failing)) == []
    alone = Evidence([held.seen[i] for i in failing])  # asked of these alone, it is found: so it was named
    assert ("v-plus-8.881784197001252e-16",) in fitted_offsets(alone, (), list(alone.failing(())))


def test_what_grows_faster_than_the_page_is_followed_step_by_step(monkeypatch):
    """Errors double at every step where b grows by its square: the bounds around the page's formulas are too narrow."""
    names, case = ("gamma_in_b-times-(1+b)",), next(case for case in DOUBLE if case.name == "decayed")
    one = observe(SimulatedPort(*names, seed=5), case)
    assert Evidence([one]).misfit(names, 0) is None
    for other in ("gamma_in_b-times-(1+b)^2", "gamma_in_b-times-1.0000001*(1+b)", "gamma-times-(1+b)"):
        assert Evidence([one]).misfit((other,), 0) is not None
    hidden = one._replace(shown=[{part: now[part] for part in ("theta", "v")} for now in one.shown])
    assert Evidence([hidden]).fits(names)  # theta hardly heeds so large a b
    monkeypatch.setattr(Evidence, "is_whole", lambda self, one: False)
    assert Evidence([one]).misfit(names, 0) is not None  # as it was


SINGLE = [case for case in table() if case.dtype == "float32" and not is_special(case)]


@pytest.mark.parametrize(
    ("name", "case"), [("gamma_in_rho-times-r^-1", "huge-gradients"), ("r-times-n", "zero-gradients")]
)
def test_what_overflows_in_the_ports_precision_decides_nothing(name, case, monkeypatch):
    """A port in float32 has infinity where the reading, in float64, has 1e45: no reading is missed for that."""
    one = observe(SimulatedPort(name, seed=3), next(one for one in SINGLE if one.name == case))
    assert not all(np.isfinite(a).all() for now in one.shown for arrays in now.values() for a in arrays.values())
    assert Evidence([one]).outcome((name,), 0) is UNDECIDED
    monkeypatch.setattr(RunningBound, "_check_range", lambda self, s: None)
    assert Evidence([one]).misfit((name,), 0) is not None  # as it was


def test_a_reading_that_makes_more_of_rounding_errors_than_the_page_keeps_its_name(monkeypatch):
    """In one case in float32, an m that is many times the page's is one rounding error farther off than its bound."""
    names = ("m-times-v^-1",)
    seen = run(SimulatedPort(*names, seed=3), SINGLE)[1]
    assert 0 < len(list(Evidence(seen).failing(names))) <= evidence.EXCUSED
    assert Evidence(seen).fits(names)
    for other in ("d-times-v^-1", "m-times-1.0001*v^-1", "m-times-v^-3/4"):
        assert not Evidence(seen).fits((other,))
    monkeypatch.setattr(evidence, "EXCUSED", 0)
    assert not Evidence(seen).fits(names)  # as it was


def test_a_deviation_that_does_not_act_in_a_case_is_not_excused_there():
    """A count of groups acts where there are groups; where there are none it would fit, if it acted."""
    no_leaf_skipped = [case for case in DOUBLE if not case.name.startswith("none-")]
    seen = run(SimulatedPort("count-of-leaves", seed=5), no_leaf_skipped)[1]
    held, names = Evidence(seen), ("groups-count-each",)
    assert [held.seen[i].case.name for i in held.failing(names)] == ["slots-fewer-axes"]
    assert not held.fits(names)
    assert held.fits(("count-of-leaves",))
    assert all(held.misfit((), i) == Evidence([held.seen[i]]).misfit((), 0) for i in range(len(seen)))


def test_to_store_in_the_parameters_own_dtype_is_no_deviation():
    """It moves a reading by a rounding error, and so stood beside names of float32 ports that were off by one."""
    for name, dtype in (("theta-in-float32", "float32"), ("v-in-float32", "bfloat16"), ("state-float16", "float16")):
        case = next(case for case in table() if case.dtype == dtype)
        assert not deviation(name).only(case)
        assert deviation(name).only(DOUBLE[0])
    assert deviation("theta-in-bfloat16").only(SINGLE[0])


@pytest.mark.parametrize("number", ["1.4142135623730951", "0.7071067811865476", "1.07"])
def test_a_number_is_told_in_float32_as_well_as_most_places_know_it(number, monkeypatch):
    held = Evidence(run(SimulatedPort(f"v-times-{number}", seed=3), SINGLE[:10])[1])
    failing = list(held.failing(()))
    assert (f"v-times-{number}",) in fitted(held, (), failing)
    monkeypatch.setattr(fit, "_finer", lambda ks, near: near)
    assert number == "1.07" or (f"v-times-{number}",) not in fitted(held, (), failing)  # 41/29


def test_readings_that_differ_in_an_option_that_the_port_lacks_are_one():
    class Plain(SimulatedPort):
        def __init__(self, name):
            super().__init__(name, seed=5, dtypes=("float64",))
            self.options = set(ALIASES) - {"momentum"}

    cases = [case for case in DOUBLE if "momentum" not in case.options][:8]
    assert diagnosed(Plain("clip-the-average"), cases).candidates == [["clip-the-change"]]
    assert diagnosed(SimulatedPort("clip-the-average", seed=5)).candidates == [["clip-the-average"]]


def test_what_a_port_rounds_to_the_other_side_of_a_tie_is_no_misfit(monkeypatch):
    """A mean of two neighbours in bfloat16 goes up or down as the error before it was: whole units off, and right."""
    names = ("change-in-bfloat16",)
    seen = run(SimulatedPort(*names, seed=7), DOUBLE)[1]
    held = Evidence(seen)
    assert 0 < len(list(held.failing(names))) < len(seen) / 2
    assert held.fits(names)
    for other in ("change-in-float16", "movement-in-bfloat16", "v-in-bfloat16"):
        assert not Evidence(seen).fits((other,))
    monkeypatch.setattr(evidence, "NUDGED", 1)
    assert not Evidence(seen).fits(names)  # one error goes one way


def test_a_factor_that_is_one_number_wherever_it_shows_may_be_an_option():
    """No case of the table has both momentum and another d_coef, so d_coef and 1/4 are one there, and not beyond it."""
    port, cases = SimulatedPort("m-times-d_coef", seed=5), [case for case in DOUBLE if "momentum" in case.options]
    held = Evidence(run(port, cases)[1])
    found = [names for names in fitted(held, (), list(held.failing(()))) if held.fits(names)]
    assert {("m-times-0.25",), ("m-times-d_coef",)} <= set(found)
    assert diagnosed(port, cases).candidates == [["m-times-d_coef"]]


def test_a_number_that_one_place_tells_otherwise_is_fitted(monkeypatch):
    """The secant method ended at another extra_l2 in one place of seventy, and two names were found by luck."""
    names = ("extra_l2-sign", "extra_l2-halved")
    held = Evidence(run(SimulatedPort(*names), DOUBLE)[1])
    assert names in list(fitted(held, (), list(held.failing(()))))
    monkeypatch.setattr(fit.np, "count_nonzero", lambda where: 0)
    assert names not in list(fitted(held, (), list(held.failing(()))))


def test_two_changes_of_which_fitting_costs_much_are_named(monkeypatch):
    """Fitting beside the second of two sets spent a budget of 40,000 steps before the right one was reached."""
    port = SimulatedPort("bias-one-ahead", "alpha-times-xi^-1/2")
    assert diagnosed(port).deviations == ["bias-one-ahead", "alpha-times-xi^-1/2"]
    monkeypatch.setattr(module, "BUDGET", 10_000)
    assert diagnosed(port).deviations == []


def test_no_other_default_is_said_where_the_place_of_epsilon_explains_all():
    """Together with some defaults it explains all as well, where no case comes near them."""
    cases = [case for case in DOUBLE if case.name in ("plain", "epsilon")]
    held = Evidence(run(SimulatedPort("epsilon-added", seed=5), cases)[1])
    assert next(sets(held)) == [("epsilon-added",)]
    assert held.fits(("epsilon-added", "epsilon-default-1e-30"))
