"""What the documents say of the code is what the code has."""

import doctest
import inspect
import pathlib
import re

from helpers.documents import rows_of_the_algorithm

import amos_ref
from amos_ref import errors, spec
from amos_ref.conformance.judging.verdicts import FAILING, VERDICTS

DOCS = pathlib.Path(__file__).parent.parent / "docs"


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


def test_both_languages_of_the_derivation_run_the_same_code():
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("derivation.md", "derivation_zh.md")]
    one, other = ([(e.source, e.want) for e in doctest.DocTestParser().get_examples(page)] for page in pages)
    assert len(one) > 20
    assert one == other


def test_both_languages_of_the_derivation_have_the_same_formulas():
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("derivation.md", "derivation_zh.md")]
    one, other = (re.findall(r"\$\$.*?\$\$", page, re.DOTALL) for page in pages)
    assert len(one) > 10
    assert one == other
