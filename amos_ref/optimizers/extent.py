"""Which arrays an optimizer has: whole ones, or parts of larger ones by whose shapes they are stepped."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.checks import Arrays
from amos_ref.dtypes import Shape
from amos_ref.kernels import Backend, Method, Work


class Entries:
    """What `init` asks of the entries of a leaf.

    Attributes
    ----------
    shape : tuple of int
        Of the whole leaf.
    """

    def __init__(self, theta: Any) -> None:
        self.shape: Shape = tuple(theta.shape)
        self._theta = theta

    def initial_sigma(self) -> float:
        """Return the root mean square, or 0.5 of zeros and of ones."""
        with np.errstate(all="ignore"):
            return closed_form.initial_sigma(self._theta.astype(np.float64))

    def root_mean_square(self) -> float:
        """Return the root of the mean square of all entries."""
        with np.errstate(all="ignore"):
            return float(np.sqrt(spec.mean_square(self._theta.astype(np.float64), ())))

    def constant(self) -> float | None:
        """Return the number that all entries are, or None."""
        theta = self._theta.astype(np.float64)  # also of an array on a GPU
        return float(theta.flat[0]) if theta.size and (theta == theta.flat[0]).all() else None


class Whole:
    """Arrays that are whole; of parts :mod:`amos_ref.mpi` has another.

    Attributes
    ----------
    sharing : Sharing or None
        The way to the other parts of arrays (see :class:`amos_ref.kernels.Sharing`).
    """

    sharing: Any = None

    def shapes(self, thetas: Arrays) -> dict[str, Shape]:
        """Return the shape of each leaf as a whole; raise TreeError or ShapeError if these are no parts of it."""
        return {name: tuple(theta.shape) for name, theta in thetas.items()}

    def names(self, thetas: Arrays) -> Iterable[str]:
        """Return the names of all leaves, also of those of which nothing is here."""
        return thetas

    def origin(self, name: str) -> Shape | None:
        """Return where in the whole array a part begins; None for what is whole."""
        return None

    def slot_of(self, name: str, slot: Shape) -> Shape:
        """Return the shape of the slots that are here, of a leaf whose slots have this shape."""
        return slot

    def prepare(self, backend: Backend, leaves: list[Any], method: Method) -> Work:
        """Have a backend lay the leaves of a step out."""
        return backend.prepare(leaves, method)

    def entries(self, name: str, theta: Any) -> Entries:
        """Return what `init` asks of the entries of a leaf."""
        return Entries(theta)


WHOLE = Whole()
