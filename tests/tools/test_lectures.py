"""Notebooks made from lectures: what jupytext makes of a source, what a run leaves, and that errors are errors."""

import pytest

pytest.importorskip("jupytext", reason="no jupytext; the extra docs has it")
pytest.importorskip("hatchling", reason="no hatchling; the extra docs has it")

import nbformat
from nbclient.exceptions import CellExecutionError

import amos_ref
from tools import lectures

LECTURE = """# %% [markdown]
# # Lecture 9: a title
#
# It has a formula, $x$.

# %%
print("one", 1)
title = "not a picture"

# %%
picture = dict(title="A line", color="k")
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "9_title.py"
    path.write_text(LECTURE, encoding="utf-8")
    return path


def test_a_source_is_a_notebook_of_text_and_code(source):
    notebook = lectures.read(source)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code"]
    assert notebook.cells[0].source == "# Lecture 9: a title\n\nIt has a formula, $x$."
    assert notebook.cells[2].metadata["mystnb"] == {"image": {"alt": "Chart: A line"}}
    assert lectures.read(source) == notebook  # no identity is random


def test_running_it_leaves_its_outputs(source):
    notebook = lectures.run(lectures.read(source))
    assert [[output.text for output in cell.outputs] for cell in notebook.cells[1:]] == [["one 1\n"], []]
    assert notebook.cells[1].execution_count == 1


def test_only_pictures_are_shown_beside_text():
    """A report that is printed in a notebook shows itself once more, as a table in HTML; rich does that."""
    for path in lectures.SOURCES:
        made = path.with_suffix(".ipynb")
        if not made.exists():
            pytest.skip("no notebooks; `nox -s docs` makes them")
        kinds = kinds_of(nbformat.read(made, as_version=4))
        assert kinds <= {"text/plain", "image/png"}, path.name


def kinds_of(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return {kind for output in outputs for kind in output.get("data", ())}


def test_a_table_in_html_is_seen(source):
    source.write_text("# %%\nimport rich\n\nrich.print('x')\n", encoding="utf-8")
    assert "text/html" in kinds_of(lectures.run(lectures.read(source)))


def test_a_lecture_that_fails_is_an_error(source):
    source.write_text(LECTURE + "\n# %%\nassert 1 == 2\n", encoding="utf-8")
    with pytest.raises(CellExecutionError):
        lectures.run(lectures.read(source))


@pytest.mark.parametrize("path", lectures.SOURCES, ids=lambda path: path.stem)
def test_every_lecture_says_first_how_to_open_it(path):
    notebook = lectures.read(path)
    assert notebook.cells[0].source.startswith(f"# Lecture {path.stem[0]}: ")
    assert "pip install" in notebook.cells[0].source
    described = [cell for cell in notebook.cells if "plt.show()" in cell.source]
    assert all(len(cell.metadata["mystnb"]["image"]["alt"]) > 20 for cell in described)


def test_what_is_published_is_a_wheel_and_both_forms_of_each_lecture(tmp_path, source, monkeypatch):
    source.with_suffix(".ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(lectures, "SOURCES", [source])
    (tmp_path / "site" / "lectures").mkdir(parents=True)
    lectures.publish(tmp_path / "site")
    found = sorted(path.name for path in (tmp_path / "site" / "lectures").iterdir())
    assert found == ["9_title.ipynb", "9_title.py", f"amos_ref-{amos_ref.__version__}-py3-none-any.whl"]
