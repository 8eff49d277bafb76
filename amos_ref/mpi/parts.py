"""The parts of parameters that one rank has, as an optimizer steps them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.checks import Arrays, check_finite
from amos_ref.dtypes import Shape, dtype_of
from amos_ref.errors import NonFiniteError, ShapeError, TreeError
from amos_ref.kernels import Backend, Method, Work
from amos_ref.kernels.shared import Piece, Route
from amos_ref.mpi.agreement import Agreement, Found, Plan
from amos_ref.mpi.cutting import slot_shapes
from amos_ref.mpi.layout import Cut, Layout
from amos_ref.mpi.ranks import Ranks
from amos_ref.mpi.windows import Spread, windows_at_root
from amos_ref.optimizers.extent import Entries, Whole
from amos_ref.storage.options import encode_options


class WholeEntries(Entries):
    """What `init` asks of the entries of a leaf, which all ranks have found out together."""

    shape: Shape

    def __init__(self, shape: Shape, mean: float, constant: float | None) -> None:
        self.shape, self._mean, self._constant = shape, mean, constant

    def initial_sigma(self) -> float:
        if self._constant in (0.0, 1.0) or 0 in self.shape:
            return closed_form.initial_sigma(np.array(self._constant or 0.0))
        return self.root_mean_square()

    def root_mean_square(self) -> float:
        return float(np.sqrt(self._mean))

    def constant(self) -> float | None:
        return self._constant


class Stepping:
    """The way to the other parts of some leaves that are stepped; see :class:`amos_ref.kernels.Sharing`."""

    plan: Plan

    def __init__(self, parts: "Parts", leaves: Sequence[Any]) -> None:
        self.parts, self.plan = parts, parts.plan_of({leaf.name: leaf.theta.dtype for leaf in leaves})

    def of(self, leaves: Sequence[Any]) -> "Stepping":
        return self

    def piece(self, name: str) -> Piece | None:
        return self.parts.pieces[name]

    def agree(self, bad: str | None, names: Sequence[str], rates: Any) -> None:
        self.parts.agreement.agree(bad, self.plan, rates)

    def gather(self, sums: np.ndarray, route: Route) -> None:
        if route.received.size:
            self.parts.ranks.gather(sums, route.received, route.counts)

    def settle(self, bad: str | None) -> None:
        self.parts.agreement.settle(bad)


class Parts(Whole):
    """Parts of the leaves of a layout.

    Parameters
    ----------
    layout : Layout
    opt : Amos or ClosedFormAmos
    ranks : Ranks
    agreement : Agreement
    """

    layout: Layout
    ranks: Ranks
    sharing: Any
    slots: dict[str, Shape]
    here: dict[str, Shape | None]
    agreement: Agreement

    def __init__(self, layout: Layout, opt: Any, ranks: Ranks, agreement: Agreement) -> None:
        self.layout, self.ranks, self.agreement, self.sharing = layout, ranks, agreement, self
        slots = slot_shapes(opt, layout.shapes)
        self.slots = slots
        self.pieces: dict[str, Piece | None] = {
            name: layout.piece(name, ranks.rank, slots[name]) for name in layout.shapes
        }
        self.here = {name: layout.shape(name, ranks.rank) for name in layout.shapes}
        # The learning rate is among the numbers of a step.
        self.options: dict[str, str] = {
            name: repr(value) for name, value in encode_options(opt.options).items() if name != "learning_rate"
        }
        self.found: dict[str, WholeEntries] = {}

    # what an optimizer asks

    def shapes(self, thetas: Arrays) -> dict[str, Shape]:
        rank = self.ranks.rank
        missing = [name for name, shape in self.here.items() if shape is not None and name not in thetas]
        extra = [name for name in thetas if self.here.get(name) is None]
        if missing or extra:
            word, name = ("lacks", missing[0]) if missing else ("has", extra[0])
            what = "a part of which the layout gives it" if missing else "which the layout does not give it"
            raise TreeError(f"params of rank {rank} {word} leaf {name!r}, {what}")
        for name, theta in thetas.items():
            shape, wanted = tuple(theta.shape), self.here[name]
            if shape != wanted:
                raise ShapeError(f"params leaf {name!r} has shape {shape} on rank {rank}; the layout has {wanted}")
        return {name: self.layout.shapes[name] for name in thetas}

    def names(self, thetas: Arrays) -> Iterable[str]:
        return self.layout.shapes

    def slot_of(self, name: str, slot: Shape) -> Shape:
        piece = self.pieces[name]
        return slot if piece is None else piece.slot_here

    def origin(self, name: str) -> Shape | None:
        piece = self.pieces[name]
        if piece is None:
            return None
        return tuple(piece.edges[piece.part] if k == piece.axis else 0 for k in range(len(piece.shape)))

    def prepare(self, backend: Backend, leaves: list[Any], method: Method) -> Work:
        return backend.prepare_parts(leaves, method, self.of(leaves))

    def entries(self, name: str, theta: Any) -> Entries:
        return self.found.get(name) or WholeEntries(self.layout.shapes[name], np.nan, None)

    # the way to the other parts

    def of(self, leaves: Sequence[Any]) -> Stepping:
        """Return the way to the other parts of leaves that are stepped."""
        return Stepping(self, leaves)

    def plan_of(self, dtypes: Mapping[str, np.dtype]) -> Plan:
        """Return what must be the same on all ranks to do something with the parts of these dtypes."""
        cut = {name: "skipped" for name, cut in self.layout.cuts.items() if isinstance(cut, Cut)}
        cut |= {name: dtype.name for name, dtype in dtypes.items() if name in cut}
        return Plan(**{"stepped leaves": cut, "options": self.options})

    def plan(self, thetas: Arrays) -> Plan:
        """Return the same for all that a rank has, which must have the shapes of the layout."""
        self.shapes(thetas)
        return self.plan_of({name: theta.dtype for name, theta in thetas.items()})

    # off the way of a step

    def spread(self, name: str, *, slot: bool = False) -> Spread:
        """Return how a leaf, or an array of its slots, lies over the ranks."""
        cut, shape = self.layout.cuts[name], self.slots[name] if slot else self.layout.shapes[name]
        if not isinstance(cut, Cut):
            return Spread(shape, owner=cut)
        axis, piece = cut.axis - (len(self.layout.shapes[name]) - len(shape)), self.pieces[name]
        if slot and piece is not None and piece.shared:
            return Spread(shape, owner=0, everywhere=True)
        return Spread(shape, axis=axis, edges=cut.edges)

    def measure(self, thetas: Arrays) -> None:
        """Find out together what `init` asks of entries: their mean square, summed as that of one array."""
        told = self.ranks.tell({name: theta.dtype.name for name, theta in thetas.items()})
        dtypes = {name: dtype_of(dtype) for here in told for name, dtype in here.items()}
        for name in self.layout.shapes:
            told = self.ranks.tell(self._measure(name, thetas.get(name), dtypes[name]))[0]
            self.found[name] = WholeEntries(self.layout.shapes[name], *told)

    def _measure(self, name: str, theta: Any, dtype: np.dtype) -> tuple[float, float | None]:
        """Return mean square and constant at rank 0, where windows of the whole array come by."""
        sums, first, same, size = [np.zeros(0)], None, True, 0
        for window in windows_at_root(self.ranks, self.spread(name), theta, dtype):
            wide = window.astype(np.float64)
            first = float(wide[0]) if first is None else first
            same, size = same and bool((wide == first).all()), size + wide.size
            with np.errstate(all="ignore"):
                sums.append(spec.lanes(spec.split(wide * wide, spec.CHUNK, -1)))
        with np.errstate(all="ignore"):
            mean = float(spec.lanes(np.concatenate(sums))) / max(size, 1) if size else 0.0
        return mean, first if same else None

    def look(self, leaf: Any, rates: Any) -> Found | None:
        """Return what is not finite in the part of a leaf that is here."""
        origin = self.origin(leaf.name)
        with np.errstate(all="ignore"):
            g = np.asarray(spec.clip(leaf.g.astype(np.float64), rates.chi))
        if rates.aims is not None and (found := _not_finite(0, g, f"gradient of leaf {leaf.name!r}", origin)):
            return found
        with np.errstate(all="ignore"):
            moments = (a.astype(np.float64) for a in leaf.moments)
            u = g if rates.aims is None else np.asarray(rates.aims.direct(g, *moments, *rates.aims)[0])
        where = f"{leaf.source} of leaf {leaf.name!r}"
        return _not_finite(1, u, where, origin) or Found(2, (), where, float(np.abs(u).max(initial=0.0)))


def _not_finite(stage: int, a: np.ndarray, where: str, origin: Shape | None) -> Found | None:
    try:
        check_finite(a, where, squared=True, origin=origin)
    except NonFiniteError as error:
        return Found(stage, error.index or (), str(error), 0.0)
    return None
