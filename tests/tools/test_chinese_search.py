"""How the site's search cuts texts into words; tests/site/test_search.py searches."""

import json
import shutil
import subprocess

import pytest

pytest.importorskip("sphinx", reason="no Sphinx; the extra docs has it")

from tools.chinese_search import EnglishAndChinese

LANGUAGE = EnglishAndChinese({})


def asked(query):
    """Return how a browser cuts a query."""
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    script = f"{LANGUAGE.js_splitter_code}\nconsole.log(JSON.stringify(splitQuery(process.argv[1])));"
    return json.loads(subprocess.run(["node", "-e", script, query], capture_output=True, check=True, timeout=60).stdout)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("时钟", ["时钟"]),
        ("钟", ["钟"]),
        ("权重衰减", ["权重", "重衰", "衰减"]),
        ("Amos的时钟 b", ["Amos", "的时", "时钟", "b"]),
        ("half-life", ["half", "life"]),
        ("", []),
    ],
)
def test_a_query_is_cut_into_words_that_a_page_with_its_text_has(query, words):
    assert asked(query) == words
    assert set(words) <= set(LANGUAGE.split(f"前文{query}后文"))


def test_english_is_cut_as_it_was():
    text = "The clock b, of 1,000 steps: half-life (x_0)"
    assert LANGUAGE.split(text) == super(EnglishAndChinese, LANGUAGE).split(text)
