"""The lectures run from top to bottom, and what they claim fails where it is not so."""

import json
import re
import runpy

import numpy as np
import pytest
from helpers import ROOT

import amos_ref
from amos_ref import closed_form

LECTURES = sorted((ROOT / "docs" / "lectures").glob("*.py"))


def give(path):
    """Run a lecture as a script without a screen; return its names."""
    plots = pytest.importorskip("matplotlib.pyplot")
    plots.switch_backend("agg")
    if "sklearn" in path.read_text(encoding="utf-8"):
        pytest.importorskip("sklearn")
    try:
        return runpy.run_path(str(path))
    finally:
        plots.close("all")


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_runs(path, capsys):
    give(path)
    assert len(capsys.readouterr().out.splitlines()) > 10


def test_there_are_lectures():
    assert len(LECTURES) == 4


EXTRAS = {"matplotlib": "plot", "sklearn": "digits"}  # what has to be installed for an import


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_a_lecture_says_what_to_install(path):
    assert missing_extras(path.read_text(encoding="utf-8")) == set()


def missing_extras(text):
    """Return the extras that a lecture's imports need, and its line for pip lacks."""
    [line] = re.findall(r"`pip install '?amos_ref(.*?)'? notebook`", text.split("# %%\n")[0])
    needed = {EXTRAS[name] for name in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE) if name in EXTRAS}
    return needed - set(line.strip("[]").split(","))


def test_a_missing_extra_is_seen():
    text = "# Run `pip install 'amos_ref[plot]' notebook`.\n\n# %%\nimport matplotlib.pyplot\nfrom sklearn import x\n"
    assert missing_extras(text) == {"digits"}
    assert missing_extras(text.replace("[plot]", "[plot,digits]")) == set()


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_every_exercise_has_its_solution(path):
    text = path.read_text(encoding="utf-8")
    exercises, solutions = text.split("# ## Exercises\n")[1].split("# ## Solutions\n")
    asked = re.findall(r"^# (\d)\. \*\*", exercises, re.MULTILINE)
    assert asked == ["1", "2", "3"]
    assert re.findall(r"^# \*\*Exercise (\d)\.\*\*", solutions, re.MULTILINE) == asked
    assert solutions.count("assert ") >= len(asked)


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_code_fits_a_page(path):
    code = path.read_text(encoding="utf-8")
    assert [line for line in code.splitlines() if not line.startswith("#") and len(line) > 80] == []


def cells_of(text):
    """Return (kind, lines) of each cell of the percent format, as jupytext reads it."""
    kinds, cells = (
        re.findall(r"^# %%( \[markdown\])?$", text, re.MULTILINE),
        re.split(r"^# %%.*\n", text, flags=re.MULTILINE),
    )
    assert cells.pop(0) == ""
    return [(kind.strip() or "code", cell.strip().splitlines()) for kind, cell in zip(kinds, cells, strict=True)]


def misread(text):
    """Return what a notebook would show as something else than what is meant."""
    found = []
    for kind, lines in cells_of(text):
        if kind == "code":
            found += [line for line in lines[:1] if line.startswith("# ") and not any(map(str.strip, lines[1:]))]
            continue
        found += [line for line in lines if not re.match(r"#( |$)", line)]  # not text, but code
        found += re.findall(r":\w+:`.*?`|``.*?``|^# \.\. .*", "\n".join(lines), re.MULTILINE)  # reStructuredText
        words = [line[2:] for line in lines]
        for before, line, after in zip(["", *words], words, [*words[1:], ""], strict=False):
            starts = re.match(r"(\d+\.|[-+*]) ", line)
            # Only a blank line, or another item, goes before a list; any other line that looks like one was a sentence.
            if starts and before and not re.match(r"(\d+\.|[-+*]) |  ", before) and not in_formula(words, line):
                found.append(line)
            if line == "$$" and before and after:
                found.append(line)
    return found


def in_formula(words, line):
    """Say whether a line stands between two lines of $$."""
    return words[: words.index(line)].count("$$") % 2 == 1


@pytest.mark.parametrize("path", LECTURES, ids=lambda path: path.stem)
def test_text_is_markdown(path):
    assert misread(path.read_text(encoding="utf-8")) == []


def test_text_that_a_notebook_misreads_is_seen():
    right = "# %% [markdown]\n# The state starts at\n#\n# $$\n# x\n# + 1\n# $$\n#\n# and $v$.\n\n# %%\n# why\nx = 1\n"
    assert misread(right) == []
    for wrong in (
        right.replace("$v$", ":math:`v`"),
        right.replace("$v$", "``v``"),
        right.replace("# $$\n#\n# and", "# $$\n# and"),
        right.replace("at\n#\n", "at\n# 0. Then\n#\n"),
        right.replace("# and", "and"),
        right.replace("x = 1\n", ""),
    ):
        assert misread(wrong) != [], wrong


def test_a_wrong_schedule_fails_the_first_lecture(monkeypatch):
    right = closed_form.shrink_inverse_time
    monkeypatch.setattr(closed_form, "shrink_inverse_time", lambda x: np.sqrt(right(x)))
    with pytest.raises(AssertionError):
        give(LECTURES[0])


def table_of(text):
    """Return the losses that the fourth lecture quotes: row -> (MNIST, scikit-learn)."""
    rows = re.findall(r"^# \| (\w.*?) \| (\d\.\d+) \| (\d\.\d+) \|$", text, re.MULTILINE)
    return {name: numbers for name, *numbers in rows}


def test_the_fourth_lecture_quotes_the_stored_experiment():
    reports = [json.loads((ROOT / "docs" / f"why_amos{name}.json").read_text()) for name in ("_mnist", "")]
    ends = {
        "Amos by the recipe": [r["runs"]["Amos"]["loss"][0][9] for r in reports],
        "AdamW, constant, tuned": [r["runs"]["AdamW, constant"]["loss"][0][9] for r in reports],
        "AdamW, linear to 0, tuned": [r["AdamW, linear"]["9"]["loss"][0] for r in reports],
    }
    expected = {name: [f"{loss:.3f}" for loss in losses] for name, losses in ends.items()}
    text = LECTURES[3].read_text(encoding="utf-8")
    assert table_of(text) == expected
    assert table_of(text.replace("0.136", "0.130")) != expected


def test_a_clock_that_stands_fails_the_fourth_lecture(monkeypatch):
    """Without the decay inside, Amos does not do what the lecture says."""
    right = amos_ref.Amos.__init__
    monkeypatch.setattr(amos_ref.Amos, "__init__", lambda *args, **kw: right(*args, **{**kw, "c_coef": 0, "d_coef": 0}))
    with pytest.raises(AssertionError):
        give(LECTURES[3])
