"""Layers that lie in one array, as flax's scan and vmap have them: which arrays are such, and along which axis."""

from collections.abc import Mapping
from typing import NamedTuple

from amos_ref.choosing.model import Found, is_of_equinox
from amos_ref.choosing.names import INTO_HEADS, Name, is_norm, parse, side_of, words_of
from amos_ref.dtypes import Shape

_MOST = 4  # arrays of layers of arrays of layers ...


class Stack(NamedTuple):
    """Along which axis an array has its layers, and how many these are."""

    axis: int
    layers: int


def unstack(shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], dict[str, list[Stack]]]:
    """Return the shapes of single layers, and of each leaf that holds many of them the axes that were taken away."""
    single, taken = dict(shapes), dict[str, list[Stack]]()
    names = {full: parse(full) for full in shapes}
    for _ in range(_MOST):
        found = _find(single, names)
        if not found:
            break
        for full, stack in found.items():
            shape = single[full]
            single[full] = shape[: stack.axis] + shape[stack.axis + 1 :]
            taken.setdefault(full, []).append(stack)
    return single, taken


def restack(full: str, found: Found, single: Shape, taken: list[Stack]) -> Found:
    """Return what a leaf is taken for that holds many layers, each of which is a leaf of its own."""
    if not taken:
        return found
    slot = found.slot_shape
    if slot is not None:
        slot = (1,) * (len(single) - len(slot)) + slot
        for axis, layers in reversed(taken):
            slot = (*slot[:axis], layers, *slot[axis:])
    many = " times ".join(str(stack.layers) for stack in taken)
    what = "experts" if len(taken) == 1 and "expert" in full.lower() else "layers"
    return found._replace(slot_shape=slot, why=f"{found.why}; {many} {what} in one array, with slots of their own")


def _find(shapes: Mapping[str, Shape], names: Mapping[str, Name]) -> dict[str, Stack]:
    """Return the leaves that are stacked once more: all of a module, or layers with their biases and what is around."""
    shapes = _flatten_biases(shapes, names)
    inside: dict[tuple[str, ...], list[str]] = {}
    for full, name in names.items():
        for depth in range(len(name.module) + 1):
            inside.setdefault(name.module[:depth], []).append(full)
    found: dict[str, Stack] = {}
    for module in sorted(inside, key=len):
        leaves = inside[module]
        if leaves[0] not in found and any(side_of(names[full].module) != "attention" for full in leaves):
            stack = _shared_by({full: shapes[full] for full in leaves}, names)
            kept = [full for full in leaves if not _is_known(names[full], shapes[full])]
            found |= dict.fromkeys(kept, stack) if stack else {}
    for module, leaves in inside.items():
        layers = _told_by_bias(module, leaves, shapes, names)
        for full in inside[module[:-1]] if layers else ():
            shape = shapes[full]
            if shape[:1] == (layers,) and len(shape) == 2 + (not _is_vector(names[full])):
                found.setdefault(full, Stack(0, shape[0]))
    return found


def _flatten_biases(shapes: Mapping[str, Shape], names: Mapping[str, Name]) -> dict[str, Shape]:
    """Return the shapes, with (out,) for the biases of equinox's convolutions, whose other axes count nothing."""
    weights = {names[full].module: shape for full, shape in shapes.items() if names[full].role == "weight"}
    found = dict(shapes)
    for full, shape in shapes.items():
        if names[full].role == "bias" and is_of_equinox(weights.get(names[full].module, ()), shape):
            found[full] = shape[:1]
    return found


def _shared_by(shapes: Mapping[str, Shape], names: Mapping[str, Name]) -> Stack | None:
    """Return the axis along which all arrays have the same length, if there are kernels and vectors among them."""
    vectors = {len(shape) for full, shape in shapes.items() if _is_vector(names[full])}
    others = {len(shape) for full, shape in shapes.items() if not _is_vector(names[full])}
    if (
        len({_is_of_experts(names[full]) for full in shapes}) > 1
        or min(vectors, default=0) < 2
        or max(others, default=0) <= min(vectors)
    ):
        return None
    for axis in (0, 1):
        lengths = {shape[axis] if len(shape) > axis else 0 for shape in shapes.values()}
        if len(lengths) == 1 and (length := lengths.pop()) > 1:
            return Stack(axis, length)
    return None


def _is_of_experts(name: Name) -> bool:
    return any("expert" in part.lower() for part in (*name.module, name.last))


def _is_known(name: Name, shape: Shape) -> bool:
    """Whether a kernel (experts, in, out) is one by its name, so that its axes are looked at together."""
    return len(shape) == 3 and not _is_vector(name) and name.role not in ("weight", "kernel") and _is_of_experts(name)


def _told_by_bias(
    module: tuple[str, ...], leaves: list[str], shapes: Mapping[str, Shape], names: Mapping[str, Name]
) -> int | None:
    """Return how many layers a kernel (layers, in, out) has, if the bias beside it is (layers, out)."""
    own = {names[full].role: full for full in leaves if names[full].module == module}
    kernel, bias = own.get("kernel", own.get("weight")), own.get("bias")
    if kernel is None or bias is None or INTO_HEADS & {*words_of(names[kernel].own)}:
        return None
    outer, inner = shapes[kernel], shapes[bias]
    if len(outer) != 3 or len(inner) != 2 or inner[0] != outer[0] or inner[1] not in outer[1:]:
        return None
    return inner[0] if inner[0] > 1 and inner != outer[1:] else None


def _is_vector(name: Name) -> bool:
    return name.role in ("bias", "scale", "gamma", "beta", "g") or is_norm(name.own) or is_norm(name.last)
