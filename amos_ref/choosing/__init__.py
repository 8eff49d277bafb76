"""eta and slot shape for every leaf of a model, by what its name, its shape and its neighbours say.

:func:`choose` takes the names apart (`names.py`) and layers that lie in one array (`stacks.py`), decides leaves that
are alike together (`alike.py`), looks at what stands around a leaf (`model.py`), decides what the leaf is (`kinds.py`,
`weights.py`, `convolutions.py`, `recurrent.py`), and gives it what the authors' models have there.
"""

import math
from collections.abc import Mapping
from typing import Any

from amos_ref.choosing.alike import group
from amos_ref.choosing.choice import Choice, Entry
from amos_ref.choosing.kinds import recognise
from amos_ref.choosing.model import Found, Leaf, Model
from amos_ref.choosing.shapes import Described, read_tree
from amos_ref.choosing.stacks import Stack, restack, unstack
from amos_ref.errors import HyperParameterError, RuleError
from amos_ref.patterns import Matcher
from amos_ref.rules import eta_of, slot_shape_of

#: What `family` may be. Those with a recipe of their own are told by their names too; the others have the table's.
MODEL_FAMILIES = (
    "bert", "clip", "cnn", "convnext", "gemma", "gpt2", "llama", "lstm", "mamba", "mnist", "resnet", "t5", "unet",
    "vit", "whisper",
)  # fmt: skip
#: What `layout` may be, and which axis of a weight has the outputs.
AXIS_ORDERS = {"torch": "out-in", "equinox": "out-in", "flax": "in-out", "keras": "in-out", "haiku": "in-out"}
# Biases that the authors' recurrent model adds to vectors of a smaller size, and how many such vectors they are for.
_SMALL_BIASES: dict[tuple[str, ...], int] = {("cell", "out"): 1, ("lstm", "normalize"): 2}


