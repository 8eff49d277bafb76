"""amos-ref run, explain and schedule: what they print is what the library computes; every mistake is one line."""

import io
import json
import pathlib
import re
import sys

import numpy as np
import pytest
import scipy.linalg
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import closed_form, errors, plots, problems
from amos_ref.cli import csv_data, main
from amos_ref.cli import run as run_command

EPS = 2.0**-52


def lines(capsys):
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def found(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def cells(line):
    return line.split()


@pytest.fixture
def houses(tmp_path):
    """A CSV file, its three columns and its path."""
    rng = np.random.default_rng(3)
    area, year = rng.uniform(30, 150, 40).round(1), rng.integers(1950, 2020, 40)
    price = (3000 * area + 800 * (year - 1950) + 20000 + rng.normal(0, 1e4, 40)).round()
    path = tmp_path / "houses.csv"
    rows = [f"{a},{y},{p:.0f}\n" for a, y, p in zip(area, year, price, strict=True)]
    path.write_text("area, built [year] ,price\n" + "".join(rows))
    return str(path), np.column_stack([area, year, price])


# problems


def test_run_is_minimize_with_the_options_given(capsys):
    argv = ["run", "quadratic:n=4,condition=9", "--steps", "30", "--learning-rate", "0.04"]
    argv += ["--algorithm", "paper:eta=0.7,slot_shape=element", "--algorithm", "closed-form", "--algorithm", "adamw"]
    report = found(capsys, *argv)
    problem = problems.quadratic(n=4, condition=9)
    wanted = [
        ("paper", dict(learning_rate=0.04, eta=0.7, slot_shape="element")),
        ("closed-form", dict(alpha_0=0.04, half_life=3.0)),
        ("adamw", dict(learning_rate=0.04)),
    ]
    for run, (name, options) in zip(report["runs"], wanted, strict=True):
        result = amos_ref.minimize(problem, optimizer=name, steps=30, **options)
        assert run["history"] == {part: getattr(result.history, part) for part in ("step", "loss", "error")}
        assert (run["loss"], run["error"]) == (result.loss, result.history.error[-1])
        assert (run["algorithm"].split(":")[0], run["steps"], run["status"]) == (name, 30, "steps")
    assert report["start"]["loss"] == problem.fun(problem.start)[0]
    assert report["reference"] == {"loss": 0.0, "gap": 0.0, "error": 0.0, "score": None}
    # Another learning rate is another training.
    assert amos_ref.minimize(problem, steps=30, learning_rate=0.05, eta=0.7).loss != report["runs"][0]["loss"]


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_the_table_of_every_problem(name, capsys):
    assert main(["run", name, "--steps", "2", "--algorithm", "paper"]) == 0
    out, err = lines(capsys)
    problem = problems.PROBLEMS[name]()
    result = amos_ref.minimize(problem, steps=2, learning_rate=0.05)
    head, start, paper, reference = out
    assert head.split("  ")[-1].strip() == ("right on held-out" if problem.score else "distance to it")
    end = f"{problem.score(result.params):.1%}" if problem.score else f"{result.history.error[-1]:.6g}"
    assert cells(paper) == ["paper", "2", f"{result.loss:.6g}", f"{result.loss - problem.best:.6g}", end]
    assert cells(start)[:2] == ["start", f"{problem.fun(problem.start)[0]:.6g}"]
    assert cells(reference)[:3] == ["reference", f"{problem.best:.6g}", "0"]
    assert err == [f"paper: step {t} of 2, loss {result.history.loss[t]:.6g}" for t in range(3)]


def test_a_terminal_sees_bars(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["run", "quadratic", "--steps", "3", "--algorithm", "adamw"]) == 0
    shown = sys.stderr.getvalue()
    assert "adamw" in shown
    assert "3/3" in shown
    assert "step 3 of 3" not in shown
    assert lines(capsys)[0][2].startswith("adamw")


def test_ctrl_c_prints_what_there_is(monkeypatch, capsys, tmp_path):
    def line(label, t, loss, steps):
        if t == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "_line", line)
    path = tmp_path / "x.png"
    argv = ["run", "quadratic", "--steps", "9", "--algorithm", "paper", "--algorithm", "adamw", "--plot", str(path)]
    assert main(argv) == 130
    out = lines(capsys)[0]
    assert [cells(line)[0] for line in out[1:]] == ["start", "paper", "reference"]
    assert cells(out[2])[:3] == ["paper", "5", "(interrupted)"]
    assert path.read_bytes().startswith(b"\x89PNG")


