"""Minibatches for :func:`amos_ref.minimize`: how many there are, one after the other, and what follows from N."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from amos_ref.errors import ProblemError


def count_batches(batches: Any) -> int | None:
    """Return N, how many batches an epoch has, or None where they do not say so.

    Raises
    ------
    ProblemError
        If `batches` is nothing that one could go through.
    """
    if not (callable(batches) or hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise ProblemError(
            f"batches is {batches!r:.60}; it must be a list, a loader or a function that returns a new iterator"
        )
    sized: Any = batches
    try:
        return len(sized)
    except TypeError:
        return None


def stream(
    batches: Iterable[Any] | Callable[[], Iterable[Any]], epochs: int | None = None, steps: int | None = None
) -> Iterator[Any]:
    """Yield the batches of all epochs; where only steps are given, of as many epochs as it takes.

    What can be gone through only once, an iterator, has one epoch unless more are asked for.

    Raises
    ------
    ProblemError
        If an epoch has none: there are none, or an iterator is used up after the first epoch.
    """
    endless = epochs is None and steps is not None and not hasattr(batches, "__next__")
    for epoch in itertools.count() if endless else range(epochs or 1):
        empty = True
        for batch in batches() if callable(batches) else batches:
            empty = False
            yield batch
        if empty:
            why = "; an iterator is used up after one: give a list, a loader or a function that returns a new iterator"
            raise ProblemError(f"batches has none for epoch {epoch + 1}{why if epoch else ''}")


def rates_for(optimizer: Any, options: Mapping[str, Any], batches: int | None) -> dict[str, Any]:
    """Return the options with the authors' advice for N batches in the training set, where they leave it open.

    For paper Amos by name, xi is 1/sqrt(N), and 1 - beta is the same, but at most 1/2.
    """
    if optimizer != "paper" or batches is None or "learning_rate" in options:
        return dict(options)
    xi = 1.0 / math.sqrt(max(batches, 1))
    return {"learning_rate": xi, "beta": 1.0 - min(xi, 0.5), **options}