def choose(
    params_or_shapes: Any,
    *,
    family: str | None = None,
    layout: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Choice:
    """Return eta and slot shape for every leaf of a model, with a reason for each.

    Parameters
    ----------
    params_or_shapes : tree of arrays or of shapes
        Arrays of NumPy, torch, JAX or anything with a shape, or tuples of int; nested as parameters are. Names decide,
        so give the model's own: ``dict(model.named_parameters())`` of torch, the tree of parameters of flax.
    family : str, optional
        What the model is, one of `MODEL_FAMILIES`, if its names do not say it.
    layout : {"torch", "equinox", "flax", "keras", "haiku"}, optional
        Whose order of axes weights have that neither a bias beside them nor their name tells.
    overrides : mapping, optional
        ``{name or regex: eta or (eta, slot shape)}``: what is to hold instead. A regex matches from the start of a
        name, and the first that matches wins. Values are those of rules: numbers, expressions in SHAPE, "tensor"; None
        keeps what was chosen. An entry of another choice gives its eta and its slots.

    Raises
    ------
    TreeError, DtypeError, ShapeError
        If there are no leaves, or one has no shape.
    HyperParameterError
        If `family`, `layout` or `overrides` is none of these.
    RuleError
        If an override matches no leaf, or has a value that is not right for a leaf.

    Returns
    -------
    Choice
        A mapping of names to entries, for ``eta=`` and ``slot_shape=``. A leaf that nothing is known of is an entry
        too, and an error only when it is used.

    Examples
    --------
    >>> import amos_ref
    >>> shapes = {"fc1.weight": (64, 20), "fc1.bias": (64,), "fc2.weight": (5, 64), "fc2.bias": (5,)}
    >>> choice = amos_ref.choose(shapes)
    >>> choice["fc1.weight"].slot_shape, choice["fc1.weight"].rule
    ((64, 1), 'linear')
    >>> opt = amos_ref.Amos(learning_rate=0.01, eta=choice, slot_shape=choice)
    """
    _check_name("family", family, MODEL_FAMILIES)
    _check_name("layout", layout, AXIS_ORDERS)
    leaves = read_tree(params_or_shapes)
    groups, seen = group(leaves)
    single, stacked = unstack({name: leaves[name].shape for name in seen})
    model = Model(single, None if layout is None else AXIS_ORDERS[layout], family)
    found: dict[str, Entry] = {}
    for names in groups:
        entry = _enter(model.leaves[names[0]], leaves[names[0]], model, stacked.get(names[0], []))
        found |= dict.fromkeys(names, entry)
    entries = {name: found[name] for name in leaves}
    entries |= _tie(leaves, entries)
    return Choice(entries | _override(entries, overrides), model.family)


def _check_name(option: str, value: Any, names: Any) -> None:
    if value is not None and not (isinstance(value, str) and value in names):
        raise HyperParameterError(f"{option} is {value!r:.60}; it must be None or one of {', '.join(names)}")


def _enter(leaf: Leaf, described: Described, model: Model, stacked: list[Stack]) -> Entry:
    if not described.trains:
        found = Found("buffer", None, None, "no parameter: its numbers are no floats", "buffer")
    else:
        found = restack(leaf.full, _follow(model.family, leaf, recognise(leaf, model)), leaf.shape, stacked)
    return Entry(described.shape, *found)


def _follow(family: str, leaf: Leaf, found: Found) -> Found:
    """Return what a family's recipe has in the place of the table's."""
    if family == "t5" and found.rule == "embedding":
        return found._replace(eta=1.0, why=f"{found.why}; those of T5 are of size 1")
    if family == "lstm" and found.rule == "embedding":
        return found._replace(eta=max(leaf.shape[1], 1) ** -0.25, why=f"{found.why}; a recurrent model has dim^-1/4")
    if family == "lstm" and found.rule == "bias" and leaf.module[-2:] in _SMALL_BIASES and leaf.shape:
        hidden = max(leaf.shape[0] // _SMALL_BIASES[leaf.module[-2:]], 1)
        return found._replace(eta=0.5 * hidden**-0.25, why=f"{found.why}, of the authors' recurrent model")
    if family == "mnist" and leaf.own == "Dense_1" and found.rule == "linear":
        return found._replace(slot_shape=(), why=f"{found.why}; one slot, as the authors have it")
    return found


def _tie(leaves: Mapping[str, Described], entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries of arrays that are the same array as another one: what the embedding has, or the first."""
    places: dict[Any, list[str]] = {}
    for name, leaf in leaves.items():
        if leaf.place is not None:
            places.setdefault((leaf.place, leaf.shape), []).append(name)
    tied = {}
    for names in places.values():
        if len(names) > 1 and math.prod(entries[names[0]].shape):
            first = next((name for name in names if entries[name].rule == "embedding"), names[0])
            why = f"the same array as {first!r}: a step takes only one of them"
            tied |= {name: entries[first]._replace(why=why) for name in names if name != first}
    return tied


def _override(entries: Mapping[str, Entry], overrides: Mapping[str, Any] | None) -> dict[str, Entry]:
    """Return the entries that overrides change."""
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        raise HyperParameterError(f"overrides is {overrides!r:.60}; it must be a mapping {{name: eta}}")
    unused, changed = set(overrides), {}
    patterns = {key: value for key, value in overrides.items() if key not in entries}
    for name, entry in entries.items():
        matcher = Matcher(name)
        key = name if name in overrides else next((pattern for pattern in patterns if matcher.matches(pattern)), None)
        if key is not None:
            unused.discard(key)
            changed[name] = _given(name, entry, key, overrides[key])
    if unused:
        raise RuleError(f"overrides: no leaf matches {', '.join(sorted(map(repr, unused)))}")
    return changed


def _given(name: str, entry: Entry, key: Any, value: Any) -> Entry:
    if isinstance(value, Entry):
        value = value.eta, value.slot_shape
    pair = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    eta = entry.eta if pair[0] is None else eta_of(pair[0], name, entry.shape)
    slot = entry.slot_shape if pair[1] is None else slot_shape_of(pair[1], name, entry.shape)
    if eta is None:
        raise RuleError(f"eta of leaf {name!r} is unknown, and overrides has None for it; give a number > 0")
    rule = "given" if entry.eta is None else entry.rule
    return Entry(entry.shape, rule, eta, () if slot is None else slot, f"overrides has it under {key!r}", "given")
