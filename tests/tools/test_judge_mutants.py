"""Mutants and sets: drawn the same every time, judged once each, and counted for what came of them."""

from amos_ref.conformance.diagnosis.catalogue import CATALOGUE
from tools import judge_mutants
from tools.judge_mutants import MOST, drawn, drawn_sets, judge_all, judge_names, read, table
from tools.judge_quality import Judge


def test_the_same_mutants_are_drawn_every_time_and_none_is_in_the_catalogue():
    names = drawn()
    assert names == drawn()
    assert len(set(names)) == len(names) == 2000
    assert not {name for (name,) in names} & set(CATALOGUE)


def test_sets_are_of_the_catalogue_and_of_every_size():
    sets = drawn_sets("float32", 40)
    assert sets == drawn_sets("float32", 50)[:40]
    assert {len(names) for names in sets} == set(range(2, MOST + 1))
    assert all(len(set(names)) == len(names) and set(names) <= set(CATALOGUE) for names in sets)
    assert not any("v-in-float32" in names for names in drawn_sets("float32", 400))  # right there, wrong in float64
    assert any("v-in-float32" in names for names in drawn_sets("float64", 400))


def test_what_a_file_has_is_not_judged_again(tmp_path, monkeypatch):
    file, judged = tmp_path / "mutants.jsonl", []

    def judge(judge, names):
        judged.append(names)
        return dict(dtype=judge.dtype, name=" + ".join(names), word="the same", seconds=1.0)

    monkeypatch.setattr(judge_mutants, "judge_names", judge)
    judge_all(file, "float64", 2)
    judge_all(file, "float64", 3)
    assert judged == drawn()[:3] == [(row["name"],) for row in read(file)]
    judge_all(file, "float32", 1)
    assert judged[3:] == drawn()[:1]
    for up_to in (2, 4):
        judge_all(file, "float64", up_to, several=True)
    assert judged[4:] == drawn_sets("float64", 4) == [tuple(row["name"].split(" + ")) for row in read(file)[4:]]


def test_what_comes_of_a_mutant():
    judge = Judge("float64")
    judge.cases = [case for case in judge.cases if "momentum" not in case.options][:12]
    assert judge_names(judge, ("gamma-times-eta^3",))["word"] == "the same"
    assert judge_names(judge, ("m-times-t",))["word"] == "missed"  # none of these cases has momentum
    assert judge_names(judge, ("xi-times-1",))["word"] == "the page"
    assert judge_names(judge, ("gamma-whole", "sum-for-mean"))["word"] == "the same"


def test_the_table_counts_what_is_caught_and_what_has_a_name():
    words = ["the same", "the same", "another", "nothing", "missed", "the page"]
    rows = [dict(dtype="float32", name=str(i), word=word, seconds=float(i)) for i, word in enumerate(words)]
    assert "| float32 | 5 | 4 (80.0 %) | 2 (50.0 %) | 1 | 1 | 1.5; 3.0; 3.0 |" in table(rows)
    assert "missed in float32: 4" in table(rows)
    rows += [dict(dtype="float32", name="a + b", word="nothing", seconds=2.0)]
    assert "| float32, 2 at once | 1 | 1 (100.0 %) | 0 (0.0 %) | 0 | 1 | 2.0; 2.0; 2.0 |" in table(rows)
    assert "| float32 | 5 | 4 (80.0 %)" in table(rows)
