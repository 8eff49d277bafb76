"""What tests read out of the documents."""

import re

from helpers import ROOT


def rows_of_the_algorithm():
    """Return (equation, function of the page, line, authors' code) of each row."""
    text = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \w+ \| (.+?) \| `(\w+)` \| (\d+) \| `(.+)` \|$", text, re.MULTILINE)
    return [(equation, name, int(line), code) for equation, name, line, code in rows]
