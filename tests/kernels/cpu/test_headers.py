"""Watches over arrays: whatever changes is seen, by reading headers from memory and by asking Python alike.

Also passes with NUMBA_DISABLE_JIT=1.
"""

import sys
import warnings

import numpy as np
import pytest
from helpers import strategies as own
from hypothesis import given
from hypothesis import strategies as st

from amos_ref.kernels.cpu import headers
from amos_ref.kernels.cpu.headers import ApartWatch, HeaderWatch, PlainWatch, watch_arrays
from amos_ref.kernels.table import address

FIXED = 2  # of the arrays below, which must stay where they are


class Subclass(np.ndarray):
    """Another type with the same header."""


def arrays():
    """Two that stay and three that may lie elsewhere; of every number of axes, one empty, one half precision."""
    shapes = {(3, 4): "f4", (5,): "f8", (2, 3, 2): "f8", (): "f4", (2, 0): "f2"}
    return [np.full(shape, 1.5, dtype) for shape, dtype in shapes.items()]


def in_place(**attributes):
    def change(a):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5
            for name, value in attributes.items():
                setattr(a, name, value(a))
        return a

    return change


def read_only(a):
    a.flags.writeable = False
    return a


def strided(a):
    """The same shape and address, but not contiguous."""
    base = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    return base[..., ::2]


#: What may become of one array between two steps: the change, and whether a watch lets it pass where the array must
#: stay and where it need not.
CHANGES = {
    "nothing": (lambda a: a, True, True),
    "a copy": (lambda a: a.copy(), False, True),
    "a view of all": (lambda a: a[...], True, True),
    "another shape": (lambda a: np.ones((*a.shape, 2), a.dtype), False, False),
    "one axis more": (lambda a: a[None], False, False),
    "another number of axes": (lambda a: a.reshape(-1) if a.ndim != 1 else np.array(a.sum()), False, False),
    "reshaped in place": (in_place(shape=lambda a: (*a.shape, 1)), False, False),
    "another dtype": (lambda a: a.astype("f8" if a.dtype != "f8" else "f4"), False, False),
    "the same bytes as integers": (lambda a: a.view(f"i{a.itemsize}"), False, False),
    "the same bytes in the other order": (lambda a: a.view(a.dtype.newbyteorder()), False, False),
    "a subclass": (lambda a: a.view(Subclass), False, False),
    "read-only": (read_only, False, True),
    "a number": (lambda a: 0.5, False, False),
    "a number of NumPy": (lambda a: np.float64(0.5), False, False),
    "None": (lambda a: None, False, False),
    "a list": (lambda a: a.tolist(), False, False),
}
# These are the same array where there is no axis or no element.
SHAPED = {
    "strided": (strided, False, False),
    "transposed in place": (lambda a: np.asfortranarray(np.ones(a.shape, a.dtype)), False, False),
    "on odd bytes": (lambda a: own.laid_out(a, "odd"), False, False),
}


def expected(after, fixed, passes):
    """The addresses that a watch returns: of what need not stay, if everything passes."""
    return [address(a) for a in after[fixed:]] if all(passes) else None


def outcome(watch, after):
    found = watch.compare(after)
    return None if found is None else found.tolist()


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_seen(kind, index, change):
    make, stays, moves = CHANGES[change]
    before = arrays()
    watch, after = kind(before, FIXED), list(before)
    after[index] = make(before[index])
    assert outcome(watch, after) == expected(after, FIXED, [stays if index < FIXED else moves])
    # Nothing of what was seen is kept: the right arrays are right again.
    if change not in ("reshaped in place", "read-only"):
        assert outcome(watch, before) == [address(a) for a in before[FIXED:]]


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("change", SHAPED)
def test_memory_that_is_not_contiguous_or_aligned_is_seen(kind, index, change):
    before = arrays()
    watch, after = kind(before, FIXED), list(before)
    after[index] = SHAPED[change][0](before[index])
    assert watch.compare(after) is None


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
def test_an_array_that_was_read_only_may_become_writeable(kind):
    before = [read_only(np.ones(3)), np.ones(2)]
    watch = kind(before, 2)
    assert outcome(watch, before) == []
    before[0].flags.writeable = True
    assert outcome(watch, before) == []
    before[1].flags.writeable = False
    assert watch.compare(before) is None


@given(drawn=st.lists(st.sampled_from([*CHANGES]), min_size=5, max_size=5), fixed=st.integers(0, 5))
def test_both_kinds_see_the_same_in_any_changes(drawn, fixed):
    before = arrays()
    watches, after = [HeaderWatch(before, fixed), PlainWatch(before, fixed)], []
    for a, change in zip(before, drawn, strict=True):
        after.append(CHANGES[change][0](a))
    passes = [CHANGES[change][1 if k < fixed else 2] for k, change in enumerate(drawn)]
    wanted = expected(after, fixed, passes)
    assert [outcome(watch, after) for watch in watches] == [wanted, wanted]


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
@pytest.mark.parametrize("count", [0, 4, 6])
def test_another_number_of_arrays_is_an_error(kind, count):
    watch = kind(arrays(), FIXED)
    with pytest.raises(AssertionError, match="compares as many arrays as it has rows for"):
        watch.compare((arrays() * 2)[:count])


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
def test_a_watch_holds_no_array_alive(kind):
    before = arrays()
    counts = [sys.getrefcount(a) for a in before]
    watch = kind(before, FIXED)
    watch.compare(before)
    assert [sys.getrefcount(a) for a in before] == counts


