"""choose, against tables that are written here from the authors' recipes (docs/choosing.md), for ten real models.

The models are names and shapes, of each kind of block the first two. A row is: names, eta, and of which axes every
index has a slot of its own (None: one slot for all).
"""

import json
import math
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from helpers import TESTS

import amos_ref
from amos_ref.choosing import convolutions, kinds, model, weights
from amos_ref.errors import AmosError, DtypeError, HyperParameterError, RuleError, ShapeError, TreeError

BIAS, GAIN = (r".*bias", 0.5, None), (r".*(norm|ln_)\w*\.weight", 1.0, None)


def dense(names, fan_in, gain=1, axis=0):
    return names, math.sqrt(gain / fan_in), (axis,)


def transformer(h, first, second, attention, mlp=4):
    """Rows of a block: into the MLP, out of it, and the layers of attention, all (out, in)."""
    return [dense(second, mlp * h, 2), dense(first, h), dense(attention, h)]


TABLES = {
    "bert-base": [
        (r".*\.bias", 0.5, None),
        (r".*LayerNorm\.weight", 1.0, None),
        dense(r".*_embeddings\.weight", 768, 2),
        dense(r".*(attention\.(self\.(query|key|value)|output\.dense)|transform\.dense)\.weight", 768),
        dense(r".*layer\.\d+\.intermediate\.dense\.weight", 768),
        dense(r".*layer\.\d+\.output\.dense\.weight", 3072, 2),
    ],
    "clip": [
        (r"logit_scale", 1.0, None),
        (r".*\.bias", 0.5, None),
        (r".*norm\d?\.weight", 1.0, None),
        dense(r"text.*_embedding\.weight", 512, 2),
        dense(r"vision.*position_embedding\.weight", 768, 2),
        (r".*class_embedding", math.sqrt(2 / 768), ()),
        dense(r".*patch_embedding\.weight", 3 * 32 * 32, 8),
        *transformer(512, r"text.*fc1\.weight", r"text.*fc2\.weight", r"text.*(proj|projection)\.weight"),
        *transformer(768, r"vis.*fc1\.weight", r"vis.*fc2\.weight", r"vis.*(proj|projection)\.weight"),
    ],
    "convnext-tiny": [
        (r".*bias", 0.5, None),
        (r".*layer_scale_parameter", 1.0, None),
        (r".*(layernorm|downsampling_layer\.0)\.weight", 1.0, None),
        dense(r".*patch_embeddings\.weight", 3 * 4 * 4, 8),
        dense(r".*dwconv\.weight", 7 * 7, 2),
        *[dense(rf".*stages\.{i}.*downsampling_layer\.1\.weight", 4 * 96 * 2 ** (i - 1), 2) for i in (1, 2, 3)],
        *[dense(rf".*stages\.{i}.*pwconv1\.weight", 96 * 2**i) for i in range(4)],
        *[dense(rf".*stages\.{i}.*pwconv2\.weight", 4 * 96 * 2**i, 2) for i in range(4)],
        dense(r"classifier\.weight", 768),
    ],
    "gpt2": [
        (r".*\.bias", 0.5, None),
        (r".*ln_\w\.weight", 1.0, None),
        dense(r".*w[tp]e\.weight", 768, 2),
        dense(r".*(c_attn|attn\.c_proj|c_fc)\.weight", 768, axis=1),
        dense(r".*mlp\.c_proj\.weight", 3072, 2, axis=1),
    ],
    "llama-7b": [
        (r".*norm\.weight", 1.0, None),
        dense(r".*embed_tokens\.weight", 4096, 2),
        dense(r".*([qkvo]_proj|gate_proj|up_proj|lm_head)\.weight", 4096),
        dense(r".*down_proj\.weight", 11008, 2),
    ],
    "mamba-130m": [
        (r".*\.bias", 0.5, None),
        (r".*(norm|norm_f)\.weight|.*\.(D|A_log)", 1.0, None),
        dense(r".*embeddings\.weight", 768, 2),
        dense(r".*conv1d\.weight", 4, 2),
        dense(r".*in_proj\.weight", 768),
        dense(r".*(x_proj|out_proj)\.weight", 1536),
        dense(r".*dt_proj\.weight", 48),
    ],
    "resnet-50": [
        (r".*bias", 0.5, None),
        (r".*normalization\.weight", 1.0, None),
        dense(r".*embedder\.convolution\.weight", 3 * 7 * 7, 8),
        (r".*convolution\.weight", lambda shape: math.sqrt(2 / math.prod(shape[1:])), (0,)),
        dense(r"classifier\.1\.weight", 2048),
    ],
    "t5-small": [
        (r".*layer_norm\.weight", 1.0, None),
        (r"shared\.weight", 1.0, (0,)),
        (r".*relative_attention_bias\.weight", 0.5, None),
        dense(r".*Attention\.q\.weight", 512 * 64),
        dense(r".*(Attention\.[kvo]|DenseReluDense\.wi)\.weight", 512),
        dense(r".*DenseReluDense\.wo\.weight", 2048, 2),
    ],
    "vit-base": [
        (r".*bias", 0.5, None),
        (r".*layernorm\w*\.weight", 1.0, None),
        (r".*cls_token", math.sqrt(2 / 768), (0, 1)),
        (r".*position_embeddings", math.sqrt(2 / 768), (0, 1)),
        dense(r".*patch_embeddings.projection\.weight", 3 * 16 * 16, 8),
        *transformer(768, r".*fc1\.weight", r".*fc2\.weight", r".*([qkvo]_proj|classifier)\.weight"),
    ],
    "whisper-tiny": [
        (r".*bias", 0.5, None),
        (r".*layer_norm\.weight", 1.0, None),
        dense(r".*embed_\w+\.weight", 384, 2),
        dense(r".*conv1\.weight", 80 * 3, 8),
        dense(r".*conv2\.weight", 384 * 3, 2),
        *transformer(384, r".*fc1\.weight", r".*fc2\.weight", r".*proj\.weight"),
    ],
}