@given(
    name=st.sampled_from(["paper", "quadratic"]),
    options=st.dictionaries(
        st.from_regex(r"[a-z_][a-z_0-9]{0,9}", fullmatch=True),
        st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False)
        | st.sampled_from(["(1, SHAPE[1])", "adam", "a,b:c"]),
        max_size=4,
    ),
)
def test_options_read_back_as_written(name, options):
    text = ",".join(f"{key}={value}" for key, value in options.items())
    got = run_command.split(f"{name}:{text}" if options else name)
    assert got == (name, options)
    assert [type(x) for x in got[1].values()] == [type(x) for x in options.values()]


# a CSV file


def test_a_csv_file_is_fitted_in_its_own_units(houses, capsys):
    path, data = houses
    report = found(capsys, "run", path, "--target", "price", "--steps", "400")
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
    regression = csv_data.regression(path, "price")
    intercept, slopes = regression.coefficients(regression.problem.reference)
    fitted = data[:, :2] @ slopes + intercept
    want = 1 - 2 * regression.problem.best
    assert 1 - np.var(fitted - data[:, 2]) / np.var(data[:, 2]) == pytest.approx(want, rel=1000 * EPS)
    assert np.mean(fitted) == pytest.approx(np.mean(data[:, 2]), rel=1000 * EPS)
    wrong = regression._replace(deviation=np.ones(3)).coefficients(regression.problem.reference)[1]
    assert np.abs(np.divide(wrong, slopes) - 1).min() > 0.5


def test_the_gradient_of_a_csv_file_is_that_of_its_loss(houses):
    problem = csv_data.regression(houses[0], "price").problem
    at, h = np.array([0.3, -0.2]), 2.0**-20
    gradient = problem.fun(at)[1]
    for i, e in enumerate(np.eye(2)):
        # A quadratic's central difference has no error but rounding, EPS |loss| / h = 2^-32 each.
        slope = (problem.fun(at + h * e)[0] - problem.fun(at - h * e)[0]) / (2 * h)
        assert slope == pytest.approx(gradient[i], abs=4 * 2.0**-32)


def test_the_table_of_a_csv_file(houses, capsys):
    assert main(["run", houses[0], "--target", "price", "--feature", "area", "--algorithm", "paper"]) == 0
    out = lines(capsys)[0]
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
    out = lines(capsys)[0]
    assert "distance" not in out[0]
    assert out[7].startswith("[red]y = ")
    assert out[-1] == "The columns depend on each other: other coefficients fit as well as the reference's."


