"""A linear regression on the columns of a CSV file."""

import array
import collections
import contextlib
import csv
import gzip
import io
import math
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.errors import ProblemError
from amos_ref.problems import Problem
from amos_ref.storage.files import name_errors, regular

STANDARD_INPUT = "-"
DECIMALS = {".": ",", ",": ";"}  # decimal mark -> what is between the fields where nothing else is said
MOST_TEXT = 2**30  # characters of a file, once it is decompressed
MOST_LINE = 2**20  # characters
LONGEST_NUMBER = 1000  # of one number
MOST_NUMBERS = 2**25  # as float64 these are 268 MB
GZIP = b"\x1f\x8b"  # how such a file begins
LISTED = 20  # names of columns in an error

_NUMBER = re.compile(r"([+-]?(?:(\d+)(?:\.(\d*))?|\.\d+))([eE][+-]?\d+)?", re.ASCII)
_DELIMITER = re.compile(r"""[!#$%&'()*,/:;<=>?@[\\\]^_`{|}~]""")  # printable, and not part of a number or a name


class Form(NamedTuple):
    """How a file writes numbers, and what stands between them."""

    delimiter: str | None = None  # None: "," or, where that is the decimal mark, ";"
    decimal: str = "."


class Regression(NamedTuple):
    """A problem on columns scaled to mean 0 and standard deviation 1, and what leads back to the file's units.

    Its parameters are one weight a feature. It has no intercept: between such columns the best one is 0.
    """

    problem: Problem
    target: str
    features: list[str]
    mean: np.ndarray  # of the features, then of the target
    deviation: np.ndarray

    def coefficients(self, params: Any) -> tuple[float, list[float]]:
        """Return the intercept and one coefficient a feature, in the file's units."""
        # (y - mean_y) / s_y = sum w (x - mean_x) / s_x
        slopes = params / self.deviation[:-1] * self.deviation[-1]
        return float(self.mean[-1] - slopes @ self.mean[:-1]), slopes.tolist()


def read_regression(
    path: str, target: str | None, features: Sequence[str] = (), form: Form | None = None
) -> Regression:
    """Return the regression of one column of a CSV file on others.

    Parameters
    ----------
    path : str
        A UTF-8 file, possibly compressed by gzip: names in the first line, finite numbers below. "-" is standard input.
    target : str
        The column to predict.
    features : sequence of str, optional
        The columns to predict it from; without it, all others.
    form : Form, optional

    Raises
    ------
    ProblemError
        If the file does not hold these columns, or one of them does not hold finite numbers that differ, or float64
        cannot hold an integer in it, or it is too large.
    StorageError
        If the file cannot be read.
    """
    form = form or Form()
    with name_errors("fit", path), _open_text(path) as file:
        rows = _read_rows(file, _check_delimiter(form))
        first, header = next(rows)
        names = _choose_columns([name.strip() for name in header], first, target, features)
        data, lines = _read_numbers(rows, names, form.decimal)
        if len(data) < 2:
            raise ProblemError(f"rows of numbers after line {first}: {len(data)}; a regression needs two or more")
        mean, deviation = _measure_columns(data, [name for _, name in names], *lines)
        data -= mean
        data /= deviation
    *chosen, target = [name for _, name in names]
    return Regression(_build_problem(path, data[:, :-1], data[:, -1]), target, chosen, mean, deviation)


def _build_problem(name: str, a: np.ndarray, b: np.ndarray) -> Problem:
    """Return half the mean squared error of ``a @ weights``; the reference is scipy.linalg.lstsq's."""

    def fun(weights: np.ndarray) -> tuple[float, np.ndarray]:
        residual = a @ weights - b
        return float(np.mean(residual**2) / 2), a.T @ residual / b.size

    def solve() -> np.ndarray:
        import scipy.linalg

        solution: Any = scipy.linalg.lstsq(a, b)
        return solution[0]

    unique = bool(np.linalg.matrix_rank(a) == a.shape[1])
    return Problem(name, fun, np.zeros(a.shape[1]), solve, unique)


@contextlib.contextmanager
def _open_text(path: str) -> Iterator[io.TextIOWrapper]:
    """Open a file, or standard input, as text in which bytes that are not UTF-8 are halves of characters."""
    with contextlib.ExitStack() as stack:
        if path != STANDARD_INPUT:
            file: Any = stack.enter_context(open(regular(path), "rb"))
        else:
            file = getattr(sys.stdin, "buffer", None)
            if file is None:
                raise ProblemError("standard input is closed")
        if file.peek(2)[:2] == GZIP:
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        stack.callback(text.detach)  # so that standard input stays open
        try:
            yield text
        except (EOFError, zlib.error) as error:
            raise ProblemError(f"its compressed data are damaged: {error}") from None


