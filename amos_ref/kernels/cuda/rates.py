"""The two numbers that change from step to step, on the device: a recorded step moves them on by itself.

In a steady run (see :class:`amos_ref.kernels.At`) the first follows from the count of the steps, and the second stays.
Elsewhere both come from a table of the next steps, and a replay past its end writes nothing.
"""

from typing import Any

from amos_ref.kernels.cuda.memory import device, putter
from amos_ref.kernels.cuda.scalar import add, multiply
from amos_ref.kernels.cuda.slots import NONE, NUMBERS, integer, kernel, lower, put_real, real

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


@kernel
def next_numbers(rates, place, flag, beta):
    """Put the numbers of the next step where its kernels find them; one thread."""
    count = integer(place, COUNT) + 1
    put_integer(place, COUNT, count)
    rows = integer(place, ENTRIES)
    if rows == STEADY:
        put_real(rates, NUMBERS, one_minus_power(beta, count))
        return
    row = integer(place, NEXT)
    if row >= rows:
        lower(flag, PAST)
        return
    entry = integer(place, TABLE) + 16 * row
    put_real(rates, NUMBERS, real(entry, 0))
    put_real(rates, NUMBERS + 1, real(entry, 1))
    put_integer(place, NEXT, row + 1)
