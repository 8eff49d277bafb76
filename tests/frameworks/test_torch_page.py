"""What docs/torch.md shows runs, block by block, in one session."""

import re

import pytest
from helpers import ROOT

torch = pytest.importorskip("torch")
PAGE = (ROOT / "docs" / "torch.md").read_text(encoding="utf-8")


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(text):
    names = {}
    for k, block in enumerate(blocks(text)):
        exec(compile(block, f"docs/torch.md, block {k}", "exec"), names)


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


def test_the_page_runs():
    pytest.importorskip("pytorch_optimizer")
    assert len(blocks(PAGE)) == 11
    run(PAGE)


def test_a_page_that_says_what_is_not_so_is_seen():
    part = PAGE[: PAGE.index("## Warm-up")].replace("assert loss < 0.05", "assert loss > 0.05")
    with pytest.raises(AssertionError):
        run(part)
