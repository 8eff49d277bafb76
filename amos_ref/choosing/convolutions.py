"""Convolutions: which axes their kernels have, and which of them are depthwise, transposed, or the first of a model."""

import math
import re
from collections import Counter
from typing import NamedTuple

from amos_ref.choosing.model import Axes, Found, Leaf, Model, is_of_torch, pattern_of
from amos_ref.choosing.names import words_of
from amos_ref.choosing.weights import experts, heads, is_weight, scaled

_DEPTHWISE = re.compile("dw|depth")
_TRANSPOSED = re.compile(
    r"transpose|deconv|inverse_?conv|(?<![a-z])t_?conv(?![a-z])|conv(\dd)?_?t(?![a-z])|trans_?conv|conv_?trans"
)
_OF_KERAS = re.compile(r"conv\d_?d_transpose(_\d+)?")  # haiku writes conv2_d, and has the same axes
_UPWARD = {"up", "ups", "upconv", "upsample", "upsampler", "upsampling", "upscale", "upscaling"}
_DECODING = _UPWARD | {"mask", "decoder", "dec", "generator", "gen"}
_RECURRENT = re.compile(r"lstm|gru|(?<![a-z])rnn(?![a-z])")
_IN_TABLES = {"token", "tokens", "word", "words", "wte"}
_CELL = re.compile(r"(?<![a-z])cells?(?![a-z])")
_GPT2 = {"c_attn", "c_proj", "c_fc"}  # convolutions of window 1 where TensorFlow 1 wrote it
LARGEST_WINDOW = 32  # a patch of ViT-B/32; what is larger may be something else


class _Convolution(NamedTuple):
    """How the kernel of a convolution lies."""

    axes: Axes
    channels: int  # the axis of the input channels
    kind: str = ""  # or "first", "perhaps first", "depthwise", "transposed", "recurrent"


def _lie(leaf: Leaf, model: Model) -> _Convolution:
    """Return how a kernel lies, by its bias, its name and its shape."""
    ndim, shape, bias = len(leaf.shape), leaf.shape, model.bias_of(leaf)
    if ndim == 5 and shape[0] == 1 and shape[2] > LARGEST_WINDOW:
        return _Convolution(Axes((2, 3, 4), "its axes are (1, out, in, *window)", True), 2, "modulated")
    says = _TRANSPOSED.search(" ".join((*leaf.module, leaf.name.last)).lower()) is not None
    axes = model.axes(leaf)
    if axes.inputs[0] or len(axes.inputs) < ndim - 1:
        return _Convolution(axes, ndim - 1) if _is_of_mlx(model) else _lie_as_in_torch(leaf, model, axes, says)
    if bias == shape[1:2] == shape[-1:] and is_of_torch(leaf) and model.layout != "in-out":
        return _turned(leaf, "its axes are (in, out, *window)", True)
    window = tuple(range(ndim - 2))  # (*window, in, out)
    if _DEPTHWISE.search(f"{leaf.own} {leaf.name.last}".lower()) and shape[-1] <= shape[-2]:
        return _Convolution(Axes(window, "its axes are (*window, channels, 1)", True), ndim - 2, "depthwise")
    turned = (*window, ndim - 1)
    if bias == shape[-2:-1] and bias != shape[-1:]:
        return _Convolution(Axes(turned, f"its bias has {shape[-2]} entries", True), ndim - 1, "transposed")
    if not says:
        return _Convolution(axes, ndim - 2)
    if (bias is None or shape[-1] == shape[-2]) and _OF_KERAS.fullmatch(leaf.own):
        return _Convolution(Axes(turned, "Keras has (*window, out, in) there", True), ndim - 1, "transposed")
    if shape[-1] == shape[-2] or bias is None:  # flax has (in, out), and writes ConvTranspose_0
        certain = leaf.own != leaf.own.lower()
        axes = axes._replace(evidence="flax has (*window, in, out) there", certain=certain)
    return _Convolution(axes, ndim - 2, "transposed")


def _is_of_mlx(model: Model) -> bool:
    """Whether all windows lie in the middle, as MLX has them: (out, *window, in)."""
    if "mlx" not in model.memo:
        shapes = {leaf.shape for leaf in model if len(leaf.shape) == 4 and is_weight(leaf)}
        sides = {shape[1] == shape[2] and shape[0] > 1 for shape in shapes}
        model.memo["mlx"] = sides == {True} and any(shape[2] != shape[3] for shape in shapes)
    return model.memo["mlx"]


