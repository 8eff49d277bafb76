"""Pictures: the lines drawn are the numbers, and pyplot knows nothing of them."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

import amos_ref
from amos_ref import closed_form, errors, plots, problems

EPS = 2.0**-52
OPTIONS = dict(alpha_0=0.2, half_life=7.0, q=0.6)
FORMS = [
    dict(decay="inverse-time"),
    dict(decay="recurrence"),
    dict(decay="inverse-square"),
    dict(decay="recurrence", p_t="constant"),
]


def drawn(ax):
    return [line.get_xydata().T for line in ax.get_lines()]


@pytest.fixture(scope="module")
def trained():
    """The closed form on a quadratic whose optimum is known."""
    return amos_ref.minimize(
        problems.quadratic(), optimizer="closed-form", steps=60, alpha_0=0.05, half_life=9, every=2
    )


# schedules


@pytest.mark.parametrize("quantity", ["alpha", "rho"])
def test_the_schedules_drawn_are_those_of_closed_form(quantity):
    lines = drawn(plots.schedules(quantity, last=500, eta=0.7, **OPTIONS))
    for (t, found), form in zip(lines[:4], FORMS, strict=True):
        assert (t[0], t[-1]) == (1, 500)
        assert np.array_equal(found, getattr(closed_form, quantity)(t, **OPTIONS, **form))
    assert np.array_equal(lines[4][1], plots.paper_rates(lines[4][0], 0.2, 0.7)[quantity == "rho"])
    # Each line is told from the others, so that none could stand for another.
    assert all(np.abs(a[1] / b[1] - 1).max() > 1e-3 for a, b in itertools.combinations(lines, 2))


def paper(steps, xi, eta):
    """Return (alpha, rho) of amos_ref.Amos for a gradient of 3, alpha in units of eta / 3."""
    opt, params, g = amos_ref.Amos(learning_rate=xi, eta=eta, beta=0.75), np.array([2.0, -1.0]), np.array([3.0, -3.0])
    state, found = opt.init(params), []
    for _ in range(steps):
        trace = opt.trace(g, state, params)[""]
        found.append((float(trace["alpha"]) * 3 / eta, float(trace["rho"])))
        state = opt.step(params, g, state)
    return np.array(found).T


def test_the_papers_rates_are_those_of_its_optimizer():
    # All terms are positive, so that relative errors add up: at most 25 roundings of EPS / 2 a step, on each side.
    want, t = paper(200, 0.3, 0.7), np.arange(200)
    np.testing.assert_allclose(plots.paper_rates(t, 0.3, 0.7), want, rtol=200 * 25 * EPS)
    assert want[0, 0] / want[0, -1] > 10  # they fall
    assert np.abs(np.array(plots.paper_rates(t + 1, 0.3, 0.7)) / want - 1).max() > 0.01  # one step late
    assert np.abs(plots.paper_rates(t, 0.3, 0.5)[0] / want[0] - 1).max() > 0.01  # another eta


# trainings


def test_measured_and_predicted_error(trained):
    schedule = trained.opt.schedule
    measured, predicted = drawn(plots.errors(trained.history, schedule, label="x"))
    assert np.array_equal(measured, [trained.history.step, trained.history.error])
    t = np.arange(0, 61, 2)
    assert np.array_equal(predicted[0], t)
    want = trained.history.error[0] * np.exp(-schedule.s(t))
    np.testing.assert_allclose(predicted[1], want, rtol=10 * EPS)
    squared = trained.history.error[0] * schedule.shrink(t)  # exp(-2 S) is for the squared error
    assert np.abs(squared / predicted[1] - 1).max() > 0.5


def test_losses_are_drawn_above_the_best_and_down_to_rounding(trained):
    history = trained.history
    (t, found), (_, cut) = drawn(plots.losses({"a": history, "b": history._replace(loss=[4.0] * 30 + [1.0])}, 1.0))
    assert np.array_equal(t, history.step)
    assert np.array_equal(found, np.maximum(np.array(history.loss) - 1.0, EPS * history.loss[0]))
    assert cut.tolist() == [3.0] * 30 + [4 * EPS]


def test_an_axis_says_how_many_steps_are_left_out(trained):
    assert plots.losses({"x": trained.history}).get_xlabel() == "steps taken, one in 2 drawn"
    whole = amos_ref.minimize(problems.quadratic(), steps=3, learning_rate=0.1).history
    assert plots.losses({"x": whole}).get_xlabel() == "steps taken"


def test_lines_differ_without_colour(trained):
    def looks(ax):
        return [
            (x.get_linestyle(), x._unscaled_dash_pattern, x.get_marker(), x.get_linewidth()) for x in ax.get_lines()
        ]

    many = looks(plots.losses({str(i): trained.history for i in range(12)}))
    assert len(set(map(str, many))) == 12
    assert len(set(map(str, looks(plots.errors(trained.history, trained.opt.schedule))))) == 2
    # The two bands of closed forms are told apart by the markers of the recurrences on them, and by their grey.
    ax = plots.schedules(last=10, half_life=5)
    greys = [np.dot(matplotlib.colors.to_rgb(ax.get_lines()[i].get_color()), [0.299, 0.587, 0.114]) for i in (0, 2)]
    assert abs(greys[0] - greys[1]) > 0.2
    assert len({line.get_marker() for line in ax.get_lines()[1::2]}) == 2


# figures


def test_they_draw_into_the_axes_given(trained):
    axes = plots.figure().subplots(1, 3)
    assert plots.schedules(ax=axes[0], last=20, half_life=5) is axes[0]
    assert plots.errors(trained.history, trained.opt.schedule, axes[1]) is axes[1]
    assert plots.losses({"x": trained.history}, ax=axes[2]) is axes[2]
    assert [len(ax.get_lines()) for ax in axes] == [5, 2, 1]
    plots.losses({"y": trained.history}, ax=axes[2])
    assert [line.get_marker() for line in axes[2].get_lines()] == ["o", "s"]


def test_nothing_of_pyplot_is_loaded_or_changed(tmp_path):
    code = """
