"""Kernels of LSTMs, and of what is built like them."""

import re

from amos_ref.choosing.model import Axes, Found, Leaf, Model
from amos_ref.choosing.names import words_of
from amos_ref.choosing.weights import is_weight, scaled

_TORCH_KERNEL = re.compile(r"weight_(ih|hh|hr)(_l\d+)?(_reverse)?")  # equinox has the first two, too
_FLAX_GATES = {"ii", "if", "ig", "io", "hi", "hf", "hg", "ho"}, {"ir", "iz", "in", "hr", "hz", "hn"}


def recurrent(leaf: Leaf, model: Model) -> Found | None:
    """Kernels of LSTMs and of what is built like them."""
    if not is_weight(leaf):
        return None
    if len(leaf.shape) == 2 and (found := _of_torch(leaf, model) or _of_keras_and_haiku(leaf, model)):
        return found
    if leaf.own in _FLAX_GATES[0] | _FLAX_GATES[1] and len(leaf.shape) == 2:
        gates = next((gates for gates in _FLAX_GATES if gates <= model.beside(leaf)), None)
        if gates is not None:
            axes = Axes((0,), "flax has one kernel (in, hidden) for each gate", True)
            return _with_gates(leaf, axes, leaf.shape[1], 4 if "ii" in gates else 3)
    return _of_the_authors(leaf, model)


def _of_torch(leaf: Leaf, model: Model) -> Found | None:
    matched = _TORCH_KERNEL.fullmatch(leaf.name.last)
    if matched is None:
        return None
    rest = "".join(part or "" for part in matched.groups()[1:])
    state, projection = (
        model.leaves.get(leaf.full.replace(leaf.name.last, f"weight_{of}{rest}")) for of in ("hh", "hr")
    )
    axes = Axes((1,), "torch has one kernel (gates * hidden, in) for all gates", True)
    if projection is None or len(projection.shape) != 2:
        hidden = leaf.shape[0] // 4 if state is None else state.shape[1]
        return _with_gates(leaf, axes, hidden, leaf.shape[0] // max(hidden, 1))
    outputs, cells = projection.shape
    if leaf is projection:
        axes = Axes((1,), "torch projects with (outputs, cells)", True)
    return _projected(leaf, axes, outputs, cells, leaf is projection, "analogy")


def _of_keras_and_haiku(leaf: Leaf, model: Model) -> Found | None:
    above, last = leaf.module[:-1], leaf.name.last
    module = above if last == "recurrent_kernel" else leaf.module
    state = model.modules.get((*module, "recurrent"), {}).get("kernel")
    if state is not None:
        axes = Axes((0,), "Keras has one kernel (in, gates * hidden) for all gates", True)
        return _with_gates(leaf, axes, state.shape[0], leaf.shape[1] // max(state.shape[0], 1))
    state = model.modules.get((*above, "h"), {}).get("weight")
    if last in ("w_i", "w_h") and state is not None and state.shape[1:] == (3 * state.shape[0],):
        axes = Axes((0,), "haiku has one kernel (in, 3 * hidden) for all gates of a GRU", True)
        return _with_gates(leaf, axes, state.shape[0], 3)
    if leaf.own == "linear" and "lstm" in {word for part in above for word in words_of(part)} and last == "w":
        axes = Axes((0,), "haiku has one kernel (in + hidden, 4 * hidden) for all gates", True)
        return _with_gates(leaf, axes, leaf.shape[1] // 4, 4)
    return None


def _of_the_authors(leaf: Leaf, model: Model) -> Found | None:
    """The cell of the authors' own language model, whose outputs are a projection of its cells."""
    cell = leaf.module[:-1]
    core, out = (model.modules.get((*cell, part), {}).get("kernel") for part in ("core", "out"))
    if core is None or out is None or leaf not in (core, out) or len(core.shape) != 3 or len(out.shape) != 2:
        return None
    cells, outputs = out.shape
    if core.shape[1:] != (4, cells):
        return None
    return _projected(leaf, Axes((0,), "its inputs come first", True), outputs, cells, leaf is out, "recipe")


def _projected(leaf: Leaf, axes: Axes, outputs: int, cells: int, projects: bool, source: str) -> Found:
    """Return what the authors have for an LSTM whose outputs are a projection of its cells."""
    eta = (max(cells, 1) * max(outputs, 1) if projects else 2 * max(outputs, 1)) ** -0.25
    what = "the projection of an LSTM" if projects else "an LSTM with a projection"
    return Found("recurrent", eta, axes.slot(leaf.shape), f"{what}: {cells} cells, {outputs} outputs", source)


def _with_gates(leaf: Leaf, axes: Axes, hidden: int, gates: int) -> Found:
    if gates < 2:
        return scaled("linear", 1, axes, leaf, "a recurrent layer without gates", "analogy")
    words = "an LSTM" if gates == 4 else f"a recurrent layer of {gates} gates, treated as an LSTM is"
    eta, source = (2 * max(hidden, 1)) ** -0.25, "recipe" if gates == 4 else "analogy"
    return Found("recurrent", eta, axes.slot(leaf.shape), f"{words}: {hidden} hidden units; {axes.evidence}", source)