def read(name):
    return json.loads((TESTS / "models" / f"{name}.json").read_text(encoding="utf-8"))["parameters"]


def differences(table, shapes, **options):
    """Return the leaves of which choose says anything else than the table, whose last row that fits a name holds."""
    wrong = []
    for name, entry in amos_ref.choose(shapes, **options).items():
        shape = entry.shape
        _, eta, kept = next(row for row in table if re.fullmatch(row[0], name))
        eta = eta(shape) if callable(eta) else eta
        slot = () if kept is None else tuple(n if i in kept else 1 for i, n in enumerate(shape))
        if entry.eta != pytest.approx(eta, rel=1e-14, abs=0) or entry.slot_shape != slot:
            wrong.append(f"{name} {shape}: {entry} but should be {eta} {slot}")
    return wrong


@pytest.mark.parametrize("name", TABLES)
def test_real_models_have_what_the_recipes_say(name):
    shapes = read(name)
    assert differences(TABLES[name], shapes) == []
    assert amos_ref.choose(shapes).named("unknown", "buffer") == []


def test_the_tables_do_not_follow_each_other():
    assert {path.stem for path in (TESTS / "models").glob("*.json")} == set(TABLES)


# wrong versions, each of which the tables catch


def always(answer):
    return lambda *args: answer


def take_for_second(leaf, axes, model):
    return weights.scaled("second layer", 2, axes, leaf, "the second layer of an MLP")


