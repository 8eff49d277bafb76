"""amos-ref run on a CSV file: the fit is in the file's units, and what is wrong with a file is one line."""

import gzip
import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
from helpers.command import cells, output_lines, run_json

from amos_ref import errors
from amos_ref.cli import csv_data, main

EPS = 2.0**-52


def test_a_csv_file_is_fitted_in_its_own_units(houses, capsys):
    path, data = houses
    report = run_json(capsys, "run", path, "--target", "price", "--steps", "400")
    mean = data.mean(axis=0)
    slopes = scipy.linalg.lstsq((data - mean)[:, :2], (data - mean)[:, 2])[0]
    solution = np.append(slopes, mean[2] - slopes @ mean[:2])
    reference = report["reference"]
    got = [*reference["coefficients"].values(), reference["intercept"]]
    # Less its mean a column is well conditioned (2); some 10 sums of 40 terms each, EPS a term, and room for LAPACK's.
    np.testing.assert_allclose(got, solution, rtol=1000 * EPS)
    assert list(reference["coefficients"]) == ["area", "built [year]"]
    residual = data[:, :2] @ solution[:2] + solution[2] - data[:, 2]
    assert 2 * reference["loss"] == pytest.approx(np.var(residual) / np.var(data[:, 2]), rel=1000 * EPS)
    for run in report["runs"]:
        assert 0 <= run["gap"] + EPS < 1e-4
        assert run["error"] < 0.01


def test_the_coefficients_are_the_files_and_not_those_of_the_scaled_columns(houses):
    path, data = houses
    regression = csv_data.read_regression(path, "price")
    intercept, slopes = regression.coefficients(regression.problem.reference)
    fitted = data[:, :2] @ slopes + intercept
    want = 1 - 2 * regression.problem.best
    assert 1 - np.var(fitted - data[:, 2]) / np.var(data[:, 2]) == pytest.approx(want, rel=1000 * EPS)
    assert np.mean(fitted) == pytest.approx(np.mean(data[:, 2]), rel=1000 * EPS)
    wrong = regression._replace(deviation=np.ones(3)).coefficients(regression.problem.reference)[1]
    assert np.abs(np.divide(wrong, slopes) - 1).min() > 0.5


def test_the_gradient_of_a_csv_file_is_that_of_its_loss(houses):
    problem = csv_data.read_regression(houses[0], "price").problem
    at, h = np.array([0.3, -0.2]), 2.0**-20
    gradient = problem.fun(at)[1]
    for i, e in enumerate(np.eye(2)):
        # A quadratic's central difference has no error but rounding, EPS |loss| / h = 2^-32 each.
        slope = (problem.fun(at + h * e)[0] - problem.fun(at - h * e)[0]) / (2 * h)
        assert slope == pytest.approx(gradient[i], abs=4 * 2.0**-32)


def test_the_table_of_a_csv_file(houses, capsys):
    assert main(["run", houses[0], "--target", "price", "--feature", "area", "--algorithm", "paper"]) == 0
    out = output_lines(capsys)[0]
    area, price = houses[1][:, 0], houses[1][:, 2]
    slope, intercept = np.polyfit(area, price, 1)
    assert [cells(line)[:2] for line in out[5:]] == [
        ["price", "="],
        ["intercept", f"{intercept:.6g}"],
        ["area", f"{slope:.6g}"],
        ["R^2", f"{np.corrcoef(area, price)[0, 1] ** 2:.6g}"],
    ]