def _lie_as_in_torch(leaf: Leaf, model: Model, axes: Axes, says: bool) -> _Convolution:
    """Return what :func:`_lie` does for (out, in, *window), or for (in, out, *window): transposed."""
    shape, bias = leaf.shape, model.bias_of(leaf)
    outputs = bias[0] if bias is not None and len(bias) == 1 else 0
    if not outputs and math.prod(shape[2:]) > 1 and (norm := model.following(leaf)) is not None:
        outputs = norm.shape[0]
    known = outputs and outputs != shape[0] and outputs % max(shape[1], 1) == 0
    if known or (says and outputs in (0, shape[1])):
        groups = max(outputs // max(shape[1], 1), 1)
        return _turned(leaf, "its axes are (in, out, *window)" + (f" in {groups} groups" if groups > 1 else ""), True)
    if _is_doubtful(leaf, outputs, {*words_of(leaf.own)}, {word for part in leaf.module for word in words_of(part)}):
        return _guess(leaf, axes, "layers on the way up" if _UPWARD & {*words_of(leaf.own)} else "decoding layers")
    return _Convolution(axes, 1)


def _is_doubtful(leaf: Leaf, outputs: int, own: set[str], around: set[str]) -> bool:
    """Whether a kernel may be a transposed one, by its name, and neither its bias nor a norm says so."""
    shape = leaf.shape
    if math.prod(shape[2:]) < 2 or not shape[0] >= shape[1] > 1 or outputs not in (0, shape[1]):
        return False
    return bool(own & _UPWARD) or (_is_even(shape) and bool(around & _DECODING))


def _is_even(shape: tuple[int, ...]) -> bool:
    """Whether a window has even sides, as those that double an image have; others usually have odd ones."""
    return all(n % 2 == 0 for n in shape[2:])


def _guess(leaf: Leaf, axes: Axes, where: str) -> _Convolution:
    """Return how a kernel (out, in, *window) or (in, out, *window) lies by its window, which is no more than likely."""
    if _is_even(leaf.shape) or leaf.shape[0] > leaf.shape[1]:
        return _turned(leaf, f"{where} often have (in, out, *window)", False)
    return _Convolution(axes._replace(evidence=f"{axes.evidence}, if it is not transposed", certain=False), 1)


def _turned(leaf: Leaf, evidence: str, certain: bool) -> _Convolution:
    return _Convolution(Axes((0, *range(2, len(leaf.shape))), evidence, certain), 0, "transposed")


def _follow_relatives(found: dict[str, _Convolution], model: Model) -> None:
    """Take convolutions for transposed that nothing says it of, but of those in their module."""
    above = {model.leaves[full].module[:-1] for full, lies in found.items() if lies.kind == "transposed"}
    for full, (axes, _, kind) in found.items():
        leaf = model.leaves[full]
        shape = leaf.shape
        told = model.bias_of(leaf) is not None or model.following(leaf) is not None
        open_ = not kind and axes.inputs[0] == 1 and (shape[0] == shape[1] or (not told and shape[0] > shape[1]))
        if open_ and axes.certain and leaf.module[:-1] in above and leaf.module[-1].isdigit():
            found[full] = _guess(leaf, axes, "layers beside transposed ones")


def _find(model: Model) -> dict[str, _Convolution]:
    """Return how the kernels of all convolutions lie, and of which kind they are."""
    found: dict[str, _Convolution] = {}
    for leaf in model:
        if 2 < len(leaf.shape) < 6 and is_weight(leaf) and not heads(leaf, model) and not experts(leaf, model):
            lies = found[leaf.full] = _lie(leaf, model)
            if not lies.kind and _is_recurrent(leaf, model, lies):
                found[leaf.full] = lies._replace(kind="recurrent")
    _follow_relatives(found, model)
    plain = {full: model.leaves[full].shape[lies.channels] for full, lies in found.items() if not lies.kind}
    earliest = min(found, key=model.rank.__getitem__, default="")
    made = {n for leaf in model if is_weight(leaf) and len(leaf.shape) == 2 for n in leaf.shape}
    made |= {leaf.shape[0] for leaf in model if len(leaf.shape) == 1}
    first = {full for full, n in plain.items() if n == 3 or (full == earliest and n in (2, 4))}
    told = made | {lies.axes.sizes(model.leaves[full].shape)[1] for full, lies in found.items()}
    first |= {full for full, n in plain.items() if n == 4 and n not in told and not _is_in_groups(full, plain, model)}
    first |= _tell_depthwise(found, [full for full, n in plain.items() if n == 1], bool(first), model)
    open_ = not first and earliest in plain and not found[earliest].kind
    if open_ and plain[earliest] not in made:
        first = {earliest}
    perhaps = _read_the_data(found, plain, earliest, model) if open_ and not first else set[str]()
    kinds = dict.fromkeys(perhaps, "perhaps first") | dict.fromkeys(first, "first")
    return found | {full: found[full]._replace(kind=kind) for full, kind in kinds.items()}


def _read_the_data(found: dict[str, _Convolution], plain: dict[str, int], earliest: str, model: Model) -> set[str]:
    """Return the kernels with the channels of the earliest, few of them, that only a later layer makes: the output."""
    channels = plain[earliest]
    made = [model.rank[leaf.full] for leaf in model if leaf.full not in plain and channels in leaf.shape]
    alike = [full for full, n in plain.items() if n == channels and model.rank[full] < min(made, default=0)]
    return {full for full in alike if found[full].axes.sizes(model.leaves[full].shape)[1] >= 2 * channels}


def _is_recurrent(leaf: Leaf, model: Model, lies: _Convolution) -> bool:
    """Whether a kernel may hold the gates of a recurrent layer, as ConvLSTM's (4 * hidden, in + hidden, k, k)."""
    if {"recurrent", "recurrent_kernel"} & model.children[leaf.module] or {"ih", "hh"} <= model.beside(leaf):
        return True  # of Keras and flax, which have a kernel for the state beside that for the inputs
    inputs, outputs = leaf.shape[lies.channels], lies.axes.sizes(leaf.shape)[1]
    if len(leaf.shape) < 4 or inputs == 1 or lies.axes.fan_in(leaf.shape) == inputs:
        return False
    module = ".".join(leaf.module).lower()
    return bool(_RECURRENT.search(module)) or (inputs < outputs and bool(_CELL.search(module)))


def _is_in_groups(full: str, plain: dict[str, int], model: Model) -> bool:
    """Whether a kernel has groups, as ResNeXt's: few input channels, behind one in its block with as many outputs."""
    leaf = model.leaves[full]
    before = [model.leaves[other] for other in plain if model.rank[other] < model.rank[full]]
    return any(other.shape[0] == leaf.shape[0] and other.module[:-1] == leaf.module[:-1] for other in before)


def _tell_depthwise(found: dict[str, _Convolution], single: list[str], seen: bool, model: Model) -> set[str]:
    """Mark those of the kernels with one input channel that are depthwise, and return the others: the first ones."""
    patterns, first = Counter(map(pattern_of, single)), set[str]()
    for full in single:
        leaf, (axes, channels, _) = model.leaves[full], found[full]
        named = _DEPTHWISE.search(f"{leaf.own} {leaf.name.last}".lower()) is not None
        again = patterns[pattern_of(full)] > 1 or "in_proj" in model.beside(leaf)
        again |= _are_of_tokens(leaf, found, model)
        if axes.sizes(leaf.shape)[1] > 1 and (seen or first or named or again):
            found[full] = _Convolution(axes, channels, "depthwise")
        else:
            first.add(full)
    return first


def _are_of_tokens(leaf: Leaf, found: dict[str, _Convolution], model: Model) -> bool:
    """Whether a kernel of three axes reads tokens: it is behind their table, and no other reads what it makes."""
    tables = (table for table in model if len(table.shape) == 2 and _IN_TABLES & {*words_of(table.own)})
    if len(leaf.shape) != 3 or all(model.rank[table.full] > model.rank[leaf.full] for table in tables):
        return False
    reads = {model.leaves[full].shape[lies.channels] for full, lies in found.items()}
    return found[leaf.full].axes.sizes(leaf.shape)[1] not in reads


def convolution(leaf: Leaf, model: Model) -> Found | None:
    """Convolutions of one to three dimensions: in groups, depthwise, transposed, and the first one of a model."""
    if not 2 < len(leaf.shape) < 6 or not is_weight(leaf):
        return None
    if "bilinear" in words_of(leaf.own):
        axes = Axes((1, 2), "its axes are (out, in, in)", True)
        return scaled("linear", 1, axes, leaf, "a product of two inputs", "analogy")
    if "convolutions" not in model.memo:
        model.memo["convolutions"] = _find(model)
    axes, channels, kind = model.memo["convolutions"][leaf.full]
    rule, gain, why = "convolution", 2, f"a {kind} convolution" if kind else "a convolution"
    source = "analogy" if kind else "recipe"
    if kind == "first":
        size = leaf.shape[channels]
        rule, gain = "first convolution", 8
        why = f"the first convolution, of data with {size} {'channel' if size == 1 else 'channels'}"
        source = "recipe" if size == 1 else "analogy"
    if kind == "perhaps first":
        rule, gain, source = "first convolution", 8, "guess"
        why = "the first convolution, unless a layer makes its channels: then eta is half of that"
    if kind == "recurrent":
        axes = axes._replace(evidence=f"{axes.evidence}; of an LSTM eta would be (2 hidden)^-1/4", certain=False)
    if leaf.own in _GPT2 and leaf.shape[0] == 1:
        axes = axes._replace(evidence=f"{axes.evidence}; of a linear layer eta would be sqrt(1/fan-in)", certain=False)
    if not _may_be_stacked(leaf, model):
        return scaled(rule, gain, axes, leaf, why, source)
    return scaled(
        rule, gain, axes, leaf, f"{why}, unless it holds many layers in one array: then give overrides", "guess"
    )


def _may_be_stacked(leaf: Leaf, model: Model) -> bool:
    """Whether nothing but its axes says that it is a convolution: no name, no bias, and no small window of two axes."""
    bias = model.bias_of(leaf)
    if bias is not None and len(bias) == 1:  # of many layers it would have two axes
        return False
    if "conv" in leaf.full.lower() or len(leaf.shape) > 4:
        return False
    return len(leaf.shape) == 3 or min(max(leaf.shape[:2]), max(leaf.shape[2:])) > LARGEST_WINDOW
