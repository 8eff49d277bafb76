"""The slides of the lectures, as a browser shows and prints them."""

import re

import pytest
from helpers import ROOT
from helpers.browser import CONTRAST, SITE

bs4 = pytest.importorskip("bs4", reason="no Beautiful Soup; the extra docs has it")
pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")

LECTURES = sorted(path.stem for path in (ROOT / "docs" / "lectures").glob("*.py"))
DESK = {"width": 1280, "height": 800}

# What is wrong with the deck that is open: what hangs over the end of a slide, or out of it, and what is not shown.
FAULTS = """
() => Array.from(document.querySelectorAll("section")).flatMap((slide) => {
  const found = [], foot = slide.querySelector("footer").getBoundingClientRect();
  for (const block of Array.from(slide.children).filter((e) => !e.matches("footer"))) {
    const box = block.getBoundingClientRect(), wide = Array.from(block.querySelectorAll("*")).concat(block);
    if (box.bottom > foot.top) found.push(`${slide.id} hangs over by ${Math.round(box.bottom - foot.top)}`);
    if (wide.some((e) => e.matches("pre, .formula, table") && e.scrollWidth > e.clientWidth + 1))
      found.push(`${slide.id} is too wide`);
    if (box.left < 0 || box.right > innerWidth) found.push(`${slide.id} is out of sight`);
  }
  for (const image of slide.querySelectorAll("img"))
    if (!image.naturalWidth || image.alt.length < 10) found.push(`${slide.id} has no picture, or no words for it`);
  return found;
})
"""


@pytest.fixture
def opened(browser, address):
    """Open a deck; it may ask for nothing but itself, and say nothing on the console."""
    pages, asked, said = [], [], []

    def open_deck(name, slide="", **options):
        page = browser.new_page(**{"viewport": DESK, **options})
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{address}slides/{name}.html{slide}")
        pages.append(page)
        return page

    yield open_deck
    for page in pages:
        page.close()
    assert [url for url in asked if not url.startswith(("data:", f"{address}slides/"))] == []
    assert len([url for url in asked if not url.startswith("data:")]) == len(pages)
    assert said == []


def test_every_lecture_has_its_deck_and_leads_to_it(address):
    assert sorted(path.stem for path in (SITE / "slides").iterdir()) == LECTURES
    for name in LECTURES:
        for page in (name, "index"):
            found = (SITE / "lectures" / f"{page}.html").read_text(encoding="utf-8")
            for file in (f"../slides/{name}.html", f"{name}.ipynb", f"{name}.py"):
                assert f'href="{file}"' in found


def parse(folder, name):
    return bs4.BeautifulSoup((SITE / folder / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("name", LECTURES)
def test_a_deck_has_what_the_lecture_runs_prints_draws_and_says(name, address):
    page, deck = (parse(*place) for place in (("lectures", name), ("slides", name)))
    printed = [[pre.get_text() for pre in soup.select(".output pre")] for soup in (page, deck)]
    assert len(printed[0]) > 5
    assert printed[0] == printed[1]
    assert len(page.select("article img")) == len(deck.select("img"))
    assert [str(formula) for formula in page.select(".formula")] == [
        str(formula) for formula in deck.select(".formula")
    ]
    shown = set(deck.get_text().splitlines())
    code = "\n".join(pre.get_text() for pre in page.select(".cell_input pre"))
    assert [line for line in code.splitlines() if line not in shown and not line.startswith("assert")] == []
    spoken = [re.sub(r"\W", "", soup.get_text()) for soup in (page, deck)]
    headings = [h2.get_text() for h2 in deck.select("h2")]
    assert [h2.get_text().rstrip("#") for h2 in page.select("article h2")] == list(dict.fromkeys(headings))
    sentences = [re.sub(r"\W", "", s) for p in page.select("article section p") for s in p.get_text().split(". ")]
    assert [s for s in sentences if s not in spoken[1] and not s.startswith(("Download", "Slides"))] == []


@pytest.mark.parametrize("name", LECTURES)
@pytest.mark.parametrize("viewport", [DESK, {"width": 1920, "height": 1080}, {"width": 1024, "height": 768}], ids=str)
def test_nothing_hangs_over(opened, name, viewport):
    page = opened(name, viewport=viewport)
    assert page.evaluate(FAULTS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


WRONG = {
    "1 hangs over": "<div style='height: 900px'></div>",
    "1 is too wide": f"<pre>{'x' * 200}</pre>",
    "1 is out of sight": "<div style='position: absolute; left: 1200px; width: 200px'>x</div>",
    "1 has no picture": "<p style='margin: 0'><img alt='a picture that is not there' src='data:,'></p>",
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_fault_is_seen(opened, fault):
    page = opened(LECTURES[0])
    page.evaluate("(text) => document.querySelector('h1').insertAdjacentHTML('afterend', text)", WRONG[fault])
    page.wait_for_function("Array.from(document.images).every((image) => image.complete)")
    assert any(found.startswith(fault) for found in page.evaluate(FAULTS))


def test_keys_turn_the_slides(opened):
    page = opened(LECTURES[1])
    last = page.locator("section").count()
    for key, number in (
        *(("ArrowRight", 2), ("PageDown", 3), ("Space", 4), ("ArrowDown", 5), ("Shift+Space", 4), ("ArrowLeft", 3)),
        *(("End", last), ("ArrowRight", last), ("PageUp", last - 1), ("Home", 1), ("ArrowUp", 1)),
    ):
        page.keyboard.press(key)
        assert page.evaluate("location.hash") == f"#{number}", key
        top = page.evaluate("(id) => document.getElementById(id).getBoundingClientRect().top", str(number))
        assert abs(top) < 1, key


def test_an_address_opens_its_slide(opened):
    page = opened(LECTURES[2], "#7")
    assert abs(page.evaluate("document.getElementById('7').getBoundingClientRect().top")) < 1
    page.keyboard.press("ArrowRight")
    assert page.url.endswith(f"{LECTURES[2]}.html#8")


@pytest.mark.parametrize("name", LECTURES)
def test_on_a_phone_the_slides_are_a_page(opened, name):
    page = opened(name, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cut = "Array.from(document.querySelectorAll('section')).filter((s) => s.scrollHeight > s.clientHeight + 1).length"
    assert page.evaluate(cut) == 0


@pytest.mark.parametrize("name", LECTURES)
def test_each_slide_is_printed_on_a_page_of_its_own(opened, name):
    page = opened(name, color_scheme="dark")
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == page.locator("section").count()
    assert b"/MediaBox [0 0 960 600]" in printed  # 1280 x 800, in points
    page.emulate_media(media="print")
    page.set_viewport_size(DESK)
    assert page.evaluate(FAULTS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened, scheme):
    count, least, background = opened(LECTURES[3], color_scheme=scheme).evaluate(CONTRAST, "main")
    assert count > 50
    assert least >= 4.5  # WCAG 2, level AA
    assert (background > 0.9) if scheme == "light" else (background < 0.05)
