"""Parts of large arrays on one GPU, over ranks that are threads here, with the bits of one process on the host."""

import numpy as np
import pytest
from helpers import layouts, on_gpu, ranks
from numba import cuda

from amos_ref.errors import NonFiniteError
from amos_ref.kernels.cuda.arrays import device_array, download
from amos_ref.mpi import Layout, Sharded

#: Sums of lanes, of groups that a part has whole, and of indices before the innermost run; and slots that are kept.
KINDS = {
    "vector": ((10**7 + 1,), ()),
    "columns": ((100_003, 65), (1, 65)),
    "outer": ((5_000, 12, 64), (1, 12, 1)),
    "rows": ((300, 9_000), (300, 1)),
    "element": ((700, 900), (700, 900)),
    "scalar": ((), ()),
}
CUTS = {
    "vector": (0, (0, 8192 * 7, 8192 * 7, 10**7 + 1)),
    "columns": (0, (0, 64 * 65, 64 * 900, 100_003)),
    "outer": (0, (0, 4097, 4999, 5000)),
    "rows": (0, (0, 1, 300, 300)),
    "element": (1, (0, 1, 2, 900)),
    "scalar": 1,
}


def moved(tree):
    return {name: None if a is None else cuda.to_device(a) for name, a in tree.items()}


def fetched(tree):
    return {name: None if a is None else download(device_array(a, name)) for name, a in tree.items()}


@pytest.mark.parametrize("member", on_gpu.MEMBERS)
def test_parts_have_the_bits_of_one_process(member, monkeypatch):
    monkeypatch.setattr(layouts, "KINDS", KINDS)
    sigma = {} if member in ("constant", "schedule") else {"sigma": {"vector": "init", ".*": 0.6}}
    ours, theirs = on_gpu.pair(member, slot_shape=layouts.slot_of, **sigma)
    rng = np.random.default_rng(0)
    params, grads = ({n: rng.standard_normal(s, np.float32)[()] for n, (s, _) in KINDS.items()} for _ in range(2))
    params, grads = ({n: np.asarray(a) for n, a in tree.items()} for tree in (params, grads))
    layout = Layout({name: shape for name, (shape, _) in KINDS.items()}, CUTS)
    broken = grads | {"columns": grads["columns"].copy()}
    broken["columns"][-1, -1] = np.nan
    wanted = layouts.alone(ours, params, [grads, grads])

    def work(comm):
        sharded, mine = Sharded(theirs, layout, comm), moved(layout.pieces(params, comm.rank))
        here = moved(layout.pieces(grads, comm.rank))
        state = sharded.step(mine, here, sharded.init(mine))
        with pytest.raises(NonFiniteError, match=r"gradient of leaf 'columns'\[100002, 64\] is nan"):
            sharded.step(mine, moved(layout.pieces(broken, comm.rank)), state)
        state = sharded.step(mine, here, state)
        parts = {part: fetched(a) for part, a in zip(state._fields, state, strict=True) if isinstance(a, dict)}
        return fetched(mine), state._replace(**parts)

    assert layouts.differing(layout, ranks.results(3, work), *wanted) == []
