"""A linear regression on the columns of a CSV file."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref.errors import ProblemError
from amos_ref.problems import Problem
from amos_ref.storage.files import name_errors


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


def read_regression(path: str, target: str | None, features: Sequence[str] = ()) -> Regression:
    """Return the regression of one column of a CSV file on others.

    Parameters
    ----------
    path : str
        A UTF-8 file: names in the first line, finite numbers below, separated by commas.
    target : str
        The column to predict.
    features : sequence of str, optional
        The columns to predict it from; without it, all others.

    Raises
    ------
    ProblemError
        If the file does not hold these columns, or one of them does not hold finite numbers that differ.
    StorageError
        If the file cannot be read.
    """
    with name_errors("fit", path), open(path, "rb") as file:
        (first, header), *rows = _read_rows(file.read())
        names = _choose_columns([name.strip() for name in header], first, target, features)
        data = np.array([[_parse_number(row, line, *column) for column in names] for line, row in rows])
        if len(rows) < 2:
            raise ProblemError(f"rows of numbers after line {first}: {len(rows)}; a regression needs two or more")
        mean, deviation = _measure_columns(data, [name for _, name in names], rows[0][0], rows[-1][0])
        data = (data - mean) / deviation
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


def _read_rows(content: bytes) -> list[tuple[int, list[str]]]:
    """Return the lines that are not blank, each with its number and as many fields as the first has."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ProblemError(f"line {line} is not UTF-8: {error.reason} {content[error.start]:#04x}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise ProblemError(f"line {reader.line_num}: {error}") from None
    if not rows:
        raise ProblemError("the file is empty; its first line must hold the names of the columns")
    for line, row in rows:
        if len(row) != len(rows[0][1]):
            raise ProblemError(
                f"the number of fields is {len(row)} in line {line} and {len(rows[0][1])} in line {rows[0][0]}"
            )
    return rows


def _choose_columns(header: list[str], line: int, target: str | None, features: Sequence[str]) -> list[tuple[int, str]]:
    """Return index and name of the features, and last those of the target."""
    there = f"the columns are {', '.join(map(repr, header))}"
    if target is None:
        raise ProblemError(f"--target must say which column to predict; {there}")
    wanted = [*(features or [name for name in header if name != target]), target]
    for name in wanted:
        if header.count(name) != 1:
            times = f"{header.count(name)} columns" if name in header else "no column"
            raise ProblemError(f"line {line} names {times} {name!r}; {there}")
        if not name:
            raise ProblemError(f"line {line} has a column without a name; --feature chooses the ones to use")
        if wanted.count(name) > 1:
            raise ProblemError(f"the column {name!r} is chosen {wanted.count(name)} times")
    if len(wanted) < 2:
        raise ProblemError(f"line {line} names no column to predict {target!r} from; {there}")
    return [(header.index(name), name) for name in wanted]


def _parse_number(row: list[str], line: int, i: int, name: str) -> float:
    try:
        value = float(row[i])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        words = f"{row[i]!r:.60}, not a finite number" if row[i].strip() else "empty"
        raise ProblemError(f"line {line}: column {name!r} is {words}")
    return value


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