WRONG = {
    "biases are not looked at": ("gpt2", model.Model, "_splits", always([])),
    "no second layers": ("whisper-tiny", weights, "_second", always(None)),
    "attention is an MLP": ("mamba-130m", weights, "_second", take_for_second),
    "no first convolution": ("resnet-50", convolutions, "convolution", None),
    "heads are not known": ("t5-small", model.Model, "_recognise_family", always("")),
    "tokens are unknown": ("vit-base", kinds, "name_token", always(None)),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_version_is_caught(fault, monkeypatch):
    name, place, attribute, wrong = WRONG[fault]
    if wrong is None:
        old = convolutions._find
        monkeypatch.setattr(convolutions, "_find", lambda m: {k: v._replace(kind="") for k, v in old(m).items()})
    elif attribute.startswith("name_"):
        kept = tuple(kind for kind in kinds.LEAF_KINDS if kind.__name__ != attribute)
        monkeypatch.setattr(kinds, "LEAF_KINDS", kept)
    else:
        monkeypatch.setattr(place, attribute, wrong)
    assert differences(TABLES[name], read(name)) != []


# layouts, neighbours, names


def rows(shapes, **options):
    return {n: (round(e.eta, 6), e.slot_shape) for n, e in amos_ref.choose(shapes, **options).items()}


def test_a_bias_says_which_axis_has_the_outputs():
    assert rows({"a.weight": (6, 4), "a.bias": (6,)})["a.weight"] == (0.5, (6, 1))
    assert rows({"a.weight": (6, 4), "a.bias": (4,)})["a.weight"] == (round(6**-0.5, 6), (1, 4))
    assert rows({"a/kernel": (6, 4), "a/bias": (4,)})["a/kernel"] == (round(6**-0.5, 6), (1, 4))


def test_a_square_weight_lies_as_its_relatives_do_and_then_as_layout_says():
    shapes = {"a.proj.weight": (4, 4), "a.proj.bias": (4,)}
    assert rows(shapes)["a.proj.weight"] == (0.5, (4, 1))
    assert rows(shapes, layout="flax")["a.proj.weight"] == (0.5, (1, 4))
    assert rows(shapes | {"b.proj.weight": (4, 9), "b.proj.bias": (9,)})["a.proj.weight"] == (0.5, (1, 4))


def test_layers_in_the_way_of_numpy():
    assert rows({"W1": (64, 32), "b1": (32,), "W2": (32, 10), "b2": (10,)}) == {
        "W1": (0.125, (1, 32)),
        "b1": (0.5, ()),
        "W2": (round(32**-0.5, 6), (1, 10)),
        "b2": (0.5, ()),
    }


def test_the_authors_mnist_model():
    shapes = {
        "Conv_0": {"kernel": (5, 5, 1, 32), "bias": (32,)},
        "Conv_1": {"kernel": (5, 5, 32, 64), "bias": (64,)},
        "Dense_0": {"kernel": (3136, 1024), "bias": (1024,)},
        "Dense_1": {"kernel": (1024, 10), "bias": (10,)},
    }
    assert rows(shapes) == {
        "Conv_0/kernel": (round(math.sqrt(8 / 25), 6), (1, 1, 1, 32)),
        "Conv_0/bias": (0.5, ()),
        "Conv_1/kernel": (round(math.sqrt(2 / 800), 6), (1, 1, 1, 64)),
        "Conv_1/bias": (0.5, ()),
        "Dense_0/kernel": (round(math.sqrt(2 / 3136), 6), (1, 1024)),
        "Dense_0/bias": (0.5, ()),
        "Dense_1/kernel": (round(math.sqrt(1 / 1024), 6), ()),
        "Dense_1/bias": (0.5, ()),
    }


def test_the_authors_recurrent_model():
    shapes = {"embed.weight": (10000, 48), "lstm.weight_ih_l0": (128, 48), "lstm.weight_hh_l0": (128, 32)}
    assert rows(shapes) == {
        "embed.weight": (round(48**-0.25, 6), (10000, 1)),
        "lstm.weight_ih_l0": (round(64**-0.25, 6), (128, 1)),
        "lstm.weight_hh_l0": (round(64**-0.25, 6), (128, 1)),
    }


@pytest.mark.parametrize(
    ("shape", "bias", "gain", "fan_in", "slot"),
    [
        ((64, 32, 3), 64, 2, 96, (64, 1, 1)),  # 1-d
        ((64, 32, 3, 3, 3), 64, 2, 864, (64, 1, 1, 1, 1)),  # 3-d
        ((64, 8, 3, 3), 64, 2, 72, (64, 1, 1, 1)),  # in 4 groups
        ((32, 16, 2, 2), 16, 2, 128, (1, 16, 1, 1)),  # transposed
        ((32, 16, 2, 2), 64, 2, 128, (1, 16, 1, 1)),  # transposed, in 4 groups
    ],
)
def test_convolutions(shape, bias, gain, fan_in, slot):
    shapes = {"a.weight": (8, 3, 3, 3), "b.weight": shape, "b.bias": (bias,)}
    assert rows(shapes)["b.weight"] == (round(math.sqrt(gain / fan_in), 6), slot)


# what is not known, and overrides


def test_an_unknown_leaf_is_an_entry_that_says_what_to_add_and_an_error_when_it_is_used():
    choice = amos_ref.choose({"strange": (3, 4, 5), "fc.weight": (3, 4)})
    assert choice["strange"].source == "unknown"
    assert choice["strange"].eta is None
    assert choice.rows()[0][0] == "strange"
    line = "overrides={'strange': 0.5}"
    assert line in str(choice)
    with pytest.raises(RuleError, match="strange") as error:
        amos_ref.Amos(0.1, eta=choice, slot_shape=choice).init(
            {"strange": np.ones((3, 4, 5)), "fc.weight": np.ones((3, 4))}
        )
    assert line in str(error.value)


def test_overrides_by_name_by_regex_and_with_slots():
    shapes = {"a.weight": (3, 4), "a.weight_g": (3, 1), "strange": (2, 2, 2)}
    choice = amos_ref.choose(shapes, overrides={"a.weight": 0.25, ".*_g": (2.0, "element"), "str": "1/SHAPE[0]"})
    assert [(e.eta, e.slot_shape, e.source) for e in choice.values()] == [
        (0.25, (3, 1), "given"),
        (2.0, (3, 1), "given"),
        (0.5, (), "given"),
    ]
    assert amos_ref.choose(shapes, overrides={"a.weight": (None, "tensor")})["a.weight"][2:4] == (0.5, ())


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (HyperParameterError, "family is 'bret'; it must be None or one of bert", {"family": "bret"}),
        (HyperParameterError, "layout is 3; it must be None or one of torch", {"layout": 3}),
        (HyperParameterError, "overrides is 0.5; it must be a mapping", {"overrides": 0.5}),
        (RuleError, "overrides: no leaf matches 'fc3'", {"overrides": {"fc3": 0.5}}),
        (RuleError, "eta of leaf 'fc.weight' is -1.0", {"overrides": {"fc.weight": -1.0}}),
        (RuleError, "slot_shape of leaf 'fc.weight' is", {"overrides": {"fc.weight": (0.5, (2, 2))}}),
        (RuleError, "is not a regular expression", {"overrides": {"(": 0.5}}),
    ],
)
def test_bad_options_are_named(error, words, options):
    with pytest.raises(error, match=re.escape(words)):
        amos_ref.choose({"fc.weight": (3, 4)}, **options)


