"""The algorithms as tables: what each says of itself is what its class, its page and its cases do."""

import numpy as np
import pytest

import amos_ref
from amos_ref.conformance.algorithms import ALGORITHMS, CLOSED_FORM, PAPER_AMOS, algorithm_of
from amos_ref.conformance.judging.judge import judge
from amos_ref.conformance.judging.reading import Reading
from amos_ref.errors import TargetError
from tools.simulated_port import SimulatedPort

EACH = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)


@EACH
def test_a_table_agrees_with_itself(algorithm):
    formulas = algorithm.load("formulas")
    assert list(algorithm.stages)[-1] == "theta"
    assert set(algorithm.stages) == set(algorithm.quantities) == set(algorithm.load("bound").Bound.like)
    assert set(formulas.SIZES) == set(algorithm.parts)
    stages = list(formulas.FORMULAS)
    assert [stage for stage in stages if stage in algorithm.stages] == list(algorithm.stages)
    assert set(formulas.ORDERS) <= set(stages)
    assert set(formulas.OPTIONS) <= set(stages) & set(algorithm.options)
    assert {algorithm.rate, algorithm.scale, *algorithm.unasked, *algorithm.told} <= set(algorithm.options)
    assert algorithm.along in stages
    for case in algorithm.table():
        assert case.algorithm == algorithm.name
        assert set(case.options) <= set(algorithm.options)
        assert len(case.learning_rates()) == len(case.grads)


def test_defaults_are_those_of_the_classes():
    assert PAPER_AMOS.options == amos_ref.Amos().options
    made = amos_ref.ClosedFormAmos(half_life=7.0).options
    assert {name: x for name, x in CLOSED_FORM.options.items() if name in made} == made | {"half_life": None}


def can_be_run(case):
    """Whether the class can take a case: nothing is set, nothing is refused, and it has the options."""
    known = case.needs() <= set(amos_ref.ClosedFormAmos(half_life=1.0).options)
    return known and case.dtype == "float64" and not (case.inject or case.count or case.special())


@EACH
def test_right_evaluations_conform_and_a_wrong_one_departs(algorithm):
    for case in (case for case in algorithm.table() if case.name in ("plain", "adam", "sigma-init")):
        port = SimulatedPort(seed=3, algorithm=algorithm.name)
        assert judge(port, case)[0].verdict == "conforms", (case.name, case.dtype)
        port.overrides = [{"alpha": lambda s, page: 2.0 * page(s)}]
        assert judge(port, case)[0].verdict == "departs", (case.name, case.dtype)


@pytest.mark.filterwarnings("ignore:sigma of leaf")
@pytest.mark.parametrize("case", [c for c in CLOSED_FORM.table() if can_be_run(c)], ids=lambda case: case.name)
def test_the_closed_form_read_stage_by_stage_has_the_bits_of_the_class(case):
    options = {"sigma": lambda name, shape: case.eta[name]} | case.options
    opt = amos_ref.ClosedFormAmos(**options, slot_shape=lambda name, shape: case.slots[name], backend="numpy")
    params = {name: a.copy() for name, a in case.params.items()}
    state = opt.init(params)
    for grads, now in zip(case.grads, Reading().run(case, case.eta), strict=True):
        state = opt.step(params, grads, state)
        for name, step in now.items():
            held = {"theta": params, "m": state.m or {name: None}, "v": state.v or {name: None}}
            for what in CLOSED_FORM.quantities:
                assert held[what][name] is getattr(step, what) or np.array_equal(held[what][name], getattr(step, what))


@pytest.mark.parametrize("name", ["nonsense", "Paper", None, 3])
def test_there_is_no_other_algorithm(name):
    with pytest.raises(TargetError, match="it must be 'paper' or 'closed-form'"):
        algorithm_of(name)
