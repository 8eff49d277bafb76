"""The communicator as a sharded step uses it, with a limit to how long it waits."""

import importlib
import pickle
import time
from typing import Any, NoReturn

import numpy as np

from amos_ref.errors import HyperParameterError, MissingDependencyError, RankError

TAG = 20110  # of messages between two ranks, so that those of the caller are not taken for them
LOOKS = 200  # at whether the others have come, before a rank begins to sleep in between
LOOK_EVERY = 1e-4  # seconds between two looks


def world() -> Any:
    """Return MPI's communicator of all ranks; raise MissingDependencyError where there is no MPI."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise MissingDependencyError(f"amos_ref.mpi needs mpi4py ({error}): pip install mpi4py mpich") from None
    except RuntimeError as error:  # mpi4py is there and no MPI library, or one that it was not built for
        raise MissingDependencyError(
            f"mpi4py finds no MPI library that it can load ({error}): pip install mpich, or install mpi4py anew beside "
            "the MPI of this machine"
        ) from None
    return MPI.COMM_WORLD


class Ranks:
    """A communicator of mpi4py.

    Everything is sent by calls that do not wait, which are then waited for. So a rank with a time limit and one without
    can work together: MPI does not match a call that waits with one that does not.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default all ranks of the job.
    timeout : float, optional
        How many seconds to wait for the other ranks before a RankError; by default for ever. After that error the
        communicator cannot be used any more, and every other call raises it at once.
    """

    rank: int
    size: int

    def __init__(self, comm: Any = None, timeout: float | None = None) -> None:
        self.comm: Any = world() if comm is None else comm
        self.timeout = timeout
        self._limit = float(timeout) if _is_limit(timeout) and timeout is not None else None
        self._over = ""
        self._unfinished: list[Any] = []  # MPI may still read and write these
        self.rank, self.size = int(self.comm.Get_rank()), int(self.comm.Get_size())
        self._min: Any = importlib.import_module(type(self.comm).__module__).MIN

    def check(self) -> None:
        """Raise HyperParameterError if the time limit is none; this is a method so that all ranks can hear of it."""
        if not _is_limit(self.timeout):
            raise HyperParameterError(f"timeout is {self.timeout!r:.60}; it must be None or seconds > 0")

    def least(self, values: np.ndarray) -> np.ndarray:
        """Return the least of all ranks' values, entry by entry."""
        found = np.empty_like(values)
        self._do(self.comm.Iallreduce, values, found, op=self._min)
        return found

    def gather(self, sent: np.ndarray, received: np.ndarray, counts: np.ndarray) -> None:
        """Fill `received` with what all ranks send, in the order of the ranks; they send so many numbers each."""
        self._do(self.comm.Iallgatherv, sent, [received, counts])

    def tell(self, what: Any) -> list[Any]:
        """Return what all ranks say, for small things off the way of a step."""
        data, sizes = np.frombuffer(pickle.dumps(what), np.uint8), np.empty(self.size, np.int64)
        self._do(self.comm.Iallgather, np.array([data.size], np.int64), sizes)
        received = np.empty(int(sizes.sum()), np.uint8)
        self._do(self.comm.Iallgatherv, data, [received, sizes])
        return [pickle.loads(part.tobytes()) for part in np.split(received, np.cumsum(sizes)[:-1])]

    def say(self, number: int) -> int:
        """Return the number that rank 0 says."""
        said = np.array([number], np.int64)
        self._do(self.comm.Ibcast, said, root=0)
        return int(said[0])

    def send(self, data: np.ndarray, rank: int) -> None:
        """Send bytes to one rank."""
        self._do(self.comm.Isend, data, rank, TAG)

    def receive(self, data: np.ndarray, rank: int) -> None:
        """Fill an array of bytes with what one rank sends."""
        self._do(self.comm.Irecv, data, rank, TAG)

    def _do(self, begin: Any, *args: Any, **how: Any) -> None:
        """Begin a call and wait until it is done; raise RankError if that takes too long."""
        if self._over:
            raise RankError(self._over)
        request = begin(*args, **how)
        if self._limit is None:
            request.Wait()
            return
        end, looks = time.monotonic() + self._limit, 0
        while not request.Test():
            if time.monotonic() > end:
                self._unfinished += [request, args]
                self._give_up()
            looks += 1
            if looks > LOOKS:
                time.sleep(LOOK_EVERY)

    def _give_up(self) -> NoReturn:
        self._over = (
            f"rank {self.rank} has waited {self._limit:g} s for the other ranks, of which one has not come; "
            "end this job, as what was begun cannot be taken back"
        )
        raise RankError(self._over)


def _is_limit(timeout: Any) -> bool:
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    return timeout is None or (number and 0 < timeout < float("inf"))
