"""Convolutions: how their kernels lie, and how sure that is."""

import math

import pytest

import amos_ref
from amos_ref.choosing import convolutions, weights


def entry_of(name, shapes, **options):
    return amos_ref.choose(shapes, **options)[name]


def with_bias(module, shape, bias, kernel="weight", joint="."):
    return {f"{module}{joint}{kernel}": shape, f"{module}{joint}bias": (bias,)}


@pytest.mark.parametrize(
    ("module", "shape", "slot", "source"),
    [
        ("up", (64, 64, 2, 2), (1, 64, 1, 1), "guess"),  # nothing but a name of the way up, and an even window
        ("upsample", (64, 64, 3, 3), (64, 1, 1, 1), "guess"),  # an odd one: after an interpolation, perhaps
        ("decoder.4", (64, 64, 4, 4), (1, 64, 1, 1), "guess"),
        ("decoder.4", (64, 64, 3, 3), (64, 1, 1, 1), "recipe"),
        ("convtranspose1", (64, 64, 4, 4), (1, 64, 1, 1), "analogy"),
        ("inverse_conv_stack.0", (64, 64, 3, 3), (1, 64, 1, 1), "analogy"),
        ("quant_conv", (8, 8, 1, 1), (8, 1, 1, 1), "recipe"),
        ("conv1", (64, 64, 3, 3), (64, 1, 1, 1), "recipe"),
        ("up", (64, 32, 2, 2), (1, 32, 1, 1), "analogy"),  # its bias tells
    ],
)
def test_a_square_kernel_of_torch_is_transposed_by_its_name_or_is_a_guess(module, shape, slot, source):
    shapes = {"stem.weight": (8, 1, 3, 3)} | with_bias(module, shape, shape[1])
    entry = entry_of(f"{module}.weight", shapes)
    assert (entry.slot_shape, entry.source) == (slot, source)
    assert entry.eta == pytest.approx(math.sqrt(2 / math.prod((shape[0], *shape[2:]))), rel=1e-14)


def test_a_square_kernel_among_transposed_ones_is_a_guess():
    shapes = with_bias("net.0", (32, 16, 4, 4), 16) | with_bias("net.2", (16, 16, 4, 4), 16)
    shapes |= with_bias("net.4", (16, 16, 3, 3), 16)
    choice = amos_ref.choose(shapes)
    assert [choice[f"net.{i}.weight"].source for i in (0, 2, 4)] == ["analogy", "guess", "guess"]
    assert [choice[f"net.{i}.weight"].slot_shape for i in (2, 4)] == [(1, 16, 1, 1), (16, 1, 1, 1)]


@pytest.mark.parametrize(
    ("module", "slot", "source"),
    [
        ("conv2d_transpose", (1, 1, 64, 1), "analogy"),  # Keras: (*window, out, in)
        ("conv2d_transpose_1", (1, 1, 64, 1), "analogy"),
        ("ConvTranspose_0", (1, 1, 1, 64), "analogy"),  # flax: (*window, in, out)
        ("deconv1", (1, 1, 1, 64), "guess"),  # either may be called so
        ("conv2d", (1, 1, 1, 64), "recipe"),
    ],
)
@pytest.mark.parametrize("biased", [True, False])
def test_a_square_kernel_with_its_window_first_lies_as_its_library_has_it(module, slot, source, biased):
    shapes = {"stem/kernel": (3, 3, 1, 8)} | with_bias(module, (4, 4, 64, 64), 64, "kernel", "/")
    if not biased:
        del shapes[f"{module}/bias"]
    entry = entry_of(f"{module}/kernel", shapes)
    assert (entry.slot_shape, entry.source) == (slot, source)


def test_only_a_first_convolution_of_one_channel_is_what_the_authors_have():
    one, three = (entry_of("conv1.weight", with_bias("conv1", (8, n, 5, 5), 8)) for n in (1, 3))
    assert (one.source, three.source) == ("recipe", "analogy")
    assert one.why.startswith("the first convolution, of data with 1 channel;")
    assert three.why.startswith("the first convolution, of data with 3 channels;")


def test_depthwise_ones_are_none_of_the_authors():
    shapes = with_bias("stem", (8, 3, 3, 3), 8) | with_bias("dw", (8, 1, 3, 3), 8)
    assert entry_of("dw.weight", shapes)[1:] == (
        "convolution",
        math.sqrt(2 / 9),
        (8, 1, 1, 1),
        "a depthwise convolution; fan-in 9: its bias has 8 entries",
        "analogy",
    )


