"""What a task is: where in a table of leaves (kernels/table.py) its elements lie."""

from amos_ref.kernels.jit import inline, merge
from amos_ref.kernels.table import N

FAR = 2**21  # elements of more arrays than caches hold: two far parts of them, by turns, come faster than one


@inline
def count_up_to(x, numbers):
    """Return how many sorted integers are at most x: np.searchsorted, which takes half a second to compile."""
    count, end = 0, numbers.size
    while count < end:
        middle = (count + end) >> 1
        if numbers[middle] <= x:
            count = middle + 1
        else:
            end = middle
    return count


@inline
def leaf_of(task, starts):
    """Return the leaf that a task belongs to."""
    return count_up_to(task, starts) - 1


@inline
def onward(i, task, starts):
    """Return the leaf of a task that is leaf i's or behind it."""
    while task >= starts[i + 1]:
        i += 1
    return i


@merge
def part_of(task, last, i, starts, leaves, size):
    """Return the row of leaf i that a task is a part of, and where the part begins and ends in the leaf.

    It is empty from the task `last` on.
    """
    if task >= last:
        return 0, 0, 0
    n, k = leaves[i, N], task - starts[i]
    count = max((n + size - 1) // size, 1)
    row, start = k // count, k % count * size
    return row, row * n + start, row * n + min(start + size, n)
