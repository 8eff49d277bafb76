"""What tests read out of the documents."""

import re

from helpers import ROOT


def rows_of_the_algorithm():
    """Return (typeset equation, function of the page, equation in ASCII, line of the authors' code) of each row."""
    text = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \w+ \| (.+?) \| `(\w+)` \| `(.+)` \| (\d+) \|$", text, re.MULTILINE)
    return [(typeset, name, equation, int(line)) for typeset, name, equation, line in rows]
