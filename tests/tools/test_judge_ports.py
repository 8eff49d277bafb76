"""Real ports with a single wrong formula."""

import json

import pytest

from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.diagnosis.evidence import Evidence
from amos_ref.conformance.judging.drive import observe
from tools import judge_ports
from tools.judge_ports import CHANGED_PORTS, Change, changes, drawn, holds, judge, judge_all, load, table
from tools.simulated_port import SimulatedPort

SOURCE = """
def outer():
    def step(x):
        return 2 * x + 1
    return step
other = 3 * 4
"""


def test_each_change_is_one_place_of_the_named_function():
    found = changes(SOURCE, ["outer.step"])
    wanted = [
        "2 * x - 1",
        "2 * x",
        "1",
        "2 / x + 1",
        "2 + 1",
        "x + 1",
        "4 * x + 1",
        "1.0 * x + 1",
        "2 * x + 2",
        "2 * x + 0.5",
    ]
    assert sorted(change.text for change in found) == sorted(f"return 2 * x + 1  ->  return {to}" for to in wanted)
    for change in found:
        made = {}
        exec(change.source, made)
        value = eval(change.text.partition("->  return ")[2], {"x": 5})
        assert made["outer"]()(5) == value
        assert made["other"] == 12


@pytest.mark.parametrize("algorithm", CHANGED_PORTS)
@pytest.mark.parametrize("framework", CHANGED_PORTS["paper"])
def test_the_sources_have_formulas_to_change(framework, algorithm):
    found = drawn(framework, algorithm)
    assert len(found) > 80
    assert found == drawn(framework, algorithm)


def test_a_function_within_a_function_is_changed_under_its_own_name():
    assert not changes(SOURCE, ["outer"])
    texts = [change.text for change in drawn("optax", "closed-form")]
    assert not [text for text in texts if text.startswith("def ")]
    assert any(text.startswith("rate = (1.0 if falling") for text in texts)  # outside of all the functions within


def test_a_name_is_held_against_inputs_that_the_search_does_not_use():
    [change] = [c for c in drawn("numpy") if c.text.startswith("after =") and c.text.endswith("'b': b + gamma}")]
    row = judge("numpy", "float64", change)
    assert (row["word"], row["named"]) == ("the same", [["b-without-compounding"]])


def test_a_name_that_leaves_a_state_out_is_held_against_theta(monkeypatch):
    """This m is one number for an array, and so another thing than the page's; what theta does has a name."""
    [change] = [c for c in drawn("numpy") if c.text.endswith("delta = momentum * state.get('m', 0.0) + (1 - momentum)")]
    row = judge("numpy", "float64", change)
    assert "its m is something else than ours, and was left out" in row["text"]
    assert (row["word"], row["named"]) == ("the same", [["m-as-momentum*old_m+(1-momentum)"]])
    monkeypatch.setattr(judge_ports, "LEFT_OUT", "?")
    assert judge("numpy", "float64", change)["word"] == "another"


@pytest.mark.parametrize("algorithm", CHANGED_PORTS)
def test_a_source_without_a_fault_is_the_page(algorithm):
    text = (judge_ports.ROOT / CHANGED_PORTS[algorithm]["numpy"].path).read_text(encoding="utf-8")
    row = judge("numpy", "float64", Change("none", text), algorithm)
    assert (row["algorithm"], row["word"]) == (algorithm, "the page")
    assert load("numpy", Change("none", text), algorithm).__name__ == "step"


def closed_form(before, after):
    [change] = [c for c in drawn("numpy", "closed-form") if before in c.text and c.text.endswith(f"  ->  {after}")]
    return judge("numpy", "float64", change, "closed-form")


def test_ports_of_the_closed_form_are_judged_as_that():
    row = closed_form("rho =", "rho = alpha_0 ** 2 / 2 * shrink")
    assert (row["word"], row["named"]) == ("the same", [["decay-without-q"]])
    row = closed_form("m =", "m = beta1 * state.get('m', 0) + (1 - beta1) * g")  # 0 is as good as an array of it
    assert (row["word"], row["named"]) == ("the page", [])


def test_a_name_may_hold_where_most_that_departs_is_nan(monkeypatch):
    """Without adam_epsilon, 0/0 is in most inputs with Adam's direction."""
    after = "return (m / (1 - beta1 ** n) / np.sqrt(v / (1 - beta2 ** n)), state | {'m': m, 'v': v})"
    row = closed_form("return", after)
    assert (row["word"], row["named"]) == ("the same", [["adam_epsilon-times-0"]])
    monkeypatch.setattr(judge_ports, "holds", Evidence.fits)
    assert closed_form("return", after)["word"] == "another"


def test_a_name_does_not_hold_where_nothing_is_decided(monkeypatch):
    names = ("decay-without-q",)
    port = SimulatedPort(*names, algorithm="closed-form")
    case = next(case for case in CLOSED_FORM.table() if case.name == "q-small" and case.dtype == "float64")
    monkeypatch.setattr(Evidence, "decides", lambda self, names, i: False)
    assert not holds(Evidence([observe(port, case)]), names)


def test_a_name_that_misses_something_does_not_hold():
    port = SimulatedPort("decay-without-q", algorithm="closed-form")
    draw_case = CLOSED_FORM.load("cases").random_case
    unseen = Evidence([observe(port, draw_case(i, tuple(port.options))) for i in range(10)])
    assert holds(unseen, ("decay-without-q",))
    for names in (("decay-without-half",), ("decay-absent",), ()):
        assert not holds(unseen, names)


def test_what_a_file_has_is_not_judged_again(monkeypatch, tmp_path):
    asked = []

    def answer(framework, dtype, change, algorithm):
        asked.append(change.text)
        word = ["the same", "another", "nothing", "missed", "raises", "the page"][len(asked) - 1]
        kind = dict(algorithm=algorithm, framework=framework, dtype=dtype)
        return dict(kind, name=change.text, word=word, seconds=1.0, named=[], text="")

    monkeypatch.setattr(judge_ports, "judge", answer)
    file = tmp_path / "rows.jsonl"
    judge_all(file, "numpy", "float64", 4)
    judge_all(file, "numpy", "float64", 6)
    assert len(asked) == len(set(asked)) == 6
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert "| paper | numpy | float64 | 4 | 3 | 1 | 1 | 1 | 1.0; 1.0 |" in table(rows)


def test_the_first_that_are_drawn_may_be_left_out(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(judge_ports, "judge", lambda framework, dtype, change, algorithm: asked.append(change) or {})
    judge_all(tmp_path / "rows.jsonl", "numpy", "float64", 7, after=4)
    assert asked == drawn("numpy")[4:7]
