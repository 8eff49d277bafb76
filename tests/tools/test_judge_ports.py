"""Real ports with a single wrong formula."""

import json

import pytest

from tools import judge_ports
from tools.judge_ports import CHANGED_PORTS, Change, changes, drawn, judge, judge_all, load, table

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


@pytest.mark.parametrize("framework", CHANGED_PORTS)
def test_the_sources_have_formulas_to_change(framework):
    found = drawn(framework)
    assert len(found) > 80
    assert found == drawn(framework)


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


def test_a_source_without_a_fault_is_the_page():
    text = (judge_ports.ROOT / CHANGED_PORTS["numpy"].path).read_text(encoding="utf-8")
    assert judge("numpy", "float64", Change("none", text))["word"] == "the page"
    assert load("numpy", Change("none", text)).__name__ == "step"


def test_what_a_file_has_is_not_judged_again(monkeypatch, tmp_path):
    asked = []

    def answer(framework, dtype, change):
        asked.append(change.text)
        word = ["the same", "another", "nothing", "missed", "raises", "the page"][len(asked) - 1]
        return dict(framework=framework, dtype=dtype, name=change.text, word=word, seconds=1.0, named=[], text="")

    monkeypatch.setattr(judge_ports, "judge", answer)
    file = tmp_path / "rows.jsonl"
    judge_all(file, "numpy", "float64", 4)
    judge_all(file, "numpy", "float64", 6)
    assert len(asked) == len(set(asked)) == 6
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert "| numpy | float64 | 4 | 3 | 1 | 1 | 1 | 1.0; 1.0 |" in table(rows)


def test_the_first_that_are_drawn_may_be_left_out(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(judge_ports, "judge", lambda framework, dtype, change: asked.append(change) or {})
    judge_all(tmp_path / "rows.jsonl", "numpy", "float64", 7, after=4)
    assert asked == drawn("numpy")[4:7]
