"""Right evaluations of the formulas: other orders, lower precision, other rounding.

A right port need not have the page's bits. It may sum in another order, divide before it multiplies, compute in its
parameters' dtype or in float32, and store its state in either. :func:`right` draws one such evaluation from a seed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.conformance.judging.reading import Override, Reading
from amos_ref.dtypes import dtype_of, last_place

#: Stage -> the ways to compute it that are as good as the page's.
ORDERS: dict[str, tuple[Override, ...]] = {
    "g2": (
        lambda s, page: page(s),
        lambda s, page: _mean(s, lambda x, axes: np.add.reduce(x, axes, keepdims=True)),
        lambda s, page: _mean(s, _one_by_one),
    ),
    "v": (
        lambda s, page: page(s),
        lambda s, page: s.old_v + (1.0 - s.beta) * (s.g2 - s.old_v),
        lambda s, page: s.old_v - (1.0 - s.beta) * (s.old_v - s.g2),
    ),
    "q": (
        lambda s, page: page(s),
        lambda s, page: 1.0 - _power(s.beta, s.t),
        lambda s, page: -np.expm1(s.t * np.log(s.beta)) if s.beta else page(s),
    ),
    "r": (
        lambda s, page: page(s),
        lambda s, page: s.q * (1.0 / np.maximum(s.v, s.epsilon)),
    ),
    "c": (
        lambda s, page: page(s),
        lambda s, page: 1.0 / np.sqrt(1.0 + s.old_b * (s.c_coef * np.sqrt(s.xi))),
        lambda s, page: (1.0 + np.sqrt(s.xi) * (s.c_coef * s.old_b)) ** -0.5,
    ),
    "gamma": (
        lambda s, page: page(s),
        lambda s, page: s.c * s.xi * s.xi * s.r * s.g2,
        lambda s, page: s.xi * s.xi * (s.c * s.r) * s.g2,
        lambda s, page: s.g2 * s.r * s.c * (s.xi * s.xi),
    ),
    "d": (
        lambda s, page: page(s),
        lambda s, page: 1.0 / (1.0 + s.old_b * (s.d_coef * np.sqrt(s.xi * s.eta))),
        lambda s, page: 1.0 / (1.0 + s.d_coef * np.sqrt(s.xi) * np.sqrt(s.eta) * s.old_b),
    ),
    "alpha": (
        lambda s, page: page(s),
        lambda s, page: s.xi * s.eta * s.d * np.sqrt(s.r),
        lambda s, page: s.d * np.sqrt(s.r) * s.eta * s.xi,
    ),
    "rho": (
        lambda s, page: page(s),
        lambda s, page: 0.5 * s.gamma * s.d + s.extra_l2 * s.d,
    ),
    "b": (
        lambda s, page: page(s),
        lambda s, page: s.old_b * (1.0 + s.gamma) + s.gamma,
    ),
    "delta": (
        lambda s, page: page(s),
        lambda s, page: -(s.rho * s.old_theta) - s.g * s.alpha,
    ),
    "m": (
        lambda s, page: page(s),
        lambda s, page: s.old_m + (1.0 - s.momentum) * (s.delta - s.old_m) if s.momentum else None,
    ),
}

COMPUTED, STORED, SCALARS, ROUNDED = (
    ("dtype", "float32", "float64"),
    ("dtype", "computed"),
    (True, False),
    (True, False),
)


class Evaluation(NamedTuple):
    """One way to evaluate a reading.

    Attributes
    ----------
    orders : dict of str to callable
        An override for each stage of ORDERS.
    computed : numpy.dtype
        After each operation, results are rounded to it.
    stored : numpy.dtype
        v, b and m between two steps.
    theta : numpy.dtype
        The parameters between two steps.
    scalars : bool
        Whether numbers (xi, beta, ...) are rounded to `computed` too.
    rng : numpy.random.Generator or None
        Rounds up or down at random, with the chances that make it right on average; None rounds to nearest.
    """

    orders: Mapping[str, Override]
    computed: np.dtype
    stored: np.dtype
    theta: np.dtype
    scalars: bool
    rng: np.random.Generator | None

    def reading(self, overrides: Iterable[Mapping[str, Override]] = ()) -> Reading:
        """Return the page, or the page with overrides, evaluated this way."""
        return Reading((self.orders, *overrides), self._number, self._store)

    def _number(self, x: Any) -> Any:
        if not isinstance(x, np.ndarray) and not self.scalars:
            return float(x)
        return _rounding(self.computed, self.rng)(x)

    def _store(self, what: str, a: Any) -> Any:
        return (
            None if a is None else self._number(_round(np.asarray(a), self.theta if what == "theta" else self.stored))
        )


def right(dtype: str, seed: int) -> Evaluation:
    """Draw an evaluation that a right port for parameters of a dtype may have.

    Parameters
    ----------
    dtype : {"float64", "float32", "float16", "bfloat16"}
    seed : int

    Examples
    --------
    >>> from amos_ref.conformance.judging.evaluation import right
    >>> one = right("bfloat16", 7)
    >>> one.computed.name, one.stored.name, one.theta.name
    ('bfloat16', 'bfloat16', 'bfloat16')
    """
    rng = np.random.default_rng(seed)
    own, single, double = dtype_of(dtype), np.dtype(np.float32), np.dtype(np.float64)
    # Half of all compute in the dtype itself, where the errors are; the others as kernels with wider registers do.
    # None computes in float16, which does not hold epsilon: a slot without gradients would divide 0 by 0.
    narrow = single if dtype == "float16" else own
    computed = max(own, narrow if seed % 2 else (single, double)[seed // 2 % 2], key=lambda d: d.itemsize)
    stored = (own, computed)[rng.integers(2)]
    orders = {name: ways[rng.integers(len(ways))] for name, ways in ORDERS.items()}
    at_random = computed.itemsize < 8 and bool(rng.integers(4))
    return Evaluation(orders, computed, stored, own, bool(rng.integers(2)), rng if at_random else None)


class _Rounded(np.ndarray):
    """An array of float64 whose every operation is rounded by `rule`."""

    rule: Callable[[Any], Any]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, _Rounded) else x for x in inputs]
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        return result if result.dtype == bool else type(self).rule(result).view(type(self))


def _rounding(dtype: np.dtype, rng: np.random.Generator | None) -> Callable[[Any], Any]:
    """Return what makes an array or a number one whose operations are rounded to a dtype."""

    class Here(_Rounded):
        rule = staticmethod(lambda x: _round(x, dtype) if rng is None else _round_at_random(x, dtype, rng))

    return lambda x: _round(np.asarray(x, dtype=np.float64), dtype).view(Here)


def _round(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.itemsize == 8:
        return np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(spec.round_to(np.asarray(x), dtype)).astype(np.float64)


def _round_at_random(x: np.ndarray, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Round to one of the two neighbours, with the chances that make the mean x; exact numbers stay."""
    with np.errstate(all="ignore"):
        spacing = last_place(x, dtype.name)
        cut = np.ldexp(np.floor(np.ldexp(x, -spacing) + rng.random(x.shape)), spacing)
        return _round(np.where(np.isfinite(x), cut, x), dtype)


def _mean(s: Any, add: Callable[..., Any]) -> Any:
    aligned = (1,) * (s.g.ndim - s.old_v.ndim) + s.old_v.shape
    axes = tuple(i for i, n in enumerate(aligned) if n != s.g.shape[i])
    total = add(s.g * s.g, axes).reshape(s.old_v.shape)
    return total / max(math.prod(s.g.shape[i] for i in axes), 1)


def _one_by_one(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum axis after axis, entry after entry."""
    for axis in axes:
        total, *rest = np.moveaxis(x, axis, 0) if x.shape[axis] else [np.zeros(np.delete(x.shape, axis))]
        for one in rest:
            total = total + one
        x = np.expand_dims(total, axis)
    return x


def _power(beta: Any, t: int) -> Any:
    power = beta
    for _ in range(t - 1):
        power = power * beta
    return power
