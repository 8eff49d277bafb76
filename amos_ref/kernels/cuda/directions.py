"""The directions of leaves on the GPU: compiled into the kernels that reduce and into those that apply."""

import functools
from types import SimpleNamespace
from typing import Any

from amos_ref.kernels.cuda import scalar
from amos_ref.kernels.cuda.memory import device, getter
from amos_ref.kernels.cuda.scalar import add, multiply
from amos_ref.kernels.cuda.slots import AIMS


@functools.cache
def aiming(direction: Any, dtype: str, clip: Any = scalar.clip) -> Any:
    """Return how entries are aimed, for gradients of a dtype; `direction`: see :class:`amos_ref.kernels.Method`.

    moments : int
        How many arrays of moments are read and written.
    numbers : device function
        ``numbers(rates)``: what `aim` wants.
    aim : device function
        ``aim(k, raw, first, second, chi, numbers) -> (x, u, new first, new second)``: of entry k of local arrays the
        clipped gradient, along what it moves, and its moments.
    mark : device function
        ``mark(acc, x)``: acc, NaN if the square of x is not finite, which u may not show.
    """
    read = scalar.reads(dtype)
    if direction is None:

        @device
        def aim(k, raw, first, second, chi, numbers):
            x = clip(read(raw[k]), chi)
            return x, x, 0.0, 0.0

        return SimpleNamespace(moments=0, numbers=device(lambda rates: rates), aim=aim, mark=device(lambda acc, x: acc))
    direct, count = scalar.compile_rounded(direction.direct), len(direction._fields)
    make = _with_moments if direction.moments else _without
    numbers_at = getter("float64", count) if count else device(lambda rates, i: (rates,)[:0])
    return SimpleNamespace(
        moments=direction.moments,
        numbers=device(lambda rates: numbers_at(rates, AIMS)),
        aim=make(direct, read),
        mark=device(lambda acc, x: add(acc, multiply(0.0, multiply(x, x)))),
    )


def _without(direct: Any, read: Any) -> Any:
    @device
    def aim(k, raw, first, second, chi, numbers):
        x = scalar.clip(read(raw[k]), chi)
        (u,) = direct(x, *numbers)
        return x, u, 0.0, 0.0

    return aim


def _with_moments(direct: Any, read: Any) -> Any:
    @device
    def aim(k, raw, first, second, chi, numbers):
        x = scalar.clip(read(raw[k]), chi)
        u, m, v = direct(x, first[k], second[k], *numbers)
        return x, u, m, v

    return aim
