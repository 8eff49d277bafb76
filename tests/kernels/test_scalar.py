"""Loads and stores of half precision round as the page does. Also passes with NUMBA_DISABLE_JIT=1."""

import numba
import numpy as np
import pytest
from helpers import strategies as own
from helpers.leaves import PYTHON, same

from amos_ref import spec
from amos_ref.kernels import scalar


@numba.njit(fastmath=False, error_model="numpy")
def copied(source, wide, target):
    for i in range(source.size):
        wide[i] = scalar.load(source, i)
        scalar.store(target, i, wide[i])


@numba.njit(fastmath=False, error_model="numpy")
def stored(wide, target):
    for i in range(wide.size):
        scalar.store(target, i, wide[i])


def by_integers(load, store):
    """The same by functions that know the bits: all of it, and its second half."""

    @numba.njit(fastmath=False, error_model="numpy")
    def copied(source, wide, target):
        for i in range(source.size):
            wide[i] = load(source[i])
            target[i] = store(wide[i])

    @numba.njit(fastmath=False, error_model="numpy")
    def stored(wide, target):
        for i in range(wide.size):
            target[i] = store(wide[i])

    return copied, stored


@numba.njit(fastmath=False, error_model="numpy")
def stored_by_way_of_float32(wide, target):
    for i in range(wide.size):
        scalar.store(target, i, np.float64(np.float32(wide[i])))


HALF, BFLOAT = by_integers(scalar.from_half, scalar.to_half), by_integers(scalar.from_bfloat, scalar.to_bfloat)
WAYS = {
    "float16": copied,
    "bfloat16": copied,
    "float16 without the processor's help": HALF[0],
    "bfloat16 as on a GPU": BFLOAT[0],
}
STORED = {
    "float16 without the processor's help": HALF[1],
    "bfloat16 as on a GPU": BFLOAT[1],
}


@pytest.mark.no_cover
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
    name, stored_by = way.split()[0], STORED.get(way, stored)
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


def around_every_result(dtype):
    """Every number of a dtype of 16 bits, the middle between it and the next, and float64 on both sides of these.

    The nearest ones, and some at the distance of each bit that a rounding in two steps could lose.
    """
    infinity = int(np.array(np.inf).astype(dtype).view(np.uint16))
    exact = np.arange(infinity, dtype=np.uint16).view(dtype).astype(np.float64)
    beyond = 2 * exact[-1] - exact[-2]  # where the next number would lie, if it were not infinity
    middles = (exact + np.append(exact[1:], beyond)) / 2
    found = [exact, middles]
    for a in (exact, middles):
        found += [(a.view(np.int64)[1:] + step).view(np.float64) for step in (-2, -1, 1, 2)]
    found += [middles * (1 + sign * 2.0**-bit) for bit in range(8, 53, 1 if not PYTHON else 22) for sign in (-1, 1)]
    x = np.concatenate(found)[:: 101 if PYTHON else 1]
    return np.concatenate([x, -x])


def rounds_as_the_page(x, dtype, stored_by):
    with np.errstate(all="ignore"):
        got = np.empty(x.size, scalar.BITS[dtype.name])
        stored_by(x, got)
        return np.array_equal(got.view(np.uint16), spec.round_to(x, dtype).view(np.uint16))


@pytest.mark.no_cover
@pytest.mark.parametrize("way", WAYS)
def test_numbers_around_every_result_and_every_tie_are_rounded_as_the_page_does(way):
    dtype = own.DTYPES[way.split()[0]]
    x = around_every_result(dtype)
    assert rounds_as_the_page(x, dtype, STORED.get(way, stored))
    assert not rounds_as_the_page(x, dtype, stored_by_way_of_float32)
