"""choose on the names and shapes of many more published models, as torch, flax, Keras, haiku and others write them.

Most of these were written down before choose had seen them: 727 of the 740 leaves of 42 models were right at first.
"""

import math

import pytest
from helpers import TESTS

import amos_ref
from amos_ref.choosing import alike, convolutions, kinds, names, stacks, weights
from amos_ref.choosing import model as model_module

P = math.prod


def fan(gain, size, *kept):
    """Return eta = sqrt(gain / size) with slots along these axes, as a function of a shape."""
    return lambda s: (
        math.sqrt(gain / size(s)),
        tuple(n if i in [k % len(s) for k in kept] else 1 for i, n in enumerate(s)),
    )


def rows(eta):
    return lambda s: (eta(s), (*s[:-1], 1))


def gates(hidden, axis):
    return lambda s: ((2 * hidden(s)) ** -0.25, tuple(n if i == axis else 1 for i, n in enumerate(s)))


#: What each word says of eta and the slots, for a shape.
WORDS = {
    "bias": lambda s: (0.5, ()),
    "bias-rows": lambda s: (0.5, s),
    "bias-stacked": lambda s: (0.5, (s[0], 1)),  # (layers or experts, out)
    "gain": lambda s: (1.0, ()),
    "embedding": rows(lambda s: math.sqrt(2 / s[-1])),
    "embedding-t5": rows(lambda s: 1.0),
    "embedding-lstm": rows(lambda s: s[-1] ** -0.25),
    "out-in": fan(1, lambda s: s[1], 0),
    "out-in-second": fan(2, lambda s: s[1], 0),
    "in-out": fan(1, lambda s: s[0], 1),
    "in-out-second": fan(2, lambda s: s[0], 1),
    "conv": fan(2, lambda s: P(s[1:]), 0),
    "conv-first": fan(8, lambda s: P(s[1:]), 0),
    "conv-modulated": fan(2, lambda s: P(s[2:]), 1),  # (1, out, in, *window)
    "conv-transposed": fan(2, lambda s: s[0] * P(s[2:]), 1),
    "conv-flax": fan(2, lambda s: P(s[:-1]), -1),
    "conv-flax-first": fan(8, lambda s: P(s[:-1]), -1),
    "conv-keras-depthwise": fan(2, lambda s: P(s[:-2]), -2, -1),
    "lstm": gates(lambda s: s[0] // 4, 0),
    "gru": gates(lambda s: s[0] // 3, 0),
    "lstm-keras": gates(lambda s: s[1] // 4, 1),
    "lstm-flax": gates(lambda s: s[1], 1),
    "into-heads": fan(1, lambda s: s[0], 1, 2),  # (in, heads, dim)
    "out-of-heads": fan(1, lambda s: s[0] * s[1], 2),  # (heads, dim, out)
    "query-t5": fan(1, lambda s: 64 * s[1], 0),
    "query-t5-flax": fan(1, lambda s: 64 * s[0], 1),
    "stacked": fan(1, lambda s: s[1], 0, 2),  # (layers or experts, in, out)
    "stacked-second": fan(2, lambda s: s[1], 0, 2),
    "gain-stacked": lambda s: (1.0, (s[0], 1)),
    "stacked-torch": fan(1, lambda s: s[2], 0, 1),  # (layers or experts, out, in)
    "stacked-torch-second": fan(2, lambda s: s[2], 0, 1),
    "gru-haiku": gates(lambda s: s[1] // 3, 1),
    "scanned": lambda s: (s[0] ** -0.5, (1, *s[1:])),  # (in, layers, out) or (in, layers, heads, dim)
    "scanned-second": fan(2, lambda s: s[0], 1, 2),
    "gain-scanned": lambda s: (1.0, (1, s[1])),  # (width, layers)
    "score": fan(1, lambda s: s[2], 0, 1),  # (1, heads, dim)
    "known": None,  # no recipe says what: not unknown
    "buffer": None,
}


def read_models():
    models, model = {}, {}
    for line in (TESTS / "models" / "others.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            model = models.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, sizes, word = line.split()
            shape = () if sizes == "-" else tuple(map(int, sizes.split(",")))
            before, _, rest = name.partition("{")
            count, _, after = rest.partition("}")
            for full in [f"{before}{i}{after}" for i in range(int(count))] if rest else [name]:
                model[full] = shape, word
    return models


MODELS = read_models()


def count_right(leaves):
    """Return of how many leaves choose says what the words say, and the others in words."""
    choice, wrong = amos_ref.choose({name: shape for name, (shape, _) in leaves.items()}), []
    for name, (shape, word) in leaves.items():
        entry = choice[name]
        if WORDS[word] is None:
            right = (entry.source == "buffer") is (word == "buffer") and entry.source != "unknown"
        else:
            eta, slot = WORDS[word](shape)
            right = entry.eta == pytest.approx(eta, rel=1e-14, abs=0) and entry.slot_shape == slot
        if not right:
            wrong.append(f"{name} {shape} is {word}: {entry}")
    return len(leaves) - len(wrong), wrong


@pytest.mark.parametrize("name", MODELS)
def test_every_leaf_is_what_it_is_in_the_model(name):
    assert count_right(MODELS[name])[1] == []


def test_files_that_sort_their_names_say_the_same():
    """As safetensors files do."""
    wrong = {name: count_right(dict(sorted(leaves.items())))[1] for name, leaves in MODELS.items()}
    assert [lines for lines in wrong.values() if lines] == []


def test_names_in_the_order_of_the_alphabet_alone_are_caught(monkeypatch):
    monkeypatch.setattr(model_module, "_phase", lambda part: 1)
    assert count_right(dict(sorted(MODELS["tacotron2"].items())))[1] != []


def test_there_are_models_of_every_kind():
    words = {word for leaves in MODELS.values() for _, word in leaves.values()}
    assert words == set(WORDS)
    assert len(MODELS) > 50


@pytest.mark.parametrize(
    ("module", "attribute", "wrong", "model"),
    [
        (weights, "_are_ends", lambda *args: False, "opt-350m"),
        (weights, "_in_attention", lambda *args: False, "qwen3"),
        (weights, "_blocks", lambda leaf: [leaf.module[:-1]], "roberta"),
        (kinds, "_may_be_a_norm", lambda *args: True, "dit"),
        (kinds, "_SCORES", set(), "gat-pyg"),
        (convolutions, "_follow_relatives", lambda *args: None, "gan-generator"),
        (kinds, "recurrent", lambda *args: None, "keras-lstm"),
        (names, "parse", lambda name: names.Name((), "", name, "weight", ""), "dinov2"),
        (kinds, "_BUFFERS", kinds.re.compile("nothing"), "efficientnet-timm"),
        (weights, "_FIRST_LAYERS", set(), "qwen2-moe"),
        (weights, "_LOW_RANK", set(), "lora-llama"),
        (weights, "_are_one_and_two", lambda *args: False, "openelm"),
        (convolutions, "_is_in_groups", lambda *args: False, "resnext-timm"),
        (convolutions, "_is_of_mlx", lambda *args: False, "mlx-cnn"),
        (convolutions, "_is_recurrent", lambda *args: False, "convlstm"),
        (convolutions, "_read_the_data", lambda *args: set(), "informer"),
        (weights, "_are_of_experts", lambda leaf: False, "granite-moe"),
        (model_module, "_name_variable", lambda full, shapes: full, "keras-raw"),
        (stacks, "is_of_equinox", lambda *args: False, "equinox-cnn"),
        (alike, "_describe", lambda *args: (), "cyclegan"),
    ],
)
def test_a_wrong_version_is_caught(module, attribute, wrong, model, monkeypatch):
    if attribute == "recurrent":
        kept = tuple(kind for kind in kinds.LEAF_KINDS if kind.__name__ != attribute)
        monkeypatch.setattr(kinds, "LEAF_KINDS", kept)
    elif attribute == "parse":
        monkeypatch.setattr("amos_ref.choosing.model.parse", wrong)
    else:
        monkeypatch.setattr(module, attribute, wrong)
    assert count_right(MODELS[model])[1] != []
