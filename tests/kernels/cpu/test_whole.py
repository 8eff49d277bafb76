"""The step of a small table in one call; that its bits are the page's is seen in test_loops.py and test_backend.py."""

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import make_leaf, make_rates, method_of, page, same

from amos_ref.kernels import load_backend, table
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import whole

KINDS = {"rows": ((5, 3), (5, 1)), "columns": ((5, 3), (1, 3)), "elements": ((5, 3), (5, 3))}
RATES = make_rates(own.COMBINATIONS[0])


def leaves_of(*kinds, combination=own.COMBINATIONS[0]):
    rng = np.random.default_rng(3)
    return [make_leaf(rng, combination, *KINDS[kind], name=f"{k}{kind}") for k, kind in enumerate(kinds)]


def prepared(leaves):
    return load_backend("cpu").prepare(leaves, method_of(leaves[0], RATES))


def log_calls(work):
    """Note what each part is called for."""
    calls = []
    for k, part in enumerate(work.parts):
        right = part.call
        part.call = lambda what, *args, k=k, right=right: calls.append((k, what)) or right(what, *args)
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_one_table_is_stepped_in_one_call(kind, monkeypatch):
    for name in ("launch", "launch_marked"):
        monkeypatch.setattr(cpu, name, lambda *args: pytest.fail("a kernel is launched"))
    leaves = leaves_of(kind, kind)
    work, wanted = prepared(leaves), [page(leaf, RATES) for leaf in leaves]
    calls = log_calls(work)
    assert work.at_once
    work.start()
    assert not work.done
    assert work.run(RATES) == -1
    assert work.done
    assert calls == [(0, whole.ALL)]
    for leaf, arrays in zip(leaves, wanted, strict=True):
        for what, got in leaf.written().items():
            same(got, arrays[what], f"{what} of leaf {leaf.name}")


def test_of_several_tables_all_are_looked_at_before_one_is_written():
    leaves = leaves_of(*KINDS)  # alive meanwhile, for a work holds addresses
    work = prepared(leaves)
    calls = log_calls(work)
    assert not work.at_once
    assert work.run(RATES) == -1
    assert not work.done
    assert calls == [(k, whole.READ_ONLY) for k in range(3)] + [(k, whole.WRITE_ONLY) for k in range(3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_the_last_gradient_is_seen_before_anything_is_written(kind, value):
    leaves = leaves_of("rows", kind, combination=own.COMBINATIONS[0])
    assert leaves[-1].g.dtype == np.float64
    leaves[-1].g.reshape(-1)[-1] = value
    before = [own.bits(a) for leaf in leaves for a in leaf.written().values()]
    work = prepared(leaves)
    for _ in range(2):
        work.start()
        assert work.run(RATES) == 1
        assert not work.done
        assert [own.bits(a) for leaf in leaves for a in leaf.written().values()] == before
    leaves[-1].g.reshape(-1)[-1] = 1.0
    work.start()
    assert work.run(RATES) == -1


def test_a_version_that_writes_too_early_is_caught(monkeypatch):
    monkeypatch.setattr(cpu.SmallPart, "reduce", lambda self, how: self.call(whole.ALL, *self.fixed, *how))
    with pytest.raises(AssertionError):
        test_the_last_gradient_is_seen_before_anything_is_written("columns", np.nan)


def test_what_is_not_stepped_in_one_call(monkeypatch):
    rng = np.random.default_rng(1)
    mixed = make_leaf(rng, own.COMBINATIONS[0], (2, 3, 2), (1, 3, 1))
    turned = leaves_of("rows")[0]._replace(theta=np.ones((3, 5)).T)
    assert not any(prepared([leaf]).at_once for leaf in (mixed, turned))
    assert prepared(leaves_of("rows")).at_once
    monkeypatch.setattr(table, "LITTLE", 15)
    assert not any(prepared(leaves_of(kind)).at_once for kind in KINDS)


def test_words_hold_addresses_of_what_a_part_keeps_alive():
    part = prepared(leaves_of("rows")).parts[0]
    starts, leaves, share, sums, (means, alpha, rho) = part.held
    at = [part.words[k] for k in (whole.STARTS, whole.LEAVES, whole.SHARE, whole.SUMS_AT)]
    assert at == [table.address(a) for a in (starts, leaves, share, sums)]
    assert part.words[[whole.MEANS, whole.ALPHA, whole.RHO]].tolist() == [table.address(a) for a in (means, alpha, rho)]
    assert part.words[whole.LEAF_COUNT] == len(leaves) == len(share)
