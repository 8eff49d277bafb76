"""The search of the site finds Chinese words as it finds English ones."""

import html.parser
import re

import pytest
from helpers.browser import SITE

pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")

WORDS = ("时钟", "学习率", "权重衰减", "半衰期", "尖峰", "熵", "优化器")
SHOWN = "Array.from(document.querySelectorAll('#search-results li > a'), (a) => a.pathname.slice(1))"


class Article(html.parser.HTMLParser):
    """The words of the article of a page, without those that are code."""

    def __init__(self, text):
        super().__init__()
        self.words, self.inside = "", 0
        self.feed(re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL))

    def handle_starttag(self, tag, attrs):
        self.inside += tag == "article"

    def handle_endtag(self, tag):
        self.inside -= tag == "article"

    def handle_data(self, data):
        self.words += data if self.inside else ""


def pages_with(word):
    return {path.name for path in SITE.glob("*.html") if word in Article(path.read_text(encoding="utf-8")).words}


def search(browser, address, word):
    """Return the pages that a search shows, in their order."""
    page = browser.new_page()
    page.goto(f"{address}search.html?q={word}")
    page.wait_for_function("/Search finished|did not match/.test(Search.status?.innerText)")
    found = page.evaluate(SHOWN)
    page.close()
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("word", WORDS)
def test_a_chinese_word_finds_the_pages_that_have_it(browser, address, word):
    expected = pages_with(word)
    assert set(search(browser, address, word)) == expected
    assert expected or word == "熵"


def test_an_english_word_finds_its_pages_as_before(browser, address):
    assert {"algorithm.html", "paper_derivation.html", "lectures/2_clock.html"} <= set(
        search(browser, address, "clock")
    )
    assert "questions.html" in search(browser, address, "rosenbrock valley")
