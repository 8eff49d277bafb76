"""What a leaf is, by its name, its shape and its neighbours; each function knows one kind, and says None otherwise.

The numbers are those of the authors' models (docs/choosing.md). Where they have no such leaf, the number follows from
one that they have, and the words say from which.
"""

import math
import re
from collections.abc import Callable

from amos_ref.choosing.convolutions import convolution
from amos_ref.choosing.model import Axes, Found, Leaf, Model
from amos_ref.choosing.names import HEAD_WORDS, PROJECTION_WORDS, is_norm, side_of, words_of
from amos_ref.choosing.recurrent import recurrent
from amos_ref.choosing.weights import einsum, experts, heads, is_low_rank, linear, scaled

BIAS, GAIN = 0.5, 1.0
_BUFFERS = re.compile(
    r"running_(mean|var)|num_batches_tracked|position_ids|token_type_ids|inv_freq|masked_bias|relative_position_index"
    r"|relative_coords_table|rotary_emb|freqs(_cis)?|attn_mask|resample_filter|noise_const|w_avg|cluster_size|embed_avg|inited|_u|_v|mean|var(iance)?|count|moving_(mean|variance)|seed|rng.*"
)
_RELATIVE = re.compile(
    r"rel(ative)?(_?pos(ition)?)?(_?attn|_?attention)?_?(bias|embed|emb|table|h$|w$)|relpos_bias", re.I
)
_TOKEN_WORDS = {
    "cls",
    "class",
    "mask",
    "dist",
    "distillation",
    "reg",
    "register",
    "registers",
    "query",
    "prompt",
    "latents",
}
_EMBEDDING_WORDS = {
    "embed",
    "embedding",
    "embeddings",
    "emb",
    "wte",
    "wpe",
    "embs",
    "embedder",
    "codebook",
    "lookup",
}
_EMBEDDING_WORDS |= {"embeds", "vocab", "posembed"}
_SCORES = {"att", "att_src", "att_dst", "att_edge", "att_l", "att_r", "attn", "attn_l", "attn_r"}
_ROW_WORDS = {"user", "users", "item", "items", "entity", "relation", "node", "nodes", "word", "words", "char", "chars"}


def name_buffer(leaf: Leaf, model: Model) -> Found | None:
    """Statistics, indices and tables, which files hold beside the parameters."""
    last = leaf.name.last
    if not _BUFFERS.fullmatch(last) and not (last == "bias" and len(leaf.shape) == 4 and leaf.shape[:2] == (1, 1)):
        return None
    if (
        last in ("mean", "var", "variance", "count", "_u", "_v", "seed")
        and not is_norm(leaf.own)
        and leaf.name.tag == ""
        and (model.sibling(leaf, "mean") is None or model.sibling(leaf, "var", "variance") is None)
    ):
        return None
    return Found("buffer", None, None, "not a parameter: it gets no gradient", "buffer")


def name_relative(leaf: Leaf, model: Model) -> Found | None:
    """Relative-position biases, and embeddings of relative positions."""
    if not (_RELATIVE.search(leaf.name.last) or _RELATIVE.search(leaf.own)) or len(leaf.shape) < 2:
        return None
    if leaf.role == "bias" and _RELATIVE.search(leaf.own) is None:
        return None
    if model.bias_of(leaf) is not None:  # a layer that makes such biases
        return None
    if leaf.name.last == "relpos_embed":  # of the authors' model bert_rpe
        return Found("relative position", BIAS, (*leaf.shape[:-1], 1), "one vector for each distance", "recipe")
    if leaf.shape[-1] == model.width:
        eta = math.sqrt(2 / leaf.shape[-1])
        return Found(
            "relative position",
            eta,
            (*leaf.shape[:-1], 1),
            "one vector for each position, as an embedding has",
            "analogy",
        )
    return Found("relative position", BIAS, (), "one bias for each head and distance")


