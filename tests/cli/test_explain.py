"""amos-ref explain prints the trace of a step."""

import json

import numpy as np
import pytest
from helpers.command import run_json

from amos_ref import closed_form
from amos_ref.cli import main

EPS = 2.0**-52


def test_explain_prints_the_trace_with_its_numbers(capsys):
    assert main(["explain"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("step t=1: q=0.1, xi=0.1, beta=0.9")
    assert "rho = d (gamma/2 + extra_l2)" in first
    assert main(["explain", "--step", "3", "--json"]) == 0
    third = json.loads(capsys.readouterr().out)
    assert third["t"] == 3
    kernel = third["leaves"]["kernel"]
    alpha, rho = np.array(kernel["alpha"]), np.array(kernel["rho"])
    assert alpha.shape == (1, 3)
    before = np.array(kernel["theta"]) - np.array(kernel["delta"])
    np.testing.assert_allclose(-(alpha * kernel["g"] + rho * before), kernel["delta"], rtol=1e-12)


@pytest.mark.parametrize("direction", ["gradient", "adam", "sign"])
def test_explain_along_each_direction(direction, capsys):
    kernel = run_json(capsys, "explain", "--algorithm", "closed-form", "--direction", direction)["leaves"]["kernel"]
    g, u = np.array(kernel["g"]), np.array(kernel["u"])
    assert (u == g).all() == (direction == "gradient")
    assert (u == np.sign(g)).all() == (direction == "sign")
    assert ("m" in kernel) == (direction == "adam")


def test_a_direction_of_the_paper_is_refused(capsys):
    assert main(["explain", "--direction", "adam"]) == 2
    assert capsys.readouterr().err == "amos-ref: --direction goes with --algorithm closed-form\n"


def test_explain_of_the_closed_form(capsys):
    assert main(["explain", "--algorithm", "closed-form"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("step t=0: shrink=1, alpha_0=0.1, q=1")
    assert "rho = alpha_0^2/(2q) exp(-2S)           0.005" in out
    report = run_json(capsys, "explain", "--algorithm", "closed-form", "--step", "20")
    assert report["t"] == 20
    assert report["rates"]["shrink"] == 1 / 3
    kernel = {part: np.array(value) for part, value in report["leaves"]["kernel"].items()}
    before = kernel["theta"] - kernel["delta"]
    np.testing.assert_allclose(-(kernel["alpha"] * kernel["u"] + kernel["rho"] * before), kernel["delta"], rtol=1e-12)
    assert kernel["rho"] == pytest.approx(closed_form.rho(20, alpha_0=0.1, half_life=10), rel=4 * EPS)
    assert kernel["rho"] != pytest.approx(closed_form.rho(19, alpha_0=0.1, half_life=10), rel=1e-3)
