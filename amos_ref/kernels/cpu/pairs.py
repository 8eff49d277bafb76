"""Two arrays of a leaf, or none, as kernels use them: the state of its slots, and the moments of its direction."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from amos_ref.kernels.cpu.memory import view
from amos_ref.kernels.jit import inline, specialise
from amos_ref.kernels.scalar import clip, cut, load, store

Pair = tuple[Any, ...]  # two arrays, or none


def pair_of(leaves: np.ndarray, i: int, column: int, start: int, stop: int, like: np.ndarray | None) -> Pair:
    """Return the entries start <= s < stop of the arrays from a column on; nothing where `like` is None."""
    if like is None:
        return ()
    return view(leaves[i, column], start, stop, like), view(leaves[i, column + 1], start, stop, like)


@specialise(pair_of)
def _pair_of(leaves, i, column, start, stop, like):
    if like == types.none:
        return lambda leaves, i, column, start, stop, like: ()
    return lambda leaves, i, column, start, stop, like: (
        view(leaves[i, column], start, stop, like),
        view(leaves[i, column + 1], start, stop, like),
    )


def cut_each(pair: Pair, start: int, stop: int) -> Pair:
    """Return entries start <= s < stop of each array."""
    return tuple(cut(a, start, stop) for a in pair)


@specialise(cut_each)
def _cut_each(pair, start, stop):
    if len(pair) == 0:
        return lambda pair, start, stop: ()
    return lambda pair, start, stop: (cut(pair[0], start, stop), cut(pair[1], start, stop))


def load_each(pair: Pair, s: int) -> tuple[float, ...]:
    """Return entry s of each array, as float64."""
    return tuple(load(a, s) for a in pair)


@specialise(load_each)
def _load_each(pair, s):
    if len(pair) == 0:
        return lambda pair, s: ()
    return lambda pair, s: (load(pair[0], s), load(pair[1], s))


def store_each(pair: Pair, s: int, values: tuple[float, ...]) -> None:
    """Set entry s of each array, rounded once; their values are the last of `values`."""
    for a, x in zip(pair, values[len(values) - len(pair) :], strict=True):
        store(a, s, x)


@specialise(store_each)
def _store_each(pair, s, values):
    if len(pair) == 0:
        return lambda pair, s, values: None
    first = len(values) - 2

    def put(pair, s, values):
        store(pair[0], s, values[first])
        store(pair[1], s, values[first + 1])

    return put


def note(vanished: np.ndarray | None, i: int, state: Pair, x: np.ndarray) -> None:
    """Set ``vanished[i]`` if v is 0 somewhere where x, a gradient or its mean square, is not; unless that is None.

    In a loop of its own: in that of the step it would keep the compiler from using vectors.
    """
    if vanished is not None and any(state[0][k] == 0 and load(x, k) != 0.0 for k in range(x.size)):
        vanished[i] = 1


@specialise(note)
def _note(vanished, i, state, x):
    if vanished == types.none:
        return lambda vanished, i, state, x: None

    def look(vanished, i, state, x):
        lost, v = 0, state[0]
        for k in range(x.size):
            lost += (v[k] == 0) & (load(x, k) != 0.0)
        if lost:
            vanished[i] = 1

    return look


# directions


@intrinsic
def _plain(typingctx, aims) -> Any:
    """A NamedTuple as a tuple, which alone can be joined to others."""
    return types.Tuple(aims.types)(aims), lambda context, builder, signature, args: args[0]


def aim(g: np.ndarray, moments: Pair, i: int, chi: float | None, aims: Any) -> tuple[float, ...]:
    """Return (u, *new moments): along what entry i moves. `aims`: see `kernels.Rates`."""
    x = clip(load(g, i), chi)
    return (x,) if aims is None else aims.direct(x, *load_each(moments, i), *aims)


@specialise(aim)
def _aim(g, moments, i, chi, aims):
    if aims == types.none:
        return lambda g, moments, i, chi, aims: (clip(load(g, i), chi),)
    made = aims.instance_class
    direct = inline(getattr(made, "direct_in_loops", made.direct))
    return lambda g, moments, i, chi, aims: direct(
        *((clip(load(g, i), chi),) + load_each(moments, i) + _plain(aims))  # noqa: RUF005  # pyright: ignore
    )


def square(g: np.ndarray, moments: Pair, i: int, chi: float | None, aims: Any) -> float:
    """Return u^2, which is NaN where the gradient's own square is not finite: u may not show it."""
    u, x = aim(g, moments, i, chi, aims)[0], clip(load(g, i), chi)
    return u * u if aims is None else u * u + 0.0 * (x * x)


@specialise(square)
def _square(g, moments, i, chi, aims):
    if aims == types.none:

        def plain(g, moments, i, chi, aims):
            u = clip(load(g, i), chi)
            return u * u

        return plain

    def directed(g, moments, i, chi, aims):
        u, x = aim(g, moments, i, chi, aims)[0], clip(load(g, i), chi)
        return u * u + 0.0 * (x * x)

    return directed


def is_finite(g: np.ndarray, moments: Pair, i: int, chi: float | None, aims: Any) -> bool:
    """Whether u^2 is seen to be finite; where that is not seen at once, `square` says it."""
    if hasattr(aims, "is_bounded"):
        return aims.is_bounded(clip(load(g, i), chi), *load_each(moments, i), *aims)
    return square(g, moments, i, chi, aims) < np.inf


@specialise(is_finite)
def _is_finite(g, moments, i, chi, aims):
    bounded = getattr(getattr(aims, "instance_class", None), "is_bounded", None)
    if bounded is None:
        return lambda g, moments, i, chi, aims: square(g, moments, i, chi, aims) < np.inf
    bounded = inline(bounded)
    return lambda g, moments, i, chi, aims: bounded(
        *((clip(load(g, i), chi),) + load_each(moments, i) + _plain(aims))  # noqa: RUF005  # pyright: ignore
    )
