"""What is read at an address is the same in compiled code and in Python. Also passes with NUMBA_DISABLE_JIT=1."""

import numba
import numpy as np
import pytest

from amos_ref.kernels.cpu.memory import aligned, number, view, word
from amos_ref.kernels.table import address


@numba.njit(fastmath=False, error_model="numpy")
def summed(at, start, stop, like):
    total = 0.0
    for x in view(at, start, stop, like):
        total += x
    return total


@numba.njit(fastmath=False, error_model="numpy")
def is_nothing(at):
    return view(at, 0, 3, None) is None


@numba.njit(fastmath=False, error_model="numpy")
def word_at(at):
    return word(at)


@numba.njit(fastmath=False, error_model="numpy")
def number_at(at):
    return number(at)


@pytest.mark.parametrize("dtype", ["f4", "f8", "u2", "i2"])
def test_a_view_is_the_elements_from_start_to_stop(dtype):
    a, like = np.arange(10).astype(dtype), np.empty(0, dtype)
    for start, stop in ((0, 10), (3, 7), (4, 4)):
        assert np.array_equal(view(address(a), start, stop, like), a[start:stop])
        assert summed(address(a), start, stop, like) == a[start:stop].sum()
    view(address(a), 2, 3, like)[0] = 9
    assert a[2] == 9
    assert view(address(a), 0, 3, None) is None
    assert is_nothing(address(a))


def test_a_word_is_the_64_bits_at_an_address():
    a = np.array([1, -1, 2**62, -(2**63)])
    for k, value in enumerate(a.tolist()):
        assert word(address(a) + 8 * k) == value
        assert word_at(address(a) + 8 * k) == value


def test_a_number_is_the_float64_at_an_address():
    a = np.array([1.5, -0.0, np.inf, 5e-324])
    for read in (number, number_at):
        assert np.array([read(address(a) + 8 * k) for k in range(4)]).tobytes() == a.tobytes()


@numba.njit(fastmath=False, error_model="numpy")
def compiled_aligned(count):
    return aligned(count)


def begins_a_line(make):
    held = [make(count) for count in range(1, 300)]  # all at once, so that no two lie at the same place
    assert [a.size for a in held] == list(range(1, 300))
    return all(a.ctypes.data % 64 == 0 for a in held)


def test_aligned_memory_begins_with_a_line_of_the_caches():
    assert begins_a_line(aligned)
    assert begins_a_line(compiled_aligned)
    assert not begins_a_line(np.empty)
