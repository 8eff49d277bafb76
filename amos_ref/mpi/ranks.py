"""The communicator as a sharded step uses it, with a limit to how long it waits."""

import importlib
import time
from typing import Any

import numpy as np

from amos_ref.errors import HyperParameterError, MissingDependencyError, RankError

LOOK_EVERY = 1e-4  # seconds between two looks at whether the others have come


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

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default all ranks of the job.
    timeout : float, optional
        How many seconds to wait for the other ranks before a RankError; by default for ever. After that error the
        communicator cannot be used any more.
    """

    rank: int
    size: int

    def __init__(self, comm: Any = None, timeout: float | None = None) -> None:
        if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
            raise HyperParameterError(f"timeout is {timeout!r:.60}; it must be None or seconds > 0")
        self.comm: Any = world() if comm is None else comm
        self.timeout = timeout
        self.rank, self.size = int(self.comm.Get_rank()), int(self.comm.Get_size())
        self._min: Any = importlib.import_module(type(self.comm).__module__).MIN

    def least(self, values: np.ndarray) -> np.ndarray:
        """Return the least of all ranks' values, entry by entry."""
        found = np.empty_like(values)
        if self.timeout is None:
            self.comm.Allreduce(values, found, op=self._min)
        else:
            self._wait(self.comm.Iallreduce(values, found, op=self._min))
        return found

    def gather(self, sent: np.ndarray, received: np.ndarray, counts: np.ndarray) -> None:
        """Fill `received` with what all ranks send, in the order of the ranks; they send so many numbers each."""
        if self.timeout is None:
            self.comm.Allgatherv(sent, [received, counts])
        else:
            self._wait(self.comm.Iallgatherv(sent, [received, counts]))

    def tell(self, what: Any) -> list[Any]:
        """Return what all ranks say, for small things off the way of a step."""
        return self.comm.allgather(what)

    def say(self, what: Any) -> Any:
        """Return what rank 0 says."""
        return self.comm.bcast(what, root=0)

    def send(self, data: np.ndarray, rank: int) -> None:
        """Send bytes to one rank."""
        self.comm.Send(data, rank)

    def receive(self, data: np.ndarray, rank: int) -> None:
        """Fill an array of bytes with what one rank sends."""
        self.comm.Recv(data, rank)

    def _wait(self, request: Any) -> None:
        """Wait for the other ranks; raise RankError if that takes too long."""
        end = time.monotonic() + float(self.timeout or 0.0)
        while not request.Test():
            if time.monotonic() > end:
                raise RankError(
                    f"rank {self.rank} has waited {self.timeout:g} s for the other ranks, of which one has not come; "
                    "end this job, as what was begun cannot be taken back"
                )
            time.sleep(LOOK_EVERY)
