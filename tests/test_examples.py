"""The examples run as they stand."""

import pathlib
import re
import subprocess
import sys

import numpy as np

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def run(name):
    found = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stderr == ""
    return found.stdout


def test_linear_regression_prints_a_fit_near_the_exact_one():
    exact, amos = run("linear_regression.py").splitlines()[-2:]
    numbers = [np.array(re.findall(r"-?\d+\.\d*", line), dtype=float) for line in (exact, amos)]
    assert numbers[0].shape == (4,)
    # Four digits are printed; the noise of the data, 0.01 / sqrt(200), is the scale on which a fit is a fit.
    assert np.abs(numbers[0] - numbers[1]).max() < 2 * 0.01 / np.sqrt(200)
