"""The compiled kernels give the page's bits. Also passes with NUMBA_DISABLE_JIT=1, on smaller arrays."""

import ast
import pathlib
import subprocess
import sys
import threading
import time

import numba
import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import EDGES, LARGE, PYTHON, make_leaf, make_rates, page, same, step
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import config
from numba.core.dispatcher import Dispatcher

import amos_ref
from amos_ref import spec
from amos_ref.errors import NonFiniteError
from amos_ref.kernels import scalar, table
from amos_ref.kernels.cpu import loops as cpu_kernels
from amos_ref.kernels.cpu import threads
from amos_ref.kernels.table import Tasks

compiled_only = pytest.mark.skipif(PYTHON, reason="kernels run as Python")


def check(leaf, rates):
    """One step of the kernels in place; every array it writes has the page's bits."""
    ref, g = page(leaf, rates), own.bits(leaf.g)
    step("cpu", [leaf], rates)
    for (what, got), want in zip(leaf.written().items(), (a for a in ref if a is not None), strict=True):
        same(got, want, f"{what} of shape {got.shape}, slot {leaf.v.shape}")
    assert own.bits(leaf.g) == g


@pytest.mark.parametrize("combination", own.COMBINATIONS, ids=own.COMBINATION_IDS)
@settings(max_examples=50 if PYTHON else 300)
@given(data=st.data())
def test_step_has_the_bits_of_the_page(combination, data):
    shape = data.draw(own.shapes(max_side=4 if PYTHON else 7), label="shape")
    slot = data.draw(own.slots(shape), label="slot")
    layouts = data.draw(st.tuples(*[own.layouts] * 4), label="layouts of theta and m, g, v, b")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    hyper = data.draw(own.hyper_parameters(momentum=False))
    eta, t = hyper.pop("eta"), data.draw(own.steps, label="t")
    hyper |= dict(q=spec.one_minus_power(hyper["beta"], t), momentum=combination.momentum)
    check(make_leaf(rng, combination, shape, slot, layouts, eta=eta), make_rates(combination, **hyper))


@settings(max_examples=30 if PYTHON else 150)
@given(data=st.data())
def test_long_axes_have_the_bits_of_the_page(data):
    lengths = st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129] + ([] if PYTHON else [1023, 1024, 1025, 4097]))
    long = data.draw(lengths, label="long")
    shape = tuple(data.draw(st.permutations([long, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))])))
    slot = data.draw(own.slots(shape), label="slot")
    rng = np.random.default_rng(data.draw(own.seeds, label="seed"))
    combination = own.COMBINATIONS[1]
    check(
        make_leaf(rng, combination, shape, slot),
        make_rates(combination, clip_value=data.draw(st.none() | st.just(0.75))),
    )


@pytest.mark.parametrize("combination", own.COMBINATIONS[1:3], ids=own.COMBINATION_IDS[1:3])
@pytest.mark.parametrize(("shape", "slot"), EDGES)
def test_sizes_around_the_borders_of_chunks(shape, slot, combination):
    check(make_leaf(np.random.default_rng(2), combination, shape, slot), make_rates(combination))


@compiled_only
@pytest.mark.parametrize(("shape", "slot"), LARGE)
@pytest.mark.parametrize("combination", [own.COMBINATIONS[0], own.COMBINATIONS[7]], ids=["plain", "half"])
def test_large_arrays_have_the_bits_of_the_page(combination, shape, slot):
    check(make_leaf(np.random.default_rng(3), combination, shape, slot), make_rates(combination))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", [(3,), (4, 1), (4, 3), ()])
def test_parameters_and_state_that_are_not_finite_follow_the_page(slot, value):
    for part in ("theta", "m", "v", "b"):
        leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[1], (4, 3), slot)
        getattr(leaf, part).reshape(-1)[0] = value
        check(leaf, make_rates(own.COMBINATIONS[1]))


@pytest.mark.parametrize("slot", [(3,), (4, 1), (4, 3), ()])
def test_subnormals_are_kept(slot):
    # A processor told to flush subnormals to 0, or a library that told it, would show here.
    leaf = make_leaf(np.random.default_rng(4), own.COMBINATIONS[0], (4, 3), slot)
    leaf.theta[...] = leaf.g[...] = 3e-310
    leaf.v[...], leaf.b[...] = 5e-324, 1e-320
    check(leaf, make_rates(own.COMBINATIONS[0], extra_l2=0.3))
    assert np.all(leaf.theta != 0)


def test_arrays_that_are_not_aligned():
    a = np.frombuffer(bytearray(8 * 6 + 1), np.float64, 6, 1)
    a[...] = np.linspace(-1, 2, 6)
    leaf = make_leaf(np.random.default_rng(5), own.COMBINATIONS[0], (6,), ())._replace(theta=a)
    assert not leaf.theta.flags.aligned
    check(leaf, make_rates(own.COMBINATIONS[0]))


# threads


