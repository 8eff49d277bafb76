"""What measures the judge: it counts what is caught, what is named, and what is wrongly accused."""

import pytest
from helpers import ROOT

from tools import judge_quality

JUDGE = {dtype: judge_quality.Judge(dtype) for dtype in ("float64", "float32")}


@pytest.mark.parametrize("dtype", JUDGE)
def test_a_deviation_is_caught_and_the_page_is_not(dtype):
    judge = JUDGE[dtype]
    with_state, theta = judge.catch("c-with-xi")
    assert with_state is not None
    assert theta is not None
    assert with_state.step <= theta.step
    assert judge.catch() == [None, None]
    assert judge.catches("c-with-xi", "gamma-sign")
    assert not judge.catches("extra_l2-halved", "extra_l2-doubled")  # which undo each other
    assert judge.false_alarms(1000) == []


def test_a_name_is_right_if_it_does_the_same_on_inputs_held_out():
    assert judge_quality.same(("extra_l2-halved", "extra_l2-doubled"), ())
    assert judge_quality.same(("extra_l2-ignored", "extra_l2-sign"), ("extra_l2-ignored",))
    assert not judge_quality.same(("extra_l2-halved",), ("extra_l2-ignored",))
    assert JUDGE["float64"].names("gamma-sign")
    assert not JUDGE["float64"].names()  # there is nothing to name


def test_a_deviation_that_the_catalogue_lacks_gets_no_name_but_its_own_words():
    judge = JUDGE["float64"]
    before = list(judge_quality.CATALOGUE)
    assert judge.dropped("clip-by-norm") == "nothing"
    assert judge.dropped("gamma-whole") == "the same"  # gamma_in_rho-times-2
    assert list(judge_quality.CATALOGUE) == before
    assert judge.names_as("gamma-times-eta^1/2") == "the same"


def test_a_state_in_the_parameters_dtype_is_right():
    assert judge_quality.is_wrong_in("state-float32", "float64")
    assert not judge_quality.is_wrong_in("state-float32", "float32")
    assert judge_quality.is_wrong_in("state-float16", "bfloat16")
    assert not judge_quality.is_wrong_in("gradient-in-float32", "float32")
    assert not judge_quality.is_wrong_in("schedule-float32", "bfloat16", "closed-form")
    assert not judge_quality.is_wrong_in("state-bfloat16", "bfloat16")


def test_the_page_is_made_of_the_answers(monkeypatch):
    answers = {
        "float64": {
            "catch": {("gamma-sign",): [judge_quality.Catch(1, "plain"), None]},
            "false_alarms": {(1000,): [], (1001,): ["plain"]},
            "catches": {
                ("gamma-sign", "d-absent"): True,
                ("extra_l2-halved", "extra_l2-doubled"): False,
                ("gamma-times-eta",): True,
                ("r-times-xi",): False,
            },
            "names_as": {("gamma-times-eta",): "the same", ("r-times-xi",): "another"},
            "dropped": {("d-absent",): "nothing", ("c-as-d",): "the same"},
            "names": {("gamma-sign",): True, ("gamma-sign", "d-absent"): False},
        }
    }
    closed = {
        "float64": {
            "catches": {("t-from-1",): True, ("sum-for-mean",): False},
            "departing": {(1000, 1): False, (1001, 1): True},
            "names_as": {("t-from-1",): "the same"},
            "dropped": {("t-from-1",): "nothing"},
        }
    }
    found = {"paper": answers, "closed-form": closed}
    monkeypatch.setattr(judge_quality, "measure", lambda todo, algorithm: found[algorithm])
    monkeypatch.setattr(judge_quality, "PORTS", {})
    page = judge_quality.matrix_page()
    assert "| float64 | 1 of 1 (100.0 %) | 0 of 1 (0.0 %) | 1 of 1 (100.0 %) |" in page
    assert "1 of 1 (100.0 %) caught (those that undo each other left out: 1); of 1 drawn at random, 0 named" in page
    assert "| float64 | 1 of 2 (50.0 %) | 2 | 1 | 1 | 0 |" in page
    assert "Of 2 deviations drawn at random, each was left out of the catalogue: 1 ports" in page
    assert "Pairs not named in float64: gamma-sign + d-absent." in page
    assert "| float64 | 2 | 1 (plain) |" in page
    assert "| gamma-sign | 1, never |" in page
    assert "| float64 | 1 of 2 (50.0 %) | 1 of 1 (100.0 %) | 0 | 2 | 1 |" in page
    assert "Not caught in float64: sum-for-mean" in page


def test_a_part_has_every_kind_of_job_and_all_that_say_where_something_is_caught():
    every = judge_quality.jobs()
    part = judge_quality.part_of(every, 4)
    kinds = {(dtype, method, len(names)) for dtype, method, names in every}
    assert {(dtype, method, len(names)) for dtype, method, names in part} == kinds
    assert [job for job in part if job[1] == "catch"] == [job for job in every if job[1] == "catch"]
    for kind in kinds:
        many, fewer = (sum((*job[:2], len(job[2])) == kind for job in some) for some in (every, part))
        assert fewer == (many if kind[1] == "catch" else -(-many // 4))
    assert sorted(judge_quality.part_of(every, 1)) == sorted(every)


def test_the_documented_catalogue_is_the_catalogue():
    assert (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8") == judge_quality.catalogue_page()
