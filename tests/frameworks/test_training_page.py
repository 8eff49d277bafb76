"""The snippets of docs/training.md for torch and JAX run as they stand, and learn."""

import pathlib
import re

import numpy as np

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "training.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(code):
    names: dict = {"__name__": "snippet"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_there_are_three():
    assert [("torch" in code, "pure_callback" in code) for code in SNIPPETS] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_torch_learns():
    losses = run(SNIPPETS[0])["losses"]
    assert np.mean(losses[-16:]) < np.mean(losses[:16]) / 5


def test_a_step_that_goes_uphill_is_seen():
    losses = run(SNIPPETS[0].replace("p.grad for", "-p.grad for"))["losses"]
    assert not np.mean(losses[-16:]) < np.mean(losses[:16]) / 5


def test_jax_learns():
    losses = run(SNIPPETS[1])["losses"]
    assert losses[-1] < losses[0] / 5


def test_the_callback_inside_jit_takes_the_steps_of_the_host():
    import jax

    names = run(SNIPPETS[2])
    params, state = {"w": np.zeros(3, np.float32)}, names["opt"].init({"w": np.zeros(3, np.float32)})
    for _ in range(200):
        state = names["opt"].step(params, {"w": 2 * (params["w"] - np.float32(1))}, state)
    assert isinstance(names["params"]["w"], jax.Array)
    assert int(names["carry"][1]) == 200
    assert np.asarray(names["params"]["w"]).tobytes() == params["w"].tobytes()
    assert abs(params["w"] - 1).max() < 0.1
