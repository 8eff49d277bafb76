"""What an entry is called, "recipe" or "analogy" or "guess": nothing is called certain that is not."""

import pytest

import amos_ref
from amos_ref.choosing import kinds, model, weights


@pytest.mark.parametrize(
    ("shapes", "options", "slot", "source"),
    [
        ({"gc1.weight": (64, 64), "gc1.bias": (64,)}, {}, (1, 64), "guess"),
        ({"gc1.weight": (64, 64)}, {"layout": "torch"}, (64, 1), "recipe"),
        ({"gc1.weight": (64, 64), "gc2.weight": (64, 7), "gc2.bias": (7,)}, {}, (1, 64), "recipe"),
        ({"conv1.weight": (64, 64), "conv1.bias": (64,)}, {}, (1, 64), "guess"),
        ({"conv1.weight": (64, 64), "fc.weight": (7, 64), "fc.bias": (7,)}, {}, (1, 64), "guess"),
        ({"conv1.lin.weight": (64, 64)}, {}, (64, 1), "recipe"),  # torch's Linear
        ({"gcn_conv/kernel": (64, 64)}, {}, (1, 64), "recipe"),
        ({"fc1.weight": (64, 64), "fc1.bias": (64,)}, {}, (64, 1), "recipe"),
        ({"W": (8, 8), "b": (8,)}, {}, (1, 8), "guess"),
        ({"W1": (8, 8), "W2": (8, 3), "b2": (3,)}, {}, (1, 8), "recipe"),
        ({"mlp/~/linear_0/w": (8, 8), "mlp/~/linear_0/b": (8,)}, {}, (1, 8), "recipe"),
        ({"reader.weight": (9, 8)}, {}, (9, 1), "guess"),  # a layer, or a table of vectors
        ({"reader.weight": (9, 8), "reader.bias": (9,)}, {}, (9, 1), "recipe"),
        ({"reader/kernel": (9, 8)}, {}, (1, 8), "recipe"),
        ({"q.lora_A.default.weight": (4, 8)}, {}, (4, 1), "analogy"),
    ],
)
def test_axes_that_nothing_tells_are_a_guess(shapes, options, slot, source):
    entry = next(iter(amos_ref.choose(shapes, **options).values()))
    assert (entry.slot_shape, entry.source) == (slot, source)


def test_a_version_that_takes_torch_for_certain_is_caught(monkeypatch):
    monkeypatch.setattr(model, "GRAPH_WORDS", frozenset())
    with pytest.raises(AssertionError):
        test_axes_that_nothing_tells_are_a_guess({"gc1.weight": (64, 64), "gc1.bias": (64,)}, {}, (1, 64), "guess")


FACTORS = {"user_factors": (5000, 20), "item_factors": (100, 20)}


@pytest.mark.parametrize("ending", ["", ".weight"])
def test_factors_are_vectors_that_are_looked_up(ending):
    choice = amos_ref.choose({f"{name}{ending}": shape for name, shape in FACTORS.items()})
    assert [(entry.slot_shape, entry.source) for entry in choice.values()] == [
        ((5000, 1), "analogy"),
        ((100, 1), "analogy"),
    ]
    assert {entry.eta for entry in choice.values()} == {0.1**0.5}


def test_tables_of_users_and_of_items_are_likely():
    choice = amos_ref.choose({"user.weight": (50, 20), "item.weight": (9, 20), "user_fc.weight": (50, 20)})
    assert [(entry.rule, entry.source) for entry in choice.values()] == [
        ("embedding", "guess"),
        ("embedding", "guess"),
        ("linear", "recipe"),
    ]


def test_factors_that_are_taken_for_a_layer_are_caught(monkeypatch):
    kept = tuple(kind for kind in kinds.LEAF_KINDS if kind is not kinds.name_embedding)
    monkeypatch.setattr(kinds, "LEAF_KINDS", kept)
    monkeypatch.setattr(weights, "_may_be_a_table", lambda leaf, model: False)
    with pytest.raises(AssertionError):
        test_factors_are_vectors_that_are_looked_up(".weight")


def test_tokens_and_positions_are_none_of_the_authors_but_tables_of_positions_are():
    shapes = {"cls_token": (1, 1, 32), "pos_embed": (1, 197, 32), "embed_positions.weight": (197, 32)}
    assert [entry.source for entry in amos_ref.choose(shapes).values()] == ["analogy", "analogy", "recipe"]


def test_the_authors_model_with_relative_positions_has_one_slot_a_position():
    entry = amos_ref.choose({"relpos_embed": (255, 768), "layer_norm.scale": (768,)})["relpos_embed"]
    assert (entry.eta, entry.slot_shape, entry.source) == (0.5, (255, 1), "recipe")


