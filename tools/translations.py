"""Give the Chinese pages the code and formulas of the English ones: ``python tools/translations.py``."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent.parent / "tests"))  # pytest does the same, a plain run does not
from helpers import ROOT
from helpers.translations import blocks_of, read_pages

from amos_ref.storage.files import write_file

COPIED = ("code", "formula")


def with_code_of(english: str, chinese: str) -> str:
    """Return the Chinese page with the blocks of the English one that are the same in both languages, in their order.

    Raises
    ------
    ValueError
        If one page has other kinds of such blocks than the other: somebody who reads both has to look at them.
    """
    ours, theirs = ([block for block in blocks_of(page) if block[0] in COPIED] for page in (english, chinese))
    if [kind for kind, _ in ours] != [kind for kind, _ in theirs]:
        raise ValueError(f"has {len(theirs)} blocks of code and formulas for {len(ours)}, or in another order")
    done, rest = "", chinese
    for (_, new), (_, old) in zip(ours, theirs, strict=True):
        start = rest.index(f"\n\n{old}\n") + 2
        done, rest = done + rest[:start] + new, rest[start + len(old) :]
    return done + rest


def main() -> None:
    """Rewrite the pages whose code is not that of the English ones, and name them."""
    pages = read_pages(ROOT / "docs")
    for name in sorted(name for name in pages if f"{name}_zh" in pages and name != "index"):
        path = ROOT / "docs" / f"{name}_zh.md"
        try:
            page = with_code_of(pages[name], pages[path.stem])
        except ValueError as error:
            print(f"{path.name} {error}")
            continue
        if page != pages[path.stem]:
            write_file(path, page)
            print(f"{path.name} has the code of {name}.md now")


if __name__ == "__main__":
    main()