def test_a_version_that_is_sure_of_square_kernels_is_caught(monkeypatch):
    monkeypatch.setattr(convolutions, "_is_doubtful", lambda *args: False)
    with pytest.raises(AssertionError):
        test_a_square_kernel_of_torch_is_transposed_by_its_name_or_is_a_guess(
            "up", (64, 64, 2, 2), (1, 64, 1, 1), "guess"
        )


@pytest.mark.parametrize(
    ("name", "shapes", "rule", "source"),
    [
        ("cell_list.0.conv.weight", with_bias("cell_list.0.conv", (256, 67, 3, 3), 256), "convolution", "guess"),
        ("gru.convz.weight", with_bias("gru.convz", (96, 242, 3, 3), 96), "convolution", "guess"),
        ("conv_lstm2d/kernel", {"conv_lstm2d/kernel": (3, 3, 1, 160)}, "convolution", "guess"),
        ("ConvLSTMCell_0/ih/kernel", {"ConvLSTMCell_0/ih/kernel": (3, 3, 1, 160)}, "convolution", "guess"),
        ("cell/kernel", {"cell/kernel": (3, 1, 8), "cell/recurrent_kernel": (3, 2, 8)}, "convolution", "guess"),
        ("cells.3.conv.weight", with_bias("cells.3.conv", (64, 64, 3, 3), 64), "convolution", "recipe"),
        ("cells.3.pre.weight", with_bias("cells.3.pre", (64, 32, 1, 1), 64), "convolution", "recipe"),
        ("excellent.conv.weight", with_bias("excellent.conv", (64, 32, 3, 3), 64), "convolution", "recipe"),
    ],
)
def test_the_gates_of_a_recurrent_layer_are_a_guess(name, shapes, rule, source):
    shapes = {"stem.weight": (32, 3, 3, 3), "ConvLSTMCell_0/hh/kernel": (3, 3, 40, 160)} | shapes
    shapes |= {"conv_lstm2d/recurrent_kernel": (3, 3, 40, 160)}
    entry = entry_of(name, shapes)
    assert (entry.rule, entry.source) == (rule, source)
    assert entry.why.endswith("of an LSTM eta would be (2 hidden)^-1/4") is (source == "guess")


def test_gates_that_are_taken_for_a_convolution_are_caught(monkeypatch):
    monkeypatch.setattr(convolutions, "_is_recurrent", lambda *args: False)
    with pytest.raises(AssertionError):
        test_the_gates_of_a_recurrent_layer_are_a_guess(
            "gru.convz.weight", with_bias("gru.convz", (96, 242, 3, 3), 96), "convolution", "guess"
        )


@pytest.mark.parametrize(
    ("shapes", "rule", "source"),
    [
        (with_bias("conv", (64, 7, 3), 64) | with_bias("out", (7, 64), 7), "first convolution", "guess"),
        (with_bias("conv", (64, 7, 3), 64) | with_bias("out", (7, 64, 3), 7), "first convolution", "guess"),
        (with_bias("conv", (3, 7, 64), 64, "kernel") | with_bias("out", (64, 7), 7), "first convolution", "guess"),
        (with_bias("into", (7, 9), 7) | with_bias("conv", (64, 7, 3), 64), "convolution", "recipe"),
        (with_bias("conv", (64, 64, 3), 64) | with_bias("out", (7, 64), 7), "convolution", "recipe"),
        (with_bias("conv", (64, 7, 3), 64) | with_bias("out", (5, 64), 5), "first convolution", "analogy"),
    ],
)
def test_a_first_convolution_of_as_many_channels_as_the_output_has_is_a_guess(shapes, rule, source):
    shapes = {"z.weight": (1,)} | shapes  # not sorted
    entry = next(entry for name, entry in amos_ref.choose(shapes).items() if name.startswith("conv"))
    assert (entry.rule, entry.source) == (rule, source)


def test_a_first_convolution_that_is_taken_for_a_later_one_is_caught(monkeypatch):
    monkeypatch.setattr(convolutions, "_read_the_data", lambda *args: set())
    with pytest.raises(AssertionError):
        test_a_first_convolution_of_as_many_channels_as_the_output_has_is_a_guess(
            with_bias("conv", (64, 7, 3), 64) | with_bias("out", (7, 64), 7), "first convolution", "guess"
        )


