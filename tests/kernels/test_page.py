"""The page as a backend: everything is computed before anything is written."""

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import make_leaf, make_rates, method_of, page, same
from helpers.optimizers import make

from amos_ref import Amos
from amos_ref.errors import NonFiniteError
from amos_ref.kernels import load_backend


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
def test_a_run_has_the_bits_of_the_page(combination):
    rng = np.random.default_rng(1)
    leaves = [make_leaf(rng, combination, (4, 3), slot, name=str(slot)) for slot in ((), (3,), (4, 1), (4, 3))]
    rates = make_rates(combination)
    wanted = [page(leaf, rates) for leaf in leaves]
    work = load_backend("numpy").prepare(leaves, method_of(leaves[0], rates))
    assert work.run(rates) == -1
    assert work.advanced
    for leaf, arrays in zip(leaves, wanted, strict=True):
        for what, got in leaf.written().items():
            same(got, arrays[what], f"{what} of leaf {leaf.name}")


def test_a_bad_gradient_of_the_last_leaf_leaves_the_first_as_it_was():
    rng = np.random.default_rng(1)
    leaves = [make_leaf(rng, own.COMBINATIONS[0], (3,), (), name=name) for name in "ab"]
    leaves[1].g[2] = np.nan
    before = [own.bits(a) for leaf in leaves for a in leaf.written().values()]
    with pytest.raises(NonFiniteError, match=r"gradient of leaf 'b'\[2\] is nan"):
        load_backend("numpy").prepare(leaves, Amos.method).run(make_rates(own.COMBINATIONS[0]))
    assert [own.bits(a) for leaf in leaves for a in leaf.written().values()] == before


def test_no_layout_is_kept():
    backend, opt, params = load_backend("numpy"), make("Amos"), np.ones(3)
    assert backend.watch([params], 1) is None
    work = backend.prepare([], Amos.method)
    assert not work.keeps
    with pytest.raises(AssertionError, match="keeps no layout"):
        work.take([], None)
    opt.step(params, np.ones(3), opt.init(params))
    assert opt._last.peek() is None
