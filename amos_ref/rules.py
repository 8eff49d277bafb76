"""eta and slot shape of a leaf, by its name and shape.

A rule is a number (or "tensor", "element"), a callable ``(name, shape)``, or a mapping ``{regex: value}`` as
jestimator has it: the first regex that matches at the start of the leaf's name wins, and a name that no regex matches
is an error. Matching takes a bounded time, whatever the regex (see :mod:`amos_ref.patterns`). A value may be an
expression in SHAPE (see :func:`evaluate`), such as ``"sqrt(1/prod(SHAPE[:-1]))"``, or an entry of a choice, which holds
for the leaf of that name only.
"""

import abc
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref.dtypes import broadcasts
from amos_ref.errors import ExpressionError, RuleError, list_some
from amos_ref.expressions import Shape, evaluate
from amos_ref.outside import pass_on
from amos_ref.patterns import Matcher, is_plain


class Preset(NamedTuple):
    """Rules for eta and slot shape that belong together; pass it both as ``eta=`` and as ``slot_shape=``."""

    eta: Mapping[str, float | str]
    slot_shape: Mapping[str, str]


class LeafRule(abc.ABC):
    """What a mapping has for the leaf of one whole name, as an entry of :func:`amos_ref.choose` is."""

    @abc.abstractmethod
    def rule_for(self, kind: str, name: str, shape: Shape) -> Any:
        """Return eta or the slot shape of the leaf, or raise RuleError."""


class LeafRules(Mapping[str, Any]):
    """Rules for leaves by their whole names, as :func:`amos_ref.choose` makes them."""

    @abc.abstractmethod
    def rule_for(self, kind: str, name: str, shape: Shape) -> Any:
        """Return eta or the slot shape of a leaf, or raise RuleError."""


def resolve(rule: Any, kind: str, name: str, shape: Shape, default: Any = None) -> Any:
    """Return what `rule` says for one leaf: the value itself, not yet checked.

    Parameters
    ----------
    rule : number, str, callable, mapping, Preset, LeafRules or LeafRule
    kind : {"eta", "slot_shape", "sigma"}
        A preset's eta serves as sigma.
    name : str
        The leaf's name, which is the keys on the way to it, joined by "/".
    shape : tuple of int
    default
        The value where a mapping has no regex that matches the name. With None, that is an error.

    Raises
    ------
    RuleError
        If no regex matches the name, if a regex is not valid, or if the callable raises.
    """
    if isinstance(rule, Preset):
        rule = rule.slot_shape if kind == "slot_shape" else rule.eta
    if isinstance(rule, Mapping) and not isinstance(rule, LeafRules):
        rule = _first_match(rule, kind, name, shape, default)
    if isinstance(rule, LeafRules | LeafRule):
        return rule.rule_for(kind, name, shape)
    if callable(rule):
        try:
            return rule(name, shape)
        except Exception as error:
            pass_on(error)
            words = f"{type(error).__name__}: {error}"
            raise RuleError(f"{kind}: the callable failed for leaf {name!r}: {words}") from error
    if isinstance(rule, str) and rule not in ("tensor", "element", "init"):
        try:
            return evaluate(rule, shape)
        except ExpressionError as error:
            words = f"; a word can be {_WORDS[kind]}" if kind in _WORDS and rule.isidentifier() else ""
            raise ExpressionError(f"{kind} of leaf {name!r}: {error}{words}") from None
    return rule


_WORDS = {"eta": "'init'", "sigma": "'init'", "slot_shape": "'tensor' or 'element'"}


