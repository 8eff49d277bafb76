"""The numbers that change from step to step, on the device: a recorded step moves them on by itself.

They lie side by side: the last two of what *direct* takes, if it takes any, and the first two of what *decide* does. In
a steady run (see :class:`amos_ref.kernels.At`) the first follows from the count of the steps, and the others stay.
Elsewhere all come from a table of the next steps, and a replay past its end writes nothing.
"""

from typing import Any

from amos_ref.kernels import Method, Rates
from amos_ref.kernels.cuda.memory import device, putter
from amos_ref.kernels.cuda.scalar import add, multiply
from amos_ref.kernels.cuda.slots import NONE, first_number, integer, kernel, lower, put_real, real

# At `place`: the steps so far; the next row of the table, all rows, and their address.
COUNT, NEXT, ENTRIES, TABLE = range(4)
STEADY = -1  # for the rows, where the numbers follow from the count and no table is read
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
    """Put the numbers of the next step where its kernels find them; one thread."""
    count = integer(place, COUNT) + 1
    put_integer(place, COUNT, count)
    rows = integer(place, ENTRIES)
    if rows == STEADY:
        put_real(moving, 0, one_minus_power(beta, count))
        return
    row = integer(place, NEXT)
    if row >= rows:
        lower(flag, PAST)
        return
    entry = integer(place, TABLE) + 8 * count_moving * row
    for k in range(count_moving):
        put_real(moving, k, real(entry, k))
    put_integer(place, NEXT, row + 1)
