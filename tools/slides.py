"""Slides from the lectures: docs/conf.py calls `write` when the site is built.

Each deck is one HTML file made from the page that the site has of a lecture, so its code, formulas, outputs and
pictures are those of the page. Other makers of slides (nbconvert, sphinx-revealjs, Marp) want marks in the source that
say where a slide ends; here a heading begins a slide, and what does not fit begins another. A paragraph becomes a list
of its sentences, unless a formula or a list comes next. Code that only asserts is left out.
"""

import ast
import base64
import copy
import itertools
import pathlib
import re

import bs4
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from amos_ref.storage.files import write_file

FILES = pathlib.Path(__file__).parents[1] / "docs" / "slides"
LIGHT, DARK = "a11y-high-contrast-light", "a11y-high-contrast-dark"  # as the site has them
ROOM = 620  # pixels of a slide of 1280 x 800 that are below its heading
TITLE = 260  # pixels of it that the title takes
MOST_LINES = 24  # of code on one slide
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}: slides</title>
<style>
{style}
</style>
</head>
<body>
<main>
{slides}
</main>
<script>
{script}
</script>
</body>
</html>
"""
SLIDE = """<section id="{number}"{kind} aria-label="Slide {number} of {count}">
{blocks}
<footer>{title} · {number} / {count}</footer>
</section>"""


def write(site, lectures):
    """Write the deck of each lecture, by the name of its page, into the folder `slides` of a site."""
    folder = pathlib.Path(site) / "slides"
    folder.mkdir(exist_ok=True)
    for name in lectures:
        deck = make_deck(pathlib.Path(site) / "lectures" / f"{name}.html")
        write_file(folder / f"{name}.html", deck)


def make_deck(page):
    """Return the deck of a lecture, as HTML that needs nothing else."""
    soup = bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    lecture = soup.select_one("article section")
    for left_out in lecture.select(".headerlink, .lecture-files"):
        left_out.decompose()
    for wrapper in lecture.select(".cell_input > div"):
        wrapper["class"] = ["code"]
    for wrapper in lecture.select(".cell, .cell_input, .cell_output, .joined"):
        wrapper.unwrap()
    lecture.smooth()  # texts that were on both sides of a wrapper are one, so that their sentences are seen
    for image in lecture.select("img"):
        picture = base64.b64encode((page.parent / image["src"]).read_bytes()).decode()
        image.attrs = {"src": f"data:image/png;base64,{picture}", "alt": image["alt"]}
    title = lecture.h1.get_text()
    slides = [slide for heading, blocks in parts(lecture) for slide in divide(heading, blocks)]
    texts = [
        SLIDE.format(
            number=number,
            count=len(slides),
            kind=' class="title"' if number == 1 else "",
            blocks="\n".join(map(str, blocks)),
            title=title.split(":")[0],
        )
        for number, blocks in enumerate(slides, 1)
    ]
    script = (FILES / "slides.js").read_text(encoding="utf-8")
    return PAGE.format(title=title, style=style(), slides="\n".join(texts), script=script)


def style():
    """Return the style sheet, with the colours of code in both schemes."""
    light, dark = (HtmlFormatter(style=name).get_style_defs("pre") for name in (LIGHT, DARK))
    screen = f"@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"
    return "\n".join([light, screen, (FILES / "slides.css").read_text(encoding="utf-8")])


def parts(lecture):
    """Yield (heading, blocks) of the lecture's beginning and of each of its sections."""
    own = [block for block in lecture.find_all(True, recursive=False) if block.name not in ("section", "span")]
    yield own[0], own[1:]
    for section in lecture.find_all("section", recursive=False):
        yield from parts(section)


def divide(heading, blocks):
    """Return slides, each a list of what it shows."""
    shown = []
    for block, after in itertools.zip_longest(blocks, blocks[1:]):
        if "code" in block.get("class", []):
            shown += split_code(block)
        elif block.name != "p" or block.strong or heading.name == "h1" or leads_to(after):
            shown.append(block)
        else:
            shown.append(split_sentences(block))
    slides, used = [], ROOM
    for block, after in itertools.zip_longest(shown, shown[1:]):
        need = height(block)
        # Text stays with what follows it, and code with its output.
        kept = need + height(after) if after and after.name not in ("p", "ul") else need
        if used + (kept if kept <= ROOM else need) > ROOM:
            slides.append([copy.copy(heading)])
            used = TITLE if heading.name == "h1" and len(slides) == 1 else 0
        slides[-1].append(block)
        used += need
    return slides


def leads_to(block):
    """Say whether the paragraph before a block leads to it."""
    return block is not None and (block.name in ("ul", "ol") or "formula" in block.get("class", []))


def split_code(block):
    """Return code in pieces that each fit a slide, cut where an empty line stands between two statements."""
    code = block.get_text().strip("\n")
    if all(isinstance(statement, ast.Assert) for statement in ast.parse(code).body):
        return []
    pieces = [""]
    for chunk in re.split(r"\n+(?=\n\S)", code):
        joined = f"{pieces[-1]}\n{chunk}"
        pieces[-1:] = [joined] if joined.count("\n") <= MOST_LINES else [pieces[-1], chunk]
    texts = [highlight(piece.strip("\n"), PythonLexer(), HtmlFormatter(nowrap=True)) for piece in pieces if piece]
    return [bs4.BeautifulSoup(f"<pre>{text}</pre>", "html.parser").pre for text in texts]


def split_sentences(paragraph):
    """Return a paragraph as a list of its sentences, or as it is if there is but one."""
    sentences = [[]]
    for child in paragraph.contents:
        first, *others = re.split(r"(?<=[.?!])\s+", child) if isinstance(child, bs4.NavigableString) else [child]
        sentences[-1].append(first)
        sentences += [[other] for other in others]
    sentences = ["".join(map(str, sentence)) for sentence in sentences if sentence != [""]]
    if len(sentences) == 1:
        return paragraph
    return bs4.BeautifulSoup(f"<ul><li>{'</li><li>'.join(sentences)}</li></ul>", "html.parser").ul


def height(block):
    """Return about how many pixels a block takes."""
    text = block.get_text()
    if block.name == "img" or block.img:
        return 440
    if block.name == "pre" or block.pre:
        return 50 + 22 * len(text.strip("\n").splitlines())
    if block.table or block.name == "table":
        return 30 + 42 * len(block.find_all("tr"))
    if "formula" in block.get("class", []):
        return 40 + 58 * max(1, len(block.find_all("mtr")))
    items = [re.sub(r"\s+", " ", item.get_text()) for item in block.find_all("li") or [block]]
    return 8 + sum(8 + 34 * (1 + len(item) // 105) for item in items)
