"""The examples run as they stand."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name):
    """Run an example with one thread: a busy machine lets threads wait for each other."""
    command, one = [sys.executable, "-W", "error", EXAMPLES / name], {"NUMBA_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env={**os.environ, **one})
    assert found.stderr == ""
    return found.stdout


def test_linear_regression_prints_a_fit_near_the_exact_one():
    exact, amos = run("linear_regression.py").splitlines()[-2:]
    numbers = [np.array(re.findall(r"-?\d+\.\d*", line), dtype=float) for line in (exact, amos)]
    assert numbers[0].shape == (4,)
    # Four digits are printed; the noise of the data, 0.01 / sqrt(200), is the scale on which a fit is a fit.
    assert np.abs(numbers[0] - numbers[1]).max() < 2 * 0.01 / np.sqrt(200)


def numbers(line):
    return np.array(re.findall(r"-?\d+\.\d+", line), dtype=float)


def test_the_estimator_is_searched_over():
    pytest.importorskip("sklearn")
    (line,) = run("estimator.py").splitlines()
    # scikit-learn's ridge regression reaches 0.49 here; the mean alone is 0.
    assert 0.45 < float(line.partition("R2 ")[2].split()[0]) < 0.5


def test_noise_settles_at_eta():
    pytest.importorskip("matplotlib")
    small, large = map(numbers, run("scale.py").splitlines())
    # 600 steps leave exp(-6) of the way in the squares; 4000 entries say the scale to 1/sqrt(8000), five times that.
    for start, end in (small, large):
        assert abs(end - np.sqrt(0.25 + (start**2 - 0.25) * np.exp(-6))) < 5 * 0.5 / np.sqrt(8000)


def test_plans_cross_at_the_half_life():
    pytest.importorskip("matplotlib")
    before, at, after = (numbers(line) for line in run("schedules.py").splitlines()[1:])
    assert list(at[[0, 2, 3]]) == [0.5, 0.5, 0.5]
    assert before[0] > before[2]  # the paper's stays longer
    assert after[0] < after[3] < after[2]  # and falls faster


def test_the_error_follows_the_prediction_where_all_is_granted():
    pytest.importorskip("matplotlib")
    for line in run("predicted_error.py").splitlines()[1:]:
        predicted, granted, *others = numbers(line)
        # With e_t = 1 / (1 + a t) and x_t = |eps_t| / |eps_0|, x_{t+1} = x_t - a e_t^2 - a^2 e_t^2 x_t / 2, and
        # e_{t+1} = e_t - a e_t e_{t+1}, e - x grows by 3/2 a^2 e_t^3 at most a step; the sum of e_t^3 is 1 + 1/(2a).
        assert -1e-4 <= predicted - granted <= 1.5 * (0.005**2 + 0.005 / 2) + 1e-4
        assert others == sorted(others)


def test_the_experiment_in_small_has_every_contender():
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    printed = run("why_amos.py")
    assert "N = 11 batches, T = 99 steps" in printed
    for name in ("Amos", "AdamW, constant", "closed form, T/10", "closed form, T", "AdamW, linear"):
        row = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert 0.05 < numbers(row)[0] < 1.0  # chance is log(10) = 2.3


def test_a_first_run_learns_without_a_schedule():
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    lines = [[float(x) for x in re.findall(r"\d+\.\d+", line)] for line in run("first_run.py").splitlines()]
    assert lines == sorted(lines, reverse=True)  # the loss falls from line to line
    assert abs(lines[0][0] - np.log(10)) < 0.3  # ten digits, all as likely at first
    assert lines[-1][1] < 0.1