def tree_leaves(seed):
    """Leaves for every kernel, with more tasks of each than there are threads."""
    rng = np.random.default_rng(seed)
    side = 9 if PYTHON else 300
    slots = [
        ((3, 9000), (3, 1)),
        ((9000,), ()),
        ((side, side), (1, side)),
        ((130, 5), (5,)),
        ((side, side), (side, side)),
    ]
    return [make_leaf(rng, own.COMBINATIONS[1], *slots[k], name=str(k)) for k in range(len(slots))]


def stepped(leaves, times=2):
    for _ in range(times):
        step("cpu", leaves, make_rates(own.COMBINATIONS[1]))
    return [own.bits(a) for leaf in leaves for _, a in leaf.written().items()]


@pytest.fixture(params=["whoever"] if PYTHON else ["whoever", "helpers"])
def eager_threads(request, monkeypatch):
    """Share even the smallest work between threads; perhaps let the caller come late, so that helpers do most of it."""
    monkeypatch.setattr(table, "LITTLE", 1)
    if request.param == "helpers":
        work = threads.Launch.work

        def late(launched):
            if threading.current_thread() not in threads.helpers:
                time.sleep(2e-4)
            work(launched)

        monkeypatch.setattr(threads.Launch, "work", late)
    before = numba.get_num_threads()
    yield min(config.NUMBA_NUM_THREADS, 5)
    numba.set_num_threads(before)


def test_number_of_threads_changes_no_bit(eager_threads):
    assert eager_threads >= 2
    found = []
    for count in range(1, eager_threads + 1):
        numba.set_num_threads(count)
        found.append(stepped(tree_leaves(6)))
    assert all(bits == found[0] for bits in found)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize(("shape", "slot"), [edge for edge in EDGES if own.size(edge[0]) < 1000])
def test_shared_work_has_the_bits_of_the_page(shape, slot):
    check(make_leaf(np.random.default_rng(2), own.COMBINATIONS[1], shape, slot), make_rates(own.COMBINATIONS[1]))


