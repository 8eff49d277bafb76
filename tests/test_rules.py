"""eta and slot shape by name and shape: matching, values, the paper's presets."""

import math

import numpy as np
import pytest

from amos_ref import rules
from amos_ref.errors import ExpressionError, RuleError

# matching


def test_first_match_wins():
    rule = {".*kernel": 0.25, ".*special/kernel": 4.0, ".*": 0.75}
    assert rules.eta_of(rule, "special/kernel", (2,)) == 0.25
    assert rules.eta_of(rule, "special/bias", (2,)) == 0.75


def test_a_rule_matches_from_the_start_of_the_name_and_need_not_reach_its_end():
    rule = {"kernel": 0.25, "enc": 0.5, ".*": 2.0}
    assert rules.eta_of(rule, "encoder/kernel", (2,)) == 0.5
    assert rules.eta_of(rule, "decoder/kernel", (2,)) == 2.0
    assert rules.eta_of(rule, "kernel_of_something", (2,)) == 0.25


def test_unmatched_leaf_is_an_error_that_lists_leaf_and_rules():
    with pytest.raises(RuleError) as error:
        rules.eta_of({"a.*": 0.5, "b$": 2.0}, "dense/0/kernel", (3, 4))
    message = str(error.value)
    assert all(part in message for part in ("'dense/0/kernel'", "(3, 4)", "'a.*'", "'b$'"))
    assert "\n" not in message


def test_no_rules_at_all_match_nothing():
    with pytest.raises(RuleError, match="rules are none"):
        rules.slot_shape_of({}, "w", (3,))


@pytest.mark.parametrize(
    ("kind", "rule", "words"),
    [
        ("slot_shape", "row", "'row' is not allowed; .*, len; a word can be 'tensor' or 'element'$"),
        ("eta", "start", "'start' is not allowed; .*, len; a word can be 'init'$"),
        ("sigma", "start", "'start' is not allowed; .*, len; a word can be 'init'$"),
        ("eta", "row + 1", "'row' is not allowed; .*, len$"),
        ("extra_l2", "start", "'start' is not allowed; .*, len$"),
    ],
)
def test_a_word_that_is_none_is_told_those_that_are(kind, rule, words):
    with pytest.raises(ExpressionError, match=words):
        rules.resolve(rule, kind, "w", (2,))


@pytest.mark.parametrize("pattern", ["(", "*", 3, None])
def test_what_is_no_regex_is_named(pattern):
    with pytest.raises(RuleError) as error:
        rules.eta_of({pattern: 0.5}, "w", (2,))
    assert repr(pattern) in str(error.value)


def test_callables_get_name_and_shape_also_from_a_mapping():
    def rule(name, shape):
        return len(name) / shape[0]

    assert rules.eta_of(rule, "abc", (4,)) == 0.75
    assert rules.eta_of({"a": rule}, "abc", (4,)) == 0.75
    assert rules.slot_shape_of(lambda name, shape: "element", "abc", (4, 2)) == (4, 2)


def test_failing_callable_is_a_rule_error_with_its_reason():
    def rule(name, shape):
        raise KeyError("nothing for " + name)

    with pytest.raises(RuleError, match=r"'w/0'.*KeyError.*nothing for w/0"):
        rules.eta_of(rule, "w/0", (4,))


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf, None, True, "tensor", (1.0,), 1j, [2.0], np.ones(2)])
def test_eta_must_be_a_number_above_0(value):
    with pytest.raises(RuleError, match="eta of leaf 'w'"):
        rules.eta_of({"w": value}, "w", (3, 4))


@pytest.mark.parametrize(
    ("rule", "slot"),
    [
        ("tensor", ()),
        ("element", (3, 4)),
        ("(1, SHAPE[1])", (1, 4)),
        ("SHAPE[1:]", (4,)),
        ("(SHAPE[0],) + (1,) * (len(SHAPE) - 1)", (3, 1)),
        ({"w": (3, 1)}, (3, 1)),
        ({"w": [1, 4]}, (1, 4)),
        (lambda name, shape: (1,), (1,)),
        (lambda name, shape: np.array([1, 4]), (1, 4)),
        (lambda name, shape: (np.int64(3), 1), (3, 1)),
    ],
)
def test_slot_shapes(rule, slot):
    assert rules.slot_shape_of(rule, "w", (3, 4)) == slot


BAD_SLOTS = [(2,), (3,), (4, 1), (1, 3, 4), (3, 0), (-1, 4), (1.0, 4), ("3", "4"), 3, None, 0.5]


