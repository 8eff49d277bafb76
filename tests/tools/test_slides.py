"""Slides are made from a page: what begins one, what is kept together, and what is left out."""

import base64

import pytest

bs4 = pytest.importorskip("bs4", reason="no Beautiful Soup; the extra docs has it")

from tools import slides  # noqa: E402

PAGE = """<html><body><article><section><span id="x"></span><h1>Lecture 9: a title<a class="headerlink">#</a></h1>
<p class="lecture-files"><a href="../slides/page.html">Slides of this lecture</a></p>
<p>One. Two.</p>
<section><h2>First<a class="headerlink">#</a></h2>
<p>Take <code>a.b</code>. It is <em>x. y</em>, no? Yes!</p>
<div class="cell"><div class="cell_input"><div><pre>x = "1 &lt; 2"\nprint(x)</pre></div></div>
<div class="cell_output"><div class="output stream"><div class="highlight"><pre>1 &lt; 2</pre></div></div></div></div>
<p>It leads. To this:</p><div class="formula"><math display="block"><mi>x</mi></math></div>
<div class="cell"><div class="cell_input"><div><pre># for sure\nassert x\nassert x, 1</pre></div></div>
<div class="cell_output"><img src="a.png" alt="a picture of it"/></div></div>
</section></section></article></body></html>"""


@pytest.fixture
def deck(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    return bs4.BeautifulSoup(slides.make_deck(tmp_path / "page.html"), "html.parser")


def test_a_deck_is_one_file_with_what_the_page_has(deck):
    assert deck.title.get_text() == "Lecture 9: a title: slides"
    assert deck.img["src"] == "data:image/png;base64," + base64.b64encode(b"picture").decode()
    assert [link["href"] for link in deck.select("link, a")] == ["data:,"]
    assert not deck.select("script[src], .lecture-files, .headerlink")
    assert deck.select_one(".output pre").get_text() == "1 < 2"
    assert 'x = "1 < 2"\nprint(x)\n' in [pre.get_text() for pre in deck.select("pre")]


def test_a_heading_begins_a_slide(deck):
    assert [section.find(["h1", "h2"]).get_text() for section in deck.select("section")] == [
        *("Lecture 9: a title", "First", "First")
    ]
    assert [footer.get_text() for footer in deck.select("footer")][1:] == ["Lecture 9 · 2 / 3", "Lecture 9 · 3 / 3"]


def test_sentences_are_a_list_unless_they_lead_to_a_formula(deck):
    assert [item.get_text() for item in deck.select("li")] == ["Take a.b.", "It is x. y, no?", "Yes!"]
    assert [p.get_text() for p in deck.select("p")] == ["One. Two.", "It leads. To this:"]


def test_code_that_only_asserts_is_left_out(deck):
    assert "assert" not in deck.main.get_text()


def test_long_code_is_cut_between_statements():
    functions = [f"def f{i}():\n" + "    x = 1\n\n" * 4 + "    return x" for i in range(6)]
    block = bs4.BeautifulSoup(
        f"<div><pre>{chr(10).join([f + 2 * chr(10) for f in functions])}</pre></div>", "html.parser"
    )
    pieces = [piece.get_text() for piece in slides.split_code(block)]
    assert len(pieces) > 2
    assert all(piece.startswith("def f") and piece.count("\n") <= slides.MOST_LINES for piece in pieces)
    assert [line for piece in pieces for line in piece.splitlines() if line] == [
        line for function in functions for line in function.splitlines() if line
    ]


def blocks(*texts):
    return bs4.BeautifulSoup("".join(texts), "html.parser").find_all(True, recursive=False)


def test_what_does_not_fit_begins_another_slide_with_the_text_that_leads_to_it():
    output = f'<div class="output stream"><pre>{chr(10).join("x" * 20)}</pre></div>'
    heading = blocks("<h2>Title</h2>")[0]
    found = slides.divide(heading, blocks("<p>a</p>", output, "<p>b</p>", output, "<p>c</p>"))
    assert [[block.get_text()[0] for block in slide] for slide in found] == [["T", "a", "x"], ["T", "b", "x", "c"]]
    assert sum(len(slide) - 1 for slide in found) == 5


def test_what_is_larger_than_a_slide_is_alone_on_one():
    output = f"<pre>{chr(10).join('x' * 60)}</pre>"
    found = slides.divide(blocks("<h2>Title</h2>")[0], blocks("<p>a</p>", output, "<p>b</p>"))
    assert [len(slide) for slide in found] == [2, 2, 2]
