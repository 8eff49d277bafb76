"""Elements are read and rounded on a GPU as on the page; in the simulator the same functions run as they are."""

import ml_dtypes
import numpy as np
import pytest
from numba import cuda

from amos_ref import spec
from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.arrays import device_array
from amos_ref.kernels.cuda.memory import getter, putter
from amos_ref.kernels.cuda.slots import kernel

HALVES = {"uint16": np.dtype(np.float16), "int16": np.dtype(ml_dtypes.bfloat16)}


def convert(numbers, source, target, function):
    """Apply a function of scalar.py to every number, on the device."""
    get, put = getter(source), putter(target)

    @kernel
    def work(count, start, result):
        for i in range(cuda.grid(1), count, cuda.gridsize(1)):
            put(result, i, function(get(start, i)))

    numbers, result = np.ascontiguousarray(numbers, source), np.zeros(numbers.size, target)
    there, back = (cuda.to_device(a.view("u2") if a.itemsize == 2 else a) for a in (numbers, result))
    work[2, 64](numbers.size, *(device_array(a, "numbers").address for a in (there, back)))
    return back.copy_to_host().view(target)


def halves(dtype):
    """Every half, by its bits."""
    return np.arange(65536, dtype=np.uint16).view(dtype)


def hard(dtype):
    """Numbers that are hard to round to halves: each half, each middle of two, and what lies closest to them."""
    x = np.unique(halves(dtype).astype(np.float64)[np.isfinite(halves(dtype).astype(np.float64))])
    top = x[-1] + (x[-1] - x[-2])
    x = np.concatenate([x, [top, -top]])
    x.sort()
    middles = x[:-1] + (x[1:] - x[:-1]) / 2
    found = np.concatenate([x, middles])
    single = found.astype(np.float32)
    near = [np.nextafter(found, np.inf), np.nextafter(found, -np.inf)]
    near += [np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))]
    rest = [np.inf, -np.inf, np.nan, -np.nan, 1e300, -1e300, 5e-324, -5e-324, 1e-310, 0.0, -0.0, 2.0**-150, 1e39]
    return np.concatenate([found, *(a.astype(np.float64) for a in near), rest])


def same_but_nan(got, want):
    """Whether bits are equal; the sign and payload of a NaN are not the page's to define."""
    nan = np.isnan(want.astype(np.float64))
    kind = np.dtype(f"u{want.dtype.itemsize}")
    return (nan == np.isnan(got.astype(np.float64))).all() and (nan | (got.view(kind) == want.view(kind))).all()


@pytest.mark.parametrize("name", HALVES)
def test_every_half_is_read_as_it_is(name):
    x = halves(HALVES[name])
    with np.errstate(invalid="ignore"):
        assert same_but_nan(convert(x.view(name), name, "float64", scalar.reads(name)), x.astype(np.float64))


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_are_rounded_to_halves_as_on_the_page(name):
    x = hard(HALVES[name])
    x = x if scalar.SIMULATED is False else x[:: max(1, x.size // 20000)]
    got = convert(x, "float64", name, scalar.writes(name)).view(HALVES[name])
    assert same_but_nan(got, spec.round_to(x, HALVES[name]))


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rounding_twice_would_be_seen(name):
    x = hard(HALVES[name])
    twice = x.astype(np.float32).astype(HALVES[name])
    assert not same_but_nan(twice, spec.round_to(x, HALVES[name]))
