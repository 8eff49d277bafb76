"""Weights of linear layers: by themselves, in attention with an axis of heads, and of experts."""

import itertools
import math
from collections.abc import Iterator

from amos_ref.choosing.model import Axes, Found, Leaf, Model
from amos_ref.choosing.names import (
    GRAPH_WORDS,
    HEAD_WORDS,
    INTO_HEADS,
    LAYER_WORDS,
    PROJECTION_WORDS,
    side_of,
    words_of,
)

_QUERY = {"q", "query", "queries"}
_OUT_OF_HEADS = {"out", "o", "output", "proj"}
_DOWN = {"fc2", "linear2", "lin2", "wo", "w2", "down", "down_proj", "dense_4h_to_h", "fc_out", "pwconv2", "dense_1"}
_DOWN |= {"c_proj", "out", "w_out", "wo", "w_down", "proj_out", "linear_out", "output_dense", "ffn_output", "lin_2"}
_DOWN |= {"output_linear"}
_SHORT = {"wq", "wk", "wv", "wo", "wqkv", "wkv"}  # parameters of attention, as they are called by hand
_ENDS = {"encoder", "decoder", "enc", "dec", "project", "projection", "embed", "head"}
_UP = {"gate", "up", "w1", "w3", "wi", "in", "fc1", "v1", "wi_0", "wi_1"}
_FIRST_LAYERS = _UP | {"gate_proj", "up_proj", "gate_up_proj", "linear1", "lin1", "c_fc", "pwconv1", "dense_h_to_4h"}
_FIRST_LAYERS |= {"input_linear"}
_LOW_RANK = {"lora", "adapter", "adapters"}  # their down is the way in, and they have no MLP's scales


def is_weight(leaf: Leaf) -> bool:
    """Whether a leaf is the weight of a layer, or its direction where weight_norm has taken it apart."""
    return leaf.role in ("weight", "kernel") and leaf.name.tag in ("", "v", "orig", "original", "original1", "0")


def scaled(rule: str, gain: float, axes: Axes, leaf: Leaf, why: str, source: str = "recipe") -> Found:
    """Return eta = sqrt(gain / fan_in), and slots that average over the inputs."""
    fan = axes.fan_in(leaf.shape)
    why = f"{why}; fan-in {fan}: {axes.evidence}"
    return Found(rule, math.sqrt(gain / fan), axes.slot(leaf.shape), why, source if axes.certain else "guess")


def _in_attention(leaf: Leaf, model: Model) -> bool:
    side = side_of(leaf.module)
    if side:
        return side == "attention"
    return bool(INTO_HEADS & {*words_of(leaf.own)}) or leaf.module[:-1] in model.attending


def heads(leaf: Leaf, model: Model) -> Found | None:
    """Layers of attention with an axis of heads, as flax and Keras have them."""
    ndim, words = len(leaf.shape), {*words_of(leaf.own)}
    if ndim < 3 or not is_weight(leaf) or not (leaf.role == "kernel" or leaf.name.last.startswith("W_")):
        return None
    if not words & (INTO_HEADS | _OUT_OF_HEADS) or side_of(leaf.module) == "mlp" or "conv" in words:
        return None
    axes, into = model.axes(leaf), bool(words & INTO_HEADS)
    if model.bias_of(leaf) is None:
        start = ndim - 3
        lies = "(in, heads, dim)" if into else "(heads, dim, out)"
        axes = Axes((start,) if into else (start, start + 1), f"its axes are {lies}", True)
    elif not into and "attention" not in side_of(leaf.module):
        return None
    return _attention(leaf, axes, model) or scaled("linear", 1, axes, leaf, "attention with an axis of heads")


def _attention(leaf: Leaf, axes: Axes, model: Model) -> Found | None:
    """T5's queries, which are not divided by the root of the size of a head."""
    if model.family != "t5" or not _QUERY & {*words_of(leaf.own)}:
        return None
    outputs = axes.sizes(leaf.shape)[1]
    dim = leaf.shape[-1] if len(leaf.shape) == 3 else outputs // model.heads if model.heads else 64
    fan = axes.fan_in(leaf.shape) * dim
    why = f"a query of T5, smaller by sqrt({dim}), as T5 does not divide by it in attention; {axes.evidence}"
    return Found("query", math.sqrt(1 / fan), axes.slot(leaf.shape), why, "recipe" if axes.certain else "guess")


