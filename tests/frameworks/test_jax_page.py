"""docs/jax.md: its examples are run in order, in a process of their own, and print what the page says."""

import re
import subprocess
import sys

import pytest
from helpers import ROOT

for package in ("jax", "optax", "sklearn"):
    pytest.importorskip(package)

# JAX warns of its own affairs while it is imported and used.
pytestmark = pytest.mark.filterwarnings("default")

MARK = "-- the end of a block --"


def blocks_of_the_page():
    """Return each block of Python with the text that stands below it as its output, or with nothing."""
    text = (ROOT / "docs" / "jax.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_the_page_says(tmp_path):
    blocks = blocks_of_the_page()
    assert len(blocks) == 9
    code = "\n".join(f"{block}\nprint({MARK!r})" for block, _ in blocks)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split(f"{MARK}\n")[:-1] == [output for _, output in blocks]


def test_the_page_says_what_the_port_is():
    text = (ROOT / "docs" / "jax.md").read_text(encoding="utf-8")
    assert "The port conforms within rounding; the core has the bits." in text
    assert max(map(len, "\n".join(block for block, _ in blocks_of_the_page()).splitlines())) <= 80