def test_a_file_as_spreadsheets_write_it(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbf"a", y\r\n1, 2\r\n\r\n"3", 5e0\r\n4,4\r\n,\r\n')
    report = found(capsys, "run", str(path), "--target", "y", "--steps", "1")
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
        (b"a,y\n1,2\n\n3,n/a\n", "line 4: column 'y' is 'n/a', no finite number"),
        (b"a,b,y\n1,,2\n3,4,5\n", "line 2: column 'b' is empty"),
        (b"a,y\n1,nan\n", "line 2: column 'y' is 'nan', no finite number"),
        (b"a,y\n1e999,1\n", "line 2: column 'a' is '1e999', no finite number"),
        (b'a,y\n1,"2,5"\n', "line 2: column 'y' is '2,5', no finite number"),
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
        (b"a,y\n1,\xff\n", "line 2 is not UTF-8: invalid start byte 0xff"),
        (b'a,y\n1,2\n"1,2\n', "line 3: unexpected end of data"),
    ],
)
def test_a_bad_csv_file_is_one_line_and_exit_2(content, text, tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    assert main(["run", str(path), "--target", "y"]) == 2
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert err[0].startswith(f"amos-ref: cannot fit {str(path)!r}: {text}")


# mistakes


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("run nothing.csv --target y", "there is no problem and no file 'nothing.csv'; the problems are quadratic, "),
        ("run / --target y", "cannot fit '/': Is a directory"),
        ("run HOUSES", "--target must say which column to predict; the columns are 'area', 'built [year]', 'price'"),
        ("run HOUSES --target area --feature area", "the column 'area' is chosen 2 times"),
        ("run HOUSES --target area --feature x", "line 1 names no column 'x'; the columns are 'area', "),
        ("run quadratic --target y", "say something about a CSV file; the problem is 'quadratic'"),
        ("run quadratic --feature y", "say something about a CSV file; the problem is 'quadratic'"),
        ("run quadratic:n=0", "a quadratic needs n >= 1"),
        ("run quadratic:n=1.5", "a quadratic needs n >= 1"),
        ("run quadratic:seed=-1", "'quadratic:seed=-1' is no problem: "),
        ("run quadratic:n=100000000", "'quadratic:n=100000000' is no problem: Unable to allocate"),
        ("run linear-regression:x=3,a=1", "'linear-regression' has no option 'x', 'a'"),
        ("run quadratic:n", "'quadratic:n' is not of the form NAME:option=value,option=value"),
        ("run quadratic:n=2,n=3", "'quadratic:n=2,n=3' is not of the form"),
        ("run quadratic --steps -1", "--steps is -1; it must be 0 or more"),
        ("run quadratic --algorithm sgd", "there is no algorithm 'sgd'; it must be paper, closed-form, adamw"),
        ("run quadratic --algorithm paper --algorithm paper", "--algorithm paper is given twice"),
        ("run quadratic --algorithm paper:xi=3", "paper:xi=3: 'paper' has no option 'xi'"),
        ("run quadratic --algorithm closed-form:half_life=5,p_0=1", "exactly one of them must be given"),
        ("run quadratic --learning-rate nan", "paper: learning_rate is nan; it must be finite and >= 0"),
        ("run quadratic --learning-rate 1", "closed-form: alpha_0 is 1.0; it must be in (0, 1)"),
        ("run quadratic --plot /no/such/x.png", "cannot write '/no/such/x.png': No such file or directory"),
        ("run quadratic --plot x.bmp", "cannot draw 'x.bmp': its name must end in .pdf, .png, .svg"),
        ("explain --step 0", "--step is 0; it must be from 1 to 1000"),
        ("explain --algorithm closed-form --step -1", "--step is -1; it must be from 0 to 1000"),
        ("explain --algorithm closed-form --step 1001", "--step is 1001; it must be from 0 to 1000"),
        ("schedule --half-life 5 --p-0 1", "half_life is 5.0 and p_0 is 1.0; exactly one of them must be given"),
        ("schedule --alpha-0 1", "alpha_0 is 1.0; it must be in (0, 1)"),
        ("schedule --half-life -1", "half_life is -1.0; it must be finite and > 0"),
        ("schedule --p-0 nan", "p_0 is nan; it must be finite and > 0"),
        ("schedule --q 0", "q is 0.0; it must be finite and > 0"),
        ("schedule --eta 0", "eta is 0.0; it must be"),
        ("schedule --steps 0", "--steps is 0; it must be from 1 to 1000000"),
        ("schedule --steps 1000001", "--steps is 1000001; it must be from 1 to 1000000"),
        ("schedule --steps 3 --plot /no/such/x.png", "cannot write '/no/such/x.png': No such file or directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, text, houses, capsys):
    assert main([houses[0] if word == "HOUSES" else word for word in argv.split()]) == 2
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert text in err[0]


def test_a_training_that_diverges_is_named_and_leaves_no_picture(capsys, tmp_path):
    path = tmp_path / "x.png"
    label = "adamw:learning_rate=1e200"
    assert main(["run", "rosenbrock", "--algorithm", label, "--steps", "9", "--plot", str(path)]) == 2
    assert lines(capsys)[1][-1] == f"amos-ref: {label}: loss at step 1 is inf; it must be a finite number"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["run", "quadratic", "--steps", "1"], ["schedule", "--steps", "3"]])
def test_without_matplotlib_it_is_exit_3_before_any_step(argv, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*argv, "--plot", str(tmp_path / "x.png")]) == 3
    assert lines(capsys) == ([], ["amos-ref: plots need matplotlib: pip install 'amos_ref[plot]'"])


# pictures


