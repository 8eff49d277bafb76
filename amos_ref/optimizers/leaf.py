"""One leaf of a step, the numbers that all leaves share, and the page's answer for it."""

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from amos_ref import spec
from amos_ref.checks import check_finite
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

    mean = "g2"  # the stage that is not finite where g is to blame
    source = "gradient"  # what g is

    @property
    def slot(self) -> tuple[int, ...]:
        return self.v.shape

    @property
    def scale(self) -> str:
        return f"eta={self.eta:.6g}"

    def before(self) -> dict[str, np.ndarray | None]:
        """Return what the step starts from, for a trace."""
        return {"theta": self.theta, "gradient": self.g, "v": self.v, "b": self.b, "m": self.m}

    def stages(self, rates: Rates) -> dict[str, Any]:
        """Return every intermediate of the leaf's step, by the page."""
        theta, g, v, b = (a.astype(np.float64) for a in (self.theta, self.g, self.v, self.b))
        m = None if self.m is None else self.m.astype(np.float64)
        return spec.step(theta, g, v, b, m, eta=self.eta, **rates._asdict())

    def written(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield what a step overwrites, by its field's name."""
        for name in ("theta", "v", "b", "m"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)


def computed(leaf: Any, rates: Any) -> dict[str, Any]:
    """Return every intermediate of the leaf's step (see `stages`), or raise NonFiniteError for its gradient."""
    with np.errstate(all="ignore"):
        after = leaf.stages(rates)
    if not np.isfinite(after[leaf.mean]).all():
        refuse(leaf, rates)
    return after


def refuse(leaf: Any, rates: Any) -> NoReturn:
    """Raise NonFiniteError that says where the gradient of this leaf is not finite."""
    where = f"{leaf.source} of leaf {leaf.name!r}"
    with np.errstate(all="ignore"):
        g = spec.clip(leaf.g.astype(np.float64), rates.chi)
    check_finite(np.asarray(g), where, squared=True)
    raise NonFiniteError(
        f"{where}: the sum of its squares overflows float64 (largest entry {float(np.abs(g).max())!r})"
    )
