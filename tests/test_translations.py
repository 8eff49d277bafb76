"""The Chinese pages say what the English ones say, and are set as Chinese is."""

import re

import pytest
from helpers import ROOT
from helpers.translations import (
    anchors_of,
    blemishes,
    blocks_of,
    code_blocks,
    differences,
    numbers_in,
    other_language,
    read_pages,
    text_of,
)

PAGES = read_pages(ROOT / "docs")
TRANSLATED = sorted(name.removesuffix("_zh") for name in PAGES if name.endswith("_zh"))
WHOLE = [name for name in TRANSLATED if name != "index"]  # the Chinese home page is a short one


def test_what_a_reader_of_chinese_needs_is_there():
    assert {"index", "algorithm", "choosing", "derivation", "explorer", "questions"} <= set(TRANSLATED)


@pytest.mark.parametrize("name", WHOLE)
def test_a_translation_has_all_that_the_page_has(name):
    assert differences(name, PAGES) == []


def test_the_home_page_says_nothing_that_the_english_one_does_not():
    english, chinese = PAGES["index"], PAGES["index_zh"]
    assert set(code_blocks(chinese)) <= set(code_blocks(english))
    assert len(code_blocks(chinese)) >= 2
    assert set(numbers_in(text_of(blocks_of(chinese)))) <= set(numbers_in(text_of(blocks_of(english))))


@pytest.mark.parametrize("name", TRANSLATED)
def test_chinese_is_set_as_chinese(name):
    assert blemishes(f"{name}_zh", PAGES) == []


@pytest.mark.parametrize("name", TRANSLATED)
def test_each_page_leads_to_the_other_language(name):
    assert other_language(PAGES[name]) == ("中文", f"{name}_zh")
    assert other_language(PAGES[f"{name}_zh"]) == ("English", name)
    assert PAGES[f"{name}_zh"].startswith("---\nlang: zh-Hans\n---\n")


def test_the_site_has_a_group_of_chinese_pages():
    [group] = re.findall(r"^```\{toctree\}\n:caption: 中文\n(.*?)^```", PAGES["index"], re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"\w+(?=_zh$)", group, re.MULTILINE)) == TRANSLATED
    assert PAGES["index"].count("_zh\n") == len(TRANSLATED)


ENGLISH = """# Title

[中文](a_zh.md)

An error of 3 and $x$ in `f`, see [there](b.md#a-part), [here](#more-its-so) and [elsewhere](c.md).

<a href="d.html#t=1">Try</a>.

    >>> 1 + 1
    2

$$x = 1$$

## More: it's so

- one of 1,000
- two

| a | b |
|---|---|
| 1.5 | 1e-3 |
| $y^2$ | $y^2$ |
"""
CHINESE = """---
lang: zh-Hans
---

# 标题

[English](a.md)

在 `f` 中，误差为 3，$x$ 也是（见[那里](b_zh.md#一个-部分)、[这里](#其余)与[别处](c.md)（英文））。

<a href="d.html#t=1">试一试</a>。

    >>> 1 + 1
    2

$$x = 1$$

## 其余

- 1,000 之一
- 二

| 甲 | 乙 |
|---|---|
| 1.5 | 1e-3 |
| $y^2$ | $y^2$ |
"""
OTHERS = {"b": "# B\n\n## A part\n", "b_zh": "# 乙\n\n## 一个 部分\n", "c": "# C\n"}
DRIFTS = {  # how a page drifts from its translation: (what the English page has now, where it had, what is said)
    "a heading more": ("## More: it's so", "## New\n\n## More: it's so", "3 headings, 2 in Chinese"),
    "another level": ("## More", "### More", "built of ['heading 3'"),
    "a paragraph more": ("## More", "New.\n\n## More", "'formula', 'paragraph'], ["),
    "an item more": ("- two", "- two\n- three", "list of 3"),
    "a row more": ("| 1.5 |", "| 2 | 3 |\n| 1.5 |", "table of 5 rows"),
    "another output": ("    2", "    3", "another code"),
    "another formula": ("$$x = 1$$", "$$x = 2$$", "another formula"),
    "a number in the text": ("of 3", "of 4", "numbers: lacks ['4'], has ['3']"),
    "a number in a list": ("1,000", "2,000", "numbers: lacks ['2,000'], has ['1,000']"),
    "a number in a table": ("1e-3", "1e-4", "numbers: lacks ['1e-4'], has ['1e-3']"),
    "a name": ("`f`", "`g`", "code: lacks ['`g`'], has ['`f`']"),
    "a symbol": ("$x$", "$y$", "symbols: lacks ['$y$'], has ['$x$']"),
    "a link": ("c.md", "d.md", "links: lacks ['d.md'], has ['c.md']"),
    "a symbol in a table": ("| $y^2$ |", "| $y^3$ |", "other symbols in a table of 4 rows"),
    "a link to what is no page": ("t=1", "t=2", "links: lacks ['d.html#t=2'], has ['d.html#t=1']"),
    "a part of a page": ("b.md#a-part", "b.md", "links: lacks ['b_zh.md']"),
}


@pytest.mark.parametrize("drift", [None, *DRIFTS])
def test_a_page_that_drifts_from_its_translation_is_seen(drift):
    old, new, said = DRIFTS.get(drift, ("", "", ""))
    assert old in ENGLISH
    found = differences("a", {"a": ENGLISH.replace(old, new), "a_zh": CHINESE, **OTHERS})
    assert any(said in text for text in found) if drift else found == []


FAULTS = {
    "narrow punctuation": ("，误差", ",误差"),
    "no space beside Latin": ("为 3", "为3"),
    "a space beside wide punctuation": ("，误差", "， 误差"),
    "a space between characters": ("误差", "误 差"),
    "a line break": ("，误差", "，\n误差"),
    "without its end: 在": ("$x$", "$x"),
    "without its end: - ": ("- 二", "- `二"),
    "leads to the English b": ("b_zh.md#一个-部分", "b.md"),
    "does not say that c is in English": ("（英文）", ""),
}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_blemish_is_seen(fault):
    old, new = FAULTS.get(fault, ("", ""))
    assert old in CHINESE
    found = blemishes("a_zh", {"a": ENGLISH, "a_zh": CHINESE.replace(old, new), **OTHERS})
    assert any(text.startswith(fault) for text in found) if fault else found == []


def test_headings_have_the_names_that_the_site_gives_them():
    page = "# Which of the two: `a_b`, $x$?\n\n## 离最优点有多远：$q$\n"
    assert anchors_of(page) == ["which-of-the-two-a_b-x", "离最优点有多远q"]
