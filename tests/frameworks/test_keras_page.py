"""docs/keras.md: its examples are run in order, on JAX, and print what the page says."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from helpers import ROOT

pytest.importorskip("jax")
if not any((pathlib.Path(folder) / "keras").is_dir() for folder in sys.path):
    pytest.skip("there is no keras", allow_module_level=True)  # importing it would need its backend first

MARK = "-- the end of a block --"
PAGE = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")


def blocks(text):
    """Return each block of Python with the text that stands below it as its output, or with nothing."""
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.MULTILINE | re.DOTALL)


def run(text, folder):
    code = "\n".join(f"{block}\nprint({MARK!r})" for block, _ in blocks(text))
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_examples_print_what_the_page_says(tmp_path):
    found = run(PAGE, tmp_path)
    assert found.returncode == 0, found.stderr
    assert len(blocks(PAGE)) == 9
    assert found.stdout.split(f"{MARK}\n")[:-1] == [output for _, output in blocks(PAGE)]


def test_a_page_that_says_what_is_not_so_is_seen(tmp_path):
    part = PAGE[: PAGE.index("A mapping that has no entry")].replace("40) < 0.05", "40) > 0.05")
    assert "AssertionError" in run(part, tmp_path).stderr


def test_code_fits_its_column():
    assert max(map(len, "\n".join(block for block, _ in blocks(PAGE)).splitlines())) <= 80
