"""The reports to maintainers: each snippet does what its report says, and with the report's fix what it should.

Skipped where another version of the package is installed, or none; ``nox -s ports`` installs them.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

REPORTS = sorted((ROOT / "docs" / "reports").glob("*.md"))


def parts_of(report):
    """Return the package, its version, the file; the snippet, what it prints now and after the fix; and the fix."""
    text = report.read_text(encoding="utf-8")
    head = re.search(r"^Version: (\S+) (\S+) .*?`(\S+\.py)`", text, re.MULTILINE | re.DOTALL)
    assert head is not None
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed, mended = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    (diff,) = re.findall(r"```diff\n--- \S+\n(.*?)```", text, re.DOTALL)
    return *head.groups(), snippet, printed, mended, diff


def installed(package, version):
    """The folder that a package of this version is installed in."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {package}")
    if found.version != version:
        pytest.skip(f"{package} is {found.version}, the report is about {version}")
    return found.locate_file("")


def apply(diff, source):
    """Return a text with the lines that a diff takes away replaced by those that it adds; each must be there once."""
    for hunk in diff.split("---\n"):
        minus, plus = ("".join(line[1:] + "\n" for line in hunk.splitlines() if line[0] == sign) for sign in "-+")
        minus, plus = (minus[:-1], plus[:-1])
        assert source.count(minus) == 1, minus
        source = source.replace(minus, plus)
    return source


def prints(snippet, folder):
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{snippet}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("report", REPORTS, ids=[path.stem for path in REPORTS])
def test_a_report_says_what_happens(report, tmp_path):
    package, version, file, snippet, printed, mended, diff = parts_of(report)
    site = installed(package, version)
    assert prints(snippet, site) == printed
    shutil.copytree(site / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (site / file).read_text(encoding="utf-8")
    (tmp_path / file).write_text(apply(diff, source), encoding="utf-8")
    assert prints(snippet, tmp_path) == mended
    assert printed != mended


@pytest.mark.parametrize("report", REPORTS, ids=[path.stem for path in REPORTS])
def test_the_lines_are_where_a_report_says(report):
    package, version, file, *_, diff = parts_of(report)
    lines = (installed(package, version) / file).read_text(encoding="utf-8").splitlines()
    where = re.search(r"^Lines? [^.]*", report.read_text(encoding="utf-8"), re.MULTILINE)
    assert where is not None
    numbers = [int(n) for n in re.findall(r"\d+", where.group())]
    taken = {line[1:].strip() for line in diff.splitlines() if line.startswith("-") and line != "---"}
    for n in numbers:
        assert any(one in lines[n - 1] for one in taken), (n, lines[n - 1])
    assert numbers
