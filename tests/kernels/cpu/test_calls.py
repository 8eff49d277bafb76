"""Kernels that are called by their addresses. Also passes with NUMBA_DISABLE_JIT=1."""

import subprocess
import sys

import numba
import numpy as np
import pytest
from numba import types

from amos_ref.kernels.cpu import calls
from amos_ref.kernels.jit import kernel


@kernel
def scale(a, factor, much):
    """Multiply in place; `much` is a number or nothing."""
    for i in range(a.size):
        a[i] = a[i] * factor


@kernel
def largest(a):
    """Return where the largest number stands."""
    best = 0
    for i in range(a.size):
        best = i if a[i] > a[best] else best
    return best


@kernel
def raises(a):
    raise ValueError("on purpose")


@kernel
def both(addresses, a, factor, much):
    """Call the one, and then ask the other; None and literals among the arguments."""
    calls.call(addresses[0], a, factor, much)
    calls.call(addresses[0], a, 2.0, None)
    return calls.ask(addresses[1], a)


@kernel
def only(address, a):
    calls.call(address, a)
    a[0] = 5.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_called_by_its_address_does_what_it_does_by_its_name(dtype):
    a = np.array([1, 3, 2], dtype)
    to_scale, to_ask = calls.kinds_of(a, 0.5, None), calls.kinds_of(a)
    addresses = np.array(
        [calls.address_of(scale, to_scale, types.none), calls.address_of(largest, to_ask, types.int64)]
    )
    assert both(addresses, a, 0.5, None) == 1
    assert a.tolist() == [1.0, 3.0, 2.0]  # by 0.5 and by 2.0
    assert both(addresses, a, 4.0, None) == 1
    assert a.tolist() == [8.0, 24.0, 16.0]


def test_an_error_of_what_is_called_is_one_of_the_caller():
    a = np.zeros(1)
    address = calls.address_of(raises, calls.kinds_of(a), types.none)
    with pytest.raises(ValueError, match="on purpose"):
        only(address, a)
    assert a[0] == 0.0


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_a_kernel_that_returns_something_else_is_refused():
    kinds = calls.kinds_of(np.zeros(1))
    with pytest.raises(AssertionError, match="returns int64, but is called for none"):
        calls.address_of(largest, kinds, types.none)


def test_types_have_keys_of_their_own():
    some = [0, 0.5, None, False, np.zeros(1), np.zeros(1, np.float32), np.zeros((1, 1)), (0.5,), (0.5, 0.5), 1j]
    keys = {calls.key_of(calls.kinds_of(*args)) for args in [(), *[(a,) for a in some], (0.5, None), (None, 0.5)]}
    assert len(keys) == len(some) + 3
    assert calls.key_of(calls.kinds_of(1.5, None)) == calls.key_of(calls.kinds_of(2.5, None))


@kernel
def key_here(a, x):
    return calls.key(a, x, 3)


def test_compiled_code_has_the_key_that_python_has():
    a = np.zeros(2, np.float32)
    for x in (None, 0.5):
        assert key_here(a, x) == calls.key_of(calls.kinds_of(a, x, 3))
    assert key_here(a, None) != key_here(a, 0.5)


def test_the_key_is_the_same_in_every_process():
    """Compiled code is kept on disk, with the key in it."""
    text = (
        "from amos_ref.kernels.cpu import calls; import numpy as np;"
        "print(calls.key_of(calls.kinds_of(np.zeros(1), 0.5, None)))"
    )
    said = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert int(said) == calls.key_of(calls.kinds_of(np.zeros(1), 0.5, None))
