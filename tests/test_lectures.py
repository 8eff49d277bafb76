"""The lectures run from top to bottom, and what they claim fails where it is not so."""

import re
import runpy

import numpy as np
import pytest
from helpers import ROOT

from amos_ref import closed_form

LECTURES = sorted((ROOT / "docs" / "lectures").glob("*.py"))


def give(path):
    """Run a lecture as a script without a screen; return its names."""
    plots = pytest.importorskip("matplotlib.pyplot")
    plots.switch_backend("agg")
    try:
        return runpy.run_path(str(path))
    finally:
        plots.close("all")


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_runs(path, capsys):
    give(path)
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_there_are_lectures():
    assert len(LECTURES) == 3


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_every_exercise_has_its_solution(path):
    text = path.read_text(encoding="utf-8")
    exercises, solutions = text.split("# Exercises\n")[1].split("# Solutions\n")
    asked = re.findall(r"^# (\d)\. \*\*", exercises, re.MULTILINE)
    assert asked == ["1", "2", "3"]
    assert re.findall(r"^# \*\*Exercise (\d)\.\*\*", solutions, re.MULTILINE) == asked
    assert solutions.count("assert ") >= len(asked)


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_code_fits_a_page(path):
    code = path.read_text(encoding="utf-8").split('"""', 2)[2]  # behind the docstring, which is text
    assert [line for line in code.splitlines() if not line.startswith("#") and len(line) > 80] == []


def test_a_wrong_schedule_fails_the_first_lecture(monkeypatch):
    right = closed_form.shrink_inverse_time
    monkeypatch.setattr(closed_form, "shrink_inverse_time", lambda x: np.sqrt(right(x)))
    with pytest.raises(AssertionError):
        give(LECTURES[0])