def name_bias(leaf: Leaf, model: Model) -> Found | None:
    """Biases, and the shift of a norm."""
    last = leaf.name.last.lower()
    if leaf.name.last == "B" and len(leaf.shape) > 1 and model.sibling(leaf, "weight", "kernel") is None:
        return None  # a matrix of a state space, or of low rank
    if leaf.role == "weight" and len(leaf.shape) == 2 and leaf.shape[1] == 1 and words_of(leaf.own)[-1:] == ("bias",):
        return Found("bias", BIAS, (leaf.shape[0], 1), "a table with one bias in each row", "analogy")
    if leaf.role != "bias" and last != "beta" and "bias" not in words_of(leaf.name.last) and last != "shift":
        return None
    if len(leaf.shape) > 2 and leaf.role != "bias":
        return Found("bias", BIAS, (), "by its name", "analogy")
    beside = model.sibling(leaf, "weight", "kernel")
    layer = beside is not None and len(beside.shape) > len(leaf.shape)
    told = layer or side_of(leaf.module) == "attention"  # (heads, dim), say
    why = "the shift of a norm" if (is_norm(leaf.own) and not layer) or last == "beta" else "a bias"
    return _one_slot("bias", BIAS, why, leaf, told)


def name_token(leaf: Leaf, model: Model) -> Found | None:
    """Class tokens and tables of positions that are parameters by themselves."""
    if leaf.role in ("weight", "kernel") or not leaf.shape:
        return None
    words = set(words_of(leaf.name.last))
    token = bool(words & _TOKEN_WORDS) and bool(words & {"token", "tokens", "embedding", "embeddings", "embed"})
    token |= len(leaf.shape) != 2 and bool(words & {"embed", "embedding", "emb"})
    token |= leaf.name.last in ("cls", "probe", "codevectors") and len(leaf.shape) > 1
    token |= bool(words & {"token", "tokens", "latents", "queries"}) and len(leaf.shape) > 2
    position = bool(words & {"pos", "position", "positional", "positions", "posembed"}) and not words & {"log"}
    if not token and not position:
        return None
    dim = leaf.shape[len(leaf.shape) - 1]
    eta, slot = math.sqrt(2 / max(dim, 1)), (*leaf.shape[:-1], 1)
    rule = "position" if position else "token"
    return Found(rule, eta, slot, f"one vector for each {rule}, as an embedding has", "analogy")


def name_gain(leaf: Leaf, model: Model) -> Found | None:
    """Gains of norms, and gains of layers by themselves."""
    last, words = leaf.name.last.lower(), set(words_of(leaf.name.last)) | set(words_of(leaf.own))
    ones = sum(n != 1 for n in leaf.shape) <= 1
    layer = bool(words & {"scale", "ls"} and "layer" in words | set(words_of(leaf.name.last)) and leaf.role != "weight")
    layer |= bool(re.fullmatch(r"ls\d*", leaf.own) or re.fullmatch(r"(lambda|gamma)_?\d", last))
    if leaf.role == "gamma" and not is_norm(leaf.own) and model.sibling(leaf, "beta") is None:
        layer |= model.sibling(leaf, "moving_mean") is None
    if layer and ones and not is_norm(leaf.own):
        return Found("layer scale", GAIN, (), "one gain for each channel, as a norm has", "analogy")
    if is_norm(leaf.own) and leaf.role in ("weight", "scale", "gamma", "g", "kernel", "gain"):
        if not ones and leaf.role in ("weight", "kernel") and not _may_be_a_norm(leaf, model):
            return None
        return _one_slot("norm", GAIN, "the gain of a norm", leaf, False)
    if is_norm(leaf.name.last) and len(leaf.shape) == 1 and leaf.role == leaf.name.last:
        return Found("norm", GAIN, (), "the gain of a norm, by its name")
    if not ones or leaf.name.tag:
        return None
    if "prelu" in words or leaf.own in ("act", "activation") or "slope" in words:
        return Found("slope", BIAS, (), "the slope of an activation, about as large as a bias", "analogy")
    bias = model.bias_of(leaf)
    if leaf.role in ("weight", "gamma", "g") and len(leaf.shape) == 1 and leaf.shape != (1,):
        if bias == leaf.shape or leaf.role == "gamma":
            return Found("norm", GAIN, (), "a gain beside a bias of its shape, as a norm has")
        return Found("norm", GAIN, (), "a vector of weights: the gain of a norm without a bias", "guess")
    if leaf.role == "scale" and "logit" not in words:
        sure = model.bias_of(leaf) == leaf.shape and leaf.shape != ()
        return Found("norm", GAIN, (), "a gain by its name", "recipe" if sure else "analogy")
    return None