def nested(depth):
    tree = {"a": (3, 4)}
    for _ in range(depth):
        tree = [tree]
    return tree


@pytest.mark.parametrize(
    ("error", "params"),
    [
        (TreeError, {}),
        (TreeError, {"a": None}),
        (TreeError, {"a": {"b": (3,)}, "a/b": (4,)}),
        (TreeError, nested(10**4)),
        (DtypeError, {"a": 0.5}),
        (DtypeError, {"a": "weight"}),
        (DtypeError, {"a": (3, 4.0)}),
        (DtypeError, 7),
        (ShapeError, {"a": (3, -4)}),
        (ShapeError, {"a": (1,) * 65}),
        (DtypeError, {"a": np.ndarray}),
    ],
)
def test_bad_trees_are_named(error, params):
    with pytest.raises(error) as caught:
        amos_ref.choose(params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ("model.safetensors", "`amos-ref choose FILE` reads a file"),
        (pathlib.Path("model.npz"), "`amos-ref choose FILE` reads a file"),
        (iter([("w", (3, 4))]), "give a mapping"),
    ],
)
def test_what_has_no_names_is_told_what_to_give(params, words):
    with pytest.raises(TreeError) as caught:
        amos_ref.choose(params)
    assert words in str(caught.value)


def test_odd_leaves_have_an_answer():
    shapes = {
        "": (3, 4),
        "a.weight": (0, 4),
        "b.weight": (4, 0),
        "c.bias": (),
        "\n.weight": (2, 2),
        "d/kernel": (1, 1, 1, 1),
    }
    choice = amos_ref.choose(shapes)
    assert list(choice) == list(shapes)
    assert all(entry.eta is None or 0 < entry.eta < math.inf for entry in choice.values())
    assert "\n.weight" not in str(choice)


def test_arrays_shapes_and_lists_say_the_same():
    params = {"fc1": {"kernel": np.ones((4, 8), np.float32), "bias": np.zeros(8)}, "skipped": None, "empty": ()}
    shapes = {"fc1": {"kernel": [4, 8], "bias": (8,)}}
    assert amos_ref.choose(params) == amos_ref.choose(shapes)
    frozen = types.MappingProxyType({"fc1": types.MappingProxyType(shapes["fc1"])})
    assert amos_ref.choose(frozen) == amos_ref.choose(shapes)


def test_whole_numbers_are_no_parameters():
    choice = amos_ref.choose(
        {"bn.weight": np.ones(3), "bn.num_batches_tracked": np.array(3), "bn.running_mean": np.ones(3)}
    )
    assert choice.named("buffer") == ["bn.num_batches_tracked", "bn.running_mean"]
    with pytest.raises(RuleError, match="leave it out of the parameters"):
        choice.rule_for("eta", "bn.running_mean", (3,))


def test_tied_arrays_have_the_embeddings_scale():
    table = np.ones((50, 8))
    choice = amos_ref.choose({"lm_head.weight": table, "wte.weight": table})
    assert choice["lm_head.weight"][1:4] == ("embedding", 0.5, (50, 1))
    assert "the same array as 'wte.weight'" in choice["lm_head.weight"].why
    assert amos_ref.choose({"lm_head.weight": table.copy(), "wte.weight": table})["lm_head.weight"].rule == "linear"