def biased(layers):
    """Return the shapes of layers of torch with biases."""
    return {f"{n}.{r}": s for n, shape in layers.items() for r, s in (("weight", shape), ("bias", shape[:1]))}


VAE = {"fc1": (400, 784), "fc21": (20, 400), "fc22": (20, 400), "fc3": (400, 20), "fc4": (784, 400)}


@pytest.mark.parametrize(
    ("layers", "name", "found"),
    [
        (VAE, "fc21", ("linear", "guess")),  # number 21, or the first half of number 2
        ({"expand": (64, 16), "shrink": (16, 64)}, "shrink", ("linear", "guess")),
        ({"make": (16, 64), "use": (64, 16)}, "make", ("linear", "guess")),
        ({"fc1": (64, 16), "fc2": (16, 64)}, "fc2", ("second layer", "recipe")),
        ({"fc1": (16, 64), "fc2": (8, 16), "fc3": (16, 8)}, "fc2", ("linear", "recipe")),
        ({"net.2": (64, 16), "net.10": (16, 64)}, "net.10", ("second layer", "recipe")),
        ({"net.2": (16, 64), "net.10": (64, 16)}, "net.2", ("linear", "recipe")),
    ],
)
def test_a_second_layer_by_the_order_of_sorted_names_alone_is_a_guess(layers, name, found):
    entry = amos_ref.choose(dict(sorted(biased(layers).items())))[f"{name}.weight"]
    assert (entry.rule, entry.source) == found


def test_in_the_order_of_the_model_it_is_known():
    assert amos_ref.choose(biased(VAE)).named("guess") == []
    entry = amos_ref.choose(biased({"grow": (64, 16), "contract": (16, 64)}))["contract.weight"]
    assert (entry.rule, entry.source) == ("second layer", "recipe")


def test_an_order_that_is_taken_for_the_models_is_caught(monkeypatch):
    monkeypatch.setattr(model, "_tell_order", lambda name, other: True)
    with pytest.raises(AssertionError):
        test_a_second_layer_by_the_order_of_sorted_names_alone_is_a_guess(VAE, "fc21", ("linear", "guess"))


@pytest.mark.parametrize(
    ("layer", "shape", "found"),
    [
        ("moe.input_linear", (8, 96, 64), ("linear", (8, 96, 1), "analogy")),
        ("moe.input_linear", (8, 64, 64), ("linear", (8, 64, 1), "guess")),  # square: the axes are not known
        ("moe.output_linear", (8, 64, 48), ("second layer", (8, 64, 1), "analogy")),
        ("smoetic.output_linear", (8, 64, 48), ("convolution", (8, 1, 1), "guess")),
    ],
)
def test_a_mixture_of_experts_has_experts(layer, shape, found):
    entry = amos_ref.choose({f"{layer}.weight": shape, "norm.weight": (64,)})[f"{layer}.weight"]
    assert (entry.rule, entry.slot_shape, entry.source) == found


def test_experts_may_have_their_weights_normalised():
    choice = amos_ref.choose({"experts.0.weight_g": (8, 1, 1), "experts.0.weight_v": (8, 4, 16)})
    assert [entry.rule for entry in choice.values()] == ["weight norm", "linear"]
    assert choice["experts.0.weight_g"].eta == choice["experts.0.weight_v"].eta * 64**0.5


@pytest.mark.parametrize(
    ("layer", "shapes", "rules"),
    [
        ("dense", [(784, 64), (64,)], ["linear", "bias"]),
        ("multi_head_attention/output_dense", [(2, 4, 6), (6,)], ["linear", "bias"]),
        ("conv2d_transpose", [(3, 3, 4, 4), (4,)], ["convolution", "bias"]),
        ("conv2d_transpose", [(3, 3, 4, 9), (4,)], ["unknown", "unknown"]),  # no axis in the place of the outputs
        ("layer_normalization", [(32,), (32,)], ["unknown", "unknown"]),
        ("lstm/cell", [(8, 24), (6, 24), (24,)], ["unknown"] * 3),
        ("embedding", [(50, 8)], ["unknown"]),
    ],
)
def test_a_kernel_and_its_bias_are_told_apart_by_shape_where_keras_numbers_them(layer, shapes, rules):
    choice = amos_ref.choose({f"layers/{layer}/vars/{i}": shape for i, shape in enumerate(shapes)})
    assert [entry.rule for entry in choice.values()] == rules


def test_names_of_keras_that_are_not_read_are_caught(monkeypatch):
    monkeypatch.setattr(model, "_name_variable", lambda full, shapes: full)
    with pytest.raises(AssertionError):
        test_a_kernel_and_its_bias_are_told_apart_by_shape_where_keras_numbers_them(
            "dense", [(784, 64), (64,)], ["linear", "bias"]
        )
