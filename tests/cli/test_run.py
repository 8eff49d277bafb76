"""amos-ref run: what it prints and draws is what the library computes."""

import io
import statistics
import sys

import numpy as np
import pytest
from helpers.command import cells, output_lines, run_json
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import errors, plots, problems, terminal
from amos_ref.cli import main
from amos_ref.cli import run as run_command


def test_run_is_minimize_with_the_options_given(capsys):
    argv = ["run", "quadratic:n=4,condition=9", "--steps", "30", "--learning-rate", "0.04"]
    argv += ["--algorithm", "paper:eta=0.7,slot_shape=element", "--algorithm", "closed-form", "--algorithm", "adamw"]
    report = run_json(capsys, *argv)
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


def test_a_half_life_that_nobody_said_is_printed(capsys):
    said = ["closed-form:half_life=4", "closed-form:p_0=0.5"]
    argv = ["run", "quadratic", "--steps", "30"]
    for label in ("paper", "closed-form", "closed-form:direction=adam", *said):
        argv += ["--algorithm", label]
    assert main(argv) == 0
    last, *notes = output_lines(capsys)[0][-3:]
    assert cells(last)[0] == "reference"
    assert notes == ["closed-form: half-life N/10 = 3", "closed-form:direction=adam: half-life N/10 = 3"]
    runs = run_json(capsys, *argv)["runs"]
    assert [run["by_default"] for run in runs] == [None, *["half-life N/10 = 3"] * 2, None, None]
    assert [run["options"].get("half_life") for run in runs] == [None, 3.0, 3.0, 4, None]
    assert runs[2]["options"]["direction"] == "adam"


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_the_table_of_every_problem(name, capsys):
    assert main(["run", name, "--steps", "2", "--algorithm", "paper"]) == 0
    out, err = output_lines(capsys)
    problem = problems.PROBLEMS[name]()
    chosen = {"eta": amos_ref.choose(problem.start)} if name == "digits" else {}
    result = amos_ref.minimize(problem, steps=2, learning_rate=0.05, **chosen)
    head, start, paper, reference = out
    assert head.split("  ")[-1].strip() == ("held out" if problem.score else "distance to it")
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
    assert output_lines(capsys)[0][2].startswith("adamw")


def test_ctrl_c_prints_what_there_is(monkeypatch, capsys, tmp_path):
    def print_line(name, done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "_print_line", print_line)
    path = tmp_path / "x.png"
    argv = ["run", "quadratic", "--steps", "9", "--algorithm", "paper", "--algorithm", "adamw", "--plot", str(path)]
    assert main(argv) == 130
    out = output_lines(capsys)[0]
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
    got = run_command.split_options(f"{name}:{text}" if options else name)
    assert got == (name, options)
    assert [type(x) for x in got[1].values()] == [type(x) for x in options.values()]


def test_a_training_that_diverges_is_named_and_leaves_no_picture(capsys, tmp_path):
    path = tmp_path / "x.png"
    label = "adamw:learning_rate=1e200"
    assert main(["run", "rosenbrock", "--algorithm", label, "--steps", "9", "--plot", str(path)]) == 2
    assert output_lines(capsys)[1][-1] == f"amos-ref: {label}: loss at step 1 is inf; it must be a finite number"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [["run", "quadratic", "--steps", "1"], ["schedule", "--steps", "3"]])
def test_without_matplotlib_it_is_exit_3_before_any_step(argv, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([*argv, "--plot", str(tmp_path / "x.png")]) == 3
    assert output_lines(capsys) == ([], ["amos-ref: plots need matplotlib: pip install 'amos_ref[plot]'"])


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


def test_errors_of_an_algorithm_keep_their_kind():
    with pytest.raises(errors.NonFiniteError, match=r"^x: y$"), run_command._name_algorithm("x"):
        raise errors.NonFiniteError("y")


def test_a_loss_that_swings_at_the_end_is_told_by_its_median(capsys):
    argv = ["run", "quadratic", "--algorithm", "paper", "--algorithm", "closed-form"]
    assert main(argv) == 0
    head, row = output_lines(capsys)[0][-2:]
    assert cells(head)[-3:] == ["least", "median", "greatest"]
    losses = []
    amos_ref.minimize(
        problems.quadratic(),
        optimizer="closed-form",
        alpha_0=0.05,
        callback=lambda t, loss, params: losses.append(loss),
    )
    tail = losses[-100:]
    assert row.split()[1:] == [f"{x:.3g}" for x in (min(tail), statistics.median(tail), max(tail))]
    paper, closed = run_json(capsys, *argv)["runs"]
    assert paper["swing"] is None
    assert closed["swing"] == {"least": min(tail), "median": statistics.median(tail), "greatest": max(tail)}


def test_what_swings():
    t = np.arange(1000)
    falling, swinging = 0.98**t + 1.0, 0.1 * (1.5 + np.sin(t)) + 1.0
    assert run_command._find_swing(list(falling), 1.0) is None
    assert run_command._find_swing(list(swinging), 1.0) == pytest.approx((0.05, 0.15, 0.25), abs=0.01)
    assert run_command._find_swing([*falling[:500], *swinging[:90], *falling[500:]], 1.0) is None  # not at the end
    noise = np.where(t % 2 == 1, 2.0**-50, 0.0)
    assert run_command._find_swing([1.0, *noise], 0.0) is None  # rounding
    assert run_command._find_swing([1.0, *noise * 2.0**20], 0.0) == (0.0, 2.0**-31, 2.0**-30)
    for short in ([], [1.0], [1.0, 2.0] * 49):
        assert run_command._find_swing(short, 0.0) is None
