"""One leaf of a step, the numbers that all leaves share, and the page's answer for it."""

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from amos_ref import spec
from amos_ref.arrays import check_finite
from amos_ref.errors import NonFiniteError


class Rates(NamedTuple):
    """The numbers of one step that all leaves share, by the names of :func:`amos_ref.spec.step`."""

    q: float  # 1 - beta^t
    xi: float  # learning rate at t
    beta: float
    momentum: float | None
    clip_value: float | None
    extra_l2: float
    c_coef: float
    d_coef: float
    epsilon: float

    @property
    def chi(self) -> float:
        """Where gradients are clipped; infinity leaves them as they are."""
        return np.inf if self.clip_value is None else self.clip_value


class Leaf(NamedTuple):
    """One parameter array with all that its step reads and writes."""

    name: str
    theta: np.ndarray  # any shape, one of the four dtypes
    g: np.ndarray  # theta's shape
    v: np.ndarray  # the slot's shape, the state's dtype
    b: np.ndarray
    m: np.ndarray | None  # theta's shape; None without momentum
    eta: float

    def written(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield what a step overwrites, by its field's name."""
        for name in ("theta", "v", "b", "m"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)


def computed(leaf: Leaf, rates: Rates) -> dict[str, Any]:
    """Return every intermediate of the leaf's step, by the page, or raise NonFiniteError for its gradient."""
    with np.errstate(all="ignore"):
        theta, g, v, b = (a.astype(np.float64) for a in (leaf.theta, leaf.g, leaf.v, leaf.b))
        m = None if leaf.m is None else leaf.m.astype(np.float64)
        after = spec.step(theta, g, v, b, m, eta=leaf.eta, **rates._asdict())
    if not np.isfinite(after["g2"]).all():
        refuse(leaf, rates)
    return after


def refuse(leaf: Leaf, rates: Rates) -> NoReturn:
    """Raise NonFiniteError that says where the gradient of this leaf is not finite."""
    where = f"gradient of leaf {leaf.name!r}"
    with np.errstate(all="ignore"):
        g = spec.clip(leaf.g.astype(np.float64), rates.chi)
    check_finite(np.asarray(g), where, squared=True)
    raise NonFiniteError(
        f"{where}: the sum of its squares overflows float64 (largest entry {float(np.abs(g).max())!r})"
    )


def rounded(x: Any, like: np.ndarray) -> np.ndarray:
    """Return x as an array of `like`'s dtype and shape, rounded once."""
    with np.errstate(all="ignore"):
        return np.asarray(spec.round_to(np.asarray(x), like.dtype)).reshape(like.shape)


def as_dtype(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `a` itself, or a copy of another dtype, rounded once."""
    return a if a.dtype == dtype else rounded(a.astype(np.float64), np.empty(a.shape, dtype))
