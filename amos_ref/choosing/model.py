"""A model's leaves by name and shape, with what stands around each of them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from amos_ref.choosing.names import GRAPH_WORDS, INTO_HEADS, Name, is_norm, parse, side_of, words_of
from amos_ref.dtypes import Shape

_DIGITS = re.compile(r"\d+")
_PARTS = re.compile(r"[./]")
_INPUT_WORDS = {"stem", "input", "encoder", "backbone", "features", "embed", "embedding", "embeddings"}
_OUTPUT_WORDS = {"decoder", "head", "heads", "classifier", "output", "logits", "predictions"}
_RELATIVE_BIAS = re.compile(r"relative_attention_bias|relpos_bias|rel_embedding$")
_TORCH_WEIGHT = re.compile(r"weight(?!s)")
_ORDERS = {"out-in": "(out, in)", "in-out": "(in, out)"}
_LSTM = re.compile(r"weight_hh|recurrent_kernel|lstm", re.I)


class Leaf(NamedTuple):
    """One parameter array: its name, taken apart, and its shape."""

    full: str  # the name
    shape: Shape
    name: Name
    own: str  # as in the name taken apart
    role: str
    module: tuple[str, ...]


def _leaf(full: str, shape: Shape, shapes: Mapping[str, Shape]) -> Leaf:
    name = parse(_name_variable(full, shapes))
    return Leaf(full, shape, name, name.own, name.role, name.module)


def _name_variable(full: str, shapes: Mapping[str, Shape]) -> str:
    """Return the name with "kernel" or "bias" for what files of Keras 3 only number, where a bias has the outputs."""
    layer, _, number = full.rpartition("/vars/")
    kernel, bias = shapes.get(f"{layer}/vars/0", ()), shapes.get(f"{layer}/vars/1")
    if number not in ("0", "1") or len(kernel) < 2 or bias != kernel[-1:]:
        return full
    return f"{layer}/{'bias' if int(number) else 'kernel'}"


class Axes(NamedTuple):
    """Over which axes of a weight a unit takes its inputs."""

    inputs: tuple[int, ...]
    evidence: str  # in words
    certain: bool

    def fan_in(self, shape: Shape) -> int:
        """Return how many numbers each output is made of."""
        fan = 1
        for i in self.inputs:
            fan *= shape[i]
        return max(fan, 1)

    def slot(self, shape: Shape) -> Shape:
        """Return the slot shape that averages over the inputs."""
        return tuple(1 if i in self.inputs else n for i, n in enumerate(shape))

    def sizes(self, shape: Shape) -> tuple[int, int]:
        """Return (inputs, outputs)."""
        outputs = 1
        for i, n in enumerate(shape):
            outputs *= 1 if i in self.inputs else n
        return self.fan_in(shape), outputs


class Found(NamedTuple):
    """What a leaf is taken for."""

    rule: str
    eta: float | None
    slot_shape: Shape | None
    why: str
    source: str = "recipe"  # or "analogy", "guess", "unknown", "buffer"


class Model:
    """All leaves of a model, and what the rules ask about more than one of them.

    Parameters
    ----------
    shapes : dict of str to tuple of int
    layout : {None, "out-in", "in-out"}
        How weights are laid out whose neighbours do not say it.
    family : str, optional
        What the caller says that the model is.

    Attributes
    ----------
    family : str
        What was given, or one of "t5", "lstm", "mnist", "cnn" whose recipes differ from the table, or "".
    heads : int or None
        Heads of attention, where a table of relative positions tells them.
    width : int or None
        The size of the vectors that most layers read and write: 768 of BERT-base.
    rank : dict
        The place of every leaf in the order of the model, as far as that is known.
    rows : int
        The most rows that a matrix has.
    biased : bool
        Whether half of the matrices or more have a bias beside them.
    attending : set of tuple
        The modules that hold layers which are called query, key or value.
    memo : dict
        What rules found out about the model as a whole.
    """

    leaves: dict[str, Leaf]
    ordered: bool
    rank: dict[str, int]
    width: int | None
    heads: int | None
    rows: int
    biased: bool
    attending: set[tuple[str, ...]]
    family: str

    def __init__(self, shapes: Mapping[str, Shape], layout: str | None, family: str | None = None) -> None:
        self.layout = layout
        self.memo: dict[str, Any] = {}
        self.leaves = {full: _leaf(full, shape, shapes) for full, shape in shapes.items()}
        self.modules: dict[tuple[str, ...], dict[str, Leaf]] = defaultdict(dict)
        self.children: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for leaf in self.leaves.values():
            self.modules[leaf.module].setdefault(leaf.role, leaf)
            for depth in range(len(leaf.module)):
                self.children[leaf.module[:depth]].add(leaf.module[depth])
            self.children[leaf.module].add(leaf.name.last)
        names = list(self.leaves)
        self.ordered = names != sorted(names)
        if not self.ordered:  # as trees have them: their order says nothing, numbers aside
            names.sort(key=order_of)
        self.rank = {full: i for i, full in enumerate(names)}
        gains = Counter(leaf.shape[0] for leaf in self._vectors() if is_norm(leaf.own))
        self.width = gains.most_common(1)[0][0] if gains else None
        self._votes: dict[str, Counter[str]] = defaultdict(Counter)
        for leaf in self.leaves.values():
            if len(leaf.shape) == 2 and leaf.role == "weight" and (split := self._splits(leaf)) and len(split) == 1:
                way = "out-in" if split[0][0] else "in-out"
                self._votes[_kind(leaf)][way] += 1
                self._votes[""][way] += 1
        tables = [
            leaf.shape for leaf in self.leaves.values() if _RELATIVE_BIAS.search(leaf.full) and len(leaf.shape) == 2
        ]
        self.heads = min(tables[0]) if tables else None
        self.rows = max((leaf.shape[0] for leaf in self if len(leaf.shape) == 2), default=0)
        layers = [leaf for leaf in self if len(leaf.shape) == 2 and leaf.role == "weight"]
        self.biased = 2 * sum(self.bias_of(leaf) is not None for leaf in layers) >= len(layers)
        self.attending = {leaf.module[:-1] for leaf in self if INTO_HEADS & {*words_of(leaf.own)}}
        self.family = family or self._recognise_family()

    def _recognise_family(self) -> str:
        """Return the family of a model whose recipe differs from the table, or ""."""
        modules = {leaf.own for leaf in self} | {leaf.name.last for leaf in self}
        if self.heads and modules & {"shared", "token_embedder"}:
            return "t5"
        attends = any(side_of(leaf.module) == "attention" for leaf in self)
        embeds = any("emb" in leaf.full.lower() for leaf in self)
        if any(_LSTM.search(leaf.full) for leaf in self):
            return "" if attends or any(len(leaf.shape) > 2 and leaf.own != "core" for leaf in self) else "lstm"
        if {leaf.own for leaf in self} == {"Conv_0", "Conv_1", "Dense_0", "Dense_1"}:
            return "mnist"
        windows = any(len(leaf.shape) > 2 and leaf.role in ("weight", "kernel") for leaf in self)
        return "cnn" if windows and not attends and not embeds else ""

    def _vectors(self) -> Iterable[Leaf]:
        return (leaf for leaf in self.leaves.values() if len(leaf.shape) == 1 and leaf.role in ("weight", "scale"))

    def sibling(self, leaf: Leaf, *roles: str) -> Leaf | None:
        """Return the leaf of the same module that has one of these roles."""
        module = self.modules[leaf.module]
        return next((module[role] for role in roles if role in module), None)

    def bias_of(self, leaf: Leaf) -> Shape | None:
        """Return the shape of the bias beside a weight, or None; (out,) where equinox has (out, 1, 1)."""
        bias = self.sibling(leaf, "bias")
        if bias is None or bias is leaf:
            return None
        return bias.shape[:1] if is_of_equinox(leaf.shape, bias.shape) else bias.shape

    def beside(self, leaf: Leaf, up: int = 1) -> set[str]:
        """Return what the modules and leaves beside this leaf's module (or `up` levels above) are called."""
        return self.children[leaf.module[:-up]] if len(leaf.module) >= up else set()

    def _splits(self, leaf: Leaf) -> list[tuple[int, int]]:
        """Return the runs of axes (start, stop) without which the weight's shape is its bias's."""
        bias, shape = self.bias_of(leaf), leaf.shape
        if bias is None or not 0 < len(bias) < len(shape):
            return []
        size = len(shape) - len(bias)
        return [(i, i + size) for i in range(len(bias) + 1) if shape[:i] + shape[i + size :] == bias]

    def axes(self, leaf: Leaf) -> Axes:
        """Return over which axes a weight takes its inputs: by its bias, by leaves like it, or by convention."""
        ndim, splits = len(leaf.shape), self._splits(leaf)
        outs_first, why, certain = self._convention(leaf)
        wanted = (1, ndim) if outs_first else (0, ndim - 1)
        if (len(splits) == 1 and splits[0] != wanted) or (splits and wanted not in splits):
            return Axes(tuple(range(*splits[0])), f"its bias has {_words(self.bias_of(leaf))}", len(splits) == 1)
        if len(splits) == 1:
            certain, why = True, f"its bias has {_words(self.bias_of(leaf))}"
        return Axes(tuple(range(*wanted)), why, certain)

    def _convention(self, leaf: Leaf) -> tuple[bool, str, bool]:
        """Return whether outputs come first, why, and whether that is certain."""
        flat = len(leaf.shape) == 2 and leaf.role == "weight"
        graph = flat and bool(GRAPH_WORDS & {*words_of(leaf.own)})  # libraries differ in the axes of these
        keys = {_kind(leaf): f"other {_kind(leaf)!r} layers", "": "other layers"} if flat else {}
        for key, whose in keys.items():
            votes = self._votes.get(key)
            if votes and len(votes) == 1 and (key or not graph):
                way = next(iter(votes))
                return way == "out-in", f"the biases of {whose} show that weights are {_ORDERS[way]}", True
        if self.layout:
            return self.layout == "out-in", f"the layout that was given is {_ORDERS[self.layout]}", True
        if leaf.name.last == "kernel" or leaf.role == "kernel":
            return False, "flax and Keras have the outputs last", True
        if is_of_torch(leaf) and not graph:
            return True, "torch has the outputs first", True
        if graph or not _is_of_haiku(leaf):
            return False, "nothing says which axis has the outputs, and most put them last", False
        return False, "haiku has the outputs last", True

    def comes_after(self, leaf: Leaf, other: Leaf) -> bool | None:
        """Return whether a leaf comes after another one; None where names are sorted, and do not say it."""
        after = self.rank[leaf.full] > self.rank[other.full]
        return after if self.ordered or _tell_order(leaf.full, other.full) else None

    def following(self, leaf: Leaf) -> Leaf | None:
        """Return the gain of the norm behind a layer: of bn1 behind conv1, or of number 1 behind number 0."""
        if not leaf.module:
            return None
        *above, last = leaf.module
        numbered = _DIGITS.search(last)
        names = [str(int(last) + 1)] if last.isdigit() else []
        if self.ordered:
            names += [f"{norm}{numbered[0] if numbered else ''}" for norm in ("bn", "norm", "ln", "gn")]
        for name in names:
            after = self.modules.get((*above, name), {}).get("weight")
            if after is not None and len(after.shape) == 1 and self.rank[leaf.full] < self.rank[after.full]:
                return after
        return None

    def __iter__(self) -> Iterator[Leaf]:
        return iter(self.leaves.values())


