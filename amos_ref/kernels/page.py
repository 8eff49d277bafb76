"""The page itself as a backend, in NumPy."""

from collections.abc import Sequence
from typing import Any

from amos_ref.dtypes import round_like, vanishes
from amos_ref.kernels import BEGINNING, At, HostBackend, Method, PlainWork, Sharing, insist
from amos_ref.kernels.shared import pages


class Work(PlainWork):
    """The leaves of a step; see :class:`amos_ref.kernels.Work`."""

    leaves: Sequence[Any]
    method: Method
    sharing: Sharing | None
    late: BaseException | None
    vanished: Sequence[int]
    keeps = False

    def __init__(self, leaves: Sequence[Any], method: Method, sharing: Sharing | None = None) -> None:
        self.leaves, self.method, self.sharing = leaves, method, sharing

    def run(self, rates: Any, *, at: At = BEGINNING, stream: Any = None, sync: bool = True) -> int:
        """Advance all leaves in place; everything is computed before anything is written."""
        rows, vanished = [], []
        for number, (leaf, after) in enumerate(pages(self.leaves, self.method, rates, self.sharing)):
            rows += [(target, round_like(after[name], target)) for name, target in leaf.written().items()]
            if leaf.state and vanishes(after["g2"], round_like(after["v"], leaf.state[0])):
                vanished.append(number)

        def write() -> None:
            for target, value in rows:
                target[...] = value

        self.begun = True
        self.late, self.vanished = insist(write), vanished
        return -1

    def take(self, gradients: Sequence[Any], addresses: Any) -> None:
        raise AssertionError("the page keeps no layout")


class PageBackend(HostBackend):
    """See :class:`amos_ref.kernels.Backend`."""

    def prepare(self, leaves: Sequence[Any], method: Method) -> Work:
        return Work(leaves, method)

    def prepare_parts(self, leaves: Sequence[Any], method: Method, sharing: Sharing) -> Work:
        return Work(leaves, method, sharing)

    def watch(self, arrays: Sequence[Any], fixed: int) -> None:
        return None


BACKEND = PageBackend()