# use


def test_both_optimizers_take_it():
    params = {"fc/kernel": np.full((4, 8), 0.5), "fc/bias": np.zeros(8)}
    choice = amos_ref.choose(params)
    state = amos_ref.Amos(0.1, eta=choice, slot_shape=choice).init(params)
    assert {name: v.shape for name, v in state.v.items()} == {"fc/kernel": (1, 8), "fc/bias": ()}
    sigma = amos_ref.ClosedFormAmos(half_life=10, sigma=choice, slot_shape=choice).init(params).sigma
    assert {name: float(x) for name, x in sigma.items()} == {"fc/kernel": 0.5, "fc/bias": 0.5}


@pytest.mark.parametrize(
    ("params", "words"),
    [({"fc/kernel": np.ones((8, 4))}, "it was chosen for shape"), ({"other": np.ones(3)}, "has no leaf 'other'")],
)
def test_other_parameters_are_refused(params, words):
    choice = amos_ref.choose({"fc/kernel": (4, 8)})
    with pytest.raises(RuleError, match=words):
        amos_ref.Amos(0.1, eta=choice, slot_shape=choice).init(params)


def test_a_mapping_may_have_one_behind_rules_of_its_own():
    params = {"fc/kernel": np.full((4, 8), 0.5), "fc/bias": np.zeros(8)}
    choice = amos_ref.choose(params)
    sigma = amos_ref.ClosedFormAmos(half_life=10, sigma={".*bias": 0.25, ".*": choice}).init(params).sigma
    assert {name: float(x) for name, x in sigma.items()} == {"fc/kernel": 0.5, "fc/bias": 0.25}


def test_names_are_whole_names_and_no_regular_expressions():
    choice = amos_ref.choose({"a.weight": (3, 4)})
    with pytest.raises(AmosError, match="has no leaf 'aXweight'"):
        choice.rule_for("eta", "aXweight", (3, 4))


def test_blocks_that_are_alike_are_alike_and_share_a_row():
    shapes = {
        f"layers.{i}.{name}": shape
        for i in range(12)
        for name, shape in (("fc1.weight", (8, 4)), ("fc2.weight", (4, 8)))
    }
    choice = amos_ref.choose(shapes)
    both = "layers.*.fc*.weight (12)"
    assert [(row[0], row[4]) for row in choice.rows()] == [(both, "linear"), (both, "second layer")]
    assert choice["layers.0.fc2.weight"] == choice["layers.11.fc2.weight"]


def test_it_prints_as_text_and_as_html():
    choice = amos_ref.choose({"<b>.0.weight": (3, 4), "strange": (2, 2, 2)})
    text, html = str(choice), choice._repr_html_()
    assert text.splitlines()[0] == "2 leaves, 20 parameters"
    assert repr(choice) == "<Choice for 2 leaves: 1 unknown, 1 recipe>"
    assert "&lt;b&gt;.0.weight" in html
    assert "<b>" not in html
    assert html.index("strange") < html.index("&lt;b&gt;.0.weight")


def test_modules_are_there_without_an_import_of_their_own():
    code = "import amos_ref; print(amos_ref.plots.__name__, amos_ref.adamw.AdamW.__name__, amos_ref.choose.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["amos_ref.plots", "AdamW", "choose"]


@pytest.mark.parametrize("option", ["lr_factor", "extra_l2", "frozen"])
def test_a_choice_is_no_rule_for_other_options(option):
    params = {"w": np.ones((2, 3))}
    with pytest.raises(amos_ref.errors.RuleError, match=f"^{option}: a choice has eta and slot shapes only"):
        amos_ref.Amos(0.1, eta=0.5, **{option: amos_ref.choose(params)}).init(params)


def test_layers_in_one_array_are_no_certain_convolutions():
    mlp = {"wi": {"kernel": (12, 768, 3072)}, "wo": {"kernel": (12, 3072, 768)}}
    heads = {"layers": {"mixer": {"kernel": (2048, 64, 64, 128)}}}
    image = {"stem": {"kernel": (3, 3, 3, 32)}, "conv_1d": {"kernel": (5, 32, 64)}}
    for params in (mlp, heads):
        found = amos_ref.choose(params)
        assert {entry.source for entry in found.values()} == {"guess"}
        assert all("many layers in one array" in entry.why for entry in found.values())
    assert [entry.source for entry in amos_ref.choose(image).values()] == ["recipe", "analogy"]