def _may_be_a_norm(leaf: Leaf, model: Model) -> bool:
    """Whether a weight of several axes can be a norm's: a layer that makes the gains of a norm has norm in its name."""
    bias, last = model.bias_of(leaf), words_of(leaf.own)[-1:]
    return bias == leaf.shape if bias is not None else any(map(is_norm, last))


def name_norm_of_matrix(leaf: Leaf, model: Model) -> Found | None:
    """Gains of a norm over several axes, which its bias has too."""
    if leaf.role == "weight" and len(leaf.shape) > 1 and model.bias_of(leaf) == leaf.shape:
        return _one_slot("norm", GAIN, "a gain beside a bias of its shape, as a norm has", leaf, False)
    return None


def _one_slot(rule: str, eta: float, why: str, leaf: Leaf, told: bool) -> Found:
    """Return one slot for a bias or gain; of two axes that nothing explains it is a guess: one may count layers."""
    sides = [n for n in leaf.shape if n != 1]
    if told or len(sides) != 2 or len(leaf.shape) != 2:
        return Found(rule, eta, (), why)
    slots = f"overrides={{{leaf.full!r}: (None, {(leaf.shape[0], 1)})}}"
    return Found(rule, eta, (), f"{why}, unless it holds {leaf.shape[0]} layers: then give {slots}", "guess")


def name_state_space(leaf: Leaf, model: Model) -> Found | None:
    """Logarithms, gates, mixing weights and skips: state-space layers, linear attention, temperatures."""
    last, words = leaf.name.last, set(words_of(leaf.name.last))
    if leaf.role in ("weight", "kernel") and leaf.shape not in ((), (1,)):
        return None
    if len(leaf.shape) > 1 and re.fullmatch(r"time_\w+_w\d", last):  # RWKV
        axes = Axes((len(leaf.shape) - 2,), "parameters that inputs are multiplied by have the outputs last", True)
        return scaled("linear", 1, axes, leaf, "a factor of a matrix of low rank", "analogy")
    if (last == "D" and len(leaf.shape) <= 2) or ("skip" in words and sum(n != 1 for n in leaf.shape) == 1):
        return Found("skip", GAIN, (), "the gain of a path around a state space or a layer", "analogy")
    logs = {"log", "decay", "faaaa", "first"} if "time" in words else {"log"}
    if words & logs or ("logit" in words and "scale" in words):
        why = "a logarithm: a change of 1 is a factor of e"
        return Found("logarithm", GAIN, (), why, "guess" if not leaf.shape else "analogy")
    if (
        words & {"gate", "gates", "gating", "alpha", "rezero", "resweight", "xattn"}
        and sum(n != 1 for n in leaf.shape) < 2
    ):
        return Found(
            "gate", BIAS, (), "it starts at 0, as a bias does", "guess" if len(words & {"alpha"}) else "analogy"
        )
    if words & {"sink", "sinks"}:
        return Found("gate", BIAS, (), "one logit for each head, as a bias", "analogy")
    if words & {"mix", "maa", "mixing"} or (last.startswith("x_") and "time" in model.children.get((), ())):
        return Found("mixing", BIAS, (), "shares of two inputs, between 0 and 1", "analogy")
    return None


