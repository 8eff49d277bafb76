"""Groups that a part has whole are added up before they are sent: fewer numbers, and the bits of the page."""

import itertools

import numpy as np
import pytest
from helpers import strategies as own

import amos_ref
from amos_ref import spec
from amos_ref.kernels import blocks, shared
from amos_ref.kernels.blocks import Blocks, TornGroup
from amos_ref.kernels.shared import Piece, Route
from amos_ref.mpi import Layout


def random_blocks(rng, rows):
    """A run of so many entries among parts, of which some are empty and some have one entry."""
    count = int(
        rng.choice(
            [0, 1, 2, rows, rows + 1, rows**2, rows**2 + 1, rng.integers(1, 20_000 if rows == 64 else 3 * rows**4)]
        )
    )
    edges = [0, *np.sort(rng.integers(0, count + 1, rng.integers(0, 6))).tolist(), count]
    if rng.random() < 0.3 and count:
        edges = sorted({*edges, min(edges[1] + 1, count)})
    return count, edges, Blocks(count, np.array(edges), lambda x: np.searchsorted(edges, x, "right") - 1)


@pytest.fixture(params=[2, 3, 64])
def rows(request, monkeypatch):
    """How many make a group, so that few numbers have many levels."""
    monkeypatch.setattr(spec, "ROWS", request.param)
    monkeypatch.setattr(blocks, "ROWS", request.param)
    return request.param


def test_what_is_sent_makes_the_sum_of_the_page(rows):
    rng = np.random.default_rng(rows)
    for _ in range(60):
        count, edges, found = random_blocks(rng, rows)
        x = own.numbers(rng, (count, 3), "float64", middle=0, spread=8) ** 2
        slots = np.full((len(found.level), 3), np.nan)
        for slot in np.flatnonzero(found.part >= 0):
            first, n = found.span(slot)
            part = found.part[slot]
            assert edges[part] <= first < first + n <= edges[part + 1]  # of one part
            slots[slot] = spec.sum_rows(x[None, first : first + n], 1)
        for first, n, slot in itertools.chain(*found.torn):
            assert np.isnan(slots[slot]).all()
            slots[slot] = spec.in_order(slots[first : first + n], 0)
        wanted = spec.sum_rows(x[None], 1) if count else np.zeros((0, 3))
        assert own.bits(slots[:1]) == own.bits(wanted)


