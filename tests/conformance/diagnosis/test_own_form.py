"""What is said of a state that was left out: exactly the parts that are another form, or the cases that set it."""

import pytest

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.judging.judge import run
from tools.simulated_port import SimulatedPort


def told(port, *names):
    cases = [c for c in port.algorithm.table() if c.dtype == "float64" and c.name in names]
    found = diagnose(port, run(port, cases)[1])
    assert found is not None
    return found.deviations, found.text.splitlines()


class OwnForm(SimulatedPort):
    """Some parts of its state are shown in another form."""

    other = ()

    def state(self):
        shown = super().state()
        return {part: {k: a + 1.0 if part in self.other else a for k, a in of.items()} for part, of in shown.items()}


@pytest.mark.parametrize(
    ("algorithm", "name", "cases", "other", "text"),
    [
        (
            "paper",
            "gamma-whole",
            ("plain", "3-d", "aged"),
            ("b",),
            "its b is something else than ours, and was left out.",
        ),
        (
            "paper",
            "gamma-whole",
            ("plain", "momentum"),
            ("v", "m"),
            "its v and m are something else than ours, and were left out.",
        ),
        (
            "closed-form",
            "decay-without-half",
            ("plain", "adam"),
            ("v",),
            "its v is something else than ours, and was left out.",
        ),
    ],
)
def test_the_parts_of_another_form_are_named_and_no_others(algorithm, name, cases, other, text):
    port = OwnForm(name, seed=5, algorithm=algorithm)
    port.other = other
    names, lines = told(port, *cases)
    assert names == [name]
    assert lines[-2] == text


def test_a_right_state_is_not_called_another_form_where_only_setting_it_goes_wrong():
    """The port keeps theta where nobody can set it; its m and v are right."""

    class Keeps(SimulatedPort):
        def put(self, values):
            super().put({part: arrays for part, arrays in values.items() if part != "theta"})

    names, lines = told(Keeps("decay-without-half", seed=5, algorithm="closed-form"), "plain", "adam", "adam-aged")
    assert names == ["decay-without-half"]
    assert lines[-2] == "its m and v are ours, but where they are set it goes on otherwise: case adam-aged left out."


def test_what_a_life_shows_beside_a_state_of_another_form():
    port = OwnForm("deepcopy-loses-b", seed=5)
    port.other = ("v",)
    names, lines = told(port, "plain", "life-deepcopy", "life-pickle")
    assert names == []  # the formulas are right
    assert lines[0] == "its v is something else than ours, and was left out."
    assert any(line.startswith("deepcopy-loses-b (life)") for line in lines)


def test_a_life_of_a_port_that_shows_no_state_leaves_nothing_out():
    """There was nothing to list, and the check ended with a ValueError."""
    names, lines = told(SimulatedPort("state-keyed-by-shape", seed=5, shows=()), "plain", "life-equal-shapes")
    assert names == ["state-keyed-by-shape"]
    assert not any("left out" in line for line in lines)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_epsilon_at_all_is_told_from_one_that_is_not_heeded(algorithm):
    """Both were called epsilon-ignored; a guard against 0 cannot be told from an epsilon that is small enough."""
    stage = {"paper": "r", "closed-form": "ratio"}[algorithm]
    squares = {"r": "v", "ratio": "u2"}[stage]

    def guarded(s, page):
        return page(s.but(epsilon=0.0, **{squares: _or_one(getattr(s, squares))}))

    port = SimulatedPort(seed=5, algorithm=algorithm, dtypes=("float64",))
    port.overrides = [{stage: lambda s, page: page(s.but(epsilon=0.0))}]
    cases = ("plain", "epsilon-reached", "zeros-follow", "zero-gradients", "slots-rows")
    names, lines = told(port, *cases)
    assert names == ["epsilon-absent"]
    assert "has no epsilon: divides by" in lines[0]
    port.overrides = [{stage: guarded}]
    names, lines = told(port, *cases)
    assert names == ["epsilon-ignored"]
    assert "2^-125 or less whatever is asked for, or only a guard against division by 0" in lines[0]


def _or_one(x):
    return x + 1.0 * (x == 0)
