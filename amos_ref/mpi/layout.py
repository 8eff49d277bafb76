"""Which rank has which part of every parameter."""

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref import tree
from amos_ref.choosing.shapes import as_shape, read_tree
from amos_ref.dtypes import Shape, dtype_of
from amos_ref.errors import LayoutError, ShapeError, TreeError
from amos_ref.kernels.shared import Piece
from amos_ref.mpi.cutting import cut_evenly, slot_shapes
from amos_ref.optimizers.state import PARTS
from amos_ref.terminal import counted

FORMAT = "amos-ref-layout"


class Cut(NamedTuple):
    """A leaf that is cut along an axis: rank k has the entries from ``edges[k]`` to ``edges[k + 1]`` of it."""

    axis: int
    edges: tuple[int, ...]


class Share(NamedTuple):
    """How many bytes a rank has, and sends in one step."""

    parameters: int
    state: int
    payload: int


class Layout:
    """Which rank has which part of every parameter.

    Parameters
    ----------
    shapes : tree of arrays or of shapes, or Layout.shapes of another
        The whole parameters, for their names and shapes alone.
    cuts : mapping
        For every leaf by name the rank that has it whole, or ``(axis, edges)``: rank k has the entries from
        ``edges[k]`` to ``edges[k + 1]`` along that axis. Edges begin with 0, end with the axis's length and never
        fall; where two are equal, that rank has an empty part.
    ranks : int, optional
        How many ranks there are, where no leaf is cut; by default as many as the cuts speak of.

    Attributes
    ----------
    shapes : dict of str to tuple
        The whole shape of every leaf by name, in order.
    cuts : dict of str to int or Cut
    ranks : int

    Raises
    ------
    LayoutError
        If a cut is missing, extra, or not one of these. Whether it is one that keeps all bits depends on the slots:
        :meth:`check` and :class:`Sharded` say that.

    Examples
    --------
    >>> import numpy as np
    >>> from amos_ref.mpi import Layout
    >>> layout = Layout({"kernel": (256, 3), "bias": (3,)}, {"kernel": (0, (0, 192, 256)), "bias": 1})
    >>> full = {"kernel": np.zeros((256, 3)), "bias": np.ones(3)}
    >>> layout.pieces(full, 0)["kernel"].shape, layout.pieces(full, 0)["bias"]
    ((192, 3), None)
    >>> Layout.from_json(layout.to_json()) == layout
    True
    """

    def __init__(self, shapes: Any, cuts: Mapping[str, Any], ranks: int | None = None) -> None:
        self.shapes: dict[str, Shape] = read_shapes(shapes)
        if odd := sorted(set(self.shapes) ^ set(cuts), key=str):
            word = "has no cut" if odd[0] in self.shapes else "has a cut, but there is no such leaf"
            raise LayoutError(f"leaf {odd[0]!r} {word}; the leaves are {', '.join(map(repr, list(self.shapes)[:8]))}")
        self.cuts: dict[str, int | Cut] = {name: _read_cut(name, self.shapes[name], cuts[name]) for name in self.shapes}
        self.ranks: int = self._count(ranks)
        for name, cut in self.cuts.items():
            if isinstance(cut, Cut) and len(cut.edges) != self.ranks + 1:
                raise LayoutError(f"leaf {name!r} has {len(cut.edges)} edges; {self.ranks} ranks need {self.ranks + 1}")
            if not isinstance(cut, Cut) and not 0 <= cut < self.ranks:
                raise LayoutError(f"leaf {name!r} is on rank {cut}; the ranks are 0 to {self.ranks - 1}")

    def _count(self, ranks: Any) -> int:
        if ranks is None:
            found = [len(cut.edges) - 1 if isinstance(cut, Cut) else cut + 1 for cut in self.cuts.values()]
            edges = [len(cut.edges) - 1 for cut in self.cuts.values() if isinstance(cut, Cut)]
            return edges[0] if edges else max(found)
        return _as_ranks(ranks)

    @classmethod
    def even(cls, shapes: Any, ranks: int, opt: Any, balance: str = "whole") -> "Layout":
        """Return a layout that gives every rank about the same number of entries.

        Parameters
        ----------
        shapes : tree of arrays or of shapes
        ranks : int
            >= 1.
        opt : Amos or ClosedFormAmos
            Says what the slots are, and with them where a leaf can be cut.
        balance : {"whole", "each"}
            "whole" cuts as few leaves as it can: those with more entries than a rank should have, and those with which
            a rank would have a tenth more than that. All others go, the largest first, to the rank that has least.
            "each" cuts every leaf, as far as it can be cut.

        Raises
        ------
        LayoutError
            If `ranks` or `balance` is not one of these.

        Examples
        --------
        >>> import amos_ref
        >>> shapes = {"embedding": (50000, 64), "kernel": (64, 64), "bias": (64,)}
        >>> opt = amos_ref.Amos(slot_shape={"bias": "tensor", ".*": "(1, SHAPE[1])"})
        >>> layout = amos_ref.mpi.Layout.even(shapes, 3, opt)
        >>> layout.cuts["embedding"], layout.cuts["kernel"], layout.cuts["bias"]
        (Cut(axis=1, edges=(0, 22, 43, 64)), 1, 2)
        """
        ranks = _as_ranks(ranks)
        if balance not in ("whole", "each"):
            raise LayoutError(f"balance is {balance!r:.60}; it must be 'whole' or 'each'")
        sizes = read_shapes(shapes)
        layout = cls(sizes, cut_evenly(sizes, slot_shapes(opt, sizes), ranks, each=balance == "each"), ranks)
        return layout._in_order(sizes)

    def check(self, opt: Any) -> None:
        """Raise LayoutError if a leaf is cut where its slots could not have the bits of one process.

        The message names the nearest edges that are legal.
        """
        slots = slot_shapes(opt, self.shapes)
        for name in self.shapes:
            piece = self.piece(name, 0, slots[name])
            if piece is not None:
                _check_edges(name, piece)

    def piece(self, name: str, rank: int, slot: Shape) -> Piece | None:
        """Return what a rank has of a leaf that is cut, whose slots have this shape; None of one that is not."""
        cut = self.cuts[name]
        return Piece(self.shapes[name], slot, cut.axis, cut.edges, rank) if isinstance(cut, Cut) else None

    def shape(self, name: str, rank: int) -> Shape | None:
        """Return the shape of what a rank has of a leaf; None where it has nothing of one that is whole elsewhere."""
        cut, shape = self.cuts[name], self.shapes[name]
        if not isinstance(cut, Cut):
            return shape if cut == rank else None
        return (*shape[: cut.axis], cut.edges[rank + 1] - cut.edges[rank], *shape[cut.axis + 1 :])

    def pieces(self, full: Any, rank: int) -> Any:
        """Return the parts of a tree of whole arrays that a rank has, as copies; None for a leaf that is elsewhere.

        Parameters
        ----------
        full : tree of arrays
            Parameters, or gradients, of which some may be None.
        rank : int

        Raises
        ------
        LayoutError, TreeError, ShapeError
            If there is no such rank, or the tree has other leaves or shapes than the layout.
        """
        if not 0 <= rank < self.ranks:
            raise LayoutError(f"rank is {rank!r:.60}; the ranks are 0 to {self.ranks - 1}")
        named = tree.flatten(full)
        found = {}
        for name, a in tree.match(named, self.shapes, "full").items():
            if a is not None and tuple(a.shape) != self.shapes[name]:
                raise ShapeError(f"leaf {name!r} has shape {tuple(a.shape)}; the layout has {self.shapes[name]}")
            found[name] = None if a is None else self._cut(name, np.asarray(a), rank)
        return tree.unflatten({name: found[name] for name in named}, full)

    def _cut(self, name: str, a: np.ndarray, rank: int) -> np.ndarray | None:
        cut = self.cuts[name]
        if not isinstance(cut, Cut):
            return np.array(a, order="C") if cut == rank else None
        here = slice(cut.edges[rank], cut.edges[rank + 1])
        return np.array(a[(slice(None),) * cut.axis + (here,)], order="C")

    def join(self, pieces: Sequence[Any]) -> Any:
        """Return the tree of whole arrays from the parts of all ranks, in their order; the inverse of :meth:`pieces`.

        Raises
        ------
        LayoutError
            If there are not as many trees as ranks, or a rank has another part than the layout says.
        """
        if len(pieces) != self.ranks:
            raise LayoutError(f"there are pieces of {len(pieces)} ranks; the layout has {self.ranks}")
        named = [tree.flatten(part, f"pieces of rank {rank}") for rank, part in enumerate(pieces)]
        whole = {}
        for name in named[0]:
            for rank, parts in enumerate(named):
                shape = None if parts.get(name) is None else tuple(parts[name].shape)
                if name not in self.cuts or shape != self.shape(name, rank):
                    raise LayoutError(f"the piece of leaf {name!r} on rank {rank} has shape {shape}, not the layout's")
            cut, arrays = self.cuts[name], [parts[name] for parts in named]
            whole[name] = np.concatenate(arrays, cut.axis) if isinstance(cut, Cut) else np.array(arrays[cut])
        return tree.unflatten(whole, pieces[0])

    def bytes(self, opt: Any, dtype: str = "float32") -> list[Share]:
        """Return how many bytes every rank has and sends.

        Parameters
        ----------
        opt : Amos or ClosedFormAmos
        dtype : str
            Of the parameters.

        Returns
        -------
        list of Share
            For each rank ``(parameters, state, payload)``; the payload is what it sends to all others in a step.

        Examples
        --------
        >>> import amos_ref
        >>> layout = amos_ref.mpi.Layout({"w": (640, 100)}, {"w": (0, (0, 256, 640))})
        >>> layout.bytes(amos_ref.Amos(slot_shape=lambda name, shape: (1, 100)))
        [Share(parameters=102400, state=1600, payload=3200), Share(parameters=153600, state=1600, payload=4800)]
        """
        self.check(opt)
        slots, width = slot_shapes(opt, self.shapes), dtype_of(dtype).itemsize
        kept = opt._state_dtype(dtype_of(dtype)).itemsize
        parts = PARTS[opt.state_type]
        entries, in_slots, leaves, sent = np.zeros((4, self.ranks), np.int64)
        for name, cut in self.cuts.items():
            size, slot = _size(self.shapes[name]), _size(slots[name])
            if not isinstance(cut, Cut):
                entries[cut] += size
                in_slots[cut] += slot
                leaves[cut] += 1
                continue
            piece, here = Piece(self.shapes[name], slots[name], *cut), np.diff(cut.edges)
            n = self.shapes[name][cut.axis]
            entries += here * (size // n)
            in_slots += slot if piece.shared else here * (slot // n)
            leaves += 1
            sent += piece.counts() if piece.shared else 0
        state = kept * (in_slots * len(parts.slots) + entries * len(parts.entries) * opt.averages)
        state += 8 * leaves * len(parts.constants)
        return [Share(*map(int, each)) for each in zip(width * entries, state, 8 * sent, strict=True)]

    def to_json(self) -> str:
        """Return the layout as JSON, which :meth:`from_json` reads."""
        leaves = {}
        for name, cut in self.cuts.items():
            place = {"axis": cut.axis, "edges": cut.edges} if isinstance(cut, Cut) else {"rank": cut}
            leaves[name] = {"shape": self.shapes[name], **place}
        return json.dumps({"format": FORMAT, "ranks": self.ranks, "leaves": leaves}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """Return the layout that :meth:`to_json` wrote; raise LayoutError if it is none."""
        try:
            data = json.loads(text)
            leaves = data["leaves"]
            if data["format"] != FORMAT or not leaves:
                raise KeyError("format")
            shapes = {name: tuple(leaf["shape"]) for name, leaf in leaves.items()}
            cuts = {
                name: leaf["rank"] if "rank" in leaf else (leaf["axis"], leaf["edges"]) for name, leaf in leaves.items()
            }
            ranks = data["ranks"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LayoutError(f"this is no layout in JSON: {type(error).__name__}: {error}") from None
        try:
            return cls(shapes, cuts, ranks)._in_order(shapes)
        except (ShapeError, TreeError) as error:
            raise LayoutError(f"this is no layout in JSON: {error}") from None

    def _in_order(self, names: Iterable[str]) -> "Layout":
        """Put the leaves in the order of a tree that is not at hand."""
        self.shapes = {name: self.shapes[name] for name in names}
        self.cuts = {name: self.cuts[name] for name in self.shapes}
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __repr__(self) -> str:
        cut = sum(isinstance(cut, Cut) for cut in self.cuts.values())
        leaves, ranks = counted(len(self.shapes), "leaf", "leaves"), counted(self.ranks, "rank")
        return f"<Layout of {leaves} over {ranks}, {cut} of them cut>"


def read_shapes(shapes: Any) -> dict[str, Shape]:
    """Return the shape of every leaf by name, in the order in which steps have the leaves of such a tree."""
    found = {name: leaf.shape for name, leaf in read_tree(shapes).items()}
    if isinstance(shapes, Mapping) and {str(key) for key in shapes} >= set(found):
        return {name: found[name] for name in tree.flatten(dict.fromkeys(found))}
    return found


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=object)) if shape else 1


def _as_ranks(ranks: Any) -> int:
    try:
        count = operator.index(ranks)
    except TypeError:
        count = 0
    if isinstance(ranks, bool) or count < 1:
        raise LayoutError(f"ranks is {ranks!r:.60}; it must be an integer >= 1")
    return count


def _read_cut(name: str, shape: Any, given: Any) -> int | Cut:
    """Return a cut as it is kept, or raise LayoutError."""
    as_shape(name, shape)
    try:
        if not isinstance(given, bool) and getattr(given, "__index__", None) is not None:
            return operator.index(given)
        axis, edges = list(given)  # pyright: ignore[reportArgumentType]
        axis, edges = operator.index(axis), tuple(map(operator.index, edges))
    except (TypeError, ValueError):
        raise LayoutError(f"the cut of leaf {name!r} is {given!r:.80}; it must be a rank or (axis, edges)") from None
    if not 0 <= axis < len(shape) or shape[axis] < 2:
        raise LayoutError(f"leaf {name!r} of shape {shape} is cut along axis {axis}; it needs an axis longer than 1")
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != shape[axis] or list(edges) != sorted(edges):
        raise LayoutError(
            f"leaf {name!r} has edges {edges!s:.80}; they must begin with 0, end with {shape[axis]} and never fall"
        )
    return Cut(axis, edges)


def _check_edges(name: str, piece: Piece) -> None:
    """Raise LayoutError for an edge inside a group of sums, or an axis inside a run."""
    unit, n = piece.unit, piece.shape[piece.axis]
    if unit == 0 and any(0 < edge < n for edge in piece.edges):
        first = next(k for k in range(piece.axis) if piece.shape[k] > 1 and _in_run(piece, k))
        raise LayoutError(
            f"leaf {name!r} of shape {piece.shape} with slots {piece.slot} is cut along axis {piece.axis}, which is "
            f"summed as one with axis {first} before it; cut axis {first}"
        )
    for edge in piece.edges:
        if 0 < edge < n and edge % unit:
            low = edge // unit * unit
            near = f"{low} and {min(low + unit, n)}"
            raise LayoutError(
                f"leaf {name!r} of shape {piece.shape} with slots {piece.slot} is cut at {edge} of axis {piece.axis}; "
                f"the nearest legal edges are {near} (multiples of {unit})"
            )


def _in_run(piece: Piece, axis: int) -> bool:
    return Piece(piece.shape, piece.slot, axis, (0, piece.shape[axis])).run == piece.run
