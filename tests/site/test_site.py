"""The site as a browser shows it: `nox -s explorer` builds it first."""

import html.parser
import urllib.parse

import pytest
from helpers.browser import CONTRAST, SITE, serve

pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")

MADE = ("search", "genindex", "py-modindex")  # by Sphinx alone
PAGES = [p for folder in ("", "gallery", "lectures") for p in (SITE / folder).glob("*.html") if p.stem not in MADE]
PAGES = sorted(p.relative_to(SITE).as_posix() for p in PAGES)
MAIN = ("index.html", "algorithm.html", "paper_derivation.html", "choosing.html", "checking.html", "algorithm_zh.html")
WIDTHS = (390, 1280)

# What is wrong with the page that is open, as a list of texts.
FAULTS = """
(width) => {
  const found = [], article = document.querySelector("article") || document.body;
  const all = (selector) => Array.from(article.querySelectorAll(selector));
  if (document.documentElement.scrollWidth > width) found.push(`scrolls sideways`);
  for (const list of all("ol"))
    if (list.children.length < 2 || list.start !== 1) found.push(`stray list: ${list.innerText.slice(0, 60)}`);
  for (const pre of all("pre")) {
    const clipped = pre.scrollWidth > pre.clientWidth + 1;
    if (clipped && !["auto", "scroll"].includes(getComputedStyle(pre).overflowX)) found.push("code is cut off");
    const longest = Math.max(...pre.textContent.split("\\n").map((line) => line.length));
    if (width >= 1280 && clipped && longest <= 80) found.push(`code does not fit: ${pre.innerText.slice(0, 60)}`);
  }
  for (const math of all("math, table, img")) {
    let box = math;
    while (box !== article && !["auto", "scroll"].includes(getComputedStyle(box).overflowX)) box = box.parentElement;
    if (box === article && math.getBoundingClientRect().right > width) found.push(`${math.tagName} is cut off`);
  }
  for (const math of all("math"))
    if (/^[,.;:!?)]/.test(math.nextSibling?.data ?? "") && getComputedStyle(math.parentElement).whiteSpace !== "nowrap")
      found.push(`a line may begin with the mark behind ${math.textContent.slice(0, 20)}`);
  for (const image of all("img")) {
    if (!image.complete || !image.naturalWidth) found.push(`no picture: ${image.src}`);
    if (!image.closest(".sphx-glr-thumbcontainer") && image.alt.length < 20) found.push(`no words for ${image.src}`);
  }
  const prose = article.cloneNode(true);
  prose.querySelectorAll("pre, code, math, script, style").forEach((e) => e.remove());
  const text = prose.textContent.replace(/[*][*][a-z]+[)]/g, "");  // f(**options) is a signature
  for (const mark of ["$", ":::", "](", "{doc}", "{ref}", "**", "```", "\\\\("])
    if (text.includes(mark)) found.push(`${mark} is left in the text`);
  if (article.querySelectorAll("h1").length !== 1) found.push("not one heading");
  if (!document.querySelector("link[rel~=icon]")) found.push("no icon");
  return [...new Set(found)];
}
"""


def faults(browser, url, width, scheme="light"):
    """Return what is wrong with a page: in it, on its console, or asked for elsewhere."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked, missing = [], [], []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda response: missing.append(response.url) if response.status >= 400 else None)
    page.goto(url, wait_until="load")
    found = page.evaluate(FAULTS, width)
    page.close()
    home = "{0.scheme}://{0.netloc}/".format(urllib.parse.urlsplit(url))
    found += [f"asks for {url}" for url in asked if not url.startswith((home, "data:"))]
    return found + [f"says {text}" for text in said] + [f"misses {url}" for url in missing]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wrong_with_any_page(browser, address, width):
    found = {name: faults(browser, address + name, width) for name in PAGES}
    assert len(found) > 20
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_dark_mode(browser, address, name, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(address + name)
    count, least, background = page.evaluate(CONTRAST, "article")
    page.close()
    assert count > 50
    assert least >= 4.5  # WCAG 2, level AA
    assert (background > 0.9) if scheme == "light" else (background < 0.05)


class Links(html.parser.HTMLParser):
    """Where a page leads, and what can be led to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.names |= {attrs.get("id"), attrs.get("name")}
        self.links |= {value for key in ("href", "src") if (value := attrs.get(key))}