@pytest.mark.parametrize("value", [*BAD_SLOTS, "SHAPE[0]", "SHAPE[0] / 2", "1", lambda name, shape: "(3, 4)"])
def test_slot_shape_must_broadcast_to_the_leaf(value):
    with pytest.raises(RuleError) as error:
        rules.slot_shape_of({"w": value}, "w", (3, 4))
    assert "'w'" in str(error.value)
    assert "\n" not in str(error.value)


def test_error_of_a_leafs_expression_names_the_leaf():
    with pytest.raises(ExpressionError) as error:
        rules.eta_of({".*": "sqrt(1 / SHAPE[1])"}, "dense/bias", (3,))
    assert all(part in str(error.value) for part in ("eta", "'dense/bias'", "sqrt(1 / SHAPE[1])", "(3,)"))


# presets, against the table of the algorithm's description

FLAX = {
    "dense/bias": ((512,), 0.5, ()),
    "encoder/layer_0/relative_position_bias": ((32, 8), 0.5, ()),
    "encoder/layer_0/attention/rel_embedding": ((32, 8), 0.5, ()),
    "encoder/layer_0/LayerNorm_0/scale": ((512,), 1.0, ()),
    "batch_normalization/gamma": ((64,), 1.0, ()),
    "batch_normalization/beta": ((64,), 0.5, ()),
    "encoder/layer_0/attention/query/kernel": ((512, 256), math.sqrt(1 / 512), (1, 256)),
    "encoder/layer_0/mlp/wi/kernel": ((512, 2048), math.sqrt(1 / 512), (1, 2048)),
    "encoder/layer_0/mlp/wo/kernel": ((2048, 512), math.sqrt(2 / 2048), (1, 512)),
    "encoder/layer_0/feed_forward/Dense_1/kernel": ((2048, 512), math.sqrt(2 / 2048), (1, 512)),
    "TransformerBlock_0/MlpBlock_0/Dense_1/kernel": ((2048, 512), math.sqrt(2 / 2048), (1, 512)),
    "Dense_1/kernel": ((64, 10), math.sqrt(1 / 64), (1, 10)),
    "token_embedder/embedding": ((32000, 512), math.sqrt(2 / 512), (32000, 1)),
    "embedding/embeddings": ((1000, 16), math.sqrt(2 / 16), (1000, 1)),
    "shared/embedding": ((32128, 512), 1.0, (32128, 1)),
    "encoder/block/0/layer/0/SelfAttention/q/kernel": ((512, 384), math.sqrt(1 / (512 * 64)), (1, 384)),
    "encoder/block/0/layer/1/DenseReluDense/wo/kernel": ((2048, 512), math.sqrt(2 / 2048), (1, 512)),
    "Transformer/posembed_input/pos_embedding": ((1, 197, 768), math.sqrt(2 / 768), (1, 197, 1)),
    "encoder/Conv_0/kernel": ((5, 5, 1, 32), math.sqrt(8 / 25), (1, 1, 1, 32)),
    "embedding/kernel": ((16, 16, 3, 768), math.sqrt(8 / 768), (1, 1, 1, 768)),
    "Conv_0/kernel": ((3, 3, 64, 128), math.sqrt(2 / 576), (1, 1, 1, 128)),
    "conv1d/kernel": ((5, 64, 128), math.sqrt(2 / 320), (1, 1, 128)),
    "OptimizedLSTMCell_0/hi/kernel": ((256, 128), (2 * 128) ** -0.25, (1, 128)),
    "lstm/lstm_cell/recurrent_kernel": ((128, 512), (2 * 128) ** -0.25, (1, 512)),
}
TORCH = {
    "encoder.layers.0.self_attn.in_proj_bias": ((1536,), 0.5, ()),
    "fc/bias": ((10,), 0.5, ()),
    "lstm.bias_hh_l0": ((512,), 0.5, ()),
    "layers/0/norm1/weight": ((512,), 1.0, ()),
    "bn1.weight": ((64,), 1.0, ()),
    "transformer.h.0.ln_1.weight": ((768,), 1.0, ()),
    "bert.encoder.layer.0.output.LayerNorm.weight": ((768,), 1.0, ()),
    "fc.weight": ((10, 64), math.sqrt(1 / 64), (10, 1)),
    "subnet.weight": ((10, 64), math.sqrt(1 / 64), (10, 1)),
    "encoder.layers.0.self_attn.in_proj_weight": ((1536, 512), math.sqrt(1 / 512), (1536, 1)),
    "blocks.0.mlp.fc1.weight": ((2048, 512), math.sqrt(1 / 512), (2048, 1)),
    "blocks.0.mlp.fc2.weight": ((512, 2048), math.sqrt(2 / 2048), (512, 1)),
    "encoder.layers.0.linear2.weight": ((512, 2048), math.sqrt(2 / 2048), (512, 1)),
    "transformer.wte.weight": ((50257, 768), math.sqrt(2 / 768), (50257, 1)),
    "embeddings/word_embeddings/weight": ((30522, 768), math.sqrt(2 / 768), (30522, 1)),
    "shared.weight": ((32128, 512), 1.0, (32128, 1)),
    "encoder.block.0.layer.0.SelfAttention.q.weight": ((384, 512), math.sqrt(1 / (512 * 64)), (384, 1)),
    "encoder.block.0.layer.1.DenseReluDense.wo.weight": ((512, 2048), math.sqrt(2 / 2048), (512, 1)),
    "transformer.h.0.attn.c_attn.weight": ((768, 2304), math.sqrt(1 / 768), (1, 2304)),
    "transformer.h.1.attn.c_attn.weight": ((2304, 768), math.sqrt(1 / 768), (2304, 1)),
    "transformer.h.0.attn.c_proj.weight": ((768, 768), math.sqrt(1 / 768), (1, 768)),
    "transformer.h.0.mlp.c_fc.weight": ((768, 3072), math.sqrt(1 / 768), (1, 3072)),
    "transformer.h.0.mlp.c_proj.weight": ((3072, 768), math.sqrt(2 / 3072), (1, 768)),
    "transformer.h.1.mlp.c_proj.weight": ((768, 3072), math.sqrt(2 / 3072), (768, 1)),
    "bert.encoder.layer.0.output.dense.weight": ((768, 3072), math.sqrt(2 / 3072), (768, 1)),
    "bert.encoder.layer.0.attention.output.dense.weight": ((768, 1024), math.sqrt(1 / 1024), (768, 1)),
    "model.layers.0.mlp.down_proj.weight": ((4096, 11008), math.sqrt(2 / 11008), (4096, 1)),
    "model.decoder.layers.0.fc2.weight": ((384, 1536), math.sqrt(2 / 1536), (384, 1)),
    "vit.embeddings.patch_embeddings.projection.weight": ((768, 3, 16, 16), math.sqrt(8 / 768), (768, 1, 1, 1)),
    "vit.embeddings.cls_token": ((1, 1, 768), math.sqrt(2 / 768), (1, 1, 1)),
    "vision.embeddings.class_embedding": ((768,), math.sqrt(2 / 768), (1,)),
    "model.embed_tokens.weight": ((32000, 4096), math.sqrt(2 / 4096), (32000, 1)),
    "resnet.embedder.embedder.convolution.weight": ((64, 3, 7, 7), math.sqrt(8 / 147), (64, 1, 1, 1)),
    "net/conv1.weight": ((32, 1, 5, 5), math.sqrt(8 / 25), (32, 1, 1, 1)),
    "blocks.0.conv_dw.weight": ((32, 1, 3, 3), math.sqrt(2 / 9), (32, 1, 1, 1)),
    "net.few.weight": ((8, 3), math.sqrt(1 / 3), (8, 1)),
    "conv1.weight": ((64, 32, 5, 3), math.sqrt(2 / 480), (64, 1, 1, 1)),
    "lstm.weight_ih_l0": ((512, 32), (2 * 128) ** -0.25, (512, 1)),
    "lstm.weight_hh_l1_reverse": ((512, 128), (2 * 128) ** -0.25, (512, 1)),
}
PRESETS = [(rules.PAPER_FLAX, *row) for row in FLAX.items()] + [(rules.PAPER_TORCH, *row) for row in TORCH.items()]


@pytest.mark.parametrize(("preset", "name", "row"), PRESETS, ids=[name for _, name, _ in PRESETS])
def test_presets_follow_the_table(preset, name, row):
    shape, eta, slot = row
    assert rules.eta_of(preset, name, shape) == pytest.approx(eta, rel=1e-15, abs=0)
    assert rules.slot_shape_of(preset, name, shape) == slot


@pytest.mark.parametrize("preset", [rules.PAPER_FLAX, rules.PAPER_TORCH])
def test_presets_refuse_names_that_they_do_not_know(preset):
    with pytest.raises(RuleError, match="'temperature'"):
        rules.eta_of(preset, "temperature", ())
