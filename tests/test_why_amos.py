"""The experiment of examples/why_amos.py: its pieces, and the page that is made of its figures."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from amos_ref import tree
from amos_ref.rules import eta_of, slot_shape_of

HERE = pathlib.Path(__file__).parent.parent
FIGURES = "docs/why_amos.json", "docs/why_amos_mnist.json"


@pytest.fixture(scope="module")
def why():
    spec = importlib.util.spec_from_file_location("why_amos", HERE / "examples" / "why_amos.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", FIGURES)
def test_the_tables_of_the_page_are_those_of_the_stored_figures(why, file):
    page = (HERE / "docs" / "why_amos.md").read_text(encoding="utf-8")
    report = json.loads((HERE / file).read_text(encoding="utf-8"))
    rows = [f"    $ python examples/why_amos.py --read {file}"]
    rows += [f"    {line}".rstrip() for line in why.describe(report).splitlines()]
    assert "\n".join(rows) + "\n" in page
    assert max(map(len, rows)) <= 84  # 80, and Markdown's indent
    report["xi"]["2.0"]["loss"][0] += 0.001
    assert why.describe(report).replace("\n", "\n    ") not in page


def test_the_loss_falls_along_the_gradient(why):
    """The slope along the gradient is its square; the loss is float32, and differences of h = 1e-3 say 1 %."""
    rng = np.random.default_rng(0)
    params, x, labels = why.start(64, rng), rng.random((32, 64), dtype=np.float32), rng.integers(0, 10, 32)
    way = why.gradient(params, x, labels)
    size = sum(float(np.sum(g.astype(np.float64) ** 2)) for g in tree.flatten(way).values())

    def loss(h):
        moved = {n: {k: a + np.float32(h / size**0.5) * way[n][k] for k, a in p.items()} for n, p in params.items()}
        return 32 * why.measure(moved, (x, labels))[0]

    assert (loss(1e-2) - loss(-1e-2)) / 2e-2 == pytest.approx(size**0.5, rel=0.01)


def test_amos_is_the_recipe(why):
    options = why.amos(250).options
    assert (options["learning_rate"], options["beta"], options["clip_value"]) == (250**-0.5, 0.98, 32**0.5)
    assert options["momentum"] is None
    found = {
        name: (round(eta_of(options["eta"], name, shape), 6), slot_shape_of(options["slot_shape"], name, shape))
        for name, shape in (("Dense_0/kernel", (784, 256)), ("Dense_1/kernel", (256, 10)), ("Dense_1/bias", (10,)))
    }
    assert found == {
        "Dense_0/kernel": (round((2 / 784) ** 0.5, 6), (1, 256)),
        "Dense_1/kernel": (0.0625, ()),
        "Dense_1/bias": (0.5, ()),
    }
    wrong = why.amos(250, xi=2.0, eta=4.0).options
    assert wrong["learning_rate"] == 2 * options["learning_rate"]
    assert eta_of(wrong["eta"], "Dense_1/kernel", (256, 10)) == 0.25


def test_plans_rise_and_end(why):
    plan = why.amos(10, warm_up=1, end=9).options["learning_rate"]
    assert [round(plan(t) * 10**0.5, 6) for t in (1, 5, 46, 90, 91, 200)] == [0.1, 0.5, 0.5, round(1 / 90, 6), 0, 0]
    linear = why.adamw(10, rate=0.5, decay=0.1, steps=20).options["learning_rate"]
    assert [linear(t) for t in (1, 11, 21, 99)] == [0.5, 0.25, 0, 0]


def test_a_seed_trains_the_same_again_and_another_seed_another(why):
    pytest.importorskip("sklearn")
    one, again, other = (why.train((("digits", 4), "amos", {}, seed, 2)) for seed in (0, 0, 1))
    assert one == again != other
    assert one[1] == 2 * (256 + 3)
    (images, labels), held_out = why.load("digits", 4)
    assert (len(labels), len(held_out[1])) == (352, 389)
    assert not {row.tobytes() for row in images} & {row.tobytes() for row in held_out[0]}
