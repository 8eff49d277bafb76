"""Layers in one array: each of them is a leaf of its own, with slots of its own."""

import math

import pytest

import amos_ref
from amos_ref.choosing import stacks
from amos_ref.choosing.shapes import read_tree

ONE = {
    "mlp": {"wi": {"kernel": (64, 256), "bias": (256,)}, "wo": {"kernel": (256, 64), "bias": (64,)}},
    "attention": {
        "query": {"kernel": (64, 4, 16), "bias": (4, 16)},
        "out": {"kernel": (4, 16, 64), "bias": (64,)},
    },
    "norm": {"scale": (64,), "bias": (64,)},
    "logit_scale": (),
}


def stacked(tree, axis, *layers):
    """Return the shapes of a tree whose leaves hold several layers along an axis."""
    if isinstance(tree, dict):
        return {name: stacked(part, axis, *layers) for name, part in tree.items()}
    return tree[:axis] + layers + tree[axis:]


def around(blocks):
    return {"embed": {"embedding": (1000, 64)}, "blocks": blocks, "norm": {"scale": (64,)}}


def differences(blocks, axis, *layers):
    """Return the leaves for which many layers in one array have anything else than each of them alone."""
    alone = amos_ref.choose(around(blocks))
    shapes, wrong = around(stacked(blocks, axis, *layers)), []
    for name, entry in amos_ref.choose(shapes).items():
        want, slot = alone[name], alone[name].slot_shape
        if name.startswith("blocks"):
            full = (1,) * (len(want.shape) - len(slot)) + slot
            slot = (*full[:axis], *layers, *full[axis:])
        if (entry.rule, entry.eta, entry.slot_shape, entry.source) != (want.rule, want.eta, slot, want.source):
            wrong.append(f"{name}: {entry} but should be {want} with {slot}")
    return wrong


def without(tree, *names):
    return {n: without(part, *names) if isinstance(part, dict) else part for n, part in tree.items() if n not in names}


@pytest.mark.parametrize("layers", [(12,), (3, 4)])
def test_layers_along_the_first_axis_are_as_each_alone(layers):
    assert differences(ONE, 0, *layers) == []


def test_layers_along_the_second_axis_are_as_each_alone():
    assert differences(without(ONE, "logit_scale"), 1, 12) == []


def test_layers_without_biases_are_told_by_the_gains_of_their_norms():
    assert differences(without(ONE, "bias", "logit_scale"), 0, 12) == []


def test_one_slot_for_all_layers_is_caught(monkeypatch):
    monkeypatch.setattr(stacks, "_find", lambda shapes, names: {})
    assert any("norm/scale" in line for line in differences(ONE, 0, 12))


def test_a_reason_says_how_many_there_are():
    choice = amos_ref.choose(around(stacked(ONE, 0, 3, 4)))
    assert (
        choice["blocks/norm/scale"].why == "the gain of a norm; 3 times 4 layers in one array, with slots of their own"
    )
    expert = {"experts": {"wi": {"kernel": (8, 64, 256), "bias": (8, 256)}}}
    assert amos_ref.choose(expert)["experts/wi/bias"].why == "a bias; 8 experts in one array, with slots of their own"


def test_models_trained_side_by_side_are_layers_too():
    shapes = {"Dense_0": {"kernel": (5, 20, 64), "bias": (5, 64)}, "Dense_1": {"kernel": (5, 64, 3), "bias": (5, 3)}}
    choice = amos_ref.choose(shapes)
    assert [(entry.eta, entry.slot_shape) for entry in choice.values()] == [
        (0.5, (5, 1)),
        (math.sqrt(1 / 20), (5, 1, 64)),
        (0.5, (5, 1)),
        (math.sqrt(1 / 64), (5, 1, 3)),
    ]


def test_a_bias_says_it_of_what_is_around_its_kernel():
    shapes = {"w1": (12, 64, 256), "b1": (12, 256), "norm1/scale": (12, 64), "wte/embedding": (1000, 64)}
    choice = amos_ref.choose(shapes | {"other_norm/scale": (7, 64)})
    assert choice["norm1/scale"].slot_shape == (12, 1)
    assert choice["other_norm/scale"].source == "guess"
    assert choice["wte/embedding"].slot_shape == (1000, 1)


@pytest.mark.parametrize("name", ["norm/scale", "norm/bias", "ln.weight", "x/bias"])
def test_without_evidence_it_is_a_guess_that_says_what_to_give(name):
    shapes = {name: (12, 64)} | ({"ln.bias": (12, 64)} if name == "ln.weight" else {})
    entry = amos_ref.choose(shapes)[name]
    assert (entry.slot_shape, entry.source) == ((), "guess")
    line = f"overrides={{{name!r}: (None, (12, 1))}}"
    assert line in entry.why
    given = amos_ref.choose(shapes, overrides={name: (None, (12, 1))})[name]
    assert (given.eta, given.slot_shape) == (entry.eta, (12, 1))


NOT_STACKED = {
    "heads of attention": {"attn": {"W_Q": (12, 64, 16), "b_Q": (12, 16), "W_O": (12, 16, 64), "b_O": (64,)}},
    "heads alone": {"attn": {"W_Q": (12, 64, 16), "b_Q": (12, 16), "W_O": (12, 16, 64)}},
    "a convolution and a layer": {"conv.weight": (16, 8, 3), "fc.weight": (16, 32)},
    "a router and experts": {
        "mlp.router.weight": (32, 20),
        "mlp.experts.wi": (32, 20, 50),
        "mlp.experts.wi_bias": (32, 50),
    },
    "a convolution and its norm": {"conv.weight": (16, 8, 3), "norm.weight": (16,), "norm.bias": (16,)},
    "one layer": {"wi": {"kernel": (1, 20, 50), "bias": (1, 50)}},
    "a norm of many axes": {"norm.weight": (8, 16, 16), "norm.bias": (8, 16, 16), "fc.weight": (10, 8)},
}


@pytest.mark.parametrize("model", NOT_STACKED)
def test_what_only_looks_like_it_is_left_as_it_is(model):
    shapes = {name: leaf.shape for name, leaf in read_tree(NOT_STACKED[model]).items()}
    _, taken = stacks.unstack(shapes)
    assert [name for name in taken if "experts" not in name] == []
