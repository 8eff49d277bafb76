"""Random trees over ranks: shapes, slots, layouts with uneven and empty parts, and runs of them beside one process."""

import numpy as np

import amos_ref
from amos_ref.kernels.shared import Piece
from amos_ref.mpi import Layout, Sharded
from amos_ref.optimizers.state import PARTS
from helpers import ranks
from helpers import strategies as own

#: Shape and slot of every kind that there is, among them sums of several groups of 8192 and of 64 * 64 rows.
KINDS = {
    "vector": ((20001,), ()),
    "tensor": ((1400, 24), ()),
    "rows": ((5, 17000), (5, 1)),
    "columns": ((9000, 3), (1, 3)),
    "convolution": ((3, 150, 4), (1, 1, 4)),
    "outer": ((5, 4, 130), (1, 4, 1)),
    "mixed": ((4, 3, 200, 2), (1, 3, 1, 2)),
    "element": ((7, 9), (7, 9)),
    "short slot": ((3, 70, 4), (4,)),
    "scalar": ((), ()),
    "empty": ((0, 3), (1, 3)),
}


def slot_of(name, shape):
    return KINDS[name.partition(" #")[0]][1]


def random_kinds(rng, count):
    """Shapes and slots of so many leaves: up to four axes, of 0, of 1, and around the sizes of groups."""
    sizes = [0, 1, 1, 2, 3, 5, 7, 64, 65, 127, 128, 200, 300]
    found = {}
    for k in range(count):
        shape: list[int] = []
        for _ in range(rng.integers(0, 5)):
            n = int(rng.choice(sizes if rng.random() < 0.8 else [4096, 4100, 8192, 8193, 16385, 20000]))
            shape.append(n if np.prod([*shape, n], dtype=float) < 150_000 else 2)
        kept = shape[rng.integers(0, len(shape) + 1) :]
        slot = [n if rng.random() < 0.4 else 1 for n in kept] if rng.random() < 0.85 else shape
        found[f"leaf {k}"] = tuple(shape), tuple(slot)
    return found


def edges(rng, n, unit, ranks):
    """Random legal edges, some of them equal."""
    legal = np.append(np.arange(0, n, unit), n)
    return (0, *map(int, np.sort(rng.choice(legal, ranks - 1))), n)


def cut(rng, shape, slot, ranks):
    """A random legal cut of a leaf: along any axis that can be cut, or none."""
    ways = []
    for axis, n in enumerate(shape):
        if n > 1 and np.prod(shape):
            unit = Piece(shape, slot, axis, (0, n)).unit
            ways += [(axis, edges(rng, n, unit, ranks))] if 0 < unit < n else []
    if not ways or rng.random() < 0.15:
        return int(rng.integers(ranks))
    return ways[rng.integers(len(ways))]


def layout_of(rng, size, names=tuple(KINDS)):
    """A random layout of leaves of these kinds."""
    return Layout(
        {name: KINDS[name][0] for name in names}, {name: cut(rng, *KINDS[name], size) for name in names}, size
    )


def tree_of(rng, names, dtype, middle=0):
    return {name: own.numbers(rng, KINDS[name][0], dtype, middle=middle, spread=3) for name in names}


def alone(opt, params, steps):
    """Parameters and state after these steps in one process."""
    params = {name: a.copy() for name, a in params.items()}
    state = opt.init(params)
    for grads in steps:
        state = opt.step(params, grads, state)
    return params, state


def together(opt, layout, params, steps, *, update=False):
    """Parameters and states of the parts after these steps, on all ranks."""

    def work(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        state = sharded.init(mine)
        for grads in steps:
            g = layout.pieces(grads, comm.rank)
            if update:
                updates, state = sharded.update(g, state, mine)
                mine = amos_ref.apply_updates(mine, updates)
            else:
                state = sharded.step(mine, g, state)
        return mine, state, comm

    return ranks.results(layout.ranks, work)


def part_of(layout, state, part, name):
    """The whole array of a part of the state, from the states of all ranks."""
    piece = layout.piece(name, 0, slot_of(name, None))
    arrays = [getattr(each, part).get(name) for each in state]
    if piece is None:
        assert [a is None for a in arrays] == [rank != layout.cuts[name] for rank in range(layout.ranks)]
        return arrays[layout.cuts[name]]
    kinds = PARTS[type(state[0])]
    if part in kinds.constants or (part in kinds.slots and piece.shared):
        assert all(own.bits(a) == own.bits(arrays[0]) for a in arrays)  # the same on all ranks
        return arrays[0]
    shape = KINDS[name][0]
    axis = piece.axis - (len(shape) - arrays[0].ndim)
    return np.concatenate(arrays, axis)


def differing(layout, found, params, state):
    """What differs between the parts of all ranks and one process: names of leaves, and of parts of the state."""
    joined, states = layout.join([mine for mine, *_ in found]), [each for _, each, *_ in found]
    odd = [name for name in params if own.bits(joined[name]) != own.bits(params[name])]
    assert {each.count for each in states} == {state.count}
    for part in state._fields[1:]:
        if getattr(state, part) is not None:
            odd += [
                f"{part} of {name}"
                for name, a in getattr(state, part).items()
                if own.bits(part_of(layout, states, part, name)) != own.bits(a)
            ]
    return odd
