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