TOKENS = {"token_embedding.weight": (500, 32)}
ONE_CHANNEL = with_bias("conv1d", (32, 1, 4), 32)


@pytest.mark.parametrize(
    ("shapes", "rule", "source"),
    [
        (TOKENS | ONE_CHANNEL, "convolution", "analogy"),
        (ONE_CHANNEL | TOKENS, "first convolution", "recipe"),  # nothing comes before it: the data are a wave
        (TOKENS | ONE_CHANNEL | with_bias("conv2", (32, 32, 4), 32), "first convolution", "recipe"),
        (TOKENS | with_bias("conv1d", (32, 1, 4, 4), 32), "first convolution", "recipe"),
        ({"label_head.weight": (500, 32)} | ONE_CHANNEL, "first convolution", "recipe"),
    ],
)
def test_a_convolution_of_one_channel_behind_tokens_is_depthwise(shapes, rule, source):
    entry = entry_of("conv1d.weight", shapes | {"conv1d.z": (1,)})
    assert (entry.rule, entry.source) == (rule, source)


def test_tokens_that_are_not_seen_are_caught(monkeypatch):
    monkeypatch.setattr(convolutions, "_are_of_tokens", lambda *args: False)
    with pytest.raises(AssertionError):
        test_a_convolution_of_one_channel_behind_tokens_is_depthwise(TOKENS | ONE_CHANNEL, "convolution", "analogy")


def head(name, inputs):
    return with_bias(f"{name}.0", (16, inputs), 16) | with_bias(f"{name}.2", (4, 16), 4)


HEADS = with_bias("conv.0", (8, 1, 3, 3), 8) | head("value", 72) | head("adv", 72)


@pytest.mark.parametrize(
    ("shapes", "hidden"),
    [
        (HEADS, {"value.0.weight", "adv.0.weight"}),
        (dict(sorted(HEADS.items())), {"value.0.weight", "adv.0.weight"}),
        (HEADS | head("other", 70), {"other.0.weight"}),  # value and adv read something else: are they heads?
        (head("before", 72) | HEADS, {"value.0.weight", "adv.0.weight"}),
        (HEADS | head("blocks.0", 72) | head("blocks.1", 72), set()),
    ],
)
def test_heads_of_one_kind_have_hidden_layers_alike(shapes, hidden):
    choice = amos_ref.choose(shapes)
    assert {name for name, entry in choice.items() if entry.rule == "hidden layer"} == hidden
    assert {choice[name].source for name in hidden} <= {"analogy"}


def test_a_version_that_sees_one_head_is_caught(monkeypatch):
    monkeypatch.setattr(weights, "_hidden", lambda model: {"adv.0.weight"})
    with pytest.raises(AssertionError):
        test_heads_of_one_kind_have_hidden_layers_alike(HEADS, {"value.0.weight", "adv.0.weight"})


@pytest.mark.parametrize(
    ("kernel", "shape", "options", "slot"),
    [
        ("weight", (64, 8, 8), {}, (1, 8, 1)),  # torch: (in, out, window)
        ("weight", (64, 8, 8, 8), {}, (1, 8, 1, 1)),
        ("weight", (8, 8, 8), {}, (8, 1, 1)),
        ("weight", (64, 8, 8), {"layout": "flax"}, (1, 1, 8)),
        ("kernel", (64, 8, 8), {}, (1, 1, 8)),  # flax: (window, in, out)
        ("w", (64, 8, 8), {}, (1, 1, 8)),
    ],
)
def test_a_window_as_long_as_there_are_outputs_is_read_by_the_name_of_the_weight(kernel, shape, options, slot):
    entry = entry_of(f"net.1.2.{kernel}", with_bias("net.1.2", shape, 8, kernel), **options)
    assert entry.slot_shape == slot


def test_a_weight_of_torch_that_is_read_as_flaxs_is_caught(monkeypatch):
    monkeypatch.setattr(convolutions, "is_of_torch", lambda leaf: False)
    with pytest.raises(AssertionError):
        test_a_window_as_long_as_there_are_outputs_is_read_by_the_name_of_the_weight(
            "weight", (64, 8, 8), {}, (1, 8, 1)
        )
