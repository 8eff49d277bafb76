"""Partial sums of parts of arrays on their way over the host: they are few beside the entries that they are made of."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.kernels import Sharing
from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda.arrays import DeviceArray
from amos_ref.kernels.way import Way


class HostSums:
    """The sums of all tables whose slots other parts of their arrays share, with room for them in NumPy's memory.

    Parameters
    ----------
    sharing : Sharing
    leaves : sequence
        All leaves of the step.
    parts : list
        All tables on the device; of those with shared sums their addresses `sums` and `means` are used.
    """

    def __init__(self, sharing: Sharing, leaves: Sequence[Any], parts: Sequence[Any]) -> None:
        self.parts: list[Any] = [part for part in parts if part.table.key.shared]
        self.way = Way(sharing, leaves, [part.table for part in self.parts])
        self.scratch = [(np.empty(part.table.sums), np.empty(part.table.places)) for part in self.parts]

    def fetch(self, stream: int) -> None:
        """Copy the sums from the device, when the stream has made them."""
        for part, (sums, _) in zip(self.parts, self.scratch, strict=True):
            arrays.read_into(sums, part.sums, stream)

    def bring_together(self, bad: int, rates: Any) -> None:
        """Make the mean squares of the sums of all parts, or raise what is wrong anywhere; see :class:`Way`."""
        with np.errstate(all="ignore"):
            self.way.bring_together(bad, rates, self.scratch)

    def put(self, stream: int) -> None:
        """Copy the mean squares to the device, in the order of a stream."""
        for part, (_, means) in zip(self.parts, self.scratch, strict=True):
            arrays.refill(DeviceArray(means.shape, means.dtype, part.means, True, None), means, stream)
