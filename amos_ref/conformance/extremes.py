"""Cases of what no training should meet: NaN, infinity, and a count of steps that a small counter does not hold."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from amos_ref.conformance.cases import Case

#: Numbers that a counter may not hold -> 1 - beta and xi, so that 1 - beta^t shows the count there and no step is tiny
#: or huge. At 2^31 beta^t is 0: a counter may stay there, as optax's does, but must not turn negative.
_COUNTS = {
    2**7: (2.0**-7, 2.0**-5),
    2**8: (2.0**-8, 2.0**-6),
    2**11: (2.0**-11, 2.0**-7),
    2**15: (2.0**-15, 2.0**-9),
    2**24: (2.0**-23, 2.0**-13),
    2**31: (2.0**-15, 2.0**-9),
}
_NAMED_COUNTS = {"128": 2**7, "256": 2**8, "2048": 2**11, "2^15": 2**15, "2^24": 2**24, "2^31": 2**31}


def is_extreme(case: "Case") -> bool:
    """Whether a case is one of these."""
    return case.count is not None or case.first_not_finite() is not None


def cases(make: Callable[..., "Case"], aged: Iterable["Case"]) -> list["Case"]:
    """Return paper Amos's cases; `make` draws one, and one of those `aged` is given a v of NaN."""

    def slow(n: int) -> dict[str, float]:
        rest, xi = _COUNTS[n]
        return {"learning_rate": xi, "beta": 1.0 - rest}

    return in_dtypes([*not_finite(make), _with_v_of_nan(aged), *counted(make, slow)])


def in_dtypes(cases: Iterable["Case"]) -> list["Case"]:
    """Return cases in float64 and float32."""
    return [
        case._replace(dtype=dtype)
        for case in cases
        for dtype in ("float64", "float32")
        if dtype == "float64" or case.name != "count-2^24"  # float32 cannot tell powers apart there
    ]


def not_finite(make: Callable[..., "Case"]) -> list["Case"]:
    """Cases with NaN or infinity in one slot at t = 3: it spoils v, b and theta of the slot, and nothing else."""

    def case(name: str, about: str, leaf: str, bad: dict[int, float], **options: Any) -> "Case":
        made = make(name, about, steps=5, **options)
        for entry, x in bad.items():
            made.grads[2][leaf].flat[entry] = x  # type: ignore[union-attr]
        return made

    rows: dict[str, Any] = {"slots": {"kernel": (6, 1)}}
    nan, inf = np.nan, np.inf
    return [
        case("nan", "a gradient of NaN spoils its array, and no other", "bias", {2: nan}),
        case("nan-clip", "clipping keeps NaN", "bias", {2: nan}, clip_value=0.5),
        case("nan-rows", "a gradient of NaN spoils its row, and no other", "kernel", {8: nan}, **rows),
        case("nan-rows-clip", "clipping keeps NaN, in its row", "kernel", {8: nan}, clip_value=0.5, **rows),
        case("infinity", "a gradient of infinity spoils its array, and no other", "bias", {2: inf}),
        case("infinity-clip", "clipping makes infinity a number", "bias", {1: inf, 3: -inf}, clip_value=0.5),
        case("infinity-rows", "a gradient of infinity spoils its row", "kernel", {8: inf, 21: -inf}, **rows),
    ]


def _with_v_of_nan(aged: Iterable["Case"]) -> "Case":
    """A case whose v is NaN in one leaf from t = 2 on, though no gradient is: only max(v, epsilon) can lose it."""
    case = next(case for case in aged if case.name == "aged")
    poisoned = (case.inject or {}) | {"v": {"kernel": np.asarray(1.0), "bias": np.asarray(np.nan)}}
    return case._replace(name="nan-v", about="max(v, epsilon) keeps a v of NaN", inject=poisoned)


def counted(make: Callable[..., "Case"], options: Callable[[int], Mapping[str, Any]]) -> list["Case"]:
    """Cases whose count is set, after step 1, to two less than a number that a counter may not hold.

    `options` are those under which that number shows in a step.
    """
    return [
        make(f"count-{name}", f"the count of steps passes {name}", **options(n))._replace(count=n - 2)
        for name, n in _NAMED_COUNTS.items()
    ]