def test_what_run_draws(monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(plots, "losses", lambda histories, best, ax: drawn.update(losses=(histories, best)))
    monkeypatch.setattr(plots, "errors", lambda history, schedule, ax, name: drawn.update({name: (history, schedule)}))
    argv = ["run", "linear-regression", "--steps", "5", "--plot", str(tmp_path / "x.svg")]
    assert main(argv) == 0
    histories, best = drawn["losses"]
    assert (list(histories), best) == (["paper", "closed-form", "adamw"], problems.linear_regression().best)
    history, schedule = drawn["closed-form"]
    assert history is histories["closed-form"]
    assert (schedule.alpha_0, schedule.half_life) == (0.05, 0.5)
    drawn.clear()
    assert main(["run", "digits", *argv[2:]]) == 0  # no minimum is known
    assert list(drawn) == ["losses"]


# explain and schedule


def test_explain_of_the_closed_form(capsys):
    assert main(["explain", "--algorithm", "closed-form"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("step t=0: shrink=1, alpha_0=0.1, q=1")
    assert "rho = alpha_0^2/(2q) exp(-2S)           0.005" in out
    report = found(capsys, "explain", "--algorithm", "closed-form", "--step", "20")
    assert report["t"] == 20
    assert report["rates"]["shrink"] == 1 / 3
    kernel = {part: np.array(value) for part, value in report["leaves"]["kernel"].items()}
    before = kernel["theta"] - kernel["delta"]
    np.testing.assert_allclose(-(kernel["alpha"] * kernel["u"] + kernel["rho"] * before), kernel["delta"], rtol=1e-12)
    assert kernel["rho"] == pytest.approx(closed_form.rho(20, alpha_0=0.1, half_life=10), rel=4 * EPS)
    assert kernel["rho"] != pytest.approx(closed_form.rho(19, alpha_0=0.1, half_life=10), rel=1e-3)


def test_schedule_is_closed_form(capsys):
    argv = ["schedule", "--alpha-0", "0.2", "--p-0", "0.3", "--q", "0.5", "--eta", "0.7", "--steps", "30"]
    report = found(capsys, *argv)
    options = dict(alpha_0=0.2, p_0=0.3, q=0.5)
    t = np.array([0, 1, 2, 5, 10, 20, 30])
    assert report["t"] == t.tolist()
    forms = {
        "inverse-time": dict(decay="inverse-time"),
        "falling p": dict(decay="recurrence"),
        "inverse-square": dict(decay="inverse-square"),
        "constant p": dict(decay="recurrence", p_t="constant"),
    }
    for name, form in forms.items():
        for quantity in ("alpha", "rho"):
            want = getattr(closed_form, quantity)(t, **options, **form)
            assert report["schedules"][name][quantity] == want.tolist()
    alpha, rho = plots.paper_rates(t, 0.2, 0.7)
    assert report["schedules"]["paper"] == {"alpha": alpha.tolist(), "rho": rho.tolist()}
    assert main(argv) == 0
    out = lines(capsys)[0]
    assert len(out) == 17
    assert cells(out[6]) == ["20", *(f"{report['schedules'][name]['alpha'][5]:.6g}" for name in [*forms, "paper"])]
    assert cells(out[15]) == ["20", *(f"{report['schedules'][name]['rho'][5]:.6g}" for name in [*forms, "paper"])]


def test_schedule_draws_both(capsys, tmp_path):
    path = tmp_path / "x.png"
    assert main(["schedule", "--steps", "20", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert cells(lines(capsys)[0][4])[1] == f"{0.01 / 1.05:.6g}"  # the half-life is 100 unless another is given


def test_errors_of_an_algorithm_keep_their_kind():
    with pytest.raises(errors.NonFiniteError, match=r"^x: y$"), run_command._called("x"):
        raise errors.NonFiniteError("y")


def test_the_documents_show_what_is_printed(capsys, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^    \$ (.*)\n((?:    (?!\$).*\n|\n(?=    (?!\$)))*)", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for command, shown in blocks:
        want = [line[4:] for line in shown.splitlines()]
        if command.startswith("cat "):
            pathlib.Path(command[4:]).write_text("\n".join(want))
            continue
        status = main(command.removeprefix("amos-ref ").removesuffix(" | head -13").split())
        out, err = lines(capsys)
        got = err if status else out[: len(want)] if "| head" in command else out
        if command.startswith("amos-ref run") and status == 0:  # the last digits of a training depend on the machine
            want, got = ([line.split("  ")[0] for line in rows] for rows in (want, got))
        assert got == want
    assert len(blocks) == 8