def test_columns_that_depend_on_each_other_have_no_distance(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("a,b,[red]y\n1,2,3\n2,4,1\n3,6,7\n")
    assert main(["run", str(path), "--target", "[red]y", "--steps", "3"]) == 0
    out = output_lines(capsys)[0]
    assert "distance" not in out[0]
    assert out[7].startswith("[red]y = ")
    assert out[-2] == "The columns depend on each other: other coefficients fit as well as the reference's."
    assert out[-1] == "closed-form: half-life N/10 = 0.3"


def test_a_file_as_spreadsheets_write_it(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbf"a", y\r\n1, 2\r\n\r\n"3", 5e0\r\n4,4\r\n,\r\n')
    report = run_json(capsys, "run", str(path), "--target", "y", "--steps", "1")
    slope, intercept = np.polyfit([1, 3, 4], [2, 5, 4], 1)
    got = [report["reference"]["coefficients"]["a"], report["reference"]["intercept"]]
    np.testing.assert_allclose(got, [slope, intercept], rtol=1e-13)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty; its first line must hold the names of the columns"),
        (b"\n \n", "the file is empty"),
        (b"a,y\n", "rows of numbers after line 1: 0; a regression needs two or more"),
        (b"\na,y\n1,2\n", "rows of numbers after line 2: 1; a regression needs two or more"),
        (b"a,y\n1,2\n\n3,n/a\n", "line 4: column 'y' is 'n/a', not a finite number"),
        (b"a,b,y\n1,,2\n3,4,5\n", "line 2: column 'b' is empty"),
        (b"a,y\n1,nan\n", "line 2: column 'y' is 'nan', not a finite number"),
        (b"a,y\n1e999,1\n", "line 2: column 'a' is '1e999', not a finite number"),
        (b'a,y\n1,"2,5"\n', "line 2: column 'y' is '2,5', not a finite number"),
        (b"a,y\n1,2\n3\n", "the number of fields is 1 in line 3 and 2 in line 1"),
        (b"a,y\n1,2\n3,4,5\n", "the number of fields is 3 in line 3 and 2 in line 1"),
        (b"y\n1\n2\n", "line 1 names no column to predict 'y' from; the columns are 'y'"),
        (b"a;y\n1;2\n", "line 1 names no column 'y'; the columns are 'a;y'"),
        (b"a,b\n1,2\n", "line 1 names no column 'y'; the columns are 'a', 'b'"),
        (b"a,a,y\n1,2,3\n", "line 1 names 2 columns 'a'; the columns are 'a', 'a', 'y'"),
        (b",a,y\n0,1,2\n", "line 1 has a column without a name; --feature chooses the ones to use"),
        (b"a,b,y\n1,5,2\n2,5,3\n3,5,1\n", "column 'b' is 5.0 in all rows, lines 2 to 4; it must vary"),
        (b"a,y\n1,5\n2,5\n", "column 'y' is 5.0 in all rows, lines 2 to 3; it must vary"),
        (b"a,y\n1e300,1\n-1e300,2\n", "column 'a' from -1e+300 to 1e+300 has no standard deviation in float64"),
        (b"a,y\n1e-300,1\n-1e-300,2\n", "column 'a' from -1e-300 to 1e-300 has no standard deviation"),
        (b"a,y\n1,\xff\n", "line 2 is not UTF-8: it has the byte 0xff"),
        (b'a,y\n1,2\n"1,2\n', "line 3: unexpected end of data"),
        (b"a,y\n1,2024_01\n", "line 2: column 'y' is '2024_01', not a finite number"),
        ("a,y\n1,\u0663\n".encode(), "line 2: column 'y' is '\u0663', not a finite number"),
        (b"a,y\n1,0x10\n", "line 2: column 'y' is '0x10', not a finite number"),
        (b'a,y\n1,"1,234"\n', "line 2: column 'y' is '1,234', not a finite number"),
        (b"a,y\n1,-inf\n", "line 2: column 'y' is '-inf', not a finite number"),
        (b"a,y\n1," + b"1" * 1001, "line 2: column 'y' is '1111"),
        (b"a,y\n1,1\x002\n", "line 2: column 'y' is '1\\x002', not a finite number"),
        (
            b"a,y\n1,9007199254740993\n",
            "line 2: column 'y' is '9007199254740993', an integer that float64 rounds to 900719",
        ),
        (b"a,y\n-9007199254740993.00,1\n", "line 2: column 'a' is '-9007199254740993.00', an integer that float64 "),
        (b"a,y\n1,-1e-400\n", "line 2: column 'y' is '-1e-400', which float64 rounds to 0"),
        (
            b"a;b;y\n1;2;3\n",
            "line 1 names no column 'y'; the columns are 'a;b;y'; --delimiter says what stands between",
        ),
        (
            b"c," * 30 + b"y\n",
            "line 1 names 30 columns 'c'; the columns are 'c', 'c', 'c', 'c', 'c', 'c', 'c', 'c', 'c', ",
        ),
        (b"\x1f\x8b\x08\x00", "its compressed data are damaged: Compressed file ended before"),
        (
            gzip.compress(b"a,y\n" + b"1,2\n" * 99, mtime=0)[:-12],
            "its compressed data are damaged: Compressed file ended before",
        ),
        (b"a,y\n1," + b"1" * 2**20, "line 2 has more than 1048576 characters"),
    ],
)
def test_a_bad_csv_file_is_one_line_and_exit_2(content, text, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    assert main(["run", str(path), "--target", "y"]) == 2
    out, err = output_lines(capsys)
    assert out == []
    assert len(err) == 1
    assert err[0].startswith(f"amos-ref: cannot fit {str(path)!r}: {text}")


def fit(monkeypatch, content, **form):
    """The slope of a file on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    regression = csv_data.read_regression("-", "y", form=csv_data.Form(**form))
    sys.stdin.buffer.read()  # which is still open
    return regression.coefficients(regression.problem.reference)[1][0]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"a,y\n0.5,1\n1.5,4\n", {}),
        (b"a,y\r0.5,1\r1.5,4\r", {}),
        (b"a\ty\n.5\t1.\n15e-1\t+4\n", {"delimiter": "tab"}),
        (b"a:y\n0.5:1\n1.5:4", {"delimiter": ":"}),
        (b"a;y\n0,5;1\n1,5;4,0\n", {"decimal": ","}),
        (b'a,y\n"0,5",1\n"1,5",4\n', {"decimal": ",", "delimiter": ","}),
        (gzip.compress(b"a,y\n0.5,1\n1.5,4\n", mtime=0), {}),
    ],
)
def test_forms_of_a_file(content, form, monkeypatch):
    assert fit(monkeypatch, content, **form) == pytest.approx(3)


def test_with_a_decimal_comma_a_point_is_no_number(monkeypatch):
    with pytest.raises(errors.ProblemError, match=r"line 3: column 'a' is '1\.5', not a finite number"):
        fit(monkeypatch, b"a;y\n0,5;1\n1.5;4\n", decimal=",")


@pytest.mark.parametrize("delimiter", ["", "ab", "a", "1", '"', " ", ".", "-", "\n", "\u00e9", "\0"])
def test_what_is_no_delimiter(delimiter, monkeypatch):
    with pytest.raises(errors.ProblemError, match=r"^cannot fit '-': --delimiter is .*; it must be tab or one"):
        fit(monkeypatch, b"a,y\n", delimiter=delimiter)


def test_integers_that_float64_holds_are_numbers(monkeypatch):
    rows = "".join(f"{n},{n}\n" for n in (2**53, 2**53 + 2, -(2**60), "9007199254740993.5", 1))
    assert fit(monkeypatch, f"a,y\n{rows}".encode()) == pytest.approx(1)


def test_closed_standard_input_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["run", "-", "--target", "y"]) == 2
    assert output_lines(capsys) == ([], ["amos-ref: cannot fit '-': standard input is closed"])


def test_what_is_no_ordinary_file_is_not_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        for path in ("/dev/zero", "fifo", "socket", "."):
            assert main(["run", path, "--target", "y"]) == 2
            assert output_lines(capsys)[1] == [f"amos-ref: cannot fit {path!r}: it is not an ordinary file"]


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        ("MOST_TEXT", "text up to line 7 has more than 99 characters"),
        ("MOST_NUMBERS", "line 51: up to here there are more than 99"),
    ],
)
def test_what_is_too_large_is_not_read_to_its_end(bound, text, monkeypatch):
    monkeypatch.setattr(csv_data, bound, 99)
    content = gzip.compress(b"a,y\n" + b"1000000,2000000\n" * 10_000)
    with pytest.raises(errors.ProblemError, match=text):
        fit(monkeypatch, content)


def test_a_file_takes_about_its_own_size_of_memory(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,y\n" + "".join(f"0.{i:06},{i % 97}.25\n" for i in range(200_000)))
    code = """
import resource, sys, scipy.linalg
from amos_ref.cli import csv_data
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
csv_data.read_regression(sys.argv[1], "y")
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=120)
    # Two numbers of 8 bytes a line, three times over; as lists of texts the rows alone would take 50 times the file.
    assert int(done.stdout) < 8 * path.stat().st_size


def test_nothing_in_a_header_reaches_the_terminal_as_it_is(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("a\x1b[2J,y\u202e\n1,2\n2,3\n3,5\n")
    assert main(["run", str(path), "--target", "y\u202e", "--steps", "1", "--algorithm", "paper"]) == 0
    out = "".join(capsys.readouterr())
    assert "a\\x1b[2J" in out
    assert "y\\u202e =" in out
    assert all(c.isprintable() or c == "\n" for c in out)


def test_a_wrong_version_reads_a_month_as_a_number(monkeypatch):
    monkeypatch.setattr(csv_data, "_parse_number", lambda field, *_: float(field))
    assert fit(monkeypatch, b"a,y\n2024_01,1\n202403,4\n") == pytest.approx(1.5)