def einsum(leaf: Leaf, model: Model) -> Found | None:
    """Layers that flax models write as products of tensors, as Gemma has them; and queries, keys and values in one."""
    words, ndim = {*words_of(leaf.own), *words_of(leaf.name.last)}, len(leaf.shape)
    if ndim < 3 or "conv" in words:
        return None
    into = bool(words & (INTO_HEADS | {"gating"}))
    if "einsum" in words and (into or words & _OUT_OF_HEADS or "attn" in words):
        lies = "(..., in, dim)" if into else "(heads, dim, out)"
        axes = Axes((ndim - 2,) if into else tuple(range(ndim - 1)), f"its axes are {lies}", True)
        return scaled("linear", 1, axes, leaf, "a product of tensors")
    if ndim == 3 and leaf.shape[0] in (2, 3) and leaf.role == "weight" and words & {"qkv", "kv"}:
        axes = Axes((1,), "its axes may be (which, in, out)", False)
        return scaled("linear", 1, axes, leaf, "queries, keys and values in one array")
    return None


def experts(leaf: Leaf, model: Model) -> Found | None:
    """Layers with a leading axis of experts or of layers."""
    ndim = len(leaf.shape)
    if ndim != 3:
        return None
    words = {*words_of(leaf.own), *words_of(leaf.name.last), leaf.own.lower(), leaf.name.last.lower()}
    down = bool(words & {"down", "wo", "w2", "fc2", "out", "4h"}) or leaf.own in _DOWN
    axes = model.axes(leaf)
    if is_weight(leaf) and axes.inputs[0] > 0 and axes.inputs[-1] < ndim - 1:
        return scaled("linear", 2 if down else 1, axes, leaf, "linear layers in one array")
    if not _are_of_experts(leaf) or "conv" in words:
        return None
    outs_last = not leaf.name.last.endswith("weight")
    known = model.width in leaf.shape[1:] and leaf.shape[1] != leaf.shape[2] and (down or words & _FIRST_LAYERS)
    if known:
        outs_last = (leaf.shape[2] == model.width) is down
    lies = "(experts, in, out)" if outs_last else "(experts, out, in)"
    axes = Axes((1 if outs_last else 2,), f"its axes are {lies}", bool(known))
    return scaled("second layer" if down else "linear", 2 if down else 1, axes, leaf, "a layer of experts", "analogy")


def _are_of_experts(leaf: Leaf) -> bool:
    return any("expert" in part.lower() or "moe" in words_of(part) for part in leaf.module)


# linear layers


def _linear_axes(leaf: Leaf, model: Model) -> Axes | None:
    if len(leaf.shape) != 2:
        return None
    if is_weight(leaf):
        return model.axes(leaf)
    if {"proj", "projection", "linear"} & {*words_of(leaf.name.last)}:
        return Axes((0,), "parameters that inputs are multiplied by have the outputs last", True)
    if leaf.name.last in _SHORT:
        return Axes((0,), "nothing says which axis has the outputs, and most put them last", False)
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
            if axes is not None and not _in_attention(leaf, model) and is_weight(leaf):
                sizes = axes.sizes(leaf.shape)
                for block in _blocks(leaf):
                    found.setdefault((block, *sizes), []).append(leaf.full)
    return model.memo["pairs"]


def _are_ends(leaf: Leaf, other: Leaf, block: tuple[str, ...]) -> bool:
    """Whether two layers are at the ends of a model and not in one MLP: an encoder and a decoder, two projections."""
    parts = [layer.module[len(block)] for layer in (leaf, other)]
    return parts[0] != parts[1] and bool(_ENDS & {word for part in parts for word in words_of(part)})


def _second(leaf: Leaf, axes: Axes, model: Model) -> Found | None:
    """The second layer of an MLP, whose inputs come out of an activation; a guess where it may be one."""
    if _in_attention(leaf, model):
        return None
    into = leaf.own.lower() in _FIRST_LAYERS and not (leaf.own == "w3" and "w12" in model.beside(leaf))  # of DINOv2
    if into or is_low_rank(leaf):
        return None
    (inputs, outputs), doubt = axes.sizes(leaf.shape), ""
    mlp, named = side_of(leaf.module) == "mlp", leaf.own.lower() in _DOWN or "down" in words_of(leaf.own)
    for first, made, block in _partners(leaf, inputs, outputs, model):
        if mlp and _are_one_and_two(first.own, leaf.own):
            named = True
        if first is leaf or (made == outputs and not named) or _are_ends(leaf, first, block):
            continue
        after = model.comes_after(leaf, first)
        words = f"the second layer of an MLP, after {_called(first)!r} ({outputs} -> {made})"
        if (mlp and named) or (inputs > outputs and (mlp or after or (named and after is None))):
            return scaled("second layer", 2, axes, leaf, words)
        if inputs > outputs and after is None:
            doubt = f"a linear layer, unless it is {words}, with sqrt(2) times this eta: sorted names do not tell"
    if mlp and named and inputs > outputs:
        return scaled("second layer", 2, axes, leaf, "the second layer of an MLP, by its name")
    return scaled("linear", 1, axes, leaf, doubt, "guess") if doubt else None


