"""The leaves of a step, and the error for a gradient that is not finite."""

from typing import Any, NamedTuple, NoReturn

import numpy as np

from amos_ref import spec
from amos_ref.checks import Arrays, check_finite
from amos_ref.dtypes import Shape
from amos_ref.errors import NonFiniteError
from amos_ref.groups import list_own


class Leaf(NamedTuple):
    """One parameter array of paper Amos with all that its step reads and writes; see :class:`amos_ref.kernels.Leaf`."""

    name: str
    theta: np.ndarray  # any shape, one of the four dtypes
    g: np.ndarray  # theta's shape
    v: np.ndarray  # the slot's shape, the state's dtype
    b: np.ndarray
    m: np.ndarray | None  # theta's shape; None without momentum
    eta: Any  # a number, or an array of one float64
    own: tuple[float, ...] = (1.0, 0.0)  # a factor of xi, and weight decay beside that of the rates

    source = "gradient"  # what g is
    moments = ()  # those of a direction

    @property
    def momentum(self) -> np.ndarray | None:
        return self.m

    @property
    def slot(self) -> Shape:
        return self.v.shape

    @property
    def state(self) -> tuple[np.ndarray, ...]:
        return self.v, self.b

    @property
    def scale(self) -> Any:
        return self.eta

    def arrays(self) -> dict[str, np.ndarray]:
        return {"theta": self.theta, "g": self.g, **self.written()}

    def written(self) -> dict[str, np.ndarray]:
        found = {"theta": self.theta, "v": self.v, "b": self.b}
        return found if self.m is None else {**found, "m": self.m}

    def describe(self) -> str:
        """Return what a trace says of the leaf."""
        return f"shape {self.theta.shape}, slot {self.slot}, eta={float(self.eta):.6g}" + list_own(self.own)

    def before(self) -> dict[str, np.ndarray | None]:
        """Return what the step starts from, for a trace."""
        return {"theta": self.theta, "gradient": self.g, "v": self.v, "b": self.b, "m": self.m}


class DirectedLeaf(NamedTuple):
    """One parameter array that moves along a direction and has no state of its slots."""

    name: str
    theta: np.ndarray  # any shape, one of the four dtypes
    g: np.ndarray  # theta's shape: the gradient, or a direction that was made of it
    slot: Shape
    sigma: Any  # a number, or an array of one float64
    source: str  # what it moves along: "gradient" or "direction"
    m: np.ndarray | None = None  # theta's shape, float64; None unless the direction averages gradients
    v: np.ndarray | None = None
    own: tuple[float, ...] = (1.0,)  # a factor of alpha_0

    momentum = None
    state = ()

    @property
    def moments(self) -> tuple[np.ndarray, ...]:
        return () if self.m is None or self.v is None else (self.m, self.v)

    @property
    def scale(self) -> Any:
        return self.sigma

    def arrays(self) -> dict[str, np.ndarray]:
        return {"theta": self.theta, "g": self.g, **self.written()}

    def written(self) -> dict[str, np.ndarray]:
        return {"theta": self.theta, **dict(zip("mv", self.moments, strict=False))}

    def describe(self) -> str:
        """Return what a trace says of the leaf."""
        return f"shape {self.theta.shape}, slot {self.slot}, sigma={float(self.sigma):.6g}" + list_own(self.own)

    def before(self) -> dict[str, np.ndarray | None]:
        """Return what the step starts from, for a trace."""
        return {"theta": self.theta}


def aim(leaf: Any, rates: Any) -> tuple[np.ndarray, ...]:
    """Return (g, u, *new moments): the clipped gradient, and along what the leaf moves.

    Raise NonFiniteError for a gradient whose direction might not show that it is not finite.
    """
    aims = rates.aims
    with np.errstate(all="ignore"):
        g = np.asarray(spec.clip(leaf.g.astype(np.float64), rates.chi))
        if aims is None:
            return g, g
        check_finite(g, f"gradient of leaf {leaf.name!r}", squared=True)
        moments = (a.astype(np.float64) for a in leaf.moments)
        return g, *map(np.asarray, aims.direct(g, *moments, *aims))


def refuse_gradient(where: str, g: Any, chi: float) -> NoReturn:
    """Raise NonFiniteError that says where a gradient (or a direction), clipped at chi, is not finite."""
    with np.errstate(all="ignore"):
        clipped = spec.clip(g.astype(np.float64), chi)
    check_finite(np.asarray(clipped), where, squared=True)
    raise NonFiniteError(where + overflows(float(np.abs(clipped).max())))


def overflows(largest: float) -> str:
    """Return what is wrong with a gradient of which no entry is."""
    return f": the sum of its squares overflows float64 (largest entry {largest!r})"


class Prepared(NamedTuple):
    """A step whose inputs were checked."""

    thetas: Arrays
    gradients: Arrays  # of the leaves that step
    directions: list[Any]  # what their leaves have as g: gradients, or what a callable made of them
    leaves: list[Any]
    state: Any  # with its arrays as the backend sees them
