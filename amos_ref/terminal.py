"""Tables and progress, with lines and colours where the output is a terminal, and as plain text elsewhere."""

import contextlib
import html
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from amos_ref.errors import escape


class Printed:
    """What is shown in full by print(), and in a notebook; where it is one value among others, in a line."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal that shows lines and colours (or FORCE_COLOR says so), and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (hasattr(stream, "isatty") and stream.isatty())


@contextlib.contextmanager
def show_progress(names: Sequence[str], total: int, *, transient: bool = False) -> Iterator[Callable[..., None]]:
    """Yield ``show(name, done, text, below=())``, which shows on standard error how much is done under a name.

    Parameters
    ----------
    names : sequence of str
        Each has a bar on a terminal; elsewhere a line is printed for every tenth that is done.
    total : int
    transient : bool
        Draw the bars at once at every call, and the lines `below` them; remove all at the end, and print nothing
        elsewhere.
    """
    if not is_terminal(sys.stderr):
        yield lambda name, done, text, below=(): None if transient else _print_line(name, done, total, text)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    name, text = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[text]"))
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True), text)

    class Bars(Progress):
        below: Sequence[str] = ()

        def get_renderables(self) -> Iterator[Any]:
            yield from super().get_renderables()
            yield from (Text(escape(line), overflow="ellipsis", no_wrap=True) for line in self.below)

    with Bars(*columns, console=Console(stderr=True, force_terminal=True), transient=transient) as bars:
        tasks = {name: bars.add_task(escape(name), total=total, text="", start=False) for name in names}

        def show(name: str, done: int, text: str, below: Sequence[str] = ()) -> None:
            bars.below = below
            bars.start_task(tasks[name])  # of the first call: later ones change nothing
            bars.update(tasks[name], completed=done, text=escape(text), refresh=transient)

        yield show


def _print_line(name: str, done: int, total: int, text: str) -> None:
    if done == total or done % max(total // 10, 1) == 0:
        complain(f"{name}{': ' if name else ''}step {done} of {total}, {text}")


def complain(text: str) -> None:
    """Print a line on standard error, if anybody can read it; what is done does not depend on that."""
    if sys.stderr is None:
        return
    try:
        print(escape(text), file=sys.stderr)
    except OSError:  # as on a full disk; what is left in the buffer would fail again when Python ends
        with contextlib.suppress(OSError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stderr.fileno())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> None:
    """Print rows of text: the first column and those in `left` aligned to the left, the others to the right."""
    sides = ["left" if i == 0 or name in left else "right" for i, name in enumerate(columns)]
    columns, *rows = [[escape(text) for text in row] for row in (columns, *rows)]
    if is_terminal(sys.stdout):
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(columns):
            table.add_column(Text(name), justify="left" if sides[i] == "left" else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console(force_terminal=True).print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [x.ljust(n) if side == "left" else x.rjust(n) for x, n, side in zip(row, widths, sides, strict=True)]
        print("  ".join(cells).rstrip())


def counted(n: int, word: str, words: str = "") -> str:
    """Return a number with its word, in the plural unless it is 1."""
    return f"{n} {word if n == 1 else words or word + 's'}"


def format_number(x: float | None) -> str:
    """Return a number with six digits, and nothing for None."""
    return "" if x is None else f"{x:.6g}"