def is_of_torch(leaf: Leaf) -> bool:
    """Whether a weight is called as torch calls it."""
    return _TORCH_WEIGHT.search(leaf.name.last) is not None or bool(leaf.name.tag)


def is_of_equinox(weight: Shape, bias: Shape) -> bool:
    """Whether a bias is that of a convolution of equinox: (out, 1, 1) beside (out, in, height, width)."""
    sure = len(weight) > 3 or (len(weight) == 3 and 1 not in weight[1:])  # else (layers, 1), of layers in one array
    return sure and bias == weight[:1] + (1,) * (len(weight) - 2)


def order_of(name: str) -> list[tuple[int, list[tuple[int, int, str]]]]:
    """Return a key that sorts names: inputs before outputs, where they say so, and numbers by their size."""
    return [(_phase(part), _split_digits(part)) for part in _PARTS.split(name)]


def _phase(part: str) -> int:
    words = {*words_of(part)}
    return 0 if words & _INPUT_WORDS else 2 if words & _OUTPUT_WORDS else 1


def _split_digits(part: str) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", part)
    return [(0, int(piece), "") if i % 2 else (1, 0, piece) for i, piece in enumerate(pieces)]


def _tell_order(name: str, other: str) -> bool:
    """Whether two names say which comes first, by a word or by a number; fc3 may come before fc21, or after it."""
    for part, against in zip(_PARTS.split(name), _PARTS.split(other), strict=False):
        if part != against:
            numbered = pattern_of(part) == pattern_of(against)
            clear = part.isdigit() or (part < against) is (_split_digits(part) < _split_digits(against))
            return _phase(part) != _phase(against) or (numbered and clear)
    return False


def pattern_of(name: str) -> str:
    """Return the name with a star for every number."""
    return _DIGITS.sub("*", name)


def _kind(leaf: Leaf) -> str:
    """Return what a layer is called, but for its number: fc1 and fc2 have their axes alike."""
    return leaf.own.rstrip("0123456789_") or leaf.own


def _is_of_haiku(leaf: Leaf) -> bool:
    known = {"~", "multi_head_attention"} & {*leaf.module} or {"linear", "conv", "mlp"} & {*words_of(leaf.own)}
    return leaf.name.last == "w" and bool(known)


def _words(shape: Shape | None) -> str:
    if shape is None or len(shape) != 1:
        return f"shape {shape}"
    return "1 entry" if shape[0] == 1 else f"{shape[0]} entries"
