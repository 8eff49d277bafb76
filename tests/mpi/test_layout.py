"""Layouts: cuts that keep all bits, even ones, JSON, pieces and back."""

import json

import numpy as np
import pytest
from helpers import layouts
from helpers.layouts import KINDS, slot_of, tree_of
from helpers.messages import one_line

import amos_ref
from amos_ref import spec, tree
from amos_ref.errors import LayoutError, ShapeError, TreeError
from amos_ref.kernels.shared import Piece
from amos_ref.mpi import Layout
from amos_ref.mpi.cutting import best_way, slot_shapes

OPT = amos_ref.Amos(slot_shape=slot_of)
SHAPES = {name: shape for name, (shape, _) in KINDS.items()}


def one(name, axis, *edges):
    return Layout({name: KINDS[name][0]}, {name: (axis, (0, *edges, KINDS[name][0][axis]))})


LEGAL = {
    "element: anywhere": one("element", 1, 4),
    "kept axis: anywhere": one("rows", 0, 3),
    "columns: between them": one("columns", 1, 1),
    "columns: 64 rows": one("columns", 0, 64 * 7),
    "inside a row: 8192": one("rows", 1, 8192),
    "a tensor: rows that make 8192": one("tensor", 0, 1024),
    "an outer reduced axis: anywhere": one("outer", 0, 1),
    "mixed: 64 of the innermost": one("mixed", 2, 128),
    "empty parts": one("vector", 0, 0, 8192, 8192, 20001),
}
ILLEGAL = {
    "row 65 of columns": (one("columns", 0, 65), "64 and 128"),
    "inside a row": (one("rows", 1, 9000), "8192 and 16384"),
    "behind the last multiple": (one("vector", 0, 16385), "16384 and 20001"),
    "mixed": (one("mixed", 2, 100), "64 and 128"),
    "a tensor": (one("tensor", 0, 512), "0 and 1024"),
    "behind another axis of the run": (one("tensor", 1, 12), "cut axis 0"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_cut(name):
    LEGAL[name].check(OPT)


@pytest.mark.parametrize("name", ILLEGAL)
def test_an_illegal_cut_names_the_nearest_legal_edges(name):
    layout, words = ILLEGAL[name]
    with pytest.raises(LayoutError, match=words) as error:
        layout.check(OPT)
    one_line(error.value, [repr(*layout.shapes)])


def test_the_unit_of_edges_is_the_smallest_that_is_right():
    """Against the definition: between two indices there may be a cut if no group of sums has elements of both."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 64, 100, 128, 300], rng.integers(1, 4)))
        slot = tuple(n if rng.random() < 0.4 else 1 for n in shape)
        for axis, n in enumerate(shape):
            if n < 2:
                continue
            piece = Piece(shape, slot, axis, (0, n))
            legal = [edge for edge in range(1, n) if keeps_groups(shape, slot, axis, edge)]
            units = range(piece.unit, n, piece.unit) if piece.unit else []
            assert legal == list(units), (shape, slot, axis)


def keeps_groups(shape, slot, axis, edge):
    """Whether a cut leaves every group of the innermost reduced run in one part, and the parts behind one another."""
    runs = spec.runs(shape, slot)
    sums = max((k for k, (reduced, _) in enumerate(runs) if reduced), default=-1)
    if sums < 0 or slot[axis] != 1:
        return True
    part = np.zeros(shape, bool)
    part[(slice(None),) * axis + (slice(edge, None),)] = True
    lengths = [n for _, n in runs]
    grouped = np.moveaxis(part.reshape(lengths), sums, -1)
    size = spec.CHUNK if sums == len(runs) - 1 else spec.ROWS
    groups = [grouped[..., k : k + size] for k in range(0, lengths[sums], size)]
    whole = all((group.all(-1) | ~group.any(-1)).all() for group in groups)
    # Parts must lie behind one another in the run, too: a part is one stretch of it.
    edges = np.diff(grouped.astype(np.int8), axis=-1)
    return bool(whole and (np.abs(edges).sum(-1) <= 1).all())


def test_pieces_and_back():
    rng = np.random.default_rng(1)
    params = {"a": [tree_of(rng, KINDS, "float32")], "b": ()}
    named = {f"a/0/{name}": name for name in KINDS}
    layout = Layout(params, {leaf: layouts.cut(rng, *KINDS[name], 3) for leaf, name in named.items()}, 3)
    pieces = [layout.pieces(params, rank) for rank in range(3)]
    for rank, piece in enumerate(pieces):
        for leaf, a in tree.flatten(piece).items():
            assert layout.shape(leaf, rank) == (None if a is None else a.shape)
            assert a is None or a.flags.c_contiguous
    whole = layout.join(pieces)
    for name, a in params["a"][0].items():
        assert whole["a"][0][name].tobytes() == a.tobytes()
    pieces[1]["a"][0]["vector"] = np.zeros(1)
    with pytest.raises(LayoutError, match="'a/0/vector' on rank 1"):
        layout.join(pieces)
    with pytest.raises(LayoutError, match="2 ranks"):
        layout.join(pieces[:2])


def test_pieces_of_gradients_that_are_none():
    layout = one("columns", 0, 64)
    assert layout.pieces({"columns": None}, 1) == {"columns": None}


@pytest.mark.parametrize(
    ("full", "rank", "error"),
    [
        ({"columns": np.zeros((9000, 3))}, 2, LayoutError),
        ({"columns": np.zeros((9000, 2))}, 0, ShapeError),
        ({"rows": np.zeros((9000, 3))}, 0, TreeError),
    ],
)
def test_pieces_of_another_tree(full, rank, error):
    with pytest.raises(error):
        one("columns", 0, 64).pieces(full, rank)


BAD = {
    "no cut": {},
    "another leaf": {"w": 0, "x": 1},
    "a word": {"w": "all"},
    "a truth value": {"w": True},
    "a rank that is none": {"w": -1},
    "an axis that is none": {"w": (2, (0, 6))},
    "an axis of one": {"w": (1, (0, 1))},
    "not from 0": {"w": (0, (1, 6))},
    "not to the end": {"w": (0, (0, 5))},
    "falling": {"w": (0, (0, 4, 3, 6))},
    "no edges": {"w": (0, ())},
    "half": {"w": (0, (0, 2.5, 6))},
}


@pytest.mark.parametrize("name", BAD)
def test_a_cut_that_is_none(name):
    with pytest.raises(LayoutError) as error:
        Layout({"w": (6, 1)}, BAD[name])
    one_line(error.value, ["leaf '"])


def test_ranks_that_do_not_fit():
    with pytest.raises(LayoutError, match="3 edges; 3 ranks need 4"):
        Layout({"w": (6,), "x": (6,)}, {"w": (0, (0, 2, 6)), "x": (0, (0, 2, 4, 6))}, 3)
    with pytest.raises(LayoutError, match="rank 2"):
        Layout({"w": (6,), "x": (6,)}, {"w": (0, (0, 2, 6)), "x": 2})
    for ranks in (0, 1.5, True, "two"):
        with pytest.raises(LayoutError):
            Layout.even({"w": (6,)}, ranks, OPT)
    with pytest.raises(LayoutError, match="balance"):
        Layout.even({"w": (6,)}, 2, OPT, balance="all")


@pytest.mark.parametrize("balance", ["whole", "each"])
def test_even_layouts_are_legal_and_even(balance):
    rng = np.random.default_rng(2)
    for _ in range(30):
        ranks = int(rng.integers(1, 9))
        shapes = {
            f"{n}": tuple(int(n) for n in rng.choice([1, 3, 64, 768, 4096], rng.integers(0, 4)))
            for n in range(rng.integers(1, 12))
        }
        opt = amos_ref.Amos(slot_shape=lambda name, shape: shape[-1:] if int(name) % 2 else ())
        layout = Layout.even(shapes, ranks, opt, balance)
        layout.check(opt)
        assert layout.ranks == ranks
        slots = slot_shapes(opt, shapes)
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        for name, cut in layout.cuts.items():
            way = best_way(shapes[name], slots[name], ranks) if ranks > 1 else None
            if balance == "each" or sizes[name] * ranks > sum(sizes.values()):
                assert isinstance(cut, int) == (way is None)
            if not isinstance(cut, int):
                assert cut.axis == way.axis
                least, most = (int(f(np.diff(cut.edges))) for f in (min, max))
                assert most - least < 2 * way.unit  # a unit more, or the last one is not whole


def test_ranks_that_have_less_get_more_where_there_are_fewer_units_than_ranks():
    """64 leaves of 12 units each over 64 ranks: not always the same 12 have one."""
    opt = amos_ref.Amos(slot_shape=lambda name, shape: (1, shape[1]))
    shapes = {f"{k}": (768, 3) for k in range(64)}
    layout = Layout(shapes, dict(Layout.even(shapes, 64, opt, "each").cuts))
    layout.check(opt)
    assert {share.parameters for share in layout.bytes(opt)} == {64 * 768 * 3 * 4 // 64}


def test_a_leaf_is_cut_where_a_rank_would_have_too_much():
    """Three leaves of one size over two ranks: the third is cut."""
    opt = amos_ref.Amos(slot_shape="element")
    layout = Layout.even(dict.fromkeys("abc", (100, 10)), 2, opt)
    assert [layout.cuts[name] for name in "abc"] == [0, 1, (0, (0, 50, 100))]
    assert {share.parameters for share in layout.bytes(opt)} == {6000}


def test_an_even_layout_of_a_language_model():
    """As few leaves are cut as can be, and the most that a rank has is a hundredth above the mean."""
    shapes = {"wte": (50257, 768), "wpe": (1024, 768)}
    for k in range(12):
        block = {"qkv": (768, 2304), "out": (768, 768), "up": (768, 3072), "down": (3072, 768)}
        shapes |= {f"h{k}/{name}": shape for name, shape in block.items()}
    opt = amos_ref.Amos(slot_shape=lambda name, shape: (1, shape[1]))
    layout = Layout.even(shapes, 8, opt)
    assert [name for name, cut in layout.cuts.items() if not isinstance(cut, int)] == ["wte"]
    sizes = [share.parameters for share in layout.bytes(opt)]
    assert max(sizes) < 1.1 * sum(sizes) / 8
    assert {share.payload for share in layout.bytes(opt)} == {0}  # between columns


def test_json_both_ways():
    layout = layouts.layout_of(np.random.default_rng(3), 4)
    assert Layout.from_json(layout.to_json()) == layout
    assert Layout.from_json(layout.to_json()).cuts == layout.cuts
    assert layout != one("columns", 0, 64)
    data = json.loads(layout.to_json())
    assert list(data["leaves"]) == sorted(KINDS)  # as a tree has them
    nested = Layout({"a": [(4,)] * 11}, {f"a/{k}": 0 for k in range(11)})
    assert list(Layout.from_json(nested.to_json()).shapes) == [f"a/{k}" for k in range(11)]
    for text in ("", "[]", "{}", '{"format": "amos-ref-layout", "ranks": 2, "leaves": {}}', layout.to_json()[:-1]):
        with pytest.raises(LayoutError, match="JSON"):
            Layout.from_json(text)
    data["leaves"]["columns"]["edges"] = [0, 1]
    with pytest.raises(LayoutError):
        Layout.from_json(json.dumps(data))
    data["leaves"]["columns"]["shape"] = [-1]
    with pytest.raises(LayoutError):
        Layout.from_json(json.dumps(data))


def test_a_layout_prints_what_it_is():
    assert repr(one("columns", 0, 64)) == "<Layout of 1 leaf over 2 ranks, 1 of them cut>"
    assert repr(Layout({"a": (2,), "b": (2,)}, {"a": 0, "b": 0})) == "<Layout of 2 leaves over 1 rank, 0 of them cut>"