def full_match(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return rules whose regexes must match the whole name. Those of other rules match at its start.

    Examples
    --------
    >>> from amos_ref import rules
    >>> rules.eta_of(rules.full_match({"w": 0.5, "w2": 2.0}), "w2", ())
    2.0
    """
    return {rf"(?:{pattern})\Z": value for pattern, value in rules.items()}


def _first_match(rules: Mapping[str, Any], kind: str, name: str, shape: Shape, default: Any) -> Any:
    index: RuleIndex = getattr(rules, "rule_index", None) or RuleIndex(rules)
    try:
        pattern = index.first_match(name)
    except RuleError as error:
        raise RuleError(f"{kind} of leaf {name!r}: {error}") from None
    if pattern is not None:
        return rules[pattern]
    if default is not None:
        return default
    listed = list_some(map(repr, rules)) or "none"
    hint = "; an entry of a choice is for its own leaf only: give its eta and slot_shape" * bool(index.whole)
    raise RuleError(f"{kind}: no rule matches leaf {name!r} of shape {shape}; the rules are {listed}{hint}")


class RuleIndex:
    """Rules in their order, of which plain names are looked up, and only the others are tried one after the other.

    A dot in a plain name stands for any character, as in every regex, but for a line break.

    Attributes
    ----------
    whole : set of str
        The names whose rules are entries of a choice, which hold for the whole name.
    """

    whole: set[str]

    def __init__(self, rules: Mapping[Any, Any]) -> None:
        self._order = {pattern: i for i, pattern in enumerate(rules)}
        self.whole = {pattern for pattern, value in rules.items() if isinstance(value, LeafRule)}
        self._plain: dict[tuple[int, int], set[str]] = {}  # by their length, and by where they have dots
        self._others = []
        for pattern in rules:
            if pattern in self.whole:
                continue
            if is_plain(pattern, dots=True):
                self._plain.setdefault((len(pattern), _dots(pattern)), set()).add(pattern)
            else:
                self._others.append(pattern)
        self._ways: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def first_match(self, name: str) -> Any:
        """Return the first pattern that matches at the start of a name, or None; raise RuleError for a bad one."""
        found = [name] if name in self.whole else []
        for size, dots in self._possible(len(name), _dots(name)):
            text = "".join("." if dots >> i & 1 and c != "\n" else c for i, c in enumerate(name[:size]))
            if text in self._plain[size, dots]:
                found.append(text)
        first = min(found, key=self._order.__getitem__, default=None)
        matcher, last = Matcher(name), len(self._order) if first is None else self._order[first]
        for pattern in self._others:
            if self._order[pattern] > last:
                break
            if matcher.matches(pattern):
                return pattern
        return first

    def _possible(self, size: int, dots: int) -> list[tuple[int, int]]:
        """Return which plain names can match a name that has its dots there: those with a dot wherever it has one."""
        if (size, dots) not in self._ways:
            self._ways[size, dots] = [(n, at) for n, at in self._plain if n <= size and not dots % (1 << n) & ~at]
        return self._ways[size, dots]


def _dots(text: str) -> int:
    """Return the places of the dots in a text as the bits of a number."""
    return sum(1 << i for i, c in enumerate(text) if c == ".")


def number(value: Any) -> float:
    """Return `value` as a float; NaN unless it is a real number (a bool, a text or an array is not)."""
    if isinstance(value, bool | np.bool_ | str | bytes | complex | np.complexfloating) or getattr(value, "ndim", 0):
        return math.nan
    try:
        return float(value)
    except Exception as error:  # whatever the conversion of somebody's own type raises
        pass_on(error)
        return math.nan


def eta_of(rule: Any, name: str, shape: Shape) -> float:
    """Return eta of one leaf, a finite float > 0, or raise RuleError.

    Examples
    --------
    >>> from amos_ref import rules
    >>> rules.eta_of({".*bias": 0.5, ".*": "sqrt(1 / SHAPE[0])"}, "out/kernel", (16, 3))
    0.25
    """
    return scale_of(rule, "eta", name, shape)


def scale_of(rule: Any, option: str, name: str, shape: Shape) -> float:
    """Return eta or sigma of one leaf, a finite float > 0, or raise RuleError."""
    return positive(resolve(rule, option, name, shape), f"{option} of leaf {name!r}")


def positive(value: Any, where: str) -> float:
    """Return `value` as a finite float > 0, or raise RuleError."""
    x = number(value)
    if not 0.0 < x < math.inf:
        raise RuleError(f"{where} is {value!r}; it must be a finite number > 0")
    return x


def slot_shape_of(rule: Any, name: str, shape: Shape) -> Shape:
    """Return the slot shape of one leaf, which broadcasts to the leaf's shape, or raise RuleError.

    Examples
    --------
    >>> from amos_ref import rules
    >>> rules.slot_shape_of({".*bias": "tensor", ".*": "(1, SHAPE[1])"}, "out/kernel", (16, 3))
    (1, 3)
    """
    value = resolve(rule, "slot_shape", name, shape)
    named = {"tensor": (), "element": shape}.get(value) if isinstance(value, str) else None
    if named is not None:
        return named
    try:
        entries: list[Any] = list(value)
        slot = tuple(operator.index(n) for n in entries)
    except TypeError:
        raise RuleError(
            f"slot_shape of leaf {name!r} is {value!r}; it must be 'tensor', 'element' or a tuple of integers"
        ) from None
    if not broadcasts(slot, shape):
        raise RuleError(f"slot_shape of leaf {name!r} is {slot}; it must broadcast to the leaf's shape {shape}")
    return slot


_SLOT_A_COLUMN = "(1,) * (len(SHAPE) - 1) + SHAPE[-1:]"
_SLOT_A_ROW = "SHAPE[:-1][:1] + (1,) * max(len(SHAPE) - 1, 1)"  # of a vector: one slot
_SLOT_BUT_LAST = "SHAPE[:-1] + (1,)"
# Linear layers 1 / fan_in, convolutions 2 / fan_in, and 1 for the scale of a norm, told apart by their axes; 8 / fan_in
# for a convolution of two or three channels, which is the first one.
_GAIN = "max(1, min(2, len(SHAPE) - 1))"
_FEW = " * 4 ** (min(1, max(0, {0} - 1)) * min(1, max(0, 4 - {0})) * min(1, max(0, len(SHAPE) - 2)))"
_GAIN_OF_ROWS, _GAIN_OF_COLUMNS = _GAIN + _FEW.format("prod(SHAPE[1:2])"), _GAIN + _FEW.format("prod(SHAPE[-2:-1])")
# By the name of the first convolution, also one channel.
_FIRST = "2 * 4 ** min(1, max(0, 5 - {0}))"
_SECOND = r"([^./]*_)?(fc2|wo|w2|lin2|linear2|Dense_1|down(_proj)?|fc_out|dense_4h_to_h|output_dense|pwconv2)"
_MLP = r".*([Mm]lp|MLP|ffn|FFN|[Ff]eed_?[Ff]orward|DenseReluDense|[./]layers?[._/]?\d+).*[./]"
_TOKENS = r"(.*[./])?((cls|mask|dist)_token|class_embedding|pos(ition|itional)?_embed(ding|dings)?)$"
# GPT-2's layers lie (in, out), and those of others that are called so (out, in): the longer axis of the first two has
# the outputs, and of the second layer of an MLP the inputs.
_SLOT_LONG = "(" + ", ".join(f"max(1, SHAPE[{i}] * min(1, SHAPE[{i}] // (SHAPE[{1 - i}] + 1)))" for i in (0, 1)) + ")"
_SLOT_SHORT = "(" + ", ".join(f"max(1, SHAPE[{i}] * min(1, SHAPE[{1 - i}] // (SHAPE[{i}] + 1)))" for i in (0, 1)) + ")"


def _preset(*rows: tuple[str, float | str, str]) -> Preset:
    return Preset({name: eta for name, eta, _ in rows}, {name: slot for name, _, slot in rows})


#: The paper's table for flax and Keras names and layouts (kernels are (in, out), convolutions (h, w, in, out)).
PAPER_FLAX = _preset(
    (r".*(bias|beta|rel(ative)?(_position)?_embedding|relative_attention_bias/embedding)$", 0.5, "tensor"),
    (r".*(scale|gamma)$", 1.0, "tensor"),
    (r"(.*/)?shared/embedding$", 1.0, _SLOT_BUT_LAST),  # T5
    (_TOKENS, "sqrt(2 / SHAPE[-1])", _SLOT_BUT_LAST),
    (r".*embeddings?$", "sqrt(2 / SHAPE[-1])", _SLOT_BUT_LAST),
    (r".*depthwise_kernel$", "sqrt(2 / prod(SHAPE[:-2]))", "(1,) * (len(SHAPE) - 2) + SHAPE[-2:]"),
    (r".*Attention/q/kernel$", "sqrt(1 / (SHAPE[0] * 64))", _SLOT_A_COLUMN),  # T5
    (r".*/(query|key|value)/kernel$", "sqrt(1 / SHAPE[0])", "(1,) + SHAPE[1:]"),  # (in, heads, dim) or (in, out)
    (r".*[Aa]ttention[^/]*/out/kernel$", "sqrt(1 / prod(SHAPE[:-1]))", _SLOT_A_COLUMN),  # (heads, dim, out)
    (r".*(LSTM|lstm).*/[ih][ifgo]/kernel$", "(2 * SHAPE[1]) ** -0.25", _SLOT_A_COLUMN),  # flax: one kernel a gate
    (r".*(LSTM|lstm).*kernel$", "(SHAPE[1] / 2) ** -0.25", _SLOT_A_COLUMN),  # Keras: four gates side by side
    (rf"{_MLP}{_SECOND}/kernel$", "sqrt(2 / SHAPE[0])", _SLOT_A_COLUMN),
    (
        r"(.*/)?(Conv_0|conv1|conv_in|conv_stem|stem)/kernel$",
        f"sqrt({_FIRST.format('SHAPE[-2]')} / prod(SHAPE[:-1]))",
        _SLOT_A_COLUMN,
    ),
    (r".*kernel$", f"sqrt({_GAIN_OF_COLUMNS} / prod(SHAPE[:-1]))", _SLOT_A_COLUMN),
)

#: The paper's table for torch names and layouts (Linear weights are (out, in), convolutions (out, in, h, w)).
PAPER_TORCH = _preset(
    (
        r".*(bias(_[hi]h_l\d+(_reverse)?)?|relative_attention_bias[./]weight|relative_position_bias_table)$",
        0.5,
        "tensor",
    ),
    (r"(.*[./])?([^./]*[Nn]orm|bn|ln|normalization)[^./]*[./]weight$", 1.0, "tensor"),
    (_TOKENS, "sqrt(2 / SHAPE[-1])", _SLOT_BUT_LAST),
    (r"(.*[./])?patch_embed[^./]*([./][^./]*)?[./]weight$", "sqrt(8 / prod(SHAPE[1:]))", _SLOT_A_ROW),
    (r"(.*[./])?shared[./]weight$", 1.0, _SLOT_BUT_LAST),  # T5
    (
        r"(.*[./])?([^./]*[Ee]mbeddings?|([^./]*_)?emb|embed_[^./]*|wte|wpe)[./]weight$",
        "sqrt(2 / SHAPE[-1])",
        _SLOT_BUT_LAST,
    ),
    (r".*weight_[hi]h_l\d+(_reverse)?$", "(SHAPE[0] / 2) ** -0.25", _SLOT_A_ROW),  # LSTM: four gates, (4 hidden, in)
    (r".*(SelfAttention|EncDecAttention)[./]q[./]weight$", "sqrt(1 / (SHAPE[1] * 64))", _SLOT_A_ROW),  # T5
    (r".*(c_attn|c_fc)[./]weight$", "sqrt(1 / min(SHAPE[0], SHAPE[1]))", _SLOT_LONG),
    (r".*mlp[./]c_proj[./]weight$", "sqrt(2 / max(SHAPE[0], SHAPE[1]))", _SLOT_SHORT),
    (r".*attn[./]c_proj[./]weight$", "sqrt(1 / SHAPE[0])", _SLOT_A_COLUMN),
    (rf"{_MLP}{_SECOND}[./]weight$", "sqrt(2 / SHAPE[1])", _SLOT_A_ROW),
    (r".*layers?[./]\d+[./]output[./]dense[./]weight$", "sqrt(2 / SHAPE[1])", _SLOT_A_ROW),  # BERT
    (r"(.*[./])?linear2[./]weight$", "sqrt(2 / SHAPE[1])", _SLOT_A_ROW),
    (
        r"(.*[./])?(conv1|conv_in|conv_stem|stem)[./]weight$",
        f"sqrt({_FIRST.format('SHAPE[1]')} / prod(SHAPE[1:]))",
        _SLOT_A_ROW,
    ),
    (r".*weight$", f"sqrt({_GAIN_OF_ROWS} / prod(SHAPE[1:]))", _SLOT_A_ROW),
)
