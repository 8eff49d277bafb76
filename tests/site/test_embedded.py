"""The parts of the explorer that pages of the site have in them."""

import re
import urllib.parse

import pytest
from helpers.browser import SITE, STARTED, serve

pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")

PAGES = ("algorithm", "algorithm_zh", "paper_derivation", "questions", "questions_zh", "explorer", "explorer_zh")
FRAME = """
(frame) => {
  const { document, explorer } = frame.contentWindow;
  const root = document.documentElement;
  const seen = Array.from(document.querySelectorAll("[data-part]")).filter((e) => e.checkVisibility());
  return {
    parts: seen.map((e) => e.dataset.part), story: document.getElementById("story").innerText,
    over: [root.scrollWidth - frame.clientWidth, root.scrollHeight - frame.clientHeight],
    empty: frame.clientHeight - document.body.offsetHeight, whole: document.getElementById("whole").href,
    background: getComputedStyle(document.body).backgroundColor, settings: explorer.settings,
  };
}
"""


# A frame gives itself its height when the browser has laid it out, which is between two of these calls.
SETTLED = """
async (frame) => {
  const next = () => new Promise(frame.contentWindow.requestAnimationFrame);
  let height;
  do {
    ({ height } = frame.style);
    await next();
    await next();
  } while (frame.style.height !== height);
}
"""


def frames(page):
    """Return what each frame of a page shows, once it has started."""
    found = []
    for frame in page.locator("iframe.explorer").all():
        frame.scroll_into_view_if_needed()
        page.wait_for_function(f"(frame) => frame.contentWindow.{STARTED}", arg=frame.element_handle())
        frame.evaluate(SETTLED)
        found.append(frame.evaluate(FRAME))
    return found


def faults(frame, parts):
    """Return what is wrong with a frame that is to show these parts."""
    found = [] if frame["parts"] == parts else [f"shows {frame['parts']}"]
    found += ["scrolls"] if max(frame["over"]) > 0 else []
    found += ["has room below"] if frame["empty"] > 4 else []
    return found + ([] if "your own settings" not in frame["story"] else ["says nothing"])


def test_the_pages_that_have_it_are_these():
    pages = {p.stem for p in SITE.glob("*.html") if '<iframe class="explorer"' in p.read_text(encoding="utf-8")}
    assert pages == set(PAGES)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_a_part_of_the_explorer_fits_its_page_and_says_what_it_shows(browser, address, name, width):
    said, asked = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}{name}.html")
    wanted = [urllib.parse.urlsplit(frame.get_attribute("src")) for frame in page.locator("iframe.explorer").all()]
    for frame, url in zip(frames(page), wanted, strict=True):
        assert faults(frame, re.fullmatch(r"show=([\w,]+)", url.query)[1].split(",")) == []
        assert frame["whole"] == f"{address}explorer/index.html#{url.fragment}"
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def test_it_plays_and_leads_to_all_settings(browser, address):
    page = browser.new_page()
    page.goto(f"{address}algorithm.html")
    frames(page)
    frame = page.frame_locator("iframe.explorer")
    frame.locator("#step").press("Enter")
    frame.get_by_text("All settings").click()
    page.wait_for_function(f"window.{STARTED}")
    assert page.evaluate("explorer.settings.t") == 101
    assert page.locator("#settings, form").first.is_visible()
    page.close()


def test_it_is_as_light_or_dark_as_the_page_around_it(browser, address):
    page = browser.new_page(color_scheme="light")
    page.goto(f"{address}algorithm.html")
    [light] = frames(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    [dark] = frames(page)
    page.close()
    assert (light["background"], dark["background"]) == ("rgb(255, 255, 255)", "rgb(21, 25, 29)")


WRONG = {
    "scrolls": 'style="height: 200px" src="explorer/index.html?show=path,errors#xi=0.3&eta=0.2&noise=20"',
    "has room below": 'style="height: 3000px" src="explorer/index.html?show=path,errors#xi=0.3&eta=0.2&noise=20"',
    "shows ['path']": 'src="explorer/index.html?show=path#xi=0.3&eta=0.2&noise=20"',
    "says nothing": 'src="explorer/index.html?show=path,errors#xi=0.3"',
}


@pytest.mark.parametrize("fault", [None, *WRONG])
def test_a_fault_is_seen(browser, tmp_path, fault):
    source = WRONG.get(fault, 'src="explorer/index.html?show=path,errors#xi=0.3&eta=0.2&noise=20"')
    text = f'<!doctype html><link rel="icon" href="data:,"><iframe class="explorer" {source}></iframe>'
    (tmp_path / "page.html").write_text(text)
    (tmp_path / "explorer").symlink_to((SITE / "explorer").resolve())
    with serve(tmp_path) as address:
        page = browser.new_page()
        if fault in ("scrolls", "has room below"):
            page.route("**/embedded.mjs", lambda r: r.fulfill(body=without_height(), content_type="text/javascript"))
        page.goto(f"{address}page.html")
        [frame] = frames(page)
        page.close()
    assert faults(frame, ["path", "errors"]) == ([fault] if fault else [])


def without_height():
    text = (SITE / "explorer" / "embedded.mjs").read_text(encoding="utf-8")
    changed = re.sub(r"frame\.style\.height = [^;]+;", "", text)
    assert changed != text
    return changed
