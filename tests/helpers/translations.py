"""What a page and its Chinese translation must have in common, and what is a blemish in Chinese text.

`pages` are all pages by name, as `read_pages` returns them; the translation of x is x_zh.
"""

import re
from collections import Counter

HAN = "[\u3400-\u9fff]"
WIDE = "[，。；：？！、（）“”《》…]"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
SYMBOL = re.compile(r"\$[^$]+\$")
LINK = re.compile(r"\[([^]]*)\]\(([^)]*)\)")
FRONT = re.compile(r"\A---\n.*?^---\n+", re.MULTILINE | re.DOTALL)
OTHER_LANGUAGE = re.compile(r"\A# .*\n\n\[(中文|English)\]\((\w+)\.md\)\n")


def read_pages(folder):
    """Return the text of every page of a folder by its name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def other_language(page):
    """Return (words, name) of the link to the page in the other language, which is the first thing below the title."""
    found = OTHER_LANGUAGE.match(FRONT.sub("", page))
    return found and found.groups()


def blocks_of(page):
    """Return (kind, text) of each block of a page: a fence, or what stands between two empty lines."""
    page = re.sub(r"^\[(中文|English)\]\(\w+\.md\)$", "", FRONT.sub("", page), count=1, flags=re.MULTILINE)
    fences = FENCE.findall(page)
    chunks = re.split(r"\n{2,}", FENCE.sub("\n\n```\n\n", page).strip("\n"))
    texts = [fences.pop(0) if chunk == "```" else chunk for chunk in chunks]
    return [(kind_of(text), text) for text in texts]


def kind_of(block):
    """Return what a block is, with its measure: the level of a heading, the rows and columns of a table."""
    if heading := re.match("#+ ", block):
        return f"heading {len(heading[0]) - 1}"
    if block.startswith("```"):
        return block.splitlines()[0]
    if block.startswith("|"):
        rows = re.sub(r"\$[^$]*\$|`[^`]*`", "", block).splitlines()
        return f"table of {len(rows)} rows, {rows[0].count('|') - 1} columns"
    if block.startswith("- "):
        return f"list of {len(re.findall('^- ', block, re.MULTILINE))}"
    begins = {"    ": "code", ">>>": "code", "$$": "formula", ">": "quotation"}
    return next((kind for begin, kind in begins.items() if block.startswith(begin)), "paragraph")


def code_blocks(page):
    return [text for kind, text in blocks_of(page) if kind == "code"]


def sections_of(page):
    """Return (heading, its blocks, itself among them) of each section of a page."""
    sections = []
    for kind, text in blocks_of(page):
        if kind.startswith("heading"):
            sections.append((text, []))
        sections[-1][1].append((kind, text))
    return sections


def anchors_of(page):
    """Return the names that the headings of a page have in links, in order."""
    words = [re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()) for heading, _ in sections_of(page)]
    return [text.strip().replace(" ", "-") for text in words]


def differences(name, pages):
    """Return, section by section, what the translation of a page has not as the page has it."""
    english, chinese = (sections_of(pages[page]) for page in (name, f"{name}_zh"))
    if len(english) != len(chinese):
        return [f"{len(english)} headings, {len(chinese)} in Chinese"]
    found = []
    for (heading, ours), (_, theirs) in zip(english, chinese, strict=True):
        found += [f"{heading}: {text}" for text in section_differences(ours, theirs, lambda x: lead(x, name, pages))]
    return found


def section_differences(ours, theirs, translate_link):
    """Yield what is different in a section: its build, code, formulas, numbers, names, symbols and links."""
    kinds, their_kinds = ([kind for kind, _ in section] for section in (ours, theirs))
    if kinds != their_kinds:
        yield f"built of {kinds}, {their_kinds} in Chinese"
        return
    for (kind, text), (_, translated) in zip(ours, theirs, strict=True):
        if kind in ("code", "formula") and text != translated:
            yield f"another {kind}:\n{translated}\n  for\n{text}"
        if kind.startswith("table") and SYMBOL.findall(text) != SYMBOL.findall(translated):
            yield f"other symbols in a {kind}"
    ours, theirs = (text_of(section) for section in (ours, theirs))
    for what, parts in (("numbers", numbers_in), ("code", code_in), ("symbols", symbols_in), ("links", links_in)):
        wanted, given = Counter(parts(ours)), Counter(parts(theirs))
        if what == "links":
            wanted = Counter(map(translate_link, wanted.elements()))
        if wanted != given:
            yield f"{what}: lacks {sorted(wanted - given)}, has {sorted(given - wanted)}"


def lead(link, name, pages):
    """Return where a link on an English page leads on the Chinese one."""
    page, _, anchor = link.partition("#")
    english = page.removesuffix(".md") or name
    chinese = f"{english}_zh"
    if chinese not in pages or not (page.endswith(".md") or link.startswith("#")):
        return link
    anchors = dict(zip(anchors_of(pages[english]), anchors_of(pages[chinese]), strict=False))
    return (f"{chinese}.md" if page else "") + (anchor and f"#{anchors.get(anchor)}")


def text_of(blocks):
    """Return what is neither code nor a formula, each block on one line."""
    texts = [re.sub(r"\s+", " ", text) for kind, text in blocks if kind not in ("code", "formula")]
    return re.sub(r"```({\w+})?", "", "\n".join(texts))


def prose_of(text):
    """Return what is read as sentences: names and symbols become a letter, and links their words."""
    text = re.sub(r"<[^>]+>", "", LINK.sub(r"\1", FORMULA.sub("", text)))
    return re.sub(r"`[^`]*`|\$[^$]*\$", "x", text)


def numbers_in(text):
    return NUMBER.findall(prose_of(text))


def code_in(text):
    text = re.sub(r"`[^`<]+ <([^`>]+)>`", r"`\1`", text)  # a link with words of its own
    return set(re.findall(r"`[^`]+`", text))  # a set: a sentence may say a name twice


def symbols_in(text):
    return set(SYMBOL.findall(text))


def links_in(text):
    return [link for _, link in LINK.findall(text)] + re.findall('<a href="([^"]+)"', text)


BLEMISHES = {
    "narrow punctuation": rf"{HAN}[,.;:?!()\"'].{{0,9}}|.{{0,9}}[,;:?!()\"']{HAN}",
    "no space beside Latin": rf"{HAN}[A-Za-z0-9].{{0,9}}|.{{0,9}}[A-Za-z0-9%]{HAN}",
    "a space beside wide punctuation": rf".{{0,9}} {WIDE}|{WIDE} [^|\n].{{0,9}}",
    "a space between characters": rf"{HAN} +{HAN}",
    "a line break, which the site shows as a space": rf"{HAN}{WIDE}?\n(?![-|:\n]|\Z)",
}


def blemishes(name, pages):
    """Return what is wrong with the text of a Chinese page: punctuation, spaces, formulas without an end, links."""
    found = []
    for kind, block in blocks_of(pages[name]):
        if kind in ("code", "formula") or "literalinclude" in kind:
            continue
        text = prose_of(block.replace("*", "").replace("```", ""))
        found += [f"without its end: {block[:60]}"] if {"$", "`"} & set(text) else []
        for fault, pattern in BLEMISHES.items():
            found += [f"{fault}: {match}" for match in re.findall(pattern, text)]
        for link, says_so in re.findall(r"\]\((\w+)\.md[^)]*\)(（英文）)?", block):
            if link.endswith("_zh") or (name, link) == ("index_zh", "index"):
                continue
            if f"{link}_zh" in pages:
                found.append(f"leads to the English {link}")
            elif not says_so:
                found.append(f"does not say that {link} is in English")
    return found