def dead_links(site):
    """Return (page, link) of what leads nowhere inside the site.

    What an address gives the explorer (#xi=0.3&noise=20) is no place in it: tests/explorer/test_presets.py looks at it.
    """
    paths = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    pages = {path.resolve(): Links(path) for path in paths}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            given = "=" in parts.fragment and target.parent.name == "explorer"
            named = given or target not in pages or parts.fragment in {"", *pages[target].names}
            if not (target.exists() and named):
                found.append((path.relative_to(site.resolve()).as_posix(), link))
    return sorted(found)


def test_no_link_inside_the_site_is_dead(address):
    assert dead_links(SITE) == []


@pytest.mark.parametrize("name", ["algorithm_zh.html", "algorithm.html"])
def test_chinese_pages_say_so_and_lead_to_each_other(browser, address, name):
    page = browser.new_page()
    page.goto(address + name)
    assert page.evaluate("document.documentElement.lang") == ("zh-Hans" if "_zh" in name else "en")
    assert page.locator(".onthispage").first.inner_text().strip() == ("当前页面" if "_zh" in name else "On this page")
    links = page.evaluate(
        "Array.from(document.querySelectorAll('.bd-sidebar-primary .bd-links a, .prev-next-area a'), (a) => a.pathname)"
    )
    page.close()
    chinese = {"/" + page for page in PAGES if page.endswith("_zh.html")}
    assert set(links) >= chinese
    assert (set(links) - chinese == {"/index.html"}) == ("_zh" in name)


WRONG = {
    "scrolls sideways": '<div style="width: 3000px">wide</div>',
    "stray list": "<p>A line that begins</p><ol><li>With xi</li></ol>",
    "code is cut off": '<pre style="overflow: hidden; width: 200px">' + 70 * "x" + "</pre>",
    "code does not fit": '<pre style="overflow: auto; width: 200px">' + 70 * "x" + "</pre>",
    "a line may begin with": "<p>Let <math><mi>x</mi></math>, then</p>",
    "math is cut off": '<div style="overflow: hidden"><math><mspace width="2000px"/></math></div>',
    "no picture": '<img src="missing.png" alt="a picture that is not there">',
    "no words for": '<img alt="" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACADs=">',
    "$ is left": "<p>a formula $x without its end</p>",
    "not one heading": "<h1>another</h1>",
    "asks for http://elsewhere.invalid": '<link rel="stylesheet" href="http://elsewhere.invalid/a.css">',
    "misses": '<script src="missing.js"></script>',
    "says": "<script>undefined_name()</script>",
}


@pytest.mark.parametrize("fault", [None, "no icon", *WRONG])
def test_a_fault_is_seen(browser, tmp_path, fault):
    icon = "" if fault == "no icon" else '<link rel="icon" href="data:,">'
    body = f"<article><h1>Title</h1><p>right</p>{WRONG.get(fault, '')}</article>"
    (tmp_path / "page.html").write_text(f"<!doctype html><html><head>{icon}</head><body>{body}</body></html>")
    with serve(tmp_path) as address:
        found = faults(browser, address + "page.html", 1280)
    assert any(text.startswith(fault) for text in found) if fault else found == []


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="b.html#not">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1><a href="a.html">a</a><a href="https://x.y/">x</a>')
    (tmp_path / "explorer").mkdir()
    (tmp_path / "explorer/index.html").write_text(
        '<a href="#xi=1">x</a><a href="#not">y</a><a href="../a.html#a=1">a</a>'
    )
    assert dead_links(tmp_path) == [
        ("a.html", "b.html#not"),
        ("a.html", "c.html"),
        ("explorer/index.html", "#not"),
        ("explorer/index.html", "../a.html#a=1"),
    ]
