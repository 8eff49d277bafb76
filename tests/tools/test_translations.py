"""The Chinese pages get the code of the English ones, and nothing else of them."""

import pytest
from helpers import ROOT
from helpers.translations import read_pages

from tools.translations import with_code_of

PAGES = read_pages(ROOT / "docs")
WHOLE = [name for name in sorted(PAGES) if f"{name}_zh" in PAGES and name != "index"]
CODE = ">>> 1 + 1\n2", "    $ amos-ref check", "$$x\n= 1$$", "    >>> 1 + 1\n    2"
NEW = ">>> 1 + 2\n3", "    $ amos-ref check torch", "$$x\n= 2$$", "    >>> 1 + 2\n    3"


def page(word, code):
    return f"# {word}\n\n```\n    {word}\n```\n\n" + "".join(f"{word}:\n\n{block}\n\n" for block in code) + f"{word}\n"


def test_code_that_differs_is_copied_and_the_text_stays():
    assert with_code_of(page("page", NEW), page("页面", CODE)) == page("页面", NEW)


@pytest.mark.parametrize("name", WHOLE)
def test_pages_that_agree_stay_as_they_are(name):
    assert with_code_of(PAGES[name], PAGES[f"{name}_zh"]) == PAGES[f"{name}_zh"]


@pytest.mark.parametrize("code", [NEW[:2], (*NEW, NEW[0]), NEW[::-1]])
def test_a_block_more_or_less_is_for_a_person(code):
    with pytest.raises(ValueError, match=f"has 4 blocks of code and formulas for {len(code)}, or in another order"):
        with_code_of(page("page", code), page("页面", CODE))
