"""The state of slots, as kernels read and write it: two arrays, or none."""

from numba import types

from amos_ref.kernels.cpu.memory import view
from amos_ref.kernels.jit import specialise
from amos_ref.kernels.scalar import load, store
from amos_ref.kernels.table import STATE_0, STATE_1


def state_of(leaves, i, start, stop, like):
    """Return the entries start <= s < stop of the arrays of a leaf's state; nothing where `like` is None."""
    if like is None:
        return ()
    return view(leaves[i, STATE_0], start, stop, like), view(leaves[i, STATE_1], start, stop, like)


@specialise(state_of)
def _state_of(leaves, i, start, stop, like):
    if like == types.none:
        return lambda leaves, i, start, stop, like: ()
    return lambda leaves, i, start, stop, like: (
        view(leaves[i, STATE_0], start, stop, like),
        view(leaves[i, STATE_1], start, stop, like),
    )


def load_each(state, s):
    """Return entry s of each array, as float64."""
    return tuple(load(a, s) for a in state)


@specialise(load_each)
def _load_each(state, s):
    if len(state) == 0:
        return lambda state, s: ()
    return lambda state, s: (load(state[0], s), load(state[1], s))


def store_each(state, s, values):
    """Set entry s of each array, rounded once; their values are the last of `values`."""
    for a, x in zip(state, values[2:], strict=True):
        store(a, s, x)


@specialise(store_each)
def _store_each(state, s, values):
    if len(state) == 0:
        return lambda state, s, values: None

    def put(state, s, values):
        store(state[0], s, values[2])
        store(state[1], s, values[3])

    return put


def note(vanished, i, state, x):
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
