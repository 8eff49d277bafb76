"""Weights: layers of recurrent networks, attention in heads, experts, convolutions, and linear layers."""

import itertools
import math
import re
from collections import Counter

from amos_ref.choosing.model import Axes, Found, Leaf, Model, pattern_of
from amos_ref.choosing.names import INTO_HEADS, side_of, words_of

_GATES = re.compile(r"weight_(ih|hh)(_l\d+)?(_reverse)?")
_FLAX_GATES = {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}, {"ir", "iz", "in", "hr", "hz", "hn"}
_QUERY = {"q", "query", "queries"}
_OUT_OF_HEADS = {"out", "o", "output", "proj"}
_DOWN = {"fc2", "linear2", "lin2", "wo", "w2", "down", "down_proj", "dense_4h_to_h", "fc_out", "pwconv2", "dense_1"}
_DOWN |= {"c_proj", "out", "w_out", "wo", "w_down", "proj_out", "linear_out", "output_dense", "ffn_output", "lin_2"}
_DEPTHWISE = re.compile("dw|depth")
_UPWARD = {"up", "ups", "upconv", "upsample", "upsampler", "upsampling"}
_ENDS = {"encoder", "decoder", "enc", "dec", "project", "projection", "embed", "head"}
_UP = {"gate", "up", "w1", "w3", "wi", "in", "fc1", "v1", "wi_0", "wi_1"}


def _is_weight(leaf: Leaf) -> bool:
    return leaf.role in ("weight", "kernel") and leaf.name.tag in ("", "v", "orig", "original", "original1", "0")


def _scaled(rule: str, gain: float, axes: Axes, leaf: Leaf, why: str, source: str = "recipe") -> Found:
    """Return eta = sqrt(gain / fan_in), and slots that average over the inputs."""
    fan = axes.fan_in(leaf.shape)
    source = "guess" if source == "recipe" and not axes.certain else source
    return Found(rule, math.sqrt(gain / fan), axes.slot(leaf.shape), f"{why}; fan-in {fan}: {axes.evidence}", source)


def _in_attention(leaf: Leaf, model: Model) -> bool:
    side = side_of(leaf.module)
    if side:
        return side == "attention"
    return bool(INTO_HEADS & {*words_of(leaf.own)}) or leaf.module[:-1] in model.attending


def recurrent(leaf: Leaf, model: Model) -> Found | None:
    """Kernels of LSTMs and of what is built like them."""
    if not _is_weight(leaf) or len(leaf.shape) != 2:
        return None
    above, last = leaf.module[:-1], leaf.name.last
    if gates := _GATES.fullmatch(last):  # torch and equinox: (gates * hidden, in)
        rest = "".join(part or "" for part in gates.groups()[1:])
        state = model.leaves.get(leaf.full.replace(last, f"weight_hh{rest}"))
        projected = model.leaves.get(leaf.full.replace(last, f"weight_hr{rest}"))
        hidden = leaf.shape[0] // 4 if projected or state is None else state.shape[1]
        return _recurrent(leaf, Axes((1,), "(gates * hidden, in), as in torch", True), hidden, leaf.shape[0])
    if leaf.own in _FLAX_GATES[0] | _FLAX_GATES[1] and any(gates <= model.beside(leaf) for gates in _FLAX_GATES):
        count = 4 if _FLAX_GATES[0] <= model.beside(leaf) else 3
        return _recurrent(leaf, Axes((0,), "(in, hidden), a kernel a gate", True), leaf.shape[1], count * leaf.shape[1])
    module = above if last == "recurrent_kernel" else leaf.module
    state = model.modules.get((*module, "recurrent"), {}).get("kernel")
    if state is not None:  # Keras: (in, gates * hidden)
        axes = Axes((0,), "(in, gates * hidden), as in Keras", True)
        return _recurrent(leaf, axes, state.shape[0], leaf.shape[1])
    if leaf.own == "linear" and "lstm" in {word for part in above for word in words_of(part)} and last == "w":
        return _recurrent(
            leaf, Axes((0,), "(in + hidden, 4 hidden), as in haiku", True), leaf.shape[1] // 4, leaf.shape[1]
        )
    return None


def _recurrent(leaf: Leaf, axes: Axes, hidden: int, rows: int) -> Found:
    gates = rows // max(hidden, 1)
    if gates < 2:
        return _scaled("linear", 1, axes, leaf, "a recurrent layer without gates", "analogy")
    words = "an LSTM" if gates == 4 else f"{gates} gates, as an LSTM has 4"
    eta, source = (2 * max(hidden, 1)) ** -0.25, "recipe" if gates == 4 else "analogy"
    return Found("recurrent", eta, axes.slot(leaf.shape), f"{words}: {hidden} hidden units; {axes.evidence}", source)


