"""What the documents say of errors is what the code has."""

import inspect
import pathlib
import re

import amos_ref
from amos_ref import errors
from amos_ref.conformance.verdicts import FAILING, VERDICTS

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