def test_a_watch_holds_types_and_dtypes_alive():
    """A type or dtype that came to lie where another one was would be taken for it."""
    before = [np.ones(3).view(type("Short", (np.ndarray,), {}))]
    watch = HeaderWatch(before, 1)
    assert watch.kinds == [(type(before[0]), before[0].dtype)]


# whether headers can be read


@pytest.fixture
def afresh():
    headers.headers_are_readable.cache_clear()
    yield
    headers.headers_are_readable.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_headers_are_readable_here():
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert headers.headers_are_readable() is (sys.implementation.name == "cpython" and locked)


# A shape is read through a pointer: behind it lies that of the strides, and before it no pointer at all.
SHIFTS = [(field, by) for field in ("DATA", "NDIM", "DTYPE", "FLAGS") for by in (8, -8)] + [("SHAPE", 8)]


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(("field", "by"), SHIFTS)
def test_headers_whose_fields_lie_elsewhere_are_not_read(field, by, monkeypatch):
    # Compiled code has the offsets in it; as Python the same function looks them up.
    monkeypatch.setattr(headers, "unchanged", getattr(headers.unchanged, "py_func", headers.unchanged))
    assert headers.headers_are_readable()
    headers.headers_are_readable.cache_clear()
    monkeypatch.setattr(headers, field, getattr(headers, field) + by)
    assert headers.headers_are_readable() is False


@pytest.mark.usefixtures("afresh")
def test_a_comparison_that_looks_at_too_little_is_not_used(monkeypatch):
    monkeypatch.setattr(headers, "unchanged", lambda *args: True)
    assert headers.headers_are_readable() is False


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (sys, "_is_gil_enabled", lambda: False),
        (sys, "maxsize", 2**31 - 1),
        (sys.implementation, "name", "pypy"),
        (np, "__version__", "3.0.0"),
        (np, "__version__", "1.26.4"),
    ],
    ids=["no lock", "32 bits", "PyPy", "NumPy 3", "NumPy 1"],
)
def test_headers_are_not_read_where_they_are_not_known(where, name, value, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(where, name, value, raising=False)
        found = headers.headers_are_readable()
    assert found is False


@pytest.mark.parametrize(("readable", "kind"), [(True, HeaderWatch), (False, PlainWatch)])
def test_python_is_asked_where_headers_cannot_be_read(readable, kind, monkeypatch):
    monkeypatch.setattr(headers, "headers_are_readable", lambda: readable)
    watch = watch_arrays(arrays(), FIXED)
    assert type(watch.watch) is kind
    before = arrays()
    assert outcome(watch_arrays(before, FIXED), before) == [address(a) for a in before[FIXED:]]


# arrays apart


@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=6),
    others=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=4),
)
def test_apart_is_that_no_two_spans_share_a_byte(spans, others):
    taken, disjoint = set(), []
    for low, size in sorted(spans):
        if taken.isdisjoint(range(low, low + size)):
            taken |= set(range(low, low + size))
            disjoint.append((low, low + size))
    lows, highs = np.array(disjoint, np.int64).reshape(-1, 2).T.copy()
    data, sizes = np.array(others, np.int64).reshape(-1, 2).T.copy()
    wanted = all(taken.isdisjoint(range(low, low + size)) for low, size in others if size)
    found = bool(headers.apart(data, sizes, lows, highs))
    # One of no bytes inside another may be called either; a step then only looks again.
    assert found == wanted or (wanted and any(size == 0 for _, size in others))


def test_spans_have_a_beginning_and_an_end_each():
    one, two = np.zeros(1, np.int64), np.zeros(2, np.int64)
    for arguments in ((one, two, one, one), (one, one, one, two)):
        with pytest.raises(AssertionError, match="a beginning and an end each"):
            headers.apart(*arguments)


@pytest.mark.parametrize("kind", [HeaderWatch, PlainWatch])
def test_a_gradient_inside_a_parameter_is_seen(kind):
    memory = np.arange(12.0)
    before = [memory[:4], memory[8:], np.ones(3)]
    watch = ApartWatch(kind(before, FIXED), before, FIXED)
    assert watch.disjoint
    assert outcome(watch, [*before[:2], memory[4:7]]) == [address(memory[4:])]
    assert outcome(watch, [*before[:2], memory[5:8]]) == [address(memory[5:])]
    for start in (0, 1, 3, 6, 7, 9):
        assert watch.compare([*before[:2], memory[start : start + 3]]) is None


def test_what_overlaps_or_is_not_contiguous_is_not_watched():
    memory = np.arange(12.0)
    assert watch_arrays([memory[:4], memory[3:]], 2) is None
    assert watch_arrays([memory[:4], memory[4:]], 2) is not None
    assert watch_arrays([memory[::2], np.ones(3)], 1) is None
    assert watch_arrays([np.ones(3), memory[::2]], 1) is None
    assert watch_arrays([own.laid_out(memory, "odd")], 1) is None
    # Two gradients may share memory: they are only read.
    before = [np.ones(3), memory[:4], memory[:4]]
    assert outcome(watch_arrays(before, 1), before) == [address(memory)] * 2
