"""A table on standard output, and numbers as it shows them."""

from collections.abc import Sequence


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text, the first column to the left: with lines on a terminal, plain elsewhere or under NO_COLOR."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.is_terminal and not console.no_color and not console.is_dumb_terminal:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(columns):
            table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    else:
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for first, *rest in (columns, *rows):
            cells = [first.ljust(widths[0]), *(x.rjust(width) for x, width in zip(rest, widths[1:], strict=True))]
            print("  ".join(cells).rstrip())


def short(x: float | None) -> str:
    """Return a number with six digits, nothing for None."""
    return "" if x is None else f"{x:.6g}"
