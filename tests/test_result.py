"""What a training returns, as it is shown."""

import html

import numpy as np

from amos_ref import minimize
from amos_ref.minimizer import History, Result


def bowl(params):
    return sum(float(np.sum(a * a)) / 2 for a in params.values() if a is not None), params


def test_a_result_is_a_line_and_prints_its_history():
    params = {"w": np.full((2, 3), 0.5), "none": None, "b": np.ones(())}
    result = minimize(bowl, params, learning_rate=0.1, steps=25)
    loss = result.history.loss
    end = f"loss {loss[-1]:.6g} after 25 steps (steps); 2 leaves, 7 parameters"
    assert repr(result) == f"<Result: {end}; print() shows the history>"
    lines = str(result).splitlines()
    assert lines[0] == f"{end}, by Amos"
    rows = {int(step): number for step, number in map(str.split, lines[2:])}
    assert (min(rows), max(rows), len(rows)) == (0, 25, 11)
    assert rows == {t: f"{loss[t]:.6g}" for t in rows}
    assert html.unescape(result._repr_html_()) == f"<pre>{result}</pre>"
    assert repr(result.history) == "<History of 26 recorded steps: step, loss, error, alpha, rho, b>"


def test_a_result_of_the_closed_form_says_its_half_life():
    planned = minimize(bowl, {"w": np.ones(1)}, "closed-form", steps=30)  # a tenth of the steps, by default
    assert str(planned).splitlines()[0].endswith(", by ClosedFormAmos with a half-life of 3")
    by_cosine = minimize(bowl, {"w": np.ones(1)}, "closed-form", steps=30, p_0=0.5)
    assert str(by_cosine).splitlines()[0].endswith(", by ClosedFormAmos")


def test_a_result_of_little():
    result = minimize(bowl, {"w": np.ones(1)}, "adamw", steps=0)
    assert repr(result).startswith("<Result: loss 0.5 after 0 steps (steps); 1 leaf, 1 parameter;")
    assert str(result).splitlines()[2:] == ["       0           0.5"]
    nothing = Result({}, float("nan"), 1, "error", History([], [], [], {}, {}, {}), None, None, None)
    assert str(nothing) == "loss nan after 1 step (error); 0 leaves, 0 parameters, by NoneType"