def many_leaves(rng, count=60):
    """Leaves of few shapes and dtypes, so that tables hold many of each, empty ones too, in no order."""
    kinds = [((5, 3), (5, 1)), ((130,), ()), ((0, 3), (1, 3)), ((), ()), ((66, 2), (1, 2)), ((7,), (7,)), ((0,), (0,))]
    kinds += [((2, 65, 3), (2, 1, 3)), ((3, 2, 4), (1, 2, 1)), ((2, 0), (2, 1)), ((1, 8193), (1, 1))]
    order = rng.integers(len(kinds), size=count)
    return [
        make_leaf(rng, own.COMBINATIONS[1 + k % 2], *kinds[kind], name=str(k), eta=0.1 + k / count)
        for k, kind in enumerate(order)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_many_leaves_in_few_tables_have_the_bits_of_the_page(count, eager_threads):
    numba.set_num_threads(min(count, eager_threads))
    leaves = many_leaves(np.random.default_rng(count), 20 if PYTHON else 200)
    rates = make_rates(own.COMBINATIONS[1])
    ref = [page(leaf, rates._replace(momentum=None if leaf.m is None else rates.momentum)) for leaf in leaves]
    step("cpu", leaves, rates)
    for leaf, wanted in zip(leaves, ref, strict=True):
        for (what, got), want in zip(leaf.written().items(), (a for a in wanted if a is not None), strict=True):
            same(got, want, f"{what} of leaf {leaf.name}, shape {leaf.theta.shape}, slot {leaf.v.shape}")


def test_batches_are_of_about_the_same_work_and_each_task_is_in_one():
    tasks = Tasks(np.array([0, 30, 30, 100, 101]), np.array([0, 300, 300, 370, 1000]))
    for count in range(1, 12):
        batches = tasks.batches(count)
        assert [k for first, last in batches for k in range(first, last)] == list(range(101))
        assert len(batches) <= count * table.BATCHES
    assert tasks.batches(1) == [(0, 25), (25, 100), (100, 101)]
    assert Tasks(np.array([0, 0]), np.array([0, 0])).batches(2) == []


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("slot", [(), (7,)])
def test_every_thread_sees_a_gradient_that_is_not_finite(slot):
    for i in range(7):
        leaf = make_leaf(np.random.default_rng(2), own.COMBINATIONS[1], (7,), slot)
        leaf.g[i] = np.nan
        before = [own.bits(a) for _, a in leaf.written().items()]
        with pytest.raises(NonFiniteError, match=rf"\[{i}\] is nan"):
            step("cpu", [leaf], make_rates(own.COMBINATIONS[1]))
        assert [own.bits(a) for _, a in leaf.written().items()] == before


@pytest.mark.usefixtures("eager_threads")
def test_python_threads_may_step_different_trees_at_once():
    seeds = (7, 8, 9)
    ref = [stepped(tree_leaves(seed)) for seed in seeds]
    got, start = {}, threading.Barrier(len(seeds))

    def work(seed):
        leaves = tree_leaves(seed)
        start.wait()
        got[seed] = stepped(leaves)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [got.get(seed) for seed in seeds] == ref


# loads and stores of half precision


@numba.njit(fastmath=False, error_model="numpy")
def copied(source, wide, target):
    for i in range(source.size):
        wide[i] = scalar.load(source, i)
        scalar.store(target, i, wide[i])


@numba.njit(fastmath=False, error_model="numpy")
def stored(wide, target):
    for i in range(wide.size):
        scalar.store(target, i, wide[i])


@numba.njit(fastmath=False, error_model="numpy")
def copied_by_integers(source, wide, target):
    for i in range(source.size):
        wide[i] = scalar.from_half(source[i])
        target[i] = scalar.to_half(wide[i])


@numba.njit(fastmath=False, error_model="numpy")
def stored_by_integers(wide, target):
    for i in range(wide.size):
        target[i] = scalar.to_half(wide[i])


WAYS = {"float16": copied, "bfloat16": copied, "float16 without the processor's help": copied_by_integers}


@pytest.mark.parametrize("way", WAYS)
def test_every_bit_pattern_survives_load_and_store(way):
    name, copied = way.split()[0], WAYS[way]
    patterns = np.arange(2**16, dtype=np.uint16).view(scalar.BITS[name])
    values = patterns.view(own.DTYPES[name])
    wide, back = np.empty(2**16), np.empty_like(patterns)
    copied(patterns, wide, back)
    with np.errstate(invalid="ignore"):
        same(wide, values.astype(np.float64), "load")
        again = back.view(own.DTYPES[name]).astype(np.float64)
    real = ~np.isnan(wide)
    assert np.array_equal(back[real], patterns[real])
    assert np.isnan(again[~real]).all()


@pytest.mark.parametrize("way", [*WAYS, "float32", "float64"])
def test_numbers_are_stored_as_the_page_rounds_them(way):
    name, stored_by = way.split()[0], stored_by_integers if way.endswith("help") else stored
    rng, dtype, count = np.random.default_rng(9), own.DTYPES[name], 2_000 if PYTHON else 200_000
    x = np.ldexp(rng.uniform(-2, 2, count), rng.integers(-160, 160, count))
    anything = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    ties = np.ldexp(rng.integers(-(2**12), 2**12, count).astype(float), rng.integers(-150, 120, count))
    x = np.concatenate(
        [x, anything, ties, np.nextafter(ties, 0), np.nextafter(ties, np.inf), [np.inf, -np.inf, np.nan]]
    )
    with np.errstate(all="ignore"):
        ref, got = spec.round_to(x, dtype), np.empty(x.size, scalar.BITS.get(name, dtype))
        stored_by(x, got)
        same(got.view(dtype).astype(np.float64), ref.astype(np.float64), "store")


# the source

MAKERS = {"jit", "njit", "vectorize", "guvectorize", "stencil", "register_jitable", "overload", "overload_method"}


def jitted(tree):
    """(line, call) of everything in a file that has Numba compile something; the call is None for a bare name."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "jax":
            continue
        if name in MAKERS:
            yield node.lineno, calls.get(id(node))


def options_of(node):
    """What a literal dictionary says; under a name anything could stand."""
    if not isinstance(node, ast.Dict):
        return {}
    return {getattr(key, "value", None): value for key, value in zip(node.keys, node.values, strict=True)}


def fastmath_of(call):
    """The value of the call's fastmath, by itself, in ** or in jit_options; None if it says nothing."""
    found = {}
    for keyword in call.keywords if call else ():
        found |= options_of(keyword.value) if keyword.arg in (None, "jit_options") else {keyword.arg: keyword.value}
    return getattr(found.get("fastmath"), "value", None)


def test_every_kernel_says_that_fastmath_is_off():
    seen = 0
    for path in sorted(pathlib.Path(amos_ref.__file__).parent.rglob("*.py")):
        for line, call in jitted(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            assert fastmath_of(call) is False, f"{path}:{line} does not say fastmath=False"
    assert seen >= 3


@compiled_only
def test_every_kernel_is_compiled_with_fastmath_off():
    deciding = cpu_kernels.deciding(amos_ref.Amos.method.decide, amos_ref.Amos.method.states)
    kernels = [*vars(cpu_kernels).values(), *vars(deciding).values()]
    found = [value for value in kernels if isinstance(value, Dispatcher)]
    assert len(found) >= 10
    assert all(kernel.targetoptions["fastmath"] is False for kernel in found)


LOOSE = [
    "@njit\ndef f(): ...",
    "@numba.njit()\ndef f(): ...",
    "@overload(f)\ndef g(): ...",
    "njit(f)",
    "njit(fastmath=True)(f)",
    "njit(**{**STRICT, 'fastmath': True})(f)",
    "njit(**STRICT)(f)",
    "njit(fastmath={'contract'})(f)",
    "overload(f, jit_options={'fastmath': {'contract'}})",
    "overload(f, jit_options=LOOSE)",
]


@pytest.mark.parametrize("text", LOOSE)
def test_kernels_that_do_not_say_so_are_caught(text):
    assert [fastmath_of(call) for _, call in jitted(ast.parse(text))] != [False]


def test_importing_the_package_imports_no_compiler_and_no_framework():
    heavy = ["numba", "llvmlite", "torch", "jax", "tensorflow", "rich", "scipy", "matplotlib", "flint"]
    code = f"import sys, amos_ref; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