def name_score(leaf: Leaf, model: Model) -> Found | None:
    """Vectors that attention over a graph multiplies the features of a node by, one for each head."""
    if leaf.name.last not in _SCORES or len(leaf.shape) != 3 or leaf.shape[0] != 1:
        return None
    axes = Axes((2,), "its axes are (1, heads, dim)", True)
    return scaled("linear", 1, axes, leaf, "a vector for each head, as a layer with one output", "analogy")


def name_weight_norm(leaf: Leaf, model: Model) -> Found | None:
    """The magnitude that torch's weight_norm takes out of a weight; its direction is treated as the weight."""
    if leaf.name.tag not in ("g", "original0"):
        return None
    other = model.leaves.get(leaf.full[: -len(leaf.name.tag)] + {"g": "v", "original0": "original1"}[leaf.name.tag])
    if other is None:
        return None
    inner = next((found for kind in (heads, experts, convolution, linear) if (found := kind(other, model))), None)
    if inner is None or inner.eta is None:
        return None
    share = math.prod(other.shape) / max(math.prod(leaf.shape), 1)
    why = f"the length of a vector of {share:.0f} entries of size {inner.eta:.4g}"
    return Found("weight norm", inner.eta * math.sqrt(share), (), why, "analogy")


def name_embedding(leaf: Leaf, model: Model) -> Found | None:
    """Tables with one row of numbers a token, position or category."""
    if len(leaf.shape) != 2 or model.bias_of(leaf) is not None or leaf.name.tag or is_low_rank(leaf):
        return None
    last, own = set(words_of(leaf.name.last)), words_of(leaf.own)
    own_says = bool(
        set(own) & (_EMBEDDING_WORDS | {"token", "tokens", "pos"})
        or leaf.own.endswith(("embedding", "embeddings", "embed"))
        or leaf.own == "shared"
    ) and not (set(own) & PROJECTION_WORDS)
    eta, slot = math.sqrt(2 / max(leaf.shape[1], 1)), (leaf.shape[0], 1)
    if last & _EMBEDDING_WORDS and not last & PROJECTION_WORDS:
        return Found("embedding", eta, slot, "an embedding by its name")
    if leaf.role == "weight" and own_says:
        return Found("embedding", eta, slot, "an embedding by its module's name")
    vocabulary, dim = leaf.shape
    alone = vocabulary == model.rows or model.biased
    if {"factor", "factors"} & (last | set(own)):
        why = "one vector of factors for each row, as an embedding has"
        return Found("embedding", eta, slot, why, "analogy" if leaf.shape[0] > leaf.shape[1] else "guess")
    if leaf.role == "weight" and set(own) & _ROW_WORDS and not set(own) & HEAD_WORDS:
        return Found(
            "embedding", eta, slot, "its module's name says what has a vector each; if not, give overrides", "guess"
        )
    if leaf.role == "weight" and not set(own) & HEAD_WORDS and vocabulary >= 8 * dim and alone:
        why = "it has no bias, and far more rows than columns; if it is a linear layer, give overrides"
        if dim == 1:
            why = "a table with one bias in each of many rows; if it is a linear layer, give overrides"
            return Found("bias", BIAS, slot, why, "guess")
        return Found("embedding", eta, slot, why, "guess")
    return None


#: In this order; the first that knows the leaf is right.
LEAF_KINDS: tuple[Callable[[Leaf, Model], Found | None], ...] = (
    name_buffer,
    recurrent,
    name_relative,
    name_norm_of_matrix,
    name_bias,
    name_token,
    name_state_space,
    name_gain,
    name_weight_norm,
    name_score,
    name_embedding,
    einsum,
    heads,
    experts,
    convolution,
    linear,
)


def recognise(leaf: Leaf, model: Model) -> Found:
    """Return what a leaf is taken for."""
    for kind in LEAF_KINDS:
        if found := kind(leaf, model):
            return found
    return Found("unknown", None, None, f"neither its name nor its shape {leaf.shape} says what it is", "unknown")
