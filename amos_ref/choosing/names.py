"""The parts of a leaf's name: what it is called, in which module, and the words of both."""

import functools
import re
from typing import NamedTuple

_SEPARATORS = re.compile(r"[./\[\]'\"]+")
_NAME_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_AFFIXED = re.compile(
    r"(?P<before>.+)_(?P<role>weight|bias|kernel|w|b)"
    r"|(?P<of>output|depthwise|pointwise)_weights"  # of TensorFlow 1
    r"|(?P<short>weights?|bias(?:es)?|kernel|[WwBb])(?:_(?P<after>\w+)|(?P<number>\d+))"
)
_NORMALISED = re.compile(r"(weight)_(g|v|orig)")  # by torch.nn.utils.weight_norm and spectral_norm
_GENERIC = frozenset({"default", "module", "base", "wrapped"})
_ROLES = {"w": "weight", "weights": "weight", "b": "bias", "biases": "bias", "offset": "bias"}
_ROLES |= {"coef_": "weight", "intercept_": "bias"}  # scikit-learn
_NORMS = frozenset({"ln", "bn", "gn", "grn", "rms", "normalization", "normalizer", "instancenorm"})
_ATTENTION_WORDS = frozenset({"attn", "attention", "selfattention", "mha", "selfattn", "crossattention"})
INTO_HEADS = frozenset({"q", "k", "v", "query", "key", "value", "queries", "keys", "values", "qkv", "kv"})
GRAPH_WORDS = frozenset({"gc", "gcn", "graph", "sage", "gat", "cheb", "gin", "conv"})  # of weights with two axes
PROJECTION_WORDS = frozenset(
    {"proj", "projection", "project", "linear", "dense", "mapping", "fc", "out", "head", "conv", "unembed"}
)
HEAD_WORDS = frozenset(
    {"head", "heads", "output", "out", "decoder", "logits", "classifier", "score", "unembed", "predictions", "fc"}
    | {"lora", "proj", "projection", "dense", "linear", "lin", "final", "generator", "projector", "pred"}
    | {"prediction", "cls"}
)
LAYER_WORDS = frozenset(
    {"layer", "layers", "pooler", "pool", "reduction", "transform", "receptance", "gate", "router", "to", "mlp"}
)
_MLP_WORDS = frozenset({"mlp", "ffn", "ff", "feedforward", "feed", "intermediate", "experts"})


@functools.lru_cache(maxsize=1 << 16)
def words_of(part: str) -> tuple[str, ...]:
    """Return the words of a part of a name in lower case: "LayerNorm_0" has layer, norm and 0."""
    return tuple(word.lower() for word in _NAME_WORDS.findall(part))


class Name(NamedTuple):
    """A leaf's name, taken apart."""

    module: tuple[str, ...]  # the parts of the name that lead to the leaf
    own: str  # what the module is called: the last part that is not a number
    last: str  # the last part as it is written, such as "in_proj_weight"
    role: str  # what the leaf is in its module: "weight", "bias", "kernel", "scale" or its own name
    tag: str  # "g", "v", "original0", ...: which part of a weight that is normalised; "" elsewhere


def parse(name: str) -> Name:
    """Take the name of a leaf apart, whichever library wrote it."""
    parts = [part for part in _SEPARATORS.split(name.removesuffix(":0")) if part]
    if len(parts) > 1 and parts[-1] == "value":  # of a variable of flax's nnx
        parts.pop()
    tag, module, last = "", tuple(parts[:-1]), parts[-1] if parts else ""
    role = last.lower() if len(last) < 3 else last
    if len(parts) > 2 and parts[-3] == "parametrizations":
        tag, module, last = last, tuple(parts[:-3]), parts[-2]
        role = last
    elif normalised := _NORMALISED.fullmatch(last):
        role, tag = normalised[1], normalised[2]
    elif affixed := _AFFIXED.fullmatch(last):
        role = (affixed["role"] or affixed["short"] or "weight").lower()
        module = (*module, affixed["before"] or affixed["after"] or affixed["number"] or affixed["of"])
    own = next((part for part in reversed(module) if not part.isdigit() and part not in _GENERIC), "")
    return Name(module, own, last, _ROLES.get(role, role), tag)


@functools.lru_cache(maxsize=1 << 16)
def is_norm(part: str) -> bool:
    """Whether this is what a normalisation is called."""
    return any(word in _NORMS or word.endswith("norm") for word in words_of(part)) or "Norm" in part


@functools.lru_cache(maxsize=1 << 16)
def _side(part: str) -> str:
    words = words_of(part)
    if any(word in _MLP_WORDS for word in words) or "mlp" in part.lower():
        return "mlp"
    return "attention" if any(word in _ATTENTION_WORDS or word.endswith("attn") for word in words) else ""


def side_of(module: tuple[str, ...]) -> str:
    """Return "attention", "mlp" or "": in which half of a transformer's block a module is, by the innermost name."""
    return next((side for part in reversed(module) if (side := _side(part))), "")