def _partners(leaf: Leaf, inputs: int, outputs: int, model: Model) -> Iterator[tuple[Leaf, int, tuple[str, ...]]]:
    """Yield the layers that may be the first of a layer's MLP, with their outputs and the block that holds both."""
    for block in _blocks(leaf):
        for made in (inputs, 2 * inputs) if side_of(leaf.module) == "mlp" else (inputs,):
            for first in _pairs(model).get((block, outputs, made), ()):
                yield model.leaves[first], made, block


def _are_one_and_two(first: str, second: str) -> bool:
    """Whether two layers are called alike but for their numbers, 1 and 2."""
    return first[-1:] == "1" and second[-1:] == "2" and first[:-1] == second[:-1]


def is_low_rank(leaf: Leaf) -> bool:
    """Whether a layer is half of a product of low rank that is added to another one: LoRA, an adapter."""
    return any(_LOW_RANK & {*words_of(part)} for part in (*leaf.module, leaf.name.last))


def _called(leaf: Leaf) -> str:
    """Return what a layer is called: the end of its module's name, with the number that it may have."""
    if not leaf.module:
        return leaf.full
    return leaf.own if leaf.own == leaf.module[len(leaf.module) - 1] else ".".join(leaf.module[-2:])


def _hidden(model: Model) -> set[str]:
    """Return the layers between a network of convolutions and its last layer, as the authors' MNIST model has one."""
    if "hidden" in model.memo:
        return model.memo["hidden"]
    found = model.memo["hidden"] = set()
    if model.family in ("cnn", "mnist"):
        layers = [leaf for leaf in model if len(leaf.shape) == 2 and is_weight(leaf)]
        layers.sort(key=lambda leaf: model.rank[leaf.full])
        images = [model.rank[leaf.full] for leaf in model if len(leaf.shape) > 2 and is_weight(leaf)]
        sizes = {leaf.full: model.axes(leaf).sizes(leaf.shape) for leaf in layers}
        reads = dict[tuple[str, ...], int]()  # what the first layer of each module reads
        for leaf in layers:
            reads.setdefault(leaf.module[:-1], sizes[leaf.full][0])
        last = layers[-1].module[:-1] if layers else ()
        for leaf, after in itertools.pairwise(layers):
            above = leaf.module[:-1]
            behind = model.rank[leaf.full] > min(images, default=0)
            beside = bool(last and above) and above[:-1] == last[:-1] and reads[above] == reads[last]  # several heads
            head = behind if above == last else beside and (behind or not model.ordered)
            if head and not (above and above[-1].isdigit()) and sizes[leaf.full][1] == sizes[after.full][0]:
                found.add(leaf.full)
    return found


def linear(leaf: Leaf, model: Model) -> Found | None:
    """Linear layers."""
    axes = _linear_axes(leaf, model)
    if axes is None:
        return None
    if query := _attention(leaf, axes, model) if _in_attention(leaf, model) else None:
        return query
    if second := _second(leaf, axes, model):
        return second
    if leaf.full in _hidden(model):
        source = "recipe" if model.family == "mnist" else "analogy"
        return scaled(
            "hidden layer", 2, axes, leaf, "a layer after an activation, as Dense_0 of the authors' MNIST model", source
        )
    inputs, outputs = axes.sizes(leaf.shape)
    if not is_weight(leaf) and side_of(leaf.module) == "mlp" and inputs > outputs:
        return scaled("second layer", 2, axes, leaf, "the second layer of an MLP, by its shape", "guess")
    if _may_be_a_table(leaf, model):
        return scaled(
            "linear", 1, axes, leaf, "a linear layer, unless it is a table of vectors: then give overrides", "guess"
        )
    known = is_weight(leaf) and not is_low_rank(leaf)
    return scaled("linear", 1, axes, leaf, "a linear layer", "recipe" if known else "analogy")


def _may_be_a_table(leaf: Leaf, model: Model) -> bool:
    """Whether no bias and no name says that a weight of torch is a layer's and not an embedding's."""
    if leaf.role != "weight" or not leaf.own or leaf.module[-1].isdigit() or model.bias_of(leaf) is not None:
        return False
    words = {*words_of(leaf.own)}
    named = words & (PROJECTION_WORDS | HEAD_WORDS | LAYER_WORDS | GRAPH_WORDS | INTO_HEADS | _UP | _DOWN)
    return not (named or leaf.own.lower() in _DOWN | _UP or side_of(leaf.module))