import sys, amos_ref.plots as plots
assert "matplotlib" not in sys.modules
plots.schedules(last=9, half_life=5)
import matplotlib
settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}  # looks for one
before = settings()
with plots.picture(sys.argv[1], 5, 4) as figure:
    plots.schedules(last=9, half_life=5, ax=figure.add_subplot())
assert "matplotlib.pyplot" not in sys.modules and settings() == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path / "x.png"], check=True, timeout=120)


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_pictures_are_written_whole_or_not_at_all(ending, start, tmp_path, trained):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), plots.picture(str(path), 5, 4):
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    with plots.picture(str(path), 5, 4) as figure:
        plots.losses({"x": trained.history}, ax=figure.add_subplot())
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_without_a_path_there_is_no_picture():
    with plots.picture(None, 5, 4) as figure:
        assert figure is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda h: plots.schedules("beta", half_life=5), errors.HyperParameterError, "quantity is 'beta'"),
        (
            lambda h: plots.schedules(last=0, half_life=5),
            errors.HyperParameterError,
            "last is 0; it must be an integer",
        ),
        (lambda h: plots.schedules(last=True, half_life=5), errors.HyperParameterError, "last is True"),
        (lambda h: plots.schedules(last=10**7, half_life=5), errors.HyperParameterError, "from 1 to 1000000"),
        (lambda h: plots.schedules(last=9), errors.HyperParameterError, "exactly one of them must be given"),
        (lambda h: plots.paper_rates(1_000_001), errors.HyperParameterError, "at most 1000000 steps"),
        (lambda h: plots.paper_rates([-1]), errors.HyperParameterError, "whole numbers >= 0"),
        (lambda h: plots.paper_rates(1, eta=0.0), errors.HyperParameterError, "eta is 0.0"),
        (lambda h: plots.paper_rates(1, xi=-1.0), errors.HyperParameterError, "learning_rate is -1.0"),
        (
            lambda h: plots.errors(h._replace(error=[]), closed_form.Schedule(half_life=5)),
            errors.HyperParameterError,
            "no optimum was known",
        ),
    ],
)
def test_bad_input_is_named(call, error, text, trained):
    with pytest.raises(error, match=text):
        call(trained.history)


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(errors.MissingDependencyError, match=r"pip install 'amos_ref\[plot\]'"):
        plots.schedules(last=9, half_life=5)