def test_as_few_numbers_are_sent_as_can_be(rows):
    """Against the definition: a part sends a group if it has all of it, and not all of the group above."""
    rng = np.random.default_rng(rows)
    for _ in range(30):
        count, edges, found = random_blocks(rng, rows)
        if count > 5000:
            continue
        holder = np.searchsorted(edges, np.arange(count), "right") - 1
        wanted, size = set(), 1
        while count:
            for k in range(-(-count // size)):
                here, above = (holder[k * size : k * size + size], k * size // (size * rows) * size * rows)
                larger = holder[above : above + size * rows]
                if len(set(here)) == 1 and (len(set(larger)) > 1 or size >= count):
                    wanted.add((k * size, min(size, count - k * size)))
            if size >= count:
                break
            size *= rows
        assert sorted(found.span(k) for k in np.flatnonzero(found.part >= 0)) == sorted(wanted)


#: Shape and slot, for all ways in which sums leave.
SLOTS = {
    "columns": ((10000, 3), (1, 3)),
    "convolution": ((3, 3, 600, 2), (1, 1, 1, 2)),
    "outer": ((4200, 2, 3), (1, 2, 1)),
    "between": ((130, 2, 3, 2, 2), (1, 2, 1, 2, 1)),
    "rows of a run": ((3, 70, 2, 3), (1, 1, 2, 1)),
    "mixed": ((3, 2, 4200, 2), (1, 2, 1, 2)),
    "vector": ((30000,), ()),
    "nothing": ((0, 3), (1, 3)),
    "nothing behind": ((5, 0, 3), (1, 1, 3)),
    "sums of nothing": ((70, 3, 0), (1, 3, 1)),
}


def cuts_of(rng, shape, slot):
    for axis, n in enumerate(shape):
        if n < 2:
            continue
        unit = Piece(shape, slot, axis, (0, n)).unit
        legal = np.append(np.arange(0, n, unit), n) if unit else np.array([0, n])
        for parts in range(1, 7):
            yield axis, (0, *np.sort(rng.choice(legal, parts - 1)).tolist(), n)


def mean_over_parts(u, slot, axis, edges, change=lambda numbers, piece: numbers):
    """What a step over parts finds as the mean square of each slot, in NumPy; and how many numbers were sent."""
    pieces = [Piece(u.shape, slot, axis, edges, k) for k in range(len(edges) - 1)]
    if not pieces[0].shared:
        return None, 0
    sent = []
    for first, last, piece in zip(edges, edges[1:], pieces, strict=False):
        entries = shared.add_up_entries(u[(slice(None),) * axis + (slice(first, last),)], piece)
        assert entries.shape == (piece.outer, piece.entries_here, piece.inner)
        sent.append(change(shared.add_up_groups(entries, piece), piece))
    route = Route(pieces[:1])
    assert [len(each) for each in sent] == route.counts.tolist() == pieces[0].counts().tolist()
    route.received[:] = np.concatenate(sent)
    return shared.mean_of_sums(route.room[route.comes(0)], pieces[0]), sum(map(len, sent))


@pytest.mark.parametrize("name", SLOTS)
def test_every_cut_has_the_mean_squares_of_the_page(name):
    shape, slot = SLOTS[name]
    rng = np.random.default_rng(0)
    u = own.numbers(rng, shape, "float64", middle=0, spread=8)
    wanted, several = spec.mean_square(u, slot), 0
    for axis, edges in cuts_of(rng, shape, slot):
        found, sent = mean_over_parts(u, slot, axis, edges)
        if found is not None:
            assert own.bits(found) == own.bits(wanted), (axis, edges)
            several += sent > 0
    assert several >= 6 or 0 in shape


def backwards(numbers, piece):
    """The groups that a part has whole, combined in the wrong order."""
    return numbers[::-1].copy()


def dropped(numbers, piece):
    """The last total is lost."""
    return np.append(numbers[:-1], 0.0) if numbers.size else numbers


@pytest.mark.parametrize("change", [backwards, dropped])
@pytest.mark.parametrize("name", ["columns", "outer", "mixed"])
def test_totals_in_a_wrong_order_or_lost_are_caught(name, change):
    shape, slot = SLOTS[name]
    u = own.numbers(np.random.default_rng(1), shape, "float64", middle=0, spread=8)
    axis = shape.index(max(shape))
    edges = 0, 4096, shape[axis]
    assert own.bits(mean_over_parts(u, slot, axis, edges)[0]) == own.bits(spec.mean_square(u, slot))
    assert own.bits(mean_over_parts(u, slot, axis, edges, change)[0]) != own.bits(spec.mean_square(u, slot))


class OwnTotals(Blocks):
    """Each part adds up all that it has, whether that makes groups or not; then those totals are added."""

    def __init__(self, count, bounds, part_of):
        self.bounds = bounds
        self.level, self.part = np.array([1, 0, 0]), np.array([-1, 0, 1])
        self.torn = [[TornGroup(1, 2, 0)]]

    def span(self, slot):
        return self.bounds[slot - 1], self.bounds[slot] - self.bounds[slot - 1]


@pytest.mark.parametrize("name", ["columns", "outer", "mixed"])
def test_groups_that_are_not_whole_but_combined_are_caught(name, monkeypatch):
    shape, slot = SLOTS[name]
    u = own.numbers(np.random.default_rng(2), shape, "float64", middle=0, spread=8)
    axis = shape.index(max(shape))
    edges = 0, 64 * 33, shape[axis]
    wanted = own.bits(spec.mean_square(u, slot))
    assert own.bits(mean_over_parts(u, slot, axis, edges)[0]) == wanted
    bounds = np.array(edges) if name == "outer" else -(-np.array(edges) // 64)
    monkeypatch.setattr(shared, "Blocks", lambda count, _, part_of: OwnTotals(count, bounds, part_of))
    assert own.bits(mean_over_parts(u, slot, axis, edges)[0]) != wanted


def numbers_between(first, last, count):
    """How many sums a part sends of the entries first <= k < last of so many, counted one level at a time."""
    sent = 0
    while count > 1:
        up, down = -(-first // 64), last // 64 if last < count else -(-count // 64)
        if up >= down:
            return sent + last - first
        sent += up * 64 - first + last - min(down * 64, last)
        first, last, count = up, down, -(-count // 64)
    return sent + last - first


def test_the_payload_of_columns():
    """Of 31,250 sums of 64 a column that four parts have, 386 are sent."""
    n = 64 * 31_250
    edges = 0, n // 4 // 64 * 64, n // 2, 3 * n // 4 // 64 * 64, n
    layout = Layout({"w": (n, 3)}, {"w": (0, edges)})
    shares = [share.payload for share in layout.bytes(amos_ref.Amos(slot_shape="(1, 3)"))]
    entries = [edge // 64 for edge in edges]
    assert shares == [24 * numbers_between(*pair, 31_250) for pair in itertools.pairwise(entries)]
    assert sum(shares) == 24 * 386
