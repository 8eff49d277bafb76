"""Deviations that only extremes show: what becomes of NaN and infinity, and of a count in a small counter."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.conformance.ports.port import as_counted
from amos_ref.dtypes import dtype_of

#: dtype of a counter -> what becomes of the count in it
_COUNTERS = {
    "int8": "turns from 127 to -128",
    "uint8": "turns from 255 to 0",
    "int16": "turns from 32767 to -32768",
    "int32": "turns from 2^31 - 1 to -2^31",
    "float16": "stays at 2048",
    "bfloat16": "stays at 256",
    "float32": "stays at 2^24",
}


# fmt: off
def add_all(add: Callable[..., None]) -> None:
    """Add the entries of paper Amos; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""
    add_broken(add)
    add("epsilon", "nan-dropped-by-max",
        "divides by epsilon where v is NaN, as fmax(v, epsilon) does, or -ffast-math; the page keeps NaN",
        "parameters with a broken v jump far away", only=is_spoilt, r=lambda s, page: s.q / np.fmax(s.v, s.epsilon))
    add("second moment", "nan-dropped-from-v", "makes a v of NaN 0, as fmax(v, 0) does; the page keeps NaN",
        "that a gradient was broken is forgotten", only=is_spoilt, v=lambda s, page: _replaced(page(s), np.isnan))
    add("clock", "nan-dropped-from-b", "makes a b of NaN 0, as fmax(b, 0) does; the page keeps NaN",
        "the clock starts anew after a broken gradient", only=is_spoilt, b=lambda s, page: _replaced(page(s), np.isnan))
    add_counters(add, "from there on v's bias is corrected for another step",
                 q=lambda s, page: page(s) if s.t >= 0 else 1.0 - np.power(s.beta, float(s.t)))


def add_broken(add: Callable[..., None]) -> None:
    """Add what is done to gradients of NaN and infinity."""
    spoilt = functools.partial(add, only=is_spoilt)
    spoilt("gradient", "nan-clipped-to-lowest",
        "makes a gradient of NaN -clip_value, as fmin(fmax(g, -clip_value), clip_value) does; the page keeps NaN",
        "a broken gradient becomes a large one, and nobody is told",
        g=lambda s, page: np.where(_clips_nan(s), -_number(s.clip_value), page(s)))
    spoilt("gradient", "nan-clipped-to-highest",
        "makes a gradient of NaN +clip_value, as fmax(fmin(g, clip_value), -clip_value) does; the page keeps NaN",
        "a broken gradient becomes a large one, and nobody is told",
        g=lambda s, page: np.where(_clips_nan(s), _number(s.clip_value), page(s)))
    spoilt("gradient", "nan-is-zero", "takes zero for a gradient of NaN, as nan_to_num does; the page keeps NaN",
        "a broken gradient is never heard of", grad=lambda s, page: _replaced(page(s), np.isnan))
    spoilt("gradient", "non-finite-is-zero", "takes zero for a gradient of NaN or infinity; the page keeps them",
        "a broken gradient is never heard of", grad=lambda s, page: _replaced(page(s), lambda g: ~np.isfinite(g)))
    spoilt("gradient", "non-finite-array-skipped",
        "skips an array whose gradient holds NaN or infinity; the page takes the step",
        "that array is not trained while its gradients are broken",
        grad=lambda s, page: None if _broken(page(s)) else page(s))
    spoilt("gradient", "non-finite-step-skipped",
        "skips a step in which some gradient holds NaN or infinity, and does not count it; the page takes it",
        "nothing is trained while some gradient is broken",
        grad=lambda s, page: _skip(s, page(s)), t=lambda s, page: page(s) - s.memory.get("skipped", 0))
    spoilt("gradient", "non-finite-step-counted",
        "skips a step in which some gradient holds NaN or infinity, but counts it; the page takes it",
        "nothing is trained while some gradient is broken", grad=lambda s, page: _skip(s, page(s)))


def add_counters(add: Callable[..., None], effect: str, **more: Any) -> None:
    """Add small counters; `more` is what follows from a count that turned negative."""
    for dtype, becomes in _COUNTERS.items():
        add("count", f"count-{dtype}", f"counts steps in {dtype}, where the count {becomes}",
            effect, only=lambda case: case.count is not None,
            t=lambda s, page, dtype=dtype: _counted(s, dtype) if s.ahead else page(s), **more)
# fmt: on


@functools.lru_cache(maxsize=1024)
def is_spoilt(case: Any) -> bool:
    return case.first_not_finite() is not None


def _number(x: Any) -> float:
    return np.nan if x is None else x


def _clips_nan(s: Any) -> Any:
    return np.isnan(s.grad) & (s.clip_value is not None)


def _replaced(g: Any, where: Callable[[Any], Any]) -> Any:
    return None if g is None else np.where(where(g), 0.0, g)


def _broken(g: Any) -> bool:
    return g is not None and not np.isfinite(g).all()


def _skip(s: Any, g: Any) -> Any:
    """Return None, and remember it, if some leaf's gradient is broken."""
    if not any(map(_broken, s.grads.values())):
        return g
    s.memory["skipped"] = s.memory.get("skipped", 0) + 1
    return None


def _counted(s: Any, dtype: str) -> int:
    """Return what a counter of a dtype says: set by the case, then increased by one a step."""
    count = as_counted(s.ahead + 1, dtype_of(dtype)).reshape(1)
    for _ in range(s.count - 2 + s.algorithm.first_step):
        count = count + count.dtype.type(1)
    return int(min(float(count[0]), 2.0**62))  # float16 makes 2^24 infinity
