"""Right evaluations of the formulas: other orders, lower precision, other rounding.

A right port need not have the page's bits. It may sum in another order, divide before it multiplies, compute in its
parameters' dtype or in float32, and store its state in either. :func:`draw` draws one such evaluation from a seed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.judging.paper import Override
from amos_ref.conformance.judging.reading import Reading
from amos_ref.dtypes import dtype_of, last_place


class Evaluation(NamedTuple):
    """One way to evaluate a reading.

    Attributes
    ----------
    orders : dict of str to callable
        An override for each stage that is not computed as the page computes it.
    computed : numpy.dtype
        After each operation, results are rounded to it.
    stored : numpy.dtype
        The state between two steps.
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
        as_rounded = _array_type(self.computed, self.rng)

        def number(x: Any) -> Any:
            if not isinstance(x, np.ndarray) and not self.scalars:
                return float(x)
            with np.errstate(all="ignore"):
                return _round(np.asarray(x, dtype=np.float64), self.computed).view(as_rounded)

        def store(what: str, a: Any) -> Any:
            if a is None:
                return None
            with np.errstate(all="ignore"):
                return number(_round(np.asarray(a), self.theta if what == "theta" else self.stored))

        return Reading((self.orders, *overrides), number, store)


def draw(dtype: str, seed: int, algorithm: str = "paper") -> Evaluation:
    """Draw an evaluation that a right port for parameters of a dtype may have.

    Parameters
    ----------
    dtype : {"float64", "float32", "float16", "bfloat16"}
    seed : int
    algorithm : {"paper", "closed-form"}

    Examples
    --------
    >>> from amos_ref.conformance.judging.evaluation import draw
    >>> one = draw("bfloat16", 7)
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
    choices = ALGORITHMS[algorithm].load("formulas").ORDERS.items()
    drawn = {name: (None, *ways)[rng.integers(1 + len(ways))] for name, ways in choices}
    orders = {name: way for name, way in drawn.items() if way is not None}
    at_random = computed.itemsize < 8 and bool(rng.integers(4))
    return Evaluation(orders, computed, stored, own, bool(rng.integers(2)), rng if at_random else None)


class _Rounded(np.ndarray):
    """An array of float64 whose every operation is rounded by `rule`."""

    rule: Callable[[Any], Any]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, _Rounded) else x for x in inputs]
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        return result if result.dtype == bool else type(self).rule(result).view(type(self))


def _array_type(dtype: np.dtype, rng: np.random.Generator | None) -> type[_Rounded]:
    """Return the type of arrays whose operations are rounded to a dtype."""

    class Here(_Rounded):
        rule = staticmethod(lambda x: _round(x, dtype) if rng is None else _round_at_random(x, dtype, rng))

    return Here


def _round(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.itemsize == 8:
        return np.asarray(x, dtype=np.float64)
    narrow = spec.round_to(x, dtype) if dtype.itemsize < 4 else x.astype(dtype)
    return np.asarray(narrow, dtype=np.float64)


def _round_at_random(x: np.ndarray, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    """Round to one of the two neighbours, with the chances that make the mean x; exact numbers stay."""
    spacing = last_place(x, dtype.name)
    cut = np.ldexp(np.floor(np.ldexp(x, -spacing) + rng.random(x.shape)), spacing)
    # What was cut is a number of the dtype already, unless it overflows: converting it rounds nothing more.
    return np.where(np.isfinite(x), cut, x).astype(dtype).astype(np.float64)
