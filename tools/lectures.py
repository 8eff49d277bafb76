"""Notebooks from the lectures: docs/conf.py calls `write_notebooks` before the site is built, and `publish` after it.

A lecture is a Python file in jupytext's percent format, docs/lectures/*.py. Its notebook is run from top to bottom, so
it has the outputs that the page shows, and a lecture that fails makes no site. Beside the notebooks the site has a
wheel of amos_ref, so that a reader who has pip needs nothing else.
"""

import pathlib
import re
import shutil

import jupytext
import nbformat
from hatchling.builders.wheel import WheelBuilder
from nbclient import NotebookClient

from amos_ref.storage.files import write_file

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted((ROOT / "docs" / "lectures").glob("*.py"))
LIMIT = 600  # seconds a cell; the longest takes some twenty


def write_notebooks():
    """Write the notebook of each lecture, with its outputs, beside its source."""
    for path in SOURCES:
        notebook = run(read(path))
        write_file(path.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")


def read(path):
    """Return a lecture as a notebook that has not been run; a picture is described by its titles."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"  # and not a random one: the same lecture is the same notebook
        titles = re.findall(r'\btitle="([^"]+)"', cell.source)
        if cell.cell_type == "code" and titles:
            cell.metadata["mystnb"] = {"image": {"alt": f"Chart: {'; '.join(titles)}"}}
    return notebook


KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def run(notebook):
    """Run a notebook from top to bottom and return it; an error in it is an error."""
    NotebookClient(notebook, timeout=LIMIT, kernel_name=KERNEL["name"], record_timing=False).execute()
    return notebook


def publish(site):
    """Put the notebooks, their sources and a wheel of amos_ref beside the lectures' pages."""
    folder = pathlib.Path(site) / "lectures"
    for path in SOURCES:
        for file in (path, path.with_suffix(".ipynb")):
            shutil.copy(file, folder / file.name)
    list(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