def heads(leaf: Leaf, model: Model) -> Found | None:
    """Layers of attention with an axis of heads, as flax and Keras have them."""
    ndim, words = len(leaf.shape), {*words_of(leaf.own)}
    if ndim < 3 or not _is_weight(leaf) or not (leaf.role == "kernel" or leaf.name.last.startswith("W_")):
        return None
    if not words & (INTO_HEADS | _OUT_OF_HEADS) or side_of(leaf.module) == "mlp" or "conv" in words:
        return None
    axes, into = model.axes(leaf), bool(words & INTO_HEADS)
    if model.bias_of(leaf) is None:
        start = ndim - 3
        axes = Axes((start,) if into else (start, start + 1), "(in, heads, dim)" if into else "(heads, dim, out)", True)
    elif not into and "attention" not in side_of(leaf.module):
        return None
    return _attention(leaf, axes, model) or _scaled("linear", 1, axes, leaf, "attention, an axis of heads")


def _attention(leaf: Leaf, axes: Axes, model: Model) -> Found | None:
    """T5's queries, which are not divided by the root of the size of a head."""
    if model.family != "t5" or not _QUERY & {*words_of(leaf.own)}:
        return None
    outputs = axes.sizes(leaf.shape)[1]
    dim = leaf.shape[-1] if len(leaf.shape) == 3 else outputs // model.heads if model.heads else 64
    fan = axes.fan_in(leaf.shape) * dim
    why = f"a T5 query, 1/sqrt({dim}) smaller, as its products are not divided by that; {axes.evidence}"
    return Found("query", math.sqrt(1 / fan), axes.slot(leaf.shape), why)


def experts(leaf: Leaf, model: Model) -> Found | None:
    """Layers with a leading axis of experts or of layers."""
    ndim = len(leaf.shape)
    if ndim != 3:
        return None
    words = {*words_of(leaf.own), *words_of(leaf.name.last)}
    down = bool(words & {"down", "wo", "w2", "fc2", "out", "4h"}) or leaf.own in _DOWN
    axes = model.axes(leaf)
    if _is_weight(leaf) and axes.inputs[0] > 0 and axes.inputs[-1] < ndim - 1:
        return _scaled("linear", 2 if down else 1, axes, leaf, "a linear layer, stacked")
    if not any("expert" in part.lower() for part in leaf.module) or "conv" in words:
        return None
    outs_last = not leaf.name.last.endswith("weight")
    known = model.width in leaf.shape[1:] and leaf.shape[1] != leaf.shape[2] and (down or words & _UP)
    if known:
        outs_last = (leaf.shape[2] == model.width) is down
    axes = Axes((1 if outs_last else 2,), "an axis of experts", bool(known))
    return _scaled("second layer" if down else "linear", 2 if down else 1, axes, leaf, "an expert")


# convolutions

LARGEST_WINDOW = 32  # a patch of ViT-B/32; what is larger may be something else


def _convolution_axes(leaf: Leaf, model: Model) -> tuple[Axes, int, str]:
    """Return the axes, which of them the input channels are, and whether it is "transposed", "depthwise" or ""."""
    ndim, shape, bias = len(leaf.shape), leaf.shape, model.bias_of(leaf)
    words = " ".join((*leaf.module, leaf.name.last)).lower()
    says, axes = "transpose" in words or "deconv" in words, model.axes(leaf)
    if axes.inputs[0] or len(axes.inputs) < ndim - 1:
        return _torch_convolution_axes(leaf, model, axes, says)
    window = tuple(range(ndim - 2))  # (*window, in, out)
    if _DEPTHWISE.search(f"{leaf.own} {leaf.name.last}".lower()) and shape[-1] <= shape[-2]:
        return Axes(window, "(*window, channels, 1)", True), ndim - 2, "depthwise"
    if (bias == shape[-2:-1] and bias != shape[-1:]) or (says and bias is None and leaf.own == leaf.own.lower()):
        return Axes((*window, ndim - 1), "(*window, out, in): transposed", True), ndim - 1, "transposed"
    return axes, ndim - 2, ""


