"""What the documents say of the code is what the code has."""

import inspect
import pathlib
import re

import pytest
from helpers.documents import rows_of_the_algorithm

import amos_ref
from amos_ref import errors, spec
from amos_ref.conformance.judging.verdicts import FAILING, VERDICTS

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.md"))
ONE_LINE = ("> {", "< {", "amos_ref.errors.")  # of any length: JSON objects of a transcript, and errors
# There "the page" is another one, or a tool writes them.
UNEXPLAINED = set("changelog derivation deviations diagnosis matrix ports checking storage why_amos".split())


def test_every_error_is_documented_with_its_bases():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    classes = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls)}
    assert set(classes) == set(errors.__all__)
    assert {name for name, _ in rows} == set(classes) - {"AmosError"}
    for name, base in rows:
        assert issubclass(classes[name], amos_ref.AmosError)
        assert base in {cls.__name__ for cls in classes[name].__mro__}


def test_every_verdict_is_documented_with_whether_it_fails():
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| (yes|no) \|$", (DOCS / "checking.md").read_text(), re.MULTILINE)
    assert rows == [(verdict, "yes" if verdict in FAILING else "no") for verdict in VERDICTS]


def test_links_between_documents_lead_somewhere():
    root = DOCS.parent
    for page in [root / "README.md", *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_algorithms_equations_are_the_comments_of_their_functions():
    rows = rows_of_the_algorithm()
    stages = re.findall(r"^    (?:\w+ = )?(?:spec\.)?(\w+)\(", inspect.getsource(spec.decide), re.MULTILINE)
    assert {name for _, name, *_ in rows} >= {name for name in stages if callable(getattr(spec, name, None))}
    assert len(rows) == 13
    for typeset, name, equation, _ in rows:
        assert equation in inspect.getsource(getattr(spec, name)), name
        assert greek(typeset) == greek(equation), name
    assert greek(r"1 / \sqrt{1 + \xi b}") != greek("1 / sqrt(1 + sqrt(xi eta) b)")


def greek(equation):
    """Return the Greek letters of an equation, in LaTeX or in words."""
    return set(re.findall(r"(?<![a-z])(alpha|beta|gamma|delta|eta|xi|rho|chi|mu)(?![a-z])", equation))


SOURCES = [*DOCS.glob("*.md"), *DOCS.glob("lectures/*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_fractions_have_braces(path):
    assert bare_fractions(path.read_text(encoding="utf-8")) == []


def bare_fractions(text):
    r"""Return fractions like \frac14, which the site would show with 14 as the numerator of what follows."""
    return re.findall(r"\\[td]?frac\s*[^{\s].{0,9}", text)


def test_a_bare_fraction_is_seen():
    assert bare_fractions(r"$\frac{1}{4}\sqrt\xi$") == []
    assert len(bare_fractions(r"$\tfrac14\sqrt\xi$ and $\frac \pi 2$")) == 2


def wide_lines(text, most=80):
    """Return the lines of code, fenced, indented or after >>>, that are longer than a site shows without scrolling."""
    found, fence, session = [], None, False
    for line in text.splitlines():
        if line.startswith("```"):
            fence = line if fence is None else None
            continue
        session = line.startswith(">>> ") or (session and line != "")
        indented = re.match(r"" if session else r"    ", line) if fence is None else None
        code = line[indented.end() :] if indented else line if fence and "{" not in fence else ""
        found += [code] if len(code) > most else []
    return found


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}.md" for name in PAGES)])
def test_code_blocks_fit_a_page(name):
    found = wide_lines((DOCS.parent / name).read_text(encoding="utf-8"))
    assert [line for line in found if not line.startswith(ONE_LINE)] == []


def test_a_wide_line_is_seen():
    wide = "x" * 81
    for text in (f"    {wide}", f">>> {wide}", f">>> x\n{wide}", f"```python\n{wide}\n```", f"    >>> {wide[4:]}x"):
        assert len(wide_lines(text)) == 1
    assert wide_lines(f">>> x\n\n{wide}\n```{{figure}} a.png\n:alt: {wide}\n```\n    {wide[1:]}") == []


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_the_page_is_explained_where_it_is_first_named(path):
    assert path.stem in UNEXPLAINED or not unexplained(path.read_text(encoding="utf-8"))


def unexplained(text):
    """Say whether a page calls spec.py "the page" without saying so, before or in the next 150 characters."""
    first = re.search(r"\b[Tt]he page\b(?! of)", text)
    return first is not None and "spec.py" not in text[: first.end() + 150]


def test_an_unexplained_page_is_seen():
    assert unexplained("A port is compared with the page. " + "x" * 150 + "spec.py")
    assert not unexplained("the page, `amos_ref/spec.py`, and then the page")


def test_pictures_have_a_palette():
    """Of 256 colours a picture takes a third of the bytes; with all of them the sdist grew beyond its bound."""
    pictures = sorted((DOCS / "_static").glob("*.png"))
    assert pictures
    assert [p.name for p in pictures if p.read_bytes()[25] != 3 or p.stat().st_size > 100_000] == []  # 3: a palette