def _read_lines(file: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines of a text; raise ProblemError for one that is not UTF-8, or where the text gets too long."""
    length = 0
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), ""), 1):
        length += len(line)
        if len(line) > MOST_LINE or length > MOST_TEXT:
            what, most = ("line", MOST_LINE) if len(line) > MOST_LINE else ("text up to line", MOST_TEXT)
            raise ProblemError(f"{what} {number} has more than {most} characters")
        if not line.isascii() and (wrong := re.search("[\udc80-\udcff]", line)):
            raise ProblemError(f"line {number} is not UTF-8: it has the byte {ord(wrong[0]) - 0xDC00:#04x}")
        yield line


def _read_rows(file: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines that are not blank, each with its number and as many fields as the first has."""
    reader = csv.reader(_read_lines(file), delimiter=delimiter, strict=True, skipinitialspace=True)
    first, fields = 0, 0
    try:
        for row in reader:
            if any(field.strip() for field in row):
                line = reader.line_num
                first, fields = (first, fields) if first else (line, len(row))
                if len(row) != fields:
                    raise ProblemError(
                        f"the number of fields is {len(row)} in line {line} and {fields} in line {first}"
                    )
                yield line, row
    except csv.Error as error:
        raise ProblemError(f"line {reader.line_num}: {error}") from None
    if not first:
        raise ProblemError("the file is empty; its first line must hold the names of the columns")


def _check_delimiter(form: Form) -> str:
    delimiter = DECIMALS[form.decimal] if form.delimiter is None else form.delimiter
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if delimiter != "\t" and not _DELIMITER.fullmatch(delimiter):
        raise ProblemError(
            f"--delimiter is {delimiter!r}; it must be tab or one character that is not a letter, digit, space, "
            "quote, '.', '+' or '-'"
        )
    return delimiter


def _choose_columns(header: list[str], line: int, target: str | None, features: Sequence[str]) -> list[tuple[int, str]]:
    """Return index and name of the features, and last those of the target."""
    listed = ", ".join(map(repr, header[:LISTED])) + f" and {len(header) - LISTED} others" * (len(header) > LISTED)
    there = f"the columns are {listed}"
    if target is None:
        raise ProblemError(f"--target must say which column to predict; {there}")
    wanted = [*(features or [name for name in header if name != target]), target]
    times, chosen = collections.Counter(header), collections.Counter(wanted)
    for name in wanted:
        if times[name] != 1:
            found = f"{times[name]} columns" if times[name] else "no column"
            hint = "; --delimiter says what stands between them" if len(header) == 1 else ""
            raise ProblemError(f"line {line} names {found} {name!r}; {there}{hint}")
        if not name:
            raise ProblemError(f"line {line} has a column without a name; --feature chooses the ones to use")
        if chosen[name] > 1:
            raise ProblemError(f"the column {name!r} is chosen {chosen[name]} times")
    if len(wanted) < 2:
        raise ProblemError(f"line {line} names no column to predict {target!r} from; {there}")
    places = {name: i for i, name in enumerate(header)}
    return [(places[name], name) for name in wanted]


def _read_numbers(
    rows: Iterator[tuple[int, list[str]]], names: list[tuple[int, str]], decimal: str
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the columns of these indices as one array, and the numbers of its first and last line."""
    numbers, first, line = array.array("d"), 0, 0
    for line, row in rows:
        first = first or line
        numbers.extend([_parse_number(row[i], decimal, line, name) for i, name in names])
        if len(numbers) > MOST_NUMBERS:
            raise ProblemError(f"line {line}: up to here there are more than {MOST_NUMBERS} numbers")
    return np.frombuffer(numbers).reshape(-1, len(names)), (first, line)


def _parse_number(field: str, decimal: str, line: int, name: str) -> float:
    """Return the number in a field; raise ProblemError if it is not one, or if float64 cannot hold it."""
    text = field.strip()
    if decimal != ".":
        text = text.replace(".", "?").replace(decimal, ".")
    form = _NUMBER.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    value = float(text) if form else math.nan
    if form is None or math.isinf(value):
        words = f"{field!r:.60}, not a finite number" if text else "empty"
    elif abs(value) >= 2**53 and _is_integer(form) and int(form[2]) != abs(value):
        words = f"{field!r:.60}, an integer that float64 rounds to {int(value)}"
    elif value == 0 and form[1].strip("0.+-"):
        words = f"{field!r:.60}, which float64 rounds to 0"
    else:
        return value
    raise ProblemError(f"line {line}: column {name!r} is {words}")


def _is_integer(form: re.Match[str]) -> bool:
    return bool(form[2]) and not (form[3] or "").strip("0") and not form[4]


def _measure_columns(data: np.ndarray, names: list[str], first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column; raise ProblemError if a deviation is not > 0."""
    with np.errstate(all="ignore"):
        mean, deviation = data.mean(axis=0), data.std(axis=0)
    for j, name in enumerate(names):
        low, high = float(data[:, j].min()), float(data[:, j].max())
        if low == high:
            raise ProblemError(f"column {name!r} is {low!r} in all rows, lines {first} to {last}; it must vary")
        if not 0 < deviation[j] < np.inf:
            raise ProblemError(f"column {name!r} from {low!r} to {high!r} has no standard deviation in float64")
    return mean, deviation
