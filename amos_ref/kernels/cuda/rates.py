"""The numbers that change from step to step, on the device: a recorded step moves them on by itself.

They lie side by side: the last two of what *direct* takes, if it takes any, and the first two of what *decide* does. In
a steady run (see :class:`amos_ref.kernels.At`) the first follows from the count of the steps, and the others stay.
Elsewhere the host puts them there for each step of an optimizer. Replays of a graph that somebody else has recorded
read all from a table of the next steps, and a replay past its end writes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.kernels import At, Method, Rates
from amos_ref.kernels.cuda import arrays, driver
from amos_ref.kernels.cuda.arrays import DeviceArray
from amos_ref.kernels.cuda.memory import device, putter
from amos_ref.kernels.cuda.scalar import add, multiply
from amos_ref.kernels.cuda.slots import NONE, first_number, integer, kernel, lower, put_real, real

# At a place: the steps so far; the next row of the table, all rows, and their address.
COUNT, NEXT, ENTRIES, TABLE = range(4)
STEADY = -1  # for the rows, where the numbers follow from the count and no table is read
BY_HOST = -2  # for the rows, where the host has put the numbers there
PAST = NONE - 1  # the flag after a replay for which there was no row; any leaf's number is less
MOST_COUNT = 2**62  # 1 - beta^t is 1 long before, for every beta below 1

put_integer: Any = putter("int64")


@device
def one_minus_power(beta: Any, t: Any) -> Any:
    """:func:`amos_ref.spec.one_minus_power`; the zeros before the first bit of t leave q at 0."""
    q: Any = 0.0
    for k in range(62, -1, -1):
        q = multiply(q, add(2.0, -q))
        if (t >> k) & 1:
            q = add(add(1.0, -beta), multiply(beta, q))
    return q


def all_numbers(rates: Rates) -> tuple[float, ...]:
    """Return the numbers of a step as they lie on the device."""
    return rates.chi, rates.mu, *(rates.aims or ()), *rates.numbers


def moving_places(method: Method) -> slice:
    """Return which of them change from step to step."""
    first = first_number(method)
    return slice(first - min(len(method.direction._fields), 2) if method.direction else first, first + 2)


@kernel
def next_numbers(moving, count_moving, place, flag, beta):
    """Put the numbers of the next step where its kernels find them, and count it; one thread.

    Behind a step that wrote nothing no step counts.
    """
    if integer(flag, 0) != NONE:
        return
    count, row, rows = integer(place, COUNT) + 1, integer(place, NEXT), integer(place, ENTRIES)
    if rows >= 0 and row >= rows:
        lower(flag, PAST)
        return
    put_integer(place, COUNT, count)
    if rows == STEADY:
        put_real(moving, 0, one_minus_power(beta, count))
    elif rows >= 0:
        entry = integer(place, TABLE) + 8 * count_moving * row
        for k in range(count_moving):
            put_real(moving, k, real(entry, k))
        put_integer(place, NEXT, row + 1)


class Numbers:
    """The numbers of a step on the current device, and by what they move on.

    Attributes
    ----------
    rates : DeviceArray
        The numbers.
    steps, replays : DeviceArray
        Two places (see `COUNT`): for the steps of an optimizer, and for replays, which the host does not see.
    """

    def __init__(self, method: Method) -> None:
        self.moving, self.first = moving_places(method), first_number(method)
        self.rates: DeviceArray = arrays.allocate(self.first + method.numbers)
        self.steps, self.replays = (arrays.upload(np.zeros(8, np.int64)) for _ in range(2))
        self.table: DeviceArray = arrays.allocate(2)
        self.known: tuple[float, ...] | None = None  # what is at `rates`, NaN where the device may have changed it
        self.counted: tuple[int, int] | None = None  # the count and the rows at `steps`, where they are known
        self.placed: np.ndarray | None = None  # what was written at `replays` last
        self.launched, self.in_turn = 0, True  # steps since the host waited, and whether each followed the one before

    def put(self, numbers: tuple[float, ...], stream: int) -> None:
        """Put all numbers there, in the order of the stream."""
        if numbers != self.known:
            known = None if self.known is None else np.array(self.known)
            arrays.refill(self.rates, np.array(numbers), stream, known)
            self.known = numbers

    def begin(self, rates: Rates, at: At, stream: int) -> None:
        """Have the next launch of `move` at `steps` take the step that is at `at`."""
        count, rows = min(at.count, MOST_COUNT), STEADY if at.steady else BY_HOST
        numbers, q = all_numbers(rates), self.first
        known = self.known
        if not at.steady or known is None or (numbers[:q], numbers[q + 1 :]) != (known[:q], known[q + 1 :]):
            self.put(numbers, stream)
        if at.steady and numbers == self.known:
            self.forget(slice(q, q + 1))
        if self.counted != (count, rows):
            before = None if self.counted is None else np.array([self.counted[0], 0, self.counted[1], 0])
            arrays.refill(self.steps, np.array([count, 0, rows, 0]), stream, before)
            self.in_turn &= self.launched == 0
        self.counted = None  # until the step is launched

    def end(self, at: At) -> None:
        """Remember that `move` was launched at `steps`."""
        self.counted = min(at.count, MOST_COUNT) + 1, STEADY if at.steady else BY_HOST
        self.launched += 1

    def taken(self, stream: int) -> int | None:
        """Wait; return how many steps have been taken before the one that wrote nothing, if they are all in turn."""
        self.counted = None
        return int(arrays.read(self.steps, stream)[COUNT]) - 1 if self.in_turn else None

    def waited(self, replays: bool) -> None:
        """Remember that the host has waited, and whether the next step may be a replay that it does not see."""
        self.launched, self.in_turn = 0, not replays

    def move(self, place: DeviceArray, flag: int, beta: float, stream: int) -> None:
        """Launch what moves the numbers on, or have it recorded."""
        first, count = self.rates.address + 8 * self.moving.start, self.moving.stop - self.moving.start
        driver.launcher(next_numbers, 1, 1, stream)(first, count, place.address, flag, beta)

    def set_replays(self, at: At, stream: int, numbers: Sequence[tuple[float, ...]] = ()) -> None:
        """Have the next replay take the step that is at `at`, and those that follow these rows of numbers."""
        table = np.array(numbers).reshape(-1)
        if not at.steady and self.table.size < table.size:
            driver.synchronize(stream)  # replays may read the old one
            self.table, self.placed = arrays.allocate(table.size), None
        if numbers and not at.steady:
            arrays.refill(self.table, table, stream)
        rows = STEADY if at.steady else len(numbers)
        place = np.array([min(at.count, MOST_COUNT), 0, rows, self.table.address])
        # What replays change is written each time.
        known = None if self.placed is None else np.where([True, True, False, False], ~place, self.placed)
        arrays.refill(self.replays, place, stream, known)
        self.placed = place

    def advance(self, rates: Sequence[Rates], at: At, stream: int) -> None:
        """Make ready for the replays of the next steps."""
        q = self.first
        if at.steady and self.known is not None and self.known[q + 1] != rates[0].numbers[1]:
            self.put(all_numbers(rates[0]), stream)
        self.set_replays(at, stream, [all_numbers(r)[self.moving] for r in rates])
        if not at.steady:
            self.forget(self.moving)

    def forget(self, which: slice) -> None:
        """Those numbers of a step are moved on by the device."""
        if self.known is not None:
            known = np.array(self.known)
            known[which] = np.nan
            self.known = tuple(known.tolist())