def _torch_convolution_axes(leaf: Leaf, model: Model, axes: Axes, says: bool) -> tuple[Axes, int, str]:
    """Return what :func:`_convolution_axes` does for (out, in, *window), or for (in, out, *window): transposed."""
    shape, bias = leaf.shape, model.bias_of(leaf)
    outputs = bias[0] if bias is not None and len(bias) == 1 else 0
    if not outputs and math.prod(shape[2:]) > 1 and (norm := model.following(leaf)) is not None:
        outputs = norm.shape[0]
    known = outputs and outputs != shape[0] and outputs % max(shape[1], 1) == 0
    likely = not outputs and shape[0] > shape[1] > 1 and bool(_UPWARD & {*words_of(leaf.own)})
    if not (known or likely or (says and outputs in (0, shape[1]))):
        return axes, 1, ""
    groups = max(outputs // max(shape[1], 1), 1)
    evidence = "(in, out, *window): transposed" + (f" in {groups} groups" if groups > 1 else "")
    return Axes((0, *range(2, len(shape))), evidence, not likely or says), 0, "transposed"


def _follow_relatives(found: dict[str, tuple[Axes, int, str]], model: Model) -> None:
    """Take convolutions for transposed that nothing says it of, but of those in their module."""
    above = {model.leaves[full].module[:-1] for full, (_, _, kind) in found.items() if kind == "transposed"}
    for full, (axes, _, kind) in found.items():
        leaf = model.leaves[full]
        undecided = not kind and axes.inputs[0] == 1 and model.bias_of(leaf) is None and model.following(leaf) is None
        if undecided and leaf.module[:-1] in above and leaf.module[-1].isdigit() and leaf.shape[0] > leaf.shape[1]:
            inputs = (0, *range(2, len(leaf.shape)))
            found[full] = Axes(inputs, "(in, out, *window): transposed, as those beside it", False), 0, "transposed"


def _find_convolutions(model: Model) -> dict[str, tuple[Axes, int, str]]:
    """Return the axes of all convolutions, with their kind: "first", "depthwise", "transposed" or ""."""
    found: dict[str, tuple[Axes, int, str]] = {}
    for leaf in model:
        if 2 < len(leaf.shape) < 6 and _is_weight(leaf) and not heads(leaf, model) and not experts(leaf, model):
            found[leaf.full] = _convolution_axes(leaf, model)
    _follow_relatives(found, model)
    single = [
        full for full, (_, channels, kind) in found.items() if model.leaves[full].shape[channels] == 1 and not kind
    ]
    patterns = Counter(map(pattern_of, single))
    earliest = min(found, key=model.rank.__getitem__, default="")
    made = {n for leaf in model if _is_weight(leaf) and len(leaf.shape) == 2 for n in leaf.shape}
    made |= {leaf.shape[0] for leaf in model if len(leaf.shape) == 1}
    of_data = {
        full
        for full, (_, channels, kind) in found.items()
        if not kind
        and ((n := model.leaves[full].shape[channels]) in (2, 3) or (n == 4 and (n not in made or full == earliest)))
    }
    for full in single:
        leaf, (axes, channels, _) = model.leaves[full], found[full]
        named = _DEPTHWISE.search(f"{leaf.own} {leaf.name.last}".lower()) is not None
        again = patterns[pattern_of(full)] > 1 or "in_proj" in model.beside(leaf)
        if axes.sizes(leaf.shape)[1] > 1 and (of_data or named or again):
            found[full] = axes, channels, "depthwise"
        else:
            of_data = of_data | {full}
    if (
        not of_data
        and found
        and model.leaves[earliest].shape[found[earliest][1]] not in made
        and not found[earliest][2]
    ):
        of_data = {earliest}
    return found | {full: (*found[full][:2], "first") for full in of_data}


def convolution(leaf: Leaf, model: Model) -> Found | None:
    """Convolutions of one to three dimensions: in groups, depthwise, transposed, and the first one of a model."""
    if not 2 < len(leaf.shape) < 6 or not _is_weight(leaf):
        return None
    if "bilinear" in words_of(leaf.own):
        axes = Axes((1, 2), "(out, in, in)", True)
        return _scaled("linear", 1, axes, leaf, "a product of two inputs", "analogy")
    if "convolutions" not in model.memo:
        model.memo["convolutions"] = _find_convolutions(model)
    axes, channels, kind = model.memo["convolutions"][leaf.full]
    rule, gain, why = "convolution", 2, f"a {kind} convolution" if kind else "a convolution"
    if kind == "first":
        rule, gain = "first convolution", 8
        why = f"the first convolution: {leaf.shape[channels]} channels of data that is not normalised"
    if not _may_be_stacked(leaf):
        return _scaled(rule, gain, axes, leaf, why)
    return _scaled(rule, gain, axes, leaf, f"{why}, or many layers in one array: give overrides then", "guess")


def _may_be_stacked(leaf: Leaf) -> bool:
    """Whether nothing but its axes says that it is a convolution: no name, and no small window of two axes."""
    if "conv" in leaf.full.lower() or len(leaf.shape) > 4:
        return False
    return len(leaf.shape) == 3 or min(max(leaf.shape[:2]), max(leaf.shape[2:])) > LARGEST_WINDOW


# linear layers


def _linear_axes(leaf: Leaf, model: Model) -> Axes | None:
    if len(leaf.shape) != 2:
        return None
    if _is_weight(leaf):
        return model.axes(leaf)
    if {"proj", "projection"} & {*words_of(leaf.name.last)}:
        return Axes((0,), "(in, out), as a parameter that inputs are multiplied by", True)
    return None


def _blocks(leaf: Leaf) -> list[tuple[str, ...]]:
    """Return the modules that a layer may have its partner in: the one around it, and those up to a numbered block."""
    module, found = leaf.module, []
    for size in range(len(module) - 1, max(len(module) - 4, -1), -1):
        found.append(module[:size])
        if size and module[size - 1][-1].isdigit() and (size < len(module) - 1 or side_of(module[:size]) != "mlp"):
            return found
    return found if side_of(module) == "mlp" else found[:1]


def _pairs(model: Model) -> dict[tuple[tuple[str, ...], int, int], list[str]]:
    """Return the linear layers outside attention by block, inputs and outputs."""
    if "pairs" not in model.memo:
        found = model.memo["pairs"] = {}
        for leaf in model:
            axes = _linear_axes(leaf, model)
            if axes is not None and not _in_attention(leaf, model) and _is_weight(leaf):
                sizes = axes.sizes(leaf.shape)
                for block in _blocks(leaf):
                    found.setdefault((block, *sizes), []).append(leaf.full)
    return model.memo["pairs"]


def _are_ends(leaf: Leaf, other: Leaf, block: tuple[str, ...]) -> bool:
    """Whether two layers are at the ends of a model and not in one MLP: an encoder and a decoder, two projections."""
    parts = [layer.module[len(block)] for layer in (leaf, other)]
    return parts[0] != parts[1] and bool(_ENDS & {word for part in parts for word in words_of(part)})


def _is_second(leaf: Leaf, axes: Axes, model: Model) -> str:
    """Return why a layer is the second one of an MLP, whose inputs come out of an activation, or ""."""
    if _in_attention(leaf, model):
        return ""
    inputs, outputs = axes.sizes(leaf.shape)
    mlp, named = side_of(leaf.module) == "mlp", leaf.own.lower() in _DOWN
    for block in _blocks(leaf):
        for made in (inputs, 2 * inputs) if mlp else (inputs,):
            for first in _pairs(model).get((block, outputs, made), ()):
                if first == leaf.full or (made == outputs and not named) or _are_ends(leaf, model.leaves[first], block):
                    continue
                if (inputs > outputs and (mlp or named or model.rank[first] < model.rank[leaf.full])) or (
                    mlp and named
                ):
                    partner = model.leaves[first].own or first
                    return f"the second layer of an MLP, behind {partner!r} with {outputs} -> {made}"
    return "the second layer of an MLP, by its name" if mlp and named and inputs > outputs else ""


def _hidden(model: Model) -> set[str]:
    """Return the layers between a network of convolutions and its last layer, as the authors' MNIST model has one."""
    if "hidden" in model.memo:
        return model.memo["hidden"]
    found = model.memo["hidden"] = set()
    if model.family in ("cnn", "mnist"):
        layers = [leaf for leaf in model if len(leaf.shape) == 2 and _is_weight(leaf)]
        layers.sort(key=lambda leaf: model.rank[leaf.full])
        sizes = {leaf.full: model.axes(leaf).sizes(leaf.shape) for leaf in layers}
        for leaf, after in itertools.pairwise(layers):
            if leaf.module[:-1] == layers[-1].module[:-1] and sizes[leaf.full][1] == sizes[after.full][0]:
                found.add(leaf.full)
    return found


def linear(leaf: Leaf, model: Model) -> Found | None:
    """Linear layers."""
    axes = _linear_axes(leaf, model)
    if axes is None:
        return None
    if query := _attention(leaf, axes, model) if _in_attention(leaf, model) else None:
        return query
    if why := _is_second(leaf, axes, model):
        return _scaled("second layer", 2, axes, leaf, why)
    if leaf.full in _hidden(model):
        return _scaled("hidden layer", 2, axes, leaf, "behind an activation, as Dense_0 of the authors' MNIST model")
    return _scaled("linear", 1, axes, leaf, "a linear layer", "recipe" if _is_weight(leaf) else "analogy")
