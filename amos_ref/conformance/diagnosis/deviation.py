"""A deviation: one way to depart from the page; a catalogue of them, and what catalogues share."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.conformance.cases import Case
from amos_ref.conformance.judging.paper import Override, add_at_once, over_slot
from amos_ref.dtypes import dtype_of


class Deviation(NamedTuple):
    """One way to depart from the page.

    Attributes
    ----------
    name : str
    stage : str
        Where on the way of a step: gradient, reduce, second moment, bias correction, epsilon, c, gamma, d, eta, step
        size, weight decay, change, clock, momentum, direction, sigma, schedule, count, storage or life.
    does : str
        What is done, and the page's way for comparison.
    effect : str
        What that does to training.
    overrides : mapping of str to callable
    only : callable
        Whether it can show in a case at all.
    """

    name: str
    stage: str
    does: str
    effect: str
    overrides: Mapping[str, Override]
    only: Callable[[Case], bool] = lambda case: True


#: Dtype of the parameters -> what is right to store in, beside wider ones: a deviation that does so is none there.
STORED = {
    "float64": (),
    "float32": ("float32",),
    "float16": ("float32", "float16"),
    "bfloat16": ("float32", "bfloat16"),
}


class Catalogue(dict[str, Deviation]):
    """Deviations by name, in the order in which they were added."""

    def add(self, stage: str, name: str, does: str, effect: str, only: Any = None, **overrides: Override) -> None:
        """Add a deviation of a new name; that of a storage ends in the dtype in which it stores."""
        assert name not in self, name
        if stage == "storage":
            assert only is None, name
            only = functools.partial(_is_narrower, name.rpartition("-")[2])
        self[name] = Deviation(name, stage, does, effect, overrides, *([only] if only else []))


def _is_narrower(stored: str, case: Case) -> bool:
    return stored not in STORED[case.dtype]


def heeds_epsilon(s: Any, page: Any) -> bool:
    """Whether epsilon is what is asked for, or none at all; one that is ignored is the default wherever it is set."""
    return page(s.but(options={**s.options, "epsilon": 1.0})) in (1.0, 0.0)


def norm(*arrays: Any) -> float:
    """Return the joint norm of arrays."""
    return math.sqrt(sum(float(np.sum(a * a)) for a in arrays))


def chi(s: Any) -> float:
    """Return where a case clips gradients; infinity where it does not."""
    return math.inf if s.clip_value is None else float(s.clip_value)


def shrunk(s: Any, size: float) -> Any:
    """Return the gradient, scaled down to a size of clip_value."""
    return s.grad * (np.minimum(1.0, chi(s) / size) if size else 1.0)


def global_mean_square(s: Any) -> Any:
    """Return the mean square of the clipped gradients of all leaves."""
    gradients = [spec.clip(g, chi(s)) for g in s.grads.values() if g is not None]
    return norm(*gradients) ** 2 / max(sum(g.size for g in gradients), 1)


def over_all_leaves(s: Any, page: Any) -> Any:
    """Override a mean square of gradients by that of all leaves."""
    return page(s) * 0.0 + global_mean_square(s)


def mean_of_slot(x: Any, slot: tuple[int, ...]) -> Any:
    """Return the mean of an array over each slot."""
    return over_slot(x, slot, add_at_once) / max(x.size // max(math.prod(slot), 1), 1)


def bessel(n: int) -> float:
    """Return what turns a mean over n into one over n - 1."""
    return n / (n - 1) if n > 1 else 1.0


def other_axes(shape: tuple[int, ...], slot: tuple[int, ...]) -> tuple[int, ...]:
    """Return the slot that keeps the axes which this one averages over."""
    if all(n == 1 for n in slot) or slot == shape:
        return slot
    aligned = (1,) * (len(shape) - len(slot)) + slot
    return tuple(n if kept != n else 1 for n, kept in zip(shape, aligned, strict=True))


def at_first_axis(shape: tuple[int, ...], slot: tuple[int, ...]) -> tuple[int, ...]:
    """Return a slot of fewer axes aligned at the first axis; as it is where it does not fit there."""
    aligned = slot + (1,) * (len(shape) - len(slot))
    fits = 0 < len(slot) < len(shape) and all(kept in (1, n) for n, kept in zip(shape, aligned, strict=True))
    return aligned if fits else slot


def largest(s: Any, v: Any) -> Any:
    """Return the largest v so far, entry by entry."""
    s.memory["largest"] = np.maximum(s.memory.get("largest", 0.0), v)
    return s.memory["largest"]


def own_count(s: Any) -> int:
    """Return the number of steps that the leaf itself has taken."""
    s.memory["count"] = s.memory.get("count", 0) + 1
    return s.memory["count"] + s.ahead


def count_of_leaves(s: Any) -> int:
    """Return the number of steps that all leaves have taken together, this one included, since a case set the count."""
    if s.ahead and "was set" not in s.tree:
        s.tree |= {"was set": True, "count": s.ahead + 1}
    s.tree["count"] = s.tree.get("count", 0) + 1
    return s.tree["count"]


def stored(x: Any, name: str) -> Any:
    """Return x as a dtype holds it."""
    return None if x is None else spec.round_to(np.asarray(x), dtype_of(name)).astype(np.float64)
