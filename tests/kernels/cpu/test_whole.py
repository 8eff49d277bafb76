"""The step of a small table in one call; that its bits are the page's is seen in test_loops.py and test_backend.py."""

import functools

import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import make_leaf, make_rates, method_of, page, same

from amos_ref.kernels import load_backend, table
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import calls, whole

KINDS = {"rows": ((5, 3), (5, 1)), "columns": ((5, 3), (1, 3)), "elements": ((5, 3), (5, 3))}
RATES = make_rates(own.COMBINATIONS[0])


def leaves_of(*kinds, combination=own.COMBINATIONS[0]):
    rng = np.random.default_rng(3)
    return [make_leaf(rng, combination, *KINDS[kind], name=f"{k}{kind}") for k, kind in enumerate(kinds)]


def prepared(leaves):
    return load_backend("cpu").prepare(leaves, method_of(leaves[0], RATES))


def log_calls(work):
    """Note what each part is called for, but for calls that did nothing as other kernels had to be found first."""
    calls = []

    def call(k, right, what, *args):
        answer = right(what, *args)
        if answer != whole.OTHERS:
            calls.append((k, what))
        return answer

    for k, part in enumerate(work.parts):
        part.call = functools.partial(call, k, part.call)
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


@pytest.fixture
def noted(monkeypatch):
    """The types that kernels are found for, by what stands for an address, while all runs as Python."""
    found = {}

    def address_of(run, kinds, result):
        found[len(found) + 1] = kinds
        return len(found)

    def call(address, *args):
        assert calls.kinds_of(*args) == found[address]
        return -1

    for name, stand_in in {"address_of": address_of, "call": call, "ask": call}.items():
        monkeypatch.setattr(whole, name, stand_in)
    monkeypatch.setattr(whole, "key", lambda *args: calls.key_of(calls.kinds_of(*args)))
    return found


def step_as_python(kind, combination):
    """Find the kernels of a table, and call the one that calls them, which runs as Python."""
    rates = make_rates(combination)
    leaves = leaves_of(kind, combination=combination)
    work = load_backend("cpu").prepare(leaves, method_of(leaves[0], rates))
    (part,), how = work.parts, (rates.chi, rates.mu, rates.aims, rates.numbers)
    kernel = whole.elements if kind == "elements" else whole.slots
    assert getattr(kernel, "py_func", kernel)(whole.ALL, *part.fixed, *how) == whole.OTHERS
    part.find_kernels(how)
    assert getattr(kernel, "py_func", kernel)(whole.ALL, *part.fixed, *how) == -1
    assert work.done


@pytest.mark.parametrize("combination", own.FAMILY, ids=own.FAMILY_IDS)
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_called_with_the_types_that_they_are_compiled_for(kind, combination, noted):
    step_as_python(kind, combination)
    assert len(noted) == (2 if kind == "elements" else 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_with_another_type_is_caught(kind, noted, monkeypatch):
    right = whole.leaves_of
    monkeypatch.setattr(whole, "leaves_of", lambda words: right(words).astype(np.int32))
    with pytest.raises(AssertionError):
        step_as_python(kind, own.COMBINATIONS[0])


def test_other_types_than_at_the_last_step_have_other_kernels():
    """The same work steps with and without clipping, for which kernels are compiled apart."""
    leaves = leaves_of("columns")
    work = prepared(leaves)
    (part,), found, answers = work.parts, [], []
    right = part.call
    part.call = lambda *args: answers.append(right(*args)) or answers[-1]
    for chi in (None, 0.5, 0.5, None):
        rates = make_rates(own.COMBINATIONS[0], clip_value=chi)
        wanted = [page(leaf, rates) for leaf in leaves]
        work.start()
        assert work.run(rates) == -1
        found.append(tuple(part.words[whole.KEY :].tolist()))
        for leaf, arrays in zip(leaves, wanted, strict=True):
            for what, got in leaf.written().items():
                same(got, arrays[what], f"{what} of leaf {leaf.name} with clip_value {chi}")
    assert answers == [whole.OTHERS, -1, whole.OTHERS, -1, -1, whole.OTHERS, -1]
    assert found[0] == found[3] != found[1] == found[2]
