"""Mutants: drawn the same every time, judged once each, and counted for what came of them."""

from amos_ref.conformance.diagnosis.catalogue import CATALOGUE
from tools import judge_mutants
from tools.judge_mutants import drawn, judge_all, judge_mutant, read, table
from tools.judge_quality import Judge


def test_the_same_mutants_are_drawn_every_time_and_none_is_in_the_catalogue():
    names = drawn()
    assert names == drawn()
    assert len(set(names)) == len(names) == 2000
    assert not set(names) & set(CATALOGUE)


def test_what_a_file_has_is_not_judged_again(tmp_path, monkeypatch):
    file, judged = tmp_path / "mutants.jsonl", []

    def judge(judge, name):
        judged.append(name)
        return dict(dtype=judge.dtype, name=name, word="the same", seconds=1.0)

    monkeypatch.setattr(judge_mutants, "judge_mutant", judge)
    judge_all(file, "float64", 2)
    judge_all(file, "float64", 3)
    assert judged == drawn()[:3] == [row["name"] for row in read(file)]
    judge_all(file, "float32", 1)
    assert judged[3:] == drawn()[:1]


def test_what_comes_of_a_mutant():
    judge = Judge("float64")
    judge.cases = [case for case in judge.cases if "momentum" not in case.options][:12]
    assert judge_mutant(judge, "gamma-times-eta^3")["word"] == "the same"
    assert judge_mutant(judge, "m-times-t")["word"] == "missed"  # none of these cases has momentum
    assert judge_mutant(judge, "xi-times-1")["word"] == "the page"


def test_the_table_counts_what_is_caught_and_what_has_a_name():
    words = ["the same", "the same", "another", "nothing", "missed", "the page"]
    rows = [dict(dtype="float32", name=str(i), word=word, seconds=float(i)) for i, word in enumerate(words)]
    assert "| float32 | 5 | 4 (80.0 %) | 2 (50.0 %) | 1 | 1 | 1.5; 3.0; 3.0 |" in table(rows)
    assert "missed in float32: 4" in table(rows)
